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
    along = sizes.single(axis)
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
    size = Value(tensor).dims()[axis]

    def doubled(product: Any, step: Any) -> tuple[Any, Any]:
        return product * _shifted(product, axis, step, reverse), step * 2

    product = _shifted(tensor, axis, 1, reverse) if exclusive else tensor
    if not isinstance(size, int):
        return tf.while_loop(
            lambda _, step: step < size,
            doubled,
            (product, tf.constant(1)),
            shape_invariants=(tensor.shape, tf.TensorShape([])),
        )[0]
    step = 1
    while step < size:
        product, step = doubled(product, step)
    return product


def _shifted(tensor: Any, axis: int, by: Any, back: bool) -> Any:
    """Moved along an axis, with ones where nothing comes from."""
    size = Value(tensor).dims()[axis]
    before = [0] * tensor.shape.rank
    after = [0] * tensor.shape.rank
    (after if back else before)[axis] = by
    wide = tf.pad(tensor, tf.stack([before, after], 1), constant_values=1)
    kept = slice(by, None) if back else slice(0, size)
    index = [kept if i == axis else slice(None) for i in range(tensor.shape.rank)]
    return sizes.shaped(wide[tuple(index)], tensor.shape)


@lowers("ReverseSequence", 10, 28)
def reverse_sequence(
    ctx: Context, x: Value, sequence_lens: Value, *, batch_axis: int = 1, time_axis: int = 0
) -> Any:
    lengths = tf.cast(sequence_lens.tensor, tf.int32)

    def reversed_(tensor: Any) -> Any:
        return tf.reverse_sequence(tensor, lengths, x.axis(time_axis), x.axis(batch_axis))

    return x.like(moved(ctx, reversed_, x.physical(x.perm), kernel=dtypes.TFLITE))
