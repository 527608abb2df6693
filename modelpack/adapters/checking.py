"""Checks that need calls: the same answers again, and from several threads at once.

Answers that differ are compared with the noise floor (see `modelpack.judging.noise`): a runtime may
sum in another order from call to call, but no further than rounding goes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from modelpack.errors import first_line
from modelpack.judging import noise
from modelpack.samples import Array, Case, read_cases
from modelpack.signature import Signature
from modelpack.steps import CheckRequest, Finding

Call = Callable[[Case], Case]


def called(
    signature: Signature,
    request: CheckRequest,
    call: Call,
    caller: Callable[[], Call] | None = None,
) -> list[Finding]:
    """Call a model on the feeds of a request: ``determinism`` and ``concurrency``.

    A feed that the model does not take ends the checks without a finding: whether it should
    take it is for the comparison with a reference to say.

    Args:
        signature: of the model.
        request: feeds, their noise floors, and how often to call.
        call: calls the model.
        caller: makes what one more thread calls the model with; None where that is not
            promised to work.
    """
    feeds = read_cases(Path(request.feeds), signature.inputs) if request.feeds else []
    if not feeds:
        return []
    floors = read_cases(Path(request.floors)) if request.floors else []
    try:
        answers = [call(feed) for feed in feeds]
        again = [call(feeds[0]) for _ in range(request.repeats - 1)]
    except Exception:  # whatever the runtime raises
        return []
    floors = floors or [{}] * len(feeds)
    floors = [_known(answer, given) for answer, given in zip(answers, floors, strict=True)]
    apart = max((_apart(answers[0], other, floors[0]) for other in again), default=0.0)
    found = [_finding("determinism", f"{request.repeats} calls with one feed", apart)]
    if caller is not None and request.threads > 1:
        found.append(
            _concurrent(feeds, answers, floors, [caller() for _ in range(request.threads)])
        )
    return found


def _concurrent(
    feeds: Sequence[Case],
    answers: Sequence[Case],
    floors: Sequence[Case],
    calls: Sequence[Call],
) -> Finding:
    begin = threading.Barrier(len(calls))

    def work(shift: int) -> float:
        call = calls[shift]
        begin.wait()
        # Each thread begins with another feed, so that different ones meet.
        order = [(index + shift) % len(feeds) for index in range(len(feeds))]
        return max(_apart(answers[index], call(feeds[index]), floors[index]) for index in order)

    deed = f"{len(calls)} threads with {len(feeds)} feeds each"
    with ThreadPoolExecutor(len(calls)) as executor:
        try:
            apart = max(executor.map(work, range(len(calls))))
        except Exception as error:  # whatever the runtime raises
            return Finding("concurrency", False, f"{deed}: {first_line(error)}")
    return _finding("concurrency", deed, apart)


def _finding(name: str, deed: str, apart: float) -> Finding:
    if apart == 0:
        return Finding(name, True, f"{deed}: equal to the last bit")
    return Finding(
        name,
        apart <= noise.SAFETY,
        f"{deed}: answers differ by {apart:.2g} times the noise floor",
    )


def _known(answer: Case, given: Case) -> Case:
    """The noise floor of each output; where none fits, one unit in the last place."""
    return {
        name: given[name]
        if name in given and given[name].shape == array.shape
        else noise.floor([array], [])[0]
        for name, array in answer.items()
    }


def _apart(one: Case, other: Case, floors: Case) -> float:
    """The largest difference over its noise floor; infinite where it is no rounding."""
    return max((_distance(one[name], other[name], floors[name]) for name in one), default=0.0)


def _distance(one: Array, other: Array, floor: Array) -> float:
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if one.dtype.kind not in "fV":
        same = np.asarray(one == other, bool) | np.isinf(floor)
        return 0.0 if same.all() else float("inf")
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        ratio = np.where(moved == 0, 0.0, moved / floor)
    return float(np.nan_to_num(ratio, nan=np.inf).max(initial=0.0))
