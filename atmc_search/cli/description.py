"""An artifact's header and tensors as `inspect` shows them: in words, as a table, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from atmc_search.cli.common import cell
from atmc_search.errors import shown

if TYPE_CHECKING:
    from atmc_search.artifact import Description


def by_axes(shape: tuple[int, ...]) -> str:
    """A shape: 20×1×5×5."""
    return "×".join(map(str, shape)) or "scalar"


def header_text(value: object) -> str:
    """A header's value for a terminal: no control characters, whatever the file says."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 200 else shown(value, 200)


def fact(key: str, value: object) -> str:
    """A header's value in words, where it is of a kind that our own files have."""
    kinds: Mapping[str, Callable[[object], str | None]] = {"measured": _measured, "threat": _radius, "bits": _bits}
    words = kinds[key](value) if key in kinds else None
    return header_text(value) if words is None else words


def _measured(value: object) -> str | None:
    """Accuracies with their intervals; None for what no release has written."""
    from atmc_search.measure import wilson_interval

    if not isinstance(value, dict):
        return None
    split, images, attack = value.get("split"), value.get("images"), value.get("attack")
    counts = {word: value.get(word) for word in ("clean", "robust")}
    if not (isinstance(split, str) and isinstance(attack, dict) and _count_within(images, 1 << 40)):
        return None
    assert isinstance(images, int)
    if images == 0 or not all(_count_within(count, images) for count in counts.values()):
        return None
    name, settings = attack.get("name"), {key: value for key, value in attack.items() if key != "name"}
    figures = ", ".join(
        "{} {:.3f} ({:.3f} to {:.3f})".format(word, count / images, *wilson_interval(count, images))
        for word, count in counts.items()
        if isinstance(count, int)
    )
    steps = settings.pop("steps", None)
    by = f"{header_text(name)}{'' if steps is None else f', {header_text(steps)} steps'}"
    rest = "".join(f", {header_text(key)} {header_text(setting)}" for key, setting in settings.items())
    return f"{figures}\n{'':13}on {images:,} {header_text(split)} images, by {by}{rest}; 95 % intervals"


def _count_within(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _radius(value: object) -> str | None:
    if not (isinstance(value, list) and len(value) == 2):
        return None
    norm, eps = value
    return f"{header_text(norm)}, eps {eps:g}" if isinstance(eps, float) or _count_within(eps, 1 << 40) else None


def _bits(value: object) -> str | None:
    """One number, or one for each tensor: those of zeros alone have 0."""
    if not (isinstance(value, list) and value and all(_count_within(bits, 64) for bits in value)):
        return None
    return " ".join(map(str, value)) if len(value) <= 60 else f"{min(value)} to {max(value)}, of {len(value)} tensors"


def _bytes(size: float) -> str:
    """A tensor's bytes, of which one may have a fraction."""
    return f"{size:.1f}" if size < 100 else f"{size:,.0f}"


def description_json(found: Description | None) -> dict[str, Any]:
    """A description as JSON; without one, nothing is known of the tensors."""
    if found is None:
        return {"tensors": None}
    names = (
        "header_bytes",
        "layout_bytes",
        "dense_weights",
        "nnz",
        "density",
        "paper_bits",
        "entropy_bits",
        "fp32_bytes",
        "compression",
    )
    columns = (
        "name",
        "shape",
        "constrained",
        "mode",
        "nnz",
        "size",
        "density",
        "bits",
        "size_bytes",
        "entropy_bits",
        "of_entropy_bound",
    )
    rows = [{column: getattr(tensor, column) for column in columns} for tensor in found.tensors]
    return {name: getattr(found, name) for name in names} | {"tensors": rows}


def tensor_table(found: Description) -> Table:
    """A row a tensor: what it holds, and what it costs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("tensor", "shape", "density", "bits", "mode", "bytes", "of entropy bound"):
        justify: Literal["left", "right"] = "left" if column in ("tensor", "shape", "mode") else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for tensor in found.tensors:
        bound = tensor.of_entropy_bound
        table.add_row(
            cell(tensor.name),
            by_axes(tensor.shape),
            f"{tensor.density:.4f}",
            str(tensor.bits),
            tensor.mode,
            _bytes(tensor.size_bytes),
            "" if bound is None else f"{100 * bound:.0f} %",
        )
    return table


def totals(found: Description) -> list[str]:
    """Lines: where the bytes go, and beside them the entropy and what papers count."""
    weights = sum(tensor.size_bytes for tensor in found.tensors if tensor.constrained)
    others = sum(tensor.size_bytes for tensor in found.tensors if not tensor.constrained)
    bound, paper = found.entropy_bits / 8, found.paper_bits / 8
    share = f"; they take {100 * weights / bound:.0f} % of it" if bound else ""
    # One code runs through all tensors, so that only sums are whole bytes; rounded parts still add up.
    whole = [round(weights), round(others)]
    layout = found.size_bytes - found.header_bytes - sum(whole)
    bits = "bits" if "bits" in found.header else "fewest bits that they need"
    return [
        f"bytes        {found.size_bytes:,} = header {found.header_bytes:,} + layout {layout:,} + "
        f"compressed weights {whole[0]:,} + biases, norms, buffers {whole[1]:,}",
        f"weights      {found.nnz:,} non-zeros of {found.dense_weights:,} dense weights (density {found.density:.4f})",
        f"entropy      {bound:,.0f} bytes is the zero-order bound of the compressed weights{share}",
        f"paper        {paper:,.0f} bytes by non-zeros × {bits}: no positions, no codebooks, nothing else",
        f"compression  {found.compression:.1f} times smaller than {found.fp32_bytes:,} bytes in fp32",
    ]
