"""Every case of ONNX's backend tests, as SavedModel and as TFLite of built-in ops."""

from __future__ import annotations

import re

import pytest

from tests.lowering.backend_suite import KINDS, TARGETS, cases, run_all
from tests.lowering.exclusions import patterns, reason

# Of the 1884 cases for single ops; what is below these numbers is a step back.
LEAST = {"savedmodel": 1700, "tflite": 1200}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_case_passes_but_those_that_are_listed(kind: str, target: str) -> None:
    found = {item.name: item for item in run_all(list(cases(kind)), kind, target)}
    passed = {name for name, item in found.items() if item.status == "passed"}
    print(f"{kind}, {target}: {len(passed)} of {len(found)} passed")
    failed = [
        f"{item.status} {item.name}: {item.detail}"
        for item in found.values()
        if item.status != "passed" and not reason(item.name, target)
    ]
    assert failed == []
    assert [name for name in sorted(passed) if reason(name, target)] == []
    if kind == "node":
        assert len(passed) >= LEAST[target]


@pytest.mark.parametrize("target", TARGETS)
def test_every_pattern_of_the_list_matches_a_case(target: str) -> None:
    names = [name for kind in KINDS for name in cases(kind)]
    idle = [p for p in patterns(target) if not any(re.fullmatch(p, name) for name in names)]
    assert idle == []
