"""Scaling, imputing and encoding ops of ai.onnx.ml against ONNX Runtime."""

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

TEXTS = np.array([["red", "blue"], ["", "größe"], ["green", "red"]], object)


def rows(dtype: Any = np.float32, count: int = 6) -> Any:
    values = np.random.default_rng(0).normal(size=(count, 3)) * 3
    values[1] = 0
    return values.astype(dtype)


DTYPES = [np.float32, np.float64, np.int64, np.int32]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 3])
def test_scaler(dtype: Any, length: int) -> None:
    made = ml_model(
        "Scaler", rows(dtype), offset=[0.5, 1.0, -2.0][:length], scale=[2.0, 0.1, 3.0][:length]
    )
    check(made, [rows(dtype)], [rows(dtype, 2)])


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizer(norm: str, dtype: Any) -> None:
    check(ml_model("Normalizer", rows(dtype), norm=norm), [rows(dtype)], [rows(dtype, 2)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_binarizer(dtype: Any) -> None:
    check(ml_model("Binarizer", rows(dtype), threshold=0.5), [rows(dtype)])


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("replaced", [float("nan"), 0.0])
def test_imputer_of_floats(replaced: float, length: int) -> None:
    x = rows()
    x[2, 1] = np.nan
    values = {"imputed_value_floats": [7.0, 8.0, 9.0][:length], "replaced_value_float": replaced}
    check(ml_model("Imputer", x, **values), [x], [x[2:3]])


def test_imputer_of_ints() -> None:
    x = rows(np.int64)
    check(ml_model("Imputer", x, imputed_value_int64s=[5, 6, 7], replaced_value_int64=0), [x])


@pytest.mark.parametrize("x", [rows(), rows(np.int64), TEXTS, rows()[0]], ids=["f", "i", "s", "1d"])
@pytest.mark.parametrize("constant", [True, False])
def test_array_feature_extractor(x: Any, constant: bool) -> None:
    index = np.array([[1, 0, 1]])
    if constant:
        check(ml_model("ArrayFeatureExtractor", x, constants={1: index}), [x])
    else:
        check(ml_model("ArrayFeatureExtractor", x, index), [x, index])


@pytest.mark.parametrize("dimensions", [[3, 3], [2, 5]])
def test_feature_vectorizer(dimensions: list[int]) -> None:
    x, y = rows(), rows() + 1
    check(ml_model("FeatureVectorizer", x, y, inputdimensions=dimensions), [x, y])


# --- categories ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_one_hot_of_numbers(dtype: Any) -> None:
    check(ml_model("OneHotEncoder", rows(dtype), cats_int64s=[0, 2, -1, 5]), [rows(dtype)])


def test_one_hot_of_texts() -> None:
    made = ml_model("OneHotEncoder", TEXTS, cats_strings=["red", "größe", "grey"])
    check(made, [TEXTS], [TEXTS[:1]])


@pytest.mark.parametrize("target", ["savedmodel", "tflite"])
def test_a_category_that_is_an_error_gives_nan(target: str, tmp_path: Path) -> None:
    made = ml_model("OneHotEncoder", TEXTS, cats_strings=["red", "blue", "green"], zeros=0)
    answer = RUNNERS[target](made, tmp_path)([TEXTS])[0]
    known = np.isin(TEXTS, ["red", "blue", "green"])
    assert np.array_equal(np.isnan(answer).all(-1), ~known)
    assert (answer[known].sum(-1) == 1).all()


CATEGORIES = {"cats_strings": ["red", "green", "größe"], "cats_int64s": [3, 1, -7]}


@pytest.mark.parametrize("x", [TEXTS, rows(np.int64)], ids=["texts", "ints"])
def test_category_mapper(x: Any) -> None:
    check(ml_model("CategoryMapper", x, default_int64=-4, default_string="none", **CATEGORIES), [x])


@pytest.mark.parametrize("x", [TEXTS, rows(np.int64)], ids=["texts", "ints"])
def test_label_encoder_of_positions(x: Any) -> None:
    check(ml_model("LabelEncoder", x, classes_strings=["red", "green", "blue"]), [x])


KEYS = {
    "strings": (["red", "", "blue"], TEXTS),
    "int64s": ([0, 2, -3], rows(np.int64)),
    "floats": ([0.0, 1.5, float("nan")], np.array([[1.5, np.nan], [7.0, -0.0]], np.float32)),
}
VALUES = {"strings": ["a", "b", "c"], "int64s": [10, -20, 30], "floats": [0.5, -1.5, 9.0]}


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("opset", [2, 4])
def test_label_encoder(opset: int, keys: str, values: str) -> None:
    if keys == values == "floats":
        pytest.skip("covered by the other pairs")
    if opset == 2 and (keys == "floats" or values == keys):
        pytest.skip("as in version 4")
    known, x = KEYS[keys]
    attributes = {f"keys_{keys}": known, f"values_{values}": VALUES[values]}
    check(ml_model("LabelEncoder", x, opset=opset, **attributes), [x])


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.int16])
def test_label_encoder_of_tensors(dtype: Any) -> None:
    def tensor(*values: Any, kind: Any = dtype) -> Any:
        return onnx.numpy_helper.from_array(np.array(values, kind))

    attributes = {
        "keys_tensor": tensor(0, 2, -3),
        "values_tensor": tensor(7, 8, 9),
        "default_tensor": tensor(-1),
    }
    check(ml_model("LabelEncoder", rows(dtype), opset=4, **attributes), [rows(dtype)])


@pytest.mark.parametrize(
    "made",
    [
        ml_model("LabelEncoder", rows(np.int64), opset=2, keys_int64s=[1, 1], values_int64s=[2, 3]),
        ml_model("Imputer", rows(), imputed_value_floats=[1.0, 2.0]),
        ml_model("Normalizer", rows(), norm="L3"),
    ],
    ids=["repeated key", "values", "norm"],
)
def test_what_is_not_defined_is_refused(made: onnx.ModelProto, tmp_path: Path) -> None:
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    with pytest.raises(UnsupportedOpsError):
        RUNNERS["savedmodel"](made, tmp_path)
