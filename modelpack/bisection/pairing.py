"""Finds the tensors of two traces that hold the same values, whatever they are called.

Two formats neither name tensors alike nor lay them out alike. What they share is numbers: a
tensor of the candidate is paired with the tensor of the reference that it equals most nearly,
as it is, with channels last instead of second (or the other way round), or with the first two
axes exchanged. Other orders of axes are not tried: a wrong transposition would pass as one.
For that reason the results of ops that only move values are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import numpy as np

from modelpack.bisection.traces import Probe, Trace
from modelpack.samples import Array

# Ops that pass values on in another order or shape, by their names in any format.
_MOVING = {"transpose", "reshape", "flatten", "squeeze", "unsqueeze", "expanddims", "expand_dims"}

# How many of a tensor's sorted values are kept to compare it with others.
_POINTS = 129


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor's counterpart in the reference.

    Attributes:
        reference: number of its probe.
        error: how far apart they are, as `error_of` says.
    """

    reference: int
    error: float


def error_of(want: Array, have: Array) -> float:
    """Root mean square of the difference over that of the reference.

    Infinite where only one side is finite; 0 for equal arrays, even of zeros.
    """
    one, other = want.astype(np.float64), have.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return 0.0
    finite = np.isfinite(one) & np.isfinite(other)
    if not (finite | same).all():
        return float("inf")
    difference = np.where(same, 0.0, np.where(finite, one, 0.0) - np.where(finite, other, 0.0))
    size = _rms(np.where(finite, one, 0.0))
    return _rms(difference) / size if size else float("inf")


def _rms(values: Array) -> float:
    scale = float(np.abs(values).max(initial=0.0))
    return scale * float(np.sqrt(np.mean((values / scale) ** 2))) if scale else 0.0


def arrangements(want: Array, shape: tuple[int, ...], *, as_it_is: bool = False) -> Iterator[Array]:
    """The ways in which a tensor of the reference may stand in a tensor of this shape.

    Args:
        want: the reference's.
        shape: the candidate's.
        as_it_is: with its axes in their order only.
    """
    moved = [want]
    if want.ndim > 2 and not as_it_is:
        moved += [np.moveaxis(want, -1, 1), np.moveaxis(want, 1, -1), np.swapaxes(want, 0, 1)]
    for array in moved:
        if _regroups(array.shape, shape):
            yield np.ascontiguousarray(array).reshape(shape)


def _regroups(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one shape only splits or joins neighbouring axes of the other."""
    edges = [set(accumulate(shape, mul, initial=1)) for shape in (one, other)]
    return max(edges[0]) == max(edges[1]) and (edges[0] <= edges[1] or edges[1] <= edges[0])


def best_arrangement(
    want: Array, have: Array, *, as_it_is: bool = False
) -> tuple[float, Array] | None:
    """The arrangement of ``want`` that is nearest to ``have``, with its error."""
    arranged = arrangements(want, have.shape, as_it_is=as_it_is)
    found = [(error_of(array, have), array) for array in arranged]
    return min(found, key=lambda item: item[0], default=None)


def is_telling(array: Array | None) -> bool:
    """Whether a tensor's values can tell it from others: reals, and not all the same."""
    return (
        array is not None
        and array.dtype.kind == "f"
        and array.size > 1
        and bool((array != array.flat[0]).any())
    )


def pairs(
    reference: Trace, candidate: Trace, within: float, *, by_name: bool = False
) -> dict[int, Pair]:
    """The counterparts of a candidate's tensors, by number of their probes.

    Args:
        reference: a trace.
        candidate: a trace on the same feed.
        within: the largest error of a pair.
        by_name: tensors of the same name are a pair, however far apart: for two files of
            one format, of which one was made from the other.
    """
    sketches = _sketches(reference)
    names = {probe.name: index for index, probe in enumerate(reference.probes)} if by_name else {}
    found = {}
    for index, probe in enumerate(candidate.probes):
        value = candidate.value(index)
        if value is None or not is_telling(value) or _leaves_order(candidate, probe, value):
            continue
        namesake = names.get(probe.name)
        pair = _pair_with(reference, namesake, value) if namesake is not None else None
        if pair is None:
            moving = probe.op.lower() in _MOVING
            alike = sketches.get(value.size, ())
            pair = _nearest(reference, alike, value, within, as_it_is=moving)
        if pair is not None:
            found[index] = pair
    return found


def _leaves_order(trace: Trace, probe: Probe, value: Array) -> bool:
    """Whether a transposition exchanges nothing, which may be its fault: it proves nothing."""
    if probe.op.lower() != "transpose" or not probe.inputs:
        return False
    numbers = {item.name: index for index, item in enumerate(trace.probes)}
    before = trace.value(numbers[probe.inputs[0]]) if probe.inputs[0] in numbers else None
    return before is not None and np.array_equal(before.ravel(), value.ravel(), equal_nan=True)


def _pair_with(reference: Trace, index: int, value: Array) -> Pair | None:
    want = reference.value(index)
    if want is None or want.shape != value.shape or want.dtype.kind != "f":
        return None
    return Pair(index, error_of(want, value))


@dataclass(frozen=True, slots=True)
class _Sketch:
    """Values of a tensor in ascending order, whatever the order of its axes."""

    index: int
    points: Array

    def may_equal(self, other: Array, within: float) -> bool:
        """Whether tensors with these values can be so near to each other.

        No way to pair off two sets of numbers has a smaller sum of squared differences
        than pairing them in ascending order. The points are a sample of those, so twice
        the distance is allowed.
        """
        if not np.array_equal(np.isfinite(self.points), np.isfinite(other)):
            return False
        usable = np.isfinite(other)
        distance = _rms(np.where(usable, self.points - np.where(usable, other, 0.0), 0.0))
        return distance <= 2 * within * _rms(np.where(usable, self.points, 0.0))


def _points(array: Array) -> Array:
    ordered = np.sort(array.astype(np.float64), axis=None)
    chosen = np.linspace(0, ordered.size - 1, _POINTS).round().astype(np.int64)
    points: Array = ordered[chosen]
    return points


def _sketches(trace: Trace) -> dict[int, list[_Sketch]]:
    found: dict[int, list[_Sketch]] = {}
    for index in range(len(trace)):
        value = trace.value(index)
        if value is not None and is_telling(value):
            found.setdefault(value.size, []).append(_Sketch(index, _points(value)))
    return found


def _nearest(
    reference: Trace,
    sketches: Sequence[_Sketch],
    value: Array,
    within: float,
    *,
    as_it_is: bool,
) -> Pair | None:
    points = _points(value)
    best: Pair | None = None
    for sketch in sketches:
        if not sketch.may_equal(points, min(within, best.error if best else within)):
            continue
        want = reference.value(sketch.index)
        if want is None:
            continue
        nearest = best_arrangement(want, value, as_it_is=as_it_is)
        if nearest is None or nearest[0] > within:
            continue
        if best is None or nearest[0] < best.error:
            best = Pair(sketch.index, nearest[0])
        if best.error == 0.0:
            break
    return best
