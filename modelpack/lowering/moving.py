"""Ops that only move elements, for dtypes that TFLite's kernels do not know.

Casting there and back is exact, since nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import tensorflow as tf

from modelpack.lowering import dtypes
from modelpack.lowering.context import Context

BYTES = (tf.float32, tf.int32, tf.int64, tf.int16, tf.int8, tf.uint8, tf.bool)
"""What most of TFLite's kernels that move elements take, text aside."""


def moved(
    ctx: Context,
    function: Callable[..., Any],
    *tensors: Any,
    kernel: Collection[Any] = BYTES,
) -> Any:
    """Apply ``function``, whose TFLite kernel takes the dtypes ``kernel``, to tensors of one dtype."""
    if not ctx.builtin_only or tensors[0].dtype is tf.string:
        return function(*tensors)
    return dtypes.computed_in(kernel, function, *tensors)
