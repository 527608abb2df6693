"""Convolution in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context, Target
from modelpack.lowering.layout import from_channel_last, to_channel_last
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value
from modelpack.lowering.windows import Window, arranged


@lowers("Conv", 1, 11, 22)
def conv(
    ctx: Context,
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    kernel = kernel_sizes(ctx, w, kernel_shape)
    window = Window.of(kernel, strides, pads, auto_pad, dilations)
    return convolved(ctx, x, w, b, window, group)


def kernel_sizes(ctx: Context, w: Value, kernel_shape: Sequence[int] | None) -> list[int]:
    """Spatial sizes of a kernel of ONNX's order: its own, or what the node says of them."""
    own: list[int | None] = list(w.shape[2:])
    if None in own:
        own = list(kernel_shape or own)
    if None in own:
        raise ctx.refuse("the size of the kernel is not known before it runs")
    return [size for size in own if size is not None]


def convolved(
    ctx: Context, x: Value, w: Value, b: Value | None, window: Window, group: int
) -> Value:
    """Convolve with a kernel of the order (out, in / group, spatial...)."""
    if window.rank not in {1, 2, 3}:
        raise ctx.refuse(f"convolution over {window.rank} spatial axes")
    tensor = to_channel_last(x)
    inputs = w.shape[1]
    if inputs is not None:
        tensor = with_channels(tensor, inputs * group)
    if window.rank == 3:
        return from_channel_last(with_bias(_convolved_3d(tensor, w, window, group), b))
    if window.rank == 2:
        return from_channel_last(_convolved_2d(ctx, tensor, w, b, window, group))
    flat = tf.expand_dims(tensor, 1)
    w = w.mapped(lambda kernel: tf.expand_dims(kernel, 2))
    result = _convolved_2d(ctx, flat, w, b, window.along([None, 0]), group)
    return from_channel_last(tf.squeeze(result, 1))


def with_channels(tensor: Any, channels: int) -> Any:
    """A channel-last tensor whose channels are known, as kernels need them."""
    if tensor.shape[-1] is not None:
        return tensor
    return sizes.reshape(tensor, [*Value(tensor).dims()[:-1], channels])


def with_bias(tensor: Any, b: Value | None) -> Any:
    return tensor if b is None else tf.nn.bias_add(tensor, b.tensor)


def _convolved_2d(
    ctx: Context, tensor: Any, w: Value, b: Value | None, window: Window, group: int
) -> Any:
    if ctx.target is Target.SAVEDMODEL and group == 1 and _is_of_points(tensor, w, window):
        return _connected(tensor, w, b)
    result = _slid_over(ctx, tensor, w, window, group)
    # TensorFlow fuses BiasAdd with the convolution, into a kernel that without oneDNN fails on
    # groups.
    return result + b.tensor if b is not None and group > 1 else with_bias(result, b)


def _is_of_points(tensor: Any, w: Value, window: Window) -> bool:
    """Whether a kernel of one element meets an image of one, as in squeeze-and-excitation."""
    unpadded = all(span.is_valid for span in window.spans(_spatial(tensor)))
    return unpadded and list(tensor.shape[1:-1]) == list(w.shape[2:]) == [1, 1]


def _connected(tensor: Any, w: Value, b: Value | None) -> Any:
    """As a product of matrices, which takes TensorFlow half the time of a convolution."""
    outputs, inputs = w.dims()[:2]
    kernel = w.mapped(lambda kernel: sizes.reshape(kernel, [outputs, inputs]))
    rows = sizes.reshape(tensor, [-1, inputs])
    result = with_bias(tf.matmul(rows, kernel.transposed((1, 0))), b)
    return sizes.reshape(result, [-1, 1, 1, outputs])


def _slid_over(ctx: Context, tensor: Any, w: Value, window: Window, group: int) -> Any:
    tensor, padding = arranged(tensor, window.spans(_spatial(tensor)))
    if group > 1 and w.shape[1] == 1 and _has_depthwise_kernel(ctx, window):
        return tf.raw_ops.DepthwiseConv2dNative(
            input=tensor,
            filter=_depthwise(w, group),
            strides=[1, *window.strides, 1],
            padding=padding,
            dilations=[1, *window.dilations, 1],
        )
    # Groups follow from the shapes: the kernel has a fraction of the input's channels.
    kernel = w.filter((2, 3, 1, 0))
    return tf.nn.conv2d(tensor, kernel, window.strides, padding, dilations=window.dilations)


def _has_depthwise_kernel(ctx: Context, window: Window) -> bool:
    """TensorFlow's own kernel has one stride for all axes and no dilations; LiteRT's has all."""
    return ctx.builtin_only or (len(set(window.strides)) == 1 and not window.is_dilated)


def _depthwise(w: Value, channels: int) -> Any:
    """A kernel (channels * m, 1, H, W) in the order (H, W, channels, m)."""
    multiplier = -1 if w.shape[0] is None else w.shape[0] // channels
    if multiplier == 1:
        return w.filter((2, 3, 0, 1))
    shape = [channels, multiplier, *w.dims()[2:]]
    return w.mapped(lambda kernel: sizes.reshape(kernel, shape)).filter((2, 3, 0, 1))


def _convolved_3d(tensor: Any, w: Value, window: Window, group: int) -> Any:
    tensor, padding = arranged(tensor, window.spans(_spatial(tensor)))
    kernel = dilated(w, window.dilations).filter((2, 3, 4, 1, 0))
    strides = [1, *window.strides, 1]
    # No kernel knows groups here.
    parts = [
        tf.nn.conv3d(part, weights, strides, padding)
        for part, weights in zip(split(tensor, group, -1), split(kernel, group, -1), strict=True)
    ]
    return parts[0] if group == 1 else tf.concat(parts, -1)


def split(tensor: Any, count: int, axis: int) -> list[Any]:
    """Equal parts along an axis."""
    return [tensor] if count == 1 else list(tf.split(tensor, count, axis))


def dilated(w: Value, dilations: Sequence[int]) -> Value:
    """A kernel with zeros between its elements, for the kernels of TensorFlow without dilation."""
    if all(dilation == 1 for dilation in dilations):
        return w
    return w.mapped(lambda kernel: spread(kernel, dilations, 2))


def spread(tensor: Any, steps: Sequence[int], first_axis: int) -> Any:
    """A tensor with zeros between its elements, along axes from ``first_axis`` on."""
    for axis, step in enumerate(steps, first_axis):
        if step == 1 or tensor.shape[axis] == 1:
            continue
        dims = Value(tensor).dims()
        before, size, after = (
            sizes.product(dims[:axis]),
            dims[axis],
            sizes.product(dims[axis + 1 :]),
        )
        rows = sizes.reshape(tensor, [before, size, after])
        rows = tf.pad(rows, [[0, 0], [0, 0], [0, (step - 1) * after]])
        rows = sizes.reshape(rows, [before, size * step, after])[:, : 1 - step]
        tensor = sizes.reshape(rows, [*dims[:axis], (size - 1) * step + 1, *dims[axis + 1 :]])
    return tensor


def _spatial(tensor: Any) -> list[Any]:
    return Value(tensor).dims()[1:-1]
