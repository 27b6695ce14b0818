"""How small the artifact's coding is, on trained models: beside the zero-order entropy bound and beside other codecs.

    python scripts/bench_artifact.py                      # trains 14 models first: 17 minutes on one core
    python scripts/bench_artifact.py --data digits        # a small CNN for LeNet; --verbose: every tensor

Every codec decodes what it wrote, and the result is compared bit for bit. DeepCABAC is one of them where nncodec can be
imported: `pip install --no-deps --target FOLDER nncodec` (it builds C++, and its pins would change numpy), then
PYTHONPATH=FOLDER. Exits with 1 where a model's compressed tensors take more than 1.02 times the bound and codebooks.

The bound is Σ N · H over the symbols, zero included, of each tensor: the least that a code without context can spend on
positions and values of known frequencies. Codebooks (2 bytes a value where fp16 is exact) come on top for every
decoder; frequency tables too, which neither column counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import baselines
import bench_models
import torch

from atmc_search.artifact import CompressedModel, describe, pack, unpack

LIMIT = 1.02
_NAME = 25
_INEXACT = "what was decoded is not what was encoded"


@dataclass(frozen=True)
class Sizes:
    """Bytes of one tensor or of several: non-zeros, ours, the bound, codebooks, and the other codecs' by name.

    Ours are fractions of a byte where one code runs through all tensors.
    """

    nnz: int
    ours: float
    bound: float
    codebooks: int
    others: Mapping[str, int]

    @property
    def of_bound(self) -> float:
        return self.ours / self.bound if self.bound else float("nan")

    @property
    def of_bound_with_codebooks(self) -> float:
        return self.ours / (self.bound + self.codebooks) if self.bound else float("nan")


def tensor_sizes(model: CompressedModel, codecs: Mapping[str, baselines.Codec]) -> dict[str, Sizes]:
    """Sizes by tensor. Stops the run where any codec, ours first, does not give back what it was given."""
    data = pack(model)
    _expect(_same(unpack(data), model.materialise()), f"ours: {_INEXACT}")
    stored = {tensor.name: tensor for tensor in describe(data).tensors if tensor.constrained}
    # That these bytes are real: they are what the file has more than the one without non-zeros, but for a few.
    claimed, added = sum(tensor.size_bytes for tensor in stored.values()), len(data) - len(pack(_emptied(model)))
    _expect(
        abs(claimed - added) <= 16 + 0.001 * added, f"ours: {claimed:.0f} bytes described, {added} added to the file"
    )
    found = {}
    for name, weight in model.weights.items():
        matrix = weight.numpy()
        others = {}
        for codec, (encode, decode) in codecs.items():
            coded = encode(matrix)
            _expect(decode(coded, matrix.shape).tobytes() == matrix.tobytes(), f"{codec}, {name}: {_INEXACT}")
            others[codec] = len(coded)
        ours = stored[name]
        bound = (ours.entropy_bits or 0.0) / 8
        found[name] = Sizes(ours.nnz, ours.size_bytes, bound, baselines.codebook_bytes(matrix), others)
    return found


def total(sizes: Mapping[str, Sizes]) -> Sizes:
    """The sum over tensors."""
    parts = list(sizes.values())
    return Sizes(
        sum(part.nnz for part in parts),
        sum(part.ours for part in parts),
        sum(part.bound for part in parts),
        sum(part.codebooks for part in parts),
        {codec: sum(part.others[codec] for part in parts) for codec in parts[0].others},
    )


def best_s(run: Callable[[], object], rounds: int = 3) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def print_times(models: Mapping[str, CompressedModel]) -> None:
    heads = "".join(f"{head:>12}" for head in ("weights", "file bytes", "pack", "unpack", "building"))
    print(f"\n{'seconds, best of 3':{_NAME}}{heads}   (of unpack: building)")
    for name, model in models.items():
        data = pack(model)
        _expect(_same(unpack(data), model.materialise()), f"ours, {name}: {_INEXACT}")
        weights = sum(layer.rows * layer.columns for layer in model.layers)
        took = best_s(partial(pack, model)), best_s(partial(unpack, data)), best_s(model.architecture.build)
        print(f"{name:{_NAME}}{weights:>12,}{len(data):>12,}" + "".join(f"{seconds:>12.3f}" for seconds in took))


def main() -> int:
    parser = argparse.ArgumentParser(description="Bytes of artifacts beside the entropy bound and other codecs.")
    parser.add_argument("--models", type=Path, default=Path("runs/bench-artifact"), help="folder that keeps the models")
    parser.add_argument("--data", choices=sorted(bench_models.SMALL_MODELS), default="fashion_mnist")
    parser.add_argument("--verbose", action="store_true", help="every tensor, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = bench_models.rows(options.data)
    models = {row.name: bench_models.trained(row, options.models, _tell) for row in rows}
    codecs = baselines.codecs()

    print("bytes of compressed tensors; bound: zero-order entropy; +cb: with codebooks; every codec decodes exactly")
    heads = "".join(f"{head:>9}" for head in ("nnz", "ours", "bound", "+cb")) + f"{'/bound':>7}{'/+cb':>7}"
    print(f"{'model: density, bits':{_NAME}}{heads}" + "".join(f"{name:>11}" for name in codecs))
    totals = {}
    for name, model in models.items():
        sizes = tensor_sizes(model, codecs)
        totals[name] = total(sizes)
        _print_row(name, totals[name])
        if options.verbose:
            for tensor, part in sizes.items():
                _print_row("  " + tensor.removeprefix("net.").replace(".weight", ""), part)
    shown = {name: model for name, model in models.items() if name.endswith(" 5.0% 4 bit")}
    print_times(shown | {"resnet34 5.0% synthetic": bench_models.synthetic()})
    return _verdict(totals, codecs)


def _verdict(totals: Mapping[str, Sizes], codecs: Mapping[str, object]) -> int:
    """Says how ours stands, from its best model to its worst; 1 where one is over the limit."""
    print()
    _print_range("the pure bound", {name: sizes.of_bound for name, sizes in totals.items()})
    ratios = {name: sizes.of_bound_with_codebooks for name, sizes in totals.items()}
    _print_range("the bound + codebooks", ratios)
    for codec in codecs:
        _print_range(codec, {name: sizes.ours / sizes.others[codec] for name, sizes in totals.items()})
    over = [name for name, ratio in ratios.items() if ratio > LIMIT]
    if over:
        print(f"FAILED: ours is over {LIMIT} x the bound + codebooks in {len(over)} of {len(ratios)}")
        return 1
    print(f"ours is at most {LIMIT} x the bound + codebooks everywhere")
    return 0


def _print_range(what: str, ratios: Mapping[str, float]) -> None:
    best, worst = min(ratios, key=lambda name: ratios[name]), max(ratios, key=lambda name: ratios[name])
    more = sum(ratio > 1 for ratio in ratios.values())
    ends = " to ".join(f"{ratios[name]:.3f} ({name})" for name in (best, worst))
    print(f"ours / {what:22} {ends}; above 1 in {more} of {len(ratios)}")


def _print_row(name: str, sizes: Sizes) -> None:
    whole = sizes.bound + sizes.codebooks
    line = f"{name:{_NAME}.{_NAME}}{sizes.nnz:>9,}{sizes.ours:>9,.0f}{sizes.bound:>9,.0f}{whole:>9,.0f}"
    ratios = f"{sizes.of_bound:>7.3f}{sizes.of_bound_with_codebooks:>7.3f}"
    print(line + ratios + "".join(f"{size:>11,}" for size in sizes.others.values()))


def _same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models' tensors agree to the bit."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and x.numpy().tobytes() == y.numpy().tobytes() for (a, x), (b, y) in pairs)


def _emptied(model: CompressedModel) -> CompressedModel:
    return dataclasses.replace(model, weights={name: torch.zeros_like(w) for name, w in model.weights.items()})


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(otherwise)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
