"""QuantizeLinear and DequantizeLinear: numbers on a grid of integers or of small floats.

    q = saturate(round(x / scale) + zero_point)        x = (q - zero_point) * scale

Rounding is half to even. All of it is computed in float32, which is exact for the integers
that occur, except for the int32 of a bias.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.layout import aligned
from modelpack.lowering.registry import MICROSOFT, lowers
from modelpack.lowering.value import Value

_FOUR_BITS = (tf.as_dtype(ml_dtypes.int4), tf.as_dtype(ml_dtypes.uint4))
_SMALL_FLOATS = (tf.as_dtype(ml_dtypes.float8_e4m3fn), tf.as_dtype(ml_dtypes.float8_e5m2))
_CASTABLE = (tf.int8, tf.uint8, tf.int16, tf.uint16, tf.int32, tf.float16, tf.bfloat16, tf.float32)
"""What both TensorFlow and TFLite cast from and to float32."""


@lowers("QuantizeLinear", 10)
def quantize_10(ctx: Context, x: Value, scale: Value, zero_point: Value | None = None) -> Any:
    return quantize_23(ctx, x, scale, zero_point)


@lowers("QuantizeLinear", 13)
@lowers("QuantizeLinear", 1, domain=MICROSOFT)
def quantize_13(
    ctx: Context, x: Value, scale: Value, zero_point: Value | None = None, *, axis: int = 1
) -> Any:
    return quantize_23(ctx, x, scale, zero_point, axis=axis)


@lowers("QuantizeLinear", 19)
def quantize_19(
    ctx: Context,
    x: Value,
    scale: Value,
    zero_point: Value | None = None,
    *,
    axis: int = 1,
    saturate: int = 1,
) -> Any:
    return quantize_23(ctx, x, scale, zero_point, axis=axis, saturate=saturate)


@lowers("QuantizeLinear", 21)
def quantize_21(
    ctx: Context,
    x: Value,
    scale: Value,
    zero_point: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,
) -> Any:
    return quantize_23(
        ctx,
        x,
        scale,
        zero_point,
        axis=axis,
        block_size=block_size,
        output_dtype=output_dtype,
        saturate=saturate,
    )


@lowers("QuantizeLinear", 23, 24, 25, 28)
def quantize_23(
    ctx: Context,
    x: Value,
    scale: Value,
    zero_point: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Any:
    dtype = _quantized_dtype(zero_point, output_dtype)
    _check_casts(ctx, dtype)
    parameters = [_broadcasting(item, x, axis, block_size) for item in (scale, zero_point)]
    (real, step, zero), perm = aligned([x, *parameters])
    wide = _dtype_of(precision) if precision else tf.float32
    ratio = tf.cast(tf.cast(real, wide) / tf.cast(step, wide), tf.float32)
    if not dtype.is_integer:
        return Value(_small_float(ratio, dtype, bool(saturate)), perm=perm)
    return Value(on_grid(ratio, None if zero is None else as_float(ctx, zero), dtype), perm=perm)


@lowers("DequantizeLinear", 10, folds=False)
def dequantize_10(ctx: Context, x: Value, scale: Value, zero_point: Value | None = None) -> Any:
    return dequantize_23(ctx, x, scale, zero_point)


@lowers("DequantizeLinear", 13, 19, folds=False)
@lowers("DequantizeLinear", 1, domain=MICROSOFT, folds=False)
def dequantize_13(
    ctx: Context, x: Value, scale: Value, zero_point: Value | None = None, *, axis: int = 1
) -> Any:
    return dequantize_23(ctx, x, scale, zero_point, axis=axis)


@lowers("DequantizeLinear", 21, folds=False)
def dequantize_21(
    ctx: Context,
    x: Value,
    scale: Value,
    zero_point: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
) -> Any:
    return dequantize_23(ctx, x, scale, zero_point, axis=axis, block_size=block_size)


@lowers("DequantizeLinear", 23, 24, 25, 28, folds=False)
def dequantize_23(
    ctx: Context,
    x: Value,
    scale: Value,
    zero_point: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Any:
    dtype = _dtype_of(output_dtype) if output_dtype else scale.dtype
    parameters = [_broadcasting(item, x, axis, block_size) for item in (scale, zero_point)]
    (whole, step, zero), perm = aligned([_representable(x), *map(_representable, parameters)])
    shifted = as_float(ctx, whole)
    if zero is not None:
        shifted -= as_float(ctx, zero)
    return Value(tf.cast(shifted * tf.cast(step, tf.float32), dtype), perm=perm)


@lowers("DynamicQuantizeLinear", 11)
def dynamic_quantize(x: Value) -> tuple[Any, Any, Any]:
    """To uint8, over the range of the values widened to contain zero."""
    real = tf.cast(x.tensor if x.is_const else x.held, tf.float32)
    low, high = tf.minimum(tf.reduce_min(real), 0.0), tf.maximum(tf.reduce_max(real), 0.0)
    scale = tf.where(tf.equal(low, high), 1.0, high - low) / 255.0
    zero = tf.round(tf.clip_by_value(-low / scale, 0.0, 255.0))
    whole = on_grid(real / scale, zero, tf.uint8)
    return (
        Value(whole) if x.is_const else x.like(whole),
        tf.cast(scale, x.dtype),
        tf.cast(zero, tf.uint8),
    )


def on_grid(ratio: Any, zero: Any, dtype: Any) -> Any:
    """Round to integers, move by the zero point (None for 0), saturate, cast to ``dtype``."""
    whole = tf.round(ratio)
    if zero is not None:
        whole += zero
    limits = ml_dtypes.iinfo(dtype.as_numpy_dtype)
    whole = tf.clip_by_value(whole, float(limits.min), float(limits.max))
    # TensorFlow casts integers of four bits from and to integers only.
    return tf.cast(tf.cast(whole, tf.int8), dtype) if dtype in _FOUR_BITS else tf.cast(whole, dtype)


def as_float(ctx: Context, whole: Any) -> Any:
    """A quantized tensor, or a zero point, as float32."""
    _check_casts(ctx, whole.dtype)
    return tf.cast(tf.cast(whole, tf.int8) if whole.dtype in _FOUR_BITS else whole, tf.float32)


def _small_float(real: Any, dtype: Any, saturate: bool) -> Any:
    if saturate:
        limit = float(ml_dtypes.finfo(dtype.as_numpy_dtype).max)
        real = tf.clip_by_value(real, -limit, limit)
    return tf.cast(real, dtype)


def _check_casts(ctx: Context, dtype: Any) -> None:
    known = _CASTABLE if ctx.builtin_only else (*_CASTABLE, *_FOUR_BITS, *_SMALL_FLOATS)
    if dtype not in known:
        raise ctx.refuse(f"there is no kernel that casts from or to {dtype.name}")


def _representable(x: Value | None) -> Value | None:
    """A constant in a dtype that TensorFlow computes with; others as they are."""
    if x is None or not x.is_const or x.dtype in _CASTABLE or x.dtype == tf.float64:
        return x
    const = x.const
    assert const is not None
    return Value(const=const.astype(np.int8 if x.dtype.is_integer else np.float32))


def _quantized_dtype(zero_point: Value | None, output_dtype: int) -> Any:
    if zero_point is not None:
        return zero_point.dtype
    return _dtype_of(output_dtype) if output_dtype else tf.uint8


def _dtype_of(element_type: int) -> Any:
    return tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type))


def _broadcasting(item: Value | None, x: Value, axis: int, block_size: int) -> Value | None:
    """A scale or a zero point in a shape that broadcasts with ``x`` in the graph's order."""
    if item is None or item.rank == 0:
        return item
    if block_size:
        blocks = tf.range(x.dims()[axis]) // block_size
        return Value(tf.gather(item.tensor, blocks, axis=axis % x.rank))
    if item.shape == (1,):
        return _reshaped(item, ())
    return _reshaped(item, tuple(-1 if i == axis % x.rank else 1 for i in range(x.rank)))


def _reshaped(item: Value, shape: tuple[int, ...]) -> Value:
    const = item.const if item.is_const else None
    if const is not None:
        return Value(const=const.reshape(shape))
    return Value(tf.reshape(item.tensor, shape))
