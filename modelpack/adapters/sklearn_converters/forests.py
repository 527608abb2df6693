"""Decision trees and forests, written from the arrays that scikit-learn keeps them in."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier

from modelpack.adapters.boosters.trees import float32_not_above
from modelpack.adapters.sklearn_converters.labels import finish_labels
from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.adapters.sklearn_leaves import Tree, trees_of
from modelpack.samples import Array


def forest(w: Writer) -> None:
    """The mean of what the leaves of all trees say."""
    item = w.item
    node = _attributes(trees_of(item), [_values(member) for member in _members(item)])
    answers = w.ensemble(w.rows("float32"), node)
    if not is_classifier(item):
        return w.finish(answers)
    return w.finish_classes(answers) if item.n_outputs_ == 1 else finish_labels(w, answers)


def _members(item: Any) -> list[Any]:
    return list(np.ravel(item.estimators_)) if hasattr(item, "estimators_") else [item]


def _values(member: Any) -> Array:
    """What each node of a tree says, ``[nodes, targets]``."""
    values = np.asarray(member.tree_.value)
    if not is_classifier(member):
        return values[:, :, 0]
    counts = np.atleast_1d(member.n_classes_)
    return np.concatenate([values[:, label, :own] for label, own in enumerate(counts)], axis=1)


def embedding(w: Writer) -> None:
    """A column for each leaf of each tree, which is 1 if a row ends there."""
    item = w.item
    trees = trees_of(item)
    owners, ids, _ = _owners(trees)
    encoded = item.one_hot_encoder_.categories_
    ends = np.cumsum([0, *map(len, encoded)])
    places = np.concatenate(
        [np.flatnonzero(owners == tree)[known] for tree, known in enumerate(encoded)]
    )
    said = {
        "n_targets": np.array(ends[-1]),
        "target_treeids": owners[places],
        "target_nodeids": ids[places],
        "target_ids": np.arange(ends[-1]),
        "target_weights": np.ones(ends[-1]),
    }
    w.finish(w.ensemble(w.rows("float32"), _nodes(trees) | said))


def _attributes(trees: list[Tree], values: list[Array]) -> dict[str, Array]:
    """Of a ``TreeEnsembleRegressor``; leaves name the targets that they add something to."""
    owners, ids, leaf = _owners(trees)
    # Not divided by the number of trees before they are added up: sums of whole numbers are
    # exact, and equal where scikit-learn's are, so that the same of two equal classes is first.
    shares = np.concatenate(values)[leaf]
    # A leaf that says nothing of any target is one still.
    said = shares != 0
    said[~said.any(1), 0] = True
    places, targets = np.nonzero(said)
    return _nodes(trees) | {
        "aggregate_function": np.array(b"AVERAGE"),
        "n_targets": np.array(shares.shape[1]),
        "target_treeids": owners[leaf][places],
        "target_nodeids": ids[leaf][places],
        "target_ids": targets,
        "target_weights": shares[said],
    }


def _owners(trees: list[Tree]) -> tuple[Array, Array, Array]:
    """Of the nodes of all trees: their tree, their number in it, and whether they are leaves."""
    counts = [len(tree.left) for tree in trees]
    owners = np.repeat(np.arange(len(trees)), counts)
    ids = np.concatenate([np.arange(count) for count in counts])
    return owners, ids, np.concatenate([tree.left for tree in trees]) <= 0


def _nodes(trees: list[Tree]) -> dict[str, Array]:
    """The attributes of an ensemble that tell where rows go."""
    owners, ids, leaf = _owners(trees)
    left, right, features, thresholds, missing = (
        np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("left", "right", "features", "thresholds", "missing_left")
    )
    return {
        "nodes_treeids": owners,
        "nodes_nodeids": ids,
        "nodes_modes": np.where(leaf, b"LEAF", b"BRANCH_LEQ"),
        "nodes_featureids": np.where(leaf, 0, features),
        "nodes_values": np.where(leaf, 0, float32_not_above(np.where(leaf, 0, thresholds))),
        "nodes_missing_value_tracks_true": np.where(leaf, 0, missing).astype(np.int64),
        "nodes_truenodeids": np.where(leaf, 0, left),
        "nodes_falsenodeids": np.where(leaf, 0, right),
    }
