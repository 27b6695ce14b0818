"""Measuring a run again from its files, in Python and from the command line, without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import pandas as pd
import pytest
import torch
from shell import program
from torch import Tensor, nn

import atmc_search
from atmc_search.attacks import Attack, ThreatModel
from atmc_search.data import Splits
from atmc_search.errors import AtmcError, RunError
from atmc_search.report.curves import spread
from atmc_search.results import STUDY_COLUMNS, RunFolder
from atmc_search.spec import Component, parse_study
from atmc_search.tasks import Start, TrialSpace
from atmc_search.tasks.atmc import ATMC_COLUMNS, AtmcSpec, AtmcTask
from atmc_search.tasks.atmc.remeasure import EPS_SHARES, MASKING_IMAGES, default_radii
from atmc_search.tasks.stored import Stored, recorded, stored_artifacts, trial_space


class Idle(Attack):
    """Gives every image back as it is."""

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
        return x


REASON = "diverged: weights are not finite after epoch 1"


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_trial: Callable[..., AtmcSpec],
    tiny_splits: Splits,
    tiny_start: Start,
) -> RunFolder:
    """Trials 0 and 1 were measured, 2 failed, 3 runs still, 4 has lost its artifact."""
    template = tiny_trial().model_dump(mode="json")
    template["compress"] |= {"keep": 0.5, "bits": {"choice": [3, 8]}}
    study = parse_study({"name": "tiny", "trial": template, "search": {"trials": 5}})
    space = TrialSpace.of(study)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "tiny")
    folder.create(space.study)
    columns = (*STUDY_COLUMNS, *ATMC_COLUMNS, *space.parameter_columns)
    for number, bits in enumerate((3, 8)):
        spec = space.fill({"trial.compress.bits": bits})
        name = AtmcTask.start_key(spec, tiny_splits)
        (folder.starts / f"{name}.safetensors").write_bytes(tiny_start.to_bytes())
        task = AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={})
        metrics = task.step()
        path, _ = folder.write_artifact(number, task.artifact())
        row = {"trial": number, "state": "complete", "artifact": path, "trial.compress.bits": bits}
        folder.append({**row, **metrics}, columns, number)
    row = {"trial": 2, "state": "failed", "reason": REASON, "trial.compress.bits": 8}
    folder.append(row, columns, 2)
    folder.append({**row, "trial": 3, "state": "running", "reason": ""}, columns, 3)
    folder.append({**row, "trial": 4, "state": "complete", "artifact": "artifacts/00004.atmc"}, columns, 4)
    return folder


@pytest.fixture(scope="module")
def trials(run: RunFolder) -> pd.DataFrame:
    return run.read_trials()


def one(rows: Any) -> dict[str, Any]:
    (row,) = rows
    return dict(row)


def remeasured(run: RunFolder, trials: pd.DataFrame, split: str, **options: Any) -> list[dict[str, Any]]:
    """As `verify` does: the row of every artifact, its warnings and notes, and what the sweep recorded."""
    rows = []
    for stored in stored_artifacts(run, trial_space(run, trust=False), trials, trust=False):
        again = stored.task.remeasure(
            stored.artifact,
            stored.spec,
            stored.data,
            split=split,
            options=options,
            start=stored.start,
            device="cpu",
            trust=False,
        )
        assert again.samples == (again.row["images"], f"{split} images")
        for figure in again.figures:
            assert figure.value == again.row[figure.name]
            assert figure.low <= figure.value <= figure.high
        rows.append({"stored": stored, "warnings": again.warnings, "notes": again.notes, **again.row})
    return rows


def curves(run: RunFolder, trials: pd.DataFrame, split: str, **options: Any) -> list[Any]:
    """As `curves` does."""
    return [
        stored.task.curves(
            stored.artifact, stored.spec, stored.data, split=split, options=options, device="cpu", trust=False
        )
        for stored in stored_artifacts(run, trial_space(run, trust=False), trials, trust=False)
    ]


def was(row: dict[str, Any], name: str) -> float | None:
    """What the sweep recorded."""
    stored: Stored = row["stored"]
    return recorded(stored, name)


def test_validation_repeats_the_recorded_figures(run, trials):
    rows = remeasured(run, trials.head(2), "validation")
    assert [row["stored"].row["trial"] for row in rows] == [0, 1]
    for row in rows:
        for name in ("size_bytes", "clean_accuracy", "robust_accuracy"):
            assert row[name] == was(row, name)
        assert (row["norm"], row["eps"], row["images"]) == ("linf", 0.05, 100)
        assert row["attack"]["name"] == "pgd"
        assert row["attack"]["steps"] == 3
        assert "masking_flags" not in row


def test_another_attack_and_another_radius(run, trials):
    def robust(**kwargs: Any) -> float:
        row = one(remeasured(run, trials.head(1), "validation", **kwargs))
        assert row["clean_accuracy"] == was(row, "clean_accuracy")
        assert row["eps"] == kwargs.get("eps", 0.05)
        return float(row["robust_accuracy"])

    clean = float(trials["clean_accuracy"][0])
    own = robust()
    assert own < clean
    assert robust(eps=0.0) == clean
    assert robust(eps=0.2) < own
    assert robust(attack=Component(name="fgsm")) >= robust(attack=Component(name="pgd", steps=20))


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"attack": Component(name="fgms")}, "did you mean 'fgsm'"),
        ({"attack": Component(name="fgsm", steps=3)}, "attack.steps: unknown key"),
        ({"eps": -0.1}, "eps = -0.1"),
    ],
)
def test_mistakes_are_one_line(run, trials, kwargs, said):
    with pytest.raises(AtmcError, match=said) as caught:
        remeasured(run, trials.head(1), "test", **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (2, f"trial 2 is missing because the trial failed: {REASON};"),
        (3, "trial 3 is missing; run the study again"),
        (4, "trial 4 is missing; run the study again"),
    ],
)
def test_a_trial_without_an_artifact_says_why(run, trials, trial, said):
    for again in (remeasured, curves):
        with pytest.raises(RunError) as caught:
            again(run, trials[trials["trial"] == trial], "test")
        assert said in str(caught.value)


def test_checks_use_the_dense_start_where_the_run_holds_it(run, trials, tmp_path):
    row = one(remeasured(run, trials.head(1), "validation", checks=True))
    assert (row["masking_flags"], row["masking_findings"], row["transfer_checked"]) == ("", {}, True)
    (tmp_path / "artifacts").symlink_to(run.artifacts.resolve())
    (tmp_path / "spec.yaml").write_text(run.spec_path.read_text())
    row = one(remeasured(RunFolder(tmp_path), trials.head(1), "validation", checks=True))
    assert (row["masking_flags"], row["transfer_checked"]) == ("", False)


def test_curves_agree_with_measuring(run, trials):
    row = one(curves(run, trials.head(1), "validation", eps=[0.2, 0], steps=[3, 1]))
    assert (row["size_bytes"], row["eps"]) == (trials["size_bytes"][0], 0.05)
    assert [point["eps"] for point in row["by_eps"]] == [0, 0.2]
    assert row["by_eps"][0]["robust_accuracy"] == trials["clean_accuracy"][0]
    assert [point["steps"] for point in row["by_steps"]] == [1, 3]
    assert row["by_steps"][1]["robust_accuracy"] == trials["robust_accuracy"][0]
    low, high = row["by_steps"][1]["robust_interval"]
    assert low < row["by_steps"][1]["robust_accuracy"] < high


def test_curves_have_points_of_their_own_choice(run, trials):
    row = one(curves(run, trials.head(1), "test"))
    assert [point["eps"] for point in row["by_eps"]] == [0, 0.0125, 0.025, 0.0375, 0.05, 0.075, 0.1, 0.15, 0.2]
    assert [point["steps"] for point in row["by_steps"]] == [1, 2, 5, 10, 20, 50]
    row = one(curves(run, trials.head(1), "test", attack=Component(name="fgsm")))
    assert row["by_steps"] == []
    assert row["attack"] == {"name": "fgsm"}


@pytest.mark.parametrize(
    ("n", "chosen"),
    [(0, []), (1, [0]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (7, [0, 2, 4, 6]), (100, [0, 33, 66, 99])],
)
def test_spread_takes_the_smallest_the_largest_and_those_between(n, chosen):
    assert spread(n) == chosen


# --- the commands


@pytest.fixture
def atmc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    run = program(capsys, monkeypatch)
    return lambda *words: astuple(run(*words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "--attack", "fgms"], "--attack = 'fgms': unknown name; did you mean 'fgsm'?"),
        (["verify", "--attack", "json:loads"], "is no attack"),
        (["verify", "--attack", "fgsm", "--steps", "3"], "--steps 3: attack fgsm has no steps; leave --steps out"),
        (["verify", "--attack", "fgsm", "--restarts", "3"], "--restarts 3: attack fgsm has no restarts"),
        (["verify", "--eps", "-0.1"], "eps = -0.1"),
        (["verify", "--eps", "nan"], "eps = nan"),
        (["verify", "--trial", "2"], f"because the trial failed: {REASON}"),
        (["curves", "--trial", "2"], f"because the trial failed: {REASON}"),
        (["curves", "--trial", "9"], "--trial 9: no such trial; there are 0 to 4"),
        (["curves", "--eps", "0,x"], "--eps '0,x': needs numbers with commas between"),
        (["curves", "--eps", "0,-1"], "eps = -1.0"),
        (["curves", "--steps", "1.5"], "--steps '1.5': needs whole numbers"),
        (["curves", "--steps", "0"], "steps = 0"),
        (["curves", "--attack", "fgsm", "--steps", "3"], "steps = 3: FGSM takes no number of steps"),
        (["curves", "--out", "curves.bmp"], "must end in .png or .svg"),
        (["curves", "--out", "no/such/folder/curves.png"], "cannot be written (no such folder)"),
        (["curves", "--device", "abacus"], "--device abacus: torch cannot use it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_at_the_command_line_is_one_line(atmc, run, words, said):
    code, out, err = atmc(words[0], run.path, *words[1:])
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_verify_with_an_attack_and_checks(atmc, run):
    words = ("verify", run.path, "--trial", 0, "--split", "validation", "--attack", "pgd", "--eps", 0.02, "--checks")
    code, out, err = atmc(*words)
    assert (code, err) == (0, "")
    assert "attack pgd (steps 20, restarts 1" in out
    assert "linf eps 0.02" in out
    assert f"checked on {min(100, MASKING_IMAGES)} images" in out
    row = one(json.loads(atmc(*words, "--json")[1]))
    assert row["attack"]["steps"] == 20
    assert row["masking_flags"] == ""


def test_steps_without_an_attack_mean_pgd(atmc, run):
    words = ("verify", run.path, "--trial", 0)
    assert one(json.loads(atmc(*words, "--steps", 2, "--json")[1]))["attack"]["steps"] == 2
    row = one(json.loads(atmc(*words, "--restarts", 2, "--json")[1]))
    assert (row["attack"]["name"], row["attack"]["steps"], row["attack"]["restarts"]) == ("pgd", 20, 2)


def test_verify_says_what_masks(atmc, run):
    """An attack that does nothing leaves images standing which mid-grey would break."""
    name = f"{Idle.__module__}:{Idle.__name__}"
    code, out, _ = atmc("verify", run.path, "--trial", 0, "--attack", name, "--split", "validation", "--checks")
    assert code == 0
    assert "trial 0 fails eps_growth:" in out
    assert "trial 0 fails transfer:" not in out


def test_curves_print_a_table_and_draw(atmc, run, tmp_path):
    picture = tmp_path / "curves.svg"
    words = ("curves", run.path, "--trial", 1, "--trial", 0, "--eps", "0,0.05", "--steps", "1,3", "--out", picture)
    code, out, err = atmc(*words, "--split", "validation")
    assert (code, err) == (0, "")
    trials = atmc_search.load_trials(run.path)
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines if line and line[0] in ("0", "0.05", "1", "3")] == ["0", "0.05", "1", "3"]
    for number in (0, 1):
        assert f"trial {number}, {trials['size_bytes'][number]:,} bytes" in out
        assert f"{trials['clean_accuracy'][number]:.4f}" in out
        assert f"{trials['robust_accuracy'][number]:.4f}" in out
    assert f"wrote {picture}" in out
    assert "<svg" in picture.read_text()


def test_curves_of_the_front_as_json_draw_nothing_unasked(atmc, run):
    before = sorted(run.path.iterdir())
    code, out, _ = atmc("curves", run.path, "--eps", "0", "--attack", "fgsm", "--json")
    assert code == 0
    assert {row["trial"] for row in json.loads(out)} == set(
        atmc_search.front(atmc_search.load_trials(run.path))["trial"]
    )
    assert sorted(run.path.iterdir()) == before
    assert atmc("curves", run.path, "--eps", "0", "--attack", "fgsm")[0] == 0
    assert (run.path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_default_radii_of_linf_end_at_the_range_of_a_pixel():
    near = default_radii(ThreatModel(eps=0.1))
    assert near == pytest.approx([share * 0.1 for share in EPS_SHARES])
    far = default_radii(ThreatModel(eps=0.4))
    assert far[-1] == 1.0
    assert far == sorted(set(far))
    assert default_radii(ThreatModel(norm="l2", eps=2.0))[-1] == 2.0 * EPS_SHARES[-1]


def test_an_attack_is_given_with_its_settings(atmc, run):
    code, out, _ = atmc("verify", run.path, "--trial", "0", "--attack", "{name: pgd, steps: 2, targets: 3}")
    assert code == 0
    assert "attack pgd (steps 2, restarts 1, random_start true, targets 3)" in out
    code, _, err = atmc("verify", run.path, "--attack", "{name: pgd, foo: 1}")
    assert code == 2
    assert "--attack.foo: unknown key" in err
