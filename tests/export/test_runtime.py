"""Latency by a clock of our own, and memory against what the model's tensors take."""

from __future__ import annotations

import functools
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from atmc_search.artifact import Architecture
from atmc_search.errors import AtmcError
from atmc_search.export import About, export
from atmc_search.export.runtime import profile

ROUNDED = 256
"""ONNX Runtime's allocator gives whole multiples of as many bytes."""


@functools.cache
def exported(name: str, shape: tuple[int, int, int], **args: Any) -> tuple[bytes, int]:
    """A dense model in ONNX, and the bytes of its weights."""
    args = {key: list(value) if isinstance(value, tuple) else value for key, value in args.items()}
    model = Architecture(name, args, shape, 10).build().eval()
    header = {"model": name, "args": args, "input": list(shape), "classes": 10}
    return export(model, About(header), "onnx"), 4 * sum(p.numel() for p in model.parameters())


def tiny() -> bytes:
    return exported("mlp", (1, 4, 4), hidden=(3,))[0]


def peak(data: bytes, shape: tuple[int, int, int]) -> int:
    return profile(data, shape, runs=1).peak_memory_bytes


def test_memory_holds_the_weights_and_what_is_alive_at_once() -> None:
    data, weights = exported("mlp", (1, 30, 30), hidden=(700, 500))
    alive = 4 * (900 + 700)  # the widest layer's input and output
    most_tensors = 20
    assert weights + alive <= peak(data, (1, 30, 30)) <= weights + alive + most_tensors * ROUNDED


def test_memory_holds_feature_maps() -> None:
    """At the least those of the first convolution, beside what its pooling makes of them."""
    data, weights = exported("lenet", (1, 60, 60))
    maps = 4 * 20 * 56 * 56
    assert peak(data, (1, 60, 60)) >= weights + maps + maps // 4


def test_memory_of_a_large_model_is_far_more_than_of_a_tiny_one() -> None:
    data, weights = exported("resnet18", (3, 8, 8))
    assert peak(data, (3, 8, 8)) > 0.99 * weights > 1000 * peak(tiny(), (1, 4, 4))  # batch norm is folded away


def test_memory_is_the_same_to_the_byte_every_time() -> None:
    data, _ = exported("mlp", (1, 30, 30), hidden=(700, 500))
    assert len({peak(data, (1, 30, 30)) for _ in range(3)}) == 1


def test_latency_is_the_median_between_its_quartiles(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.random.default_rng(3).permutation(np.arange(1, 102)) * 1_000_000  # 1 to 101 ms
    clock = itertools.accumulate(itertools.chain.from_iterable((7, int(length)) for length in lengths))
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(clock))
    cost = profile(tiny(), (1, 4, 4), runs=101)
    assert (cost.latency_ms_low, cost.latency_ms, cost.latency_ms_high, cost.runs) == (26, 51, 76, 101)


def test_timing_ends_early_but_not_before_ten_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    assert profile(tiny(), (1, 4, 4), runs=100, limit_s=0.5).runs == 10
    assert profile(tiny(), (1, 4, 4), runs=4, limit_s=0.5).runs == 4
    assert 10 < profile(tiny(), (1, 4, 4), runs=100, limit_s=50.0).runs < 100


class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
    """Keeps with what options it was made, and what it was run on."""

    made: list[Any]
    shapes: set[tuple[int, ...]]

    def __init__(self, data: bytes, options: Any, **rest: Any) -> None:
        super().__init__(data, options, **rest)
        self.made.append((options, rest))

    def run(self, names: Any, feed: Any) -> Any:
        self.shapes.update(image.shape for image in feed.values())
        return super().run(names, feed)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    Session.made, Session.shapes = [], set()
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return Session


def test_one_thread_runs_one_image_on_the_cpu(session: type[Session]) -> None:
    profile(exported("mlp", (1, 4, 4), hidden=(3,))[0], (1, 4, 4), runs=1)
    assert session.shapes == {(1, 1, 4, 4)}
    assert len(session.made) == 2
    for options, rest in session.made:
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
        assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        assert rest == {"providers": ["CPUExecutionProvider"]}


def test_a_runtime_without_statistics_of_memory_is_refused(
    session: type[Session], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def end_profiling(self: Session) -> str:
        path = tmp_path / "profile.json"
        path.write_text(json.dumps([{"cat": "Session", "args": {}}, {"cat": "Node"}]))
        return str(path)

    data = tiny()
    monkeypatch.setattr(session, "end_profiling", end_profiling)
    monkeypatch.setattr(onnxruntime, "__version__", "1.27.0")
    with pytest.raises(AtmcError, match=r"^ONNX Runtime 1\.27\.0 gives no .*; upgrade it by: pip install"):
        profile(data, (1, 4, 4), runs=1)


def test_no_profile_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = tiny()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    profile(data, (1, 4, 4), runs=1)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_run_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny()
    for broken, shape in ((b"no model", (1, 4, 4)), (data, (3, 9, 9))):
        with pytest.raises(AtmcError, match=r"^ONNX Runtime fails on the exported model .*; ") as caught:
            profile(broken, shape, runs=1)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AtmcError, match=r"cannot be imported; install it by: pip install 'atmc-search\[export\]'"):
        profile(data, (1, 4, 4), runs=1)
