"""Embeddings of new rows by their nearest known rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.adapters.sklearn_converters.distances import metric_distances
from modelpack.adapters.sklearn_converters.writer import Writer

_MOST_ROWS = 4096
"""Known rows of an Isomap: it keeps the distances of all from all."""

_MOST_NEIGHBORS = 64
"""Of a linear embedding: each is a step of solving its equations."""


def isomap(w: Writer) -> None:
    """Shortest ways over known rows, projected as KernelPCA projects.

    Raises:
        NotImplementedError: neighbors within a radius, or more known rows than can be kept.
    """
    item = w.item
    known = len(item.dist_matrix_)
    if item.n_neighbors is None or known > _MOST_ROWS:
        raise NotImplementedError("neighbors within a radius, or more than 4096 known rows")
    far, nearest = _neighbors(w, item.nbrs_, item.n_neighbors)
    ways = w.op("Gather", w.constant(item.dist_matrix_), nearest, axis=0)
    there = w.op("Add", ways, w.op("Unsqueeze", far, w.integers(2)))
    shortest = w.op("Neg", w.reduced_along("ReduceMax", w.op("Neg", there), 1))
    gram = w.op("Mul", w.op("Mul", shortest, shortest), w.constant(-0.5))
    inner = item.kernel_pca_
    center = inner._centerer
    mean = w.op("Div", w.summed(gram), w.constant(float(known)))
    moved = w.op("Sub", w.op("Sub", gram, w.constant(center.K_fit_rows_[None])), mean)
    moved = w.op("Add", moved, w.constant(center.K_fit_all_))
    values = np.where(inner.eigenvalues_ == 0, 1, inner.eigenvalues_)
    axes = np.where(inner.eigenvalues_ == 0, 0, inner.eigenvectors_ / np.sqrt(values))
    w.finish(w.linear(moved, axes))


def locally_linear(w: Writer) -> None:
    """The weights that make a row of its neighbors, on their embeddings.

    Raises:
        NotImplementedError: of many neighbors.
    """
    item = w.item
    count = item.n_neighbors
    if count > _MOST_NEIGHBORS:
        raise NotImplementedError(f"{count} neighbors")
    points = np.asarray(item.nbrs_._fit_X, np.float64)
    rows = w.rows()
    _, nearest = _neighbors(w, item.nbrs_, count, rows)
    near = w.op("Gather", w.constant(points), nearest, axis=0)
    apart = w.op("Sub", near, w.op("Unsqueeze", rows, w.integers(1)))
    gram = w.op("MatMul", apart, w.op("Transpose", apart, perm=[0, 2, 1]))
    trace = w.summed(w.reduced_along("ReduceSum", w.op("Mul", apart, apart), 1))
    positive = w.op("Greater", trace, w.constant(0.0))
    reg = w.constant(float(item.reg))
    ridge = w.op("Where", positive, w.op("Mul", trace, reg), reg)
    ridge = w.op("Mul", w.op("Unsqueeze", ridge, w.integers(2)), w.constant(np.eye(count)[None]))
    weights = _solved(w, w.op("Add", gram, ridge), count)
    weights = w.op("Div", weights, w.reduced_along("ReduceSum", weights, 1, keepdims=1))
    placed = w.op("Gather", w.constant(item.embedding_), nearest, axis=0)
    w.finish(w.reduced_along("ReduceSum", w.op("Mul", placed, weights), 1))


def _solved(w: Writer, matrices: str, size: int) -> str:
    """``x`` with ``A x = 1``, ``[rows, size, 1]``, of positive definite matrices (Gauss-Jordan)."""
    ones = w.op(
        "Mul", w.op("Slice", matrices, *(w.integers(i) for i in (0, 1, 2))), w.constant(0.0)
    )
    whole = w.op("Concat", matrices, w.op("Add", ones, w.constant(1.0)), axis=2)
    for pivot in range(size):
        column = w.op("Gather", whole, w.integers(pivot), axis=2)
        row = w.op("Gather", whole, w.integers(pivot), axis=1)
        own = w.op("Gather", column, w.integers(pivot), axis=1)
        less = w.op("Sub", column, w.constant(np.eye(size)[None, :, [pivot]]))
        whole = w.op("Sub", whole, w.op("Mul", less, w.op("Div", row, own)))
    return w.op("Gather", whole, w.integers(size), axis=2)


def _neighbors(w: Writer, neighbors: Any, count: int, rows: str = "") -> tuple[str, str]:
    """Distances and positions of the nearest known rows, ``[rows, count]``."""
    p = neighbors.effective_metric_params_.get("p", neighbors.p)
    far = metric_distances(w, rows or w.rows(), neighbors._fit_X, neighbors.effective_metric_, p)
    less, nearest = w.ops("TopK", 2, far, w.integers(count), largest=0, axis=1)
    return less, nearest
