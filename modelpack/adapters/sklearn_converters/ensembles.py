"""Classifiers that add up the votes or probabilities of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelpack.adapters.sklearn_converters.decisions import shares
from modelpack.adapters.sklearn_converters.labels import same_labels
from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.samples import Array


def voting(w: Writer) -> None:
    """The mean of the probabilities, or the votes of the labels (VotingClassifier)."""
    item, rows = w.item, w.rows()
    count = len(item.estimators_)
    weights = item._weights_not_none
    each = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if item.voting == "soft":
        parts = [shares(w, inner, rows) for inner in item.estimators_]
    else:
        places = np.arange(len(item.classes_))
        parts = [_voted(w, w.ask(inner, rows).labels, places) for inner in item.estimators_]
    w.finish_classes(_mean(w, parts, each))


def bagging(w: Writer) -> None:
    """The mean of the probabilities, or of the votes of those without (BaggingClassifier)."""
    item, rows = w.item, w.rows()
    parts = []
    for inner, features in zip(item.estimators_, item.estimators_features_, strict=True):
        whole = np.array_equal(features, np.arange(item.n_features_in_))
        parts.append(_bagged(w, inner, rows if whole else w.columns(rows, features)))
    w.finish_classes(_mean(w, parts, np.ones(len(parts))))


def _bagged(w: Writer, inner: Any, rows: str) -> str:
    """What one estimator of a bag says of all classes; it may know some of them only."""
    places = np.arange(w.item.n_classes_)
    if not hasattr(inner, "predict_proba"):
        return _voted(w, w.ask(inner, rows).labels, places)
    told = shares(w, inner, rows)
    if len(inner.classes_) == len(places):
        return told
    return w.linear(told, np.asarray(inner.classes_)[:, None] == places[None])


def adaptive_boosting(w: Writer) -> None:
    """Weighted votes of labels, and the softmax of them (AdaBoostClassifier).

    A vote is 1 for a class, and ``-1 / (classes - 1)`` for each of the others.
    """
    item, rows = w.item, w.rows()
    others = item.n_classes_ - 1
    if not others:
        return w.finish_classes(w.repeated(rows, [1.0]))
    votes = [_voted(w, w.ask(inner, rows).labels, item.classes_) for inner in item.estimators_]
    share = _mean(w, votes, item.estimator_weights_[: len(votes)])
    less = w.op("Mul", share, w.constant(1 + 1 / others))
    decided = w.op("Sub", less, w.constant(1 / others))
    best = w.op("ArgMax", decided, axis=1, keepdims=0)
    told = w.op("Softmax", w.op("Div", decided, w.constant(float(others))), axis=1)
    return w.finish(w.chosen_labels(best, item.classes_), told)


def _voted(w: Writer, labels: str, classes: Any) -> str:
    """One for the class that is the label, and zero for the others, ``[rows, classes]``."""
    return w.cast(same_labels(w, w.upright(labels), classes), "float64")


def _mean(w: Writer, parts: Sequence[str], weights: Array) -> str:
    total = _sum(w, parts, weights)
    return w.op("Div", total, w.constant(weights.sum()))


def _sum(w: Writer, parts: Sequence[str], weights: Array) -> str:
    weighted = [
        part if weight == 1 else w.op("Mul", part, w.constant(weight))
        for part, weight in zip(parts, weights, strict=True)
    ]
    return weighted[0] if len(weighted) == 1 else w.op("Sum", *weighted)
