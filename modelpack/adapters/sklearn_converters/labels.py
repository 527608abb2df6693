"""Classifiers of several labels for a row, and those with an estimator for each class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.neural_network import MLPRegressor

from modelpack.adapters.sklearn_converters.decisions import (
    can_decide,
    decision,
    limit_of,
    positive,
    shares,
)
from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.adapters.sklearn_signature import has_several_labels
from modelpack.samples import Array

_OF_NUMBERS = "iubf"


def finish_labels(w: Writer, scores: str) -> None:
    """Give out the likeliest class of each label, and the probabilities of each.

    Args:
        w: of an estimator with a list of classes for each label.
        scores: of the classes of all labels side by side, ``[rows, classes]``.
    """
    ends = np.cumsum([0, *(len(classes) for classes in w.item.classes_)])
    parts = [w.columns(scores, range(first, last)) for first, last in pairwise(ends)]
    finish_chosen(w, [w.op("ArgMax", part, axis=1, keepdims=1) for part in parts], parts)


def finish_chosen(w: Writer, chosen: Sequence[str], scores: Sequence[str]) -> None:
    """Give out labels by their places among their classes, int64 ``[rows, 1]``, and scores."""
    classes, ends = _all_classes(w.item)
    index = w.op("Add", w.joined(chosen), w.constant(ends[None, :-1], "int64"))
    w.finish(w.chosen_labels(index, classes), *scores)


def _all_classes(item: Any) -> tuple[Array, Array]:
    """The classes of all labels, one after the other, and where those of each begin."""
    each = [np.asarray(classes) for classes in item.classes_]
    if any(classes.dtype.kind not in _OF_NUMBERS for classes in each):
        each = [np.array([str(label) for label in classes], object) for classes in each]
    return np.concatenate(each), np.cumsum([0, *map(len, each)])


def multi_output(w: Writer) -> None:
    """One classifier for each label; probabilities in an output each."""
    item, rows = w.item, w.rows()
    found = [w.ask(estimator, rows) for estimator in item.estimators_]
    scores = [answer.scores for answer in found]
    labels = [w.upright(answer.labels) for answer in found]
    if all(np.asarray(classes).dtype.kind in _OF_NUMBERS for classes in item.classes_):
        return w.finish(w.joined(labels), *scores)
    # TensorFlow Lite joins no texts: their places are joined, and looked up.
    chosen = [_places(w, *pair) for pair in zip(labels, item.classes_, strict=True)]
    return finish_chosen(w, chosen, scores)


def _places(w: Writer, labels: str, classes: Any) -> str:
    """Where labels stand among classes, ``[rows, 1]``."""
    return w.op("ArgMax", w.cast(same_labels(w, labels, classes), "float32"), axis=1, keepdims=1)


def same_labels(w: Writer, labels: str, classes: Any) -> str:
    """Which of the classes a label is, ``[rows, classes]``.

    Args:
        w: of the estimator.
        labels: ``[rows, 1]``, as `Writer.ask` gives them.
        classes: all that a label may be.
    """
    values = np.asarray(classes)
    kind = "int64" if values.dtype.kind in _OF_NUMBERS else "object"
    texts = values if kind == "int64" else np.array([str(item) for item in values], object)
    return w.op("Equal", labels, w.constant(texts[None], kind))


def classifier_chain(w: Writer) -> None:
    """Each classifier sees what those before it said.

    Raises:
        NotImplementedError: of the decision function of some estimators.
    """
    item, rows = w.item, w.rows()
    seen: list[str] = []
    labels, told = [], []
    probable = hasattr(item, "predict_proba")
    for estimator, classes in zip(item.estimators_, item.classes_, strict=True):
        known = w.joined([rows, *seen])
        answer = w.ask(estimator, known)
        labels.append(w.upright(w.cast(answer.labels, "float64")))
        if len(classes) != 2:
            told.append(labels[-1])
        elif probable:
            told.append(w.columns(shares(w, estimator, known, answer), [1]))
        else:
            told.append(decision(w, estimator, known))
        seen.append(_handed_on(w, estimator, known, labels[-1], told[-1]))
    order = np.argsort(item.order_)
    w.finish(w.columns(w.joined(labels), order), w.columns(w.joined(told), order))


def _handed_on(w: Writer, estimator: Any, rows: str, label: str, told: str) -> str:
    """What a chain tells the classifiers after one, ``[rows, 1]``."""
    method = w.item.chain_method_
    if method == "predict":
        return label
    if method == "decision_function":
        return decision(w, estimator, rows)
    if not hasattr(w.item, "predict_proba"):
        raise NotImplementedError(f"a chain by {method!r} of classifiers without it")
    return told if method == "predict_proba" else w.op("Log", told)


def ridge(w: Writer) -> None:
    """Labels whose decision is above 0 (RidgeClassifier, RidgeClassifierCV)."""
    said = decision(w, w.item, w.rows())
    w.finish(w.cast(w.op("Greater", said, w.constant(0.0)), "int64"), said)


def perceptron(w: Writer) -> None:
    """Labels whose share is above one half (MLPClassifier)."""
    item = w.item
    layers = MLPRegressor()  # the same layers, and nothing after them
    vars(layers).update(vars(item))
    said = w.ask(layers, w.rows()).scores
    said = w.op("Reshape", said, w.integers(-1, len(item.classes_)))
    w.finish(w.cast(w.op("Greater", said, w.constant(0.5)), "int64"), said)


# --- one versus the rest -------------------------------------------------------------------


def one_versus_rest(w: Writer) -> None:
    """An estimator for each class or label, which says how sure it is of it.

    Raises:
        NotImplementedError: of the decision function of some estimators.
    """
    item, rows = w.item, w.rows()
    if len(item.estimators_) > 1 and not has_several_labels(item):
        return _surest(w, rows)
    # By the first alone, whatever the others are.
    limit = limit_of(item.estimators_[0])
    pairs = [_told(w, inner, rows, limit) for inner in item.estimators_]
    labels, told = (w.joined(parts) for parts in zip(*pairs, strict=True))
    if has_several_labels(item):
        return w.finish(labels, told)
    label = w.chosen_labels(w.cast(w.flat(labels), "int64"), item.classes_)
    if hasattr(item, "predict_proba"):
        told = w.joined([w.op("Sub", w.constant(1.0), told), told])
    return w.finish(label, told)


def _surest(w: Writer, rows: str) -> None:
    """The class whose estimator is surest."""
    item = w.item
    shared = ""
    if hasattr(item, "predict_proba"):
        shared = w.joined([w.columns(shares(w, e, rows), [1]) for e in item.estimators_])
    # Where a decision cannot be written, probabilities are in the same order.
    if all(can_decide(inner) or is_regressor(inner) for inner in item.estimators_):
        sure = w.joined([positive(w, inner, rows) for inner in item.estimators_])
    elif shared:
        sure = shared
    else:
        raise NotImplementedError(f"the decision function of {type(item.estimators_[0]).__name__}")
    best = w.chosen_labels(w.op("ArgMax", sure, axis=1, keepdims=0), item.classes_)
    w.finish(best, _normalized(w, shared) if shared else sure)


def _normalized(w: Writer, values: str) -> str:
    """Values over their sums, where these are not 0."""
    total = w.summed(values)
    none = w.op("Equal", total, w.constant(0.0))
    return w.op("Div", values, w.op("Where", none, w.constant(1.0), total))


def _told(w: Writer, inner: Any, rows: str, limit: float) -> tuple[str, str]:
    """Whether a row has a label, and how sure the estimator of it is; ``[rows, 1]`` each."""
    decides = hasattr(inner, "decision_function")
    if not is_classifier(inner) or can_decide(inner) or (decides and limit):
        said = positive(w, inner, rows)
        label = w.cast(w.op("Greater", said, w.constant(limit)), "float64")
        probable = is_classifier(inner) and hasattr(inner, "predict_proba")
        return label, w.columns(shares(w, inner, rows), [1]) if probable else said
    # Its own label is 1 where its decision is above 0, or its probability above one half.
    answer = w.ask(inner, rows)
    label = w.upright(w.cast(answer.labels, "float64"))
    if hasattr(inner, "predict_proba"):
        return label, w.columns(shares(w, inner, rows, answer), [1])
    return label, decision(w, inner, rows)
