"""What every attack must keep, over the whole registry: a row a name and its settings, both norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from atmc_search.attacks import ATTACKS, Attack, ThreatModel, build_attack, distance, perturb
from atmc_search.errors import SpecError
from atmc_search.spec import Component


class Case(NamedTuple):
    """A row of the table: an attack, and what it does not do."""

    name: str
    settings: dict[str, Any] = {}  # noqa: RUF012 - never written to
    moves: bool = True  # false: may give an image back as it was
    alone: bool = True  # false: one image's random numbers depend on how many others are left


CASES = [
    Case("none", moves=False),
    Case("fgsm"),
    Case("fgsm_rs"),
    Case("pgd"),
    Case("pgd", {"steps": 3, "restarts": 3}),
    Case("pgd", {"steps": 2, "step_size": 5.0}),
    Case("pgd", {"steps": 3, "random_start": False}),
    Case("pgd", {"steps": 3, "targets": 5}),
    Case("wrm", {"gamma": 0.1}),
    Case("apgd_ce", {"steps": 12}),
    Case("apgd_ce", {"steps": 3, "restarts": 3}),
    Case("apgd_t", {"steps": 12}),
    Case("apgd_t", {"steps": 3, "restarts": 2, "targets": 1}),
    Case("autoattack", {"steps": 2, "square_queries": 5}, moves=False, alone=False),
]
NORMS = get_args(ThreatModel.model_fields["norm"].annotation)


def over(cases: list[Case]) -> Any:
    return pytest.mark.parametrize(
        ("name", "settings"), [case[:2] for case in cases], ids=[f"{c.name}-{c.settings}" for c in cases]
    )


every_attack = over(CASES)
every_attack_that_moves = over([case for case in CASES if case.moves])
both_norms = pytest.mark.parametrize("norm", NORMS)
N, SHAPE, CLASSES = 12, (2, 4, 4), 3


class Doubled(nn.Module):
    """A parametrisation that counts how often it is computed."""

    calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return 2 * weight


def network(seed: int = 0) -> nn.Sequential:
    """With everything that an attack could disturb: batch norm, dropout, a frozen and a parametrised weight."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )
    parametrize.register_parametrization(model[5], "weight", Doubled())
    model[0].weight.requires_grad_(False)
    return model


def images(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(N, *SHAPE, generator=generator)
    x[0], x[1] = 0, 1  # at the edges of the box
    return x, torch.randint(CLASSES, (N,), generator=generator)


def run(attack: Attack, model: nn.Module, threat: ThreatModel, *, seed: int = 0, data: int = 0) -> Tensor:
    x, y = images(data)
    return perturb(attack, model, x, y, threat, torch.Generator().manual_seed(seed))


def built(name: str, settings: dict[str, Any]) -> Attack:
    return build_attack(Component(name=name, **settings), path="attack")


def assert_inside(threat: ThreatModel, x: Tensor, x_adv: Tensor) -> None:
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert distance(threat, x, x_adv).max() <= threat.eps + 1e-6


def test_the_table_has_every_attack() -> None:
    assert {case.name for case in CASES} == set(ATTACKS)


@every_attack
@both_norms
@pytest.mark.parametrize("eps", [0.03, 0.5, 3.0])
def test_stays_in_the_threat_model(name: str, settings: dict[str, Any], norm: Any, eps: float) -> None:
    threat = ThreatModel(norm=norm, eps=eps)
    x, y = images()
    model, attack = network(), built(name, settings)
    for until_broken in (False, True):
        x_adv = perturb(attack, model, x, y, threat, torch.Generator().manual_seed(0), until_broken=until_broken)
        assert_inside(threat, x, x_adv)
        assert not x_adv.requires_grad


@every_attack_that_moves
@both_norms
@pytest.mark.parametrize("eps", [0.03, 0.5, 3.0])
def test_moves_every_image(name: str, settings: dict[str, Any], norm: Any, eps: float) -> None:
    threat = ThreatModel(norm=norm, eps=eps)
    x_adv = run(built(name, settings), network(), threat)
    assert bool((distance(threat, images()[0], x_adv) > 0).all())


@every_attack
@both_norms
def test_until_broken_is_never_weaker(name: str, settings: dict[str, Any], norm: Any) -> None:
    """What is broken by going on to the end is broken by stopping early too: noise does not depend on what broke."""
    model, (x, _) = network().eval(), images()
    attack, threat = built(name, settings), ThreatModel(norm=norm, eps=0.03 if norm == "linf" else 0.15)
    y = model(x).argmax(1)
    to_the_end, stopped = (
        model(perturb(attack, model, x, y, threat, torch.Generator().manual_seed(0), until_broken=flag)).argmax(1)
        for flag in (False, True)
    )
    assert not bool(((to_the_end != y) & (stopped == y)).any())


@every_attack
@both_norms
def test_until_broken_draws_the_same_random_numbers(name: str, settings: dict[str, Any], norm: Any) -> None:
    """So that the next batch does not depend on what broke in this one."""
    threat, (x, y), states = ThreatModel(norm=norm, eps=0.5), images(), []
    for flag in (False, True):
        generator = torch.Generator().manual_seed(0)
        perturb(built(name, settings), network(), x, y, threat, generator, until_broken=flag)
        states.append(generator.get_state())
    assert torch.equal(*states)


@every_attack_that_moves
@both_norms
def test_raises_the_loss(name: str, settings: dict[str, Any], norm: Any) -> None:
    model, (x, y) = network().eval(), images()
    x_adv = run(built(name, settings), model, ThreatModel(norm=norm, eps=0.1 if norm == "linf" else 0.5))
    with torch.no_grad():
        assert F.cross_entropy(model(x_adv), y) > F.cross_entropy(model(x), y) + 0.1


@every_attack
@both_norms
@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_as_it_was(name: str, settings: dict[str, Any], norm: Any, training: bool) -> None:
    model = network().train(training)
    model[1].train(not training)  # mixed modes, as with frozen batch norm
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    grads = [parameter.requires_grad for parameter in model.parameters()]
    run(built(name, settings), model, ThreatModel(norm=norm, eps=0.1))
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == grads == [False] + [True] * (len(grads) - 1)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@every_attack
@both_norms
def test_leaves_the_images_as_they_were(name: str, settings: dict[str, Any], norm: Any) -> None:
    x, y = images()
    perturb(built(name, settings), network(), x, y, ThreatModel(norm=norm, eps=0.1), torch.Generator())
    assert torch.equal(x, images()[0])
    assert not x.requires_grad


@every_attack
@both_norms
def test_depends_on_the_generator_alone(name: str, settings: dict[str, Any], norm: Any) -> None:
    threat, attack = ThreatModel(norm=norm, eps=0.1), built(name, settings)
    torch.manual_seed(1)
    first = run(attack, network().train(), threat)
    model = network().train()
    before = torch.manual_seed(2).get_state()
    assert torch.equal(run(attack, model, threat), first)
    assert torch.equal(torch.get_rng_state(), before)


@over([case for case in CASES if case.moves and case.alone])
@both_norms
def test_each_image_is_attacked_by_itself(name: str, settings: dict[str, Any], norm: Any) -> None:
    """No start, step or clip may mix images: the other images' labels do not change this one's attack."""
    model, threat, (x, y) = network(), ThreatModel(norm=norm, eps=0.1), images()
    attack = built(name, settings)
    other = y.clone()
    other[1:] = (other[1:] + 1) % CLASSES
    a, b = (perturb(attack, model, x, labels, threat, torch.Generator().manual_seed(0)) for labels in (y, other))
    assert torch.allclose(a[0], b[0], atol=1e-6)
    assert not torch.allclose(a[1:], b[1:], atol=1e-3)


@every_attack
@both_norms
def test_eps_zero_gives_the_images_back(name: str, settings: dict[str, Any], norm: Any) -> None:
    x, y = images()
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(perturb(built(name, settings), network(), x, y, ThreatModel(norm=norm, eps=0), generator), x)
    assert torch.equal(generator.get_state(), before)  # nothing was run for it


@every_attack
@both_norms
def test_a_weight_is_computed_once_an_attack(name: str, settings: dict[str, Any], norm: Any) -> None:
    model = network()
    counter = model[5].parametrizations.weight[0]
    counter.calls = 0
    run(built(name, settings), model, ThreatModel(norm=norm, eps=0.1))
    assert counter.calls == 1
    run(built(name, settings), model, ThreatModel(norm=norm, eps=0.1))
    assert counter.calls == 2  # and afresh the next time


@every_attack
@both_norms
def test_sees_the_weights_of_today(name: str, settings: dict[str, Any], norm: Any) -> None:
    """A cache that outlived an attack would show the next one an old model."""
    threat, attack, model = ThreatModel(norm=norm, eps=0.1), built(name, settings), network()
    run(attack, model, threat)
    with torch.no_grad():
        model[5].parametrizations.weight.original.neg_()
    after = run(attack, model, threat)
    fresh = network()
    with torch.no_grad():
        fresh[5].parametrizations.weight.original.neg_()
    assert torch.equal(after, run(attack, fresh, threat))


# --- attacks that misbehave ---


class Bad(Attack):
    """Returns what `wrong` makes of the images."""

    wrong: Any

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        generator: torch.Generator,
        *,
        until_broken: bool = False,
    ) -> Tensor:
        returned: Tensor = self.wrong(x)
        return returned


def half_nan(x: Tensor) -> Tensor:
    return torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5, torch.nan, x + 0.01)


BAD: dict[str, Callable[[Tensor], Tensor]] = {
    "far": lambda x: x + 100,
    "far below": lambda x: x - 100,
    "noise": lambda x: torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 5,
    "huge": lambda x: torch.full_like(x, 3e38),
    "nan": lambda x: torch.full_like(x, torch.nan),
    "half nan": half_nan,
    "inf": lambda x: torch.full_like(x, torch.inf),
    "in place": lambda x: x.add_(5),
    "with a graph": lambda x: x.requires_grad_() * 3,
}


@pytest.mark.parametrize("wrong", BAD.values(), ids=BAD.keys())
@both_norms
def test_whatever_an_attack_returns_is_clipped(wrong: Callable[[Tensor], Tensor], norm: Any) -> None:
    threat = ThreatModel(norm=norm, eps=0.2)
    x, _ = images()
    given, y = images()
    x_adv = perturb(Bad(wrong=wrong), network(), given, y, threat, torch.Generator())
    assert torch.equal(given, x)
    assert_inside(threat, x, x_adv)
    assert not x_adv.requires_grad


def test_an_attack_that_fails_leaves_the_model_as_it_was() -> None:
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("no")

    model = network().train()
    with pytest.raises(RuntimeError, match="no"):
        run(Bad(wrong=fail), model, ThreatModel(eps=0.1))
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (len(list(model.parameters())) - 1)
    assert not parametrize._cache_enabled


def test_an_attack_sees_the_model_in_eval_mode_without_trainable_weights() -> None:
    seen = []

    class Look(Attack):
        def __call__(
            self,
            model: nn.Module,
            x: Tensor,
            y: Tensor,
            threat: ThreatModel,
            generator: torch.Generator,
            *,
            until_broken: bool = False,
        ) -> Tensor:
            seen.extend([module.training for module in model.modules()])
            seen.extend([parameter.requires_grad for parameter in model.parameters()])
            seen.append(model[5].weight.requires_grad)
            return x

    run(Look(), network().train(), ThreatModel(eps=0.1))
    assert seen
    assert not any(seen)


# --- built from a spec ---


@pytest.mark.parametrize(
    ("component", "text"),
    [
        (Component(name="pdg"), "t.attack.name = 'pdg': unknown name; did you mean 'pgd'?"),
        (Component(name="pgd", step=3), "t.attack.step: unknown key; did you mean 'steps'?"),
        (Component(name="pgd", steps=0), "t.attack.steps = 0: input should be greater than or equal to 1"),
        (Component(name="pgd", steps="7"), "t.attack.steps = '7': input should be a valid integer"),
        (Component(name="pgd", step_size=0.0), "t.attack.step_size = 0.0: input should be greater than 0"),
        (Component(name="pgd", restarts=0), "t.attack.restarts = 0: input should be greater than or equal to 1"),
        (Component(name="pgd", step_size=float("nan")), "t.attack.step_size = nan: input should be a finite number"),
        (Component(name="pgd", targets=0), "t.attack.targets = 0: input should be greater than or equal to 1"),
        (Component(name="none", eps=0.1), "t.attack.eps: unknown key; remove it"),
        (Component(name="wrm", gamma=0.0), "t.attack.gamma = 0.0: input should be greater than 0"),
        (Component(name="apgd_ce", rho=1.0), "t.attack.rho = 1.0: input should be less than 1"),
        (Component(name="apgd_t", targets=0), "t.attack.targets = 0: input should be greater than or equal to 1"),
        (
            Component(name="autoattack", version="rand"),
            "t.attack.version = 'rand': input should be 'standard' or 'plus'",
        ),
        (Component(name="autoattack", steps=0), "t.attack.steps = 0: input should be greater than or equal to 1"),
        (Component(name="fgsm", steps=3), "t.attack.steps: unknown key; remove it"),
        (Component(name="math:pi"), "t.attack.name = 'math:pi': is no attack"),
        (Component(name="torch.nn:Linear"), "is no attack"),
        (Component(name="atmc_search.attacks:Attack"), "is no attack"),
    ],
)
def test_a_bad_attack_is_refused_in_one_line(component: Component, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_attack(component, path="t.attack")
    assert text in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_users_own_attack_comes_by_import() -> None:
    attack = build_attack(Component(name="atmc_search.attacks.pgd:PGD", steps=2), path="a")
    assert attack == ATTACKS["pgd"](steps=2)
