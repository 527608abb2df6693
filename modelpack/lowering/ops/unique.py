"""The different elements of a tensor."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.moving import moved
from modelpack.lowering.ranking import as_ranked, mirrored, rankable
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("Unique", 11, 28)
def unique(
    ctx: Context, x: Value, *, axis: int | None = None, sorted: int = 1
) -> tuple[Any, Any, Any, Any]:
    """Values, where each occurs first, which one each element is, how often each occurs."""
    if axis is None or x.rank == 1:
        flat = sizes.reshape(x.tensor, [-1])
        key = flat if flat.dtype is tf.string else rankable(flat)
        found, inverse = tf.unique(key)
        values = found if flat.dtype is tf.string else as_ranked(found, flat.dtype)
        ranks = _ranks(ctx, found) if sorted else None
        return _answers(ctx, values, inverse, ranks, 0)
    axis = axis % x.rank
    order = [axis, *(i for i in range(x.rank) if i != axis)]
    tensor = x.transposed(order)
    dims = Value(tensor).dims()
    rows = rankable(sizes.reshape(tensor, [dims[0], sizes.product(dims[1:])]))
    same = tf.reduce_all(tf.equal(rows[:, None], rows[None]), -1)
    first, inverse = tf.unique(tf.argmax(tf.cast(same, tf.int32), 1, output_type=tf.int32))
    values = moved(ctx, lambda t: tf.gather(t, first), tensor)
    ranks = _row_ranks(tf.gather(rows, first)) if sorted else None
    values, *rest = _answers(ctx, values, inverse, ranks, 0)
    return (Value(values, perm=tuple(order.index(i) for i in range(x.rank))), *rest)


def _answers(
    ctx: Context, values: Any, inverse: Any, ranks: Any, axis: int
) -> tuple[Any, Any, Any, Any]:
    """Put the values in the order of their ranks, and count."""
    count = tf.shape(values)[axis]
    if ranks is not None:
        order = tf.math.unsorted_segment_sum(tf.range(count), ranks, count)
        values = moved(ctx, lambda t: tf.gather(t, order), values)
        inverse = tf.gather(ranks, inverse)
    positions = tf.range(tf.size(inverse))
    first = tf.math.unsorted_segment_min(positions, inverse, count)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(positions), inverse, count)
    return values, *(tf.cast(item, tf.int64) for item in (first, inverse, counts))


def _ranks(ctx: Context, values: Any) -> Any:
    """How many values are less, for each of different values."""
    if values.dtype is tf.string:
        raise ctx.refuse("no TensorFlow op sorts text")
    count = tf.size(values)
    order = tf.math.top_k(mirrored(values), count).indices
    return tf.math.unsorted_segment_sum(tf.range(count), order, count)


def _row_ranks(rows: Any) -> Any:
    """How many rows are less, for each of different rows: the first difference decides."""
    left, right = rows[:, None], rows[None]
    differs = tf.cast(tf.not_equal(left, right), tf.int32)
    decides = tf.equal(tf.cumsum(differs, -1) * differs, 1)
    less = tf.reduce_any(tf.logical_and(decides, tf.less(left, right)), -1)
    return tf.reduce_sum(tf.cast(less, tf.int32), 0)
