"""The trials that a study can have: its template as its task reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from atmc_search import space
from atmc_search.errors import SpecError
from atmc_search.results import Column, parameter_columns
from atmc_search.spec import StudySpec, TrialSpec
from atmc_search.spec.paths import remove_at, set_at, value_at
from atmc_search.tasks.base import Task
from atmc_search.tasks.names import task_named


@dataclass(frozen=True)
class TrialSpace:
    """A study together with its task.

    Attributes:
        study: with the task's objectives where it names none.
        task: the class that its trials are of.
    """

    study: StudySpec
    task: type[Task]

    @classmethod
    def of(cls, study: StudySpec) -> TrialSpace:
        """Finds the study's task and has it read the template at every extreme of the space.

        Raises:
            SpecError: no such task, or the task refuses the template.
        """
        task = task_named(study.task)
        if not study.objectives:
            if not task.objectives:
                raise SpecError("objectives: missing; this task has none of its own, write e.g. {cost: min}")
            study = study.model_copy(update={"objectives": dict(task.objectives)})
        found = cls(study, task)
        for _, config in found.extremes():
            found.fill(config)
        return found

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distributions of the template by dotted path, without those that no trial of the study uses."""
        every = self.study.distributions
        heads = [self._decided(head) for head in self._heads()]
        return {path: d for path, d in every.items() if any(self.task.uses(path, trial) for trial in heads)}

    @property
    def deciding(self) -> tuple[str, ...]:
        """Sampled paths that decide which others a trial uses: these are drawn first."""
        return tuple(path for path in self.task.deciding if path in self.distributions)

    def active(self, config: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions that a trial uses whose deciding values are those of `config`."""
        trial = self._decided(config)
        return {path: d for path, d in self.distributions.items() if self.task.uses(path, trial)}

    def extremes(self) -> Iterator[tuple[str | None, dict[str, Any]]]:
        """Configs that together show every extreme of every value, beside every combination of deciding values.

        Yields:
            the path that was moved (None where all are at their centre) and the config.
        """
        whole, deciding = self.distributions, self.deciding
        others = {path: distribution for path, distribution in whole.items() if path not in deciding}
        for head in self._heads():
            chosen = {path: value for path, value in head.items() if path in deciding}
            for moved, config in space.extremes(others):
                yield moved or next(iter(chosen), None), {**chosen, **config}

    def fill(self, config: Mapping[str, Any]) -> Any:
        """The trial that a sampled config (values by dotted path) stands for: a `Task.Spec`.

        Sampled values that it does not use are left out, so that their defaults stand.
        """
        filled, active = space.fill(self.study.trial, config), self.active(config)
        for path in self.study.distributions.keys() - active.keys():
            remove_at(filled, path.removeprefix("trial."))
        spec = self.task.spec_of(filled)
        assert isinstance(spec, TrialSpec), spec
        return spec

    @property
    def presets(self) -> dict[str, str]:
        """The task's presets that trials of this study can have, with a line on each."""
        if not self.task.deciding:
            return {}
        path = self.task.deciding[0]
        names = [head[path] for head in self._heads()]
        return {name: self.task.presets[name] for name in dict.fromkeys(names) if name in self.task.presets}

    @property
    def defaults(self) -> dict[str, dict[str, Any]]:
        """A trial for each combination of deciding values, all other values at their centre, defaults written out."""
        return {
            " ".join(str(config[path]) for path in self.deciding): self.fill(config).model_dump(mode="json")
            for path, config in self.extremes()
            if path is None or path in self.deciding
        }

    @property
    def parameter_columns(self) -> tuple[Column, ...]:
        """A column for every distribution."""
        first = self.task.deciding[:1]
        return parameter_columns(self.distributions, {path: tuple(self.task.presets) for path in first})

    def _heads(self) -> list[dict[str, Any]]:
        """Every combination of deciding values, those that the template fixes included."""
        found = self.study.distributions
        values: list[list[Any]] = []
        for path in self.task.deciding:
            match found.get(path):
                case None:
                    values.append([value_at({"trial": self.study.trial}, path)])
                case CategoricalDistribution(choices=choices):
                    values.append(list(choices))
                case distribution:
                    values.append([space.centre(distribution)])
        return [dict(zip(self.task.deciding, combination, strict=True)) for combination in product(*values)]

    def _decided(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The template with these deciding values."""
        document: dict[str, Any] = {"trial": self.study.trial}
        for path in self.task.deciding:
            if path in values:
                set_at(document, path, values[path])
        trial: Mapping[str, Any] = document["trial"]
        return trial


def checked(study: StudySpec, origin: str) -> StudySpec:
    """The study with its task's defaults, if the task can read its template.

    Raises:
        SpecError: starts with `origin`.
    """
    try:
        return TrialSpace.of(study).study
    except SpecError as error:
        raise SpecError(f"{origin}: {error}") from None
