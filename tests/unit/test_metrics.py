from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelpack.errors import InputError
from modelpack.metrics import drop, evaluate, metric_for
from modelpack.signature import DType, Meaning, Signature, TensorSpec

LOGITS = TensorSpec("logits", DType.FLOAT32, ("n", 3))
LABEL = TensorSpec("label", DType.STRING, ("n",), meaning=Meaning.LABEL)
VALUE = TensorSpec("value", DType.FLOAT32, ("n", 1), meaning=Meaning.PREDICTION)
SCORES = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])


def signature(*outputs: TensorSpec) -> Signature:
    return Signature((), outputs)


def test_accuracy_is_the_share_of_right_positions_over_all_cases() -> None:
    cases = [{"logits": SCORES[:1]}, {"logits": SCORES[1:]}]
    labels = np.array([0, 2, 1, 1])
    assert evaluate("accuracy", signature(LOGITS), cases, labels) == 0.75


def test_accuracy_reads_the_class_that_a_position_stands_for() -> None:
    spec = TensorSpec("logits", DType.FLOAT32, ("n", 3), classes=(10, 20, 30))
    labels = np.array([10, 30, 20, 99])
    assert evaluate("accuracy", signature(spec), [{"logits": SCORES}], labels) == 0.75


def test_accuracy_reads_class_names() -> None:
    spec = TensorSpec("logits", DType.FLOAT32, ("n", 3), classes=("a", "b", "c"))
    labels = np.array(["a", "c", "b", "b"], object)
    assert evaluate("accuracy", signature(spec), [{"logits": SCORES}], labels) == 0.75


def test_the_label_output_comes_before_scores() -> None:
    cases = [{"label": np.array(["a", "b", "b", "b"], object), "logits": SCORES}]
    labels = np.array(["a", "b", "a", "b"], object)
    assert evaluate("accuracy", signature(LOGITS, LABEL), cases, labels) == 0.75


def test_accuracy_of_text_and_integer_labels_compares_what_they_say() -> None:
    cases = [{"label": np.array(["1", "2"], object)}]
    assert evaluate("accuracy", signature(LABEL), cases, np.array([1, 3])) == 0.5


def test_accuracy_of_sequences_counts_every_step() -> None:
    cases = [{"logits": np.stack([SCORES[:2], SCORES[2:]])}]
    labels = np.array([[0, 2], [1, 1]])
    assert evaluate("accuracy", signature(LOGITS), cases, labels) == 0.75


def test_mae_is_the_mean_absolute_error() -> None:
    cases = [{"value": np.array([[1.0], [2.0]])}, {"value": np.array([[4.0]])}]
    found = evaluate("mae", signature(VALUE), cases, np.array([1.5, 2.0, 3.0]))
    np.testing.assert_allclose(found, 0.5, rtol=1e-12, atol=0)


def test_mae_does_not_broadcast_a_column_against_a_row() -> None:
    cases = [{"value": np.array([[1.0], [2.0]])}]
    assert evaluate("mae", signature(VALUE), cases, np.array([1.0, 2.0])) == 0


@pytest.mark.parametrize(
    ("metric", "spec", "values", "labels", "message"),
    [
        ("f2", LOGITS, SCORES, np.arange(4), "unknown metric 'f2'"),
        ("accuracy", LOGITS, SCORES, np.arange(3), "one label per"),
        ("accuracy", LOGITS, SCORES, np.zeros((4, 1)), "one label per"),
        ("accuracy", LOGITS, SCORES[:, 0], np.arange(4), "one value per sample"),
        ("mae", LOGITS, SCORES, np.arange(4), "do not have the shape"),
        ("mae", VALUE, SCORES[:, :1], np.array(list("abcd"), object), "do not have the shape"),
        ("mae", LABEL, np.array(["a"], object), np.arange(1), "no output holds real numbers"),
        (
            "accuracy",
            TensorSpec("count", DType.INT64, ("n",)),
            np.arange(4),
            np.arange(4),
            "no output holds real numbers",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(
    metric: str, spec: TensorSpec, values: Any, labels: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(metric, signature(spec), [{spec.name: values}], labels)


def test_a_drop_is_positive_when_the_candidate_is_worse() -> None:
    np.testing.assert_allclose(drop("accuracy", 0.9, 0.8), 0.1, rtol=1e-12, atol=0)
    np.testing.assert_allclose(drop("mae", 0.9, 0.8), -0.1, rtol=1e-12, atol=0)


def test_the_metric_follows_meaning_and_labels() -> None:
    assert metric_for(signature(VALUE), np.array([1, 2])) == "mae"
    assert metric_for(signature(LOGITS), np.array([1.5])) == "mae"
    assert metric_for(signature(LOGITS), np.array([1])) == "accuracy"
    assert metric_for(signature(LABEL), np.array(["a"], object)) == "accuracy"
