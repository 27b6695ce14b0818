"""What a comparison is: arms, points of each arm, seeds, and the equality that makes it fair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from atmc_search.attacks import build_attack
from atmc_search.errors import SpecError
from atmc_search.registry import validated
from atmc_search.spec import Component, StudySpec, fingerprint, parse_yaml
from atmc_search.spec.paths import set_at
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc import AtmcSpec


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(_Part):
    """One way to make a model, at several budgets.

    Attributes:
        meaning: a line for the table.
        settings: what distinguishes the arm, by dotted path under `trial`.
        points: its budgets: further settings each.
    """

    meaning: str
    settings: dict[str, Any] = {}
    points: list[dict[str, Any]] = Field(min_length=1)


class TestOnce(_Part):
    """What is measured once, at the end, on test images.

    Attributes:
        images: how many, from the first: one number, or one by attack; None: all.
        attacks: by the name of their column.
    """

    __test__ = False  # no test class, whatever its name
    images: PositiveInt | dict[str, PositiveInt] | None = None
    attacks: dict[str, Component] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_attacks(self) -> Self:
        for name in self.images if isinstance(self.images, dict) else ():
            if name not in self.attacks:
                raise ValueError(f"images.{name} names no attack; there are {', '.join(self.attacks)}")
        return self

    def images_for(self, attack: str) -> int | None:
        """How many test images this attack is given; None: all."""
        return self.images.get(attack) if isinstance(self.images, dict) else self.images


class Published(_Part):
    """A row of a paper, printed below ours; its protocol may differ, which `note` is to say."""

    label: str
    source: str
    point: str
    clean: float
    robust: float
    note: str = ""


class Comparison(_Part):
    """A comparison. `epochs` counts the dense start; every trial must come to it, in batches of equal size.

    Attributes:
        reference: the arm whose accuracies at equal bytes the others' are held against; None: none.
        test: None where nothing but validation images is to be seen, as what chooses defaults must not see test images.
    """

    name: str
    epochs: int = Field(ge=1)
    seeds: list[int] = Field(min_length=1)
    trial: dict[str, Any]
    arms: dict[str, Arm] = Field(min_length=1)
    reference: str | None = None
    test: TestOnce | None = None
    published: list[Published] = []

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands twice, and would be counted twice; give different ones")
        return seeds

    @model_validator(mode="after")
    def _names_an_arm(self) -> Self:
        if self.reference is not None and self.reference not in self.arms:
            raise ValueError(f"reference {self.reference} is no arm; there are {', '.join(self.arms)}")
        return self


@dataclass(frozen=True)
class Job:
    """One trial of a comparison."""

    arm: str
    point: int
    seed: int
    spec: AtmcSpec

    @property
    def key(self) -> str:
        return f"{self.arm}-{self.point}-{self.seed}-{fingerprint(self.spec.model_dump(mode='json'))}"


def load_comparison(path: Path) -> Comparison:
    """Reads and checks a comparison. Raises SpecError."""
    try:
        text = path.read_text()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    document = parse_yaml(text, str(path))
    if not isinstance(document, dict):
        raise SpecError(f"{path}: holds no mapping; see search_spaces/comparisons/fashion_lenet.yaml")
    comparison = validated(Comparison, document, path=str(path))
    for name, component in comparison.test.attacks.items() if comparison.test else ():
        build_attack(component, path=f"test.attacks.{name}")
    return comparison


def jobs(comparison: Comparison) -> list[Job]:
    """All trials, seed by seed: what is stopped half way has whole seeds. Raises SpecError where they are unequal."""
    found = [
        Job(arm, number, seed, _trial(comparison, name=arm, settings={**entry.settings, **point}, seed=seed))
        for seed in comparison.seeds
        for arm, entry in comparison.arms.items()
        for number, point in enumerate(entry.points)
    ]
    for job in found:
        _refuse_unequal(comparison, job, found[0])
    return found


def settings_of(comparison: Comparison, job: Job) -> Mapping[str, Any]:
    """What the trial's point sets."""
    return comparison.arms[job.arm].points[job.point]


def _trial(comparison: Comparison, *, name: str, settings: Mapping[str, Any], seed: int) -> AtmcSpec:
    document: dict[str, Any] = {"trial": deepcopy(comparison.trial)}
    for path, value in {**settings, "seed": seed, "dense.seed": seed}.items():
        set_at(document, f"trial.{path}", deepcopy(value))
    # Through a study, so that a method fixes what it fixes in a sweep.
    study = validated(
        StudySpec, {"name": comparison.name, "search": {"trials": 1}, **document}, path=f"{comparison.name}: arm {name}"
    )
    if study.distributions:
        path = next(iter(study.distributions))
        raise SpecError(f"arm {name}: {path} is a distribution; a comparison has plain values")
    spec = TrialSpace.of(study).fill({})
    assert isinstance(spec, AtmcSpec), spec
    return spec


def _refuse_unequal(comparison: Comparison, job: Job, first: Job) -> None:
    """Equal data and threat, equal epochs and gradient steps."""
    where = f"arm {job.arm}, point {job.point}"
    total = job.spec.dense.epochs + job.spec.train.epochs
    if total != comparison.epochs:
        raise SpecError(
            f"{where}: dense.epochs + train.epochs = {total}, not epochs: {comparison.epochs}; make them equal"
        )
    for what, own, others in _equal(job.spec, first.spec):
        if own != others:
            raise SpecError(f"{where}: {what} = {own}, not {others} as in arm {first.arm}; make them equal")


def _equal(one: AtmcSpec, two: AtmcSpec) -> Iterator[tuple[str, object, object]]:
    yield "data", one.data, two.data
    yield "model", one.model, two.model
    yield "threat", one.threat, two.threat
    batch = two.train.batch_size
    yield "train.batch_size", one.train.batch_size, batch
    if one.dense.epochs:
        yield "dense.batch_size", one.dense.batch_size, batch
