"""Metrics of artifacts beside those of what they are compared with."""

from __future__ import annotations

import numpy as np
import pytest

from modelpack.artifact import Artifact, Quantization
from modelpack.errors import InputError
from modelpack.scoring import answers, baseline, scores
from modelpack.signature import DType, Signature, TensorSpec

LABELS = np.array([0, 1, 1, 0])
TWO = Signature((), (TensorSpec("y", DType.FLOAT32, ("n", 2)),))
ONE = Signature((), (TensorSpec("y", DType.FLOAT32, ("n", 1)),))
RIGHT = [{"y": np.eye(2)[LABELS]}]
HALF = [{"y": np.eye(2)[[0, 1, 0, 1]]}]


def test_all_metrics_that_suit_are_measured() -> None:
    assert list(answers("m", TWO, RIGHT, LABELS).measures) == ["accuracy", "f1", "auc"]
    single = [{"y": np.array([[0.1], [0.9], [0.8], [0.3]])}]
    assert list(answers("m", ONE, single, LABELS).measures) == ["auc"]
    assert list(answers("m", ONE, single, LABELS.astype(np.float64)).measures) == ["mae", "r2"]
    assert list(answers("m", TWO, RIGHT, LABELS, "f1").measures) == ["f1"]


def test_a_metric_that_was_asked_for_must_suit() -> None:
    single = [{"y": np.zeros((4, 1))}]
    with pytest.raises(InputError, match="one value per sample"):
        answers("m", ONE, single, LABELS, "accuracy")
    with pytest.raises(InputError, match="one value per sample"):
        answers("m", ONE, single, np.array([0, 1, 2, 1]))


def test_scores_stand_beside_the_reference() -> None:
    own, other = answers("m", TWO, HALF, LABELS), answers("r", TWO, RIGHT, LABELS)
    found = {score.metric: score for score in scores(own, other)}
    accuracy = found["accuracy"]
    assert (accuracy.value, accuracy.reference, accuracy.samples) == (0.5, 1.0, 4)
    assert accuracy.compared_with == "r"
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.low < -0.5 < accuracy.high


def test_scores_alone_have_no_difference() -> None:
    own = answers("m", TWO, HALF, LABELS)
    fewer = answers("r", TWO, [{"y": np.eye(2)[[0, 1]]}], LABELS[:2])
    for other in (None, fewer):
        found = scores(own, other)
        assert {(score.reference, score.low, score.high) for score in found} == {(None,) * 3}


def test_values_keep_six_digits() -> None:
    signature = Signature((), (TensorSpec("y", DType.FLOAT64, ("n",)),))
    labels = np.zeros(3)
    own = answers("m", signature, [{"y": np.full(3, 1.23456789e-9)}], labels, "mae")
    assert scores(own, None)[0].value == 1.23457e-9


def artifact(path: str, of: str = "", signature: str = "serving_default") -> Artifact:
    figures = Quantization("static-int8", of) if of else None
    return Artifact(path, "onnx", "sha256:0", 1, signature=signature, quantization=figures)


def test_artifacts_are_compared_with_what_they_come_from() -> None:
    both = [artifact("a.onnx"), artifact("a.int8.onnx", "b.tflite"), artifact("b.tflite")]
    usual = "serving_default"
    assert baseline(both) == {
        ("b.tflite", usual): ("a.onnx", usual),
        ("a.int8.onnx", usual): ("b.tflite", usual),
    }
    assert baseline([artifact("q.onnx", "gone.onnx")]) == {}
    further = [artifact("a.b.onnx", signature="b"), artifact("b.b.onnx", signature="b")]
    expected = {("b.b.onnx", "b"): ("a.b.onnx", "b")}
    assert baseline([*further, artifact("c.onnx")]) == expected


def test_each_signature_of_a_quantized_file_is_compared_with_its_own() -> None:
    names = ["serving_default", "b"]
    one_file = [artifact("m.tflite", signature=name) for name in names]
    small = [artifact("m.int8.tflite", "m.tflite", name) for name in names]
    assert baseline([*one_file, *small]) == {
        ("m.int8.tflite", name): ("m.tflite", name) for name in names
    }


def test_nothing_is_compared_where_there_is_nothing() -> None:
    assert baseline([]) == {}
