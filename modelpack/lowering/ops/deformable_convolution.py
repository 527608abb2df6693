"""Deformable convolution: a convolution of values sampled at given places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import to_channel_last
from modelpack.lowering.ops.convolution import convolved, kernel_sizes
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value
from modelpack.lowering.windows import Window


@lowers("DeformConv", 19, 22)
def deform_conv(
    ctx: Context,
    x: Value,
    w: Value,
    offset: Value,
    b: Value | None = None,
    mask: Value | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Sample every element of every window, then convolve what was sampled as 1x1."""
    kernel = kernel_sizes(ctx, w, kernel_shape)
    if len(kernel) != 2:
        raise ctx.refuse(f"deformable convolution over {len(kernel)} spatial axes")
    window = Window.of(kernel, strides, pads, "NOTSET", dilations)
    batch, channels, *_ = x.dims()
    plane = offset.dims()[2:]
    elements = kernel[0] * kernel[1]
    area = sizes.product(plane)
    offsets = sizes.reshape(offset.tensor, [batch, offset_group, elements, 2, area])
    places = [offsets[:, :, :, axis] + _grid(window, plane, axis, x.dtype) for axis in (0, 1)]
    shares = None
    if mask is not None:
        shares = sizes.reshape(mask.tensor, [batch, offset_group, elements, area])
    sampled = _sampled(x, offset_group, places, shares)
    columns = sizes.reshape(
        tf.transpose(sampled, [0, 1, 4, 2, 3]), [batch, channels * elements, *plane]
    )
    inputs = sizes.product(w.dims()[1:])
    weights = w.mapped(lambda kernel: sizes.reshape(kernel, [-1, inputs, 1, 1]))
    single = Window.of([1, 1], None, None, "NOTSET")
    return convolved(ctx, Value(columns), weights, b, single, group)


def _grid(window: Window, plane: Sequence[Size], axis: int, dtype: Any) -> Any:
    """Where the elements of the windows are along an axis, without offsets: (element, window)."""
    starts = tf.range(plane[axis]) * window.strides[axis] - window.pads[axis][0]
    steps = tf.range(window.kernel[axis]) * window.dilations[axis]
    places = tf.reshape(steps, [-1, 1, 1, 1] if axis == 0 else [1, -1, 1, 1])
    places += tf.reshape(starts, [1, 1, -1, 1] if axis == 0 else [1, 1, 1, -1])
    full = places + tf.zeros(sizes.pack([*window.kernel, *plane]), tf.int32)
    elements = window.kernel[0] * window.kernel[1]
    return tf.cast(sizes.reshape(full, [elements, sizes.product(plane)]), dtype)


def _sampled(x: Value, groups: int, places: Sequence[Any], shares: Any) -> Any:
    """Bilinear samples, zero outside: (batch, group, element, window, channel of the group)."""
    batch, channels, height, width = x.dims()
    members = channels // groups
    pixels = sizes.reshape(to_channel_last(x), [batch, height * width, groups, members])
    pixels = tf.transpose(pixels, [0, 2, 1, 3])
    lows = [tf.floor(place) for place in places]
    total = None
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight, indices = shares, []
        for low, place, side, size in zip(lows, places, corner, (height, width), strict=True):
            at = low + side
            last = tf.cast(size - 1, place.dtype)
            near = 1 - tf.abs(place - at)
            inside = tf.cast(tf.logical_and(at >= 0, at <= last), place.dtype)
            weight = near * inside if weight is None else weight * near * inside
            indices.append(tf.cast(tf.minimum(tf.maximum(at, 0), last), tf.int32))
        found = tf.gather(pixels, indices[0] * width + indices[1], axis=2, batch_dims=2)
        part = found * tf.expand_dims(weight, -1)
        total = part if total is None else total + part
    return total
