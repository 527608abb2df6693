"""Values that the inputs of a fitted scikit-learn estimator usually take, from what it learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from modelpack.adapters.sklearn_columns import (
    ENCODERS,
    OF_LABELS,
    Columns,
    categories_of_histograms,
    category_dtype,
    positions_of,
    steps_on,
    takes_text,
)
from modelpack.adapters.sklearn_leaves import rows_in_leaves, trees_of
from modelpack.adapters.sklearn_loading import children
from modelpack.adapters.sklearn_signature import answers, sample
from modelpack.adapters.sklearn_texts import probes
from modelpack.errors import InputError
from modelpack.samples import Array
from modelpack.signature import DType, TensorSpec
from modelpack.steps import Range

# CatBoost tells NaN from numbers by a threshold at the end of float32.
_ENDLESS = 1e38


# How far from zero values lie of which nothing is known, and how many rows are tried.
_REACH = 3.0
_ROWS = 16


def input_ranges(model: Any, columns: Columns, specs: Sequence[TensorSpec]) -> dict[str, Range]:
    """Return the values that the inputs usually take, from what the steps learned."""
    if columns.kind == "text":
        return {specs[0].name: Range(values=probes(model))}
    if type(model).__name__ in OF_LABELS:
        return {specs[0].name: _category_range(np.asarray(model.classes_), unknown_allowed=False)}
    bounds = _bounds(model, list(range(columns.width)), columns.names)
    if columns.kind == "columns":
        return {
            spec.name: bounds[position]
            for spec, position in zip(specs, columns.positions, strict=True)
            if position in bounds
        }
    if columns.dtypes[0] is DType.STRING:
        shared = [set(bounds[i].values) for i in range(columns.width) if i in bounds]
        # One list serves the whole matrix: only values that every column knows are safe.
        values = set.intersection(*shared) if shared else set()
        return {specs[0].name: Range(values=tuple(sorted(values)))} if values else {}
    if not bounds:
        return {}
    default = Range((-2.0,), (2.0,))
    rows = [bounds.get(index, default) for index in range(columns.width)]
    low, high = tuple(row.low[0] for row in rows), tuple(row.high[0] for row in rows)
    return {specs[0].name: Range(low, high)}


def takes_negatives(
    model: Any, columns: Columns, specs: Sequence[TensorSpec], ranges: dict[str, Range]
) -> bool:
    """Whether a model answers for values of both signs, where the usual ones have them."""
    unknown = _unknown(specs, ranges)
    both = {**ranges, **dict.fromkeys(unknown, Range((-_REACH,), (_REACH,)))}
    try:
        answers(model, columns, sample(specs, both, _ROWS))
    except InputError:
        return False
    return True


def without_negatives(specs: Sequence[TensorSpec], ranges: dict[str, Range]) -> dict[str, Range]:
    """The same ranges, and none below 0 where it goes above, or where nothing is known."""
    cut = {name: _cut(usual) for name, usual in ranges.items()}
    return {**cut, **dict.fromkeys(_unknown(specs, ranges), Range((0.0,), (_REACH,)))}


def _cut(usual: Range) -> Range:
    pairs = zip(usual.low, usual.high, strict=True)
    return replace(usual, low=tuple(max(low, 0.0) if high > 0 else low for low, high in pairs))


def _unknown(specs: Sequence[TensorSpec], ranges: dict[str, Range]) -> list[str]:
    return [spec.name for spec in specs if spec.dtype.is_float and spec.name not in ranges]


def rare_rows(
    model: Any, specs: Sequence[TensorSpec], ranges: dict[str, Range]
) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Return rows that usual values seldom look like, for a model with trees on a matrix."""
    usual = ranges.get(specs[0].name)
    if len(specs) > 1 or usual is None or not usual.low:
        return {}
    rows = rows_in_leaves(model, np.asarray(usual.low), np.asarray(usual.high))
    return {} if rows is None else {specs[0].name: tuple(map(tuple, rows.tolist()))}


def _bounds(model: Any, where: list[int], names: tuple[str, ...]) -> dict[int, Range]:
    name = type(model).__name__
    found: dict[int, Range] = {}
    if hasattr(model, "transformers_"):
        for _, step, selection in model.transformers_:
            chosen = [where[index] for index in positions_of(selection, len(where), names)]
            found = {**_bounds(step, chosen, ()), **found}
        return found
    if hasattr(model, "steps"):
        for step in steps_on(model, len(where)):
            found = {**_bounds(step, where, names), **found}
        return found
    if name in ENCODERS:
        known = getattr(model, "handle_unknown", "ignore") != "error"
        return {
            index: _category_range(values, known)
            for index, values in zip(where, model.categories_, strict=True)
        }
    if name.startswith("HistGradientBoosting") and model.is_categorical_ is not None:
        return _of_histograms(model, where)
    if takes_text(model):
        return {where[0]: Range(values=probes(model))}
    limits = _limits(model, len(where))
    if limits is not None:
        return {
            index: Range((float(low),), (float(high),))
            for index, low, high in zip(where, *limits, strict=True)
            if np.isfinite(low) and np.isfinite(high)
        }
    for _, child in children(model):
        if getattr(child, "n_features_in_", None) == len(where):
            return _bounds(child, where, names)
    return {}


def _of_histograms(model: Any, where: list[int]) -> dict[int, Range]:
    """Of histogram boosting that takes categories, whose columns come first inside of it."""
    categories = categories_of_histograms(model)
    columns = range(len(where))
    order = sorted(columns, key=lambda column: categories[column] is None)
    cuts = [
        (np.full(len(own), column), np.asarray(own))
        for column, own in zip(order, model._bin_mapper.bin_thresholds_, strict=True)
    ]
    low, high = _spread(cuts, len(where))
    return {
        where[column]: Range((float(low[column]),), (float(high[column]),))
        if values is None
        else _category_range(values, unknown_allowed=True)
        for column, values in enumerate(categories)
    }


def _category_range(values: Array, unknown_allowed: bool) -> Range:
    if category_dtype(values) is DType.STRING:
        words = [str(value) for value in values]  # a missing one too
        return Range(values=(*words, *(("an unknown value",) if unknown_allowed else ())))
    numbers = [float(value) for value in values if not pd.isna(value)]
    if not numbers:
        return Range()
    low, high = min(numbers), max(numbers)
    gaps = numbers != [low + step for step in range(len(numbers))]
    if gaps and not unknown_allowed:
        high = low  # a value between the categories would be refused
    return Range((low,), (high,))


def _limits(model: Any, width: int) -> tuple[Array, Array] | None:
    """Smallest and largest usual value per column, from the statistics of one step."""
    own = _BY_NAME.get(type(model).__name__)
    if own is not None:
        return own(model, width)
    for limits in (_of_scaler, _of_distribution, _of_points):
        found = limits(model, width)
        if found is not None:
            return found
    thresholds = _thresholds(model)
    return None if thresholds is None else _spread(thresholds, width)


def _of_scaler(model: Any, width: int) -> tuple[Array, Array] | None:
    if hasattr(model, "data_min_"):
        return model.data_min_, model.data_max_
    if hasattr(model, "max_abs_"):
        return -model.max_abs_, model.max_abs_
    if hasattr(model, "center_") or type(model).__name__ == "StandardScaler":
        middle = getattr(model, "mean_", getattr(model, "center_", None))
        spread = getattr(model, "scale_", None)
        middle = np.zeros(width) if middle is None else middle
        spread = np.ones(width) if spread is None else spread
        return middle - 3 * spread, middle + 3 * spread
    if hasattr(model, "quantiles_"):
        return model.quantiles_.min(0), model.quantiles_.max(0)
    if hasattr(model, "lambdas_"):
        return _undone(model, width)
    return None


def _of_distribution(model: Any, width: int) -> tuple[Array, Array] | None:
    if hasattr(model, "explained_variance_") and hasattr(model, "components_"):
        middle = np.zeros(width) if getattr(model, "mean_", None) is None else model.mean_
        spread = np.sqrt((model.components_**2 * model.explained_variance_[:, None]).sum(0))
        return middle - 3 * spread, middle + 3 * spread
    if hasattr(model, "theta_") and hasattr(model, "var_"):
        spread = 3 * np.sqrt(model.var_)
        return (model.theta_ - spread).min(0), (model.theta_ + spread).max(0)
    if hasattr(model, "n_categories_"):
        return np.zeros(width), np.asarray(model.n_categories_) - 1
    return None


def _of_points(model: Any, _width: int) -> tuple[Array, Array] | None:
    """From rows that the model keeps."""
    for name in _POINTS:
        points = getattr(model, name, None)
        if isinstance(points, np.ndarray) and points.ndim == 2 and len(points):
            return points.min(0), points.max(0)
    return None


# Attributes that hold rows, by which a model knows what its data look like.
_POINTS = ("cluster_centers_", "support_vectors_", "_fit_X", "X_fit_", "X_", "X_train_")


def _of_isotonic(model: Any, _width: int) -> tuple[Array, Array]:
    reach = 0.1 * (model.X_max_ - model.X_min_)
    return np.array([model.X_min_ - reach]), np.array([model.X_max_ + reach])


def _of_counts(model: Any, width: int) -> tuple[Array, Array]:
    """Sums of the column per class over rows of the class: up to thrice the mean."""
    means = model.feature_count_ / np.maximum(model.class_count_, 1)[:, None]
    return np.zeros(width), 3 * means.max(0)


def _of_parts(model: Any, width: int) -> tuple[Array, Array]:
    """Sums of parts that are not negative."""
    return np.zeros(width), 2 * model.components_.sum(0) + 1e-6


_BY_NAME: dict[str, Callable[[Any, int], tuple[Array, Array]]] = {
    "IsotonicRegression": _of_isotonic,
    "MiniBatchNMF": _of_parts,
    "MultinomialNB": _of_counts,
    "NMF": _of_parts,
    "ComplementNB": _of_counts,
    "AdditiveChi2Sampler": lambda _, width: (np.zeros(width), np.full(width, 2.0)),
    "SkewedChi2Sampler": lambda model, width: (
        np.full(width, -0.9 * model.skewedness),
        np.full(width, 2.0),
    ),
}


def _undone(model: Any, width: int) -> tuple[Array, Array]:
    """What a power transformation maps to -2 and 2 standard deviations; NaN where nothing."""
    scaler = getattr(model, "_scaler", None)
    middle, spread = (scaler.mean_, scaler.scale_) if scaler else (np.zeros(width), np.ones(width))
    standard = getattr(model, "standardize", False)
    ends = [
        np.full(width, 2.0 * side) if standard else middle + 2 * side * spread for side in (-1, 1)
    ]
    low, high = (model.inverse_transform(end[None])[0] for end in ends)
    return low, high


def _thresholds(model: Any) -> list[tuple[Array, Array]] | None:
    """Pairs of (features, thresholds) of the splits of trees, histograms included."""
    mapper = getattr(model, "_bin_mapper", None)
    if mapper is not None:
        return [
            (np.full(len(cuts), index), np.asarray(cuts))
            for index, cuts in enumerate(mapper.bin_thresholds_)
        ]
    trees = trees_of(model)
    found = [(tree.features[tree.inner], tree.thresholds[tree.inner]) for tree in trees]
    return found or None


def _spread(pairs: list[tuple[Array, Array]], width: int) -> tuple[Array, Array]:
    """Bounds a little beyond the thresholds, so that both sides of each are visited."""
    features = np.concatenate([features for features, _ in pairs])
    cuts = np.concatenate([cuts for _, cuts in pairs])
    low, high = np.full(width, -2.0), np.full(width, 2.0)
    for index in range(width):
        own = cuts[(features == index) & (abs(cuts) < _ENDLESS)] if len(cuts) else cuts
        if len(own):
            margin = 0.1 * (own.max() - own.min()) + 1e-3 * abs(own).max() + 1e-6
            low[index], high[index] = own.min() - margin, own.max() + margin
    return low, high
