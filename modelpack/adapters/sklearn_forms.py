"""Copies of fitted estimators in forms, equal in effect, that can be converted."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from modelpack.adapters.boosters import count_columns
from modelpack.adapters.sklearn_columns import Columns, positions_of
from modelpack.adapters.sklearn_converters.imputers import joined_steps
from modelpack.adapters.sklearn_converters.transforming import TRANSFORMING, Transforming
from modelpack.adapters.sklearn_loading import walk

# What an estimator hands every call on to, by the attribute that holds it.
_DELEGATES = {
    "FrozenEstimator": "estimator",
    "GridSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "RandomizedSearchCV": "best_estimator_",
    "SelfTrainingClassifier": "estimator_",
}

# Attributes that hold fitted estimators which are asked to predict.
_ASKED = ("estimator_", "estimator", "final_estimator_", "regressor_")


# Attributes that hold rows, or a number for each, of the kind that an estimator was fitted on.
_ROWS = ("X_", "X_fit_", "_fit_X", "_dual_coef_", "dual_coef_", "support_vectors_")


def prepared(model: Any, columns: Columns) -> Any:
    """Return a copy of an estimator that is to be converted."""
    found = _by_position(_unwrapped(_copied(model), asked=True), columns)
    for _, item in walk(found):
        count_columns(item)
        _make_convertible(item)
    return found


def _copied(model: Any) -> Any:
    """A copy that shares its trees: nobody changes them, and they can be most of it."""
    trees = [getattr(item, "tree_", None) for _, item in walk(model)]
    return copy.deepcopy(model, {id(tree): tree for tree in trees if tree is not None})


def _unwrapped(item: Any, asked: bool) -> Any:
    """The estimator, or what stands for it; the same is done to those inside of it.

    Args:
        item: is changed.
        asked: whether it is asked to predict, and not to transform.
    """
    name = type(item).__name__
    if name in _DELEGATES and hasattr(item, _DELEGATES[name]):  # not of a mere template
        return _unwrapped(getattr(item, _DELEGATES[name]), asked)
    if name in TRANSFORMING and not asked:
        return Transforming(item)
    if name in {"RFE", "RFECV"} and asked and hasattr(item, "estimator_"):
        return Pipeline([("select", item), ("estimator", _unwrapped(item.estimator_, asked))])
    if hasattr(item, "steps"):
        last = len(item.steps) - 1
        steps = [
            (key, _unwrapped(step, asked and index == last))
            for index, (key, step) in enumerate(item.steps)
        ]
        item.steps = joined_steps(steps)
    if hasattr(item, "transformers_"):
        item.transformers_ = [
            (k, _unwrapped(step, False), own) for k, step, own in item.transformers_
        ]
    if hasattr(item, "transformer_list"):
        item.transformer_list = [(k, _unwrapped(step, False)) for k, step in item.transformer_list]
    for each in getattr(item, "calibrated_classifiers_", []):
        each.estimator = _unwrapped(each.estimator, True)
    members = getattr(item, "estimators_", None)
    if isinstance(members, list):
        item.estimators_ = [
            _unwrapped(member, True) if isinstance(member, BaseEstimator) else member
            for member in members
        ]
    for attribute in _ASKED:
        inner = getattr(item, attribute, None)
        if isinstance(inner, BaseEstimator) and attribute in vars(item):
            setattr(item, attribute, _unwrapped(inner, True))
    return item


def _make_convertible(item: Any) -> None:
    """Give a copied estimator the settings, equal in effect, that skl2onnx can convert."""
    if hasattr(item, "flatten_transform"):
        item.flatten_transform = False  # concerns transform, which voting is not asked
    if isinstance(getattr(item, "weights", None), list | tuple):
        item.weights = np.asarray(item.weights)
    if hasattr(item, "classes_") and getattr(item, "init_", None) == "zero":
        item.init = None  # "zero" skl2onnx knows of two classes only; init_ says it still
    if getattr(item, "encode", None) == "onehot":  # KBinsDiscretizer: ONNX has no sparse tensors
        item.encode = "onehot-dense"
    for name in (*_ROWS, *(("components_",) if type(item).__name__ == "Nystroem" else ())):
        kept = vars(item).get(name)
        if sparse.issparse(kept):
            setattr(item, name, kept.toarray())
    if type(item).__name__ == "RandomTreesEmbedding":
        item.sparse_output = item.one_hot_encoder_.sparse_output = False


def _by_position(model: Any, columns: Columns) -> Any:
    """Let ColumnTransformers of one matrix select by position: it has no column names."""
    if columns.kind != "matrix" or not columns.names:
        return model
    for _, item in walk(model):
        if hasattr(item, "transformers_"):
            names = tuple(map(str, getattr(item, "feature_names_in_", columns.names)))
            item.transformers_ = [
                (name, step, positions_of(selection, len(names), names))
                for name, step, selection in item.transformers_
            ]
    return model
