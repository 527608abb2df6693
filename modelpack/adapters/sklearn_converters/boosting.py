"""Histogram gradient boosting with categories, or with an exponential after its trees."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.adapters.boosters.scores import TRANSFORMS, both_classes, second_class
from modelpack.adapters.boosters.trees import (
    Forest,
    Sides,
    Tree,
    ensemble,
    float32_not_above,
    runs,
)
from modelpack.adapters.sklearn_converters.writer import Writer

_BITS = 32  # of a word of a set of categories


def needs_own(item: Any) -> bool:
    """Whether skl2onnx loses something of a fitted estimator."""
    categorical = getattr(item, "is_categorical_", None)
    has_categories = categorical is not None and bool(np.any(categorical))
    return has_categories or getattr(item, "loss", "") in {"poisson", "gamma"}


def histogram_boosting(w: Writer) -> None:
    """The sum of trees over columns whose categories are numbered, the first of all.

    Raises:
        NotImplementedError: categories are text.
    """
    item = w.item
    rows = _numbered(w, w.rows("float32"))
    forest = _forest(item)
    sums = w.op("TreeEnsembleRegressor", rows, domain="ai.onnx.ml", **ensemble(forest))
    answers = TRANSFORMS[forest.transform](w, sums)
    if not hasattr(item, "classes_"):
        return w.finish(answers)
    if forest.targets > 1:
        return w.finish_classes(answers)
    label = w.chosen_labels(second_class(w, answers), item.classes_)
    return w.finish(label, both_classes(w, answers))


def _numbered(w: Writer, rows: str) -> str:
    """Columns of categories as their numbers, NaN for unknown ones, then the other columns.

    So does the estimator's own ``_preprocessor``.
    """
    categorical = w.item.is_categorical_
    if categorical is None or w.item._preprocessor is None:
        return rows
    encoder = w.item._preprocessor.named_transformers_["encoder"]
    nan, parts = w.constant(np.nan, "float32"), []
    for column, values in zip(np.flatnonzero(categorical), encoder.categories_, strict=True):
        if values.dtype.kind not in "fiu":
            raise NotImplementedError("categories that are text")
        known = values[~np.isnan(values.astype(np.float64))]
        same = w.op("Equal", w.columns(rows, [int(column)]), w.constant(known[None], "float32"))
        same = w.cast(same, "float32")
        number = w.cast(w.op("ArgMax", same, axis=1, keepdims=1), "float32")
        found = w.op("Greater", w.reduced("ReduceMax", same), w.constant(0.0, "float32"))
        parts.append(w.op("Where", found, number, nan))
    others = np.flatnonzero(~np.asarray(categorical))
    return w.joined([*parts, w.columns(rows, others)] if len(others) else parts)


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
    """A set of numbers that goes left, by where the side changes."""
    members = [
        index * _BITS + bit
        for index, word in enumerate(words)
        for bit in range(_BITS)
        if int(word) >> bit & 1
    ]
    cuts = [cut for low, high in runs(members) for cut in (low - 0.5, high + 0.5)]
    begins = bool(cuts) and cuts[0] < 0
    return Sides(np.array(cuts[1:] if begins else cuts, np.float32), begins)
