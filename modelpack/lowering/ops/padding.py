"""Padding: with a constant, or with elements of the tensor itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import dtypes, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.moving import moved
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

_Edges = list[tuple[Size, Size]]
"""How much is added before and after, for each held axis; negative amounts are cut off."""


@lowers("Pad", 2)
def pad_2(
    ctx: Context, x: Value, *, pads: Sequence[int], mode: str = "constant", value: float = 0.0
) -> Value:
    fill = tf.constant(value, x.dtype)
    return _pad(ctx, x, _edges(x, pads, range(x.rank)), mode, fill)


@lowers("Pad", 11, 13)
def pad_11(
    ctx: Context, x: Value, pads: Value, fill: Value | None = None, *, mode: str = "constant"
) -> Value:
    return pad_18(ctx, x, pads, fill, mode=mode)


@lowers("Pad", 18, 19, 21, 23, 24, 25)
def pad_18(
    ctx: Context,
    x: Value,
    pads: Value,
    fill: Value | None = None,
    axes: Value | None = None,
    *,
    mode: str = "constant",
) -> Value:
    amounts = pads.sizes()
    along = list(range(x.rank)) if axes is None else axes.sizes()
    edges = _edges(x, amounts, along)
    return _pad(ctx, x, edges, mode, None if fill is None else tf.reshape(fill.tensor, []))


def _edges(x: Value, pads: Sequence[Size], axes: Sequence[Size]) -> _Edges:
    before, after = pads[: len(axes)], pads[len(axes) :]
    if not sizes.is_static(axes):
        wide = [sizes.by_axis(side, axes, x.rank, 0) for side in (before, after)]
        axes, before, after = range(x.rank), tf.unstack(wide[0]), tf.unstack(wide[1])
    edges: _Edges = [(0, 0)] * x.rank
    for axis, low, high in zip(axes, before, after, strict=True):
        edges[x.axis(axis)] = (low, high)
    return edges


def _pad(ctx: Context, x: Value, edges: _Edges, mode: str, fill: Any) -> Value:
    tensor = _cropped(ctx, x.physical(x.perm), edges)
    edges = [(_positive(low), _positive(high)) for low, high in edges]
    if mode == "constant":
        return x.like(_constant(ctx, tensor, edges, fill))
    if mode not in _SOURCE:
        raise ctx.refuse(f"unknown mode '{mode}'")
    if mode == "reflect" and _mirrors(tensor, edges):
        return x.like(
            moved(ctx, lambda t: tf.pad(t, edges, "REFLECT"), tensor, kernel=dtypes.TFLITE)
        )
    for axis, (low, high) in enumerate(edges):
        if not _is_none((low, high)):
            tensor = _from_itself(ctx, tensor, axis, low, high, mode)
    return x.like(tensor)


def _is_none(edge: tuple[Size, Size]) -> bool:
    return sizes.is_static(edge) and edge == (0, 0)


def _positive(amount: Size) -> Size:
    return max(amount, 0) if isinstance(amount, int) else tf.maximum(amount, 0)


def _cropped(ctx: Context, tensor: Any, edges: _Edges) -> Any:
    """Cut off what negative amounts say."""
    if all(isinstance(amount, int) and amount >= 0 for edge in edges for amount in edge):
        return tensor
    dims = Value(tensor).dims()
    index = tuple(
        slice(_positive(-low), size - _positive(-high))
        for size, (low, high) in zip(dims, edges, strict=True)
    )
    return moved(ctx, lambda t: t[index], tensor)


def _constant(ctx: Context, tensor: Any, edges: _Edges, fill: Any) -> Any:
    if not edges or all(_is_none(edge) for edge in edges):
        return tensor
    amounts = tf.stack([sizes.pack(edge) for edge in edges])
    if sizes.is_static([amount for edge in edges for amount in edge]):
        amounts = np.array(edges, np.int32)
    zero = tf.zeros([], tensor.dtype) if tensor.dtype is not tf.string else tf.constant("")
    fill = zero if fill is None else fill
    result = moved(ctx, lambda t, f: tf.pad(t, amounts, constant_values=f), tensor, fill)
    return sizes.shaped(result, [_sum(n, *e) for n, e in zip(tensor.shape, edges, strict=True)])


def _sum(size: int | None, low: Size, high: Size) -> int | None:
    if size is None or not sizes.is_static([low, high]):
        return None
    return size + int(low) + int(high)


def _mirrors(tensor: Any, edges: _Edges) -> bool:
    """Whether all amounts are known to be less than the sizes: what the kernel takes."""
    return all(
        _is_none(edge) or (sizes.is_static(edge) and size is not None and max(edge) < size)
        for size, edge in zip(tensor.shape, edges, strict=True)
    )


def _from_itself(ctx: Context, tensor: Any, axis: int, low: Size, high: Size, mode: str) -> Any:
    """Gather along one axis; ``_SOURCE`` says from where."""
    size = Value(tensor).dims()[axis]
    count = size + low + high
    if sizes.is_static([size, low, high]):
        indices: Any = _SOURCE[mode](np, np.arange(-low, size + high), size).astype(np.int32)
    else:
        indices = _SOURCE[mode](tf, tf.range(count) - low, size)
    result = moved(ctx, lambda t: tf.gather(t, indices, axis=axis), tensor)
    dims = tensor.shape.as_list()
    return sizes.shaped(result, [*dims[:axis], *sizes.static([count]), *dims[axis + 1 :]])


def _edge(xp: Any, index: Any, size: Size) -> Any:
    return xp.minimum(xp.maximum(index, 0), size - 1)


def _reflect(xp: Any, index: Any, size: Size) -> Any:
    """Back and forth without repeating the ends: a triangle wave of period ``2 (size - 1)``."""
    period = xp.maximum(2 * (size - 1), 1)
    phase = index % period
    return xp.minimum(phase, period - phase) if not _is_one(size) else xp.zeros_like(index)


def _wrap(xp: Any, index: Any, size: Size) -> Any:
    return index % size


def _is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1


_SOURCE = {"edge": _edge, "reflect": _reflect, "wrap": _wrap}
