"""Calls that must not differ: what counts as the same, again and from several threads."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from modelpack.adapters import checking
from modelpack.samples import Case, write_cases
from modelpack.signature import Signature, TensorSpec
from modelpack.steps import CheckRequest, Finding

SIGNATURE = Signature((TensorSpec.parse("x:float32[n]"),), (TensorSpec.parse("y:float32[n]"),))
FEEDS = [{"x": np.arange(1, 5, dtype=np.float32) * scale} for scale in (1, 10, 100)]


def doubled(feed: Case) -> Case:
    return {"y": feed["x"] * 2}


def findings(
    directory: Path, call: checking.Call, *, floor: float | None = None, shared: bool = True
) -> dict[str, Finding]:
    write_cases(directory / "feeds.npz", FEEDS)
    floors = ""
    if floor is not None:
        floors = str(directory / "floors.npz")
        write_cases(Path(floors), [{"y": np.full(4, floor)} for _ in FEEDS])
    request = CheckRequest(str(directory / "feeds.npz"), floors)
    found = checking.called(SIGNATURE, request, call, (lambda: call) if shared else None)
    return {item.name: item for item in found}


def test_a_function_passes_both_checks(tmp_path: Path) -> None:
    found = findings(tmp_path, doubled)
    assert [item.ok for item in found.values()] == [True, True]
    assert found["determinism"].detail == "5 calls with one feed: equal to the last bit"
    assert found["concurrency"].detail == "4 threads with 3 feeds each: equal to the last bit"


def test_what_is_not_promised_to_threads_is_not_tried(tmp_path: Path) -> None:
    assert set(findings(tmp_path, doubled, shared=False)) == {"determinism"}


@pytest.mark.parametrize(("floor", "ok"), [(None, False), (1e-2, True), (1e-4, False)])
def test_answers_may_differ_by_the_noise_floor(
    tmp_path: Path, floor: float | None, ok: bool
) -> None:
    """By 0.01: 8 times the floor is accepted."""
    count = itertools.count()
    found = findings(
        tmp_path,
        lambda feed: {"y": feed["x"] * 2 + np.float32(0.01 * (next(count) % 2))},
        floor=floor,
    )
    assert found["determinism"].ok is ok
    assert "times the noise floor" in found["determinism"].detail


@pytest.mark.parametrize(
    "other",
    [
        np.array([2, 4, 6], np.float32),
        np.array([2, 4, 6, 8], np.float64),
        np.array([2, 4, 6, np.nan], np.float32),
    ],
    ids=["shape", "dtype", "NaN"],
)
def test_no_noise_floor_excuses_another(tmp_path: Path, other: np.ndarray) -> None:
    count = itertools.count()
    found = findings(
        tmp_path,
        lambda feed: {"y": other} if next(count) > 3 else doubled(feed),
        floor=1e9,
        shared=False,
    )
    assert not found["determinism"].ok


def test_calls_that_disturb_each_other_are_found(tmp_path: Path) -> None:
    """Two calls at the same time meet at the barrier, and one takes the other's feed."""
    shared: dict[str, Case] = {}
    meeting = threading.Barrier(2)

    def careless(feed: Case) -> Case:
        if threading.current_thread() is threading.main_thread():
            return doubled(feed)
        shared["feed"] = feed
        meeting.wait(5)
        return doubled(shared["feed"])

    found = findings(tmp_path, careless)
    assert found["determinism"].ok
    assert not found["concurrency"].ok


def test_a_call_that_fails_in_a_thread_alone_is_found(tmp_path: Path) -> None:
    def bound(feed: Case) -> Case:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("no context in this thread")
        return doubled(feed)

    found = findings(tmp_path, bound)["concurrency"]
    assert not found.ok
    assert "no context in this thread" in found.detail


def test_a_feed_that_is_not_taken_is_left_to_the_comparison(tmp_path: Path) -> None:
    def refusing(feed: Case) -> Case:
        raise ValueError("out of range")

    assert findings(tmp_path, refusing) == {}
