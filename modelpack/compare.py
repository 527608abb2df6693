"""Compares the outputs of a candidate with those of a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from modelpack.parity import ParityReport, TensorDiff, Tolerance, Verdict, unverified
from modelpack.samples import Array, Case
from modelpack.signature import DType, Meaning, Signature, TensorSpec

# Default tolerances by the precision of the candidate's weights; see `Tolerance` for the
# units. float32 has 2**-24 = 6e-8 relative rounding per operation; measured conversions of
# sound networks and pipelines stay within 1e-5 of the output's scale. float16 rounds at
# 2**-11 = 5e-4 per operation.
TOLERANCES = {
    "float64": Tolerance(rtol=1e-4, atol=1e-5),
    "float32": Tolerance(rtol=1e-4, atol=1e-5),
    "float16": Tolerance(rtol=1e-2, atol=1e-2),
    "bfloat16": Tolerance(rtol=5e-2, atol=5e-2),
}

# A quantized output may differ, by rounding of 8-bit weights, but must still carry the
# signal: its error's root mean square stays below this share of the output's standard
# deviation (a signal-to-noise ratio of 10.5 dB).
QUANTIZED_RMS_LIMIT = 0.3

_SIGNIFICANT = 3


def tolerance_for(
    precision: str, rtol: float | None = None, atol: float | None = None
) -> Tolerance:
    """The tolerance for a candidate of this precision, with the user's own figures first."""
    usual = TOLERANCES.get(precision, TOLERANCES["float32"])
    return Tolerance(usual.rtol if rtol is None else rtol, usual.atol if atol is None else atol)


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a comparison is to be judged.

    Attributes:
        tolerance: per element.
        quantized: judge by the signal that is left, not element by element.
        reference: the reference in words, for the report.
        runtime: what ran the candidate, for the report.
    """

    tolerance: Tolerance
    quantized: bool = False
    reference: str = ""
    runtime: str = ""


def judgement_for(
    precision: str, scheme: str, rtol: float | None = None, atol: float | None = None
) -> Judgement:
    """How to judge a candidate, by the dtype of its weights and its quantization scheme, if any.

    Explicit tolerances hold for every element, of an 8-bit candidate too.
    """
    eight_bit = "int8" in (scheme or precision)
    explicit = rtol is not None or atol is not None
    weights = "float16" if scheme == "float16" else precision
    return Judgement(tolerance_for(weights, rtol, atol), quantized=eight_bit and not explicit)


def compare(
    signature: Signature,
    reference: Sequence[Case],
    candidate: Sequence[Case],
    judgement: Judgement,
) -> ParityReport:
    """Compare the outputs of a signature case by case.

    Args:
        signature: its outputs say what is compared and what the values mean.
        reference: outputs of the reference, one case per feed.
        candidate: outputs of the candidate for the same feeds.
        judgement: how to judge.
    """
    diffs: list[TensorDiff] = []
    reasons: list[str] = []
    for spec in signature.outputs if reference else ():
        problem = _structure(spec, reference, candidate)
        if problem:
            reasons.append(problem)
            continue
        diff = _diff(spec, signature, reference, candidate, judgement.tolerance)
        if judgement.quantized and spec.dtype.is_float:
            diff = replace(diff, mismatches=0)  # single elements are not what is judged
        diffs.append(diff)
        reason = _judge(spec, diff, judgement)
        if reason:
            reasons.append(reason)
    if not reasons and not any(diff.elements for diff in diffs):
        return unverified("there was nothing to compare")
    return ParityReport(
        verdict=Verdict.FAILED if reasons else Verdict.PASSED,
        reference=judgement.reference,
        runtime=judgement.runtime,
        tolerance=None if judgement.quantized else judgement.tolerance,
        rms_limit=QUANTIZED_RMS_LIMIT if judgement.quantized else None,
        cases=len(reference),
        rows=sum(_rows(case) for case in reference),
        outputs=tuple(diffs),
        reason="; ".join(reasons),
    )


def _rows(case: Mapping[str, Array]) -> int:
    sizes = [array.shape[0] if array.ndim else 1 for array in case.values()]
    return max(sizes, default=0)


def _structure(spec: TensorSpec, reference: Sequence[Case], candidate: Sequence[Case]) -> str:
    for index, (want, have) in enumerate(zip(reference, candidate, strict=True)):
        if spec.name not in have:
            return f"output '{spec.name}' is missing"
        if want[spec.name].shape != have[spec.name].shape:
            return (
                f"output '{spec.name}' has shape {list(have[spec.name].shape)} where the "
                f"reference has {list(want[spec.name].shape)} (case {index})"
            )
        if have[spec.name].dtype.kind not in _kinds(spec.dtype):
            return f"output '{spec.name}' is {have[spec.name].dtype}, not {spec.dtype}"
    return ""


def _kinds(dtype: DType) -> str:
    """NumPy's kinds of arrays that hold a dtype; bfloat16 is a "void" to NumPy."""
    if dtype.is_float:
        return "fV"
    if dtype.is_integer:
        return "iu"
    return "b" if dtype is DType.BOOL else "OUST"


def _diff(
    spec: TensorSpec,
    signature: Signature,
    reference: Sequence[Case],
    candidate: Sequence[Case],
    tolerance: Tolerance,
) -> TensorDiff:
    if not spec.dtype.is_float:
        return _exact_diff(spec, signature, reference, candidate, tolerance)
    pairs = [
        (want[spec.name].astype(np.float64), have[spec.name].astype(np.float64))
        for want, have in zip(reference, candidate, strict=True)
    ]
    want = np.concatenate([pair[0].ravel() for pair in pairs])
    have = np.concatenate([pair[1].ravel() for pair in pairs])
    same = (want == have) | (np.isnan(want) & np.isnan(have))
    finite = np.isfinite(want) & np.isfinite(have)
    with np.errstate(invalid="ignore"):  # inf - inf, which the next line leaves out
        error = np.where(same, 0.0, np.where(finite, np.abs(want - have), np.inf))
    scale = _scale(want)
    allowed = tolerance.atol * scale + tolerance.rtol * np.abs(np.where(finite, want, 0.0))
    mismatches = int(np.count_nonzero(~same & ~(error <= allowed)))
    finite_error = error[finite | same]
    spread = _spread(want)
    rms = float(np.sqrt(np.mean(finite_error**2))) if finite_error.size else 0.0
    return TensorDiff(
        name=spec.name,
        max_abs=_rounded(float(error.max(initial=0.0))),
        max_rel=_rounded(_ratio(float(error.max(initial=0.0)), scale)),
        mean_abs=_rounded(float(error.mean()) if error.size else 0.0),
        rms_rel=_rounded(_ratio(rms, spread or scale)),
        elements=int(want.size),
        mismatches=mismatches,
        flips=sum(_flips(*pair, tolerance.atol * scale) for pair in pairs),
    )


def _spread(values: Array) -> float:
    """The standard deviation of the finite values, in units of the scale against overflow."""
    finite = values[np.isfinite(values)]
    scale = _scale(values)
    return float(np.std(finite / scale)) * scale if scale else 0.0


def _ratio(error: float, unit: float) -> float:
    """The error in units of the output; any error is infinite where the output is all zero."""
    if unit:
        return error / unit
    return float("inf") if error else 0.0


def _scale(values: Array) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0))


def _flips(want: Array, have: Array, gap: float) -> int:
    """Rows whose argmax moved although the reference's two best are further apart than ``gap``."""
    if want.ndim < 2 or want.shape[-1] < 2 or not want.size:
        return 0
    best = np.sort(np.nan_to_num(want), axis=-1)
    decided = best[..., -1] - best[..., -2] > gap
    return int(np.count_nonzero((want.argmax(-1) != have.argmax(-1)) & decided))


def _exact_diff(
    spec: TensorSpec,
    signature: Signature,
    reference: Sequence[Case],
    candidate: Sequence[Case],
    tolerance: Tolerance,
) -> TensorDiff:
    wrong = ties = elements = 0
    worst = total = 0.0
    for want, have in zip(reference, candidate, strict=True):
        differs = want[spec.name] != have[spec.name]
        elements += differs.size
        if spec.dtype.is_integer:
            distance = np.abs(
                want[spec.name].astype(np.float64) - have[spec.name].astype(np.float64)
            )
            worst = max(worst, float(distance.max(initial=0.0)))
            total += float(distance.sum())
        tied = _tied_rows(spec, signature, want, tolerance) if differs.any() else None
        if tied is not None and tied.shape == differs.shape:
            ties += int(np.count_nonzero(differs & tied))
            differs = differs & ~tied
        wrong += int(np.count_nonzero(differs))
    return TensorDiff(
        name=spec.name,
        max_abs=_rounded(worst),
        max_rel=_rounded(wrong / elements if elements else 0.0),
        mean_abs=_rounded(total / elements if elements else 0.0),
        rms_rel=0.0,
        elements=elements,
        mismatches=wrong,
        ties=ties,
        flips=wrong if spec.meaning is Meaning.LABEL else 0,
    )


def _tied_rows(
    spec: TensorSpec, signature: Signature, want: Case, tolerance: Tolerance
) -> Array | None:
    """Rows whose label was decided by less than the tolerance; None if that cannot be told."""
    if spec.meaning is not Meaning.LABEL:
        return None
    for other in signature.outputs:
        scores = want.get(other.name)
        if other.meaning not in {Meaning.PROBABILITIES, Meaning.SCORES} or scores is None:
            continue
        values = scores.astype(np.float64)
        gap = tolerance.atol * _scale(values)
        if values.ndim == 1 or values.shape[-1] == 1:
            tied: Array = np.abs(values.reshape(len(values))) <= gap
            return tied
        best = np.sort(values, axis=-1)
        tied = best[..., -1] - best[..., -2] <= gap
        return tied
    return None


def _judge(spec: TensorSpec, diff: TensorDiff, judgement: Judgement) -> str:
    if judgement.quantized:
        if spec.dtype.is_float and not diff.rms_rel <= QUANTIZED_RMS_LIMIT:
            return (
                f"output '{spec.name}' has an error of {diff.rms_rel:.2g} of its standard "
                f"deviation (limit {QUANTIZED_RMS_LIMIT})"
            )
        if spec.dtype.is_float and not np.isfinite(diff.max_abs):
            return f"output '{spec.name}' has NaN or infinity where the reference has not"
        return ""
    if diff.mismatches and not spec.dtype.is_float:
        return f"output '{spec.name}': {diff.mismatches} of {diff.elements} elements are not equal"
    if diff.mismatches:
        return (
            f"output '{spec.name}': {diff.mismatches} of {diff.elements} elements differ beyond "
            f"rtol {judgement.tolerance.rtol:g}, atol {judgement.tolerance.atol:g} of scale "
            f"(max abs {diff.max_abs:.3g}, max rel {diff.max_rel:.3g})"
            + ("" if np.isfinite(diff.max_abs) else "; NaN or infinity stands on one side only")
        )
    return ""


def _rounded(value: float) -> float:
    """Three significant digits: figures are for reading, and the rest is noise."""
    return float(f"{value:.{_SIGNIFICANT - 1}e}")
