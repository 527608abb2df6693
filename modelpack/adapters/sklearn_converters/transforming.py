"""What estimators that could predict hand on to the step after them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from modelpack.adapters.sklearn_converters.distances import distances
from modelpack.adapters.sklearn_converters.writer import Writer

_CLUSTERS = ("KMeans", "MiniBatchKMeans", "BisectingKMeans", "Birch")
_LATENT = ("PLSRegression", "PLSCanonical", "CCA")
_OTHERS = ("VotingClassifier", "VotingRegressor", "StackingClassifier", "StackingRegressor")
TRANSFORMING = {*_CLUSTERS, *_LATENT, *_OTHERS, "LinearDiscriminantAnalysis"}
"""Estimators that predict, and that a pipeline asks to transform before its last step."""


class Transforming(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that is only asked to transform.

    Args:
        estimator: is fitted.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = self.stands_for = estimator
        self.n_features_in_ = estimator.n_features_in_

    def get_feature_names_out(self) -> Any:
        """Names of the columns that it hands on."""
        return self.estimator.get_feature_names_out()


def transforming(w: Writer) -> None:
    """Distances from clusters, or projections.

    Raises:
        NotImplementedError: of an ensemble.
    """
    item, rows = w.item.estimator, w.rows()
    name = type(item).__name__
    if name in _CLUSTERS:
        centers = item.subcluster_centers_ if name == "Birch" else item.cluster_centers_
        return w.finish(distances(w, rows, centers))
    if name in _LATENT:
        matrix = item.x_rotations_ / np.asarray(item._x_std)[:, None]
        return w.finish(w.linear(w.op("Sub", rows, w.constant(item._x_mean)), matrix))
    if name == "LinearDiscriminantAnalysis":
        if item.solver == "svd":
            rows = w.op("Sub", rows, w.constant(item.xbar_))
        return w.finish(w.linear(rows, item.scalings_[:, : item._max_components]))
    raise NotImplementedError(f"what a {name} hands on to the step after it")
