"""Layer normalization in the form that TensorFlow has one kernel for, where it may.

When a graph is loaded, its remapper puts oneDNN's kernel in the place of ops of this form::

    (x - mean) * rsqrt(variance + epsilon) * scale + bias

It takes any constant for the epsilon and computes with 0.001. So the form is right with that
epsilon only, which the input is scaled for here; whatever is not of this form by intent must
not look like it. The remapper does not find the form where other optimizers were first:
they move a constant scale, and multiply what is small first where they know shapes.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from modelpack.lowering import sizes
from modelpack.lowering.context import Context, Target
from modelpack.lowering.value import Value

_EPSILON = 1e-3
"""That of the kernel, whatever the graph says."""

_SMALLEST_EPSILON = 1e-13
"""Below, squares of the scaled input might leave float32."""

# Grappler marks products so that it has brought into the best order.
_ORDERED = "_grappler_ArithmeticOptimizer_MinimizeBroadcasts"


def fuses(ctx: Context, x: Value, scale: Value, bias: Value, axis: int, epsilon: float) -> bool:
    """Whether the kernel computes a layer normalization."""
    if ctx.target is not Target.SAVEDMODEL or any(ctx.outputs[1:]):
        return False
    last = x.rank - 1
    row = (x.shape[last],)
    return (
        x.dtype is tf.float32
        and not x.is_const
        and last >= 1
        and axis % x.rank == last == x.axis(last)
        and None not in row
        and scale.shape == bias.shape == row
        and epsilon >= _SMALLEST_EPSILON
    )


def fused(x: Value, scale: Value, bias: Value, epsilon: float) -> Value:
    """The layer normalization over the last axis of a value for which it `fuses`."""
    own = Value(x.held).dims()
    # The kernel takes matrices, and batches of them.
    rows = x.held if x.rank <= 3 else sizes.reshape(x.held, [sizes.product(own[:-1]), own[-1]])
    result = _normalized(_rescaled(rows, epsilon), scale.stored().tensor, bias.tensor)
    return x.like(result if x.rank <= 3 else sizes.reshape(result, own))


def _rescaled(rows: Any, epsilon: float) -> Any:
    """``k * rows`` with ``k * k * epsilon`` the epsilon of the kernel, which then drops out."""
    factor = math.sqrt(_EPSILON / epsilon)
    return rows if math.isclose(factor, 1, rel_tol=1e-6) else rows * factor


def _normalized(rows: Any, scale: Any, bias: Any) -> Any:
    axes = [rows.shape.rank - 1]
    mean = tf.reduce_mean(rows, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(rows, mean), axes, keepdims=True)
    result = _as_written((rows - mean) * tf.math.rsqrt(variance + _EPSILON))
    return _as_written(result * scale) + bias


def _as_written(product: Any) -> Any:
    """The same product, with the factors that it has now."""
    if not tf.executing_eagerly():
        product.op._set_attr(_ORDERED, attr_value_pb2.AttrValue(b=True))
    return product
