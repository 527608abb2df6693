"""Arithmetic, element by element with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.dtypes import built_in
from modelpack.lowering.layout import elementwise
from modelpack.lowering.registry import lowers


@lowers("Add", 7, 13, 14)
@elementwise
def add(ctx: Context, a: Any, b: Any) -> Any:
    return built_in(ctx, tf.add, a, b)


@lowers("Sub", 7, 13, 14)
@elementwise
def subtract(ctx: Context, a: Any, b: Any) -> Any:
    return built_in(ctx, tf.subtract, a, b)


@lowers("Mul", 7, 13, 14)
@elementwise
def multiply(ctx: Context, a: Any, b: Any) -> Any:
    return built_in(ctx, tf.multiply, a, b)


@lowers("Div", 7, 13, 14)
@elementwise
def divide(ctx: Context, a: Any, b: Any) -> Any:
    if a.dtype.is_floating:
        return tf.divide(a, b)
    return built_in(ctx, tf.raw_ops.TruncateDiv, a, b)


@lowers("Mod", 10, 13, 28)
@elementwise
def modulo(ctx: Context, a: Any, b: Any, *, fmod: int = 0) -> Any:
    return built_in(ctx, tf.truncatemod if fmod else tf.math.floormod, a, b)


@lowers("Pow", 7, 12, 13, 15)
@elementwise
def power(ctx: Context, x: Any, y: Any) -> Any:
    return built_in(ctx, tf.pow, x, tf.cast(y, x.dtype))


@lowers("Neg", 6, 13)
@elementwise
def negative(ctx: Context, x: Any) -> Any:
    return built_in(ctx, tf.negative, x)


@lowers("Abs", 6, 13)
@elementwise
def absolute(ctx: Context, x: Any) -> Any:
    return x if x.dtype.is_unsigned else built_in(ctx, tf.abs, x)


@lowers("Sqrt", 6, 13)
@elementwise
def square_root(x: Any) -> Any:
    return tf.sqrt(x)


@lowers("Exp", 6, 13)
@elementwise
def exponential(x: Any) -> Any:
    return tf.exp(x)


@lowers("Log", 6, 13)
@elementwise
def logarithm(x: Any) -> Any:
    return tf.math.log(x)


@lowers("Reciprocal", 6, 13)
@elementwise
def reciprocal(x: Any) -> Any:
    return 1 / x


@lowers("Ceil", 6, 13)
@elementwise
def ceil(x: Any) -> Any:
    return tf.math.ceil(x)


@lowers("Floor", 6, 13)
@elementwise
def floor(x: Any) -> Any:
    return tf.math.floor(x)


@lowers("Round", 11, 22)
@elementwise
def round_half_to_even(x: Any) -> Any:
    return tf.round(x)


@lowers("Sign", 9, 13)
@elementwise
def sign(ctx: Context, x: Any) -> Any:
    return built_in(ctx, tf.sign, x)


@lowers("Erf", 9, 13)
@elementwise
def error_function(x: Any) -> Any:
    return tf.math.erf(x)


def _reduced(ctx: Context, function: Callable[..., Any], tensors: tuple[Any, ...]) -> Any:
    return reduce(lambda a, b: built_in(ctx, function, a, b), tensors)


@lowers("Max", 6, 8, 12, 13)
@elementwise
def maximum(ctx: Context, *tensors: Any) -> Any:
    return _reduced(ctx, tf.maximum, tensors)


@lowers("Min", 6, 8, 12, 13)
@elementwise
def minimum(ctx: Context, *tensors: Any) -> Any:
    return _reduced(ctx, tf.minimum, tensors)


@lowers("Sum", 6, 8, 13)
@elementwise
def total(ctx: Context, *tensors: Any) -> Any:
    return _reduced(ctx, tf.add, tensors)


@lowers("Mean", 6, 8, 13)
@elementwise
def mean(ctx: Context, *tensors: Any) -> Any:
    return _reduced(ctx, tf.add, tensors) / len(tensors)


@lowers("Clip", 11, 12, 13)
@elementwise
def clip(ctx: Context, x: Any, minimum: Any = None, maximum: Any = None) -> Any:
    if minimum is not None:
        x = built_in(ctx, tf.maximum, x, minimum)
    if maximum is not None:
        x = built_in(ctx, tf.minimum, x, maximum)
    return x
