"""Times two commands in turn, as whole processes, so that a drifting machine hits both."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One finished process: wall seconds, and the peak resident memory of the largest process."""

    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Pair:
    """Medians over all runs of two commands, and the median of the ratios pair by pair."""

    ours: Run
    theirs: Run
    ratio: float
    runs: int

    def __str__(self) -> str:
        return (
            f"time ratio {self.ratio:.2f} (median of {self.runs} pairs; "
            f"{self.ours.seconds:.2f} s against {self.theirs.seconds:.2f} s), "
            f"peak memory {self.ours.peak_mib:.0f} MiB against {self.theirs.peak_mib:.0f} MiB"
        )


def measure(command: Sequence[str]) -> Run:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return Run(time.perf_counter() - begin, usage.ru_maxrss / 1024)


def compare(ours: Sequence[str], theirs: Sequence[str], runs: int) -> Pair:
    """Run both commands in turn, once without counting, and compare them pair by pair."""
    measure(ours), measure(theirs)
    pairs = [(measure(ours), measure(theirs)) for _ in range(runs)]

    def median(position: int) -> Run:
        return Run(
            statistics.median(pair[position].seconds for pair in pairs),
            max(pair[position].peak_mib for pair in pairs),
        )

    ratio = statistics.median(one.seconds / other.seconds for one, other in pairs)
    return Pair(median(0), median(1), ratio, runs)
