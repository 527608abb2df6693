from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelpack.judging.compare import (
    QUANTIZED_RMS_LIMIT,
    TOLERANCES,
    Judgement,
    judgement_for,
    tolerance_for,
)
from modelpack.judging.noise import SAFETY
from modelpack.parity import ParityReport, Tolerance, Verdict, unverified
from modelpack.signature import DType, Meaning, Signature, TensorSpec
from tests.unit.judging import compare

RTOL, ATOL = 1e-4, 1e-5
EXACT_ENOUGH = Judgement(Tolerance(rtol=RTOL, atol=ATOL), reference="source", runtime="toy 1")
SCALES = [1e-6, 1.0, 1e6]


def outputs(*specs: TensorSpec) -> Signature:
    return Signature((), specs)


Y = outputs(TensorSpec("y", DType.FLOAT32, ("n", "m")))


def one(want: Any, have: Any, judgement: Judgement = EXACT_ENOUGH, it: Signature = Y) -> Any:
    return compare(it, [{"y": np.asarray(want)}], [{"y": np.asarray(have)}], judgement)


def values(scale: float = 1.0, shape: tuple[int, ...] = (8, 5)) -> np.ndarray[Any, Any]:
    array = np.random.default_rng(7).standard_normal(shape)
    return (array / np.abs(array).max() * scale).astype(np.float32)


# --- floats ---------------------------------------------------------------------------


def test_a_report_carries_its_evidence() -> None:
    cases = [{"y": values(shape=(1, 5))}, {"y": values(shape=(4, 5))}]
    report = compare(Y, cases, cases, EXACT_ENOUGH)
    assert report
    assert report.verdict is Verdict.PASSED
    assert (report.cases, report.rows, report.reason) == (2, 5, "")
    assert (report.reference, report.runtime) == ("source", "toy 1")
    assert report.tolerance == Tolerance(rtol=1e-4, atol=1e-5)
    assert report.outputs[0].elements == 25
    assert (report.max_abs, report.max_rel) == (0.0, 0.0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("position", [(0, 0), (3, 2), (7, 4)])
def test_one_wrong_element_fails_at_every_output_scale(
    scale: float, position: tuple[int, int]
) -> None:
    want = values(scale)
    have = want.copy()
    have[position] += 1e-3 * scale
    report = one(want, have)
    assert not report
    assert report.outputs[0].mismatches == 1
    assert "1 of 40 elements differ" in report.reason


@pytest.mark.parametrize("scale", SCALES)
def test_an_error_within_the_tolerance_passes_at_every_output_scale(scale: float) -> None:
    want = values(scale).astype(np.float64)
    assert one(want, want + 0.9 * ATOL * scale)


@pytest.mark.parametrize("scale", SCALES)
def test_the_relative_part_of_the_tolerance_follows_the_element(scale: float) -> None:
    want = values(scale).astype(np.float64)
    assert one(want, want * (1 + 0.9 * RTOL))
    assert not one(want, want * (1 + 1.5 * (RTOL + ATOL)))


@pytest.mark.parametrize("scale", SCALES)
def test_figures_are_relative_to_the_output_scale(scale: float) -> None:
    want = values(scale).astype(np.float64)
    have = want.copy()
    have[0, 0] += 0.5 * scale
    diff = one(want, have).outputs[0]
    np.testing.assert_allclose(diff.max_rel, 0.5, rtol=1e-2, atol=0)
    np.testing.assert_allclose(diff.max_abs, 0.5 * scale, rtol=1e-2, atol=0)
    np.testing.assert_allclose(diff.mean_abs, 0.5 * scale / 40, rtol=1e-2, atol=0)


def test_small_outputs_beside_large_ones_are_judged_by_their_own_scale() -> None:
    it = outputs(TensorSpec("big", DType.FLOAT32, ("n",)), TensorSpec("small", DType.FLOAT32))
    want = {"big": values(1e6, (4,)), "small": values(1e-6, (4,))}
    have = {"big": want["big"], "small": want["small"] * 2}
    report = compare(it, [want], [have], EXACT_ENOUGH)
    assert not report
    assert [diff.mismatches > 0 for diff in report.outputs] == [False, True]


@pytest.mark.parametrize(
    ("want", "have"),
    [
        (1.0, np.nan),
        (np.nan, 1.0),
        (np.nan, 0.0),
        (1.0, np.inf),
        (np.inf, 1.0),
        (np.inf, -np.inf),
        (np.inf, np.nan),
        (np.nan, -np.inf),
        (3e38, np.inf),
    ],
)
@pytest.mark.parametrize("quantized", [False, True])
def test_nan_and_infinity_only_equal_themselves(want: float, have: float, quantized: bool) -> None:
    left, right = values(), values()
    left[2, 2], right[2, 2] = want, have
    report = one(left, right, Judgement(Tolerance(rtol=1e9, atol=1e9), quantized=quantized))
    assert not report
    assert report.max_abs == np.inf


@pytest.mark.parametrize("same", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_in_both_places_pass(same: float) -> None:
    array = values()
    array[1] = same
    report = one(array, array.copy())
    assert report
    assert report.max_abs == 0


def test_infinity_does_not_widen_the_tolerance_of_other_elements() -> None:
    want = values()
    want[0, 0] = np.inf
    have = want.copy()
    have[3, 3] += 0.01
    assert not one(want, have)


def test_swapped_columns_fail_and_count_as_flips() -> None:
    want = values()
    report = one(want, want[:, [1, 0, 2, 3, 4]])
    assert not report
    assert report.outputs[0].flips == np.count_nonzero(want.argmax(-1) < 2) > 0


def test_swapped_rows_fail() -> None:
    want = values()
    assert not one(want, want[::-1])


def test_outputs_of_the_same_shape_that_are_swapped_fail() -> None:
    it = outputs(TensorSpec("a", DType.FLOAT32), TensorSpec("b", DType.FLOAT32))
    a, b = values(), values() * 2
    assert not compare(it, [{"a": a, "b": b}], [{"a": b, "b": a}], EXACT_ENOUGH)


def test_cases_in_another_order_fail() -> None:
    cases = [{"y": values()}, {"y": values() * 3}]
    assert not compare(Y, cases, cases[::-1], EXACT_ENOUGH)


def test_a_fault_in_the_last_of_many_cases_is_found() -> None:
    cases = [{"y": values(shape=(rows, 3))} for rows in (1, 2, 5, 16)]
    faulty = [*cases[:3], {"y": cases[3]["y"] * 1.01}]
    report = compare(Y, cases, faulty, EXACT_ENOUGH)
    assert not report
    assert (report.cases, report.rows) == (4, 24)


@pytest.mark.parametrize("dtype", ["int64", "bool", "object", "str"])
def test_a_float_output_of_another_kind_fails_although_values_agree(dtype: str) -> None:
    want = np.ones((2, 2), np.float32)
    report = one(want, want.astype(dtype))
    assert not report
    assert "not float32" in report.reason


@pytest.mark.parametrize("shape", [(5, 8), (40,), (8, 5, 1), (1, 5), (8, 1)])
def test_another_shape_fails_although_values_would_broadcast(shape: tuple[int, ...]) -> None:
    report = one(np.ones((8, 5), np.float32), np.ones(shape, np.float32))
    assert not report
    assert f"has shape {list(shape)} where the reference has [8, 5] (case 0)" in report.reason


def test_a_missing_output_fails() -> None:
    report = compare(Y, [{"y": values()}], [{"z": values()}], EXACT_ENOUGH)
    assert not report
    assert report.reason == "output 'y' is missing"


def test_every_failing_output_is_in_the_reason() -> None:
    it = outputs(TensorSpec("a", DType.FLOAT32), TensorSpec("b", DType.FLOAT32))
    report = compare(it, [{"a": values(), "b": values()}], [{"a": values() + 1}], EXACT_ENOUGH)
    assert "'a'" in report.reason
    assert "'b' is missing" in report.reason


def test_a_constant_zero_output_must_be_zero() -> None:
    zeros = np.zeros((3, 3), np.float32)
    assert one(zeros, zeros).verdict is Verdict.INCONCLUSIVE
    assert one(zeros, zeros + np.float32(1e-30)).verdict is Verdict.FAILED


def test_bfloat16_outputs_are_compared_as_numbers() -> None:
    want = values().astype(ml_dtypes.bfloat16)
    have = want.copy()
    have[0, 0] += 1
    it = outputs(TensorSpec("y", DType.BFLOAT16, ("n", "m")))
    judgement = Judgement(tolerance_for("bfloat16"))
    assert one(want, want.copy(), judgement, it)
    assert not one(want, have, judgement, it)


FLOATS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@given(FLOATS, st.sampled_from(SCALES), st.booleans())
def test_identical_arrays_never_fail(array: Any, scale: float, quantized: bool) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        array = array * array.dtype.type(scale)
    report = one(array, array.copy(), Judgement(Tolerance(rtol=0, atol=0), quantized=quantized))
    rows_differ = array.ndim == 0 or any((row != array[0]).any() for row in array[1:])
    if not array.size:
        assert report.verdict is Verdict.UNVERIFIED
    elif array.ndim == 0 or len(array) == 1 or not np.isfinite(array).all():
        assert report.verdict is not Verdict.FAILED
    else:
        assert report.verdict is (Verdict.PASSED if rows_differ else Verdict.INCONCLUSIVE)
    assert (report.max_abs, report.max_rel) == (0, 0)
    assert all(diff.flips == 0 for diff in report.outputs)


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(max_dims=3, max_side=4),
        elements=st.floats(-1e6, 1e6, allow_subnormal=False),
    ),
    st.sampled_from([1e-12, 1e-6, 1.0, 1e6]),
    st.floats(1.01, 1e6),
    st.sampled_from([-1, 1]),
    st.data(),
)
def test_a_perturbation_beyond_the_tolerance_always_fails(
    array: Any, scale: float, factor: float, sign: int, data: st.DataObject
) -> None:
    want = array * scale
    place = tuple(data.draw(st.integers(0, size - 1)) for size in want.shape)
    allowed = ATOL * np.abs(want).max() + RTOL * abs(want[place])
    assume(allowed == 0 or allowed > 1e-300)
    have = want.copy()
    have[place] += sign * max(factor * allowed, 1e-300)
    report = one(want, have)
    assert not report
    assert report.outputs[0].mismatches == 1


# --- flips ----------------------------------------------------------------------------


def test_a_decision_that_moves_between_equal_scores_is_no_flip() -> None:
    want = np.array([[0.5, 0.5, 0.0], [0.2, 0.1, 0.7]], np.float32)
    have = want + np.array([[-1e-6, 1e-6, 0], [0, 0, 0]], np.float32)
    report = one(want, have)
    assert report
    assert report.outputs[0].flips == 0


def test_a_decision_that_moves_between_distinct_scores_is_a_flip() -> None:
    want = np.array([[0.5, 0.4], [0.1, 0.9]], np.float32)
    have = np.array([[0.4, 0.5], [0.1, 0.9]], np.float32)
    assert one(want, have).outputs[0].flips == 1


@pytest.mark.parametrize("shape", [(), (4,), (4, 1), (1, 1, 1)])
def test_there_are_no_flips_where_there_is_no_choice(shape: tuple[int, ...]) -> None:
    assert one(np.ones(shape), np.zeros(shape)).outputs[0].flips == 0


# --- labels and other exact outputs ---------------------------------------------------


def classifier(dtype: DType, meaning: Meaning = Meaning.PROBABILITIES) -> Signature:
    return outputs(
        TensorSpec("label", dtype, ("n",), meaning=Meaning.LABEL),
        TensorSpec("p", DType.FLOAT32, ("n", 2), meaning=meaning),
    )


def judged(it: Signature, want: Any, have: Any, scores: Any) -> ParityReport:
    p = np.asarray(scores, np.float32)
    return compare(
        it,
        [{"label": np.asarray(want), "p": p}],
        [{"label": np.asarray(have), "p": p}],
        EXACT_ENOUGH,
    )


def test_a_label_that_differs_where_the_scores_are_tied_passes_and_is_counted() -> None:
    report = judged(classifier(DType.INT64), [0, 1], [1, 1], [[0.5, 0.5], [0.1, 0.9]])
    assert report
    assert (report.outputs[0].ties, report.outputs[0].flips) == (1, 0)


def test_a_label_that_differs_where_the_scores_are_clear_fails() -> None:
    report = judged(classifier(DType.INT64), [0, 1], [1, 1], [[0.6, 0.4], [0.1, 0.9]])
    assert not report
    assert (report.outputs[0].mismatches, report.outputs[0].flips) == (1, 1)


def test_a_tie_excuses_only_its_own_row() -> None:
    scores = [[0.5, 0.5], [0.1, 0.9], [0.5, 0.5]]
    report = judged(classifier(DType.INT64), [0, 1, 0], [1, 0, 0], scores)
    assert not report
    assert (report.outputs[0].ties, report.outputs[0].mismatches) == (1, 1)


def test_rows_that_jump_as_the_reference_does_are_counted_apart_from_errors() -> None:
    """Row 1 lies on a threshold and came out on the other side, row 3 lies on one and did not."""
    it = outputs(TensorSpec("y", DType.FLOAT32, ("n", 2)))
    want = np.arange(200, dtype=np.float32).reshape(100, 2)
    noise = np.full((100, 2), 1e-5)
    noise[1, 0] = noise[3] = 4.0
    have = want + np.float32(1e-5)
    have[1, 0] += 4.0
    case = [{"y": want}], [{"y": have}]
    report = compare(it, *case, EXACT_ENOUGH, noise=[{"y": noise}])
    assert report
    assert (report.outputs[0].thresholds, report.outputs[0].mismatches) == (1, 0)
    have[2, 0] += 4.0
    report = compare(it, *case, EXACT_ENOUGH, noise=[{"y": noise}])
    assert (report.outputs[0].thresholds, report.outputs[0].mismatches) == (1, 1)


def test_a_binary_decision_value_is_tied_at_zero() -> None:
    it = outputs(
        TensorSpec("label", DType.INT64, ("n",), meaning=Meaning.LABEL),
        TensorSpec("p", DType.FLOAT32, ("n",), meaning=Meaning.SCORES),
    )
    assert judged(it, [0, 1], [1, 1], [1e-7, 1.0])
    assert not judged(it, [0, 1], [1, 1], [-0.5, 1.0])


def test_scores_without_a_meaning_excuse_nothing() -> None:
    it = outputs(
        TensorSpec("label", DType.INT64, ("n",), meaning=Meaning.LABEL),
        TensorSpec("p", DType.FLOAT32, ("n", 2)),
    )
    assert not judged(it, [0, 1], [1, 1], [[0.5, 0.5], [0.1, 0.9]])


def test_an_integer_output_that_is_no_label_has_no_ties() -> None:
    it = outputs(
        TensorSpec("label", DType.INT64, ("n",)),
        TensorSpec("p", DType.FLOAT32, ("n", 2), meaning=Meaning.PROBABILITIES),
    )
    report = judged(it, [0, 1], [1, 1], [[0.5, 0.5], [0.1, 0.9]])
    assert not report
    assert report.outputs[0].flips == 0


def test_string_labels_are_compared_as_text() -> None:
    it = classifier(DType.STRING)
    scores = [[0.9, 0.1], [0.1, 0.9]]
    cat, dog = (np.array(words, object) for words in (["cat", "dog"], ["cat", "Dog"]))
    assert judged(it, cat, cat.astype("U"), scores)
    report = judged(it, cat, dog, scores)
    assert not report
    assert report.outputs[0].flips == 1


def test_string_labels_in_place_of_numbers_fail() -> None:
    scores = [[0.9, 0.1], [0.1, 0.9]]
    names = np.array(["1", "2"], object)
    assert not judged(classifier(DType.STRING), names, np.array([1, 2]), scores)


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "bool"])
def test_exact_outputs_allow_no_difference_at_all(dtype: str) -> None:
    it = outputs(TensorSpec("y", DType(dtype), ("n",)))
    want = np.array([1, 0, 1], dtype)
    have = np.array([1, 1, 1], dtype)
    loose = Judgement(Tolerance(rtol=10.0, atol=10.0))
    assert one(want, want.copy(), loose, it)
    report = one(want, have, loose, it)
    assert not report
    assert (report.outputs[0].mismatches, report.outputs[0].elements) == (1, 3)


def test_the_distance_of_small_unsigned_integers_does_not_wrap() -> None:
    it = outputs(TensorSpec("y", DType.UINT8, ("n",)))
    report = one(np.array([0], np.uint8), np.array([255], np.uint8), EXACT_ENOUGH, it)
    assert report.max_abs == 255


def test_large_integers_that_differ_by_one_fail() -> None:
    it = outputs(TensorSpec("y", DType.INT64, ("n",)))
    assert not one(np.array([2**62]), np.array([2**62 + 1]), EXACT_ENOUGH, it)


@given(hnp.arrays(st.sampled_from(["int32", "uint64", "bool", "<U3"]), st.integers(1, 5)))
def test_identical_exact_outputs_never_fail(array: Any) -> None:
    dtype = DType.STRING if array.dtype.kind == "U" else DType(array.dtype.name)
    spec = TensorSpec("y", dtype, ("n",), meaning=Meaning.LABEL)
    tells = len(array) == 1 or (array != array[0]).any()
    verdict = one(array, array.copy(), EXACT_ENOUGH, outputs(spec)).verdict
    assert verdict is (Verdict.PASSED if tells else Verdict.INCONCLUSIVE)


# --- quantized ------------------------------------------------------------------------

QUANTIZED = Judgement(Tolerance(rtol=1e-4, atol=1e-5), quantized=True)


@pytest.mark.parametrize("scale", SCALES)
def test_a_quantized_output_passes_while_its_signal_is_left(scale: float) -> None:
    want = values(scale, (50, 4)).astype(np.float64)
    noise = np.random.default_rng(3).standard_normal(want.shape)
    noise *= np.std(want) / np.sqrt(np.mean(noise**2))
    passed = one(want, want + 0.9 * QUANTIZED_RMS_LIMIT * noise, QUANTIZED)
    failed = one(want, want + 1.1 * QUANTIZED_RMS_LIMIT * noise, QUANTIZED)
    assert passed
    assert not failed
    np.testing.assert_allclose(
        passed.outputs[0].rms_rel, 0.9 * QUANTIZED_RMS_LIMIT, rtol=1e-2, atol=0
    )
    assert "of its standard deviation" in failed.reason


@pytest.mark.parametrize("damage", [np.zeros_like, np.negative, lambda a: a[:, ::-1]])
def test_a_quantized_output_without_the_signal_fails(damage: Any) -> None:
    want = values(shape=(50, 4))
    assert not one(want, damage(want), QUANTIZED)


def test_a_quantized_constant_output_fails_when_the_reference_is_not_constant() -> None:
    want = values(shape=(50, 4)) + 10
    assert not one(want, np.full_like(want, want.mean()), QUANTIZED)


def test_a_quantized_shape_is_still_checked() -> None:
    assert not one(values(), values().ravel(), QUANTIZED)


# --- tolerances and reports -----------------------------------------------------------


def test_user_figures_come_before_the_usual_ones() -> None:
    assert tolerance_for("float32") == Tolerance(rtol=1e-4, atol=1e-5)
    assert tolerance_for("float16", rtol=0.5) == Tolerance(rtol=0.5, atol=1e-2)
    assert tolerance_for("float16", atol=0.0) == Tolerance(rtol=1e-2, atol=0.0)
    assert tolerance_for("int8") == TOLERANCES["float32"]


def test_only_a_passed_report_is_true() -> None:
    assert ParityReport(Verdict.PASSED)
    assert not ParityReport(Verdict.FAILED)
    assert not unverified("why")
    assert unverified("why").reason == "why"


# --- noise and what tells ---------------------------------------------------------------


def by_noise(want: Any, have: Any, noise: Any, judgement: Judgement = EXACT_ENOUGH) -> ParityReport:
    return compare(Y, [{"y": want}], [{"y": have}], judgement, [{"y": noise}])


def test_an_element_may_be_as_far_off_as_its_own_noise_allows() -> None:
    want = values()
    noise = np.full(want.shape, 1e-7)
    noise[0, 0] = 1e-3
    have = want.astype(np.float64)
    have[0, 0] += 7.9e-3
    report = by_noise(want, have, noise)
    assert report
    assert report.noise_limit == SAFETY
    assert report.tolerance is None
    np.testing.assert_allclose(report.max_noise, 7.9, rtol=1e-2, atol=0)
    have[1, 1] += 8.5e-7
    report = by_noise(want, have, noise)
    assert report.verdict is Verdict.FAILED
    assert report.outputs[0].mismatches == 1
    assert "8 times the noise floor" in report.reason


def test_an_explicit_tolerance_replaces_the_noise_floor() -> None:
    want, noise = values(), np.full((8, 5), 1e-12)
    asked = judgement_for("float32", rtol=0.0, atol=1e-2)
    assert by_noise(want, want + np.float32(5e-3), noise, asked)
    assert not by_noise(want, want + np.float32(5e-3), noise)


@pytest.mark.parametrize(("precision", "roundoff"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_a_coarser_candidate_may_be_off_by_its_own_roundoff(
    precision: str, roundoff: float
) -> None:
    judgement = judgement_for(precision)
    assert judgement.noise_limit == SAFETY * roundoff / 2.0**-24
    assert judgement_for(precision, reference=precision).noise_limit == SAFETY


@pytest.mark.parametrize("constant", [1.0, 1e-3])
def test_answers_that_do_not_depend_on_the_input_are_inconclusive(constant: float) -> None:
    rng = np.random.default_rng(0)
    want = constant + 1e-9 * rng.standard_normal((8, 5))
    report = by_noise(want, want, np.full(want.shape, 1e-8))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "'y' hardly depends on these inputs" in report.reason
    assert not report


def test_answers_that_barely_vary_but_are_exact_do_tell() -> None:
    rng = np.random.default_rng(0)
    want = 1e-3 + 1e-6 * rng.standard_normal((8, 5))
    assert by_noise(want, want, np.full(want.shape, 1e-10))


def test_a_label_need_not_vary_where_its_scores_do() -> None:
    it = outputs(
        TensorSpec("label", DType.INT64, ("n",), meaning=Meaning.LABEL),
        TensorSpec("scores", DType.FLOAT32, ("n", "k"), meaning=Meaning.SCORES),
    )
    case = {"label": np.zeros(8, np.int64), "scores": values()}
    assert compare(it, [case], [case], EXACT_ENOUGH)
    alone = {"label": case["label"], "scores": np.zeros_like(case["scores"])}
    assert compare(it, [alone], [alone], EXACT_ENOUGH).verdict is Verdict.INCONCLUSIVE


def test_a_label_that_moves_with_the_last_bits_is_a_tie() -> None:
    it = outputs(TensorSpec("label", DType.INT64, ("n",), meaning=Meaning.LABEL))
    want, have = {"label": np.array([0, 1, 2])}, {"label": np.array([0, 1, 1])}
    undecided = [{"label": np.array([0, 0, np.inf])}]
    report = compare(it, [want], [have], EXACT_ENOUGH, undecided)
    assert report
    assert (report.outputs[0].ties, report.outputs[0].flips) == (1, 0)
    assert not compare(it, [want], [have], EXACT_ENOUGH, [{"label": np.zeros(3)}])


def test_the_kind_of_input_that_goes_wrong_is_named() -> None:
    want = [{"y": values()}, {"y": values()}]
    have = [want[0], {"y": want[1]["y"] + 1}]
    report = compare(Y, want, have, EXACT_ENOUGH, kinds=["", "zero"])
    assert "only for inputs that are: zero" in report.reason


def test_figures_of_direction_and_sign() -> None:
    want = values()
    diff = one(want, -want).outputs[0]
    assert diff.cosine == pytest.approx(-1, rel=0, abs=1e-6)
    assert diff.sign_flips == np.count_nonzero(want)
    nudged = np.nextafter(want, np.float32(np.inf))
    assert one(want, nudged).outputs[0].max_ulp == 1.0


def test_a_model_whose_last_bits_decide_fails_although_nothing_differs() -> None:
    want = values()
    report = by_noise(want, want, np.full(want.shape, 1.0))
    assert report.verdict is Verdict.FAILED
    assert "more digits" in report.reason
    it = outputs(TensorSpec("label", DType.INT64, ("n",), meaning=Meaning.LABEL))
    case = {"label": np.arange(4)}
    undecided = [{"label": np.array([np.inf, np.inf, np.inf, 0])}]
    assert compare(it, [case], [case], EXACT_ENOUGH, undecided).verdict is Verdict.FAILED
