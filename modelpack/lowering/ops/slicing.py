"""Taking tensors apart and putting them together along axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import aligned
from modelpack.lowering.moving import moved
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

_LARGEST = np.iinfo(np.int32).max


@lowers("Concat", 4, 11, 13)
def concat(ctx: Context, *inputs: Value, axis: int) -> Value:
    tensors, perm = aligned(inputs)
    held = axis % inputs[0].rank if perm is None else perm[axis]
    return Value(moved(ctx, lambda *parts: tf.concat(parts, held), *tensors), perm=perm)


@lowers("Split", 2, 11)
def split_2(
    ctx: Context, x: Value, *, axis: int = 0, split: Sequence[int] | None = None
) -> tuple[Value, ...]:
    return _split(ctx, x, axis, split or _equal_parts(ctx, x, axis))


@lowers("Split", 13)
def split_13(
    ctx: Context, x: Value, split: Value | None = None, *, axis: int = 0
) -> tuple[Value, ...]:
    return _split(ctx, x, axis, split.sizes() if split else _equal_parts(ctx, x, axis))


@lowers("Split", 18)
def split_18(
    ctx: Context,
    x: Value,
    split: Value | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
) -> tuple[Value, ...]:
    return _split(ctx, x, axis, split.sizes() if split else _chunks(ctx, x, axis))


def _equal_parts(ctx: Context, x: Value, axis: int) -> list[Size]:
    return [x.dims()[axis] // len(ctx.outputs)] * len(ctx.outputs)


def _chunks(ctx: Context, x: Value, axis: int) -> list[Size]:
    """Equal parts, of which the last ones may be smaller."""
    count, total = len(ctx.outputs), x.dims()[axis]
    chunk = -(-total // count)
    if isinstance(total, int):
        return [max(0, min(chunk, total - i * chunk)) for i in range(count)]
    return [tf.clip_by_value(total - i * chunk, 0, chunk) for i in range(count)]


def _split(ctx: Context, x: Value, axis: int, parts: Sequence[Size]) -> tuple[Value, ...]:
    held, tensor = x.axis(axis), x.tensor if x.is_const else x.held
    if len(parts) == 1:
        return (x,)
    if sizes.is_static(parts):
        given = len(parts) if len(set(parts)) == 1 else list(parts)
        pieces = _split_tensor(ctx, tensor, given, held)
        return tuple(x.like(piece) if not x.is_const else Value(piece) for piece in pieces)
    results, start = [], 0
    for part in parts:
        index = _along(held, slice(start, start + part))
        piece = moved(ctx, lambda t, index=index: t[index], tensor)
        results.append(x.like(piece) if not x.is_const else Value(piece))
        start = start + part
    return tuple(results)
