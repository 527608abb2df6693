"""Estimators that look for the nearest of some points, or for how far away they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.adapters.sklearn_converters.distances import (
    distances,
    metric_distances,
    squared_distances,
)
from modelpack.adapters.sklearn_converters.writer import Writer


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

    Raises:
        NotImplementedError: of weights by a function, or labels of several columns.
    """
    item = w.item
    if isinstance(item.classes_, list):
        raise NotImplementedError("several labels a row")
    weights = _weights(w)
    one_hot = np.eye(len(item.classes_))[np.ravel(item._y)]
    votes = w.linear(weights, one_hot)
    total = w.summed(votes)
    alone = w.op("Equal", total, w.constant(0.0))
    default = [float(label == item.outlier_label_[0]) for label in item.classes_]
    shares = w.op("Div", votes, w.op("Where", alone, w.constant(1.0), total))
    shares = w.op("Where", alone, w.constant([default]), shares)
    best = w.chosen_labels(w.op("ArgMax", votes, axis=1, keepdims=0), item.classes_)
    if item.outlier_label_[0] is not None:
        outlier = w.chosen_labels(w.constant(0, "int64"), item.outlier_label_[:1])
        best = w.op("Where", w.flat(alone), outlier, best)
    w.finish(best, shares)


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


def _neighbor_distances(w: Writer) -> str:
    item = w.item
    p = item.effective_metric_params_.get("p", item.p)
    return metric_distances(w, w.rows(), item._fit_X, item.effective_metric_, p)


def _weights(w: Writer) -> str:
    """How much each known row counts."""
    item = w.item
    far = _neighbor_distances(w)
    near = w.op("LessOrEqual", far, w.constant(float(item.radius)))
    if item.weights == "uniform":
        return w.cast(near, "float64")
    if item.weights != "distance":
        raise NotImplementedError("weights by a function")
    # A row at no distance counts alone.
    same = w.op("Equal", far, w.constant(0.0))
    inverse = w.op("Reciprocal", w.op("Where", same, w.constant(1.0), far))
    within = w.op("Where", near, inverse, w.constant(0.0))
    exact = w.cast(same, "float64")
    found = w.op("Greater", w.summed(exact), w.constant(0.0))
    return w.op("Where", found, exact, within)
