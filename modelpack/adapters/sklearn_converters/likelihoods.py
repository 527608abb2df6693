"""Classes and mixtures by the likelihood of normal distributions, in float64."""

from __future__ import annotations

import numpy as np

from modelpack.adapters.sklearn_converters.distances import differences
from modelpack.adapters.sklearn_converters.writer import Writer


def gaussian_naive_bayes(w: Writer) -> None:
    """The sum of the logarithms of a normal density for each column, and the prior."""
    item = w.item
    apart = differences(w, w.rows(), item.theta_)
    squares = w.op("Div", w.op("Mul", apart, apart), w.constant(item.var_[None]))
    far = w.op("Mul", w.summed(squares, keepdims=0), w.constant(0.5))
    spread = -0.5 * np.log(2 * np.pi * item.var_).sum(axis=1)
    likely = w.op("Sub", w.constant(spread[None]), far)
    likely = w.op("Add", likely, w.constant(np.log(item.class_prior_)[None]))
    best = w.op("ArgMax", likely, axis=1, keepdims=0)
    w.finish(w.chosen_labels(best, item.classes_), w.op("Softmax", likely, axis=1))


def mixture(w: Writer) -> None:
    """The share of each component in the density at a row (GaussianMixture and the Bayesian one).

    A component's logarithm at its own mean, where its distance is 0, is asked of the estimator.
    """
    item, rows = w.item, w.rows()
    heights = np.diag(item._estimate_log_prob(item.means_) + item._estimate_log_weights())
    far = w.joined([_distance(w, rows, index) for index in range(len(item.means_))])
    likely = w.op("Sub", w.constant(heights[None]), w.op("Mul", far, w.constant(0.5)))
    best = w.op("ArgMax", likely, axis=1, keepdims=0)
    w.finish(best, w.op("Softmax", likely, axis=1))


def _distance(w: Writer, rows: str, index: int) -> str:
    """Squared Mahalanobis distance from the mean of a component, ``[rows, 1]``."""
    item = w.item
    apart = w.op("Sub", rows, w.constant(item.means_[index]))
    root = item.precisions_cholesky_ if item.covariance_type == "tied" else None
    root = item.precisions_cholesky_[index] if root is None else root
    scaled = w.linear(apart, root) if np.ndim(root) == 2 else w.op("Mul", apart, w.constant(root))
    return w.summed(w.op("Mul", scaled, scaled))
