"""Making tensors larger by repeating them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.moving import moved
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value


@lowers("Expand", 8, 13)
def expand(ctx: Context, x: Value, shape: Value) -> Value:
    """Broadcasting goes both ways: a size of 1 in ``shape`` leaves that of ``x``."""
    wanted, own = shape.sizes(), x.dims()
    rank = max(len(wanted), len(own))
    wanted = [1] * (rank - len(wanted)) + wanted
    own = [1] * (rank - len(own)) + own
    target = [_broadcast(a, b) for a, b in zip(own, wanted, strict=True)]
    if len(target) == x.rank and all(a is b for a, b in zip(own, target, strict=True)):
        return x
    perm = x.perm if x.rank == rank else None
    order = range(rank) if perm is None else [perm.index(axis) for axis in range(rank)]
    held = [target[axis] for axis in order]
    result = moved(ctx, lambda t: tf.broadcast_to(t, sizes.pack(held)), x.physical(perm))
    return Value(sizes.shaped(result, held), perm=perm)


def _broadcast(own: Size, wanted: Size) -> Size:
    if isinstance(wanted, int):
        if wanted == 1 or (isinstance(own, int) and own != 1):
            return own
        return wanted
    if isinstance(own, int):
        return wanted if own == 1 else own
    return tf.where(tf.equal(own, 1), wanted, own)


@lowers("Tile", 6, 13)
def tile(ctx: Context, x: Value, repeats: Value) -> Value:
    times = repeats.sizes()
    held = times if x.perm is None else [times[x.perm.index(axis)] for axis in range(x.rank)]
    repeat = _repeated_apart if ctx.builtin_only else _repeated
    result = moved(ctx, lambda t: repeat(t, held), x.physical(x.perm))
    dims = x.physical(x.perm).shape.as_list()
    known = [
        n * k if n is not None and isinstance(k, int) else None
        for n, k in zip(dims, held, strict=True)
    ]
    return x.like(sizes.shaped(result, known))


def _repeated(tensor: Any, times: Sequence[Size]) -> Any:
    return tf.tile(tensor, sizes.pack(times))


def _repeated_apart(tensor: Any, times: Sequence[Size]) -> Any:
    """Repeat a dynamic axis a constant number of times along one of its own, and merge them.

    Of arithmetic behind a tile the TFLite converter takes the tile away, as a broadcast would
    do, if the shapes are the same before and after. To it all dynamic sizes are the same.
    """
    dims = Value(tensor).dims()
    apart: list[Size] = []
    multiples: list[Size] = []
    for size, count in zip(dims, times, strict=True):
        own = not isinstance(size, int) and isinstance(count, int) and count != 1
        apart += [1, size] if own else [size]
        multiples += [count, 1] if own else [count]
    if len(apart) == len(dims):
        return _repeated(tensor, times)
    merged = [size * count for size, count in zip(dims, times, strict=True)]
    return sizes.reshape(_repeated(sizes.reshape(tensor, apart), multiples), merged)
