"""Trees of scikit-learn in ONNX: split exactly where they do, and isolation forests as one op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.helper
from onnx import TensorProto
from skl2onnx.operator_converters.common import concatenate_variables
from sklearn.ensemble._iforest import _average_path_length

from modelpack import onnx_graph
from modelpack.adapters.boosters.trees import float32_not_above
from modelpack.adapters.sklearn_leaves import trees_of
from modelpack.adapters.sklearn_loading import walk
from modelpack.samples import Array


@dataclass(frozen=True, slots=True)
class _Forest:
    """The nodes of the trees of one estimator, one tree after the other.

    Attributes:
        offsets: where each tree begins; one more than there are trees.
        features: column that a node looks at.
        thresholds: values up to which a node goes left, as scikit-learn has them.
        missing_left: whether a node sends NaN left.
    """

    offsets: Array
    features: Array
    thresholds: Array
    missing_left: Array


def correct_trees(model: Any, estimator: Any) -> None:
    """Let trees split as scikit-learn's do: exactly at the threshold, and for missing values.

    skl2onnx writes for decision trees and forests that NaN goes right, where each node
    learned its own side; and it rounds the thresholds of histogram boosting to the nearest
    float32, which moves training rows to the other side. For a float32 x, x <= t holds
    exactly when x is at most the largest float32 that is not above t.

    Which estimator a node came from is told from its splits.
    """
    nodes = [
        node
        for graph in onnx_graph.graphs(model.graph)
        for node in graph.node
        if node.op_type.startswith("TreeEnsemble") and len(node.attribute) > 1
    ]
    if not nodes:  # those that `sklearn_converters` writes are right
        return
    forests = [forest for _, item in walk(estimator) if (forest := _forest_of(item))]
    for node in nodes:
        _correct_trees(node, forests)


def _forest_of(item: Any) -> _Forest | None:
    trees = trees_of(item)
    if not trees:
        return None
    offsets = np.cumsum([0, *(len(tree.left) for tree in trees)])
    features, thresholds, missing = (
        np.concatenate([getattr(tree, field) for tree in trees])
        for field in ("features", "thresholds", "missing_left")
    )
    return _Forest(offsets, features, thresholds, missing)


def _correct_trees(node: Any, forests: list[_Forest]) -> None:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    owners = np.array(attributes["nodes_treeids"].ints)
    ids = np.array(attributes["nodes_nodeids"].ints)
    modes = attributes["nodes_modes"].strings
    if b"BRANCH_LT" in modes:  # of boosters, whose nodes are as they should be
        return
    inner = np.array([mode != b"LEAF" for mode in modes])
    features = np.array(attributes["nodes_featureids"].ints)
    values = np.array(attributes["nodes_values"].floats, np.float32)
    for index, forest in enumerate(forests):
        if owners.max() + 2 != len(forest.offsets) or len(ids) != forest.offsets[-1]:
            continue
        places = forest.offsets[owners] + ids
        cuts = forest.thresholds[places]
        same = (forest.features[places] == features) & np.isclose(cuts, values, 1e-6, 1e-30)
        if not same[inner].all():
            continue
        flags = np.where(inner, forest.missing_left[places], 0).astype(int).tolist()
        changed = {
            "nodes_values": np.where(inner, float32_not_above(cuts), values).tolist(),
            "nodes_missing_value_tracks_true": flags,
        }
        for name, value in changed.items():
            if name in attributes:
                node.attribute.remove(attributes[name])
            node.attribute.append(onnx.helper.make_attribute(name, value))
        # Bagged trees may be alike in their splits and differ in the side of NaN: they
        # are converted in order.
        forests.append(forests.pop(index))
        return


# --- isolation forests ---------------------------------------------------------------


def add_isolation_forest(scope: Any, operator: Any, container: Any) -> None:
    """Write an isolation forest as one ensemble of trees, whose leaves hold path lengths.

    The score of a row is ``-2 ** -(sum of path lengths / denominator)``
    (``_compute_score_samples`` in sklearn/ensemble/_iforest.py). skl2onnx writes a graph for
    each tree, with its leaves in tables.
    """
    label, decision = (output.full_name for output in operator.outputs)

    def append(op: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or str(scope.get_unique_variable_name("isolation"))
        name = scope.get_unique_operator_name(op)
        container.add_node(op, inputs, output, name=name, **attributes)
        return output

    def constant(element: int, value: float) -> str:
        name = str(scope.get_unique_variable_name("isolation"))
        container.add_initializer(name, element, [], [value])
        return name

    item = operator.raw_operator
    two, zero, offset = (constant(TensorProto.FLOAT, x) for x in (2.0, 0.0, float(item.offset_)))
    outlying, inlying = (constant(TensorProto.INT64, x) for x in (-1, 1))
    rows = concatenate_variables(scope, operator.inputs, container)
    rows = append("Cast", [rows], to=TensorProto.FLOAT)
    trees = _path_lengths(item)
    exponent = append("TreeEnsembleRegressor", [rows], op_domain="ai.onnx.ml", **trees)
    score = append("Neg", [append("Pow", [two, exponent])])
    append("Sub", [score, offset], decision)
    append("Where", [append("Less", [decision, zero]), outlying, inlying], label)


def _path_lengths(item: Any) -> dict[str, Any]:
    """The attributes of an ensemble that adds up to the exponent of an isolation forest."""
    trees = [member.tree_ for member in item.estimators_]
    features = [
        # Leaves have a negative one.
        own[np.maximum(tree.feature, 0)]
        for own, tree in zip(item.estimators_features_, trees, strict=True)
    ]
    counts = [tree.node_count for tree in trees]
    owners = np.repeat(np.arange(len(counts)), counts)
    nodes = np.concatenate([np.arange(count) for count in counts])

    def joined(field: str) -> Array:
        return np.concatenate([getattr(tree, field) for tree in trees])

    leaf = joined("children_left") < 0
    lengths = np.concatenate(item._decision_path_lengths) - 1.0
    lengths += np.concatenate(item._average_path_length_per_tree)
    # Of a forest that saw a single sample, scikit-learn takes every exponent for -1.
    denominator = len(counts) * float(_average_path_length([item._max_samples])[0])
    weights = -lengths / denominator if denominator else np.full(len(lengths), -1 / len(counts))
    return {
        "n_targets": 1,
        "nodes_treeids": owners.tolist(),
        "nodes_nodeids": nodes.tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_featureids": np.where(leaf, 0, np.concatenate(features)).tolist(),
        "nodes_values": np.where(leaf, 0.0, float32_not_above(joined("threshold"))).tolist(),
        "nodes_missing_value_tracks_true": np.where(leaf, 0, joined("missing_go_to_left")).tolist(),
        "nodes_truenodeids": np.where(leaf, 0, joined("children_left")).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, joined("children_right")).tolist(),
        "target_treeids": owners[leaf].tolist(),
        "target_nodeids": nodes[leaf].tolist(),
        "target_ids": np.zeros(np.count_nonzero(leaf), int).tolist(),
        "target_weights": weights[leaf].tolist(),
    }
