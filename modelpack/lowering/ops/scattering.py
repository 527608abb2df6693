"""Writing elements by index.

TFLite has no scatter that replaces, multiplies or compares, but it has the reductions over
unsorted segments: with every element (or row) of the result as a segment of its own, they
say what comes to lie there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from modelpack.lowering import dtypes, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.indices import along, element_offsets, row_offsets
from modelpack.lowering.moving import moved
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("Scatter", 9, 11)
@lowers("ScatterElements", 11, 13)
def scatter_elements_11(
    ctx: Context, x: Value, indices: Value, updates: Value, *, axis: int = 0
) -> Any:
    return scatter_elements_16(ctx, x, indices, updates, axis=axis)


@lowers("ScatterElements", 16, 18)
def scatter_elements_16(
    ctx: Context,
    x: Value,
    indices: Value,
    updates: Value,
    *,
    axis: int = 0,
    reduction: str = "none",
) -> Any:
    if x.rank == 0:
        raise ctx.refuse("scalars have no elements to scatter to")
    offsets = element_offsets(x, indices, axis % x.rank)
    flat = sizes.reshape(x.tensor, [-1])
    new = sizes.reshape(updates.tensor, [-1])
    result = _scattered(ctx, flat, tf.reshape(offsets, [-1]), new, reduction)
    return sizes.reshape(result, x.dims())


@lowers("ScatterND", 11, 13)
def scatter_nd_11(ctx: Context, x: Value, indices: Value, updates: Value) -> Any:
    return scatter_nd_16(ctx, x, indices, updates)


@lowers("ScatterND", 16, 18)
def scatter_nd_16(
    ctx: Context, x: Value, indices: Value, updates: Value, *, reduction: str = "none"
) -> Any:
    depth = indices.shape[-1]
    if depth is None:
        raise ctx.refuse("the last size of the indices is not known")
    if 0 in x.shape:  # TensorFlow refuses to write rows of no elements
        return x.tensor
    offsets = tf.reshape(row_offsets(x, indices, depth), [-1])
    dims = x.dims()
    inner = sizes.product(dims[depth:])
    rows = sizes.reshape(x.tensor, [sizes.product(dims[:depth]), inner])
    count = sizes.product(indices.dims()[:-1])
    new = sizes.reshape(updates.tensor, [count, inner])
    return sizes.reshape(_scattered(ctx, rows, offsets, new, reduction), dims)


def _scattered(ctx: Context, rows: Any, offsets: Any, new: Any, reduction: str) -> Any:
    """Rows with new ones at ``offsets``; the last of those for the same row wins."""
    if reduction == "none":
        return _replaced(ctx, rows, offsets, new)
    if reduction not in ("add", *_REDUCTIONS):
        raise ctx.refuse(f"unknown reduction '{reduction}'")
    if reduction == "add":
        return moved(ctx, lambda old, new: _added(old, offsets, new), rows, new)
    reduce, combine = _REDUCTIONS[reduction]
    count = Value(rows).dims()[0]

    def combined(rows: Any, new: Any) -> Any:
        reduced = reduce(new, offsets, count)
        touched = tf.math.unsorted_segment_max(tf.ones_like(offsets), offsets, count) > 0
        touched = tf.reshape(touched, [-1] + [1] * (rows.shape.rank - 1))
        return tf.where(touched, combine(rows, reduced), rows)

    if not ctx.builtin_only:
        return combined(rows, new)
    if rows.dtype.size > 4:
        raise ctx.refuse(f"no built-in op has a '{reduction}' of {rows.dtype.name} by index")
    return dtypes.computed_in((tf.float32, tf.int32), combined, rows, new)


def _added(rows: Any, offsets: Any, new: Any) -> Any:
    return rows + tf.scatter_nd(offsets[:, None], new, sizes.pack(Value(rows).dims()))


def _replaced(ctx: Context, rows: Any, offsets: Any, new: Any) -> Any:
    if not ctx.builtin_only:
        return tf.tensor_scatter_nd_update(rows, offsets[:, None], new)
    count = Value(rows).dims()[0]
    order = tf.range(Value(offsets).dims()[0])
    last = tf.math.unsorted_segment_max(order, offsets, count)
    touched = tf.reshape(last >= 0, [-1] + [1] * (rows.shape.rank - 1))
    chosen = tf.maximum(last, 0)
    return moved(ctx, lambda old, new: tf.where(touched, tf.gather(new, chosen), old), rows, new)


_Reduce = Callable[[Any, Any, Any], Any]
_REDUCTIONS: dict[str, tuple[_Reduce, Callable[[Any, Any], Any]]] = {
    "mul": (tf.math.unsorted_segment_prod, tf.multiply),
    "max": (tf.math.unsorted_segment_max, tf.maximum),
    "min": (tf.math.unsorted_segment_min, tf.minimum),
}


@lowers("TensorScatter", 24)
def tensor_scatter(
    ctx: Context,
    cache: Value,
    update: Value,
    write_indices: Value | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Any:
    """For each place in the cache: what is written to it, read from the update."""
    axis = axis % cache.rank
    size, written = cache.dims()[axis], update.dims()[axis]
    starts = tf.zeros([1], tf.int32)
    if write_indices is not None:
        starts = tf.cast(write_indices.tensor, tf.int32)
    source = along(0, 1, size)[None] - starts[:, None]
    if mode == "circular":
        source = source % size
    source = tf.broadcast_to(source, sizes.pack([cache.dims()[0], size]))
    touched = (source >= 0) & (source < written)
    touched = tf.reshape(
        touched, sizes.pack([n if a in (0, axis) else 1 for a, n in enumerate(cache.dims())])
    )
    chosen = tf.clip_by_value(source, 0, written - 1)

    def chosen_or_old(old: Any, new: Any) -> Any:
        return tf.where(touched, tf.gather(new, chosen, axis=axis, batch_dims=1), old)

    return moved(ctx, chosen_or_old, cache.tensor, update.tensor)
