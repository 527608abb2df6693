"""Metrics of a model's outputs against true labels.

Their values are those of scikit-learn's functions of the same names, which the base install
does without: ``accuracy_score``, ``f1_score(average="macro")``, ``roc_auc_score`` (of two
classes, or one class against the rest with equal weights), ``mean_absolute_error`` and
``r2_score``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from modelpack.errors import InputError
from modelpack.samples import Array, Case
from modelpack.signature import Meaning, Signature, TensorSpec

_LARGER_IS_BETTER = {"accuracy": True, "f1": True, "auc": True, "mae": False, "r2": True}
METRICS = tuple(_LARGER_IS_BETTER)

# Rows that add up to one this closely are taken for probabilities.
_SUM_OF_PROBABILITIES = 1e-3


def drop(metric: str, reference: float, candidate: float) -> float:
    """How much worse the candidate is, in the metric's own units; negative when better."""
    return reference - candidate if _LARGER_IS_BETTER[metric] else candidate - reference


def chance(metric: str, labels: Array) -> float | None:
    """What guessing reaches: a model that is no better knows nothing; None if unlimited."""
    by_class = 1 / max(len(set(labels.flat)), 1)
    return {"accuracy": by_class, "f1": by_class, "auc": 0.5, "r2": 0.0}.get(metric)


def suited(signature: Signature, labels: Array) -> tuple[str, ...]:
    """Metrics that may suit the labels, the usual one first.

    They are mae and r2 for real-valued labels and regressors, otherwise those of classes.
    """
    regression = any(spec.meaning is Meaning.PREDICTION for spec in signature.outputs)
    return ("mae", "r2") if regression or labels.dtype.kind == "f" else ("accuracy", "f1", "auc")


def metric_for(signature: Signature, labels: Array) -> str:
    """The metric that suits the labels: mae for real-valued ones, otherwise accuracy."""
    return suited(signature, labels)[0]


class Measured(Protocol):
    """A metric of some outputs, with what its uncertainty is estimated from."""

    @property
    def value(self) -> float:
        """The metric of all samples."""

    def resampled(self, weights: Array) -> Array:
        """The metric of resamples: ``(resamples,)``.

        Args:
            weights: how often each sample is drawn, ``(resamples, samples)`` of float64.
        """


def evaluate(metric: str, signature: Signature, outputs: Sequence[Case], labels: Array) -> float:
    """Return the metric of the outputs of all samples; see `measured`."""
    return measured(metric, signature, outputs, labels).value


def measured(metric: str, signature: Signature, outputs: Sequence[Case], labels: Array) -> Measured:
    """Measure the outputs of all samples, given case by case.

    ``accuracy`` and ``f1`` need decisions: the label output where there is one, otherwise the
    class (or position) of the largest element along the last axis of the first float output.
    ``auc`` ranks samples by the first float output: by its only column, by the second of two,
    or by each of several in turn. Columns that are neither probabilities nor the scores of a
    classifier are taken for logits. ``mae`` and ``r2`` compare the first float output.

    A single column of scores is refused for ``accuracy`` and ``f1``: it does not say where one
    class ends and the other begins.

    Raises:
        InputError: the metric is unknown, or no output suits it.
    """
    if metric not in METRICS:
        raise InputError(f"unknown metric '{metric}'", hint=f"use one of {', '.join(METRICS)}")
    return _MEASURES[metric](signature, outputs, labels)


# --- of real values ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mean:
    """A metric that is the mean of one term for each sample.

    Attributes:
        terms: ``(samples,)``.
        binary: each term is one decision, right (1) or wrong (0).
    """

    terms: Array
    binary: bool = False

    @property
    def value(self) -> float:
        return float(self.terms.mean())

    def resampled(self, weights: Array) -> Array:
        result: Array = weights @ self.terms / len(self.terms)
        return result


@dataclass(frozen=True, slots=True)
class _Resampled(ABC):
    """A metric that is computed from weighted samples; arrays have samples first."""

    truth: Array
    found: Array

    @property
    def value(self) -> float:
        return float(self.resampled(np.ones((1, len(self.truth))))[0])

    @abstractmethod
    def resampled(self, weights: Array) -> Array:
        """See `Measured`."""


class R2(_Resampled):
    """The coefficient of determination, the mean over columns; arrays of (samples, columns)."""

    def resampled(self, weights: Array) -> Array:
        # Sums of squares are taken around the mean of all samples, against cancellation.
        centred = self.truth - self.truth.mean(0)
        count = weights.sum(1, keepdims=True)
        total = weights @ centred**2 - (weights @ centred) ** 2 / count
        left = weights @ (self.truth - self.found) ** 2
        constant = total <= np.finfo(np.float64).eps * (weights @ centred**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = np.where(constant, np.where(left == 0, 1.0, 0.0), 1 - left / total)
        result: Array = explained.mean(1)
        return result


def _accuracy(signature: Signature, outputs: Sequence[Case], labels: Array) -> Measured:
    truth, found = _coded(_predicted_labels(signature, outputs), labels)
    return Mean((truth == found).mean(1), binary=truth.shape[1] == 1)


def _mae(signature: Signature, outputs: Sequence[Case], labels: Array) -> Measured:
    truth, found = _real(signature, outputs, labels)
    return Mean(np.abs(found - truth).mean(1))


def _r2(signature: Signature, outputs: Sequence[Case], labels: Array) -> Measured:
    return R2(*_real(signature, outputs, labels))


def _real(signature: Signature, outputs: Sequence[Case], labels: Array) -> tuple[Array, Array]:
    """Labels and values of the first float output: (samples, values of one sample)."""
    spec = _first_float(signature)
    values = _joined(spec, outputs)
    try:
        found = values.reshape(labels.shape).astype(np.float64)
        truth = labels.astype(np.float64)
    except (ValueError, TypeError):
        raise InputError(f"the labels do not have the shape of output '{spec.name}'") from None
    return truth.reshape(len(truth), -1), found.reshape(len(found), -1)


# --- of decisions --------------------------------------------------------------------


class F1(_Resampled):
    """Macro-averaged F1 of codes of classes; arrays of (samples, decisions of one sample)."""

    def resampled(self, weights: Array) -> Array:
        classes = int(max(self.truth.max(), self.found.max())) + 1
        hits = np.where(self.truth == self.found, 1.0, 0.0)
        right = _by_class(weights, self.truth, hits, classes)
        given = _by_class(weights, self.truth, np.ones_like(hits), classes)
        said = _by_class(weights, self.found, np.ones_like(hits), classes)
        present = given + said > 0
        scores = np.divide(2 * right, given + said, out=np.zeros_like(right), where=present)
        result: Array = scores.sum(1) / present.sum(1)
        return result


def _by_class(weights: Array, codes: Array, terms: Array, classes: int) -> Array:
    """Weighted sums of terms by class: ``(resamples, classes)``."""
    offsets = np.arange(len(weights))[:, np.newaxis] * classes
    sums = np.zeros(len(weights) * classes)
    for column, term in zip(codes.T, terms.T, strict=True):
        cells, weighed = offsets + column, weights * term
        sums += np.bincount(cells.ravel(), weighed.ravel(), len(sums))
    return sums.reshape(len(weights), classes)


def _f1(signature: Signature, outputs: Sequence[Case], labels: Array) -> Measured:
    return F1(*_coded(_predicted_labels(signature, outputs), labels))


def _coded(predicted: Array, labels: Array) -> tuple[Array, Array]:
    """Labels and predictions as codes of classes: (samples, decisions of one sample)."""
    if predicted.shape != labels.shape:
        raise InputError(
            f"there is one label per {list(predicted.shape)} predictions needed, "
            f"not {list(labels.shape)}"
        )
    codes: dict[str, int] = {}
    truth, found = (
        np.array(
            [codes.setdefault(class_name(value), len(codes)) for value in side.ravel().tolist()]
        )
        for side in (labels, predicted)
    )
    rows = len(labels)
    return truth.reshape(rows, -1), found.reshape(rows, -1)


def class_name(value: Any) -> str:
    """What a class is called, however it is stored: 1, 1.0, True, "1" and "1.0" are one class."""
    if isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if text.endswith(".0") and text[:-2].lstrip("-").isdecimal():
        return text[:-2]
    return {"True": "1", "False": "0"}.get(text, text)


def _predicted_labels(signature: Signature, outputs: Sequence[Case]) -> Array:
    for spec in signature.outputs:
        if spec.meaning is Meaning.LABEL:
            return _joined(spec, outputs)
    spec = _first_float(signature)
    values = _joined(spec, outputs)
    if values.ndim < 2 or values.shape[-1] < 2:
        raise InputError(f"output '{spec.name}' has one value per sample, not one per class")
    best: Array = values.argmax(-1)
    if spec.classes:
        classes: Array = np.array(spec.classes, dtype=object)[best]
        return classes
    return best


# --- of ranks ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Auc:
    """Area under the ROC curve.

    Attributes:
        value: the area, the mean over classes.
        influence: how much each sample moves it, ``(samples,)``: the structural components
            of E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, Comparing the areas under
            two or more correlated receiver operating characteristic curves, Biometrics 44
            (1988), over the share of their class.
    """

    value: float
    influence: Array

    def resampled(self, weights: Array) -> Array:
        """The area to first order: the mean influence of the samples drawn."""
        result: Array = self.value + weights @ self.influence / len(self.influence)
        return result


def _auc(signature: Signature, outputs: Sequence[Case], labels: Array) -> Measured:
    spec = _first_float(signature)
    values = _joined(spec, outputs).astype(np.float64)
    if values.ndim == 1:
        values = values[:, np.newaxis]
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise InputError(f"auc needs one label and one row of '{spec.name}' for each sample")
    names = np.array([class_name(value) for value in labels.tolist()], object)
    parts = [
        _area(scores, names == name)
        for name, scores in _rankings(spec, values, names).items()
        if 0 < np.count_nonzero(names == name) < len(names)
    ]
    if not parts:
        raise InputError(
            "auc needs labels of at least two classes, and of those that the model knows"
        )
    areas, influences = zip(*parts, strict=True)
    return Auc(float(np.mean(areas)), np.mean(influences, axis=0))


def _rankings(spec: TensorSpec, values: Array, labels: Array) -> Mapping[str, Array]:
    """The scores by which to tell each class from the others."""
    columns = values.shape[1]
    if columns == 1:
        classes = sorted(set(labels), key=_numbers_first)
        if len(classes) > 2:
            raise InputError(f"output '{spec.name}' has one column for {len(classes)} classes")
        return {(spec.classes and class_name(spec.classes[-1])) or classes[-1]: values[:, 0]}
    classes = [class_name(value) for value in spec.classes] or [str(i) for i in range(columns)]
    if not _is_ranking(spec, values):
        values = _log_odds(values)
    scores = dict(zip(classes, values.T, strict=False))
    return {classes[1]: scores[classes[1]]} if columns == 2 else scores


def _numbers_first(name: str) -> tuple[bool, float, str]:
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name


def _is_ranking(spec: TensorSpec, values: Array) -> bool:
    """Whether a column ranks samples by itself, as a logit does not."""
    if spec.meaning in {Meaning.PROBABILITIES, Meaning.SCORES}:
        return True
    off = np.abs(values.sum(1) - 1).max()
    return bool((values >= 0).all() and off <= _SUM_OF_PROBABILITIES)


def _log_odds(logits: Array) -> Array:
    """Log of ``p / (1 - p)`` of each class: ranks as softmax does, and does not saturate."""
    largest = logits.argmax(1)[:, np.newaxis]
    without = logits.copy()
    np.put_along_axis(without, largest, -np.inf, 1)
    with np.errstate(invalid="ignore"):  # infinite ones become NaN, as the area does
        top = logits.max(1, keepdims=True)
        powers = np.exp(logits - top)
        # Less one's own share, which is no loss of digits but for the largest.
        rest = top + np.log(np.maximum(powers.sum(1, keepdims=True) - powers, 1e-300))
        second = without.max(1, keepdims=True)
        of_largest = second + np.log(np.exp(without - second).sum(1, keepdims=True))
        np.put_along_axis(rest, largest, of_largest, 1)
        return logits - rest


def _area(scores: Array, positive: Array) -> tuple[float, Array]:
    """The area for one class, and each sample's influence on it, from ranks.

    X. Sun and W. Xu, Fast implementation of DeLong's algorithm, IEEE Signal Processing
    Letters 21 (2014).
    """
    if np.isnan(scores).any():
        return float("nan"), np.full(len(scores), np.nan)
    placed = _ranks(scores)
    influence = np.empty(len(scores))
    above = (placed[positive] - _ranks(scores[positive])) / np.count_nonzero(~positive)
    below = 1 - (placed[~positive] - _ranks(scores[~positive])) / np.count_nonzero(positive)
    area = float(above.mean())
    influence[positive] = (above - area) / positive.mean()
    influence[~positive] = (below - area) / (1 - positive.mean())
    return area, influence


def _ranks(values: Array) -> Array:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Array = (ends - (counts - 1) / 2)[inverse]
    return ranks


# --- outputs -------------------------------------------------------------------------


def _first_float(signature: Signature) -> TensorSpec:
    for spec in signature.outputs:
        if spec.dtype.is_float:
            return spec
    raise InputError("no output holds real numbers, so there is nothing to score")


def _joined(spec: TensorSpec, outputs: Sequence[Case]) -> Array:
    return np.concatenate([case[spec.name] for case in outputs])


_MEASURES: dict[str, Callable[[Signature, Sequence[Case], Array], Measured]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "auc": _auc,
    "mae": _mae,
    "r2": _r2,
}
