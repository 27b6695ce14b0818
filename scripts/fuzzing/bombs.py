"""The costliest files that are accepted, and what reading them takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atmc_search.artifact import Architecture, pack, unpack
from atmc_search.artifact.body import expectations, kernel_of
from atmc_search.artifact.coding import Encoder, Kind, Margins, Plan, code_tensor, margins
from atmc_search.compress import FORMS, FactorisedLayer
from atmc_search.errors import ArtifactError

from .bounds import most_resident
from .corpus import compressed
from .handmade import FRAME, headed, sealed, varint
from .verdict import announced


def hostile(
    header: Mapping[str, Any], form: str, plan: Plan, fill: Callable[[tuple[int, int]], Any], pad: int
) -> bytes:
    """A file in which every layer has the one form, and every tensor the one plan where it fits it."""
    with torch.device("meta"):
        outline = Architecture(header["model"], header["args"], tuple(header["input"]), header["classes"]).build()
    expected = expectations(outline.to_empty(device="cpu"))
    coder, earlier = Encoder(), list[Margins]()

    def put(shape: tuple[int, int], kernel: tuple[int, int]) -> None:
        matrix = fill(shape)
        fits = shape[1] % (plan.kernel[0] * plan.kernel[1]) == 0
        mine = plan if fits else Plan(plan.kind, plan.half, kernel=(1, 1))
        if mine.full or matrix.all():
            mine = Plan(mine.kind, mine.half, full=True)
        if not matrix.any():
            mine = Plan(Kind.EMPTY)
        code_tensor(coder, shape, kernel, earlier, mine, matrix)
        earlier.append(margins(matrix))

    for name in expected.order:
        if name in expected.layers:
            plain = expected.layers[name]
            rank = 0 if form == "dense" else min(plain.rows, plain.columns)
            layer = FactorisedLayer(plain.module, plain.shape, form, plain.transposed, rank)  # type: ignore[arg-type]
            coder.choice(len(FORMS), FORMS.index(layer.form))
            if form != "dense":
                coder.number(rank)
            for shape in layer.factor_shapes.values():
                put(shape, kernel_of(layer, shape))
        else:
            put((1, expected.others[name].numel()), (1, 1))
    raw, code = coder.getvalue()
    content = headed(json.dumps(header).encode(), varint(len(raw)) + raw + code)
    return sealed(content + bytes(max(0, pad - FRAME - len(content))))


def _all_but_one(shape: tuple[int, int]) -> Any:
    matrix = np.ones(shape, dtype=np.float32)
    matrix[-1, -1] = 0
    return matrix


def _one(shape: tuple[int, int]) -> Any:
    matrix = np.zeros(shape, dtype=np.float32)
    matrix[0, 0] = 1
    return matrix


def _mlp(hidden: list[int], side: int) -> dict[str, Any]:
    return {"model": "mlp", "args": {"hidden": hidden}, "input": [1, 1, side], "classes": 1}


def bombs() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Files at the limits, each made when it is called for."""
    made = partial(partial, hostile)
    floats, codes = Plan(Kind.FLOATS), Plan(Kind.CODEBOOK)
    fine = Plan(Kind.FLOATS, kernel=(1, 128))
    for kb in (2, 20):
        side = int((1024 * 1000 * kb + (1 << 20)) ** 0.5) - 2
        wide = _mlp([side], side)
        yield f"{kb} kB, one layer, all zero", made(wide, "dense", floats, np.zeros, 1000 * kb)
        yield f"{kb} kB, one layer, W = C", made(wide, "dense", codes, _all_but_one, 1000 * kb)
        yield f"{kb} kB, one layer, UV + C", made(wide, "plain", codes, _all_but_one, 1000 * kb)
    for n in (100, 1000, 4000):
        many = _mlp([1, 128] * (n // 2) if n < 4000 else [1] * n, 128)
        for form in ("dense", "plain"):
            yield f"{n:,} tiny layers, {form}", made(many, form, fine, _one, 0)
    deep = {"model": "wide_resnet", "args": {"depth": 1000, "widen_factor": 1}, "input": [1, 4, 4], "classes": 1}
    yield "wide_resnet of depth 1,000, UV + C", made(deep, "plain", floats, _one, 20_000)
    image = {"model": "small_cnn", "args": {"width": 1}, "input": [3, 2048, 2048], "classes": 1}
    yield "small_cnn on 3 × 2048 × 2048", made(image, "dense", floats, _one, 9_000)


def show_bombs(only: str, script: str) -> None:
    """Prints time and memory of each whose name holds `only`, read by `script --read` in a process of its own."""
    print(f"{'file':42} {'bytes':>8} {'values':>12} {'build s':>8} {'unpack s':>9} {'MiB':>7}  outcome")
    for name, make in bombs():
        if only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bomb.atmc"
            began = time.perf_counter()
            try:
                data = make()
            except ArtifactError as error:
                print(f"{name:42} cannot be made: {error}", flush=True)
                continue
            made = time.perf_counter() - began
            path.write_bytes(data)
            command = [sys.executable, script, "--read", str(path)]
            line = subprocess.run(command, check=False, capture_output=True, text=True)
            values = announced(data)
            print(
                f"{name:42} {len(data):8,} {values:12,} {made:8.1f} {line.stdout.strip() or line.stderr[-300:]}",
                flush=True,
            )


def read_one(path: Path) -> None:
    """Prints the time and memory that reading a file takes."""
    data = path.read_bytes()
    unpack(pack(compressed("mlp", {"hidden": [3]}, (1, 2, 3), "none", 0.5, 3)))  # fills caches
    resident = most_resident()
    began, outcome = time.perf_counter(), "a model"
    try:
        unpack(data)
    except ArtifactError as error:
        outcome = str(error)
    wall = time.perf_counter() - began
    print(f"{wall:9.2f} {most_resident() - resident:7,.0f}  {outcome[:90]}")
