"""Choosing elements: by a mask, by a condition, by position."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.indices import positive
from modelpack.lowering.moving import moved
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("Trilu", 14)
def trilu(ctx: Context, x: Value, k: Value | None = None, *, upper: int = 1) -> Any:
    diagonal = 0 if k is None else sizes.single(k)
    rows, columns = x.dims()[-2:]
    if sizes.is_static([rows, columns, diagonal]):
        distance: Any = np.arange(columns)[None] - np.arange(rows)[:, None]
    else:
        distance = tf.range(columns)[None] - tf.range(rows)[:, None]
    kept = distance >= diagonal if upper else distance <= diagonal
    return moved(ctx, lambda t: tf.where(kept, t, tf.zeros([], t.dtype)), x.tensor)


@lowers("OneHot", 9, 11, 28)
def one_hot(ctx: Context, indices: Value, depth: Value, values: Value, *, axis: int = -1) -> Any:
    count = sizes.single(depth)
    # In int32 those far beyond the depth would be others, within it.
    chosen = positive(tf.cast(indices.tensor, tf.int64), tf.cast(count, tf.int64))
    axis = axis % (indices.rank + 1)

    def one_hot_of(values: Any) -> Any:
        return tf.one_hot(chosen, count, values[1], values[0], axis)

    result = moved(ctx, one_hot_of, values.tensor)
    shape = list(indices.shape)
    return sizes.shaped(result, [*shape[:axis], *sizes.static([count]), *shape[axis:]])


@lowers("NonZero", 9, 13)
def non_zero(ctx: Context, x: Value) -> Any:
    mask = moved(ctx, lambda t: tf.not_equal(t, tf.zeros([], t.dtype)), x.tensor)
    # The place of a scalar is that of the only element of a vector.
    return tf.transpose(tf.where(mask if x.rank else tf.reshape(mask, [1])))


@lowers("Compress", 9, 11, 28)
def compress(ctx: Context, x: Value, condition: Value, *, axis: int | None = None) -> Value:
    chosen = tf.reshape(tf.where(condition.tensor), [-1])
    if axis is None:
        flat = sizes.reshape(x.tensor, [-1])
        return Value(moved(ctx, lambda t: tf.gather(t, chosen), flat))
    held = x.axis(axis)
    return x.like(moved(ctx, lambda t: tf.gather(t, chosen, axis=held), x.physical(x.perm)))
