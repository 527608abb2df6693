"""Trials: a candidate is run on the evidence's feeds, and its answers are judged."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from modelpack.errors import ContractError, InputError, ModelpackError
from modelpack.golden import Evidence
from modelpack.judging import noise
from modelpack.judging.compare import Judgement, compare
from modelpack.judging.runs import answers_of, nudged_answers, signature_of, takes_empty
from modelpack.parity import ParityReport, Verdict
from modelpack.samples import EMPTY, Array, Case
from modelpack.sources import Opened, run_cases
from modelpack.steps import RunOptions
from modelpack.worker import WorkerPool

log = logging.getLogger(__name__)

# Of a candidate that failed by little there are more: how much a row is moved differs from row
# to row, and a few draws may miss it.
_OWN_NUDGES = range(1, 13)

# Of a large reference each case is run as often as those of small ones are, where it must be.
_NUDGES_OF_EACH = (1, 2, 3, 4)

# How much of that noise counts, as a share of the output's scale: more than what float32 undoes in
# sound pipelines, of which the worst known loses 2e-5 / 8 (a power transform before a projection).
_MOST_OWN = 2.0**-17

# How much of what float32 loses in a reference counts, as a share of the output's scale: more than
# a mean of equal numbers that is added up one by one. More would be another model.
_MOST_LOST = 2.0**-8

# Sees what a verdict was given on: the evidence that applied, the candidate's outputs for it
# (one case per feed), and how they were judged.
Witness = Callable[[Evidence, Sequence[Case], Judgement], None]


def tried(
    pool: WorkerPool,
    candidate: Opened,
    evidence: Evidence,
    judgement: Judgement,
    failure: type[ModelpackError] = ContractError,
    *,
    reference: Opened | None = None,
    witness: Witness | None = None,
) -> ParityReport:
    """Run a candidate on the evidence's feeds and judge its answers.

    Args:
        pool: the workers.
        candidate: what is judged.
        evidence: feeds, and the reference's answers with their noise floor.
        judgement: how to judge.
        failure: the error that stands for an unexpected exception of the candidate.
        reference: what gave the evidence's answers, if that is at hand.
        witness: called with what was compared, and how, once the verdict is settled.

    Raises:
        failure: it does not run on typical feeds.
    """
    kinds = evidence.kinds_of_cases
    if not takes_empty(candidate):
        evidence = evidence.chosen([i for i, kind in enumerate(kinds) if kind != EMPTY])
        kinds = evidence.kinds_of_cases
    answers, runtime = _candidate_answers(pool, candidate, evidence, failure)
    refused = [kind for kind, answer in zip(kinds, answers, strict=True) if answer is None]
    evidence = evidence.chosen([i for i, answer in enumerate(answers) if answer is not None])
    floors = noise.of_shares(evidence.noise, candidate.description.shares)
    evidence = replace(evidence, noise=floors)
    outputs = [answer for answer in answers if answer is not None]
    if EMPTY in refused:
        refused.remove(EMPTY)
        log.warning("%s takes no empty batch", candidate.ref.display)
    judgement = replace(judgement, runtime=runtime, reference=evidence.reference)
    report = compare(signature_of(candidate), evidence, outputs, judgement)
    for looking_closer in (_with_lost_digits, _with_noise_of_each):
        if report.verdict is Verdict.FAILED and reference is not None:
            evidence = looking_closer(pool, reference, evidence)
            report = compare(signature_of(candidate), evidence, outputs, judgement)
    if report.verdict is Verdict.FAILED and _may_be_own_noise(report):
        # float32 may undo what a reference in float64 does not show, such as a cancellation.
        evidence = _own_noise(pool, candidate, evidence, outputs)
        report = compare(signature_of(candidate), evidence, outputs, judgement)
    if witness is not None:
        witness(evidence, outputs, judgement)
    if not refused:
        return report
    reason = f"it refuses inputs that the reference takes: {', '.join(refused)}"
    reason = "; ".join(filter(None, [report.reason, reason]))
    return replace(report, verdict=Verdict.FAILED, reason=reason)


def _candidate_answers(
    pool: WorkerPool, candidate: Opened, evidence: Evidence, failure: type[ModelpackError]
) -> tuple[list[Case | None], str]:
    """Answers by case, None for edges that the candidate refuses, and what ran it.

    One run holds all; if the candidate refuses that, typical feeds are run first, then edges
    one by one.

    Raises:
        failure: it does not run on typical feeds.
    """
    answers: list[Case | None] = [None] * len(evidence.cases)
    runtime = ""
    waiting = [list(range(len(evidence.cases)))]
    while waiting:
        indices = waiting.pop(0)
        cases = [evidence.cases[index] for index in indices]
        kinds = {evidence.kinds_of_cases[index] for index in indices}
        try:
            found, result = run_cases(pool, candidate.ref, cases, failure=failure)
        except ModelpackError as error:
            if len(kinds) > 1:
                waiting = list(_alike(evidence))
                continue
            if "" in kinds:
                raise
            log.debug("inputs that are %s: %s", kinds, error)
            continue
        runtime = result.runtime
        for index, answer in zip(indices, found, strict=True):
            answers[index] = answer
    return answers, runtime


def _may_be_own_noise(report: ParityReport) -> bool:
    """Whether errors are so small that the candidate's own noise could account for them."""
    return report.noise_limit == noise.SAFETY and report.max_rel <= noise.SAFETY * _MOST_OWN


def _own_noise(
    pool: WorkerPool, candidate: Opened, evidence: Evidence, outputs: Sequence[Case]
) -> Evidence:
    """The evidence with the larger of both noise floors: the reference's and the candidate's."""
    variants = [nudged_answers(pool, candidate, evidence.cases, seed) for seed in _OWN_NUDGES]
    variants += _by_other_kernels(pool, candidate, evidence.cases)
    floors = [dict(case) for case in evidence.noise]
    for spec in signature_of(candidate).outputs:
        pairs = [(want[spec.name], have[spec.name]) for want, have in _both(evidence, outputs)]
        if not spec.dtype.is_float or any(want.shape != have.shape for want, have in pairs):
            continue
        own = noise.floor(
            [have for _, have in pairs],
            [[case[spec.name] for case in variant] for variant in variants],
        )
        for (want, _), found, case in zip(pairs, own, floors, strict=True):
            known = np.where(np.isfinite(found), found, 0.0)
            case[spec.name] = np.maximum(case[spec.name], np.minimum(known, _most_own(want)))
    return replace(evidence, noise=floors)


def _by_other_kernels(
    pool: WorkerPool, model: Opened, cases: Sequence[Case]
) -> Iterator[list[Case]]:
    """Answers of a model's runtime by two threads, and without its optimizations."""
    for options in (RunOptions(threads=2), RunOptions(runtime="plain")):
        with contextlib.suppress(InputError):
            yield run_cases(pool, model.ref, cases, options=options)[0]


def _with_lost_digits(pool: WorkerPool, reference: Opened, evidence: Evidence) -> Evidence:
    """The evidence with what float32 loses in the reference itself as a part of its noise."""
    if not evidence.noise:
        return evidence
    try:
        wide = answers_of(pool, reference, evidence.cases, RunOptions(wide=True))
    except InputError as error:
        log.debug("%s", error)
        return evidence
    floors = [dict(case) for case in evidence.noise]
    for case, answer, exact in zip(floors, evidence.outputs, wide, strict=True):
        for name, array in answer.items():
            if array.dtype.kind in "fV" and array.shape == exact[name].shape:
                found = noise.floor([array], [[_near(array, exact[name])]])[0]
                case[name] = np.maximum(case[name], found)
    return replace(evidence, noise=floors)


def _with_noise_of_each(pool: WorkerPool, reference: Opened, evidence: Evidence) -> Evidence:
    """The evidence with the noise of every case by itself: of a large model few were run."""
    if not evidence.noise or not reference.description.is_large:
        return evidence
    variants = [nudged_answers(pool, reference, evidence.cases, seed) for seed in _NUDGES_OF_EACH]
    variants += _by_other_kernels(pool, reference, evidence.cases)
    floors = [dict(case) for case in evidence.noise]
    for index, (case, answer) in enumerate(zip(floors, evidence.outputs, strict=True)):
        for name, array in answer.items():
            others = [variant[index][name] for variant in variants]
            if all(other.shape == array.shape for other in others):
                own = noise.floor([array], [[other] for other in others])[0]
                case[name] = np.maximum(case[name], own)
    return replace(evidence, noise=floors)


def _near(answer: Array, exact: Array) -> Array:
    """The exact answer where it may be what float32 has lost, and else the one that was given."""
    wide, other = answer.astype(np.float64), exact.astype(np.float64)
    size = np.abs(wide[np.isfinite(wide)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(other - wide) <= _MOST_LOST * size, other, wide)


def _both(evidence: Evidence, outputs: Sequence[Case]) -> Iterator[tuple[Case, Case]]:
    return zip(evidence.outputs, outputs, strict=True)


def _most_own(want: Array) -> float:
    """What counts of a candidate's own noise: one of chaotic answers must not excuse itself."""
    wide = want.astype(np.float64)
    return _MOST_OWN * float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0))


def _alike(evidence: Evidence) -> Iterator[list[int]]:
    """Typical cases together, and each of the others alone."""
    kinds = evidence.kinds_of_cases
    typical = [index for index, kind in enumerate(kinds) if not kind]
    if typical:
        yield typical
    for index, kind in enumerate(kinds):
        if kind:
            yield [index]
