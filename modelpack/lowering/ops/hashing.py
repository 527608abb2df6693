"""MurmurHash3 of strings: the 32-bit hash of Austin Appleby's smhasher, MurmurHash3_x86_32."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelpack.lowering import loops, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.registry import MICROSOFT, lowers
from modelpack.lowering.value import Value

_C1, _C2 = 0xCC9E2D51, 0x1B873593
_BLOCK = 4  # bytes


@lowers("MurmurHash3", 1, domain=MICROSOFT, builtin=False)
def murmur_hash_3(ctx: Context, x: Value, *, positive: int = 1, seed: int = 0) -> Any:
    if x.dtype != tf.string:
        raise ctx.refuse("only the hash of strings is supported")
    texts = tf.reshape(x.tensor, [-1])
    lengths = tf.strings.length(texts)
    # One block more than the longest text fills: what is left over, and zeros after it.
    count = tf.reduce_max(tf.concat([lengths, [0]], 0)) // _BLOCK + 1
    padded = tf.io.decode_raw(texts, tf.uint8, fixed_length=count * _BLOCK)
    blocks = _numbers(tf.reshape(padded, [-1, count, _BLOCK]))
    full = lengths // _BLOCK

    def step(i: Any, carried: list[Any]) -> loops.Step:
        mixed = _rotated(carried[0] ^ _scrambled(blocks[:, i]), 13) * _u32(5) + _u32(0xE6546B64)
        return loops.Step([tf.where(i < full, mixed, carried[0])], [])

    first = tf.fill(tf.shape(texts), _u32(seed % 2**32))
    (state,), _ = loops.iterate(ctx.target, step, [first], steps=count - 1)
    state ^= _scrambled(tf.gather(blocks, full, batch_dims=1))
    state ^= tf.cast(lengths, tf.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ _right(state, shift)) * _u32(factor)
    state ^= _right(state, 16)
    return sizes.reshape(state if positive else tf.bitcast(state, tf.int32), x.dims())


def _u32(value: int) -> Any:
    return tf.constant(value, tf.uint32)


def _numbers(quads: Any) -> Any:
    """Four bytes along the last axis as one number, the lowest first."""
    wide = tf.cast(quads, tf.uint32)
    return tf.reduce_sum(wide * tf.constant([1, 1 << 8, 1 << 16, 1 << 24], tf.uint32), -1)


def _right(values: Any, places: int) -> Any:
    return tf.bitwise.right_shift(values, _u32(places))


def _rotated(values: Any, places: int) -> Any:
    return tf.bitwise.left_shift(values, _u32(places)) | _right(values, 32 - places)


def _scrambled(block: Any) -> Any:
    return _rotated(block * _u32(_C1), 15) * _u32(_C2)
