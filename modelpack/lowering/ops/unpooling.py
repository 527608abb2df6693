"""Pooling of given regions, and the inverse of pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import from_channel_last, to_channel_last
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value
from modelpack.lowering.windows import Window


@lowers("MaxUnpool", 9, 11, 22)
def max_unpool(
    ctx: Context,
    x: Value,
    indices: Value,
    output_shape: Value | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    window = Window.of(kernel_shape, strides, pads, "NOTSET")
    batch, channels, *pooled = x.dims()
    inferred = [batch, channels] + [
        (size - 1) * stride - begin - end + kernel
        for size, stride, (begin, end), kernel in zip(
            pooled, window.strides, window.pads, window.kernel, strict=True
        )
    ]
    places = tf.reshape(tf.cast(indices.tensor, tf.int32), [-1, 1])
    flat = _placed(ctx, places, tf.reshape(x.tensor, [-1]), sizes.product(inferred))
    result = sizes.reshape(flat, inferred)
    if output_shape is None:
        return result
    # The indices are those of the inferred shape; what is asked for beyond it is zero.
    wanted = output_shape.sizes()
    return tf.pad(result, [[0, want - have] for want, have in zip(wanted, inferred, strict=True)])


def _placed(ctx: Context, places: Any, values: Any, count: Size) -> Any:
    """Zeros, with values at places; windows that overlap name a place and its value twice."""
    shape = sizes.pack([count])
    if not ctx.builtin_only:
        zeros = tf.zeros(shape, values.dtype)
        return tf.tensor_scatter_nd_update(zeros, places, values)
    total = tf.scatter_nd(places, values, shape)
    times = tf.scatter_nd(places, tf.ones_like(values), shape)
    return total / tf.maximum(times, 1)


@lowers("MaxRoiPool", 1, 22)
def max_roi_pool(
    x: Value, rois: Value, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Value:
    """Rows of ``rois`` are the image's number, then x1, y1, x2, y2, the last one inside."""
    tensor = to_channel_last(x)
    _, _, height, width = x.dims()
    boxes = rois.tensor
    corners = tf.cast(_rounded(boxes[:, 1:] * spatial_scale), tf.int32)
    result = tf.gather(tensor, tf.cast(boxes[:, 0], tf.int32), axis=0)
    lowest = tf.constant(tensor.dtype.min, tensor.dtype)
    for axis, size in ((1, height), (2, width)):
        first, last = corners[:, 2 - axis], corners[:, 4 - axis]
        bins = pooled_shape[axis - 1]
        span = tf.maximum(last - first + 1, 1)
        parts = []
        for i in range(bins):
            # From the floor to the ceiling of multiples of span / bins.
            inside = _between(first + i * span // bins, first - (-(i + 1) * span) // bins, size)
            shape = [-1, 1, 1, 1]
            shape[axis] = size
            chosen = tf.where(sizes.reshape(inside, shape), result, lowest)
            parts.append(tf.reduce_max(chosen, axis))
        result = tf.stack(parts, axis)
    # A bin without any element is zero.
    return from_channel_last(tf.where(result > lowest, result, tf.zeros_like(result)))


def _rounded(x: Any) -> Any:
    """To the nearest integer, halves away from zero."""
    return tf.sign(x) * tf.floor(tf.abs(x) + 0.5)


def _between(first: Any, last: Any, size: Size) -> Any:
    """Whether positions below ``size`` are in [first, last), one row per pair of bounds."""
    places = tf.range(size)[None, :]
    return tf.logical_and(places >= first[:, None], places < last[:, None])
