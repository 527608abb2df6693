"""Pooling: the maximum, the mean or a norm of what a window covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import from_channel_last, reduced, to_channel_last
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value
from modelpack.lowering.windows import Span, Window, arranged, padded, slid

_Pool = Callable[[Any, Any, Any, str], Any]
"""Takes a tensor N, H, W, C, the window, its strides, and the padding as TensorFlow names it."""


@lowers("MaxPool", 1)
def max_pool_1(
    ctx: Context,
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    return _max_pool(ctx, x, Window.of(kernel_shape, strides, pads, auto_pad), 0)


@lowers("MaxPool", 8)
def max_pool_8(
    ctx: Context,
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Any:
    return _max_pool(ctx, x, Window.of(kernel_shape, strides, pads, auto_pad), storage_order)


@lowers("MaxPool", 10, 11, 12, 22)
def max_pool(
    ctx: Context,
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Any:
    window = Window.of(kernel_shape, strides, pads, auto_pad, dilations, ceil_mode)
    return _max_pool(ctx, x, window, storage_order)


@lowers("AveragePool", 1)
def average_pool_1(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    return _average_pool(x, Window.of(kernel_shape, strides, pads, auto_pad), False)


@lowers("AveragePool", 7)
def average_pool_7(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    count_include_pad: int = 0,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    window = Window.of(kernel_shape, strides, pads, auto_pad)
    return _average_pool(x, window, bool(count_include_pad))


@lowers("AveragePool", 10, 11)
def average_pool_10(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    window = Window.of(kernel_shape, strides, pads, auto_pad, ceil_mode=ceil_mode)
    return _average_pool(x, window, bool(count_include_pad))


@lowers("AveragePool", 19, 22)
def average_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    window = Window.of(kernel_shape, strides, pads, auto_pad, dilations, ceil_mode)
    return _average_pool(x, window, bool(count_include_pad))


@lowers("LpPool", 2, 11)
def lp_pool_2(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    return _lp_pool(x, Window.of(kernel_shape, strides, pads, auto_pad), p)


@lowers("LpPool", 18, 22)
def lp_pool(
    x: Value,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    return _lp_pool(x, Window.of(kernel_shape, strides, pads, auto_pad, dilations, ceil_mode), p)


@lowers("GlobalAveragePool", 1, 22)
def global_average_pool(x: Value) -> Value:
    return reduced(x, range(2, x.rank), True, tf.reduce_mean)


@lowers("GlobalMaxPool", 1, 22)
def global_max_pool(x: Value) -> Value:
    return reduced(x, range(2, x.rank), True, tf.reduce_max)


@lowers("GlobalLpPool", 2, 22)
def global_lp_pool(x: Value, *, p: int = 2) -> Value:
    def norm(tensor: Any, axes: list[int], keepdims: bool) -> Any:
        return _root(tf.reduce_sum(_power(tensor, p), axes, keepdims), p)

    return reduced(x, range(2, x.rank), True, norm)


def _max_pool(ctx: Context, x: Value, window: Window, storage_order: int) -> Any:
    tensor = to_channel_last(x)
    if ctx.builtin_only and tensor.dtype.is_integer:
        # MAX_POOL_2D takes integers only as quantized reals; 8 bits fit into float32.
        real = Value(tf.cast(x.held, tf.float32), perm=x.perm)
        results = _max_pool(ctx, real, window, storage_order)
        maxima, *rest = results if isinstance(results, tuple) else (results,)
        return (maxima.like(tf.cast(maxima.held, x.dtype)), *rest)
    spans = window.spans(Value(tensor).dims()[1:-1])
    lowest = -np.inf if tensor.dtype.is_floating else tensor.dtype.min
    if len([name for name in ctx.outputs if name]) > 1:
        return _max_and_indices(tensor, window, spans, lowest, storage_order)
    if not _has_kernel(window):
        return from_channel_last(
            _combined(padded(tensor, spans, lowest), window, spans, tf.maximum)
        )
    tensor, padding = arranged(tensor, spans, lowest)
    return from_channel_last(_pooled(tensor, window, padding, tf.nn.max_pool2d))


def _max_and_indices(
    tensor: Any, window: Window, spans: Sequence[Span], lowest: float, storage_order: int
) -> tuple[Value, Value]:
    """The maxima, and where in the flattened input each is found first.

    The place of every element goes through the same comparisons as the element; padding has
    the place -1, and yields to any element.
    """
    batch, *spatial, channels = Value(tensor).dims()
    count = sizes.product(spatial)
    order = spatial[::-1] if storage_order else spatial
    places = sizes.reshape(tf.range(count), order)
    places = sizes.reshape(tf.transpose(places) if storage_order else places, [1, *spatial, 1])
    best = padded(tensor, spans, lowest), padded(places, spans, -1)
    # The last axis first: of equal elements, the one in the first row is found.
    for axis, span in reversed(list(enumerate(spans))):
        maxima, where = (slid(part, axis, window, span.count) for part in best)
        best = maxima[0], where[0]
        for candidate in zip(maxima[1:], where[1:], strict=True):
            better = (candidate[0] > best[0]) | (best[1] < 0)
            best = tuple(tf.where(better, *pair) for pair in zip(candidate, best, strict=True))
    ones = [1] * len(spatial)
    plane = sizes.reshape(tf.range(batch), [batch, *ones, 1]) * channels
    plane += sizes.reshape(tf.range(channels), [1, *ones, channels])
    indices = tf.cast(best[1] + plane * count, tf.int64)
    return from_channel_last(best[0]), from_channel_last(indices)


def _average_pool(x: Value, window: Window, include_pad: bool) -> Value:
    tensor = to_channel_last(x)
    spans = window.spans(Value(tensor).dims()[1:-1])
    if include_pad or not _has_kernel(window):
        tensor, padding = padded(tensor, spans), "VALID"
    else:
        tensor, padding = arranged(tensor, spans)
    mean = _mean(tensor, window, spans, padding)
    if padding == "SAME":  # the kernel does not count padding
        return from_channel_last(mean)
    for axis, span in enumerate(spans):
        first, last = (-span.begin, span.padded - span.begin) if include_pad else (0, span.size)
        if not _counts_all(span, window, include_pad):
            share = _elements_per_counted(axis, span, window, first, last)
            shape = [1] * tensor.shape.rank
            shape[axis + 1] = -1
            mean *= tf.cast(tf.reshape(share, shape), mean.dtype)
    return from_channel_last(mean)


def _counts_all(span: Span, window: Window, include_pad: bool) -> bool:
    """Whether every element of every window counts for a mean."""
    if not include_pad:
        return span.is_valid
    if not window.ceil:
        return True
    reach = span.begin + span.size + span.end
    return isinstance(reach, int) and isinstance(span.padded, int) and reach <= span.padded


def _elements_per_counted(axis: int, span: Span, window: Window, first: Size, last: Size) -> Any:
    """For every window, its elements divided by those at positions in [first, last)."""
    starts = tf.range(span.count) * window.strides[axis] - span.begin
    places = starts[:, None] + tf.range(window.kernel[axis]) * window.dilations[axis]
    counted = tf.cast(tf.logical_and(places >= first, places < last), tf.float32)
    return window.kernel[axis] / tf.maximum(tf.reduce_sum(counted, 1), 1)


def _lp_pool(x: Value, window: Window, p: int) -> Value:
    tensor = to_channel_last(x)
    spans = window.spans(Value(tensor).dims()[1:-1])
    mean = _mean(padded(_power(tensor, p), spans), window, spans, "VALID")
    return from_channel_last(_root(mean * float(np.prod(window.kernel)), p))


def _mean(tensor: Any, window: Window, spans: Sequence[Span], padding: str) -> Any:
    if _has_kernel(window):
        return _pooled(tensor, window, padding, tf.nn.avg_pool2d)
    return _combined(tensor, window, spans, tf.add) / float(np.prod(window.kernel))


def _has_kernel(window: Window) -> bool:
    return window.rank <= 3 and not window.is_dilated


def _pooled(tensor: Any, window: Window, padding: str, pool: _Pool) -> Any:
    """Pool with the kernel for planes: a volume as planes first, then along what is left."""
    kernel, strides = window.kernel, window.strides
    if window.rank == 2:
        return pool(tensor, kernel, strides, padding)
    if window.rank == 1:
        line = pool(tf.expand_dims(tensor, 1), (1, *kernel), (1, *strides), padding)
        return tf.squeeze(line, 1)
    batch, depth, *plane = Value(tensor).dims()
    planes = sizes.reshape(tensor, [sizes.product([batch, depth]), *plane])
    planes = pool(planes, kernel[1:], strides[1:], padding)
    _, height, width, channels = Value(planes).dims()
    rows = sizes.reshape(planes, [batch, depth, sizes.product([height, width]), channels])
    rows = pool(rows, (kernel[0], 1), (strides[0], 1), padding)
    return sizes.reshape(rows, [batch, Value(rows).dims()[1], height, width, channels])


def _combined(
    tensor: Any, window: Window, spans: Sequence[Span], function: Callable[[Any, Any], Any]
) -> Any:
    """Combine the elements of each window of a padded tensor, one axis after the other."""
    for axis, span in enumerate(spans):
        tensor = reduce(function, slid(tensor, axis, window, span.count))
    return tensor


def _power(tensor: Any, p: int) -> Any:
    if p == 2:
        return tf.square(tensor)
    return tf.abs(tensor) if p == 1 else tf.pow(tf.abs(tensor), float(p))


def _root(tensor: Any, p: int) -> Any:
    if p == 2:
        return tf.sqrt(tensor)
    return tensor if p == 1 else tf.pow(tensor, 1 / p)
