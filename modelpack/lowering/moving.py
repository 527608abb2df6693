"""Ops that only move elements, for dtypes that TFLite's kernels do not know.

Casting there and back is exact, since nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import tensorflow as tf

from modelpack.lowering import dtypes
from modelpack.lowering.context import Context

_MOST = (*dtypes.TFLITE, tf.bool)
"""What the kernels take that gather, slice, concatenate, repeat and choose."""


def moved(
    ctx: Context,
    function: Callable[..., Any],
    *tensors: Any,
    kernel: Collection[Any] = _MOST,
) -> Any:
    """Apply a function of tensors of one dtype whose TFLite kernel takes ``kernel``."""
    if not ctx.builtin_only or tensors[0].dtype is tf.string:
        return function(*tensors)
    if tensors[0].dtype is not tf.uint64:
        return dtypes.computed_in(kernel, function, *tensors)
    # There is no cast for it. The bits of int64 are the same.
    result = function(*(tf.bitcast(tensor, tf.int64) for tensor in tensors))
    return tf.bitcast(result, tf.uint64) if result.dtype is tf.int64 else result
