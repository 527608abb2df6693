"""Reading elements by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.indices import element_offsets, from_start, row_offsets
from modelpack.lowering.moving import gathered
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("Gather", 1, 11, 13)
def gather(ctx: Context, x: Value, indices: Value, *, axis: int = 0) -> Value:
    axis = axis % x.rank
    chosen = from_start(indices, x.dims()[axis])
    if indices.rank > 1:
        return Value(gathered(ctx, x.tensor, chosen, axis))
    held = x.axis(axis)
    result = gathered(ctx, x.physical(x.perm), chosen, held)
    if indices.rank == 1 or x.perm is None:
        return x.like(result)
    kept = [a for position, a in enumerate(x.perm) if position != axis]
    return Value(result, perm=tuple(int(i) for i in np.argsort(np.argsort(kept))))


@lowers("GatherElements", 11, 13)
def gather_elements(ctx: Context, x: Value, indices: Value, *, axis: int = 0) -> Any:
    offsets = element_offsets(x, indices, axis % x.rank)
    flat = sizes.reshape(x.tensor, [-1])
    result = gathered(ctx, flat, offsets)
    return sizes.shaped(result, sizes.static(indices.shape))


@lowers("GatherND", 11)
def gather_nd_11(ctx: Context, x: Value, indices: Value) -> Any:
    return gather_nd_12(ctx, x, indices)


@lowers("GatherND", 12, 13)
def gather_nd_12(ctx: Context, x: Value, indices: Value, *, batch_dims: int = 0) -> Any:
    depth = indices.shape[-1]
    if depth is None:
        raise ctx.refuse("the last size of the indices is not known, so neither is the rank")
    offsets = row_offsets(x, indices, depth, batch_dims)
    dims = x.dims()
    inner = dims[batch_dims + depth :]
    rows = sizes.reshape(x.tensor, [sizes.product(dims[: batch_dims + depth]), *inner])
    result = gathered(ctx, rows, offsets)
    return sizes.shaped(result, [*sizes.static(indices.shape[:-1]), *sizes.static(inner)])
