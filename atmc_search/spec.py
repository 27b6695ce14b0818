"""All that a YAML file may say: `StudySpec` (what to search) and `TrialSpec` (one trial, no distribution left).

A study's `trial` section is a template in which any leaf may be a distribution (see `space`); a sampled config filled
into it must validate as a TrialSpec. To add a setting, add a field with a `description`: validation, messages and
the README's table follow from it. Components that have settings of their own (models, attacks) are named by a
`Component`; the package that owns them validates the rest of its keys.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from optuna.distributions import BaseDistribution
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from atmc_search import space
from atmc_search.errors import SpecError, did_you_mean, explain, shown
from atmc_search.methods import METHODS, Method
from atmc_search.registry import validated


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Component(BaseModel):
    """Something chosen by name, with settings of its own beside the name: `{name: pgd, steps: 7}`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    name: str = Field(description="a known name, or 'package.module:attribute'")

    @property
    def args(self) -> dict[str, Any]:
        """The settings beside the name."""
        return dict(self.model_extra or {})


class AugmentSpec(_Section):
    """How training images are changed by chance, each anew in every epoch; never those to validate and test on."""

    crop_padding: int = Field(0, ge=0, description="pixels of black on each side, before a crop of the image's size")
    flip: bool = Field(False, description="mirror left to right with probability 1/2")


class DataSpec(_Section):
    """Which images, and how they are split."""

    name: str = Field(description="a known dataset, or 'package.module:attribute'")
    root: str | None = Field(None, description="folder that holds the dataset's files; default: the usual places")
    train_size: int | None = Field(None, ge=1, description="stratified subset of the training images; default: all")
    validation_size: int | None = Field(None, ge=1, description="held out of the training images; default: 20 %")
    test_size: int | None = Field(None, ge=1, description="stratified subset of the test images; default: all")
    seed: int = Field(0, ge=0, description="seed of the splits")
    image_size: int | None = Field(
        None, ge=1, le=1024, description="side in pixels that image_folder scales to; default: images stay as they are"
    )
    augment: AugmentSpec = AugmentSpec()


class ThreatModel(_Section):
    """What the adversary may do: move an image within [0, 1] by at most eps in the norm."""

    norm: Literal["linf", "l2"] = Field("linf", description="the norm of the perturbation")
    eps: float = Field(ge=0, description="its radius, in units of pixels scaled to [0, 1]")


class StageSpec(_Section):
    """Settings that both training stages have."""

    epochs: int = Field(ge=1, description="passes over the training images")
    lr: float = Field(0.05, gt=0, description="peak learning rate")
    lr_schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate over the stage")
    batch_size: int = Field(128, ge=1, description="images a step")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(1e-4, ge=0, description="of SGD")
    attack: Component = Field(Component(name="pgd", steps=7), description="the inner maximisation")


class DenseSpec(StageSpec):
    """The dense adversarially trained start, made once per distinct dense spec of a study."""

    seed: int = Field(0, ge=0, description="seed of initial weights, data order and attacks")


class TrainSpec(StageSpec):
    """Training under the compression constraints."""


class CompressSpec(_Section):
    """The constraints: how many weights, in which form, of how many values (ATMC, arXiv 1902.03538)."""

    factors: Literal["none", "uvc", "uvc_plain", "low_rank"] = Field(
        "none",
        description="W = C; (I + U)V + C or U(I + V) + C; UV + C from singular values; or UV of lower rank",
    )
    pruning: Literal["projected", "one_shot", "none"] = Field(
        "projected",
        description="to the ℓ0 budget: at every step; once before training, mask fixed; or not at all",
    )
    keep: float = Field(
        gt=0, le=1, description="non-zeros that survive (low_rank: entries of factors), as a share of the dense weights"
    )
    energy: float | None = Field(
        None, gt=0, le=1, description="low_rank: ranks keep this share of all squared singular values, in place of keep"
    )
    bits: int = Field(32, ge=1, le=32, description="2^bits values a tensor: 1 to 8, or 32 for no codebook")
    bit_allocation: Literal["uniform", "mixed"] = Field(
        "uniform", description="mixed: 1 to 8 bits by tensor, for the bytes that `bits` everywhere would cost"
    )
    budget_bytes: int | None = Field(
        None, ge=1, description="most bytes of the artifact: sets the ranks of low_rank, the bits of mixed"
    )
    rho: float = Field(0.1, ge=0, description="weight of the ADMM penalty")
    dual_every: int = Field(10, ge=1, description="optimizer steps between dual updates")
    codebook_from: float = Field(0.5, ge=0, lt=1, description="share of training after which ADMM sets in")
    floats: Literal["fp16", "fp32"] = Field("fp16", description="precision of codebooks, biases, norm parameters")
    batch_norm: Literal["best", "kept", "reestimated"] = Field(
        "best", description="statistics after the last projection: reestimated on training images, kept, or the better"
    )

    @field_validator("bits")
    @classmethod
    def _bits(cls, bits: int) -> int:
        if 8 < bits < 32:
            raise ValueError("must be 1 to 8, or 32 for no codebook; choose one of these")
        return bits

    @model_validator(mode="after")
    def _together(self) -> CompressSpec:
        if self.bit_allocation == "mixed" and self.bits == 32:
            raise ValueError("bit_allocation mixed spreads the bytes of a codebook; set bits to 1 to 8")
        if self.energy is not None and self.factors != "low_rank":
            raise ValueError(f"energy sets the ranks of low_rank and factors is {self.factors}; remove energy")
        if self.energy is not None and self.budget_bytes is not None and self.bit_allocation == "uniform":
            raise ValueError("energy and budget_bytes both set the ranks; keep one of them")
        if self.budget_bytes is not None and self.factors != "low_rank" and self.bit_allocation == "uniform":
            raise ValueError("budget_bytes needs something to set; use factors low_rank or bit_allocation mixed")
        return self


class EvaluateSpec(_Section):
    """How accuracies are measured, on the decoded artifact and validation images."""

    attack: Component = Field(Component(name="pgd", steps=20), description="the attack of robust_accuracy")
    every: int = Field(1, ge=1, description="epochs between measurements; the last epoch is always measured")
    batch_size: int = Field(500, ge=1, description="images a batch")
    seed: int = Field(0, ge=0, description="seed of the attack's random starts")
    masking_images: int = Field(
        100, ge=0, description="validation images for the checks against gradient masking; 0: no checks"
    )


class TrialSpec(_Section):
    """One trial, fully determined."""

    method: str | None = Field(None, description="a preset: " + ", ".join(METHODS))
    data: DataSpec
    model: Component
    threat: ThreatModel
    dense: DenseSpec
    train: TrainSpec
    compress: CompressSpec
    evaluate: EvaluateSpec = EvaluateSpec()
    seed: int = Field(0, ge=0, description="seed of data order and attacks; a sweep adds the trial's number")

    @field_validator("threat")
    @classmethod
    def _in_the_unit_of_pixels(cls, threat: ThreatModel) -> ThreatModel:
        if threat.norm == "linf" and threat.eps > 1:
            raise ValueError(
                f"eps {threat.eps:g} lets every pixel be anything, as pixels are in [0, 1]; "
                f"for {threat.eps:g}/255 write {threat.eps / 255:.4g}"
            )
        return threat

    @field_validator("method")
    @classmethod
    def _known(cls, method: str | None) -> str | None:
        if method is not None and method not in METHODS:
            raise ValueError(f"unknown method; {did_you_mean(method, list(METHODS))}")
        return method

    @model_validator(mode="after")
    def _as_the_method_says(self) -> TrialSpec:
        if self.method is not None:
            written = self.model_dump(mode="json")
            for path, value in METHODS[self.method].fixes.items():
                found = _at(written, path)
                if found != value:
                    raise ValueError(
                        f"{path} is {shown(found)}, which method {self.method} fixes to {shown(value)}; "
                        "remove it, or the method"
                    )
        return self


class SamplerSpec(_Section):
    """What proposes trials."""

    name: Literal["tpe", "random", "nsga2"] = Field("tpe", description="Optuna's sampler")
    startup_trials: int = Field(10, ge=1, description="random trials before TPE sets in; NSGA-II: population size")


class SchedulerSpec(_Section):
    """What stops trials early."""

    name: Literal["none", "mo_asha"] = Field("none", description="mo_asha: multi-objective asynchronous halving")
    grace_epochs: int = Field(1, ge=1, description="epochs before the first rung")
    reduction_factor: float = Field(3, gt=1, description="one in this many goes on at a rung")


class SearchSpec(_Section):
    """The budget of the search and who steers it."""

    trials: int = Field(ge=1, description="trials in all, failed ones counted")
    sampler: SamplerSpec = SamplerSpec()
    scheduler: SchedulerSpec = SchedulerSpec()
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the sampler")


class ResourcesSpec(_Section):
    """What one trial occupies."""

    cpu: float = Field(1, gt=0, description="CPU cores; torch uses as many threads")
    gpu: float = Field(0, ge=0, description="GPUs; a fraction lets trials share one")


class BoundSpec(_Section):
    """A constraint on a metric: trials outside it never reach the front, and the sampler learns to avoid them."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some(self) -> BoundSpec:
        if self.min is None and self.max is None:
            raise ValueError("needs a bound; give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; nothing can meet both, widen them")
        return self

    def violation(self, value: float) -> float:
        """By how much `value` lies outside; ≤ 0 inside (Optuna's convention)."""
        parts = []
        if self.min is not None:
            parts.append(self.min - value)
        if self.max is not None:
            parts.append(value - self.max)
        return max(parts)


class StudySpec(_Section):
    """A study: everything that defines a run."""

    name: str = Field(description="the folder under runs/")
    task: str = Field("atmc", description="what a trial does: a known task, or 'package.module:attribute'")
    trial: dict[str, Any] = Field(description="one trial, in which any leaf may be a distribution")
    objectives: dict[str, Literal["min", "max"]] = Field(
        {"size_bytes": "min", "clean_accuracy": "max", "robust_accuracy": "max"},
        description="metrics and their directions",
    )
    constraints: dict[str, BoundSpec] = Field({}, description="metrics and bounds that a trial must keep")
    search: SearchSpec
    resources: ResourcesSpec = ResourcesSpec()

    @field_validator("name")
    @classmethod
    def _slug(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError("names a folder; use letters, digits, '.', '_' and '-', at most 100")
        return name

    @field_validator("objectives")
    @classmethod
    def _some(cls, objectives: dict[str, str]) -> dict[str, str]:
        if not objectives:
            raise ValueError("needs at least one objective; write e.g. {size_bytes: min}")
        return objectives

    @model_validator(mode="after")
    def _template(self) -> StudySpec:
        # A SpecError passes through pydantic unwrapped: it names its own path.
        _check_plain(self.trial)
        for _, config in self.corners():
            self.fill(config)
        return self

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """The distributions of the template by dotted path, without those that no method of the study uses."""
        written = space.distributions(self.trial)
        methods = [METHODS.get(name) for name in self._method_names()]
        return {
            path: d for path, d in written.items() if any(method is None or method.uses(path) for method in methods)
        }

    def corners(self) -> Iterator[tuple[str | None, dict[str, Any]]]:
        """Configs that together show every extreme of every value beside every method; see `space.corners`."""
        whole = self.space
        methods = getattr(whole.get(METHOD_PATH), "choices", [None])
        others = {path: distribution for path, distribution in whole.items() if path != METHOD_PATH}
        for method in methods:
            for moved, config in space.corners(others):
                if METHOD_PATH in whole:
                    moved, config = moved or METHOD_PATH, {METHOD_PATH: method, **config}
                yield moved, config

    def active(self, config: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The part of the space that a trial with this config uses: without what its method fixes or ignores."""
        method = self._method(config)
        return {path: d for path, d in self.space.items() if method is None or method.uses(path)}

    def fill(self, config: Mapping[str, Any]) -> TrialSpec:
        """The trial that a sampled config (values by dotted path) stands for; what its method fixes is set."""
        filled = space.fill(self.trial, config)
        method = self._method(config)
        if method is not None:
            for path in method.ignores:
                _remove(filled, path)
            for path, value in method.fixes.items():
                _set(filled, path, value)
        return validated(TrialSpec, filled, path="trial")

    @property
    def methods(self) -> dict[str, Method]:
        """The methods that its trials can have, by name."""
        return {name: METHODS[name] for name in self._method_names() if name in METHODS}

    def _method_names(self) -> list[Any]:
        written = self.trial.get("method")
        choices = written.get("choice") if isinstance(written, Mapping) else None
        return choices if isinstance(choices, list) and choices else [written]

    def _method(self, config: Mapping[str, Any]) -> Method | None:
        name = config.get(METHOD_PATH, self.trial.get("method"))
        return METHODS.get(name) if isinstance(name, str) else None

    @property
    def fingerprint(self) -> str:
        """12 hex digits that name what a result depends on: not the study's name, its length or its resources."""
        document = self.model_dump(mode="json", include={"task", "trial", "objectives", "constraints"})
        document["search"] = self.search.model_dump(mode="json", exclude={"trials"})
        return fingerprint(document)


METHOD_PATH = "trial.method"
"""Where a method stands; where it is sampled, it is drawn first, as it decides which other values are used."""

_MAX_DEPTH = 32
_MAX_VALUES = 10_000


def _check_plain(trial: Mapping[str, Any]) -> None:
    """That a template is what YAML and JSON both can say, so that it is written, hashed and read back the same."""
    queue: list[tuple[str, object, int]] = [("trial", trial, 0)]
    for where, value, depth in queue:  # grows while it is walked
        if depth > _MAX_DEPTH:
            raise SpecError(f"{where} = {shown(value)}: nested too deeply; a spec is short and flat")
        match value:
            case None | bool() | str():
                pass
            case int():
                if not -(2**63) <= value < 2**63:
                    raise SpecError(f"{where} = {shown(value)}: is beyond 64 bits; use a smaller number")
            case float():
                if not math.isfinite(value):
                    raise SpecError(f"{where} = {value}: must be a finite number; leave it out or give a number")
            case list():
                queue += [(f"{where}.{position}", item, depth + 1) for position, item in enumerate(value)]
            case dict():
                for key, item in value.items():
                    if not isinstance(key, str):
                        raise SpecError(f"{where}: key {shown(key)} is not a word; quote it")
                    queue.append((f"{where}.{key}", item, depth + 1))
            case _:
                raise SpecError(
                    f"{where} = {shown(value)}: a {type(value).__name__} is no plain value; use numbers, words, "
                    "true/false, null, lists and mappings (quote dates)"
                )
        if len(queue) > _MAX_VALUES:
            raise SpecError(f"{where} = {shown(value)}: too long; a spec is short and flat")


def fingerprint(document: object) -> str:
    """The first 12 hex digits of the SHA-256 of `document` as canonical JSON."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also reads 1e-3 as a number and refuses a key that stands twice."""


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper, which quotes the word '1e-3' because `_Loader` would read it as a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"), list("-+.0123456789")
    )


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    written: set[str] = set()
    for key_node, _ in node.value:  # before merging: a key beside `<<` overrides the merged one
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a word", key_node.start_mark)
        if key in written:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        written.add(key)
    loader.flatten_mapping(node)
    construct = loader.construct_object
    return {construct(key, deep=True): construct(value, deep=True) for key, value in node.value}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

_MAX_SPEC_BYTES = 1 << 20


def parse_yaml(text: str, origin: str) -> Any:
    """The plain data that `text` holds, read by a safe loader.

    Raises:
        SpecError: not YAML; the message has the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except Exception as error:  # a YAMLError, or whatever PyYAML's constructors stumble over (`!!int ""`: IndexError)
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise SpecError(f"{where}: not readable as YAML ({problem}); mend that line") from None


def parse_study(document: object, origin: str = "spec") -> StudySpec:
    """A validated StudySpec from plain data (what YAML gives, or dicts built in Python).

    Raises:
        SpecError: one line: origin, path, value, rule, remedy.
    """
    if not isinstance(document, Mapping):
        raise SpecError(f"{origin}: {shown(document)} is no mapping; a spec starts with 'name: ...'")
    try:
        return StudySpec.model_validate(dict(document))
    except ValidationError as error:
        raise SpecError(f"{origin}: {explain(error, '', StudySpec)}") from None
    except SpecError as error:
        raise SpecError(f"{origin}: {error}") from None


def load_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> StudySpec:
    """Reads, overrides and validates a spec file.

    Args:
        path: a YAML file.
        overrides: values by dotted path, set before validation, e.g. {"trial.compress.bits": 4}.

    Raises:
        SpecError: the file is missing, too large, not YAML, or breaks a rule.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_SPEC_BYTES:
            raise SpecError(f"{path}: larger than 1 MiB; a spec is a short YAML file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML spec") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not UTF-8 text; give the path of a YAML spec") from None
    document = parse_yaml(text, str(path))
    for dotted, value in (overrides or {}).items():
        _set(document, dotted, value)
    return parse_study(document, str(path))


def _at(document: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted path of nested mappings; None where there is none."""
    here: Any = document
    for part in dotted.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def _set(document: Any, dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    here = document
    for part in parents:
        if not isinstance(here, dict):
            break
        child = here.get(part, {})
        # Copied: a YAML alias makes one dict stand in two places, and only this place is meant.
        here[part] = dict(child) if isinstance(child, dict) else child
        here = here[part]
    if not isinstance(here, dict):
        raise SpecError(f"{dotted}: does not lead into a section of the spec; write e.g. trial.compress.bits")
    here[leaf] = value


def _remove(document: dict[str, Any], dotted: str) -> None:
    """Takes the value at a dotted path out, where there is one; the document's own dicts change."""
    *parents, leaf = dotted.split(".")
    here: Any = document
    for part in parents:
        here = here.get(part) if isinstance(here, dict) else None
    if isinstance(here, dict):
        here.pop(leaf, None)


def dump_yaml(spec: StudySpec) -> str:
    """The spec as YAML that `load_study` reads back to an equal one."""
    return yaml.dump(spec.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)  # ASCII: PyYAML loses a bare U+0085
