"""Range coding in three directions with one face: write, read, and only count.

A model of what to code is written once, against `Coder`: each method takes the symbols where they are known, and
returns them. Encoding and counting know them; decoding finds them out. The range coder is `constriction`'s (words of
32 bits, probabilities of 24); what it is given are integers, so that every machine decodes the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache

import constriction
import numpy as np
from numpy.typing import NDArray

from atmc_search.artifact.coding.fixed import ONE, Ints
from atmc_search.errors import ArtifactError

_model = constriction.stream.model
_BERNOULLI = _model.Bernoulli(perfect=False)
_CHUNK_BITS = 16


class Coder(ABC):
    """What a model codes with."""

    @abstractmethod
    def bits(self, probabilities: Ints, known: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Bits of which each is 1 with its own probability, (n,) in units of 2^-16."""

    @abstractmethod
    def symbols(self, counts: Ints, known: Ints | None, size: int) -> Ints:
        """`size` symbols 0 to k - 1 with probabilities as `counts`, (k ≥ 2,) each at least 1."""

    @abstractmethod
    def uniform(self, choices: int, known: Ints | None, size: int) -> Ints:
        """`size` symbols 0 to choices - 1, all as likely; 2 ≤ choices ≤ 2^16."""

    @abstractmethod
    def raw(self, known: bytes | None, size: int) -> bytes:
        """`size` bytes that nothing is known of; they are kept apart from the code."""

    def number(self, known: int | None) -> int:
        """An integer from 0 to 2^40 - 1: its length in bits, then the bits below the leading one."""
        length = int(self.uniform(64, None if known is None else np.array([known.bit_length()]), 1)[0])
        if length > 40:
            raise ArtifactError(f"artifact holds a number of {length} bits; it is damaged, get it again")
        value = min(length, 1)
        left = length - 1
        while left > 0:
            width = min(left, _CHUNK_BITS)
            left -= width
            part = None if known is None else np.array([known >> left & (1 << width) - 1])
            value = value << width | int(self.uniform(1 << width, part, 1)[0])
        return value

    def choice(self, choices: int, known: int | None) -> int:
        """One of `choices` equally likely numbers."""
        return int(self.uniform(choices, None if known is None else np.array([known]), 1)[0])


class Encoder(Coder):
    """Writes what it is given.

    Attributes:
        steps: calls so far, each of which costs its reader time however little it says.
    """

    def __init__(self) -> None:
        self._queue = constriction.stream.queue.RangeEncoder()
        self._raw = bytearray()
        self.steps = 0

    def bits(self, probabilities: Ints, known: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        assert known is not None
        self.steps += 1
        if len(known):
            self._queue.encode(known.astype(np.int32), _BERNOULLI, probabilities / ONE)
        return known

    def symbols(self, counts: Ints, known: Ints | None, size: int) -> Ints:
        assert known is not None
        self.steps += 1
        if size:
            self._queue.encode(known.astype(np.int32), _table(counts))
        return known

    def uniform(self, choices: int, known: Ints | None, size: int) -> Ints:
        assert known is not None
        self.steps += 1
        if size:
            self._queue.encode(known.astype(np.int32), _uniform(choices))
        return known

    def raw(self, known: bytes | None, size: int) -> bytes:
        assert known is not None
        self.steps += 1
        self._raw += known
        return known

    def getvalue(self) -> tuple[bytes, bytes]:
        """The raw bytes, and the code: its words, highest byte first, without zeros at the end."""
        return bytes(self._raw), self._queue.get_compressed().astype(">u4").tobytes().rstrip(b"\0")


class Decoder(Coder):
    """Reads what `Encoder` wrote, when it is asked with the same probabilities in the same order.

    Zeros at the end of the code change nothing, however many there are.
    """

    def __init__(self, raw: bytes, code: bytes, most_steps: float = math.inf) -> None:
        """`most_steps`: calls to allow; the next raises `ArtifactError`."""
        code = code.rstrip(b"\0")
        code += bytes(-len(code) % 4)
        self._queue = constriction.stream.queue.RangeDecoder(np.frombuffer(code, dtype=">u4").astype(np.uint32))
        self._raw, self._at = raw, 0
        self._steps, self._most_steps = 0, most_steps

    def bits(self, probabilities: Ints, known: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        self._step()
        if not len(probabilities):
            return np.zeros(0, dtype=bool)
        return self._decode(_BERNOULLI, probabilities / ONE).astype(bool)

    def symbols(self, counts: Ints, known: Ints | None, size: int) -> Ints:
        self._step()
        return self._decode(_table(counts), size).astype(np.int64) if size else np.zeros(0, dtype=np.int64)

    def uniform(self, choices: int, known: Ints | None, size: int) -> Ints:
        self._step()
        return self._decode(_uniform(choices), size).astype(np.int64) if size else np.zeros(0, dtype=np.int64)

    def raw(self, known: bytes | None, size: int) -> bytes:
        self._step()
        found = self._raw[self._at : self._at + size]
        if len(found) < size:
            raise ArtifactError(f"artifact ends early: {size} raw bytes announced, {len(found)} left; get it again")
        self._at += size
        return found

    def end(self) -> None:
        """Passes if nothing is left to read."""
        if self._at != len(self._raw) or not self._queue.maybe_exhausted():
            raise ArtifactError("artifact's coded part is longer than its tensors; it is damaged, get it again")

    def _step(self) -> None:
        self._steps += 1
        if self._steps > self._most_steps:
            raise ArtifactError(
                f"artifact takes more than the {self._most_steps} steps to decode that so few bytes may; "
                "do not trust its origin"
            )

    def _decode(self, model: object, argument: object) -> NDArray[np.int32]:
        try:
            found: NDArray[np.int32] = self._queue.decode(model, argument)
        except AssertionError:  # constriction's answer to words that no encoder writes
            raise ArtifactError("artifact's coded part is no code; it is damaged, get it again") from None
        return found


class _Echo(Coder):
    """Returns what it is given."""

    def bits(self, probabilities: Ints, known: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        assert known is not None
        return known

    def symbols(self, counts: Ints, known: Ints | None, size: int) -> Ints:
        assert known is not None
        return known

    def uniform(self, choices: int, known: Ints | None, size: int) -> Ints:
        assert known is not None
        return known

    def raw(self, known: bytes | None, size: int) -> bytes:
        assert known is not None
        return known


class Meter(Coder):
    """Counts the bits that go through another coder; without one, those that coding would take.

    Attributes:
        total: bits so far.
    """

    def __init__(self, inner: Coder | None = None) -> None:
        self._inner = inner or _Echo()
        self.total = 0.0

    def bits(self, probabilities: Ints, known: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        found = self._inner.bits(probabilities, known)
        self.total += float(_costs()[np.where(found, probabilities, ONE - probabilities)].sum())
        return found

    def symbols(self, counts: Ints, known: Ints | None, size: int) -> Ints:
        found = self._inner.symbols(counts, known, size)
        self.total += float(np.log2(counts.sum() / counts[found]).sum())
        return found

    def uniform(self, choices: int, known: Ints | None, size: int) -> Ints:
        self.total += size * float(np.log2(choices))
        return self._inner.uniform(choices, known, size)

    def raw(self, known: bytes | None, size: int) -> bytes:
        self.total += 8 * size
        return self._inner.raw(known, size)


def _table(counts: Ints) -> object:
    return _model.Categorical(counts.astype(np.float64), perfect=False)


@cache
def _uniform(choices: int) -> object:
    return _model.Uniform(choices)


@cache
def _costs() -> NDArray[np.float64]:
    """Bits that an event of each probability takes; at 0, which does not occur, 0."""
    return -np.log2(np.maximum(np.arange(ONE + 1), 1) / ONE)
