"""Activation functions."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context, Target
from modelpack.lowering.dtypes import computed_in, ordered
from modelpack.lowering.layout import elementwise
from modelpack.lowering.precise import log1p
from modelpack.lowering.registry import lowers

MICROSOFT = "com.microsoft"

# In half precision exp(x) - 1 cancels to a few bits.
_PRECISE = (tf.float32, tf.float64)


@lowers("Relu", 6, 13, 14)
@elementwise
def relu(ctx: Context, x: Any) -> Any:
    if x.dtype.is_floating:
        return tf.nn.relu(x)
    return ordered(ctx, tf.maximum, x, tf.zeros_like(x))


@lowers("LeakyRelu", 6, 16)
@elementwise
def leaky_relu(ctx: Context, x: Any, *, alpha: float = 0.01) -> Any:
    if ctx.target is Target.SAVEDMODEL and _is_sum(x):
        # TensorFlow's remapper makes one kernel of a convolution, a sum and this op, which then
        # has a slope of its own.
        return tf.where(x > 0, x, x * tf.constant(alpha, x.dtype))
    return tf.nn.leaky_relu(x, alpha)


def _is_sum(x: Any) -> bool:
    """Whether a tensor of a graph is the sum of two."""
    if tf.executing_eagerly():
        return False
    op = x.op
    while op.type == "Identity":
        op = op.inputs[0].op
    return op.type in {"Add", "AddV2"}


@lowers("PRelu", 7, 9, 16)
@elementwise
def parametric_relu(x: Any, slope: Any) -> Any:
    if x.dtype.is_unsigned:
        return x
    if x.dtype.is_integer:
        return tf.where(x < tf.zeros_like(x), slope * x, x)
    # The form that TFLite's converter makes one PRELU of: a slope without the batch's axis.
    sizes = [1] * (x.shape.rank - slope.shape.rank) + slope.shape.as_list()
    if len(sizes) > 1 and sizes[0] == 1 and None not in sizes:
        slope = tf.reshape(slope, sizes[1:])
    return tf.nn.relu(x) + -slope * tf.nn.relu(-x)


@lowers("ThresholdedRelu", 10, 22)
@elementwise
def thresholded_relu(x: Any, *, alpha: float = 1.0) -> Any:
    return tf.where(x > tf.constant(alpha, x.dtype), x, tf.zeros_like(x))


@lowers("Elu", 6, 22)
@elementwise
def elu(x: Any, *, alpha: float = 1.0) -> Any:
    return _elu(x, alpha)


@lowers("Selu", 6, 22)
@elementwise
def selu(x: Any, *, alpha: float = 1.6732632, gamma: float = 1.050701) -> Any:
    return gamma * _elu(x, alpha)


@lowers("Celu", 12, 28)
@elementwise
def celu(x: Any, *, alpha: float = 1.0) -> Any:
    below = computed_in(_PRECISE, tf.math.expm1, -tf.nn.relu(-x) / alpha)
    return tf.nn.elu(x) if alpha == 1 else tf.nn.relu(x) + alpha * below


def _elu(x: Any, alpha: float) -> Any:
    if alpha == 1:
        return computed_in(_PRECISE, tf.nn.elu, x)
    return tf.nn.relu(x) + alpha * computed_in(_PRECISE, tf.nn.elu, -tf.nn.relu(-x))


@lowers("Sigmoid", 6, 13)
@elementwise
def sigmoid(x: Any) -> Any:
    return tf.sigmoid(x)


@lowers("HardSigmoid", 6, 22)
@elementwise
def hard_sigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        # The form that TFLite's converter fuses: with a factor x into HARD_SWISH.
        return tf.nn.relu6(x + 3) * (1 / 6)
    zero, one = tf.zeros([], x.dtype), tf.ones([], x.dtype)
    return tf.minimum(tf.maximum(x * alpha + beta, zero), one)


@lowers("HardSwish", 14, 22)
@elementwise
def hard_swish(x: Any) -> Any:
    return x * tf.nn.relu6(x + 3) * (1 / 6)


@lowers("Softplus", 1, 22)
@elementwise
def softplus(ctx: Context, x: Any) -> Any:
    return _softplus(ctx, x)


@lowers("Softsign", 1, 22)
@elementwise
def softsign(x: Any) -> Any:
    return tf.nn.softsign(x)


@lowers("Mish", 18, 22)
@elementwise
def mish(ctx: Context, x: Any) -> Any:
    return x * tf.tanh(_softplus(ctx, x))


def _softplus(ctx: Context, x: Any) -> Any:
    if not ctx.builtin_only:
        return tf.nn.softplus(x)
    # The converter's own form overflows where exp(x) does.
    return tf.nn.relu(x) + log1p(tf.exp(-tf.abs(x)))


@lowers("Swish", 24)
@elementwise
def swish(x: Any, *, alpha: float = 1.0) -> Any:
    return _swish(x, alpha)


@lowers("SwiGLU", 28)
@elementwise
def swiglu(a: Any, b: Any, *, alpha: float = 1.0) -> Any:
    return _swish(a, alpha) * b


@lowers("QuickGelu", 1, domain=MICROSOFT)
@elementwise
def quick_gelu(x: Any, *, alpha: float = 1.702) -> Any:
    return _swish(x, alpha)


def _swish(x: Any, alpha: float) -> Any:
    return x * tf.sigmoid(x if alpha == 1 else alpha * x)


@lowers("Gelu", 20)
@elementwise
def gelu_20(ctx: Context, x: Any, *, approximate: str = "none") -> Any:
    return tf.nn.gelu(x, approximate=True) if approximate == "tanh" else _gelu(ctx, x)


@lowers("Gelu", 1, domain=MICROSOFT)
@elementwise
def gelu(ctx: Context, x: Any) -> Any:
    return _gelu(ctx, x)


@lowers("BiasGelu", 1, domain=MICROSOFT)
@elementwise
def bias_gelu(ctx: Context, x: Any, bias: Any) -> Any:
    return _gelu(ctx, x + bias)


def _gelu(ctx: Context, x: Any) -> Any:
    if ctx.target is not Target.SAVEDMODEL:
        # The converter finds gelu by its form, which a transposition that it moves through parts:
        # none is moved through what has no gradient, of which the file shows nothing.
        return tf.nn.gelu(tf.stop_gradient(x))
    # TensorFlow's own form, which TFLite's converter looks for, has a negation more.
    return x * 0.5 * tf.math.erfc(x * -math.sqrt(0.5))


@lowers("FastGelu", 1, domain=MICROSOFT)
@elementwise
def fast_gelu(x: Any, bias: Any = None) -> Any:
    return tf.nn.gelu(x if bias is None else x + bias, approximate=True)


@lowers("Shrink", 9)
@elementwise
def shrink(ctx: Context, x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    if not x.dtype.is_integer:
        return _shrink(x, bias, lambd)
    if not ctx.builtin_only:
        return tf.cast(_shrink(tf.cast(x, tf.float64), bias, lambd), x.dtype)
    if x.dtype.size > 2:
        raise ctx.refuse(f"{x.dtype.name} needs float64")
    return tf.cast(_shrink(tf.cast(x, tf.float32), bias, lambd), x.dtype)


def _shrink(x: Any, bias: float, lambd: float) -> Any:
    threshold = tf.constant(lambd, x.dtype)
    outside = tf.where(x > threshold, x - bias, tf.zeros_like(x))
    return tf.where(x < -threshold, x + bias, outside)
