"""Bitwise logic and shifts. Of these TFLite has the exclusive or and the right shift."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.dtypes import built_in
from modelpack.lowering.layout import elementwise
from modelpack.lowering.registry import lowers


@lowers("BitwiseNot", 18)
@elementwise
def bitwise_not(ctx: Context, x: Any) -> Any:
    if ctx.builtin_only:
        return built_in(ctx, lambda wide: -wide - 1, x)
    return tf.bitwise.invert(x)


@lowers("BitwiseXor", 18)
@elementwise
def bitwise_xor(ctx: Context, a: Any, b: Any) -> Any:
    if ctx.builtin_only:
        return _in_words(tf.bitwise.bitwise_xor, a, b)
    return tf.bitwise.bitwise_xor(a, b)


@lowers("BitwiseAnd", 18)
@elementwise
def bitwise_and(ctx: Context, a: Any, b: Any) -> Any:
    return _in_words(_and, a, b) if ctx.builtin_only else tf.bitwise.bitwise_and(a, b)


@lowers("BitwiseOr", 18)
@elementwise
def bitwise_or(ctx: Context, a: Any, b: Any) -> Any:
    if ctx.builtin_only:
        return _in_words(lambda a, b: a + b - _and(a, b), a, b)
    return tf.bitwise.bitwise_or(a, b)


def _in_words(function: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """Apply a function of int32 tensors to the bits of integers."""
    own = a.dtype
    if own.size < 8:
        return tf.cast(function(tf.cast(a, tf.int32), tf.cast(b, tf.int32)), own)
    rank = max(a.shape.rank, b.shape.rank)
    words = [_expanded(tensor, rank) for tensor in (a, b)]
    return tf.bitcast(function(*(tf.bitcast(word, tf.int32) for word in words)), own)


def _expanded(tensor: Any, rank: int) -> Any:
    """Axes of size 1 in front: the words of an integer become a last axis."""
    for _ in range(rank - tensor.shape.rank):
        tensor = tf.expand_dims(tensor, 0)
    return tensor


def _and(a: Any, b: Any) -> Any:
    """The bits in both: ``(a + b - (a xor b)) / 2``, by halves of a word to have no overflow."""
    half = 1 << 16
    both = [
        tf.bitwise.right_shift(x + y - tf.bitwise.bitwise_xor(x, y), tf.constant(1))
        for x, y in zip(_halves(a, half), _halves(b, half), strict=True)
    ]
    return both[0] * half + both[1]


def _halves(word: Any, half: int) -> tuple[Any, Any]:
    low = tf.math.floormod(word, half)
    return tf.bitwise.right_shift(word - low, tf.constant(16)), low


@lowers("BitShift", 11, 28)
@elementwise
def bit_shift(ctx: Context, x: Any, y: Any, *, direction: str) -> Any:
    """Shift; by more than the width all bits are shifted out.

    Kernels leave that undefined, so it is told apart here.
    """
    bits = 8 * x.dtype.size
    count = _count(y, bits)
    inside = count < bits
    within = tf.where(inside, count, bits - 1)
    if direction == "LEFT":
        shifted = _left_shift(ctx, x, within)
        return _or_zero(inside, shifted)
    if ctx.builtin_only and x.dtype.size == 8:
        raise ctx.refuse("there is no right shift of 64 bits")
    shifted = tf.bitwise.right_shift(x, tf.cast(within, x.dtype))
    return _or_zero(inside, shifted) if x.dtype.is_unsigned else shifted


def _count(y: Any, bits: int) -> Any:
    """How far to shift, as int32 from 0 to ``bits``; negative counts are too far, as in ONNX."""
    wide = tf.bitcast(y, tf.int64) if y.dtype is tf.uint64 else tf.cast(y, tf.int64)
    valid = tf.logical_and(wide >= 0, wide < bits)
    return tf.where(valid, tf.cast(tf.maximum(tf.minimum(wide, bits), 0), tf.int32), bits)


def _left_shift(ctx: Context, x: Any, count: Any) -> Any:
    if not ctx.builtin_only:
        return tf.bitwise.left_shift(x, tf.cast(count, x.dtype))
    bits = 64 if x.dtype.size > 2 else 32
    powers = tf.constant((np.uint64(1) << np.arange(bits, dtype=np.uint64)).astype(f"int{bits}"))
    return built_in(ctx, lambda wide: _times(wide, tf.gather(powers, count)), x)


def _times(wide: Any, power: Any) -> Any:
    return tf.cast(tf.cast(wide, power.dtype) * power, wide.dtype)


def _or_zero(condition: Any, x: Any) -> Any:
    """Select between an integer and 0, in the dtypes that TFLite's kernel takes."""
    if x.dtype is tf.uint64:
        return tf.bitcast(_or_zero(condition, tf.bitcast(x, tf.int64)), tf.uint64)
    wide = tf.int64 if x.dtype.size > 2 else tf.int32
    return tf.cast(tf.where(condition, tf.cast(x, wide), tf.zeros([], wide)), x.dtype)
