"""Estimators that are one matrix, or little more."""

from __future__ import annotations

import numpy as np

from modelpack.adapters.sklearn_converters.writer import Writer


def factor_analysis(w: Writer) -> None:
    """Expected latent variables (Barber, 21.2.33), as ``FactorAnalysis.transform``."""
    item = w.item
    weighted = item.components_ / item.noise_variance_
    covariance = np.linalg.inv(np.eye(len(item.components_)) + weighted @ item.components_.T)
    w.finish(w.linear(_centered(w, item.mean_, weighted.T), covariance))


def fast_ica(w: Writer) -> None:
    mean = w.item.mean_ if w.item.whiten else None
    w.finish(_centered(w, mean, w.item.components_.T))


def principal_components(w: Writer) -> None:
    """Projections on the components (PCA, IncrementalPCA), rounded as ``transform`` does.

    The offset and the scale are computed in the dtype that the estimator was fitted on.
    """
    item = w.item
    offset = item.mean_.reshape(1, -1) @ item.components_.T
    projected = w.op("Sub", w.linear(w.rows(), item.components_.T), w.constant(offset))
    if item.whiten:
        scale = np.sqrt(item.explained_variance_)
        least = np.finfo(scale.dtype).eps
        projected = w.op("Div", projected, w.constant(np.maximum(scale, least)[None]))
    w.finish(projected)


def sparse_pca(w: Writer) -> None:
    """Ridge regression on the components, whose solution is linear in the row."""
    parts = w.item.components_
    gram = parts @ parts.T
    flat = gram + w.item.ridge_alpha * np.eye(len(gram))
    w.finish(_centered(w, w.item.mean_, np.linalg.solve(flat, parts).T))


def partial_least_squares(w: Writer) -> None:
    """The prediction of a regressor (CCA, PLSCanonical)."""
    item = w.item
    w.finish(w.op("Add", _centered(w, item._x_mean, item.coef_.T), w.constant(item.intercept_)))


def pls_svd(w: Writer) -> None:
    item = w.item
    w.finish(_centered(w, item._x_mean, item.x_weights_ / item._x_std[:, None]))


def random_projection(w: Writer) -> None:
    matrix = w.item.components_
    w.finish(w.linear(w.rows(), np.asarray(matrix.todense()).T))


def restricted_boltzmann(w: Writer) -> None:
    item = w.item
    w.finish(w.sigmoid(w.linear(w.rows(), item.components_.T, item.intercept_hidden_)))


def feature_agglomeration(w: Writer) -> None:
    """One column for each cluster of columns.

    Raises:
        NotImplementedError: columns are pooled by another function than NumPy's mean, max, min.
    """
    pools = {np.mean: "ReduceMean", np.max: "ReduceMax", np.min: "ReduceMin"}
    kind = pools.get(w.item.pooling_func)
    if kind is None:
        raise NotImplementedError(f"the pooling_func {w.item.pooling_func}")
    labels = w.item.labels_
    rows = w.rows()
    parts = [w.columns(rows, np.flatnonzero(labels == label)) for label in np.unique(labels)]
    w.finish(w.joined([w.reduced(kind, part) for part in parts]))


def selection(w: Writer) -> None:
    """Some of the columns, those that a selector keeps."""
    w.finish(w.columns(w.rows(), w.item.get_support(indices=True)))


def _centered(w: Writer, mean: object, matrix: object) -> str:
    rows = w.rows()
    return w.linear(rows if mean is None else w.op("Sub", rows, w.constant(mean)), matrix)
