"""Tree ensembles against ONNX Runtime: routing, aggregation, classes, forms of attributes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelpack.errors import UnsupportedOpsError
from modelpack.lowering.ops.ml_ensemble import Places
from modelpack.lowering.ops.ml_forest import forest
from tests.lowering.backend_suite import RUNNERS
from tests.lowering.ml_nodes import ml_model
from tests.lowering.nodes import check
from tests.lowering.trees import MODES, ensemble, grid, weighted

TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")


def model(op: str, x: Any, opset: int = 3, **attributes: Any) -> onnx.ModelProto:
    outputs = 2 if op.endswith("Classifier") else 1
    return ml_model(op, x, opset=opset, outputs=outputs, **attributes)


def regressor(x: Any, **changes: Any) -> onnx.ModelProto:
    nodes, leaves = ensemble(1)
    return model(
        "TreeEnsembleRegressor",
        x,
        **{"n_targets": 1, **nodes, **weighted(2, "target", leaves, [0]), **changes},
    )


@pytest.mark.parametrize("missing", [False, True], ids=["", "missing"])
@pytest.mark.parametrize("modes", [*((mode,) for mode in MODES), MODES], ids=lambda m: m[-1])
def test_rows_take_the_branches_they_should(modes: tuple[str, ...], missing: bool) -> None:
    nodes, leaves = ensemble(3, modes, missing=missing)
    weights = weighted(4, "target", leaves, [0])
    made = model("TreeEnsembleRegressor", grid(0, 1), n_targets=1, **nodes, **weights)
    check(made, [grid(0, 1)], [grid(1, 60)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("extreme", [0.0, -0.0, np.inf, -np.inf, 3e38, 1e-30])
def test_extreme_thresholds_split_exactly(extreme: float) -> None:
    nodes, leaves = ensemble(5, trees=4, depth=1, features=1)
    nodes["nodes_modes"] = [m for mode in MODES[:4] for m in (mode, "LEAF", "LEAF")]
    nodes["nodes_values"] = [extreme, 0.0, 0.0] * 4
    weights = weighted(6, "target", leaves, [0])
    made = model("TreeEnsembleRegressor", grid(0, 1), n_targets=1, **nodes, **weights)
    near, tiny = np.float32(extreme), np.finfo(np.float32).tiny
    around = [np.nextafter(near, np.float32(side)) for side in (-9, 9)]
    rows = np.array([near, *around, 0, -0.0, tiny, -tiny, np.inf, -np.inf, np.nan], np.float32)
    # TensorFlow takes smaller numbers for zero, TFLite's converter the infinite for finite ones.
    usual = (np.abs(rows) >= tiny) | (rows == 0) | np.isnan(rows)
    usual &= ~(np.abs(rows) > 3e38) | np.isfinite(near)
    check(made, [rows[usual].reshape(-1, 1)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32])
def test_features_of_other_dtypes(dtype: Any) -> None:
    made = classifier([0, 1, 2], 3, x=grid(0, 1, dtype))
    check(made, [grid(1, 30, dtype)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("targets", "base"), [(1, True), (3, False), (3, True)])
@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_targets_are_aggregated(aggregate: str, targets: int, base: bool) -> None:
    nodes, leaves = ensemble(7)
    made = model(
        "TreeEnsembleRegressor",
        grid(0, 1),
        n_targets=targets,
        aggregate_function=aggregate,
        base_values=[0.5, -1.0, 2.0][:targets] if base else None,
        **nodes,
        **weighted(8, "target", leaves, list(range(targets)), turns=targets > 1),
    )
    check(made, [grid(1, 40)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_regressors_are_transformed(transform: str, targets: int) -> None:
    nodes, leaves = ensemble(9)
    weights = weighted(10, "target", leaves, list(range(targets)), positive=True)
    made = model(
        "TreeEnsembleRegressor",
        grid(0, 1),
        n_targets=targets,
        post_transform=transform,
        **nodes,
        **weights,
    )
    check(made, [grid(1, 40)], rtol=1e-4, atol=loose(transform))


def loose(transform: str) -> float:
    """ONNX Runtime's PROBIT loses digits near 1/2."""
    return 2e-3 if transform == "PROBIT" else 1e-5


def classifier(
    ids: list[int], classes: int, positive: bool = False, x: Any = None, **changes: Any
) -> onnx.ModelProto:
    nodes, leaves = ensemble(11)
    weights = weighted(12, "class", leaves, ids, positive=positive)
    labels = {"classlabels_int64s": list(range(classes))}
    if "classlabels_strings" in changes:
        labels = {}
    attributes = {**nodes, **weights, **labels, **changes}
    return model("TreeEnsembleClassifier", grid(0, 1) if x is None else x, **attributes)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("ids", "classes", "positive"),
    [([0], 2, False), ([1], 2, True), ([0, 1], 2, False), ([0, 1, 2], 3, True)],
)
def test_classifiers_are_transformed(
    ids: list[int], classes: int, positive: bool, transform: str
) -> None:
    if len(ids) == 1 and transform == "PROBIT":
        pytest.skip("ONNX Runtime leaves one column undefined")
    made = classifier(ids, classes, positive, post_transform=transform)
    check(made, [grid(0, 1)], [grid(1, 40)], rtol=1e-4, atol=loose(transform))


@pytest.mark.parametrize(
    ("ids", "classes", "base"),
    [
        ([0], 2, [0.2]),
        ([1], 2, [0.2]),
        ([0], 2, [0.2, 0.2]),
        ([0, 1], 2, [0.3, 0.3]),
        ([0, 1, 2], 3, [0.1, 0.2, -0.3]),
    ],
)
@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC"])
def test_base_values_of_classifiers(
    ids: list[int], classes: int, base: list[float], transform: str
) -> None:
    made = classifier(ids, classes, base_values=base, post_transform=transform)
    check(made, [grid(1, 40)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "labels",
    [
        {"classlabels_strings": ["no", "maybe", "yes"]},
        {"classlabels_int64s": [7, -2, 5]},
    ],
    ids=["strings", "ints"],
)
def test_labels_are_those_of_the_model(labels: dict[str, Any]) -> None:
    check(classifier([0, 1, 2], 3, **labels), [grid(1, 40)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "ids"), [(["no", "yes"], [0]), (["no", "yes"], [0, 1]), ([3, 8], [0]), ([3, 8], [1])]
)
def test_labels_of_two_classes(labels: list[Any], ids: list[int]) -> None:
    kind = "strings" if isinstance(labels[0], str) else "int64s"
    check(classifier(ids, 2, **{f"classlabels_{kind}": labels}), [grid(1, 40)])


def test_a_class_without_weights_on_the_way_does_not_win() -> None:
    nodes, leaves = ensemble(13, trees=2)
    weights = weighted(14, "class", leaves, [0, 1, 2], turns=True)
    weights["class_weights"] = [-abs(w) for w in weights["class_weights"]]
    made = model(
        "TreeEnsembleClassifier", grid(0, 1), classlabels_int64s=[0, 1, 2], **nodes, **weights
    )
    check(made, [grid(1, 40)], rtol=1e-4, atol=1e-5)
    # Leaves of other classes in one tree: which class has a weight depends on the row.
    weights["class_ids"] = [i % 3 for i in range(len(leaves))]
    made = model(
        "TreeEnsembleClassifier", grid(0, 1), classlabels_int64s=[0, 1, 2], **nodes, **weights
    )
    check(made, [grid(1, 40)], rtol=1e-4, atol=1e-5)


def test_attributes_as_tensors() -> None:
    nodes, leaves = ensemble(15)
    weights = weighted(16, "target", leaves, [0])
    values = np.array(nodes.pop("nodes_values")) + 0.1
    leaf = np.array(weights.pop("target_weights"))
    x = grid(0, 20, np.float64) + 0.1
    made = model(
        "TreeEnsembleRegressor",
        x,
        n_targets=1,
        nodes_values_as_tensor=onnx.numpy_helper.from_array(values),
        target_weights_as_tensor=onnx.numpy_helper.from_array(leaf),
        base_values_as_tensor=onnx.numpy_helper.from_array(np.array([0.25])),
        **nodes,
        **weights,
    )
    check(made, [x], rtol=1e-5, atol=1e-6)


def test_a_tree_of_one_leaf_and_nodes_in_any_order() -> None:
    nodes, leaves = ensemble(17, trees=3)
    shuffled = np.random.default_rng(0).permutation(len(nodes["nodes_modes"]))
    first = np.flatnonzero(np.array(nodes["nodes_nodeids"]) == 0)  # a tree's first node is its root
    order = [*first, *(i for i in shuffled if i not in set(first))]
    order.sort(key=lambda i: nodes["nodes_treeids"][i])
    nodes = {name: [values[i] for i in order] for name, values in nodes.items()}
    weights = weighted(18, "target", [*leaves, (3, 0)], [0])
    extra = (3, 0, 0, 0.0, "LEAF", 0, 0, 0)
    for values, value in zip(nodes.values(), extra, strict=True):
        values.append(value)
    made = model("TreeEnsembleRegressor", grid(0, 1), n_targets=1, **nodes, **weights)
    check(made, [grid(1, 40)], rtol=1e-5, atol=1e-6)


# --- TreeEnsemble --------------------------------------------------------------------------


def tree_ensemble(x: Any, modes: list[int], splits: list[float], **changes: Any) -> Any:
    """A chain: node i goes to leaf i if true, and to node i + 1 (at last a leaf) if false."""
    count = len(modes)
    dtype = x.dtype
    attributes = {
        "n_targets": 2,
        "leaf_targetids": [i % 2 for i in range(count + 1)],
        "leaf_weights": onnx.numpy_helper.from_array(np.arange(1, count + 2).astype(dtype)),
        "nodes_featureids": [i % x.shape[1] for i in range(count)],
        "nodes_modes": onnx.numpy_helper.from_array(np.array(modes, np.uint8)),
        "nodes_splits": onnx.numpy_helper.from_array(np.array(splits, dtype)),
        "nodes_truenodeids": list(range(count)),
        "nodes_trueleafs": [1] * count,
        "nodes_falsenodeids": [*range(1, count), count],
        "nodes_falseleafs": [*[0] * (count - 1), 1],
        "tree_roots": [0, 1],
        **changes,
    }
    return model("TreeEnsemble", x, 5, **attributes)


@pytest.mark.parametrize(
    ("dtype", "aggregate", "transform"),
    [(np.float32, 0, 3), (np.float64, 1, 0), (np.float32, 2, 0), (np.float64, 3, 4)],
)
def test_tree_ensemble(dtype: Any, aggregate: int, transform: int) -> None:
    x = grid(1, 50, dtype)
    changes = {"aggregate_function": aggregate, "post_transform": transform}
    made = tree_ensemble(x, [0, 1, 2, 3, 4, 5], [-2, -1, 2, 1, 0, 0], **changes)
    check(made, [x], rtol=1e-5, atol=1e-6)


def test_tree_ensemble_of_sets() -> None:
    x = grid(1, 50)
    nan = np.nan
    sets = onnx.numpy_helper.from_array(np.array([1, 2, nan, -3, nan, 0, 2, 3, nan], np.float32))
    made = tree_ensemble(
        x,
        [6, 0, 6, 6],
        [0, -1, 0, 0],
        membership_values=sets,
        nodes_missing_value_tracks_true=[0, 0, 1, 0],
    )
    # onnx's evaluator takes NaN for no member even where the node's flag says so.
    present = x[~np.isnan(x).any(1)]
    check(made, [present], rtol=1e-5, atol=1e-6)


# --- refusals, size ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        regressor(grid(0, 1), aggregate_function="MEDIAN"),
        regressor(grid(0, 1), post_transform="CUBE"),
        regressor(grid(0, 1), base_values=[0.1, 0.2]),
        classifier([0], 2, post_transform="PROBIT"),
        classifier([0, 1], 2, classlabels_int64s=[3, 8]),
        tree_ensemble(grid(0, 1), [0, 0], [0.0, 1.0], post_transform=1),
    ],
    ids=["aggregate", "transform", "base", "probit", "labels", "softmax"],
)
def test_what_is_not_defined_is_refused(made: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOpsError):
        RUNNERS["savedmodel"](made, tmp_path)


def test_large_forests_are_made_quickly() -> None:
    trees, depth = 100, 13
    count = 2 ** (depth + 1) - 1
    ids = np.tile(np.arange(count), trees)
    leaf = ids >= count // 2
    lists = {
        "modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "features": np.where(leaf, 0, ids % 20).tolist(),
        "values": np.random.default_rng(0).normal(size=len(ids)).tolist(),
        "true": np.where(leaf, 0, 2 * ids + 1).tolist(),
        "false": np.where(leaf, 0, 2 * ids + 2).tolist(),
    }
    owners = np.repeat(np.arange(trees), count).tolist()
    started = time.process_time()
    places = Places(owners, ids.tolist())
    nodes = places.nodes(
        (lists["modes"], lists["features"], lists["values"]), (lists["true"], lists["false"]), None
    )
    made = forest(nodes, 20, np.float32)
    assert made.depth == depth
    assert len(made.node) == len(ids)
    assert time.process_time() - started < 5.0  # 1.6 million nodes
