"""What stands behind the figures of a comparison."""

from __future__ import annotations

import numpy as np

from modelpack.golden import Evidence
from modelpack.judging.compare import QUANTIZED_RMS_LIMIT, compare, judgement_for
from modelpack.judging.details import details_of
from modelpack.samples import Array
from modelpack.signature import DType, Meaning, Signature, TensorSpec
from modelpack.validation import Change

SPEC = TensorSpec("y", DType.FLOAT32, ("n", 3), classes=("a", "b", "c"))
SIGNATURE = Signature((), (SPEC,))
RNG = np.random.default_rng(0)


def evidence(*answers: Array, noise: float | None = 0.125, kinds: tuple[str, ...] = ()) -> Evidence:
    floors = [] if noise is None else [{"y": np.full(item.shape, noise)} for item in answers]
    outputs = [{"y": item} for item in answers]
    return Evidence([{}] * len(answers), outputs, "data", "it", floors, kinds)


def test_errors_are_counted_in_units_of_the_noise_floor() -> None:
    want = np.zeros((2, 3))
    have = np.array([[0.0, 0.125, 0.2], [1.0, -4.0, np.nan]])
    (found,) = details_of(SIGNATURE, evidence(want), [{"y": have}], judgement_for("float32"))
    histogram = found.histogram
    assert histogram is not None
    assert (histogram.unit, histogram.limit) == ("noise floor", 8.0)
    assert (histogram.exact, histogram.infinite) == (1, 1)
    # 1 and 1.6 units; 8 units; 32 units
    assert (histogram.first, histogram.counts) == (0, (2, 0, 0, 1, 0, 1))


def test_elements_beyond_the_limit_are_those_that_the_verdict_counts() -> None:
    want = RNG.normal(0, 1, (200, 3))
    have = want + RNG.normal(0, 0.5, want.shape)
    for noise, rtol in ((0.125, None), (None, None), (0.125, 0.1)):
        judgement = judgement_for("float32", rtol=rtol)
        given = evidence(want, noise=noise)
        (found,) = details_of(SIGNATURE, given, [{"y": have}], judgement)
        report = compare(SIGNATURE, given, [{"y": have}], judgement)
        histogram = found.histogram
        assert histogram is not None
        start = int(np.log2(histogram.limit)) - histogram.first  # the limits are powers of two
        assert sum(histogram.counts[max(start, 0) :]) == report.outputs[0].mismatches > 0


def test_quantized_outputs_are_measured_by_their_standard_deviation() -> None:
    want = RNG.normal(0, 4, (500, 3))
    (found,) = details_of(
        SIGNATURE,
        evidence(want),
        [{"y": want + 8 * want.std()}],
        judgement_for("float32", "static-int8"),
    )
    histogram = found.histogram
    assert histogram is not None
    assert (histogram.unit, histogram.limit) == (
        "standard deviation",
        QUANTIZED_RMS_LIMIT,
    )
    # Every element is 8 standard deviations off, but for rounding around a power of two.
    assert histogram.first in {2, 3}
    assert sum(histogram.counts) == 1500


def test_the_largest_error_is_kept_by_kind() -> None:
    answers = [np.zeros((1, 3)), np.zeros((2, 3)), np.zeros((1, 3))]
    have = [{"y": item + step} for item, step in zip(answers, (0.25, 0.5, 2.0), strict=True)]
    given = evidence(*answers, kinds=("", "", "tiny"))
    (found,) = details_of(SIGNATURE, given, have, judgement_for("float32"))
    assert [(item.kind, item.cases, item.worst) for item in found.kinds] == [
        ("", 2, 4.0),
        ("tiny", 1, 16.0),
    ]


def test_changed_decisions_are_counted_by_class() -> None:
    want = np.eye(3)[[0, 0, 1, 2, 2]]
    have = np.eye(3)[[0, 1, 2, 0, 0]]
    (found,) = details_of(SIGNATURE, evidence(want), [{"y": have}], judgement_for("float32"))
    assert found.changes == (Change("c", "a", 2), Change("a", "b", 1), Change("b", "c", 1))
    assert found.changed == 4


def test_labels_have_changes_and_no_errors() -> None:
    label = TensorSpec("y", DType.STRING, ("n",), meaning=Meaning.LABEL)
    want, have = np.array(["x", "y", "z"], object), np.array(["x", "z", "z"], object)
    given = Evidence([{}], [{"y": want}], "data", "it")
    (found,) = details_of(Signature((), (label,)), given, [{"y": have}], judgement_for("float32"))
    assert found.histogram is None
    assert found.changes == (Change("y", "z", 1),)


def test_outputs_of_another_shape_have_no_details() -> None:
    given = evidence(np.zeros((2, 3)))
    for have in ({"y": np.zeros((2, 4))}, {}, {"y": np.zeros((2, 3), object)}):
        assert details_of(SIGNATURE, given, [have], judgement_for("float32")) == ()
    assert details_of(SIGNATURE, evidence(), [], judgement_for("float32")) == ()


def test_empty_outputs_have_an_empty_histogram() -> None:
    (found,) = details_of(
        SIGNATURE, evidence(np.zeros((0, 3))), [{"y": np.zeros((0, 3))}], judgement_for("float32")
    )
    assert found.histogram is not None
    assert found.histogram.counts == ()
