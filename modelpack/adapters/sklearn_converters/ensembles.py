"""Classifiers that add up the votes or probabilities of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from modelpack.adapters.sklearn_converters.decisions import decides, decision, shares
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
    parts = [_bagged(w, inner, rows) for inner, rows in _in_bag(w, w.item, w.rows())]
    w.finish_classes(_mean(w, parts, np.ones(len(parts))))


@decides("BaggingClassifier")
def _of_bag(w: Writer, item: Any, rows: str) -> str:
    """The mean of the decision functions (``BaggingClassifier.decision_function``)."""
    if any(len(inner.classes_) != item.n_classes_ for inner in item.estimators_):
        raise NotImplementedError(
            "the decision function of BaggingClassifier with an estimator that knows fewer classes"
        )
    parts = [decision(w, inner, seen) for inner, seen in _in_bag(w, item, rows)]
    return _mean(w, parts, np.ones(len(parts)))


def _in_bag(w: Writer, item: Any, rows: str) -> Iterator[tuple[Any, str]]:
    """Each estimator of a bag, and the columns that it sees."""
    for inner, features in zip(item.estimators_, item.estimators_features_, strict=True):
        whole = np.array_equal(features, np.arange(item.n_features_in_))
        yield inner, rows if whole else w.columns(rows, features)


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
    """Weighted votes of labels, and the softmax of them (AdaBoostClassifier)."""
    item, rows = w.item, w.rows()
    others = item.n_classes_ - 1
    if not others:
        return w.finish_classes(w.repeated(rows, [1.0]))
    decided = _votes_of_boosting(w, item, rows)
    best = w.op("ArgMax", decided, axis=1, keepdims=0)
    told = w.op("Softmax", w.op("Div", decided, w.constant(float(others))), axis=1)
    return w.finish(w.chosen_labels(best, item.classes_), told)


@decides("AdaBoostClassifier")
def _of_boosting(w: Writer, item: Any, rows: str) -> str:
    """The votes, or of two classes those for the second less those for the first."""
    if item.n_classes_ == 1:
        return w.repeated(rows, [0.0])
    votes = _votes_of_boosting(w, item, rows)
    return votes if item.n_classes_ > 2 else w.linear(votes, [[-1.0], [1.0]])


def _votes_of_boosting(w: Writer, item: Any, rows: str) -> str:
    """The weighted mean of votes, ``[rows, classes]``.

    A vote is 1 for a class, and ``-1 / (classes - 1)`` for each of the others.
    """
    others = item.n_classes_ - 1
    votes = [_voted(w, w.ask(inner, rows).labels, item.classes_) for inner in item.estimators_]
    share = _mean(w, votes, item.estimator_weights_[: len(votes)])
    less = w.op("Mul", share, w.constant(1 + 1 / others))
    return w.op("Sub", less, w.constant(1 / others))


def _voted(w: Writer, labels: str, classes: Any) -> str:
    """One for the class that is the label, and zero for the others, ``[rows, classes]``."""
    return w.cast(same_labels(w, w.upright(labels), classes), "float64")


def _mean(w: Writer, parts: Sequence[str], weights: Array) -> str:
    weighted = [
        part if weight == 1 else w.op("Mul", part, w.constant(weight))
        for part, weight in zip(parts, weights, strict=True)
    ]
    total = weighted[0] if len(weighted) == 1 else w.op("Sum", *weighted)
    return w.op("Div", total, w.constant(weights.sum()))
