"""Estimators that ask others, and make something of their answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.adapters.boosters import is_booster
from modelpack.adapters.sklearn_columns import final_step
from modelpack.adapters.sklearn_converters.decisions import (
    below_threshold,
    decides,
    decision,
    positive,
    shares,
)
from modelpack.adapters.sklearn_converters.functions import traced
from modelpack.adapters.sklearn_converters.labels import finish_chosen
from modelpack.adapters.sklearn_converters.steps import interpolated
from modelpack.adapters.sklearn_converters.writer import Writer

_TINY = 1e-12
"""What temperature scaling adds to probabilities (``_convert_to_logits``)."""


def threshold(w: Writer) -> None:
    """The label by a threshold of its own (FixedThreshold, TunedThresholdClassifierCV).

    Raises:
        NotImplementedError: of the decision function of some estimators.
    """
    item = w.item
    inner = below_threshold(item)
    rows = w.rows()
    method = item._get_response_method()
    methods = [method] if isinstance(method, str) else list(method)
    by_probability = next(name for name in methods if hasattr(inner, name)) == "predict_proba"
    limit = getattr(item, "best_threshold_", None)
    if limit is None:
        limit = item.threshold
    if limit == "auto":
        limit = 0.5 if by_probability else 0.0
    positive = getattr(item, "pos_label", None)
    index = 1 if positive is None else int(np.flatnonzero(item.classes_ == positive)[0])
    probable = hasattr(inner, "predict_proba")
    told = shares(w, inner, rows) if probable else ""
    if by_probability:
        score = w.column(told, index)
    else:
        score = w.flat(decision(w, inner, rows))
        score = score if index else w.op("Neg", score)
    above = w.op("GreaterOrEqual", score, w.constant(float(limit)))
    chosen = w.op("Where", above, *(w.constant(i, "int64") for i in (index, 1 - index)))
    w.finish(w.chosen_labels(chosen, item.classes_), told or w.upright(score))


def output_code(w: Writer) -> None:
    """The class whose code is nearest to what the estimators say."""
    item = w.item
    rows = w.rows()
    said = w.joined([positive(w, estimator, rows) for estimator in item.estimators_])
    # Of classes with the same code, the first is chosen.
    firsts = np.sort(np.unique(item.code_book_, axis=0, return_index=True)[1])
    codes = np.asarray(item.code_book_, np.float64)[firsts]
    # |s - c|^2 without |s|^2, which is the same for all codes.
    far = w.linear(said, -2 * codes.T, (codes**2).sum(1))
    best = w.op("ArgMin", far, axis=1, keepdims=0)
    w.finish(w.chosen_labels(best, item.classes_[firsts]), far)


def function(w: Writer) -> None:
    """What a FunctionTransformer's function does, traced.

    Raises:
        NotImplementedError: it does something that cannot be written down.
    """
    item, rows = w.item, w.rows()
    if item.func is not None:
        rows = traced(w, item.func, rows, item.n_features_in_, item.kw_args or {})
    w.finish(rows)


# --- chains --------------------------------------------------------------------------------


def regressor_chain(w: Writer) -> None:
    """Each estimator sees what those before it said.

    Raises:
        NotImplementedError: of an estimator that answers several values.
    """
    rows = w.rows()
    found: list[str] = []
    for estimator in w.item.estimators_:
        found.append(w.upright(w.ask(estimator, w.joined([rows, *found])).scores))
    w.finish(w.columns(w.joined(found), np.argsort(w.item.order_)))


def transformed_target(w: Writer) -> None:
    """The prediction of a regressor, transformed back.

    Raises:
        NotImplementedError: of a transformer whose inverse is not known here.
    """
    item = w.item
    answer = w.ask(item.regressor_, w.rows()).scores
    if item._training_dim == 1:
        answer = w.upright(answer)
    w.finish(_undone(w, item.transformer_, answer))


def _undone(w: Writer, transformer: Any, values: str) -> str:
    name = type(transformer).__name__
    if name == "FunctionTransformer":
        if transformer.inverse_func is None:
            return values
        width = getattr(transformer, "n_features_in_", 1)
        given = transformer.inv_kw_args or {}
        return traced(w, transformer.inverse_func, values, width, given)
    if name in {"StandardScaler", "RobustScaler", "MaxAbsScaler"}:
        spread = getattr(transformer, "scale_", None)
        middle = getattr(transformer, "mean_", getattr(transformer, "center_", None))
        values = values if spread is None else w.op("Mul", values, w.constant(spread))
        return values if middle is None else w.op("Add", values, w.constant(middle))
    if name == "MinMaxScaler":
        moved = w.op("Sub", values, w.constant(transformer.min_))
        return w.op("Div", moved, w.constant(transformer.scale_))
    raise NotImplementedError(f"the inverse of {name}")


# --- calibration ---------------------------------------------------------------------------


def calibrates_itself(item: Any) -> bool:
    """Whether skl2onnx loses something of a CalibratedClassifierCV."""
    inner = [each.estimator for each in item.calibrated_classifiers_]
    # Raw scores are asked of the classes that have an option for them, probabilities of others,
    # and of every pipeline.
    return item.method != "sigmoid" or any(
        is_booster(final_step(each)) or hasattr(each, "decision_function") for each in inner
    )


def calibrated(w: Writer) -> None:
    """The mean of what calibrated classifiers answer.

    Raises:
        NotImplementedError: of the decision function of some estimators, and of temperature
            scaling of probabilities of several classes.
    """
    item = w.item
    rows = w.rows()
    parts = [_calibrated(w, each, rows) for each in item.calibrated_classifiers_]
    total = parts[0] if len(parts) == 1 else w.op("Sum", *parts)
    w.finish_classes(w.op("Div", total, w.constant(float(len(parts)))))


def _calibrated(w: Writer, each: Any, rows: str) -> str:
    """``_CalibratedClassifier.predict_proba``, ``[rows, classes]``."""
    inner, two = each.estimator, len(each.classes) == 2
    decides = hasattr(inner, "decision_function")
    said = decision(w, inner, rows) if decides else shares(w, inner, rows)
    if two and not decides:
        said = w.upright(w.column(said, 1))
    if each.method == "temperature":
        return _cooled(w, each, said, two)
    if len(inner.classes_) != len(each.classes):
        raise NotImplementedError("calibration of a classifier that knows fewer classes")
    columns = [w.column(said, index) for index in range(len(each.calibrators))]
    told = [
        w.upright(_of_calibrator(w, calibrator, column))
        for calibrator, column in zip(each.calibrators, columns, strict=True)
    ]
    if two:
        return w.joined([w.op("Sub", w.constant(1.0), told[0]), told[0]])
    joined = w.joined(told)
    total = w.summed(joined)
    none = w.op("Equal", total, w.constant(0.0))
    even = np.full((1, len(each.classes)), 1 / len(each.classes))
    shared = w.op("Div", joined, w.op("Where", none, w.constant(1.0), total))
    return w.op("Where", none, w.constant(even), shared)


def _of_calibrator(w: Writer, calibrator: Any, scores: str) -> str:
    if hasattr(calibrator, "a_"):
        inner = w.op("Mul", scores, w.constant(-calibrator.a_))
        return w.sigmoid(w.op("Sub", inner, w.constant(calibrator.b_)))
    clipped = w.op("Max", w.constant(calibrator.X_min_), scores)
    clipped = w.op("Min", w.constant(calibrator.X_max_), clipped)
    return interpolated(w, clipped, calibrator.X_thresholds_, calibrator.y_thresholds_)


def _cooled(w: Writer, each: Any, said: str, two: bool) -> str:
    decides = hasattr(each.estimator, "decision_function")
    if decides:
        logits = w.joined([w.op("Neg", said), said]) if two else said
    else:
        said = w.joined([w.op("Sub", w.constant(1.0), said), said]) if two else said
        logits = w.op("Log", w.op("Add", said, w.constant(_TINY)))
    heated = w.op("Mul", logits, w.constant(each.calibrators[0].beta_))
    return w.op("Softmax", heated, axis=1)


# --- discriminants and constants -----------------------------------------------------------


def linear_discriminant(w: Writer) -> None:
    item = w.item
    said = w.linear(w.rows(), item.coef_.T, item.intercept_)
    if len(item.classes_) > 2:
        best = w.op("ArgMax", said, axis=1, keepdims=0)
        return w.finish(w.chosen_labels(best, item.classes_), w.op("Softmax", said, axis=1))
    above = w.op("Greater", w.flat(said), w.constant(0.0))
    share = w.sigmoid(said)
    told = w.joined([w.op("Sub", w.constant(1.0), share), share])
    return w.finish(w.chosen_labels(w.cast(above, "int64"), item.classes_), told)


def dummy_classifier(w: Writer) -> None:
    """The same answer for every row.

    Raises:
        NotImplementedError: the answer is random.
    """
    item = w.item
    if item._strategy in {"stratified", "uniform"}:
        raise NotImplementedError(f"a random answer (strategy={item._strategy!r})")
    one_row = np.zeros((1, 1))
    rows = w.rows()
    if item.n_outputs_ > 1:
        each = [w.repeated(rows, shares[0]) for shares in item.predict_proba(one_row)]
        given = zip(item.classes_, item.predict(one_row)[0], strict=True)
        found = [float(np.flatnonzero(classes == label)[0]) for classes, label in given]
        index = w.cast(w.repeated(rows, found), "int64")
        return finish_chosen(w, [w.columns(index, [k]) for k in range(len(found))], each)
    scores = w.repeated(rows, item.predict_proba(one_row)[0])
    label = int(np.flatnonzero(item.classes_ == item.predict(one_row)[0])[0])
    index = w.cast(w.flat(w.repeated(rows, [float(label)])), "int64")
    return w.finish(w.chosen_labels(index, item.classes_), scores)


def dummy_regressor(w: Writer) -> None:
    w.finish(w.repeated(w.rows(), np.ravel(w.item.constant_)))


# --- stacking ------------------------------------------------------------------------------


def stacks_itself(item: Any) -> bool:
    """Whether skl2onnx loses something of a StackingClassifier."""
    return not set(item.stack_method_) <= {"predict_proba"}


def stacking(w: Writer) -> None:
    """What the estimators answer, as columns for the last one (StackingClassifier).

    Raises:
        NotImplementedError: of the decision function of some estimators.
    """
    item = w.item
    final = w.ask(item.final_estimator_, _stacked(w, item, w.rows()))
    index = w.cast(final.labels, "int64")
    w.finish(w.chosen_labels(index, item.classes_), final.scores)


@decides("StackingClassifier")
def _of_stack(w: Writer, item: Any, rows: str) -> str:
    return decision(w, item.final_estimator_, _stacked(w, item, rows))


def _stacked(w: Writer, item: Any, rows: str) -> str:
    """The columns that the last estimator of a stack is given."""
    two = len(item.classes_) == 2
    parts = []
    for estimator, method in zip(item.estimators_, item.stack_method_, strict=True):
        if method == "decision_function":
            parts.append(decision(w, estimator, rows))
            continue
        if method == "predict":
            answer = w.ask(estimator, rows)
            parts.append(w.upright(w.cast(answer.labels or answer.scores, "float64")))
        else:
            told = shares(w, estimator, rows)
            parts.append(w.columns(told, [1]) if two else told)
    return w.joined([*parts, rows] if item.passthrough else parts)


# --- boosting ------------------------------------------------------------------------------


def weighted_median(w: Writer) -> None:
    """The first answer with half of the weights at or below it (AdaBoostRegressor)."""
    item, rows = w.item, w.rows()
    count = len(item.estimators_)
    said = w.joined([w.upright(w.ask(inner, rows).scores) for inner in item.estimators_])
    ordered, order = w.ops("TopK", 2, said, w.integers(count), axis=1, largest=0)
    weights = w.constant(item.estimator_weights_[:count])
    shares = w.op("CumSum", w.op("Gather", weights, order), w.constant(1, "int64"))
    half = w.op("Mul", w.columns(shares, [count - 1]), w.constant(0.5))
    reached = w.cast(w.op("GreaterOrEqual", shares, half), "int64")
    first = w.op("ArgMax", reached, axis=1, keepdims=1)
    w.finish(w.op("GatherElements", ordered, first, axis=1))
