"""Histogram gradient boosting with categories, or with an exponential after its trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from modelpack.adapters.boosters.scores import TRANSFORMS, both_classes, second_class
from modelpack.adapters.boosters.trees import (
    Forest,
    Sides,
    Tree,
    ensemble,
    float32_not_above,
    runs,
)
from modelpack.adapters.sklearn_columns import categories_of_histograms
from modelpack.adapters.sklearn_converters.encoders import Table, looked_up
from modelpack.adapters.sklearn_converters.writer import Writer

_BITS = 32  # of a word of a set of categories


def needs_own(item: Any) -> bool:
    """Whether skl2onnx loses something of a fitted estimator."""
    return has_categories(item) or getattr(item, "loss", "") in {"poisson", "gamma"}


def has_categories(item: Any) -> bool:
    """Whether a fitted estimator takes columns of categories."""
    return any(values is not None for values in categories_of_histograms(item))


def histogram_boosting(w: Writer) -> None:
    """The sum of trees over columns whose categories are numbered, the first of all."""
    item = w.item
    rows = _numbered(w)
    forest = _forest(item)
    sums = w.op("TreeEnsembleRegressor", rows, domain="ai.onnx.ml", **ensemble(forest))
    answers = TRANSFORMS[forest.transform](w, sums)
    if not hasattr(item, "classes_"):
        return w.finish(answers)
    if forest.targets > 1:
        return w.finish_classes(answers)
    label = w.chosen_labels(second_class(w, answers), item.classes_)
    return w.finish(label, both_classes(w, answers))


def _numbered(w: Writer) -> str:
    """Columns of categories as their numbers, NaN for unknown ones, then the other columns.

    So does the estimator's own ``_preprocessor``.
    """
    categories = categories_of_histograms(w.item)
    if not has_categories(w.item):
        return w.rows("float32")
    columns = w.each_column()
    parts, others = [], []
    for column, values in zip(columns, categories, strict=True):
        if values is None:
            others.append(w.cast(column.name, "float32"))
            continue
        known = [value for value in values if not pd.isna(value)]
        numbers = np.arange(len(known), dtype=np.float64)[:, None]
        table = Table(known, numbers, np.array([np.nan]))
        parts.append(w.cast(looked_up(w, column, table), "float32"))
    return w.joined([*parts, *others])


def _forest(item: Any) -> Forest:
    trees = [
        _tree(predictor, target)
        for group in item._predictors
        for target, predictor in enumerate(group)
    ]
    base = np.ravel(item._baseline_prediction)
    if hasattr(item, "classes_"):
        transform = "sigmoid" if len(base) == 1 else "softmax"
    else:
        transform = "exp" if item.loss in {"poisson", "gamma"} else "identity"
    return Forest(trees, base, strict=False, transform=transform)


def _tree(predictor: Any, target: int) -> Tree:
    nodes = predictor.nodes
    leaf, splits = nodes["is_leaf"].astype(bool), nodes["is_categorical"].astype(bool)
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    compared = np.where(leaf | splits, 0, nodes["num_threshold"])
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=float32_not_above(compared),
        left=left,
        right=right,
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=np.where(leaf, nodes["value"], 0.0),
        target=target,
        sets={
            int(node): _sides(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
            for node in np.flatnonzero(splits & ~leaf)
        },
    )


def _sides(words: Any) -> Sides:
    """A set of numbers that goes left, by where the side changes.

    It is empty where only missing values go left.
    """
    members = [
        index * _BITS + bit
        for index, word in enumerate(words)
        for bit in range(_BITS)
        if int(word) >> bit & 1
    ]
    cuts = [cut for low, high in runs(members) for cut in (low - 0.5, high + 0.5)]
    if not cuts:
        return Sides(np.array([np.finfo(np.float32).max]), first_left=False)
    begins = cuts[0] < 0
    return Sides(np.array(cuts[1:] if begins else cuts, np.float32), begins)
