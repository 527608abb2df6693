"""Reshapes that leave a tensor in the order it is held in.

A reshape splits and merges neighbouring axes: it takes groups of axes to groups of axes,
each of the same number of elements. As long as the axes of each group are held next to each
other, the held tensor can be reshaped, whatever the order of the groups: a channel-last
(N, H, W, C) becomes (N, H*W, C) where the graph makes (N, C, H*W) of (N, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from modelpack.lowering import sizes
from modelpack.lowering.value import Size, Value

# Stand for sizes that are not known: no product of known sizes has one of them as a factor.
_PRIMES = tuple((1 << exponent) - 1 for exponent in (61, 89, 107, 127, 521, 607, 1279, 2203))


def reshaped(x: Value, wanted: Sequence[Size], own: Sequence[Size] = ()) -> Value:
    """``reshape(x, wanted)`` without a transpose where none is due.

    Args:
        x: the value.
        wanted: the sizes; one may be -1.
        own: the result of ``x.dims()`` that those of ``wanted`` that are kept come from.
    """
    held = None if x.is_const else x.perm
    groups = held and (_groups(x, wanted, own) or _groups_at_end(x.shape, wanted))
    if not held or not groups:
        return Value(sizes.reshape(x.tensor, wanted))
    groups = sorted(groups, key=lambda group: min((held[a] for a in group[0]), default=-1))
    order = [axis for before, _ in groups for axis in before]
    moves = order != [int(i) for i in np.argsort(held)]
    if moves and held[-1] == x.rank - 1:
        # A transpose is due in any case, and the graph has channels last itself.
        return Value(sizes.reshape(x.tensor, wanted))
    target = [axis for _, after in groups for axis in after]
    result = sizes.reshape(x.transposed(order), [wanted[axis] for axis in target])
    return Value(result, perm=tuple(int(i) for i in np.argsort(target)))


def _groups(
    x: Value, wanted: Sequence[Size], own: Sequence[Size]
) -> list[tuple[list[int], list[int]]] | None:
    """The smallest groups of axes before and after; None if they cannot be told."""
    before = _symbols(x.shape)
    if not before or 0 in before:
        return None
    after = _wanted_symbols(before, wanted, own)
    if after is None:
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


def _groups_at_end(
    shape: Sequence[int | None], wanted: Sequence[Size]
) -> list[tuple[list[int], list[int]]] | None:
    """Last axes whose sizes are kept are groups of their own, whatever the others become."""
    kept = 0
    for size, other in zip(reversed(shape), reversed(wanted), strict=False):
        if not isinstance(other, int) or size != other or other < 1:
            break
        kept += 1
    before, after = len(shape) - kept, len(wanted) - kept
    first = (list(range(before)), list(range(after)))
    return [first, *(([before + i], [after + i]) for i in range(kept))] if kept else None


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
    if after.count(None) > 1 or known == 0:
        return None
    if None in after:
        _make_divisible(before, known)
    total = math.prod(before)
    if total % known or (None not in after and known != total):
        return None
    return [total // known if size is None else size for size in after]


def _make_divisible(before: list[int], divisor: int) -> None:
    """Give the only unknown size the factors that it must have for a reshape to be possible.

    The (batch * heads) that becomes (batch, heads) is a multiple of the heads.
    """
    unknown = [i for i, size in enumerate(before) if size in _PRIMES]
    if len(unknown) == 1:
        total = math.prod(before)
        before[unknown[0]] *= divisor // math.gcd(total, divisor)


def _symbol(before: list[int], size: Size, own: Sequence[Size]) -> int | None:
    if isinstance(size, int):
        return None if size == -1 else size
    return next((symbol for symbol, kept in zip(before, own, strict=False) if kept is size), None)
