"""What a checkpoint holds, what is noticed of damage to it, and what stays on disk. Nothing here needs Ray."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search.errors import RunError
from atmc_search.search.checkpoints import Checkpoint, Checkpoints
from atmc_search.training import tensors_to_bytes

TENSORS = {
    "weights": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
    "scalar": torch.tensor(3, dtype=torch.int64),
    "flags": torch.tensor([True, False]),
    "none": torch.empty(0),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
}
FACTS: dict[str, Any] = {"epoch": 2, "best": [0.1, None], "nested": {"a": 1 / 3}, "odd": "é\ud800"}
REPORT = {"epoch": 2, "trial_fingerprint": "abc", "loss": np.float32(0.5), "gain": math.pi, "state": "running"}


def written() -> bytes:
    return Checkpoint(TENSORS, FACTS, REPORT).to_bytes()


def test_it_gives_back_what_it_was_made_of() -> None:
    again = Checkpoint.from_bytes(written())
    assert again.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert again.tensors[name].dtype == tensor.dtype
        assert torch.equal(again.tensors[name], tensor), name
    assert again.facts == FACTS
    assert again.report == {**REPORT, "loss": 0.5}
    assert math.isnan(Checkpoint.from_bytes(Checkpoint({}, {}, {"loss": math.nan}).to_bytes()).report["loss"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    whole = written()
    place = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(1, 255))
    damaged = bytearray(whole)
    damaged[place] ^= other
    try:
        again = Checkpoint.from_bytes(bytes(damaged))
    except RunError:
        return
    assert again.to_bytes() == whole  # such as a blank more in the header: it means the same


@pytest.mark.parametrize(
    "data",
    [b"", b"no", written()[:-1], written() + b"x", tensors_to_bytes({}, {}), tensors_to_bytes({}, {"crc32": 1})],
    ids=["empty", "text", "cut", "longer", "another file of ours", "no body"],
)
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(RunError):
        Checkpoint.from_bytes(data)


def test_facts_that_are_not_plain_are_refused_when_written() -> None:
    for facts in ({"set": {1}}, {"tensor": torch.zeros(1)}):
        with pytest.raises(TypeError):
            Checkpoint({}, facts, {}).to_bytes()


def test_only_the_newest_stays_and_only_as_long_as_the_trial(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.read(3) is None
    checkpoints.keep_only(set())  # nothing there yet
    for trial, data in ((3, b"one"), (3, b"two"), (4, b"of four"), (12, b"of twelve")):
        checkpoints.write(trial, data)
    folder = tmp_path / "checkpoints"
    assert checkpoints.read(3) == b"two"
    checkpoints.drop(3)
    checkpoints.drop(3)
    assert checkpoints.read(3) is None
    (folder / ".00004.safetensors.99.partial").write_bytes(b"half")
    (folder / "notes.txt").write_text("the user's own")
    checkpoints.keep_only({4, 5})
    assert sorted(path.name for path in folder.iterdir()) == ["00004.safetensors", "notes.txt"]
    assert checkpoints.read(4) == b"of four"


def test_nothing_is_unpickled() -> None:
    header = json.loads(written()[8 : 8 + int.from_bytes(written()[:8], "little")])
    assert set(header) == {"__metadata__", *TENSORS}  # a plain safetensors file, which other tools read too
