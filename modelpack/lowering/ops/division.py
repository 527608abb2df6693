"""Integer division and remainders, exact in kernels that do not have them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.dtypes import computed_in

# The largest float32 below 2**63: a cast of 2**63 itself to int64 would be undefined.
_BELOW_2_63 = 2.0**63 - 2.0**39


def truncated_quotient(ctx: Context, a: Any, b: Any) -> Any:
    """Divide integers, rounding towards zero."""
    if not ctx.builtin_only:
        return tf.raw_ops.TruncateDiv(x=a, y=b)
    if a.dtype is tf.uint64:
        raise ctx.refuse("there is no division of uint64")
    if a.dtype in {tf.int64, tf.uint32}:
        return computed_in((tf.int64,), _quotient_int64, a, b)
    return computed_in((tf.int32,), lambda a, b: tf.raw_ops.TruncateDiv(x=a, y=b), a, b)


def floor_modulo(ctx: Context, a: Any, b: Any) -> Any:
    """The remainder that has the sign of ``b``."""
    if ctx.builtin_only:
        if a.dtype is tf.uint64:
            raise ctx.refuse("there is no remainder of uint64")
        return computed_in((tf.float32, tf.int32, tf.int64), tf.math.floormod, a, b)
    if not a.dtype.is_floating:
        return tf.math.floormod(a, b)
    # TensorFlow's own floormod is NaN where b is infinite and of the other sign.
    remainder = truncated_modulo(ctx, a, b)
    zero = tf.zeros_like(remainder)
    other_sign = tf.not_equal(remainder < zero, b < tf.zeros_like(b))
    return tf.where((remainder != zero) & other_sign, remainder + b, remainder)


def truncated_modulo(ctx: Context, a: Any, b: Any) -> Any:
    """The remainder that has the sign of ``a``."""
    if a.dtype.is_unsigned:
        return floor_modulo(ctx, a, b)
    if ctx.builtin_only:
        return computed_in((tf.float32, tf.int32, tf.int64), _remainder, a, b)
    dtypes = (tf.float32, tf.float64, tf.int32, tf.int64)
    return computed_in(dtypes, tf.truncatemod, a, b)


def _remainder(a: Any, b: Any) -> Any:
    if a.dtype.is_floating:
        size = tf.math.floormod(tf.abs(a), tf.abs(b))
        return tf.where(a < 0, -size, size)
    remainder = tf.math.floormod(a, b)
    zero = tf.zeros_like(remainder)
    other_sign = tf.not_equal(a < 0, b < 0)
    return tf.where(
        tf.logical_and(tf.not_equal(remainder, zero), other_sign), remainder - b, remainder
    )


def _quotient_int64(a: Any, b: Any) -> Any:
    """Divide by float32 steps: each finds 22 of the 64 bits, and what is left is divided again.

    The remainder is taken off first, so the last quotient is an integer and rounding finds
    it exactly.
    """
    rest = a - _remainder(a, b)
    quotient = tf.zeros_like(rest)
    divisor = tf.cast(b, tf.float32)
    for _ in range(3):
        step = tf.round(tf.cast(rest, tf.float32) / divisor)
        step = tf.cast(tf.clip_by_value(step, -(2.0**63), _BELOW_2_63), tf.int64)
        quotient += step
        rest -= step * b
    return quotient
