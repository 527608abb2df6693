"""Arithmetic, element by element with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.dtypes import built_in, cast, computed_in, ordered
from modelpack.lowering.layout import elementwise
from modelpack.lowering.ops.division import floor_modulo, truncated_modulo, truncated_quotient
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
    return a / b if a.dtype.is_floating else truncated_quotient(ctx, a, b)


@lowers("Mod", 10, 13, 28)
@elementwise
def modulo(ctx: Context, a: Any, b: Any, *, fmod: int = 0) -> Any:
    return truncated_modulo(ctx, a, b) if fmod else floor_modulo(ctx, a, b)


@lowers("Pow", 7, 12, 13, 15)
@elementwise
def power(ctx: Context, x: Any, y: Any) -> Any:
    if x.dtype.is_integer:
        return _integer_power(ctx, x, y)
    exponent = tf.get_static_value(y)
    if exponent is not None and exponent.size == 1 and exponent.ndim <= x.shape.rank:
        if exponent.item() == 2:
            # TensorFlow's optimizers make a squared difference of a square, which with a mean and a
            # root may be the form that `layer_norm` is about. Of a product they do not.
            return tf.square(x) if ctx.builtin_only else x * x
        if exponent.item() == 0.5:
            return tf.sqrt(x)
    return tf.pow(x, cast(ctx, y, x.dtype))


def _integer_power(ctx: Context, x: Any, y: Any) -> Any:
    if y.dtype.is_floating:
        if ctx.builtin_only:
            raise ctx.refuse("an integer to a real power needs float64")
        return tf.cast(tf.pow(tf.cast(x, tf.float64), tf.cast(y, tf.float64)), x.dtype)
    y = cast(ctx, y, x.dtype)
    zero, one = tf.zeros_like(y), tf.ones_like(x)
    raised = _wrapping_power if ctx.builtin_only else tf.pow
    result = raised(x, tf.maximum(y, zero))
    static = tf.get_static_value(y)
    if static is not None and (static >= 0).all():
        return result
    # 1 / x ** -y, truncated, is not 0 only for 1 and -1.
    inverse = tf.where(tf.equal(x * x, one), raised(x, zero - tf.minimum(y, zero)), one - one)
    return tf.where(y < zero, inverse, result)


def _wrapping_power(x: Any, y: Any) -> Any:
    """Integer power by squaring; TFLite's kernel has no int64 and does not wrap."""
    bits = 8 * x.dtype.size
    one = tf.ones_like(x)
    # Beyond the width of the dtype the result depends on whether y is odd, and no more.
    y = tf.where(y < bits, y, bits + tf.math.floormod(y, 2))
    result, factor, place = one, x, 1
    while place <= bits:
        set_bit = tf.math.floormod(y, 2 * place) >= place
        result *= tf.where(set_bit, factor, one)
        factor, place = factor * factor, 2 * place
    return result


@lowers("Neg", 6, 13)
@elementwise
def negate(ctx: Context, x: Any) -> Any:
    return built_in(ctx, tf.negative, x)


@lowers("Abs", 6, 13)
@elementwise
def absolute(ctx: Context, x: Any) -> Any:
    if x.dtype.is_unsigned:
        return x
    if ctx.builtin_only and x.dtype.is_integer:
        return computed_in((tf.int64,), lambda wide: tf.maximum(wide, -wide), x)
    return tf.abs(x)


@lowers("Sign", 9, 13)
@elementwise
def sign(ctx: Context, x: Any) -> Any:
    if x.dtype.is_unsigned:
        return tf.cast(tf.not_equal(x, tf.zeros_like(x)), x.dtype)
    if not x.dtype.is_integer:
        return tf.sign(x)
    zero = tf.zeros_like(x)
    above, below = (ordered(ctx, compare, x, zero) for compare in (tf.greater, tf.less))
    return tf.cast(tf.cast(above, tf.int32) - tf.cast(below, tf.int32), x.dtype)


@lowers("Sqrt", 6, 13)
@elementwise
def square_root(x: Any) -> Any:
    return tf.sqrt(x)


@lowers("Reciprocal", 6, 13)
@elementwise
def reciprocal(x: Any) -> Any:
    return 1 / x


@lowers("Exp", 6, 13)
@elementwise
def exponential(x: Any) -> Any:
    return tf.exp(x)


@lowers("Log", 6, 13)
@elementwise
def logarithm(x: Any) -> Any:
    return tf.math.log(x)


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


@lowers("Erf", 9, 13)
@elementwise
def error_function(ctx: Context, x: Any) -> Any:
    real = tf.cast(x, tf.float32) if x.dtype.is_integer else x
    return tf.cast(_erf_by_gelu(real) if ctx.builtin_only else tf.math.erf(real), x.dtype)


def _erf_by_gelu(x: Any) -> Any:
    """``gelu(z) = z / 2 * (1 + erf(z / sqrt(2)))``, solved for erf, as only gelu has a kernel.

    Near 0, where that cancels, the first two terms of the Taylor series.
    """
    # In float32 erf is 1 from 4 on.
    z = tf.clip_by_value(x, -4.0, 4.0) * math.sqrt(2)
    far = 2 * tf.nn.gelu(z) / z - 1
    near = x * (2 / math.sqrt(math.pi) - x * x * (2 / math.sqrt(math.pi) / 3))
    return tf.where(tf.abs(x) < 0.05, near, far)


def _folded(ctx: Context, choose: Callable[..., Any], tensors: tuple[Any, ...]) -> Any:
    def choice(a: Any, b: Any) -> Any:
        chosen = ordered(ctx, choose, a, b)
        if not ctx.builtin_only or not a.dtype.is_floating:
            return chosen
        # TFLite's kernels give a NaN of ``b`` only. Its delegate gives both if one is constant.
        if any(tf.get_static_value(tensor) is not None for tensor in (a, b)):
            return chosen
        return tf.where(tf.math.is_nan(a), a, chosen)

    return reduce(choice, tensors)


@lowers("Max", 6, 8, 12, 13)
@elementwise
def maximum(ctx: Context, *tensors: Any) -> Any:
    return _folded(ctx, tf.maximum, tensors)


@lowers("Min", 6, 8, 12, 13)
@elementwise
def minimum(ctx: Context, *tensors: Any) -> Any:
    return _folded(ctx, tf.minimum, tensors)


@lowers("Sum", 6, 8, 13)
@elementwise
def total(*tensors: Any) -> Any:
    return reduce(tf.add, tensors)


@lowers("Mean", 6, 8, 13)
@elementwise
def mean(*tensors: Any) -> Any:
    return reduce(tf.add, tensors) / len(tensors)


@lowers("Clip", 6)
@elementwise
def clip_6(
    x: Any,
    *,
    min: float = float(np.finfo(np.float32).min),
    max: float = float(np.finfo(np.float32).max),
) -> Any:
    lowest, highest = np.finfo(np.float32).min, np.finfo(np.float32).max
    if max < highest:
        x = tf.minimum(x, tf.constant(max, x.dtype))
    return tf.maximum(x, tf.constant(min, x.dtype)) if min > lowest else x


@lowers("Clip", 11, 12, 13)
@elementwise
def clip_11(ctx: Context, x: Any, lowest: Any = None, highest: Any = None) -> Any:
    if lowest is not None:
        x = ordered(ctx, tf.maximum, x, lowest)
    return x if highest is None else ordered(ctx, tf.minimum, x, highest)
