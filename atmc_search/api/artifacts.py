"""Single artifact files: load, inspect, export, repack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from atmc_search.artifact import Description, describe, read_header, repacked, unpack
from atmc_search.errors import ArtifactError, AtmcError
from atmc_search.export import About, export
from atmc_search.results import write_whole


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
