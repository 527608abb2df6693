"""The noise floor of a model: how far its own arithmetic leaves its answers undecided.

A model's answers are rounded at every step. Any other sound evaluation (other kernels, other
orders of summation, folded constants) rounds elsewhere, and in effect computes the answers of a
model whose weights and inputs differ in their last bits (backward error analysis: N. J. Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002, section 1.5). So the reference is
run again under changes that must not matter, its *variants*, and what they move is the noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelpack.samples import Array, Case, numpy_dtype
from modelpack.signature import DType

# A candidate's error may be this many times the noise floor. Variants change one thing each,
# and by one rounding; a conversion changes all kernels at once. The sound conversions
# of the benchmark stay below it (benchmarks/RESULTS.md).
SAFETY = 8.0

# One unit in the last place of float32, and half of one: what rounding an answer and the step
# before it can lose.
ULP = 1.5 * 2.0**-23

# A reference that computes in float64 does not show what its float32 artifacts lose: in sums of n
# terms some sqrt(n) units (Higham, section 4.2), here of a thousand terms, and as much where the
# exponential of a difference of logarithms is taken.
ULPS_OF_SUMS = 32.0

# Elements of one block of random bits: bounds the memory beside the array.
_BLOCK = 1 << 20

_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


# Bits of a float32 below the last one that a coarser dtype keeps of it.
_LOST_BITS = {"float16": 13, "bfloat16": 16}

# How many times coarser than float32 a dtype is: 24 bits of precision against 11 and 8.
COARSER = {"float16": 2.0**13, "bfloat16": 2.0**16}


def flip_last_bits(array: Array, seed: int, index: int = 0, computes_in: str = "") -> None:
    """Flip the last bit of half of an array's finite numbers, in place.

    Each change is one unit in the last place (2**-23 relative, at most, in float32), up or
    down. The same call again undoes it, so no copy of a model's weights is needed.

    Args:
        array: contiguous, of float16, bfloat16, float32 or float64; others stay as they are.
        seed: of the choice.
        index: of the array among those of a model, so that each has a choice of its own.
        computes_in: the dtype to which float32 weights are cast, if that is coarser: the last
            bit that it keeps is flipped.
    """
    if array.dtype.kind not in "fV" or array.dtype.itemsize not in _BITS:
        return
    rng = np.random.default_rng(seed * 1000 + index)
    values = array.reshape(-1)
    bits = values.view(_BITS[array.dtype.itemsize])
    place = _LOST_BITS.get(computes_in, 0) if array.dtype.itemsize == 4 else 0
    for begin in range(0, len(bits), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        chosen = rng.integers(0, 2, len(bits[part]), dtype=np.uint8).astype(bits.dtype)
        # Zeros mean something (padding, masks, pruned weights), and inf would become NaN.
        chosen[~np.isfinite(values[part]) | (values[part] == 0)] = 0
        bits[part] ^= chosen << place


def nudged(case: Case, seed: int, computes_in: str = "") -> Case:
    """A feed whose real values are each one unit in the last place up or down.

    Values in float64 move by a unit of float32, as which artifacts take them; those of a model
    that computes in a coarser dtype by a unit of that.
    """
    rng = np.random.default_rng(seed)
    return {name: _moved_by_one(array, rng, computes_in) for name, array in case.items()}


def _moved_by_one(array: Array, rng: np.random.Generator, computes_in: str) -> Array:
    if array.dtype.kind not in "fV":
        return array
    with np.errstate(over="ignore"):
        values = array.astype(np.float32) if array.dtype.name == "float64" else array
        if computes_in and values.dtype.itemsize > 2:
            values = values.astype(numpy_dtype(DType(computes_in)))
        towards = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(values.dtype)
        moved = np.nextafter(values, towards)
    # What a coarser dtype has as 0 moves by the least number that it has.
    still = (array == 0) | ~np.isfinite(values)
    result: Array = np.where(still, values, moved).astype(array.dtype)
    return result


def floor(
    answers: Sequence[Array], variants: Sequence[Sequence[Array]], least: float = ULP
) -> list[Array]:
    """The noise floor of one output, for every element of every case.

    For real values it is a magnitude in the output's units: the largest change of that
    element by any variant, or where that is less, the usual change along one of its axes
    (so that an element which happened to stay, or that no variant reached, is not held to
    be exact, and a column of small values is not given the noise of a column of large
    ones), or a share of the usual magnitude there, or a unit in its last place. Of other
    dtypes an element is infinite, undecided, if any variant changed it, and else 0.

    Args:
        answers: the reference's, by case.
        variants: by variant, answers for the first of these cases or for all.
        least: that share.
    """
    if answers and answers[0].dtype.kind not in "fV":
        return [_undecided(index, answers, variants) for index in range(len(answers))]
    wide = [answer.astype(np.float64) for answer in answers]
    moved = [_moved(index, wide, variants) for index in range(len(wide))]
    if wide and all(_is_simplex(answer) for answer in wide):
        # Probabilities of the last class may be computed as 1 less the others.
        moved = [np.fmax(change, least) for change in moved]
    pools = _Pools(wide, moved, least)
    return [
        np.maximum(np.fmax(moved[index], _own_rounding(answer)), pools.usual(index))
        for index, answer in enumerate(wide)
    ]


def of_shares(floors: Sequence[Case], names: Sequence[str]) -> list[Case]:
    """The floors, with at least a unit of 1 in outputs that are known to be shares of 1."""
    return [
        {**case, **{name: np.maximum(case[name], ULP) for name in names if name in case}}
        for case in floors
    ]


def _own_rounding(answer: Array) -> Array:
    """One unit in the last place, at most, of each element."""
    return np.where(np.isfinite(answer), np.abs(answer), 0.0) * 2.0**-23


def _undecided(index: int, answers: Sequence[Array], variants: Sequence[Sequence[Array]]) -> Array:
    changed = np.zeros(answers[index].shape, bool)
    for variant in variants:
        if index < len(variant):
            changed |= np.asarray(variant[index] != answers[index], bool)
    return np.where(changed, np.inf, 0.0)


def _moved(index: int, answers: Sequence[Array], variants: Sequence[Sequence[Array]]) -> Array:
    """The largest change of each element; NaN where no variant was run, or none is finite."""
    want = answers[index]
    changes = [
        _change(want, variant[index].astype(np.float64))
        for variant in variants
        if index < len(variant)
    ]
    if not changes:
        return np.full(want.shape, np.nan)
    largest: Array = np.max(changes, axis=0)
    return largest


def _is_simplex(answer: Array) -> bool:
    """Whether rows are probabilities that sum to 1 along the last axis or the second."""
    if answer.ndim < 2 or not answer.size:
        return answer.ndim > 1
    sums = [answer.sum(axis) for axis in {1, answer.ndim - 1}]
    return bool((answer >= 0).all()) and any(np.allclose(sum_, 1, 0, 1e-3) for sum_ in sums)


def _change(want: Array, have: Array) -> Array:
    """Differences; infinite where only one side is finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(have - want)
    same = (want == have) | (np.isnan(want) & np.isnan(have))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


class _Pools:
    """What is usual along each axis of an output, over all cases of its rank."""

    def __init__(self, answers: Sequence[Array], moved: Sequence[Array], least: float) -> None:
        self._least = least
        self._answers = answers
        self._moved = moved
        self._whole = self._level(range(len(answers)))
        self._reach = _reach(sum(answer.size for answer in answers))

    def usual(self, index: int) -> Array:
        """For each element of a case, the least of what is usual along one of its axes."""
        shape = self._answers[index].shape
        usual = np.full(shape, self._whole)
        for axis in range(1, len(shape)):
            along = self._along(index, axis)
            if along is not None:
                view = [1] * len(shape)
                view[axis] = shape[axis]
                usual = np.minimum(usual, along.reshape(view))
        return usual * self._reach

    def _along(self, index: int, axis: int) -> Array | None:
        """By position along an axis; None if that axis tells less than eight elements."""
        rank, size = self._answers[index].ndim, self._answers[index].shape[axis]
        if not size:
            return None
        alike = [
            i
            for i, item in enumerate(self._answers)
            if item.ndim == rank and item.shape[axis] == size
        ]
        answers, moved = (
            np.concatenate([np.moveaxis(side[i], axis, 0).reshape(size, -1) for i in alike], 1)
            for side in (self._answers, self._moved)
        )
        if answers.shape[1] < _FEWEST:
            return None
        return _levels(answers, moved, self._least)

    def _level(self, cases: Sequence[int]) -> float:
        answers, moved = (
            np.concatenate([side[i].reshape(1, -1) for i in cases], 1)
            for side in (self._answers, self._moved)
        )
        return float(_levels(answers, moved, self._least)[0]) if answers.size else 0.0


def _reach(elements: int) -> float:
    """How much further than in a small output the largest of so many sound errors lies.

    The largest of n normal deviates is near sqrt(2 ln n) (H. Cramer, Mathematical Methods of
    Statistics, 1946, section 28.6), and `SAFETY` leaves room for that of some thousands.
    """
    return float(np.sqrt(np.log(max(elements, _MOST)) / np.log(_MOST)))


# Fewer elements than this say little of what is usual; more than that, no more.
_FEWEST = 8
_MOST = 4096


def _levels(answers: Array, moved: Array, least: float) -> Array:
    """Of each row: the usual change, and at least a share of the usual magnitude.

    The usual change is the root of the mean square without the largest tenth: a jump at a
    threshold is no noise of its neighbours.
    """
    step = -(-answers.shape[1] // _MOST)
    answers, moved = answers[:, ::step], moved[:, ::step]
    known = np.sort(np.where(np.isfinite(moved), moved, np.nan), axis=1)  # NaN comes last
    kept = np.ceil((~np.isnan(known)).sum(1) * 0.9)
    used = np.arange(known.shape[1])[None] < kept[:, None]
    change = _root_mean_square(np.where(used, known, 0.0), kept)
    sizes = np.where(np.isfinite(answers), np.abs(answers), 0.0)
    return np.maximum(change, _root_mean_square(sizes, sizes.shape[1]) * least)


def _root_mean_square(rows: Array, counts: Array | int) -> Array:
    """Of each row, without overflow of squares."""
    scale = rows.max(1, initial=0.0)
    unit = np.where(scale > 0, scale, 1.0)
    total: Array = ((rows / unit[:, None]) ** 2).sum(1)
    result: Array = unit * np.sqrt(total / np.maximum(counts, 1))
    return result
