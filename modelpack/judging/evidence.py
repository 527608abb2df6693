"""Evidence: the reference's answers to feeds, and how far last bits move them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

import numpy as np

from modelpack.errors import InputError
from modelpack.golden import Evidence
from modelpack.judging import noise
from modelpack.judging.runs import (
    answers_of,
    is_wide_on_demand,
    nudged_answers,
    signature_of,
    step_of,
    takes_empty,
)
from modelpack.samples import EMPTY, Array, Case, batch_dim, edges, generate, narrowed
from modelpack.sources import Opened
from modelpack.steps import RunOptions
from modelpack.worker import WorkerPool

log = logging.getLogger(__name__)

# Changes of the last bits that are tried: draws of which a few may all miss the noise of one
# element, which a batch of hundreds of rows then shows. Of a large model there are fewer; and of
# one that computes in float64, whose floor has room for sums anyway: an input on the threshold of
# a tree is taken out of judgement by each draw that moves it across.
_NUDGES = (1, 2, 3, 4)
_NUDGES_OF_LARGE = (1, 2)

# Variants of a large model are run on the first cases only: the floor of the others is what is
# usual in those.
_CASES_OF_LARGE = 2

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
    answers = answers_of(pool, source, cases, RunOptions())
    found = _Variants(pool, source, cases, answers)
    return Evidence(
        [narrowed(case, signature_of(source)) for case in cases],
        answers,
        origin,
        reference,
        noise=found.floors(),
        arithmetic=source.description.arithmetic,
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
        for kind, case in edges(source.description, seed=seed, step=step_of(pool, source, seed))
        if kind != EMPTY or takes_empty(source)
    ]
    given = _answers_if_any(pool, source, [case for _, case in found_edges])
    for (kind, case), answer in zip(found_edges, given, strict=True):
        if answer is not None and not _undefined(case, answer):
            kinds.append(kind)
            cases.append(case)
            answers.append(answer)
    found = _Variants(pool, source, cases, answers, quick=True)
    return Evidence(
        [narrowed(case, signature_of(source)) for case in cases],
        answers,
        "generated",
        f"{source.ref.format} source",
        noise=found.floors(),
        kinds=kinds,
        arithmetic=source.description.arithmetic,
    )


def generated(pool: WorkerPool, source: Opened, seed: int, reference: str = "") -> Evidence:
    """Evidence on generated samples: wide ones, or usual ones if the source refuses them.

    Raises:
        InputError: the source takes neither.
    """
    step = step_of(pool, source, seed)

    def found(*, cautious: bool) -> Evidence:
        cases = generate(source.description, seed=seed, cautious=cautious, step=step)
        return evidence_of(pool, source, cases, "generated", reference)

    try:
        return found(cautious=False)
    except InputError:
        return found(cautious=True)


def _answers_if_any(pool: WorkerPool, source: Opened, cases: Sequence[Case]) -> list[Case | None]:
    """Answers in one run, or, where a feed is refused, one by one and None for that."""
    if not cases:
        return []
    try:
        return list(answers_of(pool, source, cases, RunOptions()))
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
        self._wide = source.description.computes_in_float64
        few = 2 if quick and self._wide else len(_NUDGES)
        self._nudges = _NUDGES_OF_LARGE[: 2 - quick] if large else _NUDGES[:few]
        self._quick = quick

    def floors(self) -> list[Case]:
        """The noise floor of every output of every case."""
        if not self._cases:
            return []
        variants = [
            nudged_answers(self._pool, self._source, self._cases, seed) for seed in self._nudges
        ]
        if self._wide:  # what an artifact is given
            rounded = [narrowed(case, signature_of(self._source)) for case in self._cases]
            variants.append(self._run(rounded, RunOptions()))
        slow = is_wide_on_demand(self._source)
        if not slow and not (self._quick and self._source.description.is_large):
            with contextlib.suppress(InputError):
                variants.append(self._run(self._cases, RunOptions(wide=True)))
        if self._quick:
            return [
                self._floors(self._answers[i : i + 1], [[variant[i]] for variant in variants])[0]
                for i in range(len(self._answers))
            ]
        with contextlib.suppress(InputError):
            variants.append(self._run(self._cases[:1], RunOptions(threads=2)))
        variants += self._in_other_batches(variants)
        return self._floors(self._answers, variants)

    def _run(self, cases: Sequence[Case], options: RunOptions) -> list[Case]:
        return answers_of(self._pool, self._source, cases, options)

    def _floors(self, answers: Sequence[Case], variants: Sequence[Sequence[Case]]) -> list[Case]:
        names = [spec.name for spec in signature_of(self._source).outputs]
        least = noise.ULP * (noise.ULPS_OF_SUMS if self._wide else 1.0)
        least *= noise.COARSER.get(self._source.description.computes_in, 1.0)
        by_name = {
            name: noise.floor(
                [case[name] for case in answers],
                [[case[name] for case in variant] for variant in variants],
                least,
            )
            for name in names
        }
        floors = [{name: by_name[name][i] for name in names} for i in range(len(answers))]
        return noise.of_shares(floors, self._source.description.shares)

    def _in_other_batches(self, variants: Sequence[Sequence[Case]]) -> list[list[Case]]:
        """Each row at another position of a larger batch, if rows do not depend on each other."""
        if not batch_dim(signature_of(self._source)):
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
