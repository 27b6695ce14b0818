"""A run's starts are found again by their key; those made of a file of weights also when that file is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from atmc_search.results import RunFolder
from atmc_search.tasks import Start, Task
from atmc_search.tasks.stored import Stored

ORIGIN = "file net.pth " + "ab" * 32


class Keyed(Task):
    """Its starts are under "now"; an earlier release had them under "once"."""

    @classmethod
    def start_key(cls, spec: Any, data: Any) -> str:
        return "now"

    @classmethod
    def earlier_start_keys(cls, spec: Any) -> tuple[str, ...]:
        return ("once",)


@pytest.mark.parametrize(
    ("name", "recorded", "found"),
    [
        ("now", "trained", True),
        ("once", "trained", True),
        ("other", "trained", False),
        ("other", ORIGIN, True),
        ("other", ORIGIN.replace("ab", "cd"), False),
        ("now", "trial 3 " + "ab" * 32, False),  # not one that trials share
    ],
)
def test_the_start_of_a_trial(tmp_path: Path, name: str, recorded: str, found: bool) -> None:
    folder = RunFolder(tmp_path)
    folder.starts.mkdir()
    (folder.starts / "damaged.safetensors").write_bytes(b"abc")
    start = Start({"w": torch.ones(2)}, {"plain_error": 0.5}, ORIGIN)
    (folder.starts / f"{name}.safetensors").write_bytes(start.to_bytes())
    figures = Start({}, {"plain_error": 0.5}, ORIGIN)
    (folder.starts / "other-figures.safetensors").write_bytes(figures.to_bytes())
    read = Stored({"start": recorded}, Keyed, None, None, b"", "artifact", folder).start()
    assert (read is not None) == found
    if read is not None:
        assert torch.equal(read.tensors["w"], torch.ones(2))
