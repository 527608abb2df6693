"""Linear models and support vector machines against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelpack.errors import UnsupportedOpsError
from tests.lowering.backend_suite import RUNNERS
from tests.lowering.ml_nodes import ml_model
from tests.lowering.nodes import check

TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")
FEATURES = 5


def model(op: str, x: Any, **attributes: Any) -> onnx.ModelProto:
    outputs = 2 if op.endswith("Classifier") else 1
    return ml_model(op, x, outputs=outputs, **attributes)


def rows(seed: int, count: int, dtype: Any = np.float32) -> Any:
    values = np.random.default_rng(seed).normal(size=(count, FEATURES))
    return (3 * values).astype(dtype) if np.dtype(dtype).kind == "i" else values.astype(dtype)


def numbers(seed: int, *shape: int) -> list[float]:
    return list(np.random.default_rng(seed).normal(size=shape).astype(np.float32).ravel().tolist())


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear_regressor(transform: str, targets: int) -> None:
    made = model(
        "LinearRegressor",
        rows(0, 1),
        targets=targets,
        post_transform=transform,
        coefficients=[0.02 * c for c in numbers(1, targets * FEATURES)],
        intercepts=[0.3, 0.4, 0.6][:targets] if transform != "SOFTMAX" else None,
    )
    check(made, [rows(2, 1)], [rows(3, 20)], rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("labels", [["a", "b", "c"], [4, 2, 9]], ids=["strings", "ints"])
@pytest.mark.parametrize("transform", TRANSFORMS[:4])
@pytest.mark.parametrize("columns", [1, 3])
def test_linear_classifier(columns: int, transform: str, labels: list[Any]) -> None:
    kind = "strings" if isinstance(labels[0], str) else "ints"
    made = model(
        "LinearClassifier",
        rows(0, 1),
        coefficients=numbers(1, columns * FEATURES),
        intercepts=numbers(2, columns),
        post_transform=transform,
        **{f"classlabels_{kind}": labels[: max(2, columns)]},
    )
    check(made, [rows(2, 1)], [rows(3, 20)])


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32])
def test_features_of_other_dtypes(dtype: Any) -> None:
    made = model(
        "LinearClassifier",
        rows(0, 1, dtype),
        coefficients=numbers(1, 3 * FEATURES),
        intercepts=numbers(2, 3),
        classlabels_ints=[0, 1, 2],
    )
    check(made, [rows(3, 20, dtype)])


KERNELS = {
    "LINEAR": [0.0, 0.0, 0.0],
    "RBF": [0.2, 0.0, 0.0],
    "POLY": [0.3, 0.5, 2.0],
    "SIGMOID": [0.1, 0.2, 0.0],
}


def machine(x: Any, classes: int, kernel: str = "RBF", **changes: Any) -> onnx.ModelProto:
    per_class = [4, 3, 5, 2][:classes]
    vectors, pairs = sum(per_class), classes * (classes - 1) // 2
    attributes = {
        "kernel_type": kernel,
        "kernel_params": KERNELS[kernel],
        "vectors_per_class": per_class,
        "support_vectors": numbers(1, vectors * FEATURES),
        "coefficients": numbers(2, (classes - 1) * vectors),
        "rho": numbers(3, pairs),
        "classlabels_ints": list(range(10, 10 + classes)),
        **changes,
    }
    return model("SVMClassifier", x, **attributes)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("classes", [2, 4])
def test_votes_and_scores(kernel: str, classes: int) -> None:
    check(machine(rows(0, 1), classes, kernel), [rows(4, 1)], [rows(5, 30)])


@pytest.mark.parametrize("degree", [1.0, 3.0, 4.0])
def test_polynomial_kernels(degree: float) -> None:
    made = machine(rows(0, 1), 2, "POLY", kernel_params=[0.3, 0.5, degree])
    check(made, [rows(5, 30)], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("transform", ["LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("classes", [2, 3])
def test_transformed_votes(classes: int, transform: str) -> None:
    check(machine(rows(0, 1), classes, post_transform=transform), [rows(5, 30)])


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_probabilities(classes: int) -> None:
    pairs = classes * (classes - 1) // 2
    made = machine(
        rows(0, 1),
        classes,
        prob_a=[-1.5 - 0.3 * i for i in range(pairs)],
        prob_b=[0.1 * i for i in range(pairs)],
        classlabels_ints=None,
        classlabels_strings=["no", "maybe", "yes", "always"][:classes],
    )
    check(made, [rows(4, 1)], [rows(5, 60)], rtol=1e-4, atol=1e-5)


def test_far_apart_vectors_do_not_cancel_out() -> None:
    far = [1e4 * v for v in numbers(1, 7 * FEATURES)]
    x = np.array(far[:FEATURES], np.float32)[None] + rows(6, 8) * 0.1
    check(machine(x, 2, support_vectors=far), [x], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_classifier_without_vectors(columns: int, sign: int) -> None:
    coefficients = [sign * abs(c) for c in numbers(1, columns * FEATURES)]
    made = model(
        "SVMClassifier",
        rows(0, 1),
        coefficients=coefficients,
        rho=[0.2],
        kernel_params=[0.0, 0.0, 0.0],
        classlabels_ints=list(range(columns)),
    )
    check(made, [rows(5, 30)])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("one_class", [0, 1])
def test_regressor_with_vectors(kernel: str, one_class: int) -> None:
    made = model(
        "SVMRegressor",
        rows(0, 1),
        kernel_type=kernel,
        kernel_params=KERNELS[kernel],
        n_supports=6,
        support_vectors=numbers(1, 6 * FEATURES),
        coefficients=numbers(2, 6),
        rho=[-0.1],
        one_class=one_class,
    )
    check(made, [rows(4, 1)], [rows(5, 30)])


def test_regressor_without_vectors() -> None:
    made = model(
        "SVMRegressor",
        rows(0, 1),
        kernel_params=[0.0, 0.0, 0.0],
        coefficients=numbers(2, FEATURES),
        rho=[0.4],
    )
    check(made, [rows(5, 30)])


@pytest.mark.parametrize(
    "changes", [{"kernel_type": "COSINE"}, {"post_transform": "PROBIT"}], ids=["kernel", "probit"]
)
def test_what_is_not_defined_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOpsError):
        RUNNERS["savedmodel"](machine(rows(0, 1), 2, **changes), tmp_path)
