"""A part of ONNX's backend tests: every twenty-fourth case of single ops, in both formats.

``make sweep`` runs all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from tests.lowering.backend_suite import (
    TARGETS,
    MismatchError,
    cases,
    check,
    compare,
    data_of,
    run_all,
)
from tests.lowering.exclusions import reason

STEP = 24


@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", TARGETS)
def test_a_part_of_the_cases_passes(target: str) -> None:
    names = [name for name in list(cases())[::STEP] if not reason(name, target)]
    assert len(names) > 37
    outcomes = list(run_all(names, "node", target))
    assert [item for item in outcomes if item.status != "passed"] == []


@pytest.mark.parametrize("target", TARGETS)
def test_the_comparison_notices_another_answer(target: str) -> None:
    case = cases()["test_add"]
    wrong = onnx.helper.make_node("Sub", case.model.graph.node[0].input, ["sum"])
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.graph.node[0].CopyFrom(wrong)
    with pytest.raises(MismatchError, match="off by"):
        check(replace(case, model=model), target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.astype(np.float64), "dtype"),
        (lambda a: a[:1], "shape"),
        (lambda a: a + 1e-3, "off by"),
        (lambda a: np.where(a == a.max(), np.nan, a), "off by"),
    ],
    ids=["dtype", "shape", "value", "nan"],
)
def test_the_comparison_notices(change: Any, message: str) -> None:
    expected = data_of(cases()["test_abs"])[0][1]
    with pytest.raises(MismatchError, match=message):
        compare([change(expected[0])], expected, rtol=1e-5, atol=1e-6)
