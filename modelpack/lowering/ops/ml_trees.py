"""Ensembles of decision trees: TreeEnsembleClassifier, TreeEnsembleRegressor, TreeEnsemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.ops import ml_scores
from modelpack.lowering.ops.ml_ensemble import (
    Ensemble,
    Floats,
    Ints,
    Places,
    Strings,
    Weights,
    classified,
    floats,
    regressed,
)
from modelpack.lowering.ops.ml_forest import Mode, Nodes, with_sets_unrolled
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Array, Value

_DOMAIN = "ai.onnx.ml"
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


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
    places = Places(nodes_treeids, nodes_nodeids)
    nodes = places.nodes(
        (nodes_modes, nodes_featureids, nodes_values),
        (nodes_truenodeids, nodes_falsenodeids),
        nodes_missing_value_tracks_true,
    )
    weights = places.weights((target_treeids, target_nodeids), target_ids, target_weights)
    base = floats(base_values, None)
    ensemble = Ensemble(nodes, weights, n_targets or 1, aggregate_function, base)
    return regressed(ctx, x, ensemble, post_transform, tf.float32)


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
        base_values=floats(base_values, base_values_as_tensor),
        n_targets=n_targets,
        nodes_falsenodeids=nodes_falsenodeids,
        nodes_featureids=nodes_featureids,
        nodes_missing_value_tracks_true=nodes_missing_value_tracks_true,
        nodes_modes=nodes_modes,
        nodes_nodeids=nodes_nodeids,
        nodes_treeids=nodes_treeids,
        nodes_truenodeids=nodes_truenodeids,
        nodes_values=floats(nodes_values, nodes_values_as_tensor),
        post_transform=post_transform,
        target_ids=target_ids,
        target_nodeids=target_nodeids,
        target_treeids=target_treeids,
        target_weights=floats(target_weights, target_weights_as_tensor),
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
    places = Places(nodes_treeids, nodes_nodeids)
    nodes = places.nodes(
        (nodes_modes, nodes_featureids, nodes_values),
        (nodes_truenodeids, nodes_falsenodeids),
        nodes_missing_value_tracks_true,
    )
    weights = places.weights((class_treeids, class_nodeids), class_ids, class_weights)
    labels = classlabels_strings or classlabels_int64s or ()
    ensemble = Ensemble(nodes, weights, len(labels), "SUM", floats(base_values, None))
    always = places.always(nodes, weights, len(labels))
    index, scores = classified(ctx, x, ensemble, always, post_transform)
    if len(set(class_ids or ())) == len(labels) == 2 and list(labels) not in (
        [0, 1],
        list(classlabels_strings or ()),
    ):
        raise ctx.refuse("ONNX Runtime answers 0 and 1 instead of these labels")
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
        base_values=floats(base_values, base_values_as_tensor),
        class_ids=class_ids,
        class_nodeids=class_nodeids,
        class_treeids=class_treeids,
        class_weights=floats(class_weights, class_weights_as_tensor),
        classlabels_int64s=classlabels_int64s,
        classlabels_strings=classlabels_strings,
        nodes_falsenodeids=nodes_falsenodeids,
        nodes_featureids=nodes_featureids,
        nodes_missing_value_tracks_true=nodes_missing_value_tracks_true,
        nodes_modes=nodes_modes,
        nodes_nodeids=nodes_nodeids,
        nodes_treeids=nodes_treeids,
        nodes_truenodeids=nodes_truenodeids,
        nodes_values=floats(nodes_values, nodes_values_as_tensor),
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
    targets = n_targets or 1
    if targets > 1 and _TRANSFORMS[post_transform] in {"SOFTMAX", "LOGISTIC"}:
        raise ctx.refuse("ONNX Runtime takes SOFTMAX for LOGISTIC here, and the other way round")
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
    ensemble = Ensemble(nodes, weights, targets, aggregate, np.zeros(0))
    return regressed(ctx, x, ensemble, _TRANSFORMS[post_transform], x.dtype)
