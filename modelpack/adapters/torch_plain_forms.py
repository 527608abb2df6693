"""Ops of PyTorch written with others: the same numbers, by what its documentation says of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

_INFINITY = float("inf")

# From this many rows on, distances are computed by a product of matrices, as PyTorch does.
_MANY_ROWS = 25

_SUM, _MEAN, _MAX = range(3)  # modes of bags
_BY_PRODUCT, _NOT = 1, 2  # modes of distances: by a product of matrices always, and never
_EUCLIDEAN = 2


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """`torch.nn.functional.scaled_dot_product_attention` without dropout, of any rank from 2 on.

    The query is [..., heads, L, E], the key [..., heads, S, E], the value [..., heads, S, Ev].

    Returns:
        [..., heads, L, Ev]; a row that the mask hides whole is zeros.
    """
    if enable_gqa:
        key, value = (_repeated(item, query.shape[-3] // item.shape[-3]) for item in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    if is_causal:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device)
        return scores.masked_fill(ones.tril().logical_not(), -_INFINITY).softmax(-1) @ value
    if attn_mask is None:
        return scores.softmax(-1) @ value
    if attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), -_INFINITY)
    else:
        scores = scores + attn_mask
    hidden = scores.amax(-1, keepdim=True) == -_INFINITY
    return scores.softmax(-1).masked_fill(hidden, 0.0) @ value


def _repeated(heads: Any, times: int) -> Any:
    """Each head as many times as queries read it, one beside the other."""
    copies = heads.unsqueeze(-3).expand(*heads.shape[:-2], times, *heads.shape[-2:])
    return copies.flatten(-4, -3)


def embedding_bag(
    weight: Any, rows: Any, mode: int, scales: Any, padding: int | None
) -> tuple[Any]:
    """`torch.nn.functional.embedding_bag` of a matrix of indices, a bag each row.

    Args:
        weight: [embeddings, size].
        rows: the indices, [bags, length].
        mode: 0 sums, 1 takes means, 2 the largest.
        scales: [bags * length], of sums; or None.
        padding: the index that counts for nothing; a bag of it alone is zeros.
    """
    vectors = torch.nn.functional.embedding(rows, weight)
    if scales is not None:
        vectors = vectors * scales.reshape(rows.shape).unsqueeze(-1)
    if padding is None:
        return ({_SUM: torch.sum, _MEAN: torch.mean, _MAX: torch.amax}[mode](vectors, 1),)
    hidden = (rows == padding % weight.shape[0]).unsqueeze(-1)
    counted = hidden.logical_not().to(weight.dtype).sum(1)
    if mode == _MAX:
        largest = vectors.masked_fill(hidden, -_INFINITY).amax(1)
        return (largest.masked_fill(counted == 0, 0.0),)
    total = vectors.masked_fill(hidden, 0.0).sum(1)
    return (total if mode == _SUM else total / counted.clamp_min(1.0),)


def cdist(one: Any, other: Any, p: float = 2.0, compute_mode: int | None = None) -> Any:
    """`torch.cdist`: distances of rows, [..., P, M] and [..., R, M] to [..., P, R]."""
    rows = [item.shape[-2] for item in (one, other)]
    many = any(isinstance(count, int) and count > _MANY_ROWS for count in rows)
    if p == _EUCLIDEAN and (compute_mode == _BY_PRODUCT or (many and compute_mode != _NOT)):
        return _by_product(one, other)
    apart = (one.unsqueeze(-2) - other.unsqueeze(-3)).abs()
    if p == 0:
        return (apart != 0).to(apart.dtype).sum(-1)
    if p == 1:
        return apart.sum(-1)
    if p == _EUCLIDEAN:
        return apart.square().sum(-1).sqrt()
    return apart.amax(-1) if p == _INFINITY else apart.pow(p).sum(-1).pow(1 / p)


def _by_product(one: Any, other: Any) -> Any:
    """Euclidean distances by a product of matrices, which holds no difference of two rows."""
    squares = [item.square().sum(-1, keepdim=True) for item in (one, other)]
    ones = [torch.ones_like(item) for item in squares]
    left = torch.cat([one * -2, squares[0], ones[0]], -1)
    right = torch.cat([other, ones[1], squares[1]], -1)
    return (left @ right.transpose(-2, -1)).clamp_min(0).sqrt()


def hypot(one: Any, other: Any) -> Any:
    """`torch.hypot`, whose squares neither overflow nor vanish."""
    one, other = one.abs(), other.abs()
    large = torch.maximum(one, other)
    endless = large == _INFINITY
    small = torch.minimum(one, other).masked_fill(endless, 0.0)
    part = small / large.masked_fill(endless | (large == 0), 1.0)
    infinite = (one == _INFINITY) | (other == _INFINITY)  # beside NaN, too
    return (large * (1 + part.square()).sqrt()).masked_fill(infinite, _INFINITY)


def copysign(size: Any, sign: Any) -> Any:
    """`torch.copysign`, but for the sign of NaN."""
    below = (sign < 0) | ((sign == 0) & (1 / sign < 0))  # one by -0 is less than none
    return torch.where(below, -size.abs(), size.abs())


def rrelu(values: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Any:
    """`torch.nn.functional.rrelu` in evaluation: the mean of the slopes."""
    return torch.nn.functional.leaky_relu(values, (lower + upper) / 2)


def projected_lstm(
    values: Any,
    states: list[Any],
    weights: list[Any],
    biased: bool,
    layers: int,
    dropout: float,
    training: bool,
    both_ways: bool,
    batch_first: bool,
) -> tuple[Any, Any, Any]:
    """`torch.nn.LSTM` with ``proj_size``, step by step: its time has to be known."""
    inputs = values.transpose(0, 1) if batch_first else values
    given, of_one = iter(weights), 5 if biased else 3
    hidden: list[Any] = []
    cells: list[Any] = []
    for _ in range(layers):
        ways = []
        for back in range(1 + both_ways):
            held = [next(given) for _ in range(of_one)]
            state = [item[len(hidden)] for item in states]
            steps, last, cell = _projected(inputs.flip(0) if back else inputs, state, held)
            ways.append(steps.flip(0) if back else steps)
            hidden.append(last)
            cells.append(cell)
        inputs = torch.cat(ways, -1)
    outputs = inputs.transpose(0, 1) if batch_first else inputs
    return outputs, torch.stack(hidden), torch.stack(cells)


def _projected(inputs: Any, state: list[Any], weights: list[Any]) -> tuple[Any, Any, Any]:
    """One layer in one direction: inputs [time, batch, features], gates in PyTorch's order."""
    of_input, of_hidden, *biases, projection = weights
    given = torch.nn.functional.linear(inputs, of_input, sum(biases) if biases else None)
    hidden, cell = state
    outputs = []
    for step in given.unbind(0):
        gates = (step + torch.nn.functional.linear(hidden, of_hidden)).chunk(4, -1)
        taken, kept, shown = (gates[index].sigmoid() for index in (0, 1, 3))
        cell = kept * cell + taken * gates[2].tanh()
        hidden = torch.nn.functional.linear(shown * cell.tanh(), projection)
        outputs.append(hidden)
    return torch.stack(outputs), hidden, cell


def chunk(values: Any, chunks: int, dim: int = 0) -> Any:
    """`torch.chunk` into as many parts as asked for where the axis is always a multiple of that.

    PyTorch counts the parts at the example's size, and lets others be refused.
    """
    size = values.shape[dim]
    if isinstance(size, torch.SymInt) and statically_known_true(size % chunks == 0):
        step = size // chunks
        return [values.narrow(dim, index * step, step) for index in range(chunks)]
    if isinstance(size, int) and size == 0:
        return torch.split_with_sizes(values, [0] * chunks, dim)
    return torch.split(values, (size + chunks - 1) // chunks, dim)
