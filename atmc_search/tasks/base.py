"""The Task contract: all that the search knows of the work it spreads. It knows nothing of Ray.

To add a task of your own, subclass `Task` and write `task: my.module:MyTask` in the study. Required are `Spec`,
`columns`, the constructor, `step`, `artifact`, `state_dict` and `load_state_dict`; all else has a default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, ClassVar, Literal

from pydantic import BaseModel
from torch import Tensor

from atmc_search.errors import AtmcError
from atmc_search.registry import validated
from atmc_search.results import Column
from atmc_search.spec import TrialSpec, fingerprint
from atmc_search.tasks.remeasured import Remeasured
from atmc_search.tasks.start import Start
from atmc_search.training.state import State

Report = Callable[[Mapping[str, Any]], None]
"""Called with the figures of an epoch, for progress."""


class Task(ABC):
    """One trial: made from a fully determined spec, advanced an epoch at a time.

    Calls come in this order. In the driver, for each extreme of the search space: `spec_of`, `load`, `check`, `least`,
    `reference`. In a worker, for each trial: `start_key`, and for a key not seen before `make_start`; `measure_start`
    likewise; the constructor; perhaps `load_state_dict`; then `step` until `done`. After each step that measured,
    `artifact` gives the bytes that the reported figures were measured on. Equal specs, data and starts give equal
    results on one machine. A trial resumed from `state_dict` gives the same results to the bit: on a CPU always, on a
    GPU as far as torch has deterministic algorithms for the model's layers.
    """

    Spec: ClassVar[type[TrialSpec]]
    """What a study may say under `trial`. Any leaf may be a distribution instead."""

    columns: ClassVar[tuple[Column, ...]]
    """The metrics that `step` returns. Any number of them can be objectives. No name may be one of the study's own."""

    objectives: ClassVar[Mapping[str, Literal["min", "max"]]] = {}
    """The objectives of a study that names none."""

    deciding: ClassVar[tuple[str, ...]] = ()
    """Dotted paths whose values decide which other values a trial uses (`uses`). They are sampled first."""

    presets: ClassVar[Mapping[str, str]] = {}
    """The values that the first of `deciding` can have, with a line on each, in the order of figures."""

    components: ClassVar[Mapping[str, Mapping[str, type[BaseModel]]]] = {}
    """Parts that a spec chooses by name, by kind and name, for `atmc-search settings`: {"attack": {"pgd": PGD}}."""

    splits: ClassVar[tuple[str, ...]] = ("test", "validation")
    """What `remeasure` can measure on; the first is what no search or choice has seen."""

    remeasure_options: ClassVar[tuple[str, ...]] = ()
    """What `remeasure` can be asked for beyond the split: of `attack`, `eps` and `checks`."""

    suffix: ClassVar[str] = ".artifact"
    """Of the files that hold its artifacts; in a run folder they are named by the trial's number."""

    start_name: ClassVar[str] = "start"
    """What the start is called in messages and figures."""

    epochs: int
    """How many steps make the trial, at most."""

    epoch: int
    """How many are done."""

    # --- before a trial

    @classmethod
    def spec_of(cls, trial: Mapping[str, Any]) -> Any:
        """The spec that a filled template (plain data, no distributions left) stands for.

        Raises:
            SpecError: it breaks a rule; names the dotted path from `trial` on.
        """
        return validated(cls.Spec, trial, path="trial")

    @classmethod
    def uses(cls, path: str, trial: Mapping[str, Any]) -> bool:
        """Whether a trial uses the value at `path`. A value that it does not use is not sampled: its default stands.

        Args:
            path: dotted, from `trial.` on.
            trial: the template, with the values at `deciding` filled in.
        """
        return True

    @classmethod
    def load_key(cls, spec: Any) -> str:
        """Names what `load` gives: equal for all specs that can share it. Default: by the section `data`, if any."""
        section = getattr(spec, "data", None)
        return fingerprint(section.model_dump(mode="json")) if isinstance(section, BaseModel) else ""

    @classmethod
    def load(cls, spec: Any) -> Any:
        """All that trials read from files, such as images. Called in the driver; workers get it from the object store.

        Raises:
            DataError: something is missing or damaged.
        """
        return None

    @classmethod
    def load_to_measure(cls, spec: Any) -> Any:
        """What `remeasure` and `curves` need of `load`: files that only training reads may be gone. Default: all."""
        return cls.load(spec)

    @classmethod
    def inputs(cls, spec: Any, data: Any) -> Mapping[str, str]:
        """SHA-256 of each file that results depend on and the spec only names, by dotted path of its name.

        They are part of the study's identity: a run is not continued with another file under the same name.
        """
        return {}

    @classmethod
    def describe(cls, spec: Any, data: Any) -> str:
        """A line on the data, for `run --check`; empty for none."""
        return ""

    @classmethod
    def check(cls, spec: Any, data: Any) -> None:
        """Refuses, quickly, a spec that could not run.

        Raises:
            SpecError: names the dotted path.
        """

    @classmethod
    def least(cls, spec: Any, data: Any) -> Mapping[str, float]:
        """Lower bounds of metrics that no training can pass, for refusing impossible bounds early."""
        return {}

    @classmethod
    def reference(cls, spec: Any, data: Any) -> Mapping[str, float]:
        """The worst values worth counting, by metric: the reference point of the hypervolume."""
        return {}

    # --- starts

    @classmethod
    def start_key(cls, spec: Any, data: Any) -> str:
        """Names the start: equal for all specs that can share it. It names a file. Default: one for the study."""
        return "start"

    @classmethod
    def make_start(cls, spec: Any, data: Any, *, device: str, report: Report) -> Start:
        """Makes the start: trains the dense model, say. Default: nothing."""
        return Start({}, origin="none")

    @classmethod
    def start_figures_key(cls, spec: Any, data: Any) -> str:
        """Names the figures of `measure_start`: equal for all specs that measure alike. Empty: there are none."""
        return ""

    @classmethod
    def measure_start(cls, spec: Any, data: Any, start: Start, *, device: str) -> Mapping[str, Any]:
        """Figures of the start that every trial reports beside its own, by column name."""
        return {}

    @classmethod
    def start_from(cls, spec: Any, data: Any, artifact: bytes) -> Start:
        """The start that another trial's artifact gives.

        Raises:
            AtmcError: trials of this task cannot start from it.
        """
        raise AtmcError(f"{cls.__name__}: its trials cannot start from another trial; remove the start")

    @classmethod
    def earlier_start_keys(cls, spec: Any) -> Sequence[str]:
        """Names under which earlier releases kept this start, with its figures."""
        return ()

    # --- the trial

    @abstractmethod
    def __init__(self, spec: Any, data: Any, start: Start, *, device: str, meta: Mapping[str, Any]) -> None:
        """Prepares the first step.

        Args:
            spec: the trial, of class `Spec`.
            data: what `load` gave.
            start: what `make_start` gave, with the figures of `measure_start` among its facts.
            device: torch device to work on.
            meta: small facts that travel in the artifact: study, trial, inputs.
        """

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do: every epoch is done, unless a task ends sooner."""
        return self.epoch >= self.epochs

    @abstractmethod
    def step(self) -> dict[str, Any]:
        """One epoch. Returns metrics by column name; on epochs that do not measure, only those of training.

        Raises:
            TrialFailed: the trial cannot continue.
        """

    @abstractmethod
    def artifact(self) -> bytes:
        """The file that the last measurement was made of."""

    @abstractmethod
    def state_dict(self) -> State:
        """All that a later process needs to continue to the bit: tensors and plain facts."""

    @abstractmethod
    def load_state_dict(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Continues from a `state_dict` of a task with the same spec, data and start."""

    # --- after it

    @classmethod
    def remeasure(
        cls,
        artifact: bytes,
        spec: Any,
        data: Any,
        *,
        split: str,
        options: Mapping[str, Any],
        start: Callable[[], Start | None],
        device: str,
        trust: bool,
    ) -> Remeasured:
        """Measures an artifact of a run again, from its bytes alone.

        Args:
            artifact: the file.
            spec: of its trial.
            data: what `load` gives for that spec.
            split: one of `splits`.
            options: what the user asked for of `remeasure_options`, by name; only what was given.
            start: reads the trial's start, if the run still holds it.
            device: torch device.
            trust: whether code that the artifact names may be imported.

        Raises:
            AtmcError: the artifact is damaged, or an option makes no sense.
        """
        raise AtmcError(f"task {cls.__name__}: does not say how to measure an artifact again; implement remeasure")

    @classmethod
    def curves(
        cls, artifact: bytes, spec: Any, data: Any, *, split: str, options: Mapping[str, Any], device: str, trust: bool
    ) -> Mapping[str, Any]:
        """Robustness curves of an artifact of a run, as plain data: see `report.curves.curve_data`.

        Args and errors as `remeasure`; options are `attack`, `eps` (radii) and `steps` (numbers of steps).
        """
        raise AtmcError(f"task {cls.__name__}: its artifacts have no robustness curves; name a run of another task")

    @classmethod
    def evaluate(
        cls,
        artifact: bytes,
        *,
        data: Mapping[str, Any],
        split: str,
        options: Mapping[str, Any],
        device: str,
        trust: bool,
    ) -> Remeasured:
        """Measures a single artifact on data of the user's, without a run.

        Args as `remeasure`, but data: settings of the section `data`.
        """
        raise AtmcError(f"task {cls.__name__}: its artifacts cannot be measured without their run; use verify")


def facts_of(study: str, inputs: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """The small facts that travel in an artifact: its study, and the files that its trial started from, by name.

    Args:
        study: its name.
        inputs: what `Task.inputs` gave; an artifact names no folders of whoever made it.
        more: other facts.
    """
    named = {PurePath(name).name: digest for name, digest in inputs.items()}
    return {"study": study, **more} | ({"inputs": named} if named else {})


def start_of(task: type[Task], spec: Any, data: Any, *, device: str, report: Report) -> Start:
    """The start of a trial, made and measured here, where no other trial shares it."""
    start = task.make_start(spec, data, device=device, report=report)
    if not task.start_figures_key(spec, data):
        return start
    return replace(start, facts={**start.facts, **task.measure_start(spec, data, start, device=device)})
