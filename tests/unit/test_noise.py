from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelpack.judging.noise import ULP, flip_last_bits, floor, nudged

REALS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", REALS)
def test_flipping_last_bits_twice_gives_back_the_same_bytes(dtype: Any) -> None:
    array = np.random.default_rng(0).standard_normal(5000).astype(dtype)
    before = array.tobytes()
    flip_last_bits(array, seed=3)
    assert array.tobytes() != before
    flip_last_bits(array, seed=3)
    assert array.tobytes() == before


def test_a_flip_is_one_unit_in_the_last_place_of_half_of_the_numbers() -> None:
    array = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    changed = array.copy()
    flip_last_bits(changed, seed=1)
    distance = np.abs(changed.view(np.int32) - array.view(np.int32))
    assert set(distance) == {0, 1}
    assert 0.4 < distance.mean() < 0.6


@given(hnp.arrays(np.float32, st.integers(0, 50)))
def test_zeros_and_what_is_not_finite_stay(array: Any) -> None:
    special = (array == 0) | ~np.isfinite(array)
    changed = array.copy()
    flip_last_bits(changed, seed=1)
    np.testing.assert_array_equal(changed[special], array[special])
    inputs = nudged({"x": array}, 1)["x"]
    np.testing.assert_array_equal(inputs[special], array[special])


def test_integers_and_text_are_left_alone() -> None:
    case = {"i": np.arange(4), "s": np.array(["a", "b"], object), "b": np.array([True])}
    for name, array in nudged(case, 1).items():
        np.testing.assert_array_equal(array, case[name])


@pytest.mark.parametrize("dtype", REALS)
def test_every_input_moves_by_one_unit(dtype: Any) -> None:
    array = np.linspace(1, 2, 100, endpoint=False).astype(dtype)
    moved = nudged({"x": array}, 1)["x"]
    assert moved.dtype == array.dtype
    difference = np.abs(moved.astype(np.float64) - array.astype(np.float64))
    # Of float64 the rounding to float32 comes before.
    unit = 1.5 * 2.0**-23 if dtype is np.float64 else float(ml_dtypes.finfo(dtype).eps)
    assert (difference > 0).all()
    assert (difference <= unit).all()


def heterogeneous() -> tuple[list[Any], list[list[Any]]]:
    """Answers whose columns are of very different sizes, and three variants of them."""
    rng = np.random.default_rng(0)
    sizes = np.logspace(-6, 6, 10)
    answers = [rng.standard_normal((rows, 10)) * sizes for rows in (1, 2, 5, 8)]
    variants = [
        [answer + 1e-7 * sizes * rng.standard_normal(answer.shape) for answer in answers]
        for _ in range(3)
    ]
    return answers, variants


def test_the_floor_of_an_element_is_of_the_size_of_the_noise_in_its_column() -> None:
    answers, variants = heterogeneous()
    for found in floor(answers, variants):
        relative = found / (1e-7 * np.logspace(-6, 6, 10))
        assert (relative > 0.5).all()
        assert (relative < 6).all()


def test_no_element_is_held_to_be_exact_because_it_happened_to_stay() -> None:
    answers, variants = heterogeneous()
    for variant in variants:
        variant[3][2, 4] = answers[3][2, 4]
    assert floor(answers, variants)[3][2, 4] > 0.5e-7 * np.logspace(-6, 6, 10)[4]


def test_cases_that_no_variant_reached_get_what_is_usual() -> None:
    answers, variants = heterogeneous()
    found = floor(answers, [variant[:2] for variant in variants])
    assert (found[3] > 0).all()
    assert (found[3] < 1e-6 * np.logspace(-6, 6, 10)).all()


def test_a_jump_at_a_threshold_is_no_noise_of_other_rows() -> None:
    answers = [np.linspace(0, 1, 200).reshape(100, 2)]
    jumped = answers[0].copy()
    jumped[7] += 0.5
    found = floor(answers, [[jumped]])[0]
    assert (found[7] >= 0.5).all()
    assert found[np.arange(100) != 7].max() < 1e-5


def test_exact_answers_still_have_the_last_digit_of_their_magnitude() -> None:
    answers = [np.random.default_rng(0).standard_normal((8, 3)) * 100]
    found = floor(answers, [answers])[0]
    assert (found > 20 * ULP).all()
    assert (found < 500 * ULP).all()


def test_a_large_element_may_be_off_by_its_own_last_digit() -> None:
    answers = np.full((64, 2), 1e-3, np.float32)
    answers[7, 0] = 1000.0
    found = floor([answers], [[answers]])[0]
    assert found[7, 0] >= np.spacing(np.float32(1000.0)) / 2
    assert found[7, 1] < 1e-9


def test_the_largest_of_many_sound_errors_is_no_nearer_to_the_limit() -> None:
    def largest(rows: int, seed: int) -> float:
        rng = np.random.default_rng(seed)
        answers = rng.standard_normal((rows, 2)).astype(np.float32)
        noise = [[answers + rng.normal(0, 1e-5, answers.shape)] for _ in range(2)]
        error = np.abs(rng.normal(0, 1e-5, answers.shape))
        return float((error / floor([answers], noise)[0]).max())

    few = np.mean([largest(2_000, seed) for seed in range(20)])
    many = np.mean([largest(200_000, seed) for seed in range(5)])
    assert many < 1.1 * few


def test_of_labels_those_that_moved_are_undecided() -> None:
    answers = [np.array(["a", "b", "c"], object)]
    found = floor(answers, [[np.array(["a", "x", "c"], object)]])[0]
    np.testing.assert_array_equal(found, [0, np.inf, 0])


def test_probabilities_may_be_computed_as_one_less_the_others() -> None:
    small = np.array([[1e-12], [3e-12]])
    found = floor([np.hstack([small, 1 - small])], [])[0]
    assert (found >= ULP).all()


def test_outputs_without_columns_have_no_noise() -> None:
    answers = [np.zeros((9, 0), np.float32), np.zeros((1, 0), np.float32)]
    assert [found.shape for found in floor(answers, [answers])] == [(9, 0), (1, 0)]


def test_large_outputs_do_not_overflow_and_empty_ones_pass() -> None:
    answers = [np.full((8, 3), 1e300), np.zeros((0, 3))]
    found = floor(answers, [answers])
    assert np.isfinite(found[0]).all()
    assert found[1].shape == (0, 3)


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 10), ("bfloat16", 7)])
def test_what_computes_in_a_coarser_dtype_is_moved_by_a_unit_of_that(
    dtype: str, digits: int
) -> None:
    array = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    changed = array.copy()
    flip_last_bits(changed, 1, computes_in=dtype)
    narrow = np.dtype(getattr(ml_dtypes, dtype, dtype))
    steps = np.abs(
        changed.astype(narrow).view(np.int16).astype(int)
        - array.astype(narrow).view(np.int16).astype(int)
    )
    assert set(steps) == {0, 1}
    moved = nudged({"x": array}, 1, dtype)["x"]
    relative = np.abs(moved / array - 1)
    assert relative.max() <= 1.5 * 2.0**-digits
    assert relative.mean() > 2.0 ** -(digits + 3)


def test_what_a_coarser_dtype_has_as_zero_moves_by_its_least_number() -> None:
    array = np.array([1e-30, 0.0], np.float32)
    moved = nudged({"x": array}, 1, "float16")["x"]
    assert abs(moved[0]) == 2.0**-24
    assert moved[1] == 0
