"""Order of elements, in the dtypes whose kernels can tell it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_LOWEST = np.iinfo(np.int64).min


def rankable(x: Any) -> Any:
    """The elements, or others in the same order, in a dtype that kernels rank."""
    if x.dtype is tf.uint64:
        # Halfway round: 0 becomes the lowest int64, the highest uint64 the highest int64.
        return tf.bitcast(x, tf.int64) + _LOWEST
    if not x.dtype.is_integer or x.dtype in (tf.int32, tf.int64):
        return x
    return tf.cast(x, tf.int64 if x.dtype is tf.uint32 else tf.int32)


def as_ranked(x: Any, dtype: Any) -> Any:
    """What `rankable` made of a tensor of some dtype, back in that dtype."""
    if dtype is tf.uint64:
        return tf.bitcast(x + _LOWEST, tf.uint64)
    return x if x.dtype is dtype else tf.cast(x, dtype)


def mirrored(x: Any) -> Any:
    """The same elements in the opposite order: unlike ``-x``, ``-1 - x`` has no overflow."""
    return -x if x.dtype.is_floating else -1 - x
