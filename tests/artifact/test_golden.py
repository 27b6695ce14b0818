"""Files of every format there has been, made once and for all by golden/make.py: what they hold stays what it was.

Where a test here fails, the format has changed: files out in the world can no longer be read, or two releases of one
format version write different bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from files import varint
from reference import Reference, matrix

from atmc_search.artifact import body, pack, read_header
from atmc_search.artifact.coding import Kind, Plan, code_tensor
from atmc_search.artifact.container import VERSION, _open, read_contents

FOLDER = Path(__file__).parent / "golden"
VERSIONS = range(1, VERSION + 1)
HEADER = {
    "study": "golden",
    "trial": 7,
    "threat": ["linf", 0.1],
    "bits": 2,
    "measured": {
        "split": "validation",
        "images": 360,
        "clean": 288,
        "robust": 180,
        "attack": {"name": "pgd", "steps": 20},
    },
    "model": "wide_resnet",
    "args": {"depth": 10, "widen_factor": 1},
    "input": [1, 8, 8],
    "classes": 3,
}


def golden(version: int) -> tuple[bytes, dict[str, np.ndarray]]:
    with np.load(FOLDER / f"version{version}.npz", allow_pickle=False) as tensors:
        return (FOLDER / f"version{version}.atmc").read_bytes(), dict(tensors)


def agree(found: dict[str, torch.Tensor], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tuple(found[name].shape) == tensor.shape, name
        assert found[name].numpy().tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_is_decoded_to_the_bit(version):
    data, expected = golden(version)
    assert data[4] == version
    compressed = read_contents(data).compressed
    agree({**compressed.weights, **compressed.others}, expected)
    assert {layer.form for layer in compressed.layers} == {"identity_left", "identity_right"}


@pytest.mark.parametrize("version", VERSIONS)
def test_its_header_is_read(version):
    assert read_header(golden(version)[0]) == HEADER


def test_the_same_model_gives_the_same_bytes():
    """A packer that found better plans would change this, and only this: run golden/make.py, and say so."""
    data, _ = golden(VERSION)
    again = pack(read_contents(data).compressed)
    assert read_header(again) == read_header(data)
    # The header's bytes are zstd's, whose releases may differ; those of the tensors are ours.
    assert tensors_of(again) == tensors_of(data)


def test_the_same_plans_give_the_same_bytes(monkeypatch):
    """Which plan is best is the packer's affair; what a plan means is the format's, for packers too."""
    data, _ = golden(2)
    plans: list[Plan] = []

    def noting(*args):
        plan, matrix = code_tensor(*args)
        plans.append(plan)
        return plan, matrix

    monkeypatch.setattr(body, "code_tensor", noting)
    compressed = read_contents(data).compressed
    monkeypatch.undo()
    monkeypatch.setattr(body, "best_plan", lambda *args: plans.pop(0))
    raw, code, *_ = body.write(compressed)
    assert not plans
    assert varint(len(raw)) + raw + code == tensors_of(data)


def tensors_of(data: bytes) -> bytes:
    _, reader = _open(data)
    return reader.bytes_(reader.left)


def test_a_decoder_written_from_the_document_finds_the_same_tensors(monkeypatch):
    data, expected = golden(2)
    contents = read_contents(data)
    _, reader = _open(data)
    raw = reader.bytes_(reader.varint())

    def decoded(coder, shape, kernel, earlier, *_):
        """`code_tensor`, by the second decoder alone."""
        counts = [(rows.tolist(), columns.tolist()) for rows, columns in earlier]
        return Plan(Kind.EMPTY), np.array(matrix(coder, *shape, kernel, counts), dtype=np.float32)

    monkeypatch.setattr(body, "code_tensor", decoded)
    found = body.read(Reference(raw, reader.bytes_(reader.left)), body.expectations(contents.fresh))
    agree({**found.weights, **found.others}, expected)
    assert tuple(found.layers) == contents.compressed.layers
