"""The largest, the smallest, and where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import reduced
from modelpack.lowering.ranking import as_ranked, mirrored, rankable
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value

_ArgFunction = Callable[..., Any]


@lowers("TopK", 1)
def top_k_1(ctx: Context, x: Value, *, k: int, axis: int = -1) -> tuple[Value, Value]:
    return _top_k(ctx, x, k, axis, largest=True)


@lowers("TopK", 10)
def top_k_10(ctx: Context, x: Value, k: Value, *, axis: int = -1) -> tuple[Value, Value]:
    return _top_k(ctx, x, sizes.single(k), axis, largest=True)


@lowers("TopK", 11, 24)
def top_k_11(
    ctx: Context, x: Value, k: Value, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Value, Value]:
    return _top_k(ctx, x, sizes.single(k), axis, largest=bool(largest))


def _top_k(ctx: Context, x: Value, k: Any, axis: int, *, largest: bool) -> tuple[Value, Value]:
    axis = axis % x.rank
    order = [i for i in range(x.rank) if i != axis] + [axis]
    tensor = x.transposed(order)
    key = rankable(tensor)
    values, indices = tf.math.top_k(key if largest else mirrored(key), k)
    values = as_ranked(values if largest else mirrored(values), tensor.dtype)
    perm = tuple(order.index(i) for i in range(x.rank))
    return Value(values, perm=perm), Value(tf.cast(indices, tf.int64), perm=perm)


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


def _position(ctx: Context, function: _ArgFunction, tensor: Any, axis: int) -> Any:
    """Where the first of the extreme elements is."""
    key = rankable(tensor)
    if ctx.builtin_only and key.dtype is tf.int64:
        # TFLite's kernel does not take int64, but that for the largest elements does.
        order = [*(i for i in range(key.shape.rank) if i != axis), axis]
        last = tf.transpose(key, order)
        found = tf.math.top_k(last if function is tf.argmax else mirrored(last), 1).indices
        return tf.cast(tf.squeeze(found, -1), tf.int64)
    return function(key, axis, output_type=tf.int64)


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
