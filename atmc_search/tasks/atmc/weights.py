"""A trained model of the user's as the dense start: read as tensors only, and fitted to the model that the spec names.

Files: `.safetensors`; `.pt`, `.pth`, `.ckpt` and `.bin`, read by torch with `weights_only=True`, so that nothing in
them is executed; `.atmc`, an artifact of ours. A state dict may lie under `state_dict`, `model`, `net` or `ema`, and
its keys may share prefixes such as `module.` (DataParallel) and `_orig_mod.` (torch.compile).
"""

from __future__ import annotations

import hashlib
import io
import pickle  # nosec B403 # for the name of its error: torch reads with weights_only=True
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from atmc_search.artifact import read_header, unpack
from atmc_search.errors import AtmcError, DataError, SpecError, shown

_PATH = "trial.dense.weights"
_PICKLED = (".pt", ".pth", ".ckpt", ".bin")
_NESTED = ("state_dict", "model_state_dict", "model", "net", "ema")
_DEEPEST = 4
_LISTED = 3
_COUNTERS = "num_batches_tracked"


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights as it was read.

    Attributes:
        name: its path, as the spec has it.
        sha256: of its bytes, hexadecimal.
        data: its bytes.
    """

    name: str
    sha256: str
    data: bytes

    @classmethod
    def read(cls, name: str) -> WeightsFile:
        """Reads the file.

        Raises:
            SpecError: its suffix is none of those above.
            DataError: it cannot be read.
        """
        path = Path(name)
        if path.suffix.lower() not in (".safetensors", ".atmc", *_PICKLED):
            kind = shown(path.suffix) if path.suffix else "a name without a suffix"
            raise SpecError(
                f"{_PATH} = {shown(name)}: {kind} is no format of weights; give a "
                ".safetensors, .pt, .pth, .ckpt, .bin or .atmc file"
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{_PATH} = {shown(name)}: cannot be read ({error.strerror}); check the path") from None
        return cls(name, hashlib.sha256(data).hexdigest(), data)

    @property
    def origin(self) -> str:
        """Where a start made of it comes from, for the column `start`."""
        return f"file {Path(self.name).name} {self.sha256}"

    def state(self, model: nn.Module, architecture: str) -> dict[str, Tensor]:
        """The whole state of `model` with the file's tensors in it.

        Args:
            model: `normalize`, then `net`, as `build_model` gives it. A file with the state of the net alone leaves the
                normalisation as it is there.
            architecture: the model's name, for messages and for artifacts of a user's model.

        Raises:
            SpecError: the file holds no state dict, one of another model, or values that are not finite; names keys.
        """
        where = f"{_PATH} = {shown(self.name)}"
        own = model.state_dict()
        found = _plain_names(self._tensors(where, architecture), own)
        expected = {name: tensor for name, tensor in own.items() if name in found or name.startswith("net.")}
        _check_fit(where, architecture, expected, found)
        _check_finite(where, {name: found[name] for name in expected if name in found})
        return {name: found[name].to(tensor.dtype) if name in found else tensor for name, tensor in own.items()}

    def _tensors(self, where: str, architecture: str) -> Mapping[str, Tensor]:
        suffix = Path(self.name).suffix.lower()
        if suffix == ".atmc":
            try:
                own = read_header(self.data).get("model") == architecture  # whose code the spec itself names
                return unpack(self.data, allow_custom_models=own).state_dict()
            except AtmcError as error:
                raise SpecError(f"{where}: {error}") from None
        try:
            if suffix == ".safetensors":
                return safetensors.torch.load(self.data)
            document = torch.load(io.BytesIO(self.data), map_location="cpu", weights_only=True)  # nosec B614
        except (pickle.UnpicklingError, AttributeError) as error:
            reason = " ".join(str(error).split())
            more = "GLOBAL" in reason or "Unsupported" in reason or "global" in reason
            raise SpecError(
                f"{where}: holds "
                + ("objects besides tensors, and reading those would run code" if more else "no readable checkpoint")
                + "; save the weights alone: torch.save(model.state_dict(), 'net.pth')"
            ) from None
        except Exception:  # zip, safetensors and torch each complain in their own way
            writer = "safetensors" if suffix == ".safetensors" else "torch.save"
            raise SpecError(f"{where}: is no file that {writer} wrote, or is damaged; save it again") from None
        return _state_dict(document, where)


def _state_dict(document: Any, where: str) -> Mapping[str, Tensor]:
    """The state dict in a checkpoint, however deep it lies."""
    here = document
    for _ in range(_DEEPEST):
        if not isinstance(here, Mapping):
            break
        tensors = {str(name): value for name, value in here.items() if isinstance(value, Tensor)}
        nested = next((here[key] for key in _NESTED if isinstance(here.get(key), Mapping)), None)
        if tensors and (nested is None or len(tensors) == len(here)):
            return tensors
        if nested is None:
            break
        here = nested
    keys = ", ".join(map(str, list(document)[:_LISTED])) if isinstance(document, Mapping) else type(document).__name__
    raise SpecError(
        f"{where}: holds no state dict ({shown(keys)}), neither at its top nor under {', '.join(_NESTED)}; save the "
        "weights alone: torch.save(model.state_dict(), 'net.pth')"
    )


def _plain_names(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the model's own names: of the stripped and completed names, those that fit best."""

    def fitting(names: Mapping[str, Tensor]) -> int:
        return sum(name in own for name in names)

    return max(_renamed(found), key=fitting)


def _renamed(found: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The names with 0, 1, 2 … shared prefixes taken away, each as of the whole model and as of its net."""
    names = dict(found)
    while True:
        yield names
        yield {f"net.{name}": tensor for name, tensor in names.items()}
        heads = {name.partition(".")[0] for name in names}
        if len(heads) != 1 or not all("." in name for name in names):
            return
        names = {name.partition(".")[2]: tensor for name, tensor in names.items()}


def _check_fit(where: str, architecture: str, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Passes if `found` has just the names and shapes of `own`; counters of batches may be missing."""
    missing = [name for name in own if name not in found and not name.endswith(_COUNTERS)]
    left = [name for name in found if name not in own]
    other = [
        f"{_short(name)} {tuple(found[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in found and found[name].shape != tensor.shape
    ]
    faults = (("missing", map(_short, missing)), ("left over", map(_short, left)), ("of another shape", other))
    said = [f"{what}: {_listed(list(names))}" for what, names in faults]
    said = [text for text in said if not text.endswith(": ")]
    if said:
        raise SpecError(
            f"{where}: does not fit model {architecture}: {'; '.join(said)}; set trial.model to the model that these "
            "weights are of"
        )


def _check_finite(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Passes if no tensor has NaN or an infinity, as those of a training that diverged have."""
    broken = [
        _short(name) for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if broken:
        raise SpecError(
            f"{where}: holds values that are not finite: {_listed(broken)}; give weights of a training that did not "
            "diverge"
        )


def _short(name: str) -> str:
    return name.removeprefix("net.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
