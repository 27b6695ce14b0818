from __future__ import annotations

import json
import pickle

import pytest
import safetensors.torch
import torch

from atmc_search.errors import RunError
from atmc_search.training import load_tensors, save_tensors, tensors_from_bytes, tensors_to_bytes

TENSORS = {
    "plain": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "extremes": torch.tensor([-0.0, 1e-45, float("nan"), float("-inf"), 3.4e38]),
    "integers": torch.tensor([2**62 + 1, -3]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
    "scalar": torch.tensor(7),
    "half": torch.tensor([0.1], dtype=torch.float16),
    "empty": torch.zeros(0),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "parameter": torch.nn.Parameter(torch.ones(2)),
}
FACTS = {"epoch": 3, "seconds": {"train_s": 0.1 + 0.2}, "name": 'größer / "quoted"', "nothing": None, "list": [1, 2.5]}


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def test_tensors_and_facts_come_back_to_the_bit(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_tensors(path, TENSORS, FACTS)
    tensors, facts = load_tensors(path)
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert raw(tensors[name]) == raw(tensor)


def test_views_of_one_buffer_are_each_stored_whole():
    buffer = torch.arange(10.0)
    tensors, _ = tensors_from_bytes(tensors_to_bytes({"a": buffer[:6], "b": buffer[4:], "c": buffer}, {}))
    assert tensors["a"].tolist() == list(range(6))
    assert tensors["b"].tolist() == list(range(4, 10))
    assert len(tensors["c"]) == 10


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_tensors(path, {"a": torch.zeros(1000)}, {"epoch": 1})
    save_tensors(path, {"b": torch.ones(2)}, {"epoch": 2})
    tensors, facts = load_tensors(path)
    assert list(tensors) == ["b"]
    assert facts == {"epoch": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_facts_that_are_no_plain_data_leave_the_old_file_alone(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_tensors(path, {}, {"epoch": 1})
    with pytest.raises(TypeError):
        save_tensors(path, {}, {"epoch": object()})
    assert load_tensors(path)[1] == {"epoch": 1}


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a checkpoint was unpickled",))


GOOD = tensors_to_bytes({"a": torch.arange(50.0)}, {"epoch": 1})


def with_header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


DAMAGED = {
    "empty": b"",
    "short": GOOD[:7],
    "header only": GOOD[: 8 + int.from_bytes(GOOD[:8], "little")],
    "last byte gone": GOOD[:-1],
    "a byte too many": GOOD + b"\0",
    "noise": bytes(range(256)),
    "length of 2^63": b"\xff" * 8 + GOOD[8:],
    "a pickle": pickle.dumps(Trap()),
    "foreign safetensors": safetensors.torch.save({"a": torch.ones(2)}),
    "facts no JSON": safetensors.torch.save({"a": torch.ones(2)}, metadata={"facts": "{"}),
    "facts too deep": safetensors.torch.save({"a": torch.ones(2)}, metadata={"facts": "[" * 100_000}),
    "other metadata": safetensors.torch.save({"a": torch.ones(2)}, metadata={"format": "pt"}),
    "header a list": with_header([1]),
    "metadata a list": with_header({"__metadata__": ["facts"]}),
    "a type of its own": with_header({"a": {"dtype": "Z9", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_or_foreign_file_is_one_line(tmp_path, case):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(DAMAGED[case])
    with pytest.raises(RunError, match="no checkpoint of ours") as caught:
        load_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torch_checkpoint_is_not_unpickled(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"trap": Trap()}, path)
    with pytest.raises(RunError, match="no checkpoint of ours"):
        load_tensors(path)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(RunError, match=r"cannot be read \(No such file or directory\)"):
        load_tensors(tmp_path / "absent")


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    for length in range(0, len(GOOD), 3):
        path.write_bytes(GOOD[:length])
        with pytest.raises(RunError):
            load_tensors(path)


def test_a_changed_header_is_refused_or_read_and_never_anything_else(tmp_path):
    path, messages = tmp_path / "checkpoint.safetensors", []
    for position in range(8 + int.from_bytes(GOOD[:8], "little")):
        for change in (1, 0x10, 0x80):
            damaged = bytearray(GOOD)
            damaged[position] ^= change
            path.write_bytes(damaged)
            try:
                tensors, facts = load_tensors(path)
            except RunError as error:
                messages.append(str(error))
            else:
                assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
                json.dumps(facts)
    assert messages
    assert all(len(message.splitlines()) == 1 for message in messages)
