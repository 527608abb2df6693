"""Decision trees as tables, and the walk from their roots to their leaves.

Every kind of node is brought to one form: *go right where the feature is at most the
threshold, else left*, with NaN going left as in every comparison. What does not fit is
rewritten: the opposite comparisons look at the negated features, which stand behind the
others, and equality is two nodes. The two nodes below a node are neighbors in the tables,
so that one step of the walk, for all rows and trees at once, is

    cursor = left[cursor] + (features[feature[cursor]] <= threshold[cursor])

A leaf points to itself and has a NaN for a threshold, so that walks may be too long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.errors import ConversionError
from modelpack.lowering.context import Context
from modelpack.lowering.value import Array


class Mode(IntEnum):
    """What a node does, numbered as in ``TreeEnsemble``; a leaf has no number there."""

    BRANCH_LEQ = 0
    BRANCH_LT = 1
    BRANCH_GTE = 2
    BRANCH_GT = 3
    BRANCH_EQ = 4
    BRANCH_NEQ = 5
    BRANCH_MEMBER = 6
    LEAF = 7


# By mode: whether features below, at and above the threshold follow the true branch.
_FOLLOWS_TRUE = np.array(
    [[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1], [0, 1, 0], [1, 0, 1], [0, 0, 0], [0, 0, 0]],
    np.bool_,
)


@dataclass(frozen=True)
class Nodes:
    """The nodes of all trees of an ensemble, in one numbering. All fields are arrays.

    Attributes:
        mode: `Mode`.
        feature: column that a node looks at.
        threshold: what it compares the column with.
        true, false: numbers of the nodes below it.
        missing: whether NaN follows the true branch.
        roots: the number of each tree's first node.
    """

    mode: Array
    feature: Array
    threshold: Array
    true: Array
    false: Array
    missing: Array
    roots: Array


@dataclass(frozen=True)
class Forest:
    """Nodes in the form of the walk. A *place* is a row of the tables.

    Attributes:
        node: the original node of a place, so that leaves can be told.
        left: the place of the left one of the two places below, or the place itself.
        feature: column; with the negated features behind the others.
        threshold: in the dtype of the features.
        trees: number of trees; their roots are the last places.
        depth: steps of the longest walk.
    """

    node: Array
    left: Array
    feature: Array
    threshold: Array
    trees: int
    depth: int


def with_sets_unrolled(nodes: Nodes, members: Array) -> Nodes:
    """Nodes in which a test for membership is a chain of tests for equality.

    ``members`` are those of the sets, node by node, with a NaN after each set.
    """
    tests = np.flatnonzero(nodes.mode == Mode.BRANCH_MEMBER)
    if not len(tests):
        return nodes
    ends = np.flatnonzero(np.isnan(members))
    counts = np.diff(ends, prepend=-1)[: len(tests)] - 1
    if len(ends) < len(tests) or counts.min() < 1:
        raise ConversionError("membership_values has not one set for each BRANCH_MEMBER")
    owner = np.repeat(tests, counts)
    head = np.diff(owner, prepend=-1) != 0
    number = np.empty(len(owner), np.int64)
    number[head] = tests
    number[~head] = len(nodes.mode) + np.arange(np.count_nonzero(~head))
    next_of = np.append(number[1:], 0)
    last = np.append(head[1:], True)
    false = np.where(last, nodes.false[owner], next_of)

    def spread(field: Array, values: Array) -> Array:
        wide = np.append(field, np.zeros(np.count_nonzero(~head), field.dtype))
        wide[number] = values
        return wide

    return replace(
        nodes,
        mode=spread(nodes.mode, np.full(len(owner), Mode.BRANCH_EQ)),
        feature=spread(nodes.feature, nodes.feature[owner]),
        threshold=spread(nodes.threshold, members[~np.isnan(members)][: len(owner)]),
        true=spread(nodes.true, nodes.true[owner]),
        false=spread(nodes.false, false),
        missing=spread(nodes.missing, nodes.missing[owner]),
    )


def forest(nodes: Nodes, width: int, dtype: Any) -> Forest:
    """Bring nodes to the form of the walk.

    Args:
        nodes: without tests for membership.
        width: number of features.
        dtype: the features' numpy dtype, float32 or float64.
    """
    branch = nodes.mode != Mode.LEAF
    below, at, above = (
        np.where(follows, nodes.true, nodes.false) for follows in _FOLLOWS_TRUE[nodes.mode].T
    )
    missing = np.where(nodes.missing | (nodes.mode == Mode.BRANCH_NEQ), nodes.true, nodes.false)
    # x == t is: x <= t, and there x < t. The second test gets a node of its own.
    equal = np.flatnonzero(branch & (below == above) & (at != below))
    extra = len(branch) + np.arange(len(equal))
    feature = np.append(nodes.feature, nodes.feature[equal])
    # The same rounding as that of features from float64 keeps what is equal equal.
    threshold = np.append(nodes.threshold, nodes.threshold[equal]).astype(dtype)
    branch = np.append(branch, np.ones(len(equal), np.bool_))
    inner = at[equal]
    above, missing = np.append(above, inner), np.append(missing, inner)
    below, at = np.append(below, below[equal]), np.append(at, inner)
    missing[equal] = np.where(missing[equal] == inner, extra, above[equal])
    below[equal] = at[equal] = extra

    # NaN must be where the comparison is false: if it goes below, test for above instead.
    negated = branch & (missing != above)
    limit = _greatest(np.where(negated, -threshold, threshold), (below == at) ^ negated)
    return _placed(
        np.where(branch, feature + width * negated, 0),
        np.where(branch, limit, dtype(np.nan)),
        branch,
        (np.where(negated, below, above), np.where(negated, above, below)),
        nodes.roots,
    )


def _placed(
    feature: Array, threshold: Array, branch: Array, sides: tuple[Array, Array], roots: Array
) -> Forest:
    """Give neighboring places to the two nodes below each node; one node may have several."""
    node = np.concatenate([np.stack([side[branch] for side in sides], 1).ravel(), roots])
    rank = np.cumsum(branch) - 1
    return Forest(
        node=node,
        left=np.where(branch[node], 2 * rank[node], np.arange(len(node))).astype(np.int32),
        feature=feature[node].astype(np.int32),
        threshold=threshold[node],
        trees=len(roots),
        depth=_depth(branch, sides, roots),
    )


def _depth(branch: Array, sides: tuple[Array, Array], roots: Array) -> int:
    reached, depth = np.unique(roots[branch[roots]]), 0
    while len(reached):
        found = np.concatenate([side[reached] for side in sides])
        reached, depth = np.unique(found[branch[found]]), depth + 1
        if depth > len(branch):
            raise ConversionError("the nodes of a tree form a circle")
    return depth


def _greatest(threshold: Array, inclusive: Array) -> Array:
    """The greatest number for which ``x <= number`` says what ``x <= t`` (or ``x < t``) does.

    Next to zero it is a normal number, as kernels may take others for zero.
    """
    dtype = threshold.dtype.type
    tiny = np.finfo(dtype).tiny
    down = np.nextafter(threshold, dtype(-np.inf))
    down = np.where(np.abs(down) < tiny, np.where(down < 0, -tiny, dtype(0)), down)
    down = np.where(threshold == -np.inf, dtype(np.nan), down)  # nothing is below it
    return np.where(inclusive, threshold, down)


def walk(ctx: Context, trees: Forest, x: Any) -> Any:
    """The places of the leaves, [N, T], that rows of features end in."""
    if trees.feature.max() >= x.shape[1]:
        x = tf.concat([x, -x], 1)
    roots = slice(-trees.trees, None)
    value = tf.gather(x, trees.feature[roots], axis=1)
    cursor = trees.left[roots] + tf.cast(value <= trees.threshold[roots], tf.int32)
    left, feature, threshold = (
        ctx.constant(table).tensor for table in (trees.left, trees.feature, trees.threshold)
    )
    for _ in range(1, trees.depth):
        value = tf.gather(x, tf.gather(feature, cursor), batch_dims=1)
        right = value <= tf.gather(threshold, cursor)
        cursor = tf.gather(left, cursor) + tf.cast(right, tf.int32)
    return cursor
