"""Products and convolutions of integers, and the ops that QOperator models are made of.

Integers are multiplied as floats, which have the fast kernels: in float32 while every sum is
exact, else in float64. LiteRT has float32 only, where sums beyond 2^24 lose their last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.layout import aligned, reduced
from modelpack.lowering.ops import matmul
from modelpack.lowering.ops.convolution import conv
from modelpack.lowering.ops.quantization import as_float, dequantize_23, dynamic_quantize, on_grid
from modelpack.lowering.registry import MICROSOFT, lowers
from modelpack.lowering.sizes import product
from modelpack.lowering.value import Size, Value

# Products of so many pairs of 8-bit integers add up to less than 2^24.
_EXACT_TERMS = 256


# --- products with integer results -----------------------------------------------------------


@lowers("MatMulInteger", 10)
def matmul_integer(
    ctx: Context,
    a: Value,
    b: Value,
    a_zero_point: Value | None = None,
    b_zero_point: Value | None = None,
) -> Any:
    return tf.cast(tf.round(_product(ctx, a, b, a_zero_point, b_zero_point)), tf.int32)


@lowers("ConvInteger", 10)
def conv_integer(
    ctx: Context,
    x: Value,
    w: Value,
    x_zero_point: Value | None = None,
    w_zero_point: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    wide = _exact_dtype(ctx, *w.dims()[1:])
    result = conv(
        ctx,
        _shifted(ctx, x, x_zero_point, None, wide),
        _shifted(ctx, w, w_zero_point, 0, wide),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return result.like(tf.cast(tf.round(result.held), tf.int32))


@lowers("MatMulIntegerToFloat", 1, domain=MICROSOFT)
def matmul_integer_to_float(
    ctx: Context,
    a: Value,
    b: Value,
    a_scale: Value,
    b_scale: Value,
    a_zero_point: Value | None = None,
    b_zero_point: Value | None = None,
    bias: Value | None = None,
) -> Any:
    result = tf.cast(_product(ctx, a, b, a_zero_point, b_zero_point), tf.float32)
    result *= a_scale.tensor * b_scale.tensor
    return result if bias is None else result + bias.tensor


@lowers("DynamicQuantizeMatMul", 1, domain=MICROSOFT)
def dynamic_quantize_matmul(
    ctx: Context,
    a: Value,
    b: Value,
    b_scale: Value,
    b_zero_point: Value | None = None,
    bias: Value | None = None,
) -> Any:
    whole, scale, zero = dynamic_quantize(a)
    return matmul_integer_to_float(
        ctx, whole, b, Value(scale), b_scale, Value(zero), b_zero_point, bias
    )


# --- products with quantized results ------------------------------------------------------------


@lowers("QLinearMatMul", 10, 21)
def qlinear_matmul(
    ctx: Context,
    a: Value,
    a_scale: Value,
    a_zero_point: Value,
    b: Value,
    b_scale: Value,
    b_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
) -> Any:
    sums = tf.cast(_product(ctx, a, b, a_zero_point, b_zero_point), tf.float32)
    factor = _scale(a_scale) * _scale(b_scale) / _scale(y_scale)
    return on_grid(sums * factor, as_float(ctx, y_zero_point.tensor), y_zero_point.dtype)


@lowers("QLinearConv", 10)
def qlinear_conv(
    ctx: Context,
    x: Value,
    x_scale: Value,
    x_zero_point: Value,
    w: Value,
    w_scale: Value,
    w_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
    b: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    wide = _exact_dtype(ctx, *w.dims()[1:])
    result = conv(
        ctx,
        _shifted(ctx, x, x_zero_point, None, wide),
        _shifted(ctx, w, w_zero_point, 0, wide),
        None if b is None else Value(tf.cast(b.tensor, wide)),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    factor = _scale(x_scale) * _scale(w_scale) / _scale(y_scale)
    channels = [-1 if axis == 1 else 1 for axis in range(x.rank)]
    per_channel = Value(tf.reshape(factor, channels if factor.shape.rank else []))
    (sums, factor), perm = aligned([result, per_channel])
    ratio = tf.cast(sums, tf.float32) * factor
    zero = as_float(ctx, y_zero_point.tensor)
    return Value(on_grid(ratio, tf.reshape(zero, []), y_zero_point.dtype), perm=perm)


@lowers("QGemm", 1, domain=MICROSOFT)
def qgemm(
    ctx: Context,
    a: Value,
    a_scale: Value,
    a_zero_point: Value,
    b: Value,
    b_scale: Value,
    b_zero_point: Value,
    c: Value | None = None,
    y_scale: Value | None = None,
    y_zero_point: Value | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Any:
    """The bias is int32, in units of ``alpha * a_scale * b_scale``; without a y_scale, float."""
    wide = _exact_dtype(ctx, b.dims()[1 if transB else 0])
    left = _shifted(ctx, a, a_zero_point, None, wide).tensor
    right = _shifted(ctx, b, b_zero_point, 0 if transB else 1, wide).tensor
    sums = tf.matmul(left, right, transpose_a=bool(transA), transpose_b=bool(transB))
    if c is not None:
        sums += tf.cast(c.tensor, wide)
    factor = alpha * _scale(a_scale) * _scale(b_scale)
    real = tf.cast(sums, tf.float32)
    if y_scale is None or y_zero_point is None:
        return real * factor
    zero = as_float(ctx, y_zero_point.tensor)
    return on_grid(real * (factor / _scale(y_scale)), zero, y_zero_point.dtype)


def _product(
    ctx: Context, a: Value, b: Value, a_zero_point: Value | None, b_zero_point: Value | None
) -> Any:
    """The product of matrices less their zero points: one each, or one a row and a column."""
    wide = _exact_dtype(ctx, b.dims()[-2 if b.rank > 1 else 0])
    left = _shifted(ctx, a, a_zero_point, -2, wide).tensor
    right = _shifted(ctx, b, b_zero_point, -1, wide).tensor
    left, right = left[None] if a.rank == 1 else left, right[:, None] if b.rank == 1 else right
    gone = [-2] * (a.rank == 1) + [-1] * (b.rank == 1)
    result = matmul.product(ctx, left, right)
    return tf.squeeze(result, gone) if gone else result


def _exact_dtype(ctx: Context, *terms: Size) -> Any:
    """The float to add so many products of 8-bit integers in."""
    count = product(terms)
    few = isinstance(count, int) and count <= _EXACT_TERMS
    return tf.float32 if ctx.builtin_only or few else tf.float64


def _shifted(
    ctx: Context, x: Value, zero_point: Value | None, axis: int | None, dtype: Any
) -> Value:
    """A quantized value less its zero point (along ``axis``), as floats; a constant stays one."""
    if x.is_const and (zero_point is None or zero_point.is_const):
        with tf.init_scope():
            whole = _difference(ctx, x.tensor, zero_point, axis)
            return ctx.constant(whole.numpy().astype(dtype.as_numpy_dtype))
    tensor = x.tensor if x.is_const or axis is not None else x.held
    shifted = tf.cast(_difference(ctx, tensor, zero_point, axis), dtype)
    return x.like(shifted) if tensor is x.held else Value(shifted)


def _difference(ctx: Context, tensor: Any, zero_point: Value | None, axis: int | None) -> Any:
    real = as_float(ctx, tensor)
    if zero_point is None:
        return real
    zero = as_float(ctx, zero_point.tensor)
    if zero_point.rank == 1:
        zero = _along(zero, zero_point.shape, axis, real.shape.rank)
    return real - zero


def _along(zero: Any, shape: tuple[int | None, ...], axis: int | None, rank: int) -> Any:
    if axis is None or shape == (1,) or rank == 1:
        return tf.reshape(zero, [])
    return tf.reshape(zero, [-1 if i == axis % rank else 1 for i in range(rank)])


def _scale(scale: Value) -> Any:
    tensor = tf.cast(scale.tensor, tf.float32)
    return tf.reshape(tensor, []) if scale.shape == (1,) else tensor


# --- ops of ONNX Runtime that compute on the numbers meant ---------------------------------------


def _requantized(ctx: Context, real: Value, scale: Value, zero_point: Value) -> Value:
    zero = as_float(ctx, zero_point.tensor)
    ratio = (real.tensor if real.is_const else real.held) / _scale(scale)
    whole = on_grid(ratio, tf.reshape(zero, []), zero_point.dtype)
    return Value(whole) if real.is_const else real.like(whole)


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    def lowered(
        ctx: Context,
        a: Value,
        a_scale: Value,
        a_zero_point: Value | None,
        b: Value,
        b_scale: Value,
        b_zero_point: Value | None,
        c_scale: Value,
        c_zero_point: Value | None = None,
    ) -> Value:
        left = dequantize_23(ctx, a, a_scale, a_zero_point)
        right = dequantize_23(ctx, b, b_scale, b_zero_point)
        (x, y), perm = aligned([left, right])
        zero = c_zero_point or Value(const=np.zeros((), a.dtype.as_numpy_dtype))
        return _requantized(ctx, Value(function(x, y), perm=perm), c_scale, zero)

    return lowered


qlinear_add = lowers("QLinearAdd", 1, domain=MICROSOFT)(_binary(tf.add))
qlinear_mul = lowers("QLinearMul", 1, domain=MICROSOFT)(_binary(tf.multiply))


@lowers("QLinearSigmoid", 1, domain=MICROSOFT)
def qlinear_sigmoid(
    ctx: Context,
    x: Value,
    x_scale: Value,
    x_zero_point: Value | None,
    y_scale: Value,
    y_zero_point: Value | None = None,
) -> Value:
    real = dequantize_23(ctx, x, x_scale, x_zero_point)
    zero = y_zero_point or Value(const=np.zeros((), x.dtype.as_numpy_dtype))
    return _requantized(ctx, real.like(tf.sigmoid(real.held)), y_scale, zero)


@lowers("QLinearLeakyRelu", 1, domain=MICROSOFT)
def qlinear_leaky_relu(
    ctx: Context,
    x: Value,
    x_scale: Value,
    x_zero_point: Value | None,
    y_scale: Value,
    y_zero_point: Value | None = None,
    *,
    alpha: float = 0.01,
) -> Value:
    real = dequantize_23(ctx, x, x_scale, x_zero_point)
    zero = y_zero_point or Value(const=np.zeros((), x.dtype.as_numpy_dtype))
    return _requantized(ctx, real.like(tf.nn.leaky_relu(real.held, alpha)), y_scale, zero)


@lowers("QLinearGlobalAveragePool", 1, domain=MICROSOFT)
def qlinear_global_average_pool(
    ctx: Context,
    x: Value,
    x_scale: Value,
    x_zero_point: Value,
    y_scale: Value,
    y_zero_point: Value,
    *,
    channels_last: int = 0,
) -> Value:
    real = dequantize_23(ctx, x, x_scale, x_zero_point)
    spatial = list(range(1, x.rank - 1) if channels_last else range(2, x.rank))
    return _requantized(ctx, reduced(real, spatial, True, tf.reduce_mean), y_scale, y_zero_point)


@lowers("QLinearConcat", 1, domain=MICROSOFT)
def qlinear_concat(
    ctx: Context, y_scale: Value, y_zero_point: Value, *parts: Value, axis: int
) -> Value:
    """Each part is a tensor, its scale and its zero point."""
    triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    tensors, perm = aligned([dequantize_23(ctx, *triple) for triple in triples])
    position = axis % parts[0].rank
    joined = tf.concat(tensors, position if perm is None else perm[position])
    return _requantized(ctx, Value(joined, perm=perm), y_scale, y_zero_point)
