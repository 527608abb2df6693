"""Computing in a dtype that kernels exist for, when they do not for the one at hand."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context

# The narrowest dtype that holds every value of another, and that most kernels know.
_WIDER = {
    tf.bool: tf.int32,
    tf.int8: tf.int32,
    tf.uint8: tf.int32,
    tf.int16: tf.int32,
    tf.uint16: tf.int32,
    tf.int32: tf.int64,
    tf.uint32: tf.int64,
    tf.uint64: tf.int64,  # the same bits: sums, products and equality are right, order is not
    tf.float16: tf.float32,
    tf.bfloat16: tf.float32,
}

_INT64_BITS = (tf.int64, tf.uint64)

TFLITE = (tf.float32, tf.int32, tf.int64)
"""What nearly every built-in arithmetic kernel of TFLite takes."""


def computed_in(dtypes: Collection[Any], function: Callable[..., Any], *tensors: Any) -> Any:
    """Apply a function to tensors of one dtype, in the first of ``dtypes`` that holds it.

    The result is cast back if it has the dtype that was computed in, so integers wrap as
    they would have.
    """
    own = tensors[0].dtype
    wide = own
    while wide not in dtypes and wide in _WIDER:
        wide = _WIDER[wide]
    if wide is own or wide not in dtypes:
        return function(*tensors)
    result = function(*(_converted(tensor, wide) for tensor in tensors))
    return _converted(result, own) if result.dtype is wide else result


def built_in(ctx: Context, function: Callable[..., Any], *tensors: Any) -> Any:
    """Apply a function to tensors of one dtype, in a dtype that the target has kernels for.

    For functions that do not depend on the order of numbers; `ordered` is for those.
    """
    if ctx.builtin_only:
        return computed_in(TFLITE, function, *tensors)
    return function(*tensors)


def ordered(ctx: Context, function: Callable[..., Any], *tensors: Any) -> Any:
    """Like `built_in`, for comparisons and for choices by comparison."""
    if not ctx.builtin_only or tensors[0].dtype is not tf.uint64:
        return built_in(ctx, function, *tensors)
    # With the top bit flipped the signed order of the bits is the unsigned order.
    result = function(*(tf.bitcast(tensor, tf.int64) + tf.int64.min for tensor in tensors))
    return tf.bitcast(result + tf.int64.min, tf.uint64) if result.dtype is tf.int64 else result


def cast(ctx: Context, tensor: Any, dtype: Any) -> Any:
    """Cast, also from and to uint64, of which TFLite knows only the bits."""
    if not ctx.builtin_only or tf.uint64 not in {tensor.dtype, dtype} or tensor.dtype is dtype:
        return tf.cast(tensor, dtype)
    if tensor.dtype is tf.uint64:
        bits = tf.bitcast(tensor, tf.int64)
        signed = tf.cast(bits, dtype)
        return tf.where(bits < 0, signed + 2.0**64, signed) if dtype.is_floating else signed
    if tensor.dtype.is_floating:
        # The upper half of the range is brought into that of int64, and back by wrapping.
        upper = tensor >= 2.0**63
        bits = tf.cast(tf.where(upper, tensor - 2.0**64, tensor), tf.int64)
        return tf.bitcast(bits, tf.uint64)
    return tf.bitcast(tf.cast(tensor, tf.int64), tf.uint64)


def _converted(tensor: Any, dtype: Any) -> Any:
    same_bits = tensor.dtype in _INT64_BITS and dtype in _INT64_BITS
    return tf.bitcast(tensor, dtype) if same_bits else tf.cast(tensor, dtype)
