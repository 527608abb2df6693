"""The trees of a booster, and their nodes as ``ai.onnx.ml`` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelpack.samples import Array

_COLUMNS = ("feature", "threshold", "left", "right", "missing_left", "value")

# Nodes of all trees together. A tree of ONNX holds five numbers and a word for each.
_MOST_NODES = 5_000_000


@dataclass(frozen=True, slots=True)
class Sides:
    """A test for a set of numbers, as a walk along the real line.

    Attributes:
        cuts: float32, ascending: where the side changes, in the forest's own comparison.
        first_left: whether what is below the first cut goes left.
    """

    cuts: Array
    first_left: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes of one tree; all arrays are ``[nodes]``.

    Attributes:
        feature: column that each node looks at.
        threshold: float32, what it is compared with.
        left: child where the comparison holds, by position; below 0 at a leaf.
        right: child where it does not.
        missing_left: whether NaN goes left.
        value: what a leaf adds.
        target: column of the scores that leaves add to.
        sets: nodes that test for a set of categories instead of comparing.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    value: Array
    target: int = 0
    sets: dict[int, Sides] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Forest:
    """All trees of a booster and what becomes of their sum.

    Attributes:
        trees: in the order of adding.
        base: ``[targets]``, added to the sums.
        strict: whether a node goes left below its threshold only (``x < t``), not at it.
        transform: what is computed of the sums; a key of `scores.TRANSFORMS`.
        missing: a number that stands for a missing value, besides NaN.
        zero_missing: columns in which zero does; LightGBM takes up to 1e-35 for zero.
    """

    trees: Sequence[Tree]
    base: Array
    strict: bool
    transform: str = "identity"
    missing: float | None = None
    zero_missing: tuple[int, ...] = ()

    @property
    def targets(self) -> int:
        """Number of scores."""
        return len(self.base)


def float32_not_above(values: Any) -> Array:
    """Return the largest float32 that is not above each value, so that ``x <= t`` stays true."""
    wide = np.asarray(values, np.float64)
    nearest = wide.astype(np.float32)
    with np.errstate(over="ignore"):
        return np.where(nearest > wide, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def runs(members: Sequence[int]) -> list[tuple[int, int]]:
    """Join whole numbers to runs of neighbors: pairs of the first and the last."""
    found: list[tuple[int, int]] = []
    for member in sorted(members):
        if found and member == found[-1][1] + 1:
            found[-1] = (found[-1][0], member)
        else:
            found.append((member, member))
    return found


def ensemble(forest: Forest) -> dict[str, Any]:
    """The attributes of a ``TreeEnsembleRegressor`` with the trees of a forest.

    Raises:
        ValueError: there are too many nodes.
    """
    trees = [with_chains(tree) for tree in forest.trees]
    counts = [len(tree.left) for tree in trees]
    if sum(counts) > _MOST_NODES:
        raise ValueError(f"its trees have {sum(counts)} nodes with their categories spelled out")
    owners = np.repeat(np.arange(len(trees)), counts)
    ids = np.concatenate([np.arange(count) for count in counts])
    left, right, feature, threshold, missing, value = (
        np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("left", "right", "feature", "threshold", "missing_left", "value")
    )
    leaf = left < 0
    targets = np.repeat([tree.target for tree in trees], counts)
    mode = "BRANCH_LT" if forest.strict else "BRANCH_LEQ"
    return {
        "n_targets": forest.targets,
        "base_values": forest.base.astype(np.float32).tolist(),
        "nodes_treeids": owners.tolist(),
        "nodes_nodeids": ids.tolist(),
        "nodes_modes": np.where(leaf, "LEAF", mode).tolist(),
        "nodes_featureids": np.where(leaf, 0, feature).tolist(),
        "nodes_values": np.where(leaf, 0, threshold).astype(np.float32).tolist(),
        "nodes_missing_value_tracks_true": np.where(leaf, 0, missing).astype(int).tolist(),
        "nodes_truenodeids": np.where(leaf, 0, left).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, right).tolist(),
        "target_treeids": owners[leaf].tolist(),
        "target_nodeids": ids[leaf].tolist(),
        "target_ids": targets[leaf].tolist(),
        "target_weights": value[leaf].astype(np.float32).tolist(),
    }


def with_chains(tree: Tree) -> Tree:
    """Replace each test for a set by a chain of comparisons, one for each end of a run.

    All nodes of a chain but its last lead to children that others lead to as well. ONNX
    Runtime allows that of true branches.
    """
    if not tree.sets:
        return tree
    columns: dict[str, list[Any]] = {name: list(getattr(tree, name)) for name in _COLUMNS}
    for node, sides in tree.sets.items():
        children = (tree.left[node], tree.right[node])
        start = len(columns["left"])
        chain = [node, *range(start, start + len(sides.cuts) - 1)]
        for name in ("feature", "value"):
            columns[name] += [columns[name][node]] * (len(chain) - 1)
        for name in ("threshold", "left", "right", "missing_left"):
            columns[name] += [0] * (len(chain) - 1)
        goes_left = sides.first_left
        wanted = bool(tree.missing_left[node])
        for place, (own, cut) in enumerate(zip(chain, sides.cuts, strict=True)):
            last = place == len(chain) - 1
            columns["threshold"][own] = cut
            columns["left"][own] = children[0 if goes_left else 1]
            columns["right"][own] = children[1 if goes_left else 0] if last else chain[place + 1]
            columns["missing_left"][own] = goes_left == wanted
            goes_left = not goes_left
    grown = {name: np.array(values) for name, values in columns.items()}
    return Tree(**grown, target=tree.target)  # type: ignore[arg-type]
