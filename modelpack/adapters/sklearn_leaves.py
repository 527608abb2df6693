"""Rows that reach every leaf of an estimator's trees.

Usual values seldom reach a leaf that lies behind several splits, and an artifact that is wrong
in that leaf alone is right on all other rows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from modelpack.adapters.boosters import is_booster
from modelpack.adapters.boosters.reading import problem, read
from modelpack.adapters.boosters.trees import with_chains
from modelpack.adapters.sklearn_loading import walk
from modelpack.samples import Array

# Values in all rows together; of larger forests, leaves are drawn.
_MOST_VALUES = 1 << 16

_IMPUTERS = {"SimpleImputer", "KNNImputer", "IterativeImputer"}


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes of one tree.

    Attributes:
        features: column that each node looks at.
        thresholds: value up to which a node goes left.
        left: child on the left, by position; not above 0 at a leaf.
        right: child on the right.
        missing_left: whether a node sends NaN left.
    """

    features: Array
    thresholds: Array
    left: Array
    right: Array
    missing_left: Array

    @property
    def inner(self) -> Array:
        """Positions of the nodes that split."""
        return np.flatnonzero(self.left > 0)

    @property
    def leaves(self) -> Array:
        """Positions of the nodes that do not."""
        return np.flatnonzero(self.left <= 0)


def trees_of(item: Any) -> list[Tree]:
    """Return the trees of a tree, a forest or a boosting; none if it holds anything else too.

    Columns are those that each tree was given, which bagging chooses from those of the item.
    """
    if is_booster(item):
        return _of_booster(item)
    if hasattr(item, "order_"):  # a chain, whose trees look at what others answer too
        return []
    if hasattr(item, "_predictors"):
        return [_of_histograms(tree.nodes) for group in item._predictors for tree in group]
    members = getattr(item, "estimators_", [item])
    members = list(members.ravel() if isinstance(members, np.ndarray) else members)
    found: list[Any] = [getattr(member, "tree_", None) for member in members]
    if not all(hasattr(tree, "children_left") for tree in found):
        return []
    return [
        Tree(
            tree.feature,
            tree.threshold,
            tree.children_left,
            tree.children_right,
            tree.missing_go_to_left,
        )
        for tree in found
    ]


def _of_booster(item: Any) -> list[Tree]:
    """The trees of a booster; none if it is not converted. Nodes may share a child."""
    if problem(item):
        return []
    forest = read(item)
    return [
        Tree(
            tree.feature,
            np.nextafter(tree.threshold, -np.inf) if forest.strict else tree.threshold,
            np.maximum(tree.left, 0),
            tree.right,
            tree.missing_left,
        )
        for tree in map(with_chains, forest.trees)
    ]


def _of_histograms(nodes: Array) -> Tree:
    left = np.where(nodes["is_leaf"], 0, nodes["left"].astype(np.int64))
    return Tree(
        nodes["feature_idx"],
        nodes["num_threshold"],
        left,
        nodes["right"].astype(np.int64),
        nodes["missing_go_to_left"],
    )


def rows_in_leaves(model: Any, low: Array, high: Array) -> Array | None:
    """Make up one row in each leaf of the trees that a model ends in.

    Steps before the trees are undone; a row has usual values in columns that do not lead to
    its leaf.

    Args:
        model: a fitted estimator that takes a matrix.
        low: smallest usual value of each of its columns.
        high: largest, likewise.

    Returns:
        float64 ``[rows, columns]``, or None where there are no trees, or their inputs cannot
        be turned into those of the model.
    """
    before, last = _steps(model)
    owner = next((item for _, item in walk(last) if trees_of(item)), None)
    width = getattr(last, "n_features_in_", None)
    if before is None or owner is None or owner.n_features_in_ != width:
        return None
    rng = np.random.default_rng(0)
    paths = _paths(owner, _MOST_VALUES // len(low), rng)
    rows = low + (high - low) * rng.random((len(paths), len(low)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns without names
        try:
            for step in before:
                rows = np.array(step.transform(rows))
            for row, path in zip(rows, paths, strict=True):
                _enter(row, path)
            for step in reversed(before):
                rows = step.inverse_transform(rows)
        # Some were not asked to learn it, or take the dtype that they were fitted on only.
        except (NotFittedError, NotImplementedError, TypeError, ValueError):
            return None
    return np.asarray(rows)


def _steps(model: Any) -> tuple[list[Any] | None, Any]:
    """The steps to undo, None if one cannot be undone, and the last one."""
    if not hasattr(model, "steps"):
        return [], model
    *before, last = [step for _, step in model.steps if step not in (None, "passthrough")]
    # Imputers do nothing to rows that are complete.
    before = [step for step in before if not _is_imputer(step)]
    can = all(hasattr(s, "inverse_transform") and type(s).__name__ not in _IMPUTERS for s in before)
    return before if can else None, last


def _is_imputer(step: Any) -> bool:
    return type(step).__name__ in _IMPUTERS and not step.add_indicator


def _paths(owner: Any, most: int, rng: np.random.Generator) -> list[dict[int, tuple[float, float]]]:
    """For each leaf, or so many drawn from all: bounds of the columns that lead there."""
    trees = trees_of(owner)
    chosen = getattr(owner, "estimators_features_", [None] * len(trees))
    leaves = [(index, leaf) for index, tree in enumerate(trees) for leaf in tree.leaves]
    if len(leaves) > most:
        leaves = [leaves[index] for index in np.sort(rng.choice(len(leaves), most, replace=False))]
    parents = {index: _parents(trees[index]) for index in {index for index, _ in leaves}}
    return [_bounds(trees[index], parents[index], leaf, chosen[index]) for index, leaf in leaves]


def _parents(tree: Tree) -> Array:
    parents = np.full(len(tree.left), -1)
    parents[tree.left[tree.inner]] = tree.inner
    parents[tree.right[tree.inner]] = tree.inner
    return parents


def _bounds(
    tree: Tree, parents: Array, leaf: int, chosen: Array | None
) -> dict[int, tuple[float, float]]:
    """Bounds of a leaf: above the first, and up to the second."""
    bounds: dict[int, tuple[float, float]] = {}
    node, parent = leaf, parents[leaf]
    while parent >= 0:
        feature = int(tree.features[parent])
        column = feature if chosen is None else int(chosen[feature])
        lower, upper = bounds.get(column, (-np.inf, np.inf))
        cut = float(tree.thresholds[parent])
        if tree.left[parent] == node:
            bounds[column] = (lower, min(upper, cut))
        else:
            bounds[column] = (max(lower, cut), upper)
        node, parent = parent, parents[parent]
    return bounds


def _enter(row: Array, bounds: dict[int, tuple[float, float]]) -> None:
    """Move a row between its bounds, where it is not."""
    for column, (lower, upper) in bounds.items():
        if lower < row[column] < upper:
            continue
        if np.isfinite(lower) and np.isfinite(upper):
            row[column] = (lower + upper) / 2
        else:
            bound = lower if np.isfinite(lower) else upper
            step = 0.1 * abs(bound) + 1e-3
            value = bound + step if np.isfinite(lower) else bound - step
            # No number is beyond the threshold by which CatBoost tells NaN from numbers.
            row[column] = value if abs(value) <= np.finfo(np.float32).max else np.nan
