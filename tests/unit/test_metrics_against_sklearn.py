"""Metrics equal scikit-learn's, which the base install does without."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelpack.errors import InputError
from modelpack.metrics import METRICS, chance, class_name, drop, evaluate, measured, suited
from modelpack.samples import Array, Case
from modelpack.signature import DType, Meaning, Signature, TensorSpec

sklearn = pytest.importorskip("sklearn.metrics")

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SEEDS = st.integers(0, 2**32 - 1)


def logits(classes: int, meaning: Meaning | None = None) -> Signature:
    spec = TensorSpec("y", DType.FLOAT32, ("n", classes), meaning=meaning)
    return Signature((), (spec,))


def in_cases(values: Array) -> list[Case]:
    return [{"y": part} for part in np.array_split(values, min(3, len(values)))]


@st.composite
def classified(draw: st.DrawFn) -> tuple[Array, Array]:
    """Probabilities and labels of a few classes; coarse, so that there are ties."""
    rng = np.random.default_rng(draw(SEEDS))
    rows, classes = draw(st.integers(4, 60)), draw(st.integers(3, 5))
    weights = rng.integers(1, 6, (rows, classes)).astype(np.float64)
    labels = rng.integers(0, classes, rows)
    assume(len(set(labels)) == classes)
    return weights / weights.sum(1, keepdims=True), labels


@given(classified())
def test_decisions(data: tuple[Array, Array]) -> None:
    values, labels = data
    found = values.argmax(1)
    for metric, wanted in (
        ("accuracy", sklearn.accuracy_score(labels, found)),
        ("f1", sklearn.f1_score(labels, found, average="macro")),
    ):
        got = evaluate(metric, logits(values.shape[1]), in_cases(values), labels)
        np.testing.assert_allclose(got, wanted, **EXACT)


@given(classified())
def test_auc_of_each_class_against_the_rest(data: tuple[Array, Array]) -> None:
    values, labels = data
    wanted = sklearn.roc_auc_score(labels, values, multi_class="ovr", average="macro")
    for meaning in (None, Meaning.PROBABILITIES):
        got = evaluate("auc", logits(values.shape[1], meaning), in_cases(values), labels)
        np.testing.assert_allclose(got, wanted, **EXACT)


@given(SEEDS, st.integers(2, 80), st.sampled_from([1, 2]))
def test_auc_of_two_classes(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 8, rows) / 8, rng.integers(0, 2, rows)
    assume(len(set(labels)) == 2)
    values = scores[:, np.newaxis] if columns == 1 else np.stack([1 - scores, scores], 1)
    got = evaluate("auc", logits(columns), in_cases(values), labels)
    np.testing.assert_allclose(got, sklearn.roc_auc_score(labels, scores), **EXACT)


@given(SEEDS, st.integers(2, 50), st.sampled_from([(), (1,), (3,)]), st.floats(-1e6, 1e6))
def test_errors_of_real_values(seed: int, rows: int, shape: Sequence[int], offset: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.normal(offset, 1, (rows, *shape))
    values = labels + rng.normal(0, 1, labels.shape)
    signature = Signature((), (TensorSpec("y", DType.FLOAT64, ("n", *shape)),))
    for metric, wanted in (
        ("mae", sklearn.mean_absolute_error(labels, values)),
        ("r2", sklearn.r2_score(labels, values)),
    ):
        got = evaluate(metric, signature, in_cases(values), labels)
        # Both take differences of values around the offset, which has 1e-16 of it in each.
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


@given(SEEDS, st.sampled_from(["accuracy", "f1", "mae", "r2"]))
def test_a_resample_has_the_metric_of_its_samples(seed: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    rows = 12
    real = metric in {"mae", "r2"}
    values = rng.normal(0, 1, (rows, 1 if real else 3))
    labels = rng.normal(0, 1, rows) if real else rng.integers(0, 3, rows)
    drawn = rng.integers(0, rows, (4, rows))
    weights = np.stack([np.bincount(row, minlength=rows) for row in drawn]).astype(np.float64)
    signature = logits(values.shape[1])
    got = measured(metric, signature, in_cases(values), labels).resampled(weights)
    wanted = [evaluate(metric, signature, in_cases(values[row]), labels[row]) for row in drawn]
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def test_r2_of_constant_labels_is_that_of_scikit_learn() -> None:
    signature = logits(1)
    labels = np.full(4, 0.1)
    for values in (labels, labels + 1):
        got = evaluate("r2", signature, in_cases(values[:, np.newaxis]), labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert got == sklearn.r2_score(labels, values)


# --- what scikit-learn leaves to its caller --------------------------------------------


def test_auc_of_logits_is_that_of_their_softmax() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 3, (200, 4))
    labels = (values + rng.normal(0, 4, values.shape)).argmax(1)
    powers = np.exp(values)
    softmax = powers / powers.sum(1, keepdims=True)
    wanted = sklearn.roc_auc_score(labels, softmax, multi_class="ovr", average="macro")
    np.testing.assert_allclose(
        evaluate("auc", logits(4), in_cases(values), labels), wanted, **EXACT
    )
    # The scores of a classifier are no logits: each column ranks by itself.
    by_column = np.mean([sklearn.roc_auc_score(labels == k, values[:, k]) for k in range(4)])
    got = evaluate("auc", logits(4, Meaning.SCORES), in_cases(values), labels)
    np.testing.assert_allclose(got, by_column, **EXACT)


def test_auc_of_logits_does_not_stop_where_softmax_saturates() -> None:
    margin = np.array([40.0, 60.0, 80.0, 100.0])  # softmax gives 1.0 for all of them
    values = np.stack([np.zeros(4), margin, np.full(4, -5.0)], 1)
    labels = np.array([0, 0, 1, 1])
    assert evaluate("auc", logits(3), in_cases(values), labels) == 1.0


def test_auc_ranks_for_the_class_that_a_column_stands_for() -> None:
    spec = TensorSpec("y", DType.FLOAT32, ("n", 2), classes=("yes", "no"))
    values = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array(["yes", "no", "no"], object)
    assert evaluate("auc", Signature((), (spec,)), in_cases(values), labels) == 1.0


def test_auc_of_nan_is_nan() -> None:
    values = np.array([[0.2], [np.nan], [0.7]])
    assert np.isnan(evaluate("auc", logits(1), in_cases(values), np.array([0, 1, 1])))


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        (1, [0, 1, 2, 0], "one column for 3 classes"),
        (3, [1, 1, 1, 1], "at least two classes"),
        (3, [7, 8, 7, 8], "at least two classes"),
        (3, [0, 1], "one label and one row"),
    ],
)
def test_auc_of_labels_that_do_not_fit_is_refused(
    columns: int, labels: list[int], message: str
) -> None:
    values = np.random.default_rng(0).random((4, columns))
    with pytest.raises(InputError, match=message):
        evaluate("auc", logits(columns), in_cases(values), np.array(labels))


@pytest.mark.parametrize("same", [(1, 1.0, True, "1", "1.0", b"1"), (0, False, "False", "0")])
def test_a_class_is_the_same_however_it_is_stored(same: tuple[object, ...]) -> None:
    assert len({class_name(value) for value in same}) == 1


@pytest.mark.parametrize("other", ["01", "1.5", 1.5, "one", -1])
def test_other_classes_stay_apart(other: object) -> None:
    assert class_name(other) != class_name(1)


def test_every_metric_says_which_way_is_worse() -> None:
    assert {metric for metric in METRICS if drop(metric, 0.9, 0.8) > 0} == set(METRICS) - {"mae"}
    assert drop("mae", 0.8, 0.9) > 0


def test_labels_decide_which_metrics_are_tried() -> None:
    assert suited(logits(3), np.array([0.5])) == ("mae", "r2")
    assert suited(logits(3), np.array([1])) == ("accuracy", "f1", "auc")


def test_guessing_reaches_what_it_reaches() -> None:
    labels = np.array([0, 1, 2, 3])
    assert [chance(metric, labels) for metric in METRICS] == [0.25, 0.25, 0.5, None, 0.0]
