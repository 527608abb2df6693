"""Accuracy metrics of a model's outputs against true labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelpack.errors import InputError
from modelpack.samples import Array, Case
from modelpack.signature import Meaning, Signature, TensorSpec

METRICS = ("accuracy", "mae")
_LARGER_IS_BETTER = {"accuracy": True, "mae": False}


def drop(metric: str, reference: float, candidate: float) -> float:
    """How much worse the candidate is, in the metric's own units; negative when better."""
    return reference - candidate if _LARGER_IS_BETTER[metric] else candidate - reference


def metric_for(signature: Signature, labels: Array) -> str:
    """The metric that suits the labels: mae for real-valued ones, otherwise accuracy."""
    regression = any(spec.meaning is Meaning.PREDICTION for spec in signature.outputs)
    return "mae" if regression or labels.dtype.kind == "f" else "accuracy"


def evaluate(metric: str, signature: Signature, outputs: Sequence[Case], labels: Array) -> float:
    """Return the metric of the outputs of all samples, given case by case.

    ``accuracy`` is the share of samples whose label is right: the label output where there
    is one, otherwise the class (or position) of the largest element along the last axis of
    the first float output. ``mae`` is the mean absolute error of the first float output.

    A single column of scores is refused for ``accuracy``: it does not say where one class
    ends and the other begins.

    Raises:
        InputError: the metric is unknown, or no output suits it.
    """
    if metric not in METRICS:
        raise InputError(f"unknown metric '{metric}'", hint=f"use one of {', '.join(METRICS)}")
    if metric == "mae":
        spec = _first_float(signature)
        values = _joined(spec, outputs)
        try:
            errors = np.abs(values.reshape(labels.shape).astype(np.float64) - labels)
        except (ValueError, TypeError):
            raise InputError(f"the labels do not have the shape of output '{spec.name}'") from None
        return float(errors.mean())
    predicted = _predicted_labels(signature, outputs)
    if predicted.shape != labels.shape:
        raise InputError(
            f"there is one label per {list(predicted.shape)} predictions needed, "
            f"not {list(labels.shape)}"
        )
    right = [
        one == other or str(one) == str(other)  # classes may be text, or 1.0 for the label 1
        for one, other in zip(predicted.flat, labels.flat, strict=True)
    ]
    return float(np.mean(right))


def _first_float(signature: Signature) -> TensorSpec:
    for spec in signature.outputs:
        if spec.dtype.is_float:
            return spec
    raise InputError("no output holds real numbers, so there is nothing to score")


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


def _joined(spec: TensorSpec, outputs: Sequence[Case]) -> Array:
    return np.concatenate([case[spec.name] for case in outputs])
