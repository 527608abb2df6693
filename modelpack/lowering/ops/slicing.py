"""Taking tensors apart and putting them together along axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import dtypes, sizes
from modelpack.lowering.context import Context, Target
from modelpack.lowering.layout import aligned
from modelpack.lowering.moving import moved
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

_LARGEST = np.iinfo(np.int32).max

# Axes that TFLite's kernel takes.
_LARGEST_STRIDED = 5


@lowers("Concat", 4, 11, 13)
def concat(ctx: Context, *inputs: Value, axis: int) -> Value:
    tensors, perm = aligned(inputs)
    held = axis % inputs[0].rank if perm is None else perm[axis]
    return Value(moved(ctx, lambda *parts: tf.concat(parts, held), *tensors), perm=perm)


@lowers("Split", 2, 11)
def split_2(
    ctx: Context, x: Value, *, axis: int = 0, split: Sequence[int] | None = None
) -> tuple[Value, ...]:
    return _split(ctx, x, axis, split or _equal_parts(ctx, x, axis))


@lowers("Split", 13)
def split_13(
    ctx: Context, x: Value, split: Value | None = None, *, axis: int = 0
) -> tuple[Value, ...]:
    return _split(ctx, x, axis, split.sizes() if split else _equal_parts(ctx, x, axis))


@lowers("Split", 18)
def split_18(
    ctx: Context,
    x: Value,
    split: Value | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
) -> tuple[Value, ...]:
    return _split(ctx, x, axis, split.sizes() if split else _chunks(ctx, x, axis))


def _equal_parts(ctx: Context, x: Value, axis: int) -> list[Size]:
    return [x.dims()[axis] // len(ctx.outputs)] * len(ctx.outputs)


def _chunks(ctx: Context, x: Value, axis: int) -> list[Size]:
    """Equal parts, of which the last ones may be smaller."""
    count, total = len(ctx.outputs), x.dims()[axis]
    chunk = -(-total // count)
    if isinstance(total, int):
        return [max(0, min(chunk, total - i * chunk)) for i in range(count)]
    return [tf.clip_by_value(total - i * chunk, 0, chunk) for i in range(count)]


def _split(ctx: Context, x: Value, axis: int, parts: Sequence[Size]) -> tuple[Value, ...]:
    if len(parts) == 1:
        return (x,)
    held, dtype = x.axis(axis), x.dtype
    if sizes.is_static(parts) and not (ctx.builtin_only and dtype not in dtypes.TFLITE):
        # The kernel for equal parts is the better known one, but not to int64.
        equal = len(set(parts)) == 1 and dtype is not tf.int64 and x.shape[axis] is not None
        pieces = tf.split(x.physical(x.perm), len(parts) if equal else list(parts), held)
        return tuple(x.like(piece) for piece in pieces)
    starts = [sum(parts[:i]) for i in range(len(parts))]
    return tuple(
        _strided(ctx, x, {held: slice(start, start + part)})
        for start, part in zip(starts, parts, strict=True)
    )


@lowers("Slice", 1)
def slice_1(
    ctx: Context,
    x: Value,
    *,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
) -> Value:
    starts, ends = ([max(-_LARGEST, min(_LARGEST, i)) for i in given] for given in (starts, ends))
    return _slice(ctx, x, starts, ends, range(len(starts)) if axes is None else axes)


@lowers("Slice", 10, 11, 13)
def slice_10(
    ctx: Context,
    x: Value,
    starts: Value,
    ends: Value,
    axes: Value | None = None,
    steps: Value | None = None,
) -> Value:
    first = sizes.bounds(starts)
    along = list(range(len(first))) if axes is None else axes.sizes()
    step = [1] * len(first) if steps is None else sizes.bounds(steps)
    if not sizes.is_static(along):
        return _slice_along_computed(ctx, x, first, sizes.bounds(ends), along, step)
    return _slice(ctx, x, first, sizes.bounds(ends), along, step)


def _slice(
    ctx: Context,
    x: Value,
    starts: Sequence[Size],
    ends: Sequence[Size],
    axes: Sequence[int],
    steps: Sequence[Size] = (),
) -> Value:
    if ctx.target is Target.SAVEDMODEL and list(axes) == [0] and x.perm is not None:
        # Of the first axis held, a slice is no copy: one transpose, and none for each part.
        x = Value(x.tensor)
    dims = x.dims()
    index = {}
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        bounded = _bounded(dims[axis], start, end, step)
        if not _is_whole(bounded, dims[axis]):
            index[x.axis(axis)] = bounded
    return _strided(ctx, x, index)


def _bounded(size: Size, start: Size, end: Size, step: Size) -> slice:
    """The slice of an axis as Python and TensorFlow mean it.

    They differ from ONNX in a start before the first element and a negative step: ONNX
    starts from the first element.
    """
    if sizes.is_static([size, start, end, step]):
        start, end = (i + size if i < 0 else i for i in (start, end))
        if step > 0:
            return slice(min(max(start, 0), size), min(max(end, 0), size), step)
        end = min(max(end, -1), size - 1)
        return slice(min(max(start, 0), size - 1), None if end == -1 else end, step)
    if not isinstance(step, int) or step < 0:
        start = tf.maximum(start, -size)
    elif isinstance(start, int) and start <= -_LARGEST:
        start = None
    unbounded = isinstance(end, int) and abs(end) >= _LARGEST and isinstance(step, int)
    return slice(start, None if unbounded and (end > 0) == (step > 0) else end, step)


def _is_whole(bounds: slice, size: Size) -> bool:
    static = sizes.is_static([size, bounds.start, bounds.stop, bounds.step])
    return static and bounds == slice(0, size, 1)


def _strided(ctx: Context, x: Value, index: Mapping[int, slice]) -> Value:
    """Slice the held tensor along axes of it."""
    tensor = x.physical(x.perm)
    if ctx.builtin_only and x.rank > _LARGEST_STRIDED:
        for axis, bounds in index.items():
            tensor = _strided_alone(ctx, tensor, axis, bounds)
    elif index:
        whole = tuple(index.get(axis, slice(None)) for axis in range(x.rank))
        tensor = moved(ctx, lambda t: t[whole], tensor)
    return x.like(tensor)


def _strided_alone(ctx: Context, tensor: Any, axis: int, bounds: slice) -> Any:
    """Slice along one axis, the others merged: for more axes than the kernel takes."""
    dims = Value(tensor).dims()
    before, after = dims[:axis], dims[axis + 1 :]
    merged = [sizes.product(before), dims[axis], sizes.product(after)]
    cut = moved(ctx, lambda t: t[:, bounds], sizes.reshape(tensor, merged))
    return sizes.reshape(cut, [*before, Value(cut).dims()[1], *after])


def _slice_along_computed(
    ctx: Context,
    x: Value,
    starts: Sequence[Size],
    ends: Sequence[Size],
    axes: Sequence[Size],
    steps: Sequence[Size],
) -> Any:
    own = sizes.pack(x.dims())
    first = tf.maximum(sizes.by_axis(starts, axes, x.rank, 0), -own)
    last = sizes.by_axis(ends, axes, x.rank, _LARGEST)
    step = sizes.by_axis(steps, axes, x.rank, 1)
    result = moved(ctx, lambda t: tf.strided_slice(t, first, last, step), x.tensor)
    return sizes.shaped(result, [None] * x.rank)
