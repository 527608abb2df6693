"""Ops that ask for sizes or change the shape, and move nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import known, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import permuted
from modelpack.lowering.registry import lowers
from modelpack.lowering.regrouping import reshaped
from modelpack.lowering.value import Size, Value


@lowers("Shape", 1, 13)
def shape_1(x: Value) -> Value:
    return shape_15(x)


@lowers("Shape", 15, 19, 21, 23, 24, 25)
def shape_15(x: Value, *, start: int = 0, end: int | None = None) -> Value:
    elements = known.shape_of(x)[start:end]
    if not np.isnan(elements).any():
        return Value(const=elements.astype(np.int64))
    held = tf.shape(x.held)
    logical = held if x.perm is None else tf.gather(held, x.perm)
    return Value(tf.cast(logical[start:end], tf.int64), known=elements)


@lowers("Size", 1, 13, 19, 21, 23, 24, 25)
def size(x: Value) -> Any:
    count = sizes.product(x.dims())
    return np.int64(count) if isinstance(count, int) else tf.cast(count, tf.int64)


@lowers("Transpose", 1, 13, 21, 23, 24, 25)
def transpose(x: Value, *, perm: Sequence[int] | None = None) -> Value:
    return permuted(x, list(reversed(range(x.rank))) if perm is None else perm)


@lowers("Reshape", 5, 13)
def reshape_5(x: Value, shape: Value) -> Any:
    return reshape_14(x, shape)


@lowers("Reshape", 14, 19, 21, 23, 24, 25)
def reshape_14(x: Value, shape: Value, *, allowzero: int = 0) -> Any:
    wanted = shape.sizes()
    if allowzero:
        return reshaped(x, wanted)
    own = x.dims()
    wanted = [own[i] if isinstance(s, int) and s == 0 else s for i, s in enumerate(wanted)]
    # With one size that is not known, its value does not matter.
    if sizes.static(shape.sizes()).count(None) + sizes.static(wanted).count(-1) > 1:
        wanted = _zeros_copied(shape, wanted, own)
    return reshaped(x, wanted, own)


def _zeros_copied(shape: Value, wanted: Sequence[Size], own: Sequence[Size]) -> list[Size]:
    """Computed sizes may turn out as 0, which copies; of those of tensors none means that."""
    if known.made_of_sizes(shape):
        return list(wanted)
    return [
        size
        if isinstance(size, int) or i >= len(own)
        else tf.where(tf.equal(size, 0), own[i], size)
        for i, size in enumerate(wanted)
    ]


@lowers("Flatten", 1, 9, 11, 13, 21, 23, 24, 25)
def flatten(x: Value, *, axis: int = 1) -> Any:
    dims = x.dims()
    wanted = [sizes.product(dims[:axis]), sizes.product(dims[axis:])]
    dynamic = [i for i, size in enumerate(wanted) if not isinstance(size, int)]
    if len(dynamic) == 1 and 0 not in sizes.static(wanted):
        wanted[dynamic[0]] = -1
    return reshaped(x, wanted)


@lowers("Squeeze", 1, 11)
def squeeze_1(ctx: Context, x: Value, *, axes: Sequence[int] | None = None) -> Any:
    return _squeeze(x, axes if axes else _ones(ctx, x))


@lowers("Squeeze", 13, 21, 23, 24, 25)
def squeeze_13(ctx: Context, x: Value, axes: Value | None = None) -> Any:
    if axes is None or axes.shape == (0,):
        return _squeeze(x, _ones(ctx, x))
    wanted = axes.sizes()
    return _squeeze(x, wanted) if sizes.is_static(wanted) else _squeeze_computed(x, axes)


def _ones(ctx: Context, x: Value) -> list[int]:
    if None in x.shape:
        raise ctx.refuse("without axes, the rank of the result depends on dynamic sizes")
    return [axis for axis, size in enumerate(x.shape) if size == 1]


def _squeeze(x: Value, axes: Sequence[int]) -> Any:
    gone = {axis % x.rank for axis in axes}
    if x.is_const:
        const = x.const
        assert const is not None
        return np.squeeze(const, tuple(gone))
    dims = x.dims()
    order = _held_order(x)
    result = sizes.reshape(x.held, [dims[axis] for axis in order if axis not in gone])
    kept = [axis for axis in order if axis not in gone]
    return Value(result, perm=tuple(int(i) for i in np.argsort(kept)))


def _squeeze_computed(x: Value, axes: Value) -> Any:
    count = axes.shape[0]
    assert count is not None
    own = sizes.pack(x.dims())
    where = tf.range(x.rank)
    listed = tf.cast(axes.tensor, tf.int32)[:, None] % x.rank
    kept = 1 - tf.reduce_max(tf.cast(tf.equal(listed, where[None]), tf.int32), 0)
    position = tf.cumsum(kept) - 1
    lands = tf.cast(tf.equal(tf.range(x.rank - count)[:, None], position[None]), tf.int32)
    result = tf.reshape(x.tensor, tf.reduce_sum(lands * kept * own, 1))
    return sizes.shaped(result, [None] * (x.rank - count))


@lowers("Unsqueeze", 1, 11)
def unsqueeze_1(x: Value, *, axes: Sequence[int]) -> Any:
    return _unsqueeze(x, axes)


@lowers("Unsqueeze", 13, 21, 23, 24, 25)
def unsqueeze_13(x: Value, axes: Value) -> Any:
    wanted = axes.sizes()
    return _unsqueeze(x, wanted) if sizes.is_static(wanted) else _unsqueeze_computed(x, axes)


def _unsqueeze(x: Value, axes: Sequence[int]) -> Any:
    rank = x.rank + len(axes)
    new = {axis % rank for axis in axes}
    if x.is_const:
        const = x.const
        assert const is not None
        return np.expand_dims(const, tuple(new))
    if x.perm is None:
        own = iter(x.dims())
        return sizes.reshape(x.held, [1 if axis in new else next(own) for axis in range(rank)])
    # Held where they cost nothing to insert: in front.
    old = [axis for axis in range(rank) if axis not in new]
    dims = x.dims()
    order = _held_order(x)
    result = sizes.reshape(x.held, [1] * len(new) + [dims[axis] for axis in order])
    held = [*sorted(new), *(old[axis] for axis in order)]
    return Value(result, perm=tuple(int(i) for i in np.argsort(held)))


def _unsqueeze_computed(x: Value, axes: Value) -> Any:
    count = axes.shape[0]
    assert count is not None
    rank = x.rank + count
    listed = tf.cast(axes.tensor, tf.int32)[:, None] % rank
    new = tf.reduce_max(tf.cast(tf.equal(listed, tf.range(rank)[None]), tf.int32), 0)
    source = tf.maximum(tf.cumsum(1 - new) - 1, 0)
    own = tf.gather(sizes.pack([*x.dims(), 1]), source)
    result = tf.reshape(x.tensor, tf.where(new > 0, 1, own))
    return sizes.shaped(result, [None] * rank)


def _held_order(x: Value) -> list[int]:
    """The logical axes, in the order they are held in."""
    return [int(axis) for axis in np.argsort(x.perm or range(x.rank))]
