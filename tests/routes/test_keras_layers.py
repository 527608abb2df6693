"""Keras layers that TensorFlow's converters have no form for, and get one here.

The sweep in tests/sweep/test_keras_layers.py takes every layer to every format.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import modelpack as mp
from modelpack.parity import Verdict
from tests.sweep.keras_trials import Outcome, taken

keras = pytest.importorskip("keras")

RIGHT = Outcome("right")


@pytest.mark.parametrize("case", ["LSTM, any length", "GRU, masked"])
def test_a_recurrent_layer_keeps_its_batch_dynamic_in_tflite(case: str, tmp_path: Path) -> None:
    assert taken(case, ("tflite",), tmp_path) == {"tflite": RIGHT}


def test_the_dropout_of_recurrent_layers_leaves_no_random_numbers(tmp_path: Path) -> None:
    layer = keras.layers.LSTM(5, dropout=0.3, recurrent_dropout=0.2)
    keras.Sequential([keras.Input((6, 3)), layer]).save(tmp_path / "m.keras")
    made = mp.convert(tmp_path / "m.keras", tmp_path / "out", to=["savedmodel", "onnx"])
    assert all(item.parity.verdict is Verdict.PASSED for item in made.artifacts)
    assert b"Random" not in (tmp_path / "out" / "saved_model" / "saved_model.pb").read_bytes()


def test_steps_of_dynamic_number_are_traced_as_rows(tmp_path: Path) -> None:
    found = taken("TimeDistributed, dense of any length", ("savedmodel", "onnx"), tmp_path)
    assert found == {"savedmodel": RIGHT, "onnx": RIGHT}


def test_the_noise_of_an_adapted_normalization_is_that_of_rounding(tmp_path: Path) -> None:
    assert taken("Normalization", ("savedmodel",), tmp_path) == {"savedmodel": RIGHT}


def test_rows_of_zeros_have_a_unit_norm_of_zero_in_tflite(tmp_path: Path) -> None:
    assert taken("UnitNormalization", ("tflite",), tmp_path) == {"tflite": RIGHT}


WRITTEN = [
    "Activation, celu",
    "CategoryEncoding, one hot",
    "Conv1DTranspose, valid",
    "Discretization",
    "StringLookup",
]


@pytest.mark.parametrize("case", WRITTEN)
def test_ops_without_an_onnx_form_are_written_by_others(case: str, tmp_path: Path) -> None:
    assert taken(case, ("onnx",), tmp_path) == {"onnx": RIGHT}


def test_text_is_refused_by_the_name_of_what_processes_it(tmp_path: Path) -> None:
    found = taken("TextVectorization", ("savedmodel", "onnx"), tmp_path)
    assert found["savedmodel"] == RIGHT
    assert found["onnx"].kind == "refused"
    assert "StaticRegexReplace" in found["onnx"].reason
