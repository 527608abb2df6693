"""Layout: how ops act on values that are held in another order of axes than the graph's.

ONNX's convolutions are channel-first, TensorFlow's kernels channel-last. A convolution
leaves its result channel-last; ops that do not care about the order pass it on; an op that
does care asks for ``value.tensor`` and gets a transpose, once. Correctness never depends on
any of this: ``value.tensor`` is always in the graph's order.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.value import Perm, Value


def channel_last(rank: int) -> Perm:
    """The permutation of a value of ONNX's order N, C, spatial... held as N, spatial..., C."""
    return (0, rank - 1, *range(1, rank - 1))


def to_channel_last(x: Value) -> Any:
    """The tensor in the order N, spatial..., C."""
    return x.physical(channel_last(x.rank))


def from_channel_last(tensor: Any) -> Value:
    """Wrap a tensor in the order N, spatial..., C as the graph's N, C, spatial..."""
    return Value(tensor, perm=channel_last(tensor.shape.rank))


def channels_moved_last(x: Value) -> Value:
    """The value in the order N, spatial..., C of one in the order N, C, spatial..."""
    return permuted(x, [int(axis) for axis in np.argsort(channel_last(x.rank))])


def elementwise(function: Callable[..., Any]) -> Callable[..., Value]:
    """Turn a function of tensors that broadcast into one of values, of whatever order.

    The function gets tensors for its positional arguments (None stays None), and its
    keyword arguments as they are; a first parameter ``ctx`` is passed on.
    """
    takes_context = next(iter(inspect.signature(function).parameters), "") == "ctx"

    @functools.wraps(function)
    def on_values(*arguments: Any, **attributes: Any) -> Value:
        context, values = (arguments[:1], arguments[1:]) if takes_context else ((), arguments)
        tensors, perm = aligned(values)
        return Value(function(*context, *tensors, **attributes), perm=perm)

    return on_values


def aligned(values: Sequence[Value | None]) -> tuple[list[Any], Perm | None]:
    """Tensors of values in one common order, broadcasting as in the graph's order.

    Returns:
        the tensors (None for None), and the permutation of whatever is computed from
        them element by element.
    """
    present = [value for value in values if value is not None]
    perm = _common_perm(present)
    if perm is None:
        return [None if value is None else value.tensor for value in values], None
    return [None if value is None else _expanded(value, perm) for value in values], perm


def _common_perm(values: Sequence[Value]) -> Perm | None:
    """The order of the first non-constant value of the highest rank that is not in ONNX's.

    A transpose that only waits to be needed gives way to a value of the same shape in
    ONNX's order: a transformer's residual stream follows its matrix products. Images stay
    channel-last.
    """
    rank = max(value.rank for value in values)
    first = next((v for v in values if v.perm is not None and v.rank == rank), None)
    if first is None:
        return None
    if rank > 3 and first.perm == channel_last(rank):
        return first.perm
    if any(v.perm is None and not v.is_const and v.shape == first.shape for v in values):
        return None
    return first.perm


def _expanded(value: Value, perm: Perm) -> Any:
    """The tensor of a value of at most the rank of ``perm``, in its order."""
    missing = len(perm) - value.rank
    if missing == 0:
        return value.physical(perm)
    if value.rank == 0:
        return value.tensor
    if value.is_const:
        const = value.const
        assert const is not None
        wide = value.constant_of(const.reshape((1,) * missing + const.shape))
        return wide.physical(perm)
    shape = tf.concat([[1] * missing, tf.shape(value.tensor)], 0)
    if None not in value.shape:
        shape = [1] * missing + list(value.shape)
    wide_tensor = tf.reshape(value.tensor, shape)
    wide_tensor.set_shape([1] * missing + list(value.shape))
    return Value(wide_tensor).physical(perm)


def reduced(
    x: Value, axes: Sequence[int], keepdims: bool, function: Callable[[Any, list[int], bool], Any]
) -> Value:
    """Apply ``function(tensor, axes, keepdims)`` over logical axes of a value.

    Without ``keepdims`` the axes that remain stay in the order they are held in.
    """
    result = function(x.held if not x.is_const else x.tensor, [x.axis(a) for a in axes], keepdims)
    if x.perm is None or keepdims:
        return x.like(result) if not x.is_const else Value(result)
    gone = {axis % x.rank for axis in axes}
    held = [axis for position, axis in enumerate(x.perm) if position not in gone]
    return Value(result, perm=tuple(int(i) for i in np.argsort(np.argsort(held))))


def permuted(x: Value, order: Sequence[int]) -> Value:
    """The value ``transpose(x, order)``, without any op."""
    if x.is_const:
        const = x.const
        assert const is not None
        return x.constant_of(const.transpose(order))
    perm = x.perm or tuple(range(x.rank))
    return Value(x.held, perm=tuple(perm[axis] for axis in order))


def matrices_transposed(x: Value) -> Value:
    """The value with its last two axes exchanged, without any op."""
    return permuted(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])
