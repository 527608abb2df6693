"""Gathers, scatters, orders and scans beyond ONNX's own tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lowering.backend_suite import RUNNERS, TARGETS, compare
from tests.lowering.nodes import check, node_model, parsed

_RANDOM = np.random.default_rng(11)


def _floats(*shape: int) -> Any:
    return _RANDOM.normal(size=shape).astype(np.float32)


def _texts(*shape: int) -> Any:
    return _RANDOM.choice(["a", "", "größe"], shape).astype(object)


def _ints(*values: Any) -> Any:
    return np.array(values, np.int64)


def _scatter(rows: int, count: int, low: int) -> list[Any]:
    indices = _RANDOM.integers(low, rows, size=(count, 3))
    return [_floats(rows, 3), indices, _floats(count, 3)]


# op, opset, feeds, inputs that are constants by position, attributes, number of outputs
CASES: list[tuple[str, int, list[list[Any]], dict[int, Any], dict[str, Any], int]] = [
    ("Gather", 13, [[_floats(3, 4)], [_floats(5, 2)]], {1: _ints([-1, 0], [1, 1])}, {}, 1),
    ("Gather", 13, [[_floats(3, 4)], [_floats(5, 2)]], {1: np.int64(-2)}, {"axis": -1}, 1),
    ("Gather", 13, [[_floats(3, 4), _ints(-3, 2)], [_floats(9, 1), _ints(-9)]], {}, {}, 1),
    ("Gather", 13, [[_texts(3, 4)], [_texts(5, 2)]], {1: _ints([-1, 0], [1, 1])}, {"axis": 1}, 1),
    ("GatherElements", 13, [[_texts(3, 4)], [_texts(2, 2)]], {1: _ints([1, 0], [-1, 1])}, {}, 1),
    ("GatherND", 13, [[_texts(2, 3)], [_texts(4, 1)]], {1: _ints([1], [-1])}, {}, 1),
    (
        "GatherElements",
        13,
        [[_floats(3, 4), _ints([0, -4], [1, 3])], [_floats(2, 5), _ints([4, -1])]],
        {},
        {"axis": 1},
        1,
    ),
    (
        "GatherND",
        13,
        [[_floats(2, 3, 4)], [_floats(2, 3, 1)]],
        {1: _ints([[2], [-1]], [[0], [-3]])},
        {"batch_dims": 1},
        1,
    ),
    (
        "ScatterElements",
        11,
        [[_floats(2, 4), _ints([0, -1], [2, 1]), _floats(2, 2)]],
        {},
        {"axis": 1},
        1,
    ),
    ("ScatterElements", 18, [_scatter(5, 7, -5), _scatter(2, 3, 0)], {}, {"reduction": "add"}, 1),
    ("ScatterElements", 18, [_scatter(5, 7, -5), _scatter(2, 3, 0)], {}, {"reduction": "mul"}, 1),
    ("ScatterElements", 18, [_scatter(5, 7, -5), _scatter(2, 3, 0)], {}, {"reduction": "min"}, 1),
    (
        "ScatterND",
        16,
        [[_floats(4, 3), _floats(2, 3)], [_floats(3, 2), _floats(2, 2)]],
        {1: _ints([-1], [0])},
        {},
        1,
    ),
    (
        "ScatterND",
        18,
        [[np.full((3, 2), -np.inf, np.float32), _floats(1, 2)]],
        {1: _ints([1])},
        {"reduction": "max"},
        1,
    ),
    (
        "OneHot",
        11,
        [[_ints([0, 2**63 - 1], [-(2**40), 3])]],
        {1: np.int64(4), 2: _ints(1, 3)},
        {},
        1,
    ),
    ("OneHot", 11, [[_ints([0, -1], [5, 9])]], {1: np.int64(6), 2: _ints(1, 3)}, {}, 1),
    ("OneHot", 11, [[_ints(0, 2), _ints(3)]], {2: np.array([0, 1], np.float32)}, {"axis": 0}, 1),
    ("NonZero", 13, [[_ints([0, 2, 0], [1, 0, 3])], [_ints([1])]], {}, {}, 1),
    (
        "Compress",
        11,
        [[_floats(3, 4), np.array([True, False, True])]],
        {},
        {"axis": 1},
        1,
    ),
    ("Trilu", 14, [[_floats(2, 3, 4)], [_floats(1, 5, 5)]], {1: np.int64(-1)}, {"upper": 0}, 1),
    ("Trilu", 14, [[_floats(3, 4), np.array(1)], [_floats(5, 2), np.array(-2)]], {}, {}, 1),
    ("TopK", 1, [[_floats(3, 6)], [_floats(1, 4)]], {}, {"k": 3, "axis": 1}, 2),
    ("TopK", 10, [[_floats(6, 2)], [_floats(4, 3)]], {1: _ints(2)}, {"axis": 0}, 2),
    (
        "TopK",
        11,
        [[_ints([3, 1, 3, -(2**63), 1]), _ints(4)], [_ints([0, 0]), _ints(1)]],
        {},
        {"largest": 0},
        2,
    ),
    ("ArgMax", 13, [[_ints([3, 1, 3], [5, 5, 2])]], {}, {"axis": 1, "select_last_index": 1}, 1),
    ("ArgMin", 12, [[_floats(3, 4)], [_floats(2, 7)]], {}, {"axis": -1, "keepdims": 0}, 1),
    ("ArgMax", 11, [[np.array([[4, 4, 1]], np.int8)]], {}, {"axis": 1}, 1),
    ("Hardmax", 11, [[_floats(2, 3, 4)], [_floats(1, 2, 2)]], {}, {"axis": 1}, 1),
    ("CumSum", 14, [[_floats(3, 4)], [_floats(5, 1)]], {1: np.int64(-2)}, {"reverse": 1}, 1),
    ("CumProd", 26, [[_floats(3, 5)], [_floats(2, 9)]], {1: np.int64(1)}, {"exclusive": 1}, 1),
    ("CumProd", 26, [[_floats(3, 5)], [_floats(2, 8)]], {1: np.int64(1)}, {"reverse": 1}, 1),
    (
        "ReverseSequence",
        10,
        [[_floats(3, 4, 2), _ints(1, 4, 2)], [_floats(1, 5, 1), _ints(5)]],
        {},
        {"batch_axis": 0, "time_axis": 1},
        1,
    ),
    ("Unique", 11, [[_ints(3, 1, 3, 2)], [_ints(7)]], {}, {}, 4),
    ("Unique", 11, [[_floats(4)], [np.array([2, 0, 2], np.float32)]], {}, {"sorted": 0}, 4),
    (
        "Unique",
        11,
        [[np.array([[2, 1], [0, 5], [2, 1], [0, -3]], np.float32)]],
        {},
        {"axis": 0},
        4,
    ),
]


@pytest.mark.parametrize(
    ("op", "opset", "feeds", "constants", "attributes", "outputs"),
    CASES,
    ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)],
)
def test_against_the_reference(
    op: str,
    opset: int,
    feeds: list[list[Any]],
    constants: dict[int, Any],
    attributes: dict[str, Any],
    outputs: int,
) -> None:
    arrays = iter(feeds[0])
    count = len(feeds[0]) + len(constants)
    inputs = [None if i in constants else next(arrays) for i in range(count)]
    model = node_model(op, inputs, opset=opset, constants=constants, outputs=outputs, **attributes)
    check(model, *feeds, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_texts_are_gathered_in_blocks(target: str, tmp_path: Path) -> None:
    """Of each block ONNX Runtime copies the first text only, so NumPy is the reference."""
    x, indices = _texts(2, 3, 4), _ints(-2, 0)
    run = RUNNERS[target](node_model("Gather", [x, indices], axis=1), tmp_path)
    for feed in ([x, indices], [_texts(1, 5, 2), _ints(4)]):
        compare(run(feed), [np.take(*feed, axis=1)], 0, 0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "bool"])
@pytest.mark.parametrize("op", ["Gather", "ScatterElements", "Trilu"])
def test_dtypes_that_kernels_lack(op: str, dtype: str) -> None:
    data = np.arange(1, 7).reshape(2, 3).astype(dtype)
    inputs, constants = {
        "Gather": ([data], {1: _ints(1, 0)}),
        "ScatterElements": ([data, None, data[::-1]], {1: _ints([0, 1, 1], [1, 0, 0])}),
        "Trilu": ([data], {}),
    }[op]
    feed = [array for array in inputs if array is not None]
    check(node_model(op, inputs, opset=18, constants=constants), feed, rtol=0, atol=0)


def test_ties_are_won_by_the_first() -> None:
    data = np.array([[1, 5, 5, 5, 1]], np.float32)
    for largest in (0, 1):
        model = node_model(
            "TopK", [data], opset=11, constants={1: _ints(4)}, outputs=2, largest=largest
        )
        check(model, [data], rtol=0, atol=0)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_non_zero_of_a_scalar(value: float) -> None:
    check(node_model("NonZero", [np.array(value, np.float32)]), [np.array(value, np.float32)])


def test_rows_of_no_elements_are_written() -> None:
    text = """g (float[3, 4] x) => (float[3, 4] y)
    <int64[2, 1] rows = {-1, 0}, int64[1] none = {0}, int64[1] two = {2}, int64[1] axis = {1}>
    {
        empty = Slice(x, none, none, axis)
        first = Slice(empty, none, two, none)
        written = ScatterND(empty, rows, first)
        y = Concat<axis = 1>(written, x)
    }"""
    check(parsed(text), [_floats(3, 4)])
