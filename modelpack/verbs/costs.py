"""What quantizing costs: the float artifact's answers against the quantized one's, and the gate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modelpack import datasets, golden
from modelpack.artifact import Artifact, ModelRef, Quantization
from modelpack.errors import InputError, QuantizationError
from modelpack.golden import Evidence
from modelpack.judging.compare import GATED_RMS_LIMIT, QUANTIZED_RMS_LIMIT, compare, judgement_for
from modelpack.judging.runs import step_of
from modelpack.metrics import chance, drop, evaluate, metric_for
from modelpack.parity import ParityReport, Verdict, unverified
from modelpack.samples import Array, Case, generate
from modelpack.sources import run_cases
from modelpack.verbs.floats import Subject
from modelpack.worker import WorkerPool

if TYPE_CHECKING:
    from modelpack.verbs.quantize import QuantizeOptions

log = logging.getLogger(__name__)

COMMON_SAMPLES = "golden samples"
"""Origin of samples that the float artifact's manifest has."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What the quantized artifact is tried on: the float artifact's answers, and labels."""

    evidence: Evidence
    labels: Array | None = None


def trial_of(pool: WorkerPool, subject: Subject, options: QuantizeOptions) -> Trial:
    """Run the float artifact on the best inputs at hand: data, golden or generated samples.

    Raises:
        InputError: the data does not fit, or has no labels although a gate needs them.
    """
    ref = subject.opened.ref
    signature = ref.signature
    assert signature is not None
    labels = None
    data = options.data or options.calibration
    if data is not None:
        samples = datasets.read(data, signature)
        cases, labels, origin = samples.batches(), samples.labels, "data"
    elif subject.golden is not None:
        cases, origin = list(_golden_cases(subject)), COMMON_SAMPLES
    else:
        step = step_of(pool, subject.opened, options.seed)
        cases = generate(subject.opened.description, seed=options.seed, step=step)
        origin = "generated"
    if options.max_drop is not None and labels is None:
        raise InputError(
            "the data has no labels, which --max-drop needs",
            hint=f"add an array or column called {datasets.LABEL_NAMES[0]}",
        )
    cases = [*cases, *_real_samples(subject, options)]
    outputs = run_cases(pool, ref, cases)[0] if cases else []
    reference = f"float {ref.format} artifact on {origin}"
    return Trial(Evidence(cases, outputs, origin, reference), labels)


def _real_samples(subject: Subject, options: QuantizeOptions) -> Sequence[Case]:
    """Golden samples that are the user's data, to judge on more than the calibration data."""
    if options.data is not None or options.calibration is None:
        return []
    if subject.golden is None or subject.golden.origin != "data":
        return []
    return _golden_cases(subject)


def _golden_cases(subject: Subject) -> Sequence[Case]:
    """The golden samples that the float artifact can be fed."""
    manifest, artifact, entry = subject.manifest, subject.artifact, subject.golden
    assert manifest is not None
    assert artifact is not None
    assert entry is not None
    promised = manifest.signature(artifact.signature)
    kept = golden.read(entry, subject.root, promised)
    return kept.fitted_to(promised, artifact.fixed_dims).cases


def loss(
    pool: WorkerPool, product: ModelRef, trial: Trial, options: QuantizeOptions
) -> tuple[ParityReport, Sequence[Case]]:
    """Compare the quantized artifact with the float one; return its outputs too.

    Raises:
        QuantizationError: it does not run.
    """
    assert product.signature is not None
    evidence = trial.evidence
    if not evidence.cases:
        return unverified("no sample fits the artifact's fixed dimensions"), []
    log.info("comparing the quantized artifact with the float one")
    outputs, result = run_cases(pool, product, evidence.cases, failure=QuantizationError)
    judgement = replace(
        judgement_for("float32", options.scheme),
        rms_limit=QUANTIZED_RMS_LIMIT if options.max_drop is None else GATED_RMS_LIMIT,
        reference=evidence.reference,
        runtime=result.runtime,
    )
    return compare(product.signature, evidence, outputs, judgement), outputs


def metric_of(
    product: ModelRef, trial: Trial, outputs: Sequence[Case], options: QuantizeOptions
) -> Quantization:
    """The metric of both artifacts on labelled data; empty figures without labels.

    Raises:
        InputError: a gate is asked for, and the float artifact does no better than to guess.
    """
    blank = Quantization(options.scheme, "")
    signature = product.signature
    assert signature is not None
    if trial.labels is None or len(trial.labels) != _rows(trial):
        return blank
    metric = options.metric or metric_for(signature, trial.labels)
    before, after = (
        evaluate(metric, signature, answers, trial.labels)
        for answers in (trial.evidence.outputs, outputs)
    )
    _refuse_chance(metric, before, trial.labels, options)
    return replace(
        blank,
        metric=metric,
        reference_metric=round(before, 6),
        candidate_metric=round(after, 6),
    )


def _rows(trial: Trial) -> int:
    return sum(len(next(iter(case.values()))) for case in trial.evidence.cases)


def _refuse_chance(metric: str, value: float, labels: Array, options: QuantizeOptions) -> None:
    """Refuse a gate on labels that do not belong to the data: it would always be open."""
    guessed = chance(metric, labels)
    if options.max_drop is not None and guessed is not None and value <= guessed:
        raise InputError(
            f"the float artifact's own {metric} is {value:.4f}, no better than guessing "
            f"({guessed:.4f}): --max-drop would say nothing",
            hint="check that the labels belong to the samples",
        )


def gated(artifact: Artifact, before: Artifact | None, options: QuantizeOptions) -> Artifact:
    """The artifact with its verdict, failed where a gate closed."""
    report = artifact.parity
    if report.verdict is Verdict.FAILED:
        return artifact
    if before is not None and before.parity.verdict is Verdict.UNVERIFIED:
        reason = f"made from {before.path}, which is unverified: {before.parity.reason}"
        report = replace(report, verdict=Verdict.UNVERIFIED, reason=reason)
        artifact = replace(artifact, parity=report)
    lost = _lost(artifact, options)
    if not lost:
        return artifact
    return replace(artifact, parity=replace(report, verdict=Verdict.FAILED, reason=lost))


def _lost(artifact: Artifact, options: QuantizeOptions) -> str:
    """What the gate on the metric has to say; empty when it lets the artifact pass."""
    figures = artifact.quantization
    if figures is None or options.max_drop is None or figures.reference_metric is None:
        return ""
    assert figures.candidate_metric is not None
    lost = drop(figures.metric, figures.reference_metric, figures.candidate_metric)
    if lost <= options.max_drop:
        return ""
    return (
        f"{figures.metric} went from {figures.reference_metric:g} to "
        f"{figures.candidate_metric:g}, a loss of {lost:.4g}; {options.max_drop:g} is allowed"
    )
