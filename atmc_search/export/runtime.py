"""What an exported model costs to run: latency and peak memory of one image in ONNX Runtime, on one thread.

Both are of this machine's CPU and of ONNX Runtime's default optimisations. Latency is the time for which the thread
works: the wall time on a core of its own, and the same beside other trials, where wall times double. Peak memory is
read from the runtime's own allocator, not from the process: it is the same to the byte every time.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atmc_search.errors import AtmcError

_WARM_UP = 5
_LEAST_RUNS = 10
_STATISTIC = "mem_in_use_peak"


@dataclass(frozen=True)
class Cost:
    """What running a model on one image takes.

    Attributes:
        latency_ms: median time of a run in ms, from the image in memory to the logits in memory.
        latency_ms_low, latency_ms_high: the quartiles: half of the runs lie between them.
        runs: how many were timed.
        peak_memory_bytes: the most that ONNX Runtime's allocator had in use: all weights, and the intermediate results
            that are alive at once, in its own layouts. Not in it: the runtime's code, the session's bookkeeping, the
            image, and what loading takes for a moment.
    """

    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    runs: int
    peak_memory_bytes: int


def profile(onnx: bytes, input_shape: tuple[int, int, int], *, runs: int = 300, limit_s: float = 2.0) -> Cost:
    """Runs an exported model on single images.

    Args:
        onnx: as `export(model, about, "onnx")` gives it.
        input_shape: (channels, height, width) of an image.
        runs: how many to time, after warming up.
        limit_s: seconds after which timing ends early, though never before ten runs.

    Raises:
        AtmcError: ONNX Runtime is missing, older than 1.28, which gives no statistics of memory, or fails on the model.
    """
    image = np.random.default_rng(0).random((1, *input_shape), dtype=np.float32)
    try:
        low, median, high = np.percentile(times := _times_ms(onnx, image, runs, limit_s), [25, 50, 75])
        peak = _peak_memory(onnx, image)
    except ImportError:
        raise AtmcError("ONNX Runtime cannot be imported; install it by: pip install 'atmc-search[export]'") from None
    except AtmcError:
        raise
    except Exception as error:  # another library, on code of a user's
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise AtmcError(f"ONNX Runtime fails on the exported model ({reason}); export to another format") from error
    return Cost(float(median), float(low), float(high), len(times), peak)


def _times_ms(onnx: bytes, image: NDArray[np.float32], runs: int, limit_s: float) -> list[float]:
    session = _session(onnx, _options())
    feed = {session.get_inputs()[0].name: image}
    for _ in range(_WARM_UP):
        session.run(None, feed)
    times: list[float] = []
    end = time.perf_counter() + limit_s
    while len(times) < runs and (len(times) < _LEAST_RUNS or time.perf_counter() < end):
        began = time.thread_time_ns()  # with one thread, the session works in the one that calls it
        session.run(None, feed)
        times.append((time.thread_time_ns() - began) / 1e6)
    return times


def _peak_memory(onnx: bytes, image: NDArray[np.float32]) -> int:
    options = _options()
    # Repacked weights lie outside the allocator that is asked, so that a ResNet's would not be counted at all.
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_profiling = True
    with TemporaryDirectory(prefix="atmc-profile-") as folder:
        options.profile_file_prefix = str(Path(folder) / "onnxruntime")
        session = _session(onnx, options)
        # Once: from the second run on, what the first one needed is kept in a block beside what is in use.
        session.run(None, {session.get_inputs()[0].name: image})
        events = json.loads(Path(session.end_profiling()).read_text())
    peaks = [int(event["args"][_STATISTIC]) for event in events if _STATISTIC in event.get("args", {})]
    if not peaks:
        import onnxruntime

        raise AtmcError(
            f"ONNX Runtime {onnxruntime.__version__} gives no statistics of memory, which come with 1.28; "
            "upgrade it by: pip install --upgrade 'onnxruntime>=1.28'"
        )
    return max(peaks)


def _options() -> Any:
    """One thread, one operator after another, the default optimisations, no chatter."""
    import onnxruntime  # not at the top: it is optional

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return options


def _session(onnx: bytes, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
