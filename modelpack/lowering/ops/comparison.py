"""Comparison, logic and choice, element by element with broadcasting."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context, Target
from modelpack.lowering.dtypes import built_in, ordered
from modelpack.lowering.layout import elementwise
from modelpack.lowering.registry import lowers

# TFLite's kernel makes tensors of at most so many axes equally large.
_AXES = 5

_FLOAT8 = ("float8_e4m3fn", "float8_e5m2")


@lowers("Equal", 7, 11, 13, 19)
@elementwise
def equal(ctx: Context, a: Any, b: Any) -> Any:
    return tf.equal(a, b) if a.dtype is tf.bool else built_in(ctx, tf.equal, a, b)


@lowers("Less", 7, 9, 13)
@elementwise
def less(ctx: Context, a: Any, b: Any) -> Any:
    return ordered(ctx, tf.less, a, b)


@lowers("Greater", 7, 9, 13)
@elementwise
def greater(ctx: Context, a: Any, b: Any) -> Any:
    return ordered(ctx, tf.greater, a, b)


@lowers("LessOrEqual", 12, 16)
@elementwise
def less_or_equal(ctx: Context, a: Any, b: Any) -> Any:
    return ordered(ctx, tf.less_equal, a, b)


@lowers("GreaterOrEqual", 12, 16)
@elementwise
def greater_or_equal(ctx: Context, a: Any, b: Any) -> Any:
    return ordered(ctx, tf.greater_equal, a, b)


@lowers("And", 7)
@elementwise
def logical_and(a: Any, b: Any) -> Any:
    return tf.logical_and(a, b)


@lowers("Or", 7)
@elementwise
def logical_or(a: Any, b: Any) -> Any:
    return tf.logical_or(a, b)


@lowers("Xor", 7)
@elementwise
def logical_xor(a: Any, b: Any) -> Any:
    return tf.not_equal(a, b)


@lowers("Not", 1)
@elementwise
def logical_not(x: Any) -> Any:
    return tf.logical_not(x)


@lowers("Where", 9, 16)
@elementwise
def where(ctx: Context, condition: Any, x: Any, y: Any) -> Any:
    if ctx.target is Target.TFLITE and max(each.shape.rank for each in (condition, x, y)) > _AXES:
        return _where_in_rows(condition, x, y)
    if x.dtype in {tf.bool, tf.string}:
        return tf.where(condition, x, y)
    return built_in(ctx, lambda x, y: tf.where(condition, x, y), x, y)


def _where_in_rows(condition: Any, x: Any, y: Any) -> Any:
    """The same of tensors that were made equally large, element by element."""
    shape = tf.shape(condition)
    for other in (x, y):
        shape = tf.broadcast_dynamic_shape(shape, tf.shape(other))
    flat = [tf.reshape(tf.broadcast_to(each, shape), [-1]) for each in (condition, x, y)]
    result = tf.reshape(tf.where(*flat), shape)
    known = tf.broadcast_static_shape(condition.shape, tf.broadcast_static_shape(x.shape, y.shape))
    result.set_shape(known)
    return result


@lowers("IsNaN", 9, 13, 20)
@elementwise
def is_nan(x: Any) -> Any:
    return tf.math.is_nan(_computable(x))


@lowers("IsInf", 10, 20)
@elementwise
def is_infinite(x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    x = _computable(x)
    # Not an equality with infinity: TFLite's converter folds that wrongly.
    largest = tf.constant(x.dtype.max, x.dtype)
    if detect_negative and detect_positive:
        return tf.abs(x) > largest
    if detect_positive:
        return x > largest
    return x < -largest if detect_negative else tf.zeros_like(x, tf.bool)


def _computable(x: Any) -> Any:
    return tf.cast(x, tf.float32) if x.dtype.name in _FLOAT8 else x
