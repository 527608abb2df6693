"""The largest, the smallest, and where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import dtypes, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import reduced
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value

_ArgFunction = Callable[..., Any]

_RANKED = (tf.float32, tf.int32, tf.int64, tf.int8, tf.uint8)
"""What TFLite's kernel for the largest elements takes."""


@lowers("TopK", 1)
def top_k_1(ctx: Context, x: Value, *, k: int, axis: int = -1) -> tuple[Value, Value]:
    return _top_k(ctx, x, k, axis, largest=True)


@lowers("TopK", 10)
def top_k_10(ctx: Context, x: Value, k: Value, *, axis: int = -1) -> tuple[Value, Value]:
    return _top_k(ctx, x, k.sizes()[0], axis, largest=True)


@lowers("TopK", 11, 24)
def top_k_11(
    ctx: Context, x: Value, k: Value, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Value, Value]:
    return _top_k(ctx, x, k.sizes()[0], axis, largest=bool(largest))


def _top_k(ctx: Context, x: Value, k: Any, axis: int, *, largest: bool) -> tuple[Value, Value]:
    axis = axis % x.rank
    order = [i for i in range(x.rank) if i != axis] + [axis]
    tensor = x.transposed(order)
    key = ranking(ctx, tensor if largest else reversed_order(tensor))
    values, indices = tf.math.top_k(key, k)
    if not largest:
        values = reversed_order(values)
    values = values if values.dtype is tensor.dtype else tf.cast(values, tensor.dtype)
    perm = tuple(order.index(i) for i in range(x.rank))
    return Value(values, perm=perm), Value(tf.cast(indices, tf.int64), perm=perm)


def reversed_order(x: Any) -> Any:
    """The same elements in the opposite order: ``-1 - x``, unlike ``-x``, for every integer."""
    return -x if x.dtype.is_floating else tf.bitwise.invert(x)


def ranking(ctx: Context, x: Any) -> Any:
    """The elements, or others in the same order, in a dtype that the kernels can rank."""
    if not ctx.builtin_only:
        return x
    return x


@lowers("ArgMax", 1, 11)
def arg_max_1(ctx: Context, x: Value, *, axis: int = 0, keepdims: int = 1) -> Value:
    return _arg(ctx, tf.argmax, x, axis, keepdims, last=False)


@lowers("ArgMax", 12, 13)
def arg_max_12(
    ctx: Context, x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> Value:
    return _arg(ctx, tf.argmax, x, axis, keepdims, last=bool(select_last_index))


@lowers("ArgMin", 1, 11)
def arg_min_1(ctx: Context, x: Value, *, axis: int = 0, keepdims: int = 1) -> Value:
    return _arg(ctx, tf.argmin, x, axis, keepdims, last=False)


@lowers("ArgMin", 12, 13)
def arg_min_12(
    ctx: Context, x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> Value:
    return _arg(ctx, tf.argmin, x, axis, keepdims, last=bool(select_last_index))


def _arg(
    ctx: Context, function: _ArgFunction, x: Value, axis: int, keepdims: int, *, last: bool
) -> Value:
    def position(tensor: Any, axes: list[int], keep: bool) -> Any:
        held = axes[0]
        if last:
            tensor = tf.reverse(tensor, [held])
        found = _position(ctx, function, tensor, held)
        if last:
            found = tf.cast(Value(tensor).dims()[held] - 1, tf.int64) - found
        return tf.expand_dims(found, held) if keep else found

    return reduced(x, [axis], bool(keepdims), position)


_COMPARED = (tf.float32, tf.int32, tf.int8, tf.uint8)


def _position(ctx: Context, function: _ArgFunction, tensor: Any, axis: int) -> Any:
    def positions(t: Any) -> Any:
        return function(t, axis, output_type=tf.int64)

    return dtypes.computed_in(_COMPARED, positions, tensor) if ctx.builtin_only else positions(tensor)


@lowers("Hardmax", 1, 11)
def hardmax_1(ctx: Context, x: Value, *, axis: int = 1) -> Any:
    axis = axis % x.rank if axis < 0 else axis
    dims = x.dims()
    rows = [sizes.product(dims[:axis]), sizes.product(dims[axis:])]
    return sizes.reshape(_hardmax(ctx, sizes.reshape(x.tensor, rows), 1), dims)


@lowers("Hardmax", 13)
def hardmax_13(ctx: Context, x: Value, *, axis: int = -1) -> Any:
    return x.like(_hardmax(ctx, x.physical(x.perm), x.axis(axis)))


def _hardmax(ctx: Context, tensor: Any, axis: int) -> Any:
    """1 for the first of the largest elements along an axis, 0 for the others."""
    largest = _position(ctx, tf.argmax, tensor, axis)
    hot = tf.one_hot(largest, Value(tensor).dims()[axis], axis=axis, dtype=tf.float32)
    return sizes.shaped(tf.cast(hot, tensor.dtype), tensor.shape)
