"""A second decoder, in integers alone and value by value, written from docs/artifact-format.md: it proves the document.

`Reference` is the range decoder, in the place of `coding.Decoder`; `matrix` decodes a whole matrix with it.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np

from atmc_search.artifact.coding import Coder


class Reference(Coder):
    """Decodes what `Encoder` wrote. Slow: symbol by symbol."""

    def __init__(self, raw: bytes, code: bytes) -> None:
        code += bytes(-len(code) % 4)
        self._words = iter(struct.unpack(f">{len(code) // 4}I", code))
        self._raw = raw
        self._lower, self._range = 0, 2**64 - 1
        self._point = next(self._words, 0) << 32 | next(self._words, 0)

    def _symbol(self, edges: list[int]) -> int:
        """The symbol i of `edges` [e_0 = 0, e_1, ..., e_k = 2^24] for whose interval e_i to e_(i+1) the code stands."""
        scale = self._range >> 24
        quantile = (self._point - self._lower) % 2**64 // scale
        assert quantile < 2**24
        symbol = bisect_right(edges, quantile) - 1
        self._lower = (self._lower + scale * edges[symbol]) % 2**64
        self._range = scale * (edges[symbol + 1] - edges[symbol])
        if self._range < 2**32:
            self._lower = self._lower << 32 & 2**64 - 1
            self._range <<= 32
            self._point = (self._point << 32 & 2**64 - 1) | next(self._words, 0)
        return symbol

    def bits(self, probabilities, known):
        return np.array(
            [self._symbol([0, (65536 - int(p)) * (2**24 - 2) // 65536 + 1, 2**24]) for p in probabilities], dtype=bool
        )

    def symbols(self, counts, known, size):
        edges = cumulated(counts.tolist())
        return np.array([self._symbol(edges) for _ in range(size)], dtype=np.int64)

    def uniform(self, choices, known, size):
        edges = [i * (2**24 // choices) for i in range(choices)] + [2**24]
        return np.array([self._symbol(edges) for _ in range(size)], dtype=np.int64)

    def raw(self, known, size):
        found, self._raw = self._raw[:size], self._raw[size:]
        assert len(found) == size
        return found


def cumulated(counts: list[int]) -> list[int]:
    """Interval edges of symbols with these counts; both roundings of binary64 are written out."""
    scale = binary64(Fraction(2**24 - len(counts), sum(counts)))
    edges, total = [], 0
    for i, count in enumerate(counts):
        edges.append(int(binary64(total * scale)) + i)
        total += count
    return [*edges, 2**24]


def binary64(value: Fraction) -> Fraction:
    """The nearest number of 53 bits, of two the even one: what IEEE arithmetic rounds a result to."""
    if not value:
        return value
    exponent = value.numerator.bit_length() - value.denominator.bit_length() - 53
    while value / Fraction(2) ** exponent >= 2**53:
        exponent += 1
    unit = Fraction(2) ** exponent
    return round(value / unit) * unit


# --- integer logarithms


def log(v: int) -> int:
    k = v.bit_length() - 1
    i = (v << 10 >> k) - 1024
    return 256 * k + round(256 * math.log2(1 + i / 1024))


def clamped(x: int) -> int:
    return max(-3840, min(3840, x))


def prob(x: int) -> int:
    return max(1, min(65535, round(65536 / (1 + 2 ** (-clamped(x) / 256)))))


def power(x: int) -> int:
    return round(65536 * 2 ** (clamped(x) / 256))


class Effect:
    def __init__(self, prior: int) -> None:
        self.seen = self.expected = prior << 16

    @property
    def value(self) -> int:
        return log(self.seen) - log(self.expected)

    def learn(self, bits: int, expected: int) -> None:
        self.seen += bits << 16
        self.expected += expected


def effects(prior: int) -> Callable[[], defaultdict[int, Effect]]:
    return lambda: defaultdict(lambda: Effect(prior))


# --- a matrix


def matrix(d: Reference, rows: int, columns: int, kernel: tuple[int, int], earlier: list[tuple[list[int], list[int]]]):
    """Rows of floats."""
    kind = d.choice(3, None)
    if kind == 0:
        return [[0.0] * columns for _ in range(rows)]
    half, full = d.choice(2, None), d.choice(2, None)
    if full:
        kernel, mask = (1, 1), [[1] * columns for _ in range(rows)]
    else:
        nnz = d.number(None)
        form = d.choice(3, None)
        if form == 1:
            kernel = (1, 1)
        if form == 2:
            kernel = (1 + d.choice(128, None), 1 + d.choice(128, None))
        trimmed = d.choice(2, None)
        priors = [(1, 4, 16, 64)[d.choice(4, None)] for _ in range(2)]
        buckets = []
        for extent in (columns, rows):
            q = d.choice(2 * len(earlier) + 1, None) if earlier else 0
            counts = earlier[-((q + 1) // 2)][0 if q % 2 else 1] if q else None
            buckets.append(counts and [bucket(c) for c in counts for _ in range(extent // len(counts))])
        if trimmed:
            h, w = kernel
            live_rows = live(d, rows, buckets[1])
            channels = live(d, columns // (h * w), buckets[0] and buckets[0][:: h * w])
            live_columns = [c for c in range(columns) if c // (h * w) in channels]
            inner = positions(
                d,
                len(live_rows),
                len(live_columns),
                kernel,
                nnz,
                priors,
                buckets[0] and [buckets[0][c] for c in live_columns],
                buckets[1] and [buckets[1][r] for r in live_rows],
            )
            mask = [[0] * columns for _ in range(rows)]
            for r, line in zip(live_rows, inner, strict=True):
                for c, bit in zip(live_columns, line, strict=True):
                    mask[r][c] = bit
        else:
            mask = positions(d, rows, columns, kernel, nnz, priors, *buckets)
    where = [(r, c) for r in range(rows) for c in range(columns) if mask[r][c]]
    values = (codebook if kind == 1 else floats)(d, mask, where, kernel, half)
    found = [[0.0] * columns for _ in range(rows)]
    for (r, c), value in zip(where, values, strict=True):
        found[r][c] = value
    return found


def bucket(count: int) -> int:
    return min(11, 1 + (count - 1).bit_length()) if count else 0


def live(d: Reference, size: int, buckets: list[int] | None) -> list[int]:
    count = d.number(None)
    if count == size:
        return list(range(size))
    (line,) = positions(d, 1, size, (1, 1), count, [4, 4], buckets, None)
    return [i for i, bit in enumerate(line) if bit]


def phases_and_ends(rows: int, columns: int, kernel: tuple[int, int]) -> tuple[int, list[int]]:
    phases = kernel[0] * kernel[1] if kernel != (1, 1) else (4 if columns >= 32 else 1)
    n = max(1, min(12, 128 // phases, rows))
    return phases, sorted({rows * i * (i + n) // (2 * n * n) for i in range(n + 1)})


def positions(d, rows, columns, kernel, nnz, priors, column_buckets, row_buckets):
    spatial, width = kernel != (1, 1), kernel[1]
    phases, ends = phases_and_ends(rows, columns, kernel)
    bits = [[0] * columns for _ in range(rows)]
    density = log(2 * nnz + 1) - log(2 * (rows * columns - nnz) + 1)
    col, chan = effects(priors[0])(), effects(priors[0])()
    nb, ph, cb, rb = effects(2)(), effects(8)(), effects(2)(), effects(2)()
    for first, end in pairwise(ends):
        row = effects(priors[1])()
        of_channel = {c: chan[c // phases].value if spatial else 0 for c in range(columns)}
        of_column = {c: col[c].value + of_channel[c] for c in range(columns)}
        for s in range(phases):
            y, x = divmod(s, width)
            learned: list[tuple[Effect, int, int]] = []
            totals: Counter[int] = Counter()
            hits: Counter[int] = Counter()
            phase = ph[s].value
            by_bucket: Counter[int] = Counter()
            hits_of_bucket: Counter[int] = Counter()
            for r in range(first, end):
                for c in range(s, columns, phases):
                    base = density + phase + of_column[c]
                    if column_buckets:
                        base += cb[column_buckets[c]].value
                    if row_buckets:
                        base += rb[row_buckets[r]].value
                    staged = odds = base + row[r].value
                    if spatial:
                        line = bits[r]
                        k = 1 if x and line[c - 1] else 0
                        if y:
                            k += 2 * line[c - width]
                            k += 4 * int((x > 0 and line[c - width - 1]) or (x + 1 < width and line[c - width + 1]))
                        else:
                            k += 8
                        odds += nb[k].value
                    bit = int(d.bits([prob(odds)], None)[0])
                    bits[r][c] = bit
                    hits[c] += bit
                    totals[c] += prob(odds - of_column[c])
                    if spatial:
                        learned.append((nb[k], bit, prob(staged)))
                    learned.append((row[r], bit, prob(base)))
                    if row_buckets:
                        effect = rb[row_buckets[r]]
                        learned.append((effect, bit, prob(odds - row[r].value - effect.value)))
            for c, total in totals.items():
                learned.append((col[c], hits[c], total * power(of_channel[c]) // 65536))
                learned.append((chan[c // phases], hits[c], total))
                if column_buckets:
                    by_bucket[column_buckets[c]] += total
                    hits_of_bucket[column_buckets[c]] += hits[c]
            learned.append((ph[s], hits.total(), totals.total() * power(-phase) // 65536))
            for b, total in by_bucket.items():
                learned.append((cb[b], hits_of_bucket[b], total * power(-cb[b].value) // 65536))
            for effect, bit, expected in learned:
                effect.learn(bit, expected)
    return bits


def signs(d, mask, kernel):
    """+1, -1, and 0 where nothing is."""
    rows, columns = len(mask), len(mask[0])
    spatial, width = kernel != (1, 1), kernel[1]
    phases, ends = phases_and_ends(rows, columns, kernel)
    strips = len(ends) - 1
    j = min(3, strips)
    found = [[0] * columns for _ in range(rows)]
    level = {sign: Counter(dict.fromkeys(range(-3, 4), 1)) for sign in (1, -1)}
    seen = {sign: Counter(dict.fromkeys(range(27), 65536)) for sign in (1, -1)}
    expected = {sign: Counter(dict.fromkeys(range(27), 65536)) for sign in (1, -1)}
    for first, end in pairwise(ends[strips * i // j] for i in range(j + 1)):
        sums = [max(-3, min(3, sum(found[r][c] for r in range(first)))) for c in range(columns)]
        for s in range(phases):
            y, x = divmod(s, width)
            learned = []
            for r in range(first, end):
                for c in range(s, columns, phases):
                    if not mask[r][c]:
                        continue
                    stage = odds = log(level[1][sums[c]]) - log(level[-1][sums[c]])
                    k = 0
                    if spatial:
                        total = sum(found[r][c - s : c])
                        k = 9 * ((total > 0) - (total < 0) + 1) + 4
                        k += (found[r][c - 1] if x else 0) + 3 * (found[r][c - width] if y else 0)
                        up, down = (log(seen[sign][k]) - log(expected[sign][k]) for sign in (1, -1))
                        odds += up - down
                    sign = 1 if d.bits([prob(odds)], None)[0] else -1
                    found[r][c] = sign
                    learned.append((sums[c], k, sign, prob(stage)))
            for at, k, sign, p in learned:
                level[sign][at] += 1
                seen[sign][k] += 65536
                expected[1][k] += p
                expected[-1][k] += 65536 - p
    return found


def indices(d, choices, size, counts=None):
    if choices == 1:
        return [0] * size
    counts, found = list(counts or [1] * choices), []
    while len(found) < size:
        block = min(16 if not found else max(16, len(found) // 2), size - len(found))
        part = d.symbols(np.array(counts), None, block).tolist()
        for symbol in part:
            counts[symbol] += 2
        found += part
    return found


def ascending(d, size, width):
    lengths = indices(d, width + 1, size)
    steps = [min(1, length) for length in lengths]
    for length in sorted(set(lengths)):
        left = length - 1
        while left > 0:
            piece = min(left, 16)
            left -= piece
            which = [i for i in range(size) if lengths[i] == length]
            for i, part in zip(which, d.uniform(1 << piece, None, len(which)).tolist(), strict=True):
                steps[i] = steps[i] << piece | part
    return np.cumsum(steps).tolist()


def number_of(pattern: int, half: int) -> float:
    assert 0 < pattern <= (0x7C00 if half else 0x7F800000)
    data = pattern.to_bytes(2 if half else 4, "little")
    return float(struct.unpack("<e" if half else "<f", data)[0])


def codebook(d, mask, where, kernel, half):
    sizes = {-1: d.number(None), 1: d.number(None)}
    if sizes[-1] and sizes[1]:
        of = signs(d, mask, kernel)
        sign = [of[r][c] for r, c in where]
    else:
        sign = [1 if sizes[1] else -1] * len(where)
    found, counts = [0.0] * len(where), None
    for s in (-1, 1):
        if sizes[s]:
            book = ascending(d, sizes[s], 15 if half else 31)
            which = [i for i, own in enumerate(sign) if own == s]
            chosen = indices(d, sizes[s], len(which), counts)
            for i, index in zip(which, chosen, strict=True):
                found[i] = s * number_of(book[index], half)
            seen = Counter(chosen)
            counts = [1 + seen[i * sizes[-1] // sizes[1]] // 2 for i in range(sizes[1])]
    return found


def floats(d, mask, where, kernel, half):
    of = signs(d, mask, kernel)
    n, mantissa = len(where), 10 if half else 23
    exponents = indices(d, 32 if half else 256, n)
    kept = d.choice(mantissa + 1, None)
    parts = d.uniform(1 << kept % 8, None, n).tolist() if kept % 8 else [0] * n
    for _ in range(kept // 8):
        parts = [part << 8 | byte for part, byte in zip(parts, d.raw(None, n), strict=True)]
    patterns = [e << mantissa | part << mantissa - kept for e, part in zip(exponents, parts, strict=True)]
    return [of[r][c] * number_of(pattern, half) for (r, c), pattern in zip(where, patterns, strict=True)]
