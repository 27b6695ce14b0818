"""The product from Python, beside pandas: read a run, take its front, choose a model; load, inspect or export it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from atmc_search import pareto
from atmc_search.artifact import Description, describe, read_header, repacked, unpack
from atmc_search.errors import ArtifactError, AtmcError, did_you_mean, shown
from atmc_search.export import About, export
from atmc_search.registry import validated
from atmc_search.results import RunFolder, front_of, write_whole
from atmc_search.results.derive import MEASURED
from atmc_search.spec import BoundSpec

_NO_OBJECTIVES = "the table names no objectives; pass objectives={'size_bytes': 'min', ...} or read it by load_trials"


def load_trials(run: str | Path) -> pd.DataFrame:
    """One row a trial of the study in folder `run`; see `atmc-search columns` for what the columns mean.

    The study's objectives and constraints travel in `attrs`, where `front` and `choose` find them.

    Raises:
        AtmcError: the folder is no run, or damaged.
    """
    return RunFolder.open(run).read_trials()


def front(
    trials: pd.DataFrame,
    objectives: Mapping[str, str] | None = None,
    constraints: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """The nondominated rows of `trials`, sorted by the first objective.

    Args:
        trials: as from `load_trials`, or a part of it, or several studies' concatenated.
        objectives: metric to "min" or "max"; default: the study's own.
        constraints: metric to {"min": …, "max": …}; default: the study's own (none when objectives are given).

    Raises:
        AtmcError: no objectives, one is no column, or a direction or a bound makes no sense.
    """
    if objectives is None and constraints is None:
        constraints = trials.attrs.get("constraints")
    bounds = {
        name: validated(BoundSpec, bound, path=f"constraints.{name}") for name, bound in (constraints or {}).items()
    }
    return front_of(trials, _objectives(trials, objectives), bounds)


@dataclass(frozen=True)
class Decision:
    """What `choose` found.

    Attributes:
        trial: the row to ship; None when nothing fits the bounds.
        text: the reasons, or which bound to relax and by how much.
    """

    trial: pd.Series | None
    text: str


def choose(
    trials: pd.DataFrame,
    *,
    best: str,
    max: Mapping[str, float] | None = None,
    min: Mapping[str, float] | None = None,
    objectives: Mapping[str, str] | None = None,
) -> Decision:
    """The trial to ship: the best in one metric among those within all bounds.

    Args:
        trials: as from `load_trials`.
        best: the metric that decides; "min:metric" or "max:metric" where it is no objective of the study.
        max: upper bounds by metric.
        min: lower bounds by metric.
        objectives: metric to direction; default: the study's own. Ties on `best` go by the others.

    Raises:
        AtmcError: unknown metric, a direction that cannot be told, or bounds that no value can meet.
    """
    for name, least in (min or {}).items():
        if max and name in max and least > max[name]:
            raise AtmcError(f"min {name} = {least:g} and max {name} = {max[name]:g}: no value is both; change one")
    directions = dict(_objectives(trials, objectives))
    direction, _, metric = best.rpartition(":")
    direction = direction or directions.get(metric, "")
    if metric not in trials.select_dtypes("number").columns:
        known = [str(name) for name in trials.select_dtypes("number").columns]
        raise AtmcError(f"best = {metric!r}: not a metric of these results; {did_you_mean(metric, known)}")
    if direction not in ("min", "max"):
        raise AtmcError(f"best = {best!r}: no objective of the study, so its direction is unknown; write max:{metric}")
    measured = trials[trials["state"].isin(MEASURED)].reset_index(drop=True)
    numbers = measured.select_dtypes("number")
    table = {str(name): numbers[name].to_numpy(dtype=float, na_value=np.nan) for name in numbers.columns}
    bounds = [pareto.Bound(name, limit, "max") for name, limit in (max or {}).items()]
    bounds += [pareto.Bound(name, limit, "min") for name, limit in (min or {}).items()]
    ties = [(name, d == "max") for name, d in directions.items() if name != metric and name in table]
    choice = pareto.choose(table, bounds, metric, maximise=direction == "max", tie_break=ties)
    if choice.index is None:
        return Decision(None, _relaxations(choice, bounds, measured, metric))
    return Decision(measured.iloc[choice.index], _reasons(choice, bounds, measured, metric, direction, directions))


def load_artifact(path: str | Path, *, allow_custom_models: bool = False) -> nn.Module:
    """The model in an artifact file: images (n, c, h, w) in [0, 1] to logits (n, classes), in eval mode, on the CPU.

    Args:
        path: an `.atmc` file.
        allow_custom_models: whether to import a model named "package.module:attribute", which runs its code.

    Raises:
        ArtifactError: missing, damaged, of a later version, or custom and not allowed.
    """
    with _named(path):
        return unpack(artifact_bytes(path), allow_custom_models=allow_custom_models)


def inspect_artifact(path: str | Path, *, allow_custom_models: bool = False) -> Description:
    """What an artifact file holds: its header, every tensor's mode, density and bytes, and what they add up to.

    Args:
        path: an `.atmc` file.
        allow_custom_models: as for `load_artifact`: the architecture's code has the names and shapes.

    Raises:
        ArtifactError: as `load_artifact`.
    """
    with _named(path):
        return describe(artifact_bytes(path), allow_custom_models=allow_custom_models)


def export_artifact(
    path: str | Path, out: str | Path, *, to: str, slim: bool = True, allow_custom_models: bool = False
) -> int:
    """Writes the model of an artifact file in another format, read back and compared with it before it is written.

    Args:
        path: an `.atmc` file.
        out: the file to write.
        to: "onnx", "safetensors", "state_dict" or "torchscript".
        slim: whether "onnx" and "torchscript" leave out the channels that have no effect on the logits.
        allow_custom_models: as for `load_artifact`.

    Returns:
        the length of the file written, in bytes.

    Raises:
        AtmcError: as `load_artifact`; no such format, a package that it needs is missing, the model cannot be put in
            it, or `out` cannot be written.
    """
    out = _writable(out)
    with _named(path):
        data = artifact_bytes(path)
        about, model = About(read_header(data)), unpack(data, allow_custom_models=allow_custom_models)
    return _write(out, export(model, about, to, slim=slim))


def repack_artifact(path: str | Path, out: str | Path, *, allow_custom_models: bool = False) -> int:
    """Writes an artifact's model as today's releases would: in the latest format, without what has no effect.

    Args:
        path: an `.atmc` file of any version.
        out: the file to write.
        allow_custom_models: as for `load_artifact`.

    Returns:
        the length of the file written, in bytes. Logits are the original's to rounding.

    Raises:
        AtmcError: as `load_artifact`, or `out` cannot be written.
    """
    out = _writable(out)
    with _named(path):
        data = repacked(artifact_bytes(path), allow_custom_models=allow_custom_models)
    return _write(out, data)


def _writable(out: str | Path) -> Path:
    """`out`, if it may be a file; said before the work, not after."""
    path = Path(out)
    if path.is_dir() or not path.parent.is_dir():
        raise AtmcError(f"out = {str(path)!r}: cannot be written (no such folder, or a folder itself); choose another")
    return path


def _write(out: Path, data: bytes) -> int:
    try:
        write_whole(out, data)
    except OSError as error:
        raise AtmcError(f"out = {str(out)!r}: cannot be written ({error.strerror}); choose another") from None
    return len(data)


def artifact_bytes(path: str | Path) -> bytes:
    """What an artifact's file holds.

    Raises:
        ArtifactError: it cannot be read, or is no file.
    """
    try:
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            raise ArtifactError("no file but a device or a pipe; give the path of an .atmc file")
        return Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror}); give the path of an .atmc file") from None


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def _objectives(trials: pd.DataFrame, objectives: Mapping[str, str] | None) -> Mapping[str, str]:
    found = objectives or trials.attrs.get("objectives")
    if not found:
        raise AtmcError(_NO_OBJECTIVES)
    for name, direction in found.items():
        if direction not in ("min", "max"):
            raise AtmcError(f"objectives[{name!r}] = {shown(direction)}: no direction; write 'min' or 'max'")
    return dict(found)


def _reasons(
    choice: pareto.Choice,
    bounds: list[pareto.Bound],
    trials: pd.DataFrame,
    metric: str,
    direction: str,
    directions: Mapping[str, str],
) -> str:
    assert choice.index is not None
    row = trials.iloc[choice.index]
    word = "highest" if direction == "max" else "lowest"
    said = [name for name in dict.fromkeys([*directions, *(b.metric for b in bounds), metric]) if name in trials]
    lines = [
        f"trial {row['trial']}: " + ", ".join(f"{name} {_figure(row[name])}" for name in said),
        f"{word} {metric} of the {choice.candidates} (of {len(trials)}) measured trials within "
        + (" and ".join(_bound(bound) for bound in bounds) or "no bounds"),
    ]
    if choice.runner_up is not None:
        second = trials.iloc[choice.runner_up]
        lines.append(
            f"next best: trial {second['trial']}, " + ", ".join(f"{name} {_figure(second[name])}" for name in said)
        )
    flags = row.get("masking_flags")
    if isinstance(flags, str) and flags:
        lines.append(f"beware: it fails checks against gradient masking ({flags}), its robust accuracy may be a mirage")
    if isinstance(row.get("artifact"), str):
        lines.append(f"artifact: {Path(trials.attrs.get('folder', '')) / row['artifact']}")
    return "\n".join(lines)


def _relaxations(choice: pareto.Choice, bounds: list[pareto.Bound], trials: pd.DataFrame, metric: str) -> str:
    within = " and ".join(_bound(bound) for bound in bounds)
    lines = [f"none of {len(trials)} measured trials " + (f"is within {within}" if bounds else f"has a {metric}")]
    together = [r for r in choice.relaxations if r.together]
    for relaxation in choice.relaxations:
        row = trials.iloc[relaxation.index]
        verb = "raise" if relaxation.kind == "max" else "lower"
        lead = "" if not relaxation.together else "together: " if relaxation is together[0] else "and: "
        lines.append(
            f"{lead}{verb} --{relaxation.kind} {relaxation.metric} from {_figure(relaxation.limit)} to "
            f"{_figure(relaxation.needed)} (by {_figure(relaxation.by)}): then trial {row['trial']} with {metric} "
            f"{_figure(row[metric])}"
        )
    if not choice.relaxations:
        lines.append("no relaxation helps: no trial has all of these metrics")
    return "\n".join(lines)


def _bound(bound: pareto.Bound) -> str:
    return f"{bound.metric} {'<=' if bound.kind == 'max' else '>='} {_figure(bound.limit)}"


def _figure(value: Any) -> str:
    if pd.isna(value):
        return "unknown"
    number = float(value)
    return f"{number:,.0f}" if number.is_integer() and abs(number) >= 10 else f"{number:.4g}"
