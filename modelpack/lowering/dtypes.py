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
    result = function(*(tf.cast(tensor, wide) for tensor in tensors))
    return tf.cast(result, own) if result.dtype is wide else result


def built_in(ctx: Context, function: Callable[..., Any], *tensors: Any) -> Any:
    """Apply a function to tensors of one dtype, in a dtype that the target has a kernel for."""
    if ctx.builtin_only:
        return computed_in(TFLITE, function, *tensors)
    return function(*tensors)
