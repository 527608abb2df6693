"""Softmax and its logarithm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value

_AXES = 5
"""Axes of TensorFlow's kernel (oneDNN)."""


@lowers("Softmax", 1, 11)
def softmax_1(x: Value, *, axis: int = 1) -> Any:
    return _over_trailing_axes(tf.nn.softmax, x, axis)


@lowers("Softmax", 13)
def softmax_13(x: Value, *, axis: int = -1) -> Value:
    return _along(tf.nn.softmax, x, axis)


@lowers("LogSoftmax", 1, 11)
def log_softmax_1(x: Value, *, axis: int = 1) -> Any:
    return _over_trailing_axes(tf.nn.log_softmax, x, axis)


@lowers("LogSoftmax", 13)
def log_softmax_13(x: Value, *, axis: int = -1) -> Value:
    return _along(tf.nn.log_softmax, x, axis)


def _along(function: Callable[[Any], Any], x: Value, axis: int) -> Value:
    """Along one axis; the kernels want it last."""
    if x.rank == 0:
        return Value(function(x.tensor[None])[0])
    held = x.axis(axis)
    if held == x.rank - 1 and not x.is_const:
        return x.like(_along_last(function, x.held))
    order = [i for i in range(x.rank) if i != axis % x.rank] + [axis % x.rank]
    result = _along_last(function, x.transposed(order))
    return Value(result, perm=tuple(order.index(i) for i in range(x.rank)))


def _along_last(function: Callable[[Any], Any], tensor: Any) -> Any:
    if tensor.shape.rank <= _AXES:
        return function(tensor)
    dims = Value(tensor).dims()
    rows = sizes.reshape(tensor, [sizes.product(dims[:-1]), dims[-1]])
    return sizes.reshape(function(rows), dims)


def _over_trailing_axes(function: Callable[[Any], Any], x: Value, axis: int) -> Any:
    """Before opset 13: over all axes from ``axis`` on together."""
    axis = axis % x.rank if axis < 0 else axis
    dims = x.dims()
    if axis < x.rank and all(size == 1 for size in x.shape[axis + 1 :]):
        return _along(function, x, axis)
    rows, columns = sizes.product(dims[:axis]), sizes.product(dims[axis:])
    flat = sizes.reshape(x.tensor, [rows, columns])
    return sizes.reshape(function(flat), dims)
