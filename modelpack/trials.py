"""Trials: what artifacts are compared on, with the reference's noise floor, and the comparison."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from modelpack import noise
from modelpack.compare import Judgement, compare
from modelpack.errors import ContractError, InputError, ModelpackError
from modelpack.golden import Evidence
from modelpack.parity import ParityReport, Verdict
from modelpack.samples import EMPTY, Array, Case, batch_dim, edges, generate, narrowed
from modelpack.signature import Signature
from modelpack.sources import Opened, run_cases
from modelpack.steps import RunOptions
from modelpack.worker import WorkerPool

log = logging.getLogger(__name__)

# Changes of the last bits that are tried. Each is one draw; more would find the noise of a
# single element better, which the pooling of elements does at no cost.
_NUDGES = (1, 2, 3)

# Of a candidate that failed by little there are more: how much a row is moved differs from row
# to row, and a few draws may miss it.
_OWN_NUDGES = range(1, 13)

# How much of that noise counts, as a share of the output's scale: more than what float32 undoes in
# sound pipelines, of which the worst known loses 2e-5 / 8 (a power transform before a projection).
_MOST_OWN = 2.0**-17

# Variants of a large model are run on the first cases only: the floor of the others is what is
# usual in those.
_CASES_OF_LARGE = 2

# LiteRT has no tensors without elements, and ONNX Runtime's recurrent kernels end the process.
_NEVER_EMPTY = {"tflite", "onnx"}

# A variant that moves answers this many times as far as last bits do has changed more than
# rounding: the rows of a batch depend on each other, say.
_NO_ROUNDING = 100.0


def evidence_of(
    pool: WorkerPool, source: Opened, cases: Sequence[Case], origin: str, reference: str = ""
) -> Evidence:
    """The source's answers to typical feeds, and their noise floor.

    Raises:
        InputError: the source does not take a feed.
    """
    reference = reference or f"{source.ref.format} source"
    log.info("running %s on %d cases", source.ref.display, len(cases))
    answers = _answers(pool, source, cases, RunOptions())
    found = _Variants(pool, source, cases, answers)
    return Evidence(
        [narrowed(case, _signature(source)) for case in cases],
        answers,
        origin,
        reference,
        noise=found.floors(),
    )


def edge_evidence(pool: WorkerPool, source: Opened, seed: int) -> Evidence:
    """The source's answers to feeds at the edges of what it takes.

    A feed that the source refuses, or answers with NaN, is outside of what it takes: what
    becomes of it is not defined, and kernels do differ in it.
    """
    kinds: list[str] = []
    cases: list[Case] = []
    answers: list[Case] = []
    found_edges = [
        (kind, case)
        for kind, case in edges(source.description, seed=seed)
        if kind != EMPTY or source.ref.format not in _NEVER_EMPTY
    ]
    given = _answers_if_any(pool, source, [case for _, case in found_edges])
    for (kind, case), answer in zip(found_edges, given, strict=True):
        if answer is not None and not _undefined(case, answer):
            kinds.append(kind)
            cases.append(case)
            answers.append(answer)
    found = _Variants(pool, source, cases, answers, quick=True)
    return Evidence(
        [narrowed(case, _signature(source)) for case in cases],
        answers,
        "generated",
        f"{source.ref.format} source",
        noise=found.floors(),
        kinds=kinds,
    )


def generated(pool: WorkerPool, source: Opened, seed: int) -> Evidence:
    """Evidence on generated samples: wide ones, or usual ones if the source refuses them."""
    try:
        return evidence_of(pool, source, generate(source.description, seed=seed), "generated")
    except InputError:
        cautious = generate(source.description, seed=seed, cautious=True)
        return evidence_of(pool, source, cautious, "generated")


def _signature(source: Opened) -> Signature:
    assert source.ref.signature is not None
    return source.ref.signature


def _answers(
    pool: WorkerPool, source: Opened, cases: Sequence[Case], options: RunOptions
) -> list[Case]:
    """Run a reference; one that computes in float64 is given every digit of the feeds."""
    if not source.description.computes_in_float64:
        cases = [narrowed(case, _signature(source)) for case in cases]
    return run_cases(pool, source.ref, cases, options=options)[0]


def _nudged(pool: WorkerPool, model: Opened, cases: Sequence[Case], seed: int) -> list[Case]:
    """Answers with the last bits of the inputs changed, and of the weights where they can be."""
    cases = [noise.nudged(case, seed) for case in cases]
    try:
        return _answers(pool, model, cases, RunOptions(nudge=seed))
    except InputError:
        return _answers(pool, model, cases, RunOptions())


def _answers_if_any(pool: WorkerPool, source: Opened, cases: Sequence[Case]) -> list[Case | None]:
    """Answers in one run, or, where a feed is refused, one by one and None for that."""
    if not cases:
        return []
    try:
        return list(_answers(pool, source, cases, RunOptions()))
    except InputError:
        if len(cases) == 1:
            return [None]
    return [_answers_if_any(pool, source, [case])[0] for case in cases]


def _undefined(case: Case, answer: Case) -> bool:
    asked = any(array.dtype.kind == "f" and np.isnan(array).any() for array in case.values())
    return not asked and any(
        array.dtype.kind in "fV" and np.isnan(array.astype(np.float64)).any()
        for array in answer.values()
    )


class _Variants:
    """The reference's answers under changes that must not matter.

    Args:
        pool: the workers.
        source: the reference.
        cases: the feeds.
        answers: of the reference, for each of them.
        quick: few variants, and each case for itself: they are not of one kind.
    """

    def __init__(
        self,
        pool: WorkerPool,
        source: Opened,
        cases: Sequence[Case],
        answers: Sequence[Case],
        *,
        quick: bool = False,
    ) -> None:
        self._pool, self._source, self._answers = pool, source, answers
        large = source.description.is_large
        self._cases = cases[:_CASES_OF_LARGE] if large and not quick else cases
        self._nudges = _NUDGES[: len(_NUDGES) - large - quick]
        self._quick = quick
        self._wide = source.description.computes_in_float64

    def floors(self) -> list[Case]:
        """The noise floor of every output of every case."""
        if not self._cases:
            return []
        variants = [_nudged(self._pool, self._source, self._cases, seed) for seed in self._nudges]
        if self._wide:  # what an artifact is given
            rounded = [narrowed(case, _signature(self._source)) for case in self._cases]
            variants.append(self._run(rounded, RunOptions()))
        if self._quick:
            return [
                self._floors(self._answers[i : i + 1], [[variant[i]] for variant in variants])[0]
                for i in range(len(self._answers))
            ]
        with contextlib.suppress(InputError):
            variants.append(self._run(self._cases, RunOptions(wide=True)))
        with contextlib.suppress(InputError):
            variants.append(self._run(self._cases[:1], RunOptions(threads=2)))
        variants += self._in_other_batches(variants)
        return self._floors(self._answers, variants)

    def _run(self, cases: Sequence[Case], options: RunOptions) -> list[Case]:
        return _answers(self._pool, self._source, cases, options)

    def _floors(self, answers: Sequence[Case], variants: Sequence[Sequence[Case]]) -> list[Case]:
        names = [spec.name for spec in _signature(self._source).outputs]
        least = noise.ULP * (noise.ULPS_OF_SUMS if self._wide else 1.0)
        by_name = {
            name: noise.floor(
                [case[name] for case in answers],
                [[case[name] for case in variant] for variant in variants],
                least,
            )
            for name in names
        }
        return [{name: by_name[name][i] for name in names} for i in range(len(answers))]

    def _in_other_batches(self, variants: Sequence[Sequence[Case]]) -> list[list[Case]]:
        """Each row at another position of a larger batch, if rows do not depend on each other."""
        if not batch_dim(_signature(self._source)):
            return []
        doubled = [
            {name: np.concatenate([array, array[::-1]]) for name, array in case.items()}
            for case in self._cases
        ]
        try:
            answers = self._run(doubled, RunOptions())
        except InputError:
            return []
        halves: tuple[Callable[[Array], Array], ...] = (
            lambda array: array[: len(array) // 2],
            lambda array: array[: len(array) // 2 - 1 : -1],
        )
        found = [
            [{name: half(array) for name, array in case.items()} for case in answers]
            for half in halves
        ]
        floors = self._floors(self._answers, variants)
        return [variant for variant in found if self._rounds(variant, floors)]

    def _rounds(self, variant: Sequence[Case], floors: Sequence[Case]) -> bool:
        """Whether a variant differs from the answers by no more than rounding."""
        for answer, other, floor in zip(self._answers, variant, floors, strict=False):
            for name, array in answer.items():
                if array.shape != other[name].shape:
                    return False
                if array.dtype.kind not in "fV" or not array.size:
                    continue
                moved = np.abs(other[name].astype(np.float64) - array.astype(np.float64))
                usual = np.isfinite(moved) & (moved > _NO_ROUNDING * floor[name])
                if usual.mean() > 0.1:
                    return False
        return True


# --- comparing -----------------------------------------------------------------------

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
    witness: Witness | None = None,
) -> ParityReport:
    """Run a candidate on the evidence's feeds and judge its answers.

    Args:
        pool: the workers.
        candidate: what is judged.
        evidence: feeds, and the reference's answers with their noise floor.
        judgement: how to judge.
        failure: the error that stands for an unexpected exception of the candidate.
        witness: called with what was compared, and how, once the verdict is settled.

    Raises:
        failure: it does not run on typical feeds.
    """
    kinds = evidence.kinds_of_cases
    if candidate.ref.format in _NEVER_EMPTY:
        evidence = evidence.chosen([i for i, kind in enumerate(kinds) if kind != EMPTY])
        kinds = evidence.kinds_of_cases
    answers, runtime = _candidate_answers(pool, candidate, evidence, failure)
    refused = [kind for kind, answer in zip(kinds, answers, strict=True) if answer is None]
    evidence = evidence.chosen([i for i, answer in enumerate(answers) if answer is not None])
    outputs = [answer for answer in answers if answer is not None]
    if EMPTY in refused:
        refused.remove(EMPTY)
        log.warning("%s takes no empty batch", candidate.ref.display)
    judgement = replace(judgement, runtime=runtime, reference=evidence.reference)
    report = compare(_signature(candidate), evidence, outputs, judgement)
    if report.verdict is Verdict.FAILED and _may_be_own_noise(report):
        # float32 may undo what a reference in float64 does not show, such as a cancellation.
        evidence = _own_noise(pool, candidate, evidence, outputs)
        report = compare(_signature(candidate), evidence, outputs, judgement)
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
    variants = [_nudged(pool, candidate, evidence.cases, seed) for seed in _OWN_NUDGES]
    for options in (RunOptions(threads=2), RunOptions(runtime="plain")):
        with contextlib.suppress(InputError):
            variants.append(run_cases(pool, candidate.ref, evidence.cases, options=options)[0])
    floors = [dict(case) for case in evidence.noise]
    for spec in _signature(candidate).outputs:
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
