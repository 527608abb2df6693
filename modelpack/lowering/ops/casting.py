"""Casts between dtypes, and the bits of one dtype read as another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.dtypes import cast
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Array, Value

_FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_FLOAT8_OF_XLA = ("float8_e4m3fnuz", "float8_e5m2fnuz")
_INT4 = ("int4", "uint4")
_WITHOUT_KERNELS = ("float4_e2m1fn", "float8_e8m0fnu", "int2", "uint2")


@lowers("Cast", 6, 9, 13)
def cast_6(ctx: Context, x: Value, *, to: int) -> Any:
    return _cast(ctx, x, _dtype(to))


@lowers("Cast", 19, 21, 23)
def cast_19(ctx: Context, x: Value, *, to: int, saturate: int = 1) -> Any:
    return _cast(ctx, x, _dtype(to), bool(saturate))


@lowers("Cast", 24, 25, 28)
def cast_24(ctx: Context, x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    return _cast(ctx, x, _dtype(to), bool(saturate), round_mode)


@lowers("CastLike", 15)
def cast_like_15(ctx: Context, x: Value, target_type: Value) -> Any:
    return _cast(ctx, x, _dtype_of(target_type))


@lowers("CastLike", 19, 21, 23)
def cast_like_19(ctx: Context, x: Value, target_type: Value, *, saturate: int = 1) -> Any:
    return _cast(ctx, x, _dtype_of(target_type), bool(saturate))


@lowers("CastLike", 24, 25)
def cast_like_24(
    ctx: Context, x: Value, target_type: Value, *, saturate: int = 1, round_mode: str = "up"
) -> Any:
    return _cast(ctx, x, _dtype_of(target_type), bool(saturate), round_mode)


def _dtype(element_type: int) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type))


def _dtype_of(x: Value) -> np.dtype[Any]:
    return x.const.dtype if x.const is not None else np.dtype(x.dtype.as_numpy_dtype)


def _cast(
    ctx: Context, x: Value, dtype: np.dtype[Any], saturate: bool = True, round_mode: str = "up"
) -> Any:
    if x.const is not None and x.const.dtype.kind not in "OUS" and dtype.kind not in "OUS":
        return _constant(x.const, dtype, saturate, round_mode)
    for name in (x.dtype.name, dtype.name):
        if name in _WITHOUT_KERNELS or (ctx.builtin_only and name in (*_FLOAT8, *_INT4)):
            raise ctx.refuse(f"there are no kernels for {name}")
    held = _readable(x.tensor if x.is_const else x.held)
    if dtype.kind in "OUS" or held.dtype is tf.string:
        if ctx.builtin_only:
            raise ctx.refuse("text and numbers are not converted by built-in ops")
        result = _from_text(held, dtype) if held.dtype is tf.string else _to_text(held)
    elif dtype.name in _FLOAT8:
        result = _to_float8(held, dtype, saturate)
    elif dtype.name in _INT4:
        result = tf.cast(tf.cast(held, tf.int32), dtype)
    else:
        result = cast(ctx, held, tf.as_dtype(dtype))
    return result if x.is_const else x.like(result)


def _readable(x: Any) -> Any:
    """The same values in a dtype that TensorFlow's kernels know."""
    if x.dtype.name in _FLOAT8_OF_XLA:
        return _compiled(tf.cast, x, tf.float32)
    return tf.cast(x, tf.int32) if x.dtype.name in _INT4 else x


def _constant(array: Array, dtype: np.dtype[Any], saturate: bool, round_mode: str) -> Array:
    if dtype.name == "float8_e8m0fnu":
        exponents = onnx.numpy_helper.to_float8e8m0(array.astype(np.float32), saturate, round_mode)
        return exponents.astype(dtype)
    with np.errstate(all="ignore"):
        if dtype.name in _FLOAT8 and saturate:
            limits = ml_dtypes.finfo(dtype)
            array = np.clip(array.astype(np.float32), float(limits.min), float(limits.max))
        return array.astype(dtype)


def _to_float8(x: Any, dtype: np.dtype[Any], saturate: bool) -> Any:
    x = tf.cast(x, tf.float32)
    if saturate:
        largest = float(ml_dtypes.finfo(dtype).max)
        x = tf.where(tf.math.is_nan(x), x, tf.clip_by_value(x, -largest, largest))
    return _compiled(tf.cast, x, dtype) if dtype.name in _FLOAT8_OF_XLA else tf.cast(x, dtype)


def _compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call through XLA, which has code for dtypes that TensorFlow has no kernels for."""
    tensor, *rest = arguments
    return tf.function(lambda x: function(x, *rest), jit_compile=True, autograph=False)(tensor)


def _to_text(x: Any) -> Any:
    """Shortest of fixed and scientific form with the digits that ONNX Runtime writes."""
    if not x.dtype.is_floating:
        return tf.strings.as_string(tf.cast(x, tf.int32) if x.dtype is tf.bool else x)
    digits = 17 if x.dtype is tf.float64 else 8
    wide = x if x.dtype is tf.float64 else tf.cast(x, tf.float32)
    text = tf.strings.as_string(wide, precision=digits, shortest=True)
    infinite = tf.where(x > 0, "INF", "-INF")
    text = tf.where(tf.math.is_inf(wide), infinite, text)
    return tf.where(tf.math.is_nan(wide), "NaN", text)


def _from_text(text: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "OUS":
        return text
    exact = {np.dtype(t.as_numpy_dtype): t for t in (tf.float32, tf.float64, tf.int32, tf.int64)}
    via = exact.get(dtype, tf.int64 if dtype.kind in "iu" else tf.float32)
    return tf.cast(tf.strings.to_number(text, via), dtype)


@lowers("BitCast", 26)
def bit_cast(ctx: Context, x: Value, *, to: int) -> Any:
    dtype = _dtype(to)
    if x.const is not None and x.const.dtype.itemsize == dtype.itemsize:
        return x.const.view(dtype)
    held, own = (x.tensor if x.is_const else x.held), x.dtype
    for name in (own.name, dtype.name):
        if name in (*_FLOAT8, *_INT4, *_WITHOUT_KERNELS):
            raise ctx.refuse(f"there are no kernels for the bits of {name}")
    if own.size != dtype.itemsize:
        raise ctx.refuse(f"the bits of the original dtype are not known: it is held as {own.name}")
    if own is tf.bool:
        held = tf.cast(held, tf.uint8)
    if dtype.kind == "b":
        return x.like(tf.not_equal(tf.cast(tf.bitcast(held, tf.uint8), tf.int32), 0))
    wanted = tf.as_dtype(dtype)
    return x.like(held if held.dtype is wanted else tf.bitcast(held, wanted))
