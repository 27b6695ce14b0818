"""What an artifact's bytes hold: every tensor's mode, density and length, and what all of them add up to.

It reads the file as `unpack` does, with the same checks, and counts the bits of each tensor; nothing of it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atmc_search.artifact.account import entropy_bits, least_bits
from atmc_search.artifact.container import Contents, read_contents
from atmc_search.artifact.model import CompressedModel

_WIDTHS = {"fp16": 16, "fp32": 32, "int64": 64}
_FLOAT_BITS = 32


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of an artifact.

    Attributes:
        name: in the plain model's state dict; a factor's ends in `.U`, `.V` or `.C`.
        shape: of a factor (rows, columns), else as in the state dict.
        constrained: whether it is a compressed weight or factor; False for biases, norm parameters, buffers.
        mode: how it is stored: empty, codebook or floats, with their precision; or int64.
        nnz: non-zeros.
        size: values, zeros included.
        bits: b of its codebook of 2^b values, as the header says or else the least b that covers its distinct values;
            32 without codebook, 0 where all is zero; width of a value for what is not constrained.
        size_bytes: what it takes in the file, in fractions of a byte: one code runs through all tensors.
        entropy_bits: the zero-order entropy bound on positions and values (see `SizeAccount`); None where not
            constrained.
    """

    name: str
    shape: tuple[int, ...]
    constrained: bool
    mode: str
    nnz: int
    size: int
    bits: int
    size_bytes: float
    entropy_bits: float | None

    @property
    def density(self) -> float:
        """Non-zeros as a share of the values."""
        return self.nnz / self.size if self.size else 0.0

    @property
    def of_entropy_bound(self) -> float | None:
        """The bytes as a multiple of the entropy bound; None where there is no bound, or it is 0."""
        return 8 * self.size_bytes / self.entropy_bits if self.entropy_bits else None


@dataclass(frozen=True)
class Description:
    """An artifact, described. `header_bytes`, `layout_bytes` and the tensors' bytes add up to `size_bytes`.

    Attributes:
        header: model, args, input, classes, and what travels along (threat, study, trial, fingerprint, version ...).
        size_bytes: length of the file.
        header_bytes: magic, version, checksum and header.
        layout_bytes: all else: the layers' factor forms and ranks, lengths, the code's end and padding.
        tensors: in the file's order.
        dense_weights: weights of the uncompressed layers.
        fp32_bytes: the same model's plain tensors, 4 bytes a float and 8 an integer.
    """

    header: Mapping[str, Any]
    size_bytes: int
    header_bytes: int
    layout_bytes: float
    tensors: tuple[StoredTensor, ...]
    dense_weights: int
    fp32_bytes: int

    @property
    def nnz(self) -> int:
        """Non-zeros in all factors together."""
        return sum(tensor.nnz for tensor in self.tensors if tensor.constrained)

    @property
    def density(self) -> float:
        """Non-zeros as a share of the dense weights."""
        return self.nnz / self.dense_weights

    @property
    def paper_bits(self) -> int:
        """Σ nnz · bits, the size that the ATMC paper counts, with the bits that the tensors hold."""
        return sum(tensor.nnz * tensor.bits for tensor in self.tensors if tensor.constrained)

    @property
    def entropy_bits(self) -> float:
        """The zero-order entropy bound of all factors together."""
        return sum(tensor.entropy_bits or 0.0 for tensor in self.tensors)

    @property
    def compression(self) -> float:
        """How many times smaller the file is than the plain tensors."""
        return self.fp32_bytes / self.size_bytes


def describe(data: bytes, *, allow_custom_models: bool = False) -> Description:
    """Every tensor of an artifact and what its bytes are spent on.

    Args:
        data: the bytes of the file.
        allow_custom_models: as for `unpack`: shapes come from the architecture, which a custom model's code builds.

    Raises:
        ArtifactError: whatever `unpack` refuses.
    """
    contents = read_contents(data, allow_custom_models=allow_custom_models, measured=True)
    model = contents.compressed
    shapes = {layer.weight: layer.shape for layer in model.layers if layer.form == "dense"}
    said = _bits_said(model)
    tensors = [_stored(contents, name, shapes.get(name), said.get(name)) for name in contents.parts]
    dense = sum(layer.rows * layer.columns for layer in model.layers)
    fp32 = 4 * dense + sum(t.numel() * (4 if t.is_floating_point() else 8) for t in model.others.values())
    layout = len(data) - contents.header_bytes - sum(tensor.size_bytes for tensor in tensors)
    return Description(model.meta, len(data), contents.header_bytes, layout, tuple(tensors), dense, fp32)


def _bits_said(model: CompressedModel) -> dict[str, int]:
    """The header's `bits` by factor; nothing where it has none, or none that could be."""
    bits = model.meta.get("bits")
    listed = bits if isinstance(bits, list) else [bits] * len(model.weights)
    if len(listed) != len(model.weights) or not all(type(b) is int and 0 <= b <= _FLOAT_BITS for b in listed):
        return {}
    return dict(zip(model.weights, listed, strict=True))


def _stored(contents: Contents, name: str, shape: tuple[int, ...] | None, said: int | None) -> StoredTensor:
    part, compressed = contents.parts[name], contents.compressed
    constrained = name in compressed.weights
    tensor = compressed.weights[name] if constrained else compressed.others[name]
    nnz = int(tensor.count_nonzero())
    bound = None
    if constrained:
        bits = 0
        if nnz and said is not None:
            bits = max(said, least_bits(tensor))  # a file is from anywhere: what it says stands where it can be true
        elif nnz:
            bits = _FLOAT_BITS if "floats" in part.mode else least_bits(tensor)
        bound = entropy_bits(tensor, bits) if nnz else 0.0
    else:
        bits = next((width for word, width in _WIDTHS.items() if part.mode.endswith(word)), 0)
    return StoredTensor(
        name, shape or tuple(tensor.shape), constrained, part.mode, nnz, tensor.numel(), bits, part.bits / 8, bound
    )
