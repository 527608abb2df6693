"""Ensembles of decision trees: TreeEnsembleClassifier, TreeEnsembleRegressor, TreeEnsemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.errors import ConversionError
from modelpack.lowering.context import Context
from modelpack.lowering.ops import ml_scores
from modelpack.lowering.ops.ml_forest import Forest, Mode, Nodes, forest, walk, with_sets_unrolled
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Array, Value

_DOMAIN = "ai.onnx.ml"
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_MODES = {mode.name: mode.value for mode in Mode}

Ints = Sequence[int] | None
Floats = Sequence[float] | None
Strings = Sequence[str] | None


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
        aggregate: how the trees' weights become a score.
        base: values to add to the scores, or none.
    """

    nodes: Nodes
    weights: Weights
    targets: int
    aggregate: str
    base: Array


@lowers("TreeEnsembleRegressor", 1, domain=_DOMAIN)
def tree_ensemble_regressor_1(
    ctx: Context,
    x: Value,
    *,
    aggregate_function: str = "SUM",
    base_values: Floats = None,
    n_targets: int | None = None,
    nodes_falsenodeids: Ints = None,
    nodes_featureids: Ints = None,
    nodes_hitrates: Floats = None,
    nodes_missing_value_tracks_true: Ints = None,
    nodes_modes: Strings = None,
    nodes_nodeids: Ints = None,
    nodes_treeids: Ints = None,
    nodes_truenodeids: Ints = None,
    nodes_values: Floats = None,
    post_transform: str = "NONE",
    target_ids: Ints = None,
    target_nodeids: Ints = None,
    target_treeids: Ints = None,
    target_weights: Floats = None,
) -> Any:
    places = _Places(nodes_treeids, nodes_nodeids)
    nodes = places.nodes(
        (nodes_modes, nodes_featureids, nodes_values),
        (nodes_truenodeids, nodes_falsenodeids),
        nodes_missing_value_tracks_true,
    )
    weights = places.weights((target_treeids, target_nodeids), target_ids, target_weights)
    base = _floats(base_values, None)
    ensemble = Ensemble(nodes, weights, n_targets or 1, aggregate_function, base)
    return _regressed(ctx, x, ensemble, post_transform, tf.float32)


@lowers("TreeEnsembleRegressor", 3, 5, domain=_DOMAIN)
def tree_ensemble_regressor_3(
    ctx: Context,
    x: Value,
    *,
    aggregate_function: str = "SUM",
    base_values: Floats = None,
    base_values_as_tensor: Array | None = None,
    n_targets: int | None = None,
    nodes_falsenodeids: Ints = None,
    nodes_featureids: Ints = None,
    nodes_hitrates: Floats = None,
    nodes_hitrates_as_tensor: Array | None = None,
    nodes_missing_value_tracks_true: Ints = None,
    nodes_modes: Strings = None,
    nodes_nodeids: Ints = None,
    nodes_treeids: Ints = None,
    nodes_truenodeids: Ints = None,
    nodes_values: Floats = None,
    nodes_values_as_tensor: Array | None = None,
    post_transform: str = "NONE",
    target_ids: Ints = None,
    target_nodeids: Ints = None,
    target_treeids: Ints = None,
    target_weights: Floats = None,
    target_weights_as_tensor: Array | None = None,
) -> Any:
    return tree_ensemble_regressor_1(
        ctx,
        x,
        aggregate_function=aggregate_function,
        base_values=_floats(base_values, base_values_as_tensor),
        n_targets=n_targets,
        nodes_falsenodeids=nodes_falsenodeids,
        nodes_featureids=nodes_featureids,
        nodes_missing_value_tracks_true=nodes_missing_value_tracks_true,
        nodes_modes=nodes_modes,
        nodes_nodeids=nodes_nodeids,
        nodes_treeids=nodes_treeids,
        nodes_truenodeids=nodes_truenodeids,
        nodes_values=_floats(nodes_values, nodes_values_as_tensor),
        post_transform=post_transform,
        target_ids=target_ids,
        target_nodeids=target_nodeids,
        target_treeids=target_treeids,
        target_weights=_floats(target_weights, target_weights_as_tensor),
    )


@lowers("TreeEnsembleClassifier", 1, domain=_DOMAIN)
def tree_ensemble_classifier_1(
    ctx: Context,
    x: Value,
    *,
    base_values: Floats = None,
    class_ids: Ints = None,
    class_nodeids: Ints = None,
    class_treeids: Ints = None,
    class_weights: Floats = None,
    classlabels_int64s: Ints = None,
    classlabels_strings: Strings = None,
    nodes_falsenodeids: Ints = None,
    nodes_featureids: Ints = None,
    nodes_hitrates: Floats = None,
    nodes_missing_value_tracks_true: Ints = None,
    nodes_modes: Strings = None,
    nodes_nodeids: Ints = None,
    nodes_treeids: Ints = None,
    nodes_truenodeids: Ints = None,
    nodes_values: Floats = None,
    post_transform: str = "NONE",
) -> Any:
    places = _Places(nodes_treeids, nodes_nodeids)
    nodes = places.nodes(
        (nodes_modes, nodes_featureids, nodes_values),
        (nodes_truenodeids, nodes_falsenodeids),
        nodes_missing_value_tracks_true,
    )
    weights = places.weights((class_treeids, class_nodeids), class_ids, class_weights)
    classes = len(classlabels_strings or classlabels_int64s or ())
    ensemble = Ensemble(nodes, weights, classes, "SUM", _floats(base_values, None))
    scores, index, plain = _classified(ctx, x, ensemble, post_transform)
    if plain:
        label = tf.cast(index, tf.int64)
    else:
        label = ml_scores.labelled(index, classlabels_strings, classlabels_int64s)
    return label, tf.cast(scores, tf.float32)


@lowers("TreeEnsembleClassifier", 3, 5, domain=_DOMAIN)
def tree_ensemble_classifier_3(
    ctx: Context,
    x: Value,
    *,
    base_values: Floats = None,
    base_values_as_tensor: Array | None = None,
    class_ids: Ints = None,
    class_nodeids: Ints = None,
    class_treeids: Ints = None,
    class_weights: Floats = None,
    class_weights_as_tensor: Array | None = None,
    classlabels_int64s: Ints = None,
    classlabels_strings: Strings = None,
    nodes_falsenodeids: Ints = None,
    nodes_featureids: Ints = None,
    nodes_hitrates: Floats = None,
    nodes_hitrates_as_tensor: Array | None = None,
    nodes_missing_value_tracks_true: Ints = None,
    nodes_modes: Strings = None,
    nodes_nodeids: Ints = None,
    nodes_treeids: Ints = None,
    nodes_truenodeids: Ints = None,
    nodes_values: Floats = None,
    nodes_values_as_tensor: Array | None = None,
    post_transform: str = "NONE",
) -> Any:
    return tree_ensemble_classifier_1(
        ctx,
        x,
        base_values=_floats(base_values, base_values_as_tensor),
        class_ids=class_ids,
        class_nodeids=class_nodeids,
        class_treeids=class_treeids,
        class_weights=_floats(class_weights, class_weights_as_tensor),
        classlabels_int64s=classlabels_int64s,
        classlabels_strings=classlabels_strings,
        nodes_falsenodeids=nodes_falsenodeids,
        nodes_featureids=nodes_featureids,
        nodes_missing_value_tracks_true=nodes_missing_value_tracks_true,
        nodes_modes=nodes_modes,
        nodes_nodeids=nodes_nodeids,
        nodes_treeids=nodes_treeids,
        nodes_truenodeids=nodes_truenodeids,
        nodes_values=_floats(nodes_values, nodes_values_as_tensor),
        post_transform=post_transform,
    )


@lowers("TreeEnsemble", 5, domain=_DOMAIN)
def tree_ensemble(
    ctx: Context,
    x: Value,
    *,
    aggregate_function: int = 1,
    leaf_targetids: Sequence[int],
    leaf_weights: Array,
    membership_values: Array | None = None,
    n_targets: int | None = None,
    nodes_falseleafs: Sequence[int],
    nodes_falsenodeids: Sequence[int],
    nodes_featureids: Sequence[int],
    nodes_hitrates: Array | None = None,
    nodes_missing_value_tracks_true: Ints = None,
    nodes_modes: Array,
    nodes_splits: Array,
    nodes_trueleafs: Sequence[int],
    nodes_truenodeids: Sequence[int],
    post_transform: int = 0,
    tree_roots: Sequence[int],
) -> Any:
    if not 0 <= aggregate_function < 4 or not 0 <= post_transform < 5:
        raise ctx.refuse("aggregate_function or post_transform is not defined")
    branches, leaves = len(nodes_modes), len(leaf_weights)
    padding = np.zeros(leaves, np.int64)
    true = np.array(nodes_truenodeids) + branches * np.array(nodes_trueleafs)
    false = np.array(nodes_falsenodeids) + branches * np.array(nodes_falseleafs)
    roots = np.array(tree_roots)
    # A tree of one leaf is written as a branch of the leaf's number that ends in it twice.
    alone = (true[roots] == false[roots]) & (true[roots] >= branches)
    missing = nodes_missing_value_tracks_true or [0] * branches
    nodes = Nodes(
        mode=np.append(nodes_modes.astype(np.int64), padding + Mode.LEAF),
        feature=np.append(nodes_featureids, padding),
        threshold=np.append(nodes_splits, padding.astype(nodes_splits.dtype)),
        true=np.append(true, padding),
        false=np.append(false, padding),
        missing=np.append(missing, padding) == 1,
        roots=np.where(alone, roots + branches, roots),
    )
    if membership_values is not None:
        nodes = with_sets_unrolled(nodes, membership_values)
    weights = Weights(branches + np.arange(leaves), np.array(leaf_targetids), leaf_weights)
    aggregate = _AGGREGATES[aggregate_function]
    ensemble = Ensemble(nodes, weights, n_targets or 1, aggregate, np.zeros(0))
    return _regressed(ctx, x, ensemble, _TRANSFORMS[post_transform], x.dtype)


class _Places:
    """Numbers for nodes that are named by a tree and a number in it: their places in a list."""

    def __init__(self, trees: Ints, ids: Ints) -> None:
        self._trees, self._ids = np.array(trees, np.int64), np.array(ids, np.int64)
        self._span = int(self._ids.max(initial=0)) + 1
        keys = self._trees * self._span + self._ids
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def __call__(self, trees: Array, ids: Array) -> Array:
        wanted = trees * self._span + ids
        found = np.searchsorted(self._keys, wanted)
        if not np.array_equal(self._keys[np.minimum(found, len(self._keys) - 1)], wanted):
            raise ConversionError("a tree refers to a node that it does not have")
        return self._order[found]

    def nodes(
        self,
        tests: tuple[Strings, Ints, Floats],
        below: tuple[Ints, Ints],
        missing: Ints,
    ) -> Nodes:
        modes, features, thresholds = tests
        mode = np.fromiter(map(_MODES.__getitem__, modes or ()), np.int64, len(modes or ()))
        own = np.where(mode == Mode.LEAF, self._ids, -1)
        true, false = (
            self(self._trees, np.where(own < 0, np.array(side, np.int64), own)) for side in below
        )
        return Nodes(
            mode=mode,
            feature=np.array(features, np.int64),
            threshold=_floats(thresholds, None),
            true=true,
            false=false,
            missing=np.zeros(len(mode), np.bool_) if not missing else np.array(missing) == 1,
            roots=np.unique(self._trees, return_index=True)[1],
        )

    def weights(self, leaf: tuple[Ints, Ints], target: Ints, weight: Floats) -> Weights:
        trees, ids = (np.array(part, np.int64) for part in leaf)
        return Weights(self(trees, ids), np.array(target, np.int64), _floats(weight, None))


def _floats(listed: Any, tensor: Array | None) -> Array:
    """An attribute of float32, or its form as a tensor, which may be of float64."""
    if tensor is not None:
        return tensor
    if isinstance(listed, np.ndarray):
        return listed
    return np.array(() if listed is None else listed, np.float32)


# --- scores --------------------------------------------------------------------------------


def _regressed(
    ctx: Context, x: Value, ensemble: Ensemble, post_transform: str, dtype: Any
) -> Any:
    scores = _scores(ctx, x, ensemble)[0]
    if len(ensemble.base) == ensemble.targets:
        scores = scores + ensemble.base.astype(scores.dtype.as_numpy_dtype)
    single = ensemble.targets == 1
    transform = ml_scores.transformed_single if single else ml_scores.transformed
    return tf.cast(transform(ctx, scores, post_transform), dtype)


def _scores(ctx: Context, x: Value, ensemble: Ensemble) -> tuple[Any, Any]:
    """Scores [N, targets], and whether any leaf gave one, as an array [targets] or [N, targets].

    Returns:
        scores in the dtype that the trees compare in; True where there is a score.
    """
    dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
    features = ml_scores.rows(x, dtype)
    width = features.shape[1]
    if width is None:
        width = int(ensemble.nodes.feature.max()) + 1
        features = features[:, :width]
    trees = forest(ensemble.nodes, width, dtype.as_numpy_dtype)
    places = walk(ctx, trees, features)
    raise NotImplementedError
