"""Latency and memory of artifacts, measured in turns."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelpack.artifact import ModelRef
from modelpack.samples import Case
from modelpack.sources import run_cases, workspace
from modelpack.steps import RunOptions
from modelpack.validation import Bench
from modelpack.worker import Limits

log = logging.getLogger(__name__)

# Artifacts take turns, so that a machine that slows down or speeds up does so for all of them.
ROUNDS = 5
CALLS_PER_ROUND = 20


def benched(subjects: Sequence[tuple[ModelRef, Case]], limits: Limits) -> list[Bench]:
    """Measure calls of each artifact on its feed, each in a process of its own.

    The first call in each round is not timed.

    Args:
        subjects: artifacts with the feed of a call.
        limits: of each step.
    """
    options = RunOptions(repeat=CALLS_PER_ROUND)
    times: list[list[float]] = [[] for _ in subjects]
    peaks: list[int] = []
    with workspace(limits) as pool:
        for turn in range(ROUNDS):
            log.info("timing, round %d of %d", turn + 1, ROUNDS)
            for index, (ref, case) in enumerate(subjects):
                run = run_cases(pool, ref, [case], options=options, worker=f"bench {index}")[1]
                times[index] += run.latency
                if turn == 0:  # later ones load the artifact again
                    peaks.append(pool.call(f"bench {index}", f"{__name__}:peak_memory", int))
    return [_summed_up(found, peak) for found, peak in zip(times, peaks, strict=True)]


def _summed_up(times: Sequence[float], peak: int) -> Bench:
    p50, p95 = (float(f"{value:.4g}") for value in np.percentile(times, (50, 95)))
    return Bench(p50, p95, len(times), peak)


def peak_memory() -> int:
    """The largest resident size that this process has had, in bytes."""
    # On Linux ru_maxrss also counts the process that this one was forked from (getrusage(2)
    # carries it over exec); VmHWM does not.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
