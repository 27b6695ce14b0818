"""Whole tensors come back to the bit by every plan, and the best plan is what its kind of matrix asks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atmc_search.artifact.coding import (
    Decoder,
    Encoder,
    Kind,
    Margins,
    Meter,
    Plan,
    best_geometry,
    best_plan,
    code_tensor,
    margins,
    mask_bits,
    value_bits,
)
from atmc_search.artifact.coding.mask import PRIORS
from atmc_search.artifact.coding.tensor import MOST_PHASES, Reference
from atmc_search.errors import ArtifactError

Values = NDArray[np.float32]
RNG = np.random.default_rng(0)
DENORMAL, TINY = np.float32(1e-45), np.float32(np.finfo(np.float32).tiny)


def written(matrix: Values, kernel=(1, 1), earlier=(), plan: Plan | None = None) -> tuple[bytes, bytes]:
    encoder = Encoder()
    plan = plan or best_plan(matrix, kernel, earlier)
    code_tensor(encoder, matrix.shape, kernel, earlier, plan, matrix)
    return encoder.getvalue()


def comes_back(matrix: Values, kernel=(1, 1), earlier=(), plan: Plan | None = None) -> None:
    plan = plan or best_plan(matrix, kernel, earlier)
    decoder = Decoder(*written(matrix, kernel, earlier, plan))
    found, decoded = code_tensor(decoder, matrix.shape, kernel, earlier)
    decoder.end()
    assert found == plan
    assert decoded.dtype == np.float32
    # Adding zero takes the sign off a zero, the one bit that a position that is not stored cannot keep.
    assert ((decoded + np.float32(0)).view(np.uint32) == (matrix + np.float32(0)).view(np.uint32)).all()


def bits_of(matrix: Values, kernel=(1, 1), earlier=(), plan: Plan | None = None) -> float:
    meter = Meter()
    code_tensor(meter, matrix.shape, kernel, earlier, plan or best_plan(matrix, kernel, earlier), matrix)
    return meter.total


def sparse(values: NDArray[np.float64] | list[float], shape=(40, 50), density=0.2) -> Values:
    """These values at random positions."""
    drawn = RNG.choice(np.asarray(values, dtype=np.float32), shape)
    return np.where(RNG.random(shape) < density, drawn, np.float32(0))


CASES: dict[str, Values] = {
    "zeros": np.zeros((7, 9), np.float32),
    "minus zeros": np.full((7, 9), -0.0, np.float32),
    "minus zeros among others": np.array([[-0.0, 1, -0.0, -1]], np.float32),
    "one value": np.array([[1.5]], np.float32),
    "one zero": np.zeros((1, 1), np.float32),
    "one value everywhere": np.full((30, 20), -0.3, np.float32),
    "one value at some places": sparse([-0.3]),
    "the last of many": np.append(np.zeros((1, 99_999), np.float32), np.float32([[0.1]]), axis=1),
    "positive": sparse(np.abs(RNG.normal(size=40))),
    "negative codebook": sparse([-1, -2, -4]),
    "opposite": sparse([-1, 1]),
    "one of the other sign": sparse([*range(1, 30), -7]),
    "fp16": sparse(RNG.normal(size=4000).astype(np.float16)),
    "fp32": sparse(RNG.normal(size=4000)),
    "fp32 codebook": sparse(RNG.normal(size=5)),
    "fp16's ends": np.array([[65504, -65504, 2.0**-24, -(2.0**-14)]], np.float32),
    "beyond fp16": np.array([[65520, 1e38, np.finfo(np.float32).max]], np.float32),
    "below fp16": np.array([[2.0**-25, 1e-40, -DENORMAL, TINY]], np.float32),
    "denormals": sparse([DENORMAL, -DENORMAL, 3e-42]),
    "infinities": np.array([[np.inf, -np.inf, 0, 1.5]], np.float32),
    "infinities in fp32": np.array([[-np.inf, 0, 0.1]], np.float32),
    "a mask of infinities": np.where(np.triu(np.ones((9, 9)), 1) > 0, -np.inf, 0).astype(np.float32),
    "256 values": sparse(np.arange(-128, 128) + 0.5, density=0.9),
    "a huge codebook": sparse(np.arange(1, 5000) / 64, (200, 300), 0.9),
    "more values than a codebook may have": (np.arange(70_000, dtype=np.float32) + 1).reshape(200, 350) / 7,
    "full": RNG.normal(size=(9, 30)).astype(np.float32),
    "ones": np.ones((1, 64), np.float32),
    "bias": RNG.normal(size=(1, 10)).astype(np.float16).astype(np.float32),
}


@pytest.mark.parametrize("name", CASES)
def test_a_tensor_comes_back_to_the_bit(name):
    comes_back(CASES[name])


KINDS = {
    "zeros": (Kind.EMPTY, True),
    "minus zeros": (Kind.EMPTY, True),
    "one value at some places": (Kind.CODEBOOK, False),
    "negative codebook": (Kind.CODEBOOK, True),
    "fp16": (Kind.FLOATS, True),
    "fp32": (Kind.FLOATS, False),
    "fp32 codebook": (Kind.CODEBOOK, False),
    "fp16's ends": (None, True),
    "beyond fp16": (None, False),
    "below fp16": (None, False),
    "denormals": (Kind.CODEBOOK, False),
    "256 values": (Kind.CODEBOOK, True),
    "more values than a codebook may have": (Kind.FLOATS, False),
    "full": (Kind.FLOATS, False),
    "ones": (Kind.CODEBOOK, True),
}


@pytest.mark.parametrize("name", KINDS)
def test_few_values_are_a_codebook_and_many_are_floats(name):
    kind, half = KINDS[name]
    plan = best_plan(CASES[name], (1, 1), [])
    assert plan.kind is kind or kind is None
    assert plan.half is half


@pytest.mark.parametrize("name", [name for name in CASES if len(np.unique(CASES[name])) < 1 << 16])
def test_the_best_plan_takes_no_more_bits_than_another_kind(name):
    matrix = CASES[name]
    plan = best_plan(matrix, (1, 1), [])
    if plan.kind is not Kind.EMPTY:
        other = replace(plan, kind=Kind.FLOATS if plan.kind is Kind.CODEBOOK else Kind.CODEBOOK)
        comes_back(matrix, plan=other)
        assert bits_of(matrix) <= bits_of(matrix, plan=other)


def test_low_bits_that_no_mantissa_uses_cost_nothing():
    rng = np.random.default_rng(5)
    exponents, mantissas = rng.integers(120, 130, 3000), rng.integers(1 << 22, 1 << 23, 3000)
    for kept in (1, 7, 8, 9, 15, 16, 20):
        patterns = (exponents << 23 | mantissas >> 23 - kept << 23 - kept).astype(np.uint32)
        matrix = patterns.view(np.float32).reshape(1, -1)
        plan = Plan(Kind.FLOATS, half=False, full=True)
        comes_back(matrix, plan=plan)
        exponents_alone = 3000 * np.log2(10)  # signs are all the same
        assert 3000 * kept <= bits_of(matrix, plan=plan) < exponents_alone + 3000 * kept + 2000


def test_a_sign_that_all_share_costs_nothing_in_a_codebook():
    values = RNG.integers(1, 9, (30, 40)).astype(np.float32)
    signs = np.where(RNG.random(values.shape) < 0.5, 1, -1).astype(np.float32)
    assert abs(bits_of(values) - bits_of(-values)) < 1
    assert bits_of(values * signs) > bits_of(values) + 0.9 * values.size


# --- every plan there is


def related(shape: tuple[int, int], rng: np.random.Generator) -> list[Margins]:
    """Tensors before one of this shape, of which some have extents that it has too."""
    shapes = [(shape[0], 6), (5, shape[1]), (shape[1], 4), (1, 1)]
    return [margins(rng.random(extents) < 0.3) for extents in shapes]


@st.composite
def plans(draw: st.DrawFn) -> tuple[Values, tuple[int, int], list[Margins], Plan]:
    """A matrix and any plan that can hold it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 4), (2, 5)]))
    own = draw(st.sampled_from([kernel, (1, 1), (2, 2)]))
    least = np.lcm(kernel[0] * kernel[1], own[0] * own[1])
    shape = (draw(st.integers(1, 12)), int(least) * draw(st.integers(1, 5)))
    half = draw(st.booleans())
    alphabet = rng.normal(size=draw(st.sampled_from([1, 2, 5, 300]))) * draw(st.sampled_from([1, 1e-5, 100]))
    alphabet = alphabet.astype(np.float16 if half else np.float32).astype(np.float32)
    matrix = rng.choice(alphabet, shape)
    full = draw(st.booleans())
    if not full:
        matrix *= rng.random(shape) < draw(st.sampled_from([0.05, 0.5, 0.95]))
    assume((matrix != 0).all() if full else matrix.any())
    kind = draw(st.sampled_from([Kind.CODEBOOK, Kind.FLOATS]))
    earlier = related(shape, rng) if draw(st.booleans()) else []
    if full:
        return matrix, kernel, earlier, Plan(kind, half, full=True)
    columns, rows = (
        [Reference(back + 1, axis) for back in range(len(earlier)) for axis in (0, 1) if fits(earlier, back, axis, n)]
        for n in (shape[1], shape[0])
    )
    plan = Plan(
        kind,
        half,
        trimmed=draw(st.booleans()),
        kernel=own,
        column_prior=draw(st.integers(0, len(PRIORS) - 1)),
        row_prior=draw(st.integers(0, len(PRIORS) - 1)),
        columns=draw(st.sampled_from([None, *columns])),
        rows=draw(st.sampled_from([None, *rows])),
    )
    return matrix, kernel, earlier, plan


def fits(earlier: list[Margins], back: int, axis: int, extent: int) -> bool:
    return extent % len(earlier[-1 - back][axis]) == 0


@given(plans())
@settings(max_examples=150, deadline=None)
def test_any_matrix_comes_back_by_any_plan(case):
    matrix, kernel, earlier, plan = case
    comes_back(matrix, kernel, earlier, plan)
    best = best_plan(matrix, kernel, earlier)
    comes_back(matrix, kernel, earlier, best)
    assert bits_of(matrix, kernel, earlier, best) <= 32 * matrix.size + 400


@given(plans())
@settings(max_examples=40, deadline=None)
def test_a_decoder_written_from_the_document_finds_the_same_matrix(case):
    known, kernel, earlier, plan = case
    counts = [(rows.tolist(), columns.tolist()) for rows, columns in earlier]
    found = reference.matrix(reference.Reference(*written(known, kernel, earlier, plan)), *known.shape, kernel, counts)
    assert (np.array(found, dtype=np.float32) == known).all()


@pytest.mark.parametrize(
    "name", ["fp32 codebook", "negative codebook", "below fp16", "infinities", "bias", "256 values"]
)
def test_a_decoder_written_from_the_document_finds_the_same_values(name):
    known = CASES[name]
    found = reference.matrix(reference.Reference(*written(known)), *known.shape, (1, 1), [])
    assert (np.array(found, dtype=np.float32) == known).all()


@given(plans())
@settings(max_examples=40, deadline=None)
def test_bits_add_up_to_what_is_coded(case):
    matrix, kernel, earlier, plan = case
    nnz = int(np.count_nonzero(matrix))
    total = bits_of(matrix, kernel, earlier, plan)
    parts = mask_bits(matrix != 0, nnz, plan, earlier) + value_bits(matrix, plan)
    assert parts <= total + 1e-6
    assert total <= parts + 64  # what allocation takes a plan to cost at most


# --- what geometry is for


def test_rows_and_channels_without_non_zeros_are_left_out_where_that_is_shorter():
    live = np.outer(RNG.random(300) < 0.1, np.repeat(RNG.random(100) < 0.1, 9))
    matrix = np.where(live & (RNG.random(live.shape) < 0.5), np.float32(1), np.float32(0))
    plan = best_plan(matrix, (3, 3), [])
    assert plan.trimmed
    assert bits_of(matrix, (3, 3), plan=plan) < bits_of(matrix, (3, 3), plan=replace(plan, trimmed=False))
    comes_back(matrix, (3, 3))


def test_a_dead_channel_of_the_layer_before_is_foreseen():
    alive = RNG.random(64) < 0.2
    before = margins((RNG.random((64, 90)) < 0.3) & alive[:, None])
    mask = (RNG.random((40, 64 * 9)) < 0.3) & np.repeat(alive, 9)
    plan = best_geometry(mask, int(mask.sum()), (3, 3), [before])
    assert plan.columns == Reference(1, 0)
    assert mask_bits(mask, int(mask.sum()), plan, [before]) < mask_bits(
        mask, int(mask.sum()), replace(plan, columns=None), [before]
    )


def test_a_linear_layer_reads_the_maps_of_the_last_channels():
    before = margins(RNG.random((10, 30)) < 0.5)
    blocks = np.kron(RNG.random((50, 10)) < 0.3, np.ones(25)) > 0
    plan = best_geometry(blocks, int(blocks.sum()), (1, 1), [before])
    assert plan.kernel == (5, 5)
    matrix = blocks.astype(np.float32)
    comes_back(matrix, (1, 1), [before])
    assert bits_of(matrix, earlier=[before]) < 0.5 * bits_of(matrix)


def test_a_kernel_of_too_many_positions_is_not_coded_along():
    matrix = sparse([1.0], (4, 12 * 12 * 3))
    assert MOST_PHASES < 12 * 12
    assert best_plan(matrix, (12, 12), []).kernel == (1, 1)
    comes_back(matrix, (12, 12))


# --- codes that no encoder writes


def refused(code, shape=(4, 6), kernel=(1, 1), earlier=()) -> str:
    encoder = Encoder()
    code(encoder)
    with pytest.raises(ArtifactError) as caught:
        code_tensor(Decoder(*encoder.getvalue()), shape, kernel, earlier)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def head(coder: Encoder, kind: Kind, nnz: int | None, kernel: tuple[int, int] | None = None) -> None:
    """A plan as far as its references; `nnz` None: no zeros."""
    coder.choice(3, kind)
    coder.choice(2, 1)
    coder.choice(2, int(nnz is None))
    if nnz is not None:
        coder.number(nnz)
        coder.choice(3, 2 if kernel else 1)
        for extent in kernel or ():
            coder.choice(MOST_PHASES, extent - 1)
        coder.choice(2, 0)
        coder.choice(len(PRIORS), 1)
        coder.choice(len(PRIORS), 1)


@pytest.mark.parametrize("nnz", [0, 25, 2**39])
def test_a_number_of_non_zeros_that_cannot_be_is_refused(nnz):
    assert "number of non-zeros do not fit" in refused(lambda coder: head(coder, Kind.FLOATS, nnz))


@pytest.mark.parametrize("kernel", [(4, 1), (128, 2), (1, 128)])
def test_a_kernel_that_does_not_divide_the_columns_is_refused(kernel):
    assert "kernel do not fit" in refused(lambda coder: head(coder, Kind.FLOATS, 3, kernel))


def test_positions_of_another_number_are_refused():
    def code(coder):
        head(coder, Kind.FLOATS, 3)
        coder.bits(np.full(24, 30_000), np.ones(24, dtype=bool))

    assert "number of non-zeros do not fit" in refused(code)


def test_a_reference_whose_extent_does_not_divide_is_refused():
    earlier = [margins(np.ones((5, 5), dtype=bool))]

    def code(coder):
        head(coder, Kind.FLOATS, 3)
        coder.choice(3, 1)
        coder.choice(3, 0)

    assert "reference do not fit" in refused(code, earlier=earlier)


@pytest.mark.parametrize("sizes", [(0, 0), (20, 5), (0, 25), (2**39, 1)])
def test_a_codebook_of_none_or_of_more_values_than_non_zeros_is_refused(sizes):
    def code(coder):
        head(coder, Kind.CODEBOOK, None)
        for size in sizes:
            coder.number(size)

    assert "codebook do not fit" in refused(code)


@pytest.mark.parametrize("steps", [(0x7C01,), (1, 0x7C00), (0,)], ids=["NaN", "steps to NaN", "zero"])
def test_values_that_no_packer_stores_are_refused(steps):
    def code(coder):
        head(coder, Kind.CODEBOOK, None)
        coder.number(0)
        coder.number(len(steps))
        lengths = np.array([step.bit_length() for step in steps])
        coder.symbols(np.ones(16, dtype=np.int64), lengths, len(lengths))
        for length in np.unique(lengths[lengths > 1]):
            below = np.array([s & (1 << length - 1) - 1 for s in steps if s.bit_length() == length])
            coder.uniform(1 << int(length) - 1, below, len(below))
        if len(steps) > 1:  # of which the last is used
            coder.symbols(np.ones(len(steps), dtype=np.int64), np.ones(16, dtype=np.int64), 16)

    assert "values do not fit" in refused(code)
