"""What `validate` found, as plain values: what tables, JSON and reports are made from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from modelpack.manifest import Source
from modelpack.parity import ParityReport, TensorDiff, Verdict
from modelpack.signature import Signature
from modelpack.steps import Finding


@dataclass(frozen=True, slots=True)
class Score:
    """A metric of an artifact on labelled data, beside that of its reference.

    Attributes:
        metric: accuracy, f1, auc, mae or r2 (see `modelpack.metrics`).
        value: the artifact's.
        samples: how many samples it was measured on.
        compared_with: what the reference is, in words; empty if there is none.
        reference: the reference's value.
        low: lower end of the 95 % confidence interval of ``value - reference``.
        high: upper end of it.
    """

    metric: str
    value: float
    samples: int
    compared_with: str = ""
    reference: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What one call costs.

    Attributes:
        p50: median of the wall times of all calls, in milliseconds.
        p95: 95th percentile of them, likewise.
        calls: how many calls were timed.
        peak_memory: largest resident size, in bytes, of a process that only loads and runs
            this artifact: runtime included.
    """

    p50: float
    p95: float
    calls: int
    peak_memory: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many elements have an error of which size.

    Attributes:
        unit: what errors are divided by: ``noise floor``, ``tolerance`` or ``standard
            deviation`` (of the reference's output, for quantized artifacts).
        limit: largest accepted error in that unit; for quantized artifacts, of the root mean
            square of all errors.
        exact: elements without error.
        first: the first bar holds errors from ``2**first`` units on, and all smaller ones.
        counts: elements by error; each bar reaches twice as far as the one before.
        infinite: elements that are NaN or infinite on one side only.
    """

    unit: str
    limit: float
    exact: int = 0
    first: int = 0
    counts: tuple[int, ...] = ()
    infinite: int = 0


@dataclass(frozen=True, slots=True)
class KindError:
    """The largest error among the cases of one kind.

    Attributes:
        kind: what is special about their inputs; empty for typical ones.
        cases: how many there are.
        worst: largest error in units of the histogram.
    """

    kind: str
    cases: int
    worst: float


@dataclass(frozen=True, slots=True)
class Change:
    """How many decisions went from one class to another."""

    reference: str
    candidate: str
    count: int


@dataclass(frozen=True, slots=True)
class OutputDetails:
    """What stands behind the figures of one output.

    Attributes:
        name: the output.
        histogram: of its errors; None where it holds no real numbers.
        kinds: its largest errors by kind of case, likewise.
        changes: its changed decisions, ties included, most frequent first.
        changed: how many there are in all: ``changes`` holds the most frequent ones.
    """

    name: str
    histogram: Histogram | None = None
    kinds: tuple[KindError, ...] = ()
    changes: tuple[Change, ...] = ()
    changed: int = 0


@dataclass(frozen=True, slots=True)
class TensorError:
    """How far a tensor inside of an artifact is from its counterpart in the reference.

    Attributes:
        tensor: the artifact's.
        op: what computes it.
        reference: its counterpart.
        error: root mean square of the difference, over that of the counterpart.
    """

    tensor: str
    op: str
    reference: str
    error: float


@dataclass(frozen=True, slots=True)
class Departure:
    """Where inside of an artifact values stop to be the reference's.

    Attributes:
        tensor: the first tensor that departs.
        op: what computes it.
        node: name of that op, where it has one.
        reference: the reference's tensor, layer or step that it should equal.
        reference_op: what computes that.
        error: as of `TensorError`; None if one side is NaN or infinite where the other is not.
        error_before: the largest error among the tensors that it is computed from.
        confirmed: the artifact no longer failed when it was given the reference's value there.
        ops: every op between the last right tensors and this one: the fault is in one of them.
        inputs: those right tensors.
        curve: all tensors with a counterpart, in the order of computation.
        directory: that the reproduction was written to, as it was given.
        files: of the reproduction; empty if none was written.
    """

    tensor: str
    op: str
    node: str
    reference: str
    reference_op: str
    error: float | None
    error_before: float
    confirmed: bool
    ops: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    curve: tuple[TensorError, ...] = ()
    directory: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """What was found of one artifact.

    Attributes:
        path: as in the manifest, or the file's name.
        format: onnx, tflite, savedmodel, or a framework.
        precision: dtype of most weights.
        size: bytes; 0 when it is no file.
        parity: the comparison, or why there was none.
        structure: what each check before the comparison found, in their order.
        digest: as the manifest records it; empty without a manifest.
        signature: what it was run with.
        scores: metrics on labelled data, the main one first.
        bench: latency and memory; None unless asked for.
        details: what stands behind the comparison's figures; empty unless asked for.
        departure: where it went wrong; None unless asked for and found.
    """

    path: str
    format: str
    precision: str
    size: int
    parity: ParityReport
    structure: tuple[Finding, ...] = ()
    digest: str = ""
    signature: Signature | None = None
    scores: tuple[Score, ...] = ()
    bench: Bench | None = None
    details: tuple[OutputDetails, ...] = ()
    departure: Departure | None = None

    @property
    def verdict(self) -> Verdict:
        """Failed when the structure or the numbers do not hold, else the comparison's."""
        return self.parity.verdict if self.sound else Verdict.FAILED

    @property
    def sound(self) -> bool:
        """Whether every check of the structure holds."""
        return all(finding.ok for finding in self.structure)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not pass, one sentence each; empty when it did."""
        broken = (f"{item.name}: {item.detail}" for item in self.structure if not item.ok)
        return (*broken, *filter(None, [self.parity.reason]))


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """The results for every artifact. Truthy when none failed and at least one passed.

    Attributes:
        model: name of the file or directory.
        artifacts: one result for each.
        modelpack: the version that validated.
        source: what the artifacts were made from, as the manifest records it.
    """

    model: str
    artifacts: tuple[ArtifactResult, ...]
    modelpack: str = ""
    source: Source | None = None

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PASSED

    def titled(self) -> ValidationReport:
        """The report for people: paths of files that occur repeatedly tell the signature too."""
        paths = [item.path for item in self.artifacts]
        told = (
            replace(item, path=f"{item.path} ({item.signature.name})")
            if paths.count(item.path) > 1 and item.signature is not None
            else item
            for item in self.artifacts
        )
        return replace(self, artifacts=tuple(told))

    @property
    def failed(self) -> bool:
        """Whether any artifact failed."""
        return self.verdict is Verdict.FAILED

    @property
    def inconclusive(self) -> bool:
        """Whether none failed, but one was compared on answers that cannot tell."""
        return self.verdict is Verdict.INCONCLUSIVE

    @property
    def verdict(self) -> Verdict:
        """The worst: failed, then inconclusive; passed if any passed; else unverified."""
        found = {item.verdict for item in self.artifacts}
        for verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED):
            if verdict in found:
                return verdict
        return Verdict.UNVERIFIED


def holds(diff: TensorDiff, report: ParityReport) -> bool:
    """Whether one output is within what its report accepts.

    Quantized artifacts (those with an ``rms_limit``) are judged by the signal that is left,
    others element by element.
    """
    if report.rms_limit is None:
        return diff.mismatches == 0
    return diff.rms_rel <= report.rms_limit and math.isfinite(diff.max_abs)
