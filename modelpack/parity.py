"""The verdict of a comparison between a reference and a candidate, as plain values.

The comparison itself, which needs NumPy, is in `modelpack.judging.compare`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a comparison concluded."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a candidate may be from its reference.

    An element passes when ``|candidate - reference| <= atol * scale + rtol * |reference|``,
    where ``scale`` is the largest finite magnitude in that reference output: an absolute
    tolerance in the units of the output, so that a model whose outputs are around 1e-6 is
    judged as strictly as one whose outputs are around 1e6.
    """

    rtol: float
    atol: float


@dataclass(frozen=True, slots=True)
class TensorDiff:
    """How one output differs, over all samples.

    Attributes:
        name: the output.
        max_abs: largest absolute difference, in the output's own units.
        max_rel: largest difference relative to the output's scale (see `Tolerance`).
        mean_abs: mean absolute difference.
        mean_rel: mean absolute difference relative to the output's scale.
        rms_rel: root mean square of the difference over the standard deviation of the
            reference (over its scale where it is constant): the inverse of the
            signal-to-quantization-noise ratio.
        max_noise: largest difference over the noise floor of its element (see
            `modelpack.judging.noise`); None where the floor is not known.
        max_ulp: largest difference in units in the last place of float32 at the reference.
        cosine: of the angle between both outputs as vectors.
        elements: how many elements were compared.
        mismatches: elements outside the tolerance, or unequal where equality is asked.
        ties: decisions that differ where the reference's own is within the tolerance, or
            moved with its last bits: either is right.
        thresholds: rows of real values that differ by a jump which the reference makes too
            when last bits change: they lie on a threshold (of a tree, say), and either side
            is right.
        flips: decisions that changed, ties aside: labels that differ, or rows whose largest
            element along the last axis is at another position.
        top_flips: rows in which the set of the five largest elements changed, ties aside.
        sign_flips: elements whose sign changed, although further from 0 than the tolerance.
    """

    name: str
    max_abs: float
    max_rel: float
    mean_abs: float
    rms_rel: float
    elements: int
    mismatches: int = 0
    ties: int = 0
    flips: int = 0
    mean_rel: float = 0.0
    max_noise: float | None = None
    max_ulp: float = 0.0
    cosine: float = 1.0
    top_flips: int = 0
    sign_flips: int = 0
    thresholds: int = 0


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The verdict with its evidence. Truthy only when it passed.

    Attributes:
        verdict: passed, failed, inconclusive (compared, but on answers that cannot tell
            right from wrong) or unverified (not compared).
        reference: what the candidate was compared with, in words ("keras source").
        runtime: what ran the candidate, with its version ("onnxruntime 1.31.1").
        tolerance: the fixed tolerance in force for each element, if one is.
        noise_limit: the largest accepted error in units of the noise floor, if that is what
            elements were judged by.
        rms_limit: the largest accepted ``rms_rel``, for quantized candidates; else None.
        cases: how many feeds (calls with one set of shapes) were compared.
        rows: how many samples those feeds held along their first axis.
        outputs: the figures, one entry per output.
        reason: why it did not pass; empty when it did.
    """

    verdict: Verdict
    reference: str = ""
    runtime: str = ""
    tolerance: Tolerance | None = None
    noise_limit: float | None = None
    rms_limit: float | None = None
    cases: int = 0
    rows: int = 0
    outputs: tuple[TensorDiff, ...] = ()
    reason: str = ""

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PASSED

    @property
    def max_rel(self) -> float:
        """The largest relative difference over all outputs; 0 when none was compared."""
        return max((diff.max_rel for diff in self.outputs), default=0.0)

    @property
    def max_noise(self) -> float | None:
        """The largest error in units of the noise floor; None where that is not known."""
        known = [diff.max_noise for diff in self.outputs if diff.max_noise is not None]
        return max(known, default=None)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference over all outputs; 0 when none was compared."""
        return max((diff.max_abs for diff in self.outputs), default=0.0)


def unverified(reason: str) -> ParityReport:
    """A report that says that, and why, nothing was compared."""
    return ParityReport(Verdict.UNVERIFIED, reason=reason)
