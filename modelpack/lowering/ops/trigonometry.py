"""Trigonometric and hyperbolic functions and their inverses.

TFLite has kernels for the sine, the cosine, the hyperbolic tangent and atan2; the others
are made of those so that small results keep their relative precision.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.layout import elementwise
from modelpack.lowering.precise import log1p
from modelpack.lowering.registry import lowers


@lowers("Sin", 7, 22)
@elementwise
def sine(x: Any) -> Any:
    return tf.sin(x)


@lowers("Cos", 7, 22)
@elementwise
def cosine(x: Any) -> Any:
    return tf.cos(x)


@lowers("Tan", 7, 22)
@elementwise
def tangent(ctx: Context, x: Any) -> Any:
    return tf.sin(x) / tf.cos(x) if ctx.builtin_only else tf.tan(x)


@lowers("Asin", 7, 22)
@elementwise
def arc_sine(ctx: Context, x: Any) -> Any:
    return tf.atan2(x, tf.sqrt((1 - x) * (1 + x))) if ctx.builtin_only else tf.asin(x)


@lowers("Acos", 7, 22)
@elementwise
def arc_cosine(ctx: Context, x: Any) -> Any:
    return tf.atan2(tf.sqrt((1 - x) * (1 + x)), x) if ctx.builtin_only else tf.acos(x)


@lowers("Atan", 7, 22)
@elementwise
def arc_tangent(ctx: Context, x: Any) -> Any:
    return tf.atan2(x, tf.ones_like(x)) if ctx.builtin_only else tf.atan(x)


@lowers("Sinh", 9, 22)
@elementwise
def hyperbolic_sine(ctx: Context, x: Any) -> Any:
    return tf.tanh(x) * _cosh(x) if ctx.builtin_only else tf.sinh(x)


@lowers("Cosh", 9, 22)
@elementwise
def hyperbolic_cosine(ctx: Context, x: Any) -> Any:
    return _cosh(x) if ctx.builtin_only else tf.cosh(x)


@lowers("Tanh", 6, 13)
@elementwise
def hyperbolic_tangent(x: Any) -> Any:
    return tf.tanh(x)


@lowers("Asinh", 9, 22)
@elementwise
def inverse_hyperbolic_sine(ctx: Context, x: Any) -> Any:
    if not ctx.builtin_only:
        return tf.asinh(x)
    size = tf.abs(x)
    square = size * size
    near = log1p(size + square / (1 + tf.sqrt(1 + square)))
    far = tf.math.log(size) + math.log(2)
    return tf.sign(x) * tf.where(size < 1e4, near, far)


@lowers("Acosh", 9, 22)
@elementwise
def inverse_hyperbolic_cosine(ctx: Context, x: Any) -> Any:
    if not ctx.builtin_only:
        return tf.acosh(x)
    over = x - 1
    near = log1p(over + tf.sqrt(over * (over + 2)))
    return tf.where(x < 1e4, near, tf.math.log(x) + math.log(2))


@lowers("Atanh", 9, 22)
@elementwise
def inverse_hyperbolic_tangent(ctx: Context, x: Any) -> Any:
    if not ctx.builtin_only:
        return tf.atanh(x)
    size = tf.abs(x)
    return tf.sign(x) * log1p(2 * size / (1 - size)) / 2


def _cosh(x: Any) -> Any:
    return (tf.exp(x) + tf.exp(-x)) / 2
