"""Decision trees and forests, written from the arrays that scikit-learn keeps them in."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier

from modelpack.adapters.boosters.trees import float32_not_above
from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.adapters.sklearn_leaves import Tree, trees_of
from modelpack.samples import Array


def is_plain(item: Any) -> bool:
    """Whether an estimator is a tree or a forest with one label a row, or with values."""
    return not is_classifier(item) or item.n_outputs_ == 1


def forest(w: Writer) -> None:
    """The mean of what the leaves of all trees say."""
    item = w.item
    node = _attributes(trees_of(item), [_values(member) for member in _members(item)])
    answers = w.ensemble(w.rows("float32"), node)
    if is_classifier(item):
        return w.finish_classes(answers)
    return w.finish(answers)


def _members(item: Any) -> list[Any]:
    return list(np.ravel(item.estimators_)) if hasattr(item, "estimators_") else [item]


def _values(member: Any) -> Array:
    """What each node of a tree says, ``[nodes, targets]``."""
    values = member.tree_.value
    return np.asarray(values[:, 0, :] if is_classifier(member) else values[:, :, 0])


def _attributes(trees: list[Tree], values: list[Array]) -> dict[str, Array]:
    """Of a ``TreeEnsembleRegressor``; leaves name the targets that they add something to."""
    counts = [len(tree.left) for tree in trees]
    owners = np.repeat(np.arange(len(trees)), counts)
    ids = np.concatenate([np.arange(count) for count in counts])
    left, right, features, thresholds, missing = (
        np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("left", "right", "features", "thresholds", "missing_left")
    )
    leaf = left <= 0
    shares = np.concatenate(values)[leaf] / len(trees)
    # A leaf that says nothing of any target is one still.
    said = shares != 0
    said[~said.any(1), 0] = True
    places, targets = np.nonzero(said)
    return {
        "n_targets": np.array(shares.shape[1]),
        "nodes_treeids": owners,
        "nodes_nodeids": ids,
        "nodes_modes": np.where(leaf, b"LEAF", b"BRANCH_LEQ"),
        "nodes_featureids": np.where(leaf, 0, features),
        "nodes_values": np.where(leaf, 0, float32_not_above(np.where(leaf, 0, thresholds))),
        "nodes_missing_value_tracks_true": np.where(leaf, 0, missing).astype(np.int64),
        "nodes_truenodeids": np.where(leaf, 0, left),
        "nodes_falsenodeids": np.where(leaf, 0, right),
        "target_treeids": owners[leaf][places],
        "target_nodeids": ids[leaf][places],
        "target_ids": targets,
        "target_weights": shares[said],
    }
