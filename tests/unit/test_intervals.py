from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from modelpack.intervals import difference_interval
from modelpack.metrics import Measured, measured
from modelpack.samples import Array
from modelpack.signature import DType, Signature, TensorSpec

ROWS = 80


def of(metric: str, values: Array, labels: Array) -> Measured:
    spec = TensorSpec("y", DType.FLOAT32, ("n", *values.shape[1:]))
    return measured(metric, Signature((), (spec,)), [{"y": values}], labels)


def classes(rng: np.random.Generator, rows: int, noise: float) -> tuple[Array, Array, Array]:
    """Two models' scores of three classes, the second less sure, and labels."""
    labels = rng.integers(0, 3, rows)
    sure = np.eye(3)[labels] + rng.normal(0, 0.8, (rows, 3))
    return sure, sure + rng.normal(0, noise, (rows, 3)), labels


def reals(rng: np.random.Generator, rows: int, noise: float) -> tuple[Array, Array, Array]:
    labels = rng.normal(0, 1, rows)
    near = labels + rng.normal(0, 0.5, rows)
    return near, near + rng.normal(0, noise, rows), labels


MAKERS: dict[str, Callable[[np.random.Generator, int, float], tuple[Array, Array, Array]]] = {
    "accuracy": classes,
    "f1": classes,
    "auc": classes,
    "mae": reals,
    "r2": reals,
}


@pytest.mark.parametrize("metric", MAKERS)
def test_the_interval_holds_the_true_difference_as_often_as_it_says(metric: str) -> None:
    make = MAKERS[metric]
    many = make(np.random.default_rng(1), 200_000, 0.5)
    truth = of(metric, many[1], many[2]).value - of(metric, many[0], many[2]).value
    trials, held = 100, 0
    for seed in range(trials):
        first, second, labels = make(np.random.default_rng(100 + seed), ROWS, 0.5)
        pair = of(metric, second, labels), of(metric, first, labels)
        low, high = difference_interval(*pair, ROWS, seed)
        assert low <= pair[0].value - pair[1].value <= high
        held += low <= truth <= high
    # Of 100 intervals of 95 %, fewer than 88 hold with a chance of 4e-3; bootstraps of 80
    # samples are a little short.
    assert held >= 88


@pytest.mark.parametrize("metric", MAKERS)
def test_pairing_makes_the_interval_of_similar_models_short(metric: str) -> None:
    first, second, labels = MAKERS[metric](np.random.default_rng(3), ROWS, 0.02)
    stranger = MAKERS[metric](np.random.default_rng(3), ROWS, 3.0)[1]
    near = difference_interval(of(metric, second, labels), of(metric, first, labels), ROWS)
    far = difference_interval(of(metric, stranger, labels), of(metric, first, labels), ROWS)
    assert near[1] - near[0] < 0.5 * (far[1] - far[0])
    assert far[0] * far[1] > 0  # a model that much worse is told apart
    assert near[0] < 0 < near[1] or metric == "f1"


def test_accuracy_has_the_interval_of_agresti_and_min() -> None:
    # 50 pairs: the candidate is right alone on 8, the reference alone on 3.
    labels = np.zeros(50, np.int64)
    right, wrong = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    candidate = np.stack([right] * 30 + [right] * 8 + [wrong] * 3 + [wrong] * 9)
    reference = np.stack([right] * 30 + [wrong] * 8 + [right] * 3 + [wrong] * 9)
    pair = of("accuracy", candidate, labels), of("accuracy", reference, labels)
    # (8 - 3) / 52 -+ 1.959964 sqrt(12 - 5**2 / 52) / 52
    np.testing.assert_allclose(
        difference_interval(*pair, 50), (-0.031771, 0.224079), rtol=0, atol=1e-6
    )


def test_equal_decisions_leave_room_for_other_samples() -> None:
    first, _, labels = classes(np.random.default_rng(0), ROWS, 0)
    low, high = difference_interval(*[of("accuracy", first, labels)] * 2, ROWS)
    assert -0.03 < low < 0 < high < 0.03


def test_the_seed_decides() -> None:
    first, second, labels = reals(np.random.default_rng(0), ROWS, 0.5)
    pair = of("mae", second, labels), of("mae", first, labels)
    assert difference_interval(*pair, ROWS, 1) == difference_interval(*pair, ROWS, 1)
    assert difference_interval(*pair, ROWS, 1) != difference_interval(*pair, ROWS, 2)


def test_blocks_of_resamples_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, labels = reals(np.random.default_rng(0), ROWS, 0.5)
    pair = of("r2", second, labels), of("r2", first, labels)
    whole = difference_interval(*pair, ROWS)
    monkeypatch.setattr("modelpack.intervals._BLOCK", 7 * ROWS)
    np.testing.assert_allclose(difference_interval(*pair, ROWS), whole, rtol=1e-12, atol=0)


def test_decisions_of_one_sample_are_drawn_together() -> None:
    # Two steps a sample, always right or wrong together: 40 samples, not 80.
    rng = np.random.default_rng(0)
    single = [np.eye(2)[rng.integers(0, 2, 40)] for _ in range(2)]
    labels = np.zeros(40, np.int64)
    doubled = [np.stack([side, side], 1) for side in single]
    pair = [of("accuracy", side, np.stack([labels, labels], 1)) for side in doubled]
    low, high = difference_interval(pair[0], pair[1], 40)
    alone = difference_interval(*[of("accuracy", side, labels) for side in single], 40)
    np.testing.assert_allclose(high - low, alone[1] - alone[0], rtol=0.15, atol=0)
