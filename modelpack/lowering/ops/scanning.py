"""Running sums and products along an axis, and sequences read backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from modelpack.lowering import dtypes, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.moving import moved
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("CumSum", 11, 14)
def cum_sum(ctx: Context, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
    def sums(tensor: Any, along: int) -> Any:
        return tf.cumsum(tensor, along, bool(exclusive), bool(reverse))

    return _scanned(ctx, x, axis, sums)


@lowers("CumProd", 26)
def cum_prod(ctx: Context, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
    def products(tensor: Any, along: int) -> Any:
        if ctx.builtin_only:
            return _products(tensor, along, bool(exclusive), bool(reverse))
        return tf.math.cumprod(tensor, along, bool(exclusive), bool(reverse))

    return _scanned(ctx, x, axis, products)


def _scanned(ctx: Context, x: Value, axis: Value, scan: Callable[[Any, int], Any]) -> Value:
    kernel = dtypes.TFLITE if ctx.builtin_only else (x.dtype,)
    along = axis.sizes()[0]
    if isinstance(along, int):
        held = x.axis(along)
        tensor = x.physical(x.perm)
        return x.like(dtypes.computed_in(kernel, lambda t: scan(t, held), tensor))
    # Kernels want to know the axis: scan along each, take what is asked for.
    along = tf.where(along < 0, along + x.rank, along)
    result = x.tensor
    for candidate in range(x.rank):
        scanned = dtypes.computed_in(kernel, lambda t, a=candidate: scan(t, a), x.tensor)
        result = tf.where(tf.equal(along, candidate), scanned, result)
    return Value(result)


def _products(tensor: Any, axis: int, exclusive: bool, reverse: bool) -> Any:
    """Running products by doubling: after step ``i`` each is of ``2 ** i`` elements.

    The scan of Hillis and Steele (1986), in as many steps as the number of elements has bits.
    """
    size = tensor.shape[axis]
    rank = tensor.shape.rank

    def shifted(x: Any, by: Any) -> Any:
        edges = [[0, 0] for _ in range(rank)]
        edges[axis] = [0, by] if reverse else [by, 0]
        wide = tf.pad(x, edges, constant_values=1)
        index = [slice(None)] * rank
        index[axis] = slice(by, None) if reverse else slice(0, Value(x).dims()[axis])
        return wide[tuple(index)]

    if size is None:
        return None
    result = shifted(tensor, 1) if exclusive else tensor
    step = 1
    while step < size:
        result = result * shifted(result, step)
        step *= 2
    return result


@lowers("ReverseSequence", 10, 28)
def reverse_sequence(
    ctx: Context, x: Value, sequence_lens: Value, *, batch_axis: int = 1, time_axis: int = 0
) -> Any:
    lengths = tf.cast(sequence_lens.tensor, tf.int32)

    def reversed_(tensor: Any) -> Any:
        return tf.reverse_sequence(tensor, lengths, x.axis(time_axis), x.axis(batch_axis))

    return x.like(moved(ctx, reversed_, x.physical(x.perm)))
