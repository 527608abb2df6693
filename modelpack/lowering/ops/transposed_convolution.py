"""Transposed convolution, and what is one: Col2Im."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import from_channel_last, to_channel_last
from modelpack.lowering.ops.convolution import (
    convolved,
    dilated,
    kernel_sizes,
    spread,
    with_bias,
    with_channels,
)
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value
from modelpack.lowering.windows import Window, larger

_Crop = tuple[Size, Size]
"""What is dropped before and after the full result along an axis; negative: zeros that follow.

The *full* result is as large as the input, spread by the stride, and a kernel beside it.
"""


@lowers("ConvTranspose", 1, 11, 22)
def conv_transpose(
    ctx: Context,
    x: Value,
    w: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    window = Window.of(kernel_sizes(ctx, w, kernel_shape), strides, pads, auto_pad, dilations)
    extra = output_padding or [0] * window.rank
    wanted = None if output_shape is None else output_shape[-window.rank :]
    crops = _crops(window, x.dims()[2:], extra, wanted)
    return _transposed(ctx, x, w, b, window, crops, group)


@lowers("Col2Im", 18)
def col2im(
    ctx: Context,
    x: Value,
    image_shape: Value,
    block_shape: Value,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    """A transposed convolution whose kernel puts element ``i`` of a column at place ``i``."""
    image, block = image_shape.sizes(), block_shape.sizes()
    window = Window.of(block, strides, pads, "NOTSET", dilations)
    geometry = list(zip(image, window.strides, window.extents, window.pads, strict=True))
    counts = [
        (size + begin + end - extent) // stride + 1
        for size, stride, extent, (begin, end) in geometry
    ]
    crops = [
        (begin, (count - 1) * stride + extent - begin - size)
        for count, (size, stride, extent, (begin, _)) in zip(counts, geometry, strict=True)
    ]
    batch, rows, _ = x.dims()
    elements = sizes.product(block)
    channels = rows // elements
    columns = sizes.reshape(x.tensor, [sizes.product([batch, channels]), elements, *counts])
    places = tf.one_hot(tf.range(elements), elements, dtype=x.dtype)
    kernel = Value(sizes.reshape(places, [elements, 1, *block]))
    result = _transposed(ctx, Value(columns), kernel, None, window, crops, 1)
    return sizes.reshape(result.tensor, [batch, channels, *image])


def _crops(
    window: Window, inputs: Sequence[Size], extra: Sequence[int], wanted: Sequence[int] | None
) -> list[_Crop]:
    """What ONNX drops of the full result, from the attributes of ConvTranspose."""
    crops: list[_Crop] = []
    for axis, (size, stride, extent) in enumerate(
        zip(inputs, window.strides, window.extents, strict=True)
    ):
        if wanted is None and not window.auto_pad.startswith("SAME"):
            begin, end = window.pads[axis]
            crops.append((begin, end - extra[axis]))
            continue
        beyond = extent - stride  # of the full result, beyond stride times the input
        if wanted is not None:
            beyond = size * stride - wanted[axis] + beyond
        total = larger(beyond + extra[axis], 0)
        begin = total // 2 if window.auto_pad == "SAME_UPPER" else total - total // 2
        crops.append((begin, beyond - begin))
    return crops


def _transposed(
    ctx: Context,
    x: Value,
    w: Value,
    b: Value | None,
    window: Window,
    crops: Sequence[_Crop],
    group: int,
) -> Value:
    """Transposed convolution with a kernel of the order (in, out / group, spatial...)."""
    if window.rank not in {1, 2, 3}:
        raise ctx.refuse(f"transposed convolution over {window.rank} spatial axes")
    if window.rank == 1:
        flat = from_channel_last(tf.expand_dims(to_channel_last(x), 1))
        kernel = w.mapped(lambda tensor: tf.expand_dims(tensor, 2))
        plane = _transposed(ctx, flat, kernel, b, window.along([None, 0]), [(0, 0), *crops], group)
        return from_channel_last(tf.squeeze(plane.held, 1))
    if group > 1:
        tensor = _by_spreading(ctx, x, w, window, group)
    else:
        x_last = to_channel_last(x)
        if w.shape[0] is not None:
            x_last = with_channels(x_last, w.shape[0])
        tensor, crops = _by_kernel(x_last, dilated(w, window.dilations), window, crops)
    after = [[0, larger(-end, 0)] for _, end in crops]
    if any(not isinstance(end, int) or end > 0 for _, end in after):
        tensor = tf.pad(tensor, [[0, 0], *after, [0, 0]])
    return from_channel_last(_cropped(with_bias(tensor, b), crops))


def _by_kernel(
    tensor: Any, w: Value, window: Window, crops: Sequence[_Crop]
) -> tuple[Any, list[_Crop]]:
    """The result of TensorFlow's kernel, and what is to be dropped of it still."""
    rank = window.rank
    batch, *inputs, _ = Value(tensor).dims()
    geometry = list(zip(inputs, window.strides, window.extents, crops, strict=True))
    if all(_is_same(stride, extent, *crop) for _, stride, extent, crop in geometry):
        padding, rest = "SAME", [(0, 0)] * rank
        outputs = [
            (size - 1) * stride + extent - begin - end
            for size, stride, extent, (begin, end) in geometry
        ]
    else:
        # What is asked for beyond the full result the kernel gives as far as it can: less
        # than a stride, for which a convolution would give the same size of the input.
        more = [
            min(max(-end, 0), stride - 1) if isinstance(end, int) else 0
            for _, stride, _, (_, end) in geometry
        ]
        padding, rest = "VALID", [(b, e + m) for (b, e), m in zip(crops, more, strict=True)]
        outputs = [
            (size - 1) * stride + extent + m
            for (size, stride, extent, _), m in zip(geometry, more, strict=True)
        ]
    kernel = w.transposed((*range(2, rank + 2), 1, 0))
    shape = [batch, *outputs, w.dims()[1]]
    transpose = tf.nn.conv2d_transpose if rank == 2 else tf.nn.conv3d_transpose
    result = transpose(tensor, kernel, sizes.pack(shape), [1, *window.strides, 1], padding)
    result.set_shape(sizes.static(shape))
    return result, rest


def _is_same(stride: int, extent: Size, begin: Size, end: Size) -> bool:
    """Whether TensorFlow's "SAME" drops just this, whatever the size of the input."""
    if not all(isinstance(size, int) for size in (extent, begin, end)):
        return False
    beyond = extent - stride - begin - end  # of the result, beyond stride times the input
    return -stride < beyond <= 0 and begin == max(begin + end, 0) // 2


def _by_spreading(ctx: Context, x: Value, w: Value, window: Window, group: int) -> Any:
    """The full result as a convolution, which has groups, of the input spread by the stride."""
    members = None if w.shape[0] is None else w.shape[0] // group

    def swapped(tensor: Any) -> Any:
        _, outputs, *kernel = Value(tensor).dims()
        flipped = tf.reverse(tensor, range(2, 2 + window.rank))
        grouped = sizes.reshape(flipped, [group, members or -1, outputs, *kernel])
        order = [0, 2, 1, *range(3, 3 + window.rank)]
        return sizes.reshape(tf.transpose(grouped, order), [-1, members or -1, *kernel])

    wide = spread(to_channel_last(x), window.strides, 1)
    every = tuple((extent - 1, extent - 1) for extent in window.extents)
    ones = (1,) * window.rank
    plain = replace(window, strides=ones, pads=every, auto_pad="NOTSET")
    return convolved(ctx, from_channel_last(wide), w.mapped(swapped), None, plain, group).held


def _cropped(tensor: Any, crops: Sequence[_Crop]) -> Any:
    if all(isinstance(end, int) and end <= 0 and begin == 0 for begin, end in crops):
        return tensor
    bounds = []
    for size, (begin, end) in zip(Value(tensor).dims()[1:-1], crops, strict=True):
        if isinstance(end, int):
            bounds.append(slice(begin, -end if end > 0 else None))
        else:
            bounds.append(slice(begin, size - larger(end, 0)))
    return tensor[(slice(None), *bounds)]
