"""Classifiers by the likelihood of normal distributions, in float64: exponents are large."""

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
