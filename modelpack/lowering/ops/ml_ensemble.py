"""What an ensemble of trees adds up to: scores of targets, and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from modelpack.errors import ConversionError
from modelpack.lowering.context import Context
from modelpack.lowering.ops import ml_scores
from modelpack.lowering.ops.ml_forest import Mode, Nodes, forest, walk
from modelpack.lowering.value import Array, Value

Ints: TypeAlias = Sequence[int] | None
Floats: TypeAlias = Sequence[float] | Array | None
Strings: TypeAlias = Sequence[str] | None

_MODES = {mode.name: mode.value for mode in Mode}


@dataclass(frozen=True)
class Weights:
    """What leaves add to the scores. All fields are arrays of one length.

    Attributes:
        node: number of the leaf.
        target: column of the scores.
        weight: what is added.
    """

    node: Array
    target: Array
    weight: Array


@dataclass(frozen=True)
class Ensemble:
    """Trees and what they add up to.

    Attributes:
        nodes: of all trees.
        weights: of their leaves.
        targets: number of scores.
        aggregate: how the trees' weights become a score: SUM, AVERAGE, MIN or MAX.
        base: values to add to the scores, or none.
    """

    nodes: Nodes
    weights: Weights
    targets: int
    aggregate: str
    base: Array


class Places:
    """Numbers for nodes that are named by their tree and a number in it: places in a list."""

    def __init__(self, trees: Ints, ids: Ints) -> None:
        self._trees, self._ids = np.array(trees, np.int64), np.array(ids, np.int64)
        self._span = int(self._ids.max(initial=0)) + 1
        keys = self._trees * self._span + self._ids
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def of(self, trees: Array, ids: Array) -> Array:
        """The places of nodes."""
        wanted = trees * self._span + ids
        found = np.searchsorted(self._keys, wanted)
        if not np.array_equal(self._keys[np.minimum(found, len(self._keys) - 1)], wanted):
            raise ConversionError("a tree refers to a node that it does not have")
        return self._order[found]

    def nodes(
        self, tests: tuple[Strings, Ints, Floats], below: tuple[Ints, Ints], missing: Ints
    ) -> Nodes:
        """Nodes of their modes, features and values, and of the numbers of those below them."""
        modes, features, thresholds = tests
        mode = np.fromiter(map(_MODES.__getitem__, modes or ()), np.int64, len(modes or ()))
        leaf = mode == Mode.LEAF
        true, false = (
            self.of(self._trees, np.where(leaf, self._ids, np.array(side, np.int64)))
            for side in below
        )
        return Nodes(
            mode=mode,
            feature=np.array(features, np.int64),
            threshold=floats(thresholds),
            true=true,
            false=false,
            missing=np.array(missing) == 1 if missing else np.zeros(len(mode), np.bool_),
            roots=np.unique(self._trees, return_index=True)[1],
        )

    def weights(self, leaf: tuple[Ints, Ints], target: Ints, weight: Floats) -> Weights:
        """Weights of leaves that are named by tree and number."""
        trees, ids = (np.array(part, np.int64) for part in leaf)
        return Weights(self.of(trees, ids), np.array(target, np.int64), floats(weight))

    def always(self, nodes: Nodes, weights: Weights, targets: int) -> Array:
        """Whether every row gets a weight for a target: all leaves of some tree have one."""
        tree = np.unique(self._trees, return_inverse=True)[1]
        leaves = np.bincount(tree[nodes.mode == Mode.LEAF], minlength=len(nodes.roots))
        pairs = np.unique(weights.node * targets + weights.target)
        cells = tree[pairs // targets] * targets + pairs % targets
        found = np.bincount(cells, minlength=len(leaves) * targets).reshape(-1, targets)
        return np.any(found == leaves[:, None], axis=0)


def floats(listed: Floats, tensor: Array | None = None) -> Array:
    """An attribute of float32, or its form as a tensor, which may be of float64."""
    if tensor is not None:
        return tensor
    if isinstance(listed, np.ndarray):
        return listed
    return np.array(() if listed is None else listed, np.float32)


def regressed(ctx: Context, x: Value, ensemble: Ensemble, post_transform: str, dtype: Any) -> Any:
    """Scores of a regressor, [N, targets], in a dtype."""
    if len(ensemble.base) not in {0, ensemble.targets}:
        raise ctx.refuse(f"{len(ensemble.base)} base values for {ensemble.targets} targets")
    scores = _Scorer(ctx, x, ensemble).scores()
    if len(ensemble.base):
        scores = scores + _like(ensemble.base, scores)
    single = ensemble.targets == 1
    transform = ml_scores.transformed_single if single else ml_scores.transformed
    return tf.cast(transform(ctx, scores, post_transform), dtype)


def classified(
    ctx: Context, x: Value, ensemble: Ensemble, always: Array, post_transform: str
) -> tuple[Any, Any]:
    """Index of each row's class, [N], and the scores of the classes, [N, classes]."""
    classes, base = ensemble.targets, ensemble.base
    if classes < 2 or len(base) not in ({0, classes} if classes > 2 else {0, 1, 2}):
        raise ctx.refuse(f"{len(base)} base values for {classes} classes")
    scorer = _Scorer(ctx, x, ensemble)
    scores = scorer.scores()
    if classes == 2:
        return _two_classes(ctx, scores, ensemble, always, post_transform)
    compared = scores
    if len(base):
        scores = compared = scores + _like(base, scores)
    elif not always.all() and not (ensemble.weights.weight > 0).all():
        # A class that no leaf on a row's way has a weight for does not win, not even with 0
        # over classes of negative scores. Over positive ones it cannot.
        compared = tf.where(scorer.reached(), scores, scores.dtype.min)
    return ml_scores.argmax(compared), ml_scores.transformed(ctx, scores, post_transform)


def _two_classes(
    ctx: Context, scores: Any, ensemble: Ensemble, always: Array, post_transform: str
) -> tuple[Any, Any]:
    """Two classes, of which trees may score the first column only, meaning the second class.

    What ONNX Runtime does, case by case (``TreeAggregatorClassifier`` in its
    tree_ensemble_aggregator.h).
    """
    present = set(ensemble.weights.target.tolist())
    both = 1 in present
    if both and not always[1]:
        raise ctx.refuse("some leaves have no weight for the second of two classes")
    first, second = scores[:, :1], scores[:, 1:]
    base = _like(ensemble.base, scores)
    if len(base) == 2 and both:
        second = first + base[1]
        first = -second
    elif len(base):
        first = first + base[0]
    score = second if both else first
    is_probability = len(present) == 1 and bool(ensemble.weights.weight.min() >= 0)
    index = ml_scores.positive(score, 0.5 if is_probability else 0.0)
    if not both and len(base) < 2:
        if post_transform == "PROBIT":
            raise ctx.refuse("PROBIT of one column of two classes is not defined")
        return index, ml_scores.two_columns(score, is_probability, post_transform)
    columns = [
        column if target in present else tf.zeros_like(column)
        for target, column in enumerate((first, second))
    ]
    return index, ml_scores.transformed(ctx, tf.concat(columns, 1), post_transform)


class _Scorer:
    """Walks the trees once, and adds up what the leaves at the ends have."""

    def __init__(self, ctx: Context, x: Value, ensemble: Ensemble) -> None:
        if ensemble.aggregate not in {"SUM", "AVERAGE", "MIN", "MAX"}:
            raise ctx.refuse(f"aggregate_function '{ensemble.aggregate}' is not defined")
        self._ctx, self._ensemble = ctx, ensemble
        self._dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
        features = ml_scores.rows(x, self._dtype)
        nodes = ensemble.nodes
        width = features.shape[1]
        if width is None:
            width = int(nodes.feature.max()) + 1
            features = features[:, :width]
            features.set_shape([None, width])
        trees = forest(nodes, width, self._dtype.as_numpy_dtype)
        self._ends = walk(ctx, trees, features)
        self._trees = trees.trees
        # Tables have a row per leaf, in the order of the nodes.
        self._row_of = np.cumsum(nodes.mode == Mode.LEAF) - 1
        is_leaf = trees.left == np.arange(len(trees.left))
        self._rows = self._row_of[np.where(is_leaf, trees.node, 0)].astype(np.int32)

    def scores(self) -> Any:
        """What the trees add up to, [N, targets]; 0 where no leaf has a weight."""
        weights, how = self._ensemble.weights, self._ensemble.aggregate
        cells = (self._row_of[weights.node], weights.target)
        # TFLite's converter makes infinite constants finite ones.
        fill = {"MIN": 1, "MAX": -1}.get(how, 0) * float(self._dtype.max)
        table = np.full(self._shape(), fill, self._dtype.as_numpy_dtype)
        join = {"MIN": np.minimum, "MAX": np.maximum}.get(how, np.add)
        join.at(table, cells, weights.weight.astype(table.dtype))
        if how in {"SUM", "AVERAGE"}:
            total = tf.reduce_sum(self._at_ends(table), 1)
            return total / self._trees if how == "AVERAGE" else total
        reduce = tf.reduce_min if how == "MIN" else tf.reduce_max
        result = reduce(self._at_ends(table), 1)
        return tf.where(tf.equal(result, fill), tf.zeros_like(result), result)

    def reached(self) -> Any:
        """Whether any leaf on a row's way has a weight for a target, [N, targets]."""
        weights = self._ensemble.weights
        table = np.zeros(self._shape(), np.float32)
        table[self._row_of[weights.node], weights.target] = 1
        return tf.reduce_max(self._at_ends(table), 1) > 0

    def _shape(self) -> tuple[int, int]:
        return int(self._row_of[-1]) + 1, self._ensemble.targets

    def _at_ends(self, table: Array) -> Any:
        """Rows of a table at the ends of the walks, [N, trees, targets]."""
        if table.shape[1] == 1:  # one look-up instead of two
            return tf.gather(self._ctx.constant(table[self._rows]).tensor, self._ends)
        rows = tf.gather(self._ctx.constant(self._rows).tensor, self._ends)
        return tf.gather(self._ctx.constant(table).tensor, rows)


def _like(base: Array, scores: Any) -> Array:
    return base.astype(scores.dtype.as_numpy_dtype)
