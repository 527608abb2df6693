"""Decision trees and forests, written from the arrays that scikit-learn keeps them in."""

from __future__ import annotations

from dataclasses import dataclass
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
    trees = trees_of(item)
    said_by = [_values(member) for member in _members(item)]
    if len(said_by) == 1 and is_classifier(item) and item.n_outputs_ == 1:
        said_by = [_decided(said_by[0])]
    leaves = _leaves(trees, said_by)
    if is_classifier(item) and _has_node(item, leaves):
        return _classified(w, trees, leaves)
    said = {"n_targets": np.array(leaves.targets), **leaves.named("target")}
    if not w.is_wide:
        said["aggregate_function"] = np.array(b"AVERAGE")
    (answers,) = w.ensemble(w.rows("float32"), _nodes(trees) | said)
    if w.is_wide:  # sums of whole numbers are exact, and their means in float64 scikit-learn's
        answers = w.op("Div", w.cast(answers, "float64"), w.constant(float(len(trees))))
    if not is_classifier(item):
        return w.finish(answers)
    return w.finish_classes(answers) if item.n_outputs_ == 1 else finish_labels(w, answers)


def _has_node(item: Any, leaves: _Leaves) -> bool:
    """Whether ONNX's classifier of trees chooses the class that a forest does.

    Of two classes ONNX Runtime compares the sum of one with 0 or with one half, which rounding
    decides where both are as likely; of more it chooses the first of those with the largest sum.
    """
    return item.n_outputs_ == 1 and len(np.unique(leaves.ids)) == leaves.targets > 2


def _classified(w: Writer, trees: list[Tree], leaves: _Leaves) -> None:
    """A node that chooses the label itself: at one row, each further node counts."""
    classes = np.asarray(w.item.classes_)
    said = leaves.named("class")
    if classes.dtype.kind in "iubf":
        said["classlabels_int64s"] = classes.astype(np.int64)
    else:
        said["classlabels_strings"] = np.char.encode([str(each) for each in classes], "utf-8")
    label, sums = w.ensemble(w.rows("float32"), _nodes(trees) | said)
    if w.is_wide:
        mean = w.op("Div", w.cast(sums, "float64"), w.constant(float(len(trees))))
        return w.finish(label, mean)
    return w.finish(label, w.op("Mul", sums, w.constant(1 / len(trees), "float32")))


def _members(item: Any) -> list[Any]:
    return list(np.ravel(item.estimators_)) if hasattr(item, "estimators_") else [item]


def _values(member: Any) -> Array:
    """What each node of a tree says, ``[nodes, targets]``."""
    values = np.asarray(member.tree_.value)
    if not is_classifier(member):
        return values[:, :, 0]
    counts = np.atleast_1d(member.n_classes_)
    return np.concatenate([values[:, label, :own] for label, own in enumerate(counts)], axis=1)


def _decided(values: Array) -> Array:
    """What the nodes of a tree say, such that in float32 the same class is the first largest.

    Of rows with weights, classes may be as likely but for the last digits of float64.
    """
    narrow = values.astype(np.float32)
    best = values.argmax(axis=1)
    tied = np.flatnonzero(narrow.argmax(axis=1) != best)
    narrow[tied, best[tied]] = np.nextafter(narrow[tied].max(axis=1), np.float32(np.inf))
    return narrow


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
    w.finish(*w.ensemble(w.rows("float32"), _nodes(trees) | said))


@dataclass(frozen=True, slots=True)
class _Leaves:
    """What the leaves of all trees add to the targets.

    Attributes:
        targets: how many there are.
        trees: of each addition, the tree.
        nodes: the number of the leaf in it.
        ids: the target.
        weights: what is added.
    """

    targets: int
    trees: Array
    nodes: Array
    ids: Array
    weights: Array

    def named(self, prefix: str) -> dict[str, Array]:
        """As attributes of a node: of targets or of classes."""
        return {
            f"{prefix}_treeids": self.trees,
            f"{prefix}_nodeids": self.nodes,
            f"{prefix}_ids": self.ids,
            f"{prefix}_weights": self.weights,
        }


def _leaves(trees: list[Tree], values: list[Array]) -> _Leaves:
    """Leaves name the targets that they add something to.

    What they say is not divided by the number of trees before it is added up: sums of whole
    numbers are exact, and equal where scikit-learn's are, so that the same of two equal classes
    is first.
    """
    owners, ids, leaf = _owners(trees)
    shares = np.concatenate(values)[leaf]
    # A leaf that says nothing of any target is one still.
    said = shares != 0
    said[~said.any(1), 0] = True
    places, targets = np.nonzero(said)
    return _Leaves(shares.shape[1], owners[leaf][places], ids[leaf][places], targets, shares[said])


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
