"""The verdict of a comparison between a reference and a candidate, as plain values.

The comparison itself, which needs NumPy, is in `modelpack.compare`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a comparison concluded."""

    PASSED = "passed"
    FAILED = "failed"
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
        rms_rel: root mean square of the difference over the standard deviation of the
            reference (over its scale where it is constant): the inverse of the
            signal-to-quantization-noise ratio.
        elements: how many elements were compared.
        mismatches: elements outside the tolerance, or unequal where equality is asked.
        ties: label mismatches where the reference's own two best scores are equal within
            the tolerance: either label is right.
        flips: decisions that changed, ties aside: labels that differ, or rows whose largest
            element along the last axis is at another position.
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


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The verdict with its evidence. Truthy only when it passed.

    Attributes:
        verdict: passed, failed or unverified.
        reference: what the candidate was compared with, in words ("keras source").
        runtime: what ran the candidate, with its version ("onnxruntime 1.31.1").
        tolerance: the tolerance in force for each element; None when elements were not
            judged one by one.
        rms_limit: the largest accepted ``rms_rel``, for quantized candidates; else None.
        cases: how many feeds (calls with one set of shapes) were compared.
        rows: how many samples those feeds held along their first axis.
        outputs: the figures, one entry per output.
        reason: why it failed, or why it is unverified; empty when it passed.
    """

    verdict: Verdict
    reference: str = ""
    runtime: str = ""
    tolerance: Tolerance | None = None
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
    def max_abs(self) -> float:
        """The largest absolute difference over all outputs; 0 when none was compared."""
        return max((diff.max_abs for diff in self.outputs), default=0.0)


def unverified(reason: str) -> ParityReport:
    """A report that says that, and why, nothing was compared."""
    return ParityReport(Verdict.UNVERIFIED, reason=reason)
