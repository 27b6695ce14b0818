"""Odd values for a header, and changes of one."""

from __future__ import annotations

import json
import random
import re
from typing import Any

_NAMES = (
    *("mlp", "lenet", "small_cnn", "wide_resnet", "resnet9000", "", ":", "a:", ":a", "MLP", "os:system", "this:s"),
    *("antigravity:x", "fuzz_trap:Net", "builtins:exec", "atmc_search.api:load_artifact", "..:x", "a\n:b", "\ud800:x"),
)
_NUMBERS = (
    *(0, 1, -1, 2, 3, 64, 255, 1000, 65_535, 65_536),
    *(1 << 20, 1 << 31, 1 << 62, 1 << 63, 1 << 64, -(1 << 63), 1 << 200),
)
_ODD: tuple[Any, ...] = (
    *(None, True, False, 1.5, 1e308, float("nan"), float("inf"), "", "1", [], {}, [[]], {"a": 1}, [None], "\ud800\n\0"),
    *([3, 2.5, 3], [1, 2], [[3]], [-3], [0], [10_000_000, 10_000_000], [True, 8, 8]),
)
_KEYS = (
    *("model", "args", "input", "classes", "hidden", "width", "depth", "widen_factor", "dropout", "input_shape", "x"),
    *("threat", "study", "version", "seed", "self", "__class__", ""),
)


def edit(draw: random.Random, header: dict[str, Any]) -> None:
    """One change of a header, in place."""
    kind = draw.randrange(8)
    if kind == 0:
        header["model"] = draw.choice(_NAMES)
    elif kind == 1:
        args = header.get("args")
        if isinstance(args, dict):
            args[draw.choice(_KEYS)] = draw.choice((draw.choice(_NUMBERS), draw.choice(_ODD), [draw.choice(_NUMBERS)]))
    elif kind == 2:
        header["input"] = [draw.choice((1, 3, 8, 16, 32, *_NUMBERS)) for _ in range(draw.choice((3, 3, 3, 2, 4)))]
    elif kind == 3:
        header["classes"] = draw.choice((draw.choice(_NUMBERS), draw.choice(_ODD)))
    elif kind == 4:
        header[draw.choice(_KEYS)] = draw.choice((draw.choice(_ODD), draw.choice(_NUMBERS)))
    elif kind == 5:
        header.pop(draw.choice(list(header)), None) if header else None
    elif kind == 6:  # many layers; and deeper than the parser's limit, or the writer's
        header["args"] = {"hidden": [draw.choice((1, 2, 128))] * draw.choice((10, 300, 3000, 30_000))}
        header["model"] = "mlp"
    else:
        header[draw.choice(_KEYS)] = f"nested {draw.choice((5, 100, 480, 900, 960, 985, 990, 995, 20_000))}"


def written(header: dict[str, Any]) -> bytes:
    """The header as JSON, with the lists nested so deep that `json` itself would not write them."""
    text = json.dumps(header).encode()
    for depth in map(int, re.findall(rb'"nested ([0-9]+)"', text)):
        text = text.replace(b'"nested %d"' % depth, b"[" * depth + b"1" + b"]" * depth)
    return text
