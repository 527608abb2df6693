"""The trees of XGBoost, read from the JSON that it writes (its "JSON schema of the model")."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np

from modelpack.adapters.boosters.trees import Forest, Sides, Tree, runs
from modelpack.errors import ConversionError
from modelpack.samples import Array

# What becomes of the sums, and how the base score, which is kept as an answer, becomes one of
# the sums (``ProbToMargin`` and ``PredTransform`` of src/objective/).
_LOGISTIC = {"binary:logistic", "reg:logistic"}
_EXPONENTIAL = {"count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"}
_SOFTMAX = {"multi:softprob", "multi:softmax"}
_SAME = {
    *("reg:squarederror", "reg:linear", "reg:absoluteerror", "reg:pseudohubererror"),
    *("reg:quantileerror", "reg:squaredlogerror", "rank:pairwise", "rank:ndcg", "rank:map"),
}


def problem(item: Any) -> str:
    """Why a fitted XGBoost estimator cannot be converted; empty if it can."""
    learner = _learner(item)
    booster = learner["gradient_booster"]
    objective = learner["objective"]["name"]
    if booster["name"] not in {"gbtree", "dart"}:
        return f"its booster {booster['name']!r} is not made of trees"
    if objective not in {*_LOGISTIC, *_EXPONENTIAL, *_SOFTMAX, *_SAME, "binary:hinge"}:
        return f"what becomes of the sum of its trees for the objective {objective!r} is not known"
    model = _gbtree(booster)["model"]
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in model["trees"]):
        return "leaves of several targets (multi_strategy='multi_output_tree') are not supported"
    if model.get("cats", {}).get("enc"):
        return (
            "it was fitted on columns of pandas categories; "
            "fit it on the numbers of an OrdinalEncoder, with feature_types"
        )
    if hasattr(item, "classes_") and objective not in {*_LOGISTIC, *_SOFTMAX, "binary:hinge"}:
        return f"a classifier of the objective {objective!r} is not supported"
    if hasattr(item, "classes_") and int(learner["learner_model_param"]["num_target"]) > 1:
        return "several labels for a row are not supported"
    return ""


def read(item: Any) -> Forest:
    """Read the trees of a fitted estimator, up to its best iteration if it stopped early.

    Raises:
        ConversionError: the base score cannot be read.
    """
    learner = _learner(item)
    booster, objective = learner["gradient_booster"], learner["objective"]["name"]
    model = _gbtree(booster)["model"]
    weights = booster.get("weight_drop") or [1.0] * len(model["trees"])
    trees = [
        _tree(tree, int(target), float(weight))
        for tree, target, weight in zip(model["trees"], model["tree_info"], weights, strict=True)
    ]
    missing = getattr(item, "missing", np.nan)
    return Forest(
        trees,
        _base(learner["learner_model_param"], objective),
        strict=True,
        transform=_transform(objective),
        missing=None if missing is None or np.isnan(missing) else float(missing),
    )


def _learner(item: Any) -> dict[str, Any]:
    booster = item.get_booster()
    with contextlib.suppress(AttributeError):  # unless it did not stop early
        booster = booster[: item.best_iteration + 1]
    return json.loads(bytes(booster.save_raw("json")))["learner"]


def _gbtree(booster: dict[str, Any]) -> dict[str, Any]:
    return booster.get("gbtree", booster)


def _transform(objective: str) -> str:
    if objective in _LOGISTIC:
        return "sigmoid"
    if objective in _EXPONENTIAL:
        return "exp"
    if objective in _SOFTMAX:
        return "softmax"
    return "step" if objective == "binary:hinge" else "identity"


def _base(parameters: dict[str, str], objective: str) -> Array:
    """The base score as a part of the sums, ``[targets]``."""
    text = parameters["base_score"].strip("[]")
    try:
        scores = np.array([float(part) for part in text.split(",")], np.float32)
    except ValueError:
        raise ConversionError(f"XGBoost's base score '{text}' cannot be read") from None
    if objective in _LOGISTIC:
        scores = -np.log(np.float32(1) / scores - np.float32(1))
    elif objective in _EXPONENTIAL:
        scores = np.log(scores)
    targets = max(int(parameters["num_class"]), int(parameters["num_target"]), 1)
    return np.broadcast_to(scores, targets).copy() if len(scores) == 1 else scores


def _tree(tree: dict[str, Any], target: int, weight: float) -> Tree:
    left = np.array(tree["left_children"], np.int64)
    condition = np.array(tree["split_conditions"], np.float32)
    return Tree(
        feature=np.array(tree["split_indices"], np.int64),
        threshold=condition,
        left=left,
        right=np.array(tree["right_children"], np.int64),
        missing_left=np.array(tree["default_left"]).astype(np.bool_),
        value=np.where(left < 0, condition, 0) * np.float32(weight),
        target=target,
        sets=_sets(tree),
    )


def _sets(tree: dict[str, Any]) -> dict[int, Sides]:
    """Categories that go right; what is no category, negative numbers too, goes left.

    A category is the whole part of its number (``Decision`` in src/common/categorical.h).
    """
    found = {}
    for node, start, size in zip(
        tree["categories_nodes"],
        tree["categories_segments"],
        tree["categories_sizes"],
        strict=True,
    ):
        members = tree["categories"][start : start + size]
        ends = [end for low, high in runs(members) for end in (low, high + 1)]
        found[int(node)] = Sides(np.array(ends, np.float32), first_left=True)
    return found
