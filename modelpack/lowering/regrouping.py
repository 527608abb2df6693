"""Reshapes that leave a tensor in the order it is held in.

A reshape splits and merges neighbouring axes: it takes groups of axes to groups of axes,
each of the same number of elements. As long as the axes of each group are held next to each
other, the held tensor can be reshaped, whatever the order of the groups: a channel-last
(N, H, W, C) becomes (N, H*W, C) where the graph makes (N, C, H*W) of (N, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelpack.lowering import sizes
from modelpack.lowering.value import Size, Value

# Stand for sizes that are not known: no product of known sizes has one of them as a factor.
_PRIMES = tuple((1 << exponent) - 1 for exponent in (61, 89, 107, 127, 521, 607, 1279, 2203))


def reshaped(x: Value, wanted: Sequence[Size], own: Sequence[Size] = ()) -> Value:
    """``reshape(x, wanted)`` without a transpose where none is due.

    Args:
        wanted: the sizes; one may be -1.
        own: the result of ``x.dims()`` that those of ``wanted`` that are kept come from.
    """
    groups = None if x.is_const or x.perm is None else _groups(x, wanted, own)
    if groups is None:
        return Value(sizes.reshape(x.tensor, wanted))
    held = x.perm
    assert held is not None
    groups = sorted(groups, key=lambda group: min((held[a] for a in group[0]), default=-1))
    order = [axis for before, _ in groups for axis in before]
    target = [axis for _, after in groups for axis in after]
    result = sizes.reshape(x.transposed(order), [wanted[axis] for axis in target])
    return Value(result, perm=tuple(int(i) for i in np.argsort(target)))


def _groups(
    x: Value, wanted: Sequence[Size], own: Sequence[Size]
) -> list[tuple[list[int], list[int]]] | None:
    """The smallest groups of axes before and after; None if they cannot be told."""
    before = _symbols(x.shape)
    after = _wanted_symbols(before, wanted, own) if before else None
    if not before or after is None or 0 in before:
        return None
    groups = []
    i = j = 0
    while i < len(before) or j < len(after):
        start, end = i, j
        here = there = 1
        while (i, j) == (start, end) or here != there:
            if i < len(before) and (here <= there or j == len(after)):
                here *= before[i]
                i += 1
            elif j < len(after):
                there *= after[j]
                j += 1
            else:
                return None
        groups.append((list(range(start, i)), list(range(end, j))))
    return groups


def _symbols(shape: Sequence[int | None]) -> list[int] | None:
    if sum(size is None for size in shape) > len(_PRIMES):
        return None
    primes = iter(_PRIMES)
    return [next(primes) if size is None else size for size in shape]


def _wanted_symbols(
    before: list[int], wanted: Sequence[Size], own: Sequence[Size]
) -> list[int] | None:
    """The sizes wanted in terms of those that there are, of which at most one is open."""
    after = [_symbol(before, size, own) for size in wanted]
    known = math.prod(size for size in after if size is not None)
    total = math.prod(before)
    unknown = after.count(None)
    if unknown > 1 or known == 0 or total % known or (unknown == 0 and known != total):
        return None
    return [total // known if size is None else size for size in after]


def _symbol(before: list[int], size: Size, own: Sequence[Size]) -> int | None:
    if isinstance(size, int):
        return None if size == -1 else size
    return next((symbol for symbol, kept in zip(before, own, strict=False) if kept is size), None)
