"""Estimators that look for the nearest of some points, or for how far away they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier

from modelpack.adapters.sklearn_converters.distances import (
    distances,
    metric_distances,
    squared_distances,
)
from modelpack.adapters.sklearn_converters.labels import finish_chosen, finish_labels
from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.adapters.sklearn_signature import has_several_labels
from modelpack.samples import Array


def birch(w: Writer) -> None:
    item = w.item
    far = distances(w, w.rows(), item.subcluster_centers_)
    nearest = w.op("ArgMin", far, axis=1, keepdims=0)
    w.finish(w.op("Gather", w.constant(item.subcluster_labels_, "int64"), nearest), far)


def nearest_center(w: Writer) -> None:
    """The nearest of the cluster centers (MeanShift, AffinityPropagation)."""
    far = squared_distances(w, w.rows(), w.item.cluster_centers_)
    w.finish(w.op("ArgMin", far, axis=1, keepdims=0), far)


def bisecting_k_means(w: Writer) -> None:
    """The leaf of a tree whose nodes ask which of two centers is nearer.

    Each leaf is told by the nodes on the way: a row is in it if it goes the right way at all.
    """
    item = w.item
    shift = getattr(item, "_X_mean", 0.0)
    rows = w.rows()
    nodes: list[tuple[Any, Any]] = []
    leaves: dict[int, list[tuple[int, bool]]] = {}

    def visit(node: Any, way: list[tuple[int, bool]]) -> None:
        if node.left is None:
            leaves[node.label] = way
            return
        nodes.append((node.left.center + shift, node.right.center + shift))
        here = len(nodes) - 1
        visit(node.left, [*way, (here, True)])
        visit(node.right, [*way, (here, False)])

    visit(item._bisecting_tree, [])
    far = distances(w, rows, item.cluster_centers_)
    if not nodes:
        return w.finish(w.op("ArgMin", far, axis=1, keepdims=0), far)
    left, right = (np.array(side) for side in zip(*nodes, strict=True))
    # |x - l|^2 <= |x - r|^2, written so that x meets one matrix.
    border = w.linear(rows, 2 * (right - left).T, (left**2).sum(1) - (right**2).sum(1))
    goes_left = w.cast(w.op("LessOrEqual", border, w.constant(0.0)), "float64")
    # Of a leaf with n nodes above, n go the right way: + 1 for left, and 1 - left for right.
    matrix, offset = np.zeros((len(nodes), len(leaves))), np.zeros(len(leaves))
    for label, way in leaves.items():
        for index, is_left in way:
            matrix[index, label] = 1.0 if is_left else -1.0
            offset[label] += 0.0 if is_left else 1.0
        offset[label] -= len(way)
    reached = w.linear(goes_left, matrix, offset)
    return w.finish(w.op("ArgMax", reached, axis=1, keepdims=0), far)


def nearest_centroid(w: Writer) -> None:
    """The nearest centroid, or the best discriminant score where priors differ.

    Raises:
        NotImplementedError: of metrics other than Euclidean and Manhattan distance.
    """
    item = w.item
    rows = w.rows()
    scores = _discriminant(w, rows)
    if np.isclose(item.class_prior_, 1 / len(item.classes_)).all():
        far = metric_distances(w, rows, item.centroids_, item.metric)
        best = w.op("ArgMin", far, axis=1, keepdims=0)
    else:
        best = w.op("ArgMax", scores, axis=1, keepdims=0)
    w.finish(w.chosen_labels(best, item.classes_), w.op("Softmax", scores, axis=1))


def _discriminant(w: Writer, rows: str) -> str:
    """Scores of classes (eq. 18.2 of The Elements of Statistical Learning)."""
    item = w.item
    spread = np.where(item.within_class_std_dev_ == 0, 1.0, item.within_class_std_dev_)
    scaled = w.op("Div", rows, w.constant(spread))
    far = metric_distances(w, scaled, item.centroids_ / spread, item.metric)
    return w.op("Sub", w.constant(2 * np.log(item.class_prior_)), w.op("Mul", far, far))


def elliptic_envelope(w: Writer) -> None:
    """Mahalanobis distance, below a limit for inliers."""
    item = w.item
    moved = w.op("Sub", w.rows(), w.constant(item.location_))
    far = w.summed(w.op("Mul", w.linear(moved, item.precision_), moved), keepdims=0)
    decision = w.op("Sub", w.op("Neg", far), w.constant(item.offset_))
    inside = w.op("GreaterOrEqual", decision, w.constant(0.0))
    w.finish(w.op("Where", inside, *(w.constant(x, "int64") for x in (1, -1))), decision)


# --- within a radius -----------------------------------------------------------------------


def radius_classifier(w: Writer) -> None:
    """Shares of the classes among the known rows within a radius.

    Of a row without neighbors, and no label for such rows, looking the label up fails, as
    scikit-learn fails.

    Raises:
        NotImplementedError: of weights by a function, or of several labels with an outlier
            label that is none of the classes.
    """
    item, weights = w.item, _weights(w)
    if has_several_labels(item):
        return _several_within(w, weights)
    outlier = None if item.outlier_label_ is None else item.outlier_label_[0]
    shares, alone = _shares_within(w, weights, np.ravel(item._y), (item.classes_, outlier))
    best = w.op("ArgMax", shares, axis=1, keepdims=0)
    none = w.constant(len(item.classes_), "int64")
    best = w.op("Where", w.flat(alone), none, best)
    labels = item.classes_ if outlier is None else [*item.classes_, outlier]
    return w.finish(w.chosen_labels(best, labels), shares)


def _several_within(w: Writer, weights: str) -> None:
    item = w.item
    scores, found = [], []
    outliers = item.outlier_label_ or [None] * len(item.classes_)
    for known, classes, outlier in zip(item._y.T, item.classes_, outliers, strict=True):
        if outlier is not None and outlier not in classes:
            raise NotImplementedError(f"several labels, and an outlier_label {outlier!r} of none")
        shares, alone = _shares_within(w, weights, known, (classes, outlier))
        best = w.op("ArgMax", shares, axis=1, keepdims=1)
        beyond = w.constant(sum(map(len, item.classes_)), "int64")
        found.append(w.op("Where", alone, beyond, best) if outlier is None else best)
        scores.append(shares)
    finish_chosen(w, found, scores)


def _shares_within(w: Writer, weights: str, known: Any, labels: tuple[Any, Any]) -> tuple[str, str]:
    """Shares of the classes of one label, and whether a row has no neighbor.

    Args:
        w: of the estimator.
        weights: of the known rows, ``[rows, known]``.
        known: their classes by number.
        labels: the classes, and that of rows without neighbors.
    """
    classes, outlier = labels
    votes = w.linear(weights, np.eye(len(classes))[known])
    total = w.summed(votes)
    alone = w.op("Equal", total, w.constant(0.0))
    default = [float(label == outlier) for label in classes]
    shares = w.op("Div", votes, w.op("Where", alone, w.constant(1.0), total))
    return w.op("Where", alone, w.constant([default]), shares), alone


def radius_regressor(w: Writer) -> None:
    """Mean of the targets of the known rows within a radius; NaN where there are none."""
    targets = np.asarray(w.item._y, np.float64)
    weights = _weights(w)
    total = w.linear(weights, targets.reshape(len(targets), -1))
    w.finish(w.op("Div", total, w.summed(weights)))


def radius_transformer(w: Writer) -> None:
    """Distances to the known rows within a radius, zero elsewhere; or ones for distances."""
    far = _neighbor_distances(w)
    near = w.op("LessOrEqual", far, w.constant(float(w.item.radius)))
    if w.item.mode == "connectivity":
        return w.finish(w.cast(near, "float64"))
    return w.finish(w.op("Where", near, far, w.constant(0.0)))


# Metrics that skl2onnx knows, as scikit-learn calls them after fitting.
_USUAL = {"euclidean", "manhattan", "minkowski", "cosine"}


def needs_own_neighbors(item: Any) -> bool:
    """Whether skl2onnx loses something of an estimator that asks the nearest rows."""
    weighted = (item.effective_metric_params_ or {}).get("w") is not None
    unusual = weighted or item.effective_metric_ not in _USUAL or item.weights != "uniform"
    return unusual or (is_classifier(item) and has_several_labels(item))


def nearest_classifier(w: Writer) -> None:
    """Shares of the classes among the nearest known rows.

    Raises:
        NotImplementedError: of weights by a function.
    """
    item = w.item
    several = has_several_labels(item)
    classes = item.classes_ if several else [item.classes_]
    known = np.asarray(item._y).reshape(len(item._fit_X), -1)
    one_hot = [np.eye(len(own))[column] for own, column in zip(classes, known.T, strict=True)]
    votes = _of_nearest(w, np.concatenate(one_hot, axis=1))
    (finish_labels if several else Writer.finish_classes)(w, votes)


def nearest_regressor(w: Writer) -> None:
    """Mean of the targets of the nearest known rows.

    Raises:
        NotImplementedError: of weights by a function.
    """
    targets = np.asarray(w.item._y, np.float64)
    w.finish(_of_nearest(w, targets.reshape(len(targets), -1)))


def _of_nearest(w: Writer, values: Array) -> str:
    """Mean of the values of the nearest known rows, ``[rows, columns]``."""
    item = w.item
    count = w.integers(item.n_neighbors)
    far, index = w.ops("TopK", 2, _neighbor_distances(w), count, axis=1, largest=0)
    found = w.op("Gather", w.constant(values), index, axis=0)
    if item.weights == "distance":
        weights = _inverse(w, far, w.op("Reciprocal", far))
        weights = w.op("Div", weights, w.summed(weights))
    elif item.weights in {"uniform", None}:
        weights = w.repeated(far, np.full(item.n_neighbors, 1 / item.n_neighbors))
    else:
        raise NotImplementedError("weights by a function")
    weighted = w.op("Mul", found, w.op("Unsqueeze", weights, w.integers(2)))
    return w.reduced_along("ReduceSum", weighted, 1)


def _neighbor_distances(w: Writer) -> str:
    """Distances from the known rows, ``[rows, known]``.

    Raises:
        NotImplementedError: of some metrics, and of parameters other than a power.
    """
    item = w.item
    given = dict(item.effective_metric_params_ or {})
    p, weights = given.pop("p", item.p), given.pop("w", None)
    if any(value is not None for value in given.values()):
        raise NotImplementedError(f"the metric {item.metric!r} with {', '.join(sorted(given))}")
    rows, points = w.rows(), item._fit_X
    metric = item.effective_metric_
    if weights is not None:  # w |x - y|^p, which moves into x and y
        scale = np.asarray(weights, np.float64) ** (1 / p)
        rows, points = w.op("Mul", rows, w.constant(scale[None])), points * scale
    return metric_distances(w, rows, points, metric, p)


def _weights(w: Writer) -> str:
    """How much each known row counts."""
    item = w.item
    far = _neighbor_distances(w)
    near = w.op("LessOrEqual", far, w.constant(float(item.radius)))
    if item.weights in {"uniform", None}:
        return w.cast(near, "float64")
    if item.weights != "distance":
        raise NotImplementedError("weights by a function")
    safe = w.op("Where", w.op("Equal", far, w.constant(0.0)), w.constant(1.0), far)
    return _inverse(w, far, w.op("Where", near, w.op("Reciprocal", safe), w.constant(0.0)))


def _inverse(w: Writer, far: str, inverse: str) -> str:
    """Inverse distances; where a known row is at no distance, those that are count alone."""
    exact = w.cast(w.op("Equal", far, w.constant(0.0)), "float64")
    found = w.op("Greater", w.summed(exact), w.constant(0.0))
    return w.op("Where", found, exact, inverse)
