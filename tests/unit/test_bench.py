"""Latency and memory of artifacts, measured in turns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelpack import bench
from modelpack.artifact import Encoding, ModelRef
from modelpack.samples import Case
from modelpack.steps import RunOptions, RunResult
from modelpack.worker import Limits, WorkerPool

CASE: Case = {"x": np.zeros(1, np.float32)}


def ref(name: str) -> ModelRef:
    return ModelRef("onnx", Encoding.ONNX, name)


class Pool:
    """Answers for the memory of a worker, and remembers when it was asked."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def call(self, key: str, entry: str, returns: type[Any]) -> int:
        assert (entry, returns) == ("modelpack.bench:peak_memory", int)
        self._calls.append(f"{key} memory")
        return len(self._calls)


def test_artifacts_take_turns_in_workers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    @contextlib.contextmanager
    def workspace(limits: Limits) -> Iterator[Pool]:
        yield Pool(calls)

    def run_cases(
        pool: Pool, model: ModelRef, cases: list[Case], *, options: RunOptions, worker: str
    ) -> tuple[list[Case], RunResult]:
        assert cases == [CASE]
        calls.append(f"{worker} {model.location}")
        slow = 10.0 if model.location == "b" else 1.0
        return [], RunResult("it", tuple(slow * step for step in range(options.repeat)))

    monkeypatch.setattr(bench, "workspace", workspace)
    monkeypatch.setattr(bench, "run_cases", run_cases)
    first, second = bench.benched([(ref("a"), CASE), (ref("b"), CASE)], Limits())
    timed = [call for call in calls if "memory" not in call]
    assert timed == ["bench 0 a", "bench 1 b"] * bench.ROUNDS
    # Memory is asked for once, before a worker has loaded its artifact a second time.
    assert calls[:4] == ["bench 0 a", "bench 0 memory", "bench 1 b", "bench 1 memory"]
    assert sum("memory" in call for call in calls) == 2
    # Of 0 to 19 in every round, the median is 9.5; 95 % of 100 values are below 18.05.
    np.testing.assert_allclose((first.p50, first.p95), (9.5, 18.05), rtol=1e-9, atol=0)
    np.testing.assert_allclose((second.p50, second.p95), (95, 180.5), rtol=1e-9, atol=0)
    assert (first.calls, first.peak_memory, second.peak_memory) == (100, 2, 4)


def test_nothing_to_time_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "run_cases", None)
    assert bench.benched([], Limits()) == []


def grown(size: int) -> int:
    """Use memory and give it back; called in a worker."""
    array = np.ones(size, np.uint8)
    return int(array[-1])


def test_the_peak_is_of_the_worker_and_stays(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    size = 200 << 20
    with WorkerPool(tmp_path, Limits()) as pool:
        before = pool.call("one", "modelpack.bench:peak_memory", int)
        assert pool.call("one", f"{Path(__file__).stem}:grown", int, size) == 1
        after = pool.call("one", "modelpack.bench:peak_memory", int)
        fresh = pool.call("two", "modelpack.bench:peak_memory", int)
    assert 10 << 20 < before < size
    assert size <= after - before + (8 << 20)
    assert fresh < before + (32 << 20)
