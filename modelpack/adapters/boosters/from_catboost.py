"""The trees of CatBoost, read from the JSON that it writes (``save_model(format="json")``)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.adapters.boosters.trees import Forest, Tree, float32_not_above
from modelpack.samples import Array

_CLASSIFIERS = {"Logloss": "sigmoid", "CrossEntropy": "sigmoid", "MultiClass": "softmax"} | {
    "MultiClassOneVsAll": "sigmoid"
}
_EXPONENTIAL = ("Poisson", "Tweedie")
_SEVERAL = ("MultiRMSE", "MultiRMSEWithMissingValues", "MultiQuantile", "RMSEWithUncertainty")


def problem(item: Any) -> str:
    """Why a fitted CatBoost estimator cannot be converted; empty if it can."""
    model = _model(item)
    info = model["features_info"]
    if any(info.get(f"{kind}_features") for kind in ("categorical", "text", "embedding")):
        return "it has categorical, text or embedding features, which CatBoost hashes"
    loss = _loss(item)
    if hasattr(item, "predict_proba"):
        if loss not in _CLASSIFIERS:
            return f"a classifier of the loss {loss!r} is not supported"
        threshold = item.get_probability_threshold() if len(item.classes_) == 2 else 0.5
        if abs(threshold - 0.5) > 1e-9:
            return f"its probability threshold {threshold:g} would be lost"
    elif loss in _SEVERAL:
        return f"several answers for a row (loss {loss!r}) are not supported"
    return ""


def read(item: Any) -> Forest:
    """Read the trees of a fitted estimator."""
    model = _model(item)
    scale, bias = model["scale_and_bias"]
    base = np.atleast_1d(np.asarray(bias, np.float64))
    right = {
        feature["feature_index"]: feature["nan_value_treatment"] == "AsTrue"
        for feature in model["features_info"]["float_features"]
    }
    columns = {
        feature["feature_index"]: feature["flat_feature_index"]
        for feature in model["features_info"]["float_features"]
    }
    trees: list[Tree] = []
    for tree in model.get("oblivious_trees", ()):
        trees += _split_up(_oblivious(tree, columns, right), len(base), scale)
    for tree in model.get("trees", ()):
        trees += _split_up(_nested(tree, columns, right), len(base), scale)
    return Forest(trees, base, strict=False, transform=_transform(item))


def _loss(item: Any) -> str:
    given = item.get_all_params().get("loss_function") or ""
    return str(given).partition(":")[0]


def _transform(item: Any) -> str:
    loss = _loss(item)
    if hasattr(item, "predict_proba"):
        return _CLASSIFIERS[loss]
    return "exp" if loss.startswith(_EXPONENTIAL) else "identity"


def _model(item: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.json"
        item.save_model(str(path), format="json")
        return json.loads(path.read_text(encoding="utf-8"))


def _split_up(parts: tuple[Tree, Array], targets: int, scale: float) -> list[Tree]:
    """One tree for each target of a tree whose leaves hold several values."""
    shape, values = parts
    return [
        Tree(
            shape.feature,
            shape.threshold,
            shape.left,
            shape.right,
            shape.missing_left,
            values[:, target] * scale,
            target,
        )
        for target in range(targets)
    ]


def _oblivious(
    tree: dict[str, Any], columns: dict[int, int], right: dict[int, bool]
) -> tuple[Tree, Array]:
    """A tree whose nodes of one depth ask the same; the last split is the root here.

    The answer to the first split is the lowest bit of a leaf's number.
    """
    splits = tree["splits"][::-1]
    depth = len(splits)
    inner = (1 << depth) - 1
    level = np.repeat(np.arange(depth), 1 << np.arange(depth))
    features = [split["float_feature_index"] for split in splits]
    borders = float32_not_above([split["border"] for split in splits])
    leaves = 1 << depth
    values = np.asarray(tree["leaf_values"], np.float64).reshape(leaves, -1)
    none = -np.ones(leaves, np.int64)
    nodes = np.arange(inner)
    shape = Tree(
        feature=np.append(np.array([columns[i] for i in features], np.int64)[level], none),
        threshold=np.append(borders[level], np.zeros(leaves)),
        left=np.append(2 * nodes + 1, none),
        right=np.append(2 * nodes + 2, none),
        missing_left=np.append(~np.array([right[i] for i in features], np.bool_)[level], none < 0),
        value=np.zeros(0),
    )
    return shape, np.concatenate([np.zeros((inner, values.shape[1])), values])


def _nested(
    tree: dict[str, Any], columns: dict[int, int], right: dict[int, bool]
) -> tuple[Tree, Array]:
    """A tree of nodes that hold their children."""
    nodes: list[tuple[int, float, int, int, bool]] = []
    values: list[Any] = []

    def visit(node: dict[str, Any]) -> int:
        place = len(nodes)
        nodes.append((0, 0.0, -1, -1, True))
        values.append(np.atleast_1d(node.get("value", np.nan)))
        if "split" in node:
            index = node["split"]["float_feature_index"]
            sides = visit(node["left"]), visit(node["right"])
            nodes[place] = (columns[index], node["split"]["border"], *sides, not right[index])
        return place

    visit(tree)
    feature, threshold, left, own_right, missing = map(np.array, zip(*nodes, strict=True))
    width = max(map(len, values))
    filled = [value if len(value) == width else np.zeros(width) for value in values]
    shape = Tree(
        feature.astype(np.int64),
        float32_not_above(threshold),
        left.astype(np.int64),
        own_right.astype(np.int64),
        missing.astype(np.bool_),
        np.zeros(0),
    )
    return shape, np.stack(filled)
