"""Finds the first tensor in which a failed artifact departs from its reference.

Both run one failing feed, and give all their tensors. Tensors are paired by value, which
needs no names and works between any two formats; `modelpack.bisection.departures` says which are
suspect. A suspect is convicted by experiment: the candidate is run once more with the
reference's value in its place. If that repairs the outputs, the fault is in what computes
it, and all that comes after is innocent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modelpack.bisection import pairing
from modelpack.bisection.departures import Flow, Scale
from modelpack.bisection.reproduction import Reproduction, write
from modelpack.bisection.traces import INPUT, Probe, Trace
from modelpack.errors import InputError
from modelpack.golden import Evidence
from modelpack.judging.compare import Judgement, compare
from modelpack.judging.figures import rounded
from modelpack.parity import Verdict
from modelpack.samples import (
    Array,
    Case,
    batch_dim,
    channel_first,
    channel_last,
    read_cases,
    write_cases,
)
from modelpack.signature import Signature
from modelpack.sources import Opened, adapter_of, worker_key
from modelpack.validation import Departure, TensorError
from modelpack.worker import WorkerPool

log = logging.getLogger(__name__)

# Rows of the failing feed that are traced: several, so that tensors of one number a row can
# be told apart.
_ROWS = 8

# Runs with a tensor replaced, at most, and tensors of the reference tried in one place.
_MOST_RUNS = 64
_MOST_TRIED = 6


@dataclass(frozen=True, slots=True)
class Failure:
    """An artifact that failed, and on what.

    Attributes:
        candidate: the artifact.
        evidence: what it was judged by.
        outputs: its answers, by case.
        judgement: how it was judged.
    """

    candidate: Opened
    evidence: Evidence
    outputs: Sequence[Case]
    judgement: Judgement


def bisect(
    pool: WorkerPool, reference: Opened, failure: Failure, target: Path | None
) -> Departure | None:
    """Find the first departing tensor, and write a reproduction into the directory ``target``.

    Args:
        pool: the workers.
        reference: under the names of the candidate's signature.
        failure: what to explain.
        target: made if it is missing; nothing is written if it is None.

    Returns:
        None if the failure is none of single tensors: it shows in no feed alone, or not
        when the candidate runs op by op.

    Raises:
        InputError: a model cannot be traced, or the target cannot be written.
    """
    evidence = _failing(failure)
    if evidence is None:
        log.warning("no single feed shows the failure of %s", failure.candidate.ref.display)
        return None
    search = _Search(pool, reference, failure, evidence)
    if search.repaired({}):
        log.warning(
            "%s does not fail when it is run op by op: its runtime's optimizations change it",
            failure.candidate.ref.display,
        )
        return None
    found = search.found()
    if found is None:
        return None
    return search.departure(found, target)


def _signature(opened: Opened) -> Signature:
    assert opened.ref.signature is not None
    return opened.ref.signature


def _failing(failure: Failure) -> Evidence | None:
    """One failing feed, of typical values if there is such a one, cut to a few rows."""
    signature = _signature(failure.candidate)
    found: list[tuple[bool, bool, int]] = []
    for index, outputs in enumerate(failure.outputs):
        chosen = failure.evidence.chosen([index])
        if compare(signature, chosen, [outputs], failure.judgement).verdict is Verdict.FAILED:
            single = max((len(array) for array in outputs.values() if array.ndim), default=1) < 2
            found.append((bool(chosen.kinds_of_cases[0]), single, index))
    if not found:
        return None
    index = min(found)[2]
    whole = failure.evidence.chosen([index])
    if not batch_dim(signature):
        return whole
    cut = whole.head(_ROWS)
    rows = {name: array[:_ROWS] for name, array in failure.outputs[index].items()}
    failed = compare(signature, cut, [rows], failure.judgement).verdict is Verdict.FAILED
    return cut if failed else whole


@dataclass(frozen=True, slots=True)
class _Found:
    """A tensor of the candidate with the reference's value in its layout."""

    index: int
    reference: int
    value: Array
    confirmed: bool


class _Search:
    """Two traces of one feed, and experiments with the candidate."""

    def __init__(
        self, pool: WorkerPool, reference: Opened, failure: Failure, evidence: Evidence
    ) -> None:
        self._pool, self._failure, self._evidence = pool, failure, evidence
        self._candidate = failure.candidate
        self._scale = Scale.of(failure.judgement)
        log.info("tracing %s and %s", reference.ref.display, self._candidate.ref.display)
        self._theirs = self._traced(reference, "reference")
        self._ours = self._traced(self._candidate, "candidate")
        self._alike = reference.ref.format == self._candidate.ref.format
        self._pairs = pairing.pairs(
            self._theirs, self._ours, self._scale.within, by_name=self._alike
        )
        self._runs = 0

    # --- running ----------------------------------------------------------------------

    def _traced(self, opened: Opened, side: str) -> Trace:
        form, file = adapter_of(opened.ref), self._pool.scratch / f"{side}.trace.npz"
        entry = f"{form.adapter}_trace:trace"
        own = opened.ref.exchanged
        probes = self._pool.call(
            worker_key(form),
            entry,
            list[Probe],
            own,
            self._fed(opened),
            str(file),
            failure=InputError,
        )
        return Trace(probes, file)

    def _fed(self, opened: Opened) -> str:
        file = self._pool.scratch / "traced.npz"
        write_cases(file, [channel_last(self._evidence.cases[0], opened.ref.channel_last)])
        return str(file)

    def repaired(self, given: Case) -> bool:
        """Whether the candidate no longer fails with some of its tensors given."""
        candidate, form = self._candidate, adapter_of(self._candidate.ref)
        files = [self._pool.scratch / name for name in ("given.npz", "replayed.npz")]
        write_cases(files[0], [given] if given else [])
        self._runs += 1
        try:
            self._pool.call(
                worker_key(form),
                f"{form.adapter}_trace:replay",
                type(None),
                candidate.ref.exchanged,
                self._fed(candidate),
                *map(str, files),
                failure=InputError,
            )
        except InputError as error:  # no value for this place, then
            log.debug("%s", error)
            return False
        signature = _signature(candidate)
        answer = read_cases(files[1], signature.outputs)[0]
        answer = channel_first(answer, candidate.ref.channel_last)
        report = compare(signature, self._evidence, [answer], self._failure.judgement)
        return report.verdict is not Verdict.FAILED

    # --- searching --------------------------------------------------------------------

    def found(self) -> _Found | None:
        """The first tensor whose replacement repairs the candidate, or else the likeliest."""
        cleared: frozenset[int] = frozenset()
        tried: set[int] = set()
        flow = self._flow(cleared)
        likely: _Found | None = None
        while self._runs < _MOST_RUNS:
            index = next((item for item in flow.suspects if item not in tried), None)
            if index is None:
                break
            tried.add(index)
            for found in self._substitutes(flow, index):
                if self.repaired({self._ours.probes[index].name: found.value}):
                    return self._settled(flow, replace(found, confirmed=True))
                likely = likely or found
            pair = self._pairs.get(index)
            if pair is not None and pair.error <= self._scale.noise:
                # The reference's value here changes nothing: what it has is noise.
                cleared |= {index}
                flow = self._flow(cleared)
        return likely

    def _flow(self, cleared: frozenset[int]) -> Flow:
        return Flow(self._ours, self._pairs, self._scale, cleared)

    def _substitutes(self, flow: Flow, index: int) -> Iterator[_Found]:
        """Values of the reference that may belong in a tensor's place, likeliest first."""
        value = self._ours.value(index)
        if value is None or value.dtype.kind != "f" or self._ours.probes[index].op == INPUT:
            return
        pair = self._pairs.get(index)
        if pair is not None:
            nearest = pairing.best_arrangement(self._reals(pair.reference), value)
            if nearest is not None:
                yield _Found(index, pair.reference, nearest[1].astype(value.dtype), False)
        if pair is not None and self._alike:
            return
        start, count = flow.reached(index), 0
        order = sorted(range(len(self._theirs)), key=lambda item: (item <= start, item))
        for other in order:
            if pair is not None and other == pair.reference:
                continue
            if count >= _MOST_TRIED or self._runs >= _MOST_RUNS:
                return
            want = self._theirs.value(other)
            if want is None or want.dtype.kind != "f" or want.size != value.size:
                continue
            for array in _distinct(pairing.arrangements(want, value.shape)):
                count += 1
                yield _Found(index, other, array.astype(value.dtype), False)

    def _reals(self, index: int) -> Array:
        value = self._theirs.value(index)
        assert value is not None
        return value

    def _settled(self, flow: Flow, found: _Found) -> _Found:
        """The tensor that the reference's value belongs to, if several ops keep it.

        The value after a rectifier, given before it, passes through unchanged: it is put
        where it was taken from.
        """
        while True:
            readers = flow.readers[found.index]
            if len(readers) != 1 or self._runs >= _MOST_RUNS:
                return found
            own, after = self._ours.value(found.index), self._ours.value(readers[0])
            if after is None or own is None or after.shape != own.shape:
                return found
            if np.array_equal(own, after, equal_nan=own.dtype.kind == "f"):
                return found
            if not self.repaired({self._ours.probes[readers[0]].name: found.value}):
                return found
            found = replace(found, index=readers[0])

    # --- reporting --------------------------------------------------------------------

    def departure(self, found: _Found, target: Path | None) -> Departure:
        """Say what was found, and write its reproduction."""
        flow = self._flow(frozenset())
        inputs, inner = flow.piece(found.index)
        probe = self._ours.probes[found.index]
        value = self._ours.value(found.index)
        assert value is not None
        error, before = pairing.error_of(found.value, value), flow.before(found.index)
        files: tuple[str, ...] = ()
        if target is not None:
            case = self._values(inputs)
            limit = min(flow.limit_after(before), error / 2)
            piece = Reproduction(self._candidate.ref, probe, case, found.value, limit)
            files = write(self._pool, piece, target)
        return Departure(
            tensor=probe.name,
            op=probe.op,
            node=probe.node,
            reference=self._theirs.probes[found.reference].name,
            reference_op=self._theirs.probes[found.reference].op,
            error=rounded(error) if np.isfinite(error) else None,
            error_before=rounded(before),
            confirmed=found.confirmed,
            ops=tuple(_labels(self._ours, inner)),
            inputs=tuple(self._ours.probes[index].name for index in inputs),
            curve=self._curve(),
            directory=str(target) if target is not None else "",
            files=files,
        )

    def _values(self, inputs: Sequence[int]) -> Case:
        values = {self._ours.probes[index].name: self._ours.value(index) for index in inputs}
        return {name: array for name, array in values.items() if array is not None}

    def _curve(self) -> tuple[TensorError, ...]:
        return tuple(
            TensorError(
                tensor=self._ours.probes[index].name,
                op=self._ours.probes[index].op,
                reference=self._theirs.probes[pair.reference].name,
                error=rounded(pair.error),
            )
            for index, pair in sorted(self._pairs.items())
        )


def _labels(trace: Trace, indices: Sequence[int]) -> Iterator[str]:
    """Ops by type and, where they have one, name; each once."""
    seen = set()
    for index in indices:
        probe = trace.probes[index]
        label = f"{probe.op} {probe.node}".strip()
        if label not in seen:
            seen.add(label)
            yield label


def _distinct(arrays: Iterator[Array]) -> Iterator[Array]:
    seen: list[Array] = []
    for array in arrays:
        if not any(np.array_equal(array, other, equal_nan=True) for other in seen):
            seen.append(array)
            yield array
