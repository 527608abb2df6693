"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import dtypes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import reduced
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value

_Reduction = Callable[[Any, Any, bool], Any]
"""Takes a tensor, its axes (ints or an int32 tensor), and whether to keep them."""


def _register(
    op_type: str, attribute: Sequence[int], optional_input: Sequence[int], function: _Reduction
) -> None:
    """Register a reduction whose axes were an attribute first, and an input later."""

    def axes_as_attribute(
        ctx: Context, x: Value, *, axes: Sequence[int] | None = None, keepdims: int = 1
    ) -> Any:
        return _over(ctx, x, axes or range(x.rank), bool(keepdims), function)

    def axes_as_input(
        ctx: Context,
        x: Value,
        axes: Value | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Any:
        return _over_input(ctx, x, axes, bool(keepdims), bool(noop_with_empty_axes), function)

    lowers(op_type, *attribute)(axes_as_attribute)
    lowers(op_type, *optional_input)(axes_as_input)


def _over_input(
    ctx: Context, x: Value, axes: Value | None, keepdims: bool, noop: bool, function: _Reduction
) -> Any:
    if axes is None or axes.shape == (0,):
        return _over(ctx, x, [] if noop else range(x.rank), keepdims, function)
    if axes.is_const:
        return _over(ctx, x, axes.sizes(), keepdims, function)
    return _over_computed(ctx, x, axes, keepdims, noop, function)


def _over(
    ctx: Context, x: Value, axes: Sequence[int], keepdims: bool, function: _Reduction
) -> Value:
    unique = sorted({axis % x.rank for axis in axes})
    return reduced(x, unique, keepdims, lambda *how: _in_kernel_dtype(ctx, function, *how))


def _over_computed(
    ctx: Context, x: Value, axes: Value, keepdims: bool, noop: bool, function: _Reduction
) -> Any:
    count = axes.shape[0]
    if count is None and not (keepdims and noop):
        raise ctx.refuse("the number of axes is not known, so neither is what to reduce")
    tensor = tf.cast(axes.tensor, tf.int32)
    result = _in_kernel_dtype(ctx, function, x.tensor, tensor, keepdims)
    result.set_shape([None] * (x.rank if keepdims else x.rank - (count or 0)))
    return result


def _in_kernel_dtype(
    ctx: Context, function: _Reduction, tensor: Any, axes: Any, keepdims: bool
) -> Any:
    if not ctx.builtin_only or tensor.dtype.is_bool:
        return function(tensor, axes, keepdims)
    return dtypes.computed_in(dtypes.TFLITE, lambda x: function(x, axes, keepdims), tensor)


def _sum(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.reduce_sum(x, axes, keepdims)


def _mean(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.reduce_mean(x, axes, keepdims)


def _prod(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.reduce_prod(x, axes, keepdims)


def _max(x: Any, axes: Any, keepdims: bool) -> Any:
    if x.dtype.is_bool:
        return tf.reduce_any(x, axes, keepdims)
    if _empty_of_reals(x):
        return tf.math.log(tf.reduce_sum(x, axes, keepdims))
    return tf.reduce_max(x, axes, keepdims)


def _min(x: Any, axes: Any, keepdims: bool) -> Any:
    if x.dtype.is_bool:
        return tf.reduce_all(x, axes, keepdims)
    if _empty_of_reals(x):
        return -tf.math.log(tf.reduce_sum(x, axes, keepdims))
    return tf.reduce_min(x, axes, keepdims)


def _empty_of_reals(x: Any) -> bool:
    """Its extremum is infinite, ``log(0)``: LiteRT's kernels, and constants, would be finite."""
    return x.dtype.is_floating and 0 in x.shape


def _l1(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.reduce_sum(tf.abs(x), axes, keepdims)


def _sum_square(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.reduce_sum(tf.square(x), axes, keepdims)


def _in_reals(function: _Reduction) -> _Reduction:
    """ONNX allows integers, for which the result is truncated."""

    def on_reals(x: Any, axes: Any, keepdims: bool) -> Any:
        if x.dtype.is_floating:
            return function(x, axes, keepdims)
        real = tf.float64 if tf.executing_eagerly() else tf.float32
        return tf.cast(function(tf.cast(x, real), axes, keepdims), x.dtype)

    return on_reals


def _l2(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.sqrt(_sum_square(x, axes, keepdims))


def _log_sum(x: Any, axes: Any, keepdims: bool) -> Any:
    return tf.math.log(tf.reduce_sum(x, axes, keepdims))


def _log_sum_exp(x: Any, axes: Any, keepdims: bool) -> Any:
    """``m + log(sum(exp(x - m)))`` with the maximum ``m``, or with 0 where that is infinite."""
    largest = _max(x, axes, True)
    shift = tf.where(tf.abs(largest) < np.inf, largest, tf.zeros_like(largest))
    total = tf.math.log(tf.reduce_sum(tf.exp(x - shift), axes, True)) + shift
    # Its axes have size 1 now, so that the sum over them only removes them.
    return total if keepdims else tf.reduce_sum(total, axes)


_register("ReduceSum", (1, 11), (13,), _sum)
_register("ReduceMean", (1, 11, 13), (18,), _mean)
_register("ReduceProd", (1, 11, 13), (18,), _prod)
_register("ReduceMax", (1, 11, 12, 13), (18, 20), _max)
_register("ReduceMin", (1, 11, 12, 13), (18, 20), _min)
_register("ReduceL1", (1, 11, 13), (18,), _l1)
_register("ReduceSumSquare", (1, 11, 13), (18,), _sum_square)
_register("ReduceL2", (1, 11, 13), (18,), _in_reals(_l2))
_register("ReduceLogSum", (1, 11, 13), (18, 28), _in_reals(_log_sum))
_register("ReduceLogSumExp", (1, 11, 13), (18, 28), _in_reals(_log_sum_exp))
