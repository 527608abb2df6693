"""Ops that only move elements, for dtypes that TFLite's kernels do not know.

Casting there and back is exact, since nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import tensorflow as tf

from modelpack.lowering import dtypes, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.value import Value

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


def gathered(ctx: Context, tensor: Any, indices: Any, axis: int = 0) -> Any:
    """``tf.gather``, with an axis that is not negative."""
    if ctx.builtin_only and tensor.dtype is tf.string and tensor.shape.rank > 1:
        return _gathered_flat(Value(tensor), indices, axis)
    return moved(ctx, lambda t: tf.gather(t, indices, axis=axis), tensor)


def _gathered_flat(x: Value, indices: Any, axis: int) -> Any:
    """Gathered from the flat tensor: TFLite gathers strings from vectors only."""
    dims = x.dims()
    outer, inner = sizes.product(dims[:axis]), sizes.product(dims[axis + 1 :])
    chosen = Value(tf.cast(indices, tf.int32))
    rows = tf.expand_dims(tf.range(outer) * dims[axis], 1) + tf.reshape(chosen.tensor, [1, -1])
    positions = tf.expand_dims(rows * inner, 2) + tf.range(inner)
    found = tf.gather(sizes.reshape(x.tensor, [-1]), positions)
    return sizes.reshape(found, [*dims[:axis], *chosen.dims(), *dims[axis + 1 :]])
