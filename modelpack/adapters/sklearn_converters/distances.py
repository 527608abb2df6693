"""Distances and kernels between rows and points that an estimator keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.samples import Array

# In points that each row is subtracted from, one by one: 128 MB for 512 rows.
_FEW_NUMBERS = 1 << 15


def squared_distances(w: Writer, rows: str, points: Any) -> str:
    """Squared Euclidean distances, ``[rows, points]``.

    Of many points by ``|x|^2 - 2xy + |y|^2``, which loses digits near a point. Everything is
    moved to where the points are first: it loses more far from zero.
    """
    points = np.asarray(points, np.float64)
    if points.size <= _FEW_NUMBERS:
        apart = differences(w, rows, points)
        return w.summed(w.op("Mul", apart, apart), keepdims=0)
    middle = points.mean(0)
    moved, near = w.op("Sub", rows, w.constant(middle)), points - middle
    own = w.summed(w.op("Mul", moved, moved))
    crossed = w.linear(moved, -2 * near.T, (near**2).sum(1))
    return w.op("Max", w.op("Add", own, crossed), w.constant(0.0))


def distances(w: Writer, rows: str, points: Any) -> str:
    """Euclidean distances, ``[rows, points]``."""
    return w.op("Sqrt", squared_distances(w, rows, points))


def differences(w: Writer, rows: str, points: Any) -> str:
    """``rows - points``, ``[rows, points, columns]``."""
    return w.op("Sub", w.op("Unsqueeze", rows, w.integers(1)), w.constant(np.asarray(points)[None]))


def metric_distances(w: Writer, rows: str, points: Any, metric: str, p: float = 2) -> str:
    """Distances of one of scikit-learn's metrics.

    Raises:
        NotImplementedError: of another metric.
    """
    if metric == "minkowski":
        metric = {1.0: "manhattan", 2.0: "euclidean"}.get(float(p), metric)
    if metric in {"euclidean", "l2"}:
        return distances(w, rows, points)
    if metric == "sqeuclidean":
        return squared_distances(w, rows, points)
    if metric == "cosine":
        likeness = w.linear(*_of_length_one(w, rows, np.asarray(points, np.float64)))
        return w.op("Max", w.op("Sub", w.constant(1.0), likeness), w.constant(0.0))
    apart = w.op("Abs", differences(w, rows, points))
    if metric in {"manhattan", "cityblock", "l1"}:
        return w.summed(apart, keepdims=0)
    if metric in {"chebyshev", "infinity"}:
        return w.reduced("ReduceMax", apart, keepdims=0)
    if metric == "minkowski":
        total = w.summed(w.op("Pow", apart, w.constant(float(p))), keepdims=0)
        return w.op("Pow", total, w.constant(1 / p))
    raise NotImplementedError(f"the metric {metric!r}")


# --- kernels -------------------------------------------------------------------------------


def kernel(w: Writer, rows: str, points: Any, name: Any, **given: Any) -> str:
    """``sklearn.metrics.pairwise.pairwise_kernels``, ``[rows, points]``.

    Args:
        w: of the estimator.
        rows: float64 ``[rows, columns]``.
        points: ``[points, columns]``.
        name: of the kernel, as scikit-learn has it.
        given: its parameters; None for scikit-learn's default.

    Raises:
        NotImplementedError: of a kernel that is none of scikit-learn's.
    """
    points = np.asarray(points, np.float64)
    gamma = 1.0 / points.shape[1] if given.get("gamma") is None else given["gamma"]
    coef0 = 1.0 if given.get("coef0") is None else given["coef0"]
    degree = 3 if given.get("degree") is None else given["degree"]
    if name in {"linear", "cosine"}:
        return w.linear(*_of_length_one(w, rows, points) if name == "cosine" else (rows, points.T))
    if name == "rbf":
        return w.op("Exp", w.op("Mul", squared_distances(w, rows, points), w.constant(-gamma)))
    if name == "laplacian":
        far = metric_distances(w, rows, points, "manhattan")
        return w.op("Exp", w.op("Mul", far, w.constant(-gamma)))
    if name in {"poly", "polynomial"}:
        inner = w.linear(rows, gamma * points.T, coef0)
        return w.op("Pow", inner, w.constant(float(degree)))
    if name == "sigmoid":
        return w.op("Tanh", w.linear(rows, gamma * points.T, coef0))
    if name in {"chi2", "additive_chi2"}:
        ratio = _chi_squared(w, rows, points)
        gamma = 1.0 if given.get("gamma") is None else given["gamma"]
        return ratio if name[0] == "a" else w.op("Exp", w.op("Mul", ratio, w.constant(gamma)))
    raise NotImplementedError(f"the kernel {name!r}")


def _of_length_one(w: Writer, rows: str, points: Array) -> tuple[str, Array]:
    lengths = np.linalg.norm(points, axis=1)
    own = w.op("Sqrt", w.summed(w.op("Mul", rows, rows)))
    own = w.op("Where", w.op("Equal", own, w.constant(0.0)), w.constant(1.0), own)
    return w.op("Div", rows, own), (points / np.where(lengths == 0, 1, lengths)[:, None]).T


def _chi_squared(w: Writer, rows: str, points: Array) -> str:
    """``-sum((x - y)^2 / (x + y))``, where 0 / 0 is 0."""
    apart = differences(w, rows, points)
    both = w.op("Add", w.op("Unsqueeze", rows, w.integers(1)), w.constant(points[None]))
    none = w.op("Equal", both, w.constant(0.0))
    ratio = w.op("Div", w.op("Mul", apart, apart), w.op("Where", none, w.constant(1.0), both))
    return w.op("Neg", w.summed(w.op("Where", none, w.constant(0.0), ratio), keepdims=0))
