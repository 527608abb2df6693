"""Checks of a model's structure before its numbers: by its format's own rules, and in calls."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from modelpack.errors import InputError
from modelpack.golden import Evidence
from modelpack.samples import Case, channel_last, generate, write_cases
from modelpack.sources import Opened, adapter_of, worker_key
from modelpack.steps import CheckRequest, Finding
from modelpack.worker import WorkerPool

log = logging.getLogger(__name__)

# Feeds that a model is called with. Small ones do: what is looked for shows in any.
_FEEDS = 3


def structure_of(
    pool: WorkerPool, opened: Opened, evidence: Evidence | None, seed: int
) -> tuple[Finding, ...]:
    """Check a model as its adapter can; empty where it has no checks.

    Args:
        pool: the workers.
        opened: the model.
        evidence: typical feeds, with the noise floor of their answers; generated where there
            are none.
        seed: of what is generated.

    Raises:
        MissingDependencyError: the runtime that was asked for is not installed.
    """
    form = adapter_of(opened.ref)
    if not form.checks:
        return ()
    log.info("checking the structure of %s", opened.ref.display)
    request = _request(pool.scratch, opened, evidence, seed)
    found = pool.call(
        worker_key(form),
        f"{form.adapter}:check",
        list[Finding],
        opened.ref.exchanged,
        request,
        failure=InputError,
    )
    return tuple(found)


def _request(scratch: Path, opened: Opened, evidence: Evidence | None, seed: int) -> CheckRequest:
    large = opened.description.is_large  # then it is called less often, by fewer threads
    cases, floors = _feeds(opened, evidence, 1 if large else _FEEDS, seed)
    feeds = _kept(scratch / "check.npz", opened, cases)
    known = _kept(scratch / "floors.npz", opened, floors)
    if large:
        return CheckRequest(feeds, known, repeats=2, threads=2)
    return CheckRequest(feeds, known)


def _feeds(
    opened: Opened, evidence: Evidence | None, count: int, seed: int
) -> tuple[Sequence[Case], Sequence[Case]]:
    """The smallest typical feeds, and the noise floors of their answers if they are known."""
    if evidence is None or not evidence.cases:
        try:
            return generate(opened.description, seed=seed, cautious=True)[:count], ()
        except InputError:  # nothing says how large its inputs are
            return (), ()
    kinds = evidence.kinds_of_cases
    typical = [index for index, kind in enumerate(kinds) if not kind] or range(len(kinds))
    chosen = evidence.chosen(sorted(typical, key=lambda index: _elements(evidence.cases[index])))
    return chosen.cases[:count], chosen.noise[:count]


def _elements(case: Case) -> int:
    return sum(array.size for array in case.values())


def _kept(path: Path, opened: Opened, cases: Sequence[Case]) -> str:
    """Write cases in the order of axes that the model's file has; the path, empty for none."""
    if not cases:
        return ""
    write_cases(path, [channel_last(case, opened.ref.channel_last) for case in cases])
    return str(path)
