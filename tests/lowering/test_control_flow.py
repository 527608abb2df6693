"""If, Loop and Scan: dynamic steps and sizes, captures, axes, what is decided at conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from modelpack.errors import UnsupportedOpsError
from tests.lowering.nodes import check


def _model(text: str, opset: int = 21) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')


def _floats(*shape: int) -> Any:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


IF = """
agraph (bool c, float[N, 2] x) => (float[M, 2] y) {
    y = If (c) <
        then_branch = t () => (float[A, 2] a) { a = Add (x, x) },
        else_branch = e () => (float[B, 2] b) { b = Concat <axis = 0> (x, x) }
    >
}
"""


def test_if_with_captures_and_results_of_other_sizes() -> None:
    x = _floats(3, 2)
    check(_model(IF), [np.array(True), x], [np.array(False), x[:1]], rtol=1e-4, atol=1e-5)


SUM = """
agraph (int64 m, bool c, float[N, 2] x) => (float[N, 2] y, float[K, N, 2] z) {
    y, z = Loop (m, c, x) <body = b (int64 i, bool going, float[N, 2] s)
        => (bool go, float[N, 2] t, float[N, 2] u) {
        go = Identity (going)
        k = Cast <to = 1> (i)
        t = Add (s, k)
        u = Mul (t, x)
    }>
}
"""


def test_loop_of_dynamic_steps_with_dynamic_elements() -> None:
    true = np.array(True)
    feeds = [[np.array(steps, np.int64), true, _floats(n, 2)] for steps, n in ((3, 2), (40, 1))]
    check(_model(SUM), *feeds, rtol=1e-4, atol=1e-4)


UNTIL = """
agraph (float limit) => (float y, float[K] z) {
    zero = Constant <value_float = 0.0> ()
    y, z = Loop ("", "", zero) <body = b (int64 i, bool going, float s)
        => (bool go, float t, float u) {
        one = Constant <value_float = 1.5> ()
        t = Add (s, one)
        go = Less (t, limit)
        u = Identity (s)
    }>
}
"""


def test_loop_that_ends_by_its_condition() -> None:
    feeds = [[np.array(limit, np.float32)] for limit in (0.0, 10.0, 100.0)]
    check(_model(UNTIL), *feeds, rtol=1e-4, atol=1e-5)


GROWING = """
agraph (int64 m, float[N] x) => (float[M] y) {
    y = Loop (m, "", x) <body = b (int64 i, bool going, float[A] s) => (bool go, float[B] t) {
        go = Identity (going)
        one = Constant <value_floats = [1.0]> ()
        t = Concat <axis = 0> (s, one)
    }>
}
"""


def test_loop_whose_tensor_grows() -> None:
    feeds = [[np.array(m, np.int64), _floats(n)] for m, n in ((0, 2), (1, 1), (5, 3))]
    check(_model(GROWING), *feeds, rtol=1e-4, atol=1e-5)


FROM_NOTHING = """
agraph (int64 m, float[1] x) => (float[M] y)
<float[0] nothing = {}>
{
    y = Loop (m, "", nothing) <body = b (int64 i, bool going, float[A] s) => (bool go, float[B] t) {
        go = Identity (going)
        t = Concat <axis = 0> (s, x)
    }>
}
"""


def test_loop_whose_tensor_grows_from_nothing() -> None:
    feeds = [[np.array(m, np.int64), _floats(1)] for m in (1, 2, 6)]
    check(_model(FROM_NOTHING), *feeds, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [3, 300])
def test_loop_of_constant_steps(steps: int) -> None:
    model = _model(
        f"""
        agraph (float[N, 2] x) => (float[N, 2] y, float[{steps}, N, 2] z)
        <int64 m = {{{steps}}}, bool c = {{1}}>
        {{
            y, z = Loop (m, c, x) <body = b (int64 i, bool going, float[N, 2] s)
                => (bool going, float[N, 2] t, float[N, 2] t) {{
                half = Constant <value_float = 0.5> ()
                t = Mul (s, half)
            }}>
        }}
        """
    )
    check(model, [_floats(2, 2)], [_floats(5, 2)], rtol=1e-4, atol=1e-5)


SEQUENCE = """
agraph (float[N, 2] x) => (float[M, 2] y)
<int64 m = {3}>
{
    empty = SequenceEmpty <dtype = 1> ()
    s = Loop (m, "", empty) <body = b (int64 i, bool going, seq(float[A, 2]) have)
        => (bool going, seq(float[A, 2]) more) {
        k = Cast <to = 1> (i)
        item = Mul (x, k)
        more = SequenceInsert (have, item)
    }>
    y = ConcatFromSequence <axis = 0> (s)
}
"""


def test_loop_of_constant_steps_carries_a_sequence() -> None:
    check(_model(SEQUENCE), [_floats(2, 2)], rtol=1e-4, atol=1e-5)


SCAN = """
agraph (float[N, 2] start, float[N, T, 2] x, float[T, 3] w)
    => (float[N, 2] y, float[N, T, 2] z, float[T, 3] v) {
    y, z, v = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0], scan_input_directions = [1, 0],
        scan_output_axes = [1, 0], scan_output_directions = [0, 1],
        body = b (float[N, 2] s, float[N, 2] a, float[3] b)
            => (float[N, 2] t, float[N, 2] u, float[3] o) {
            total = ReduceSum <keepdims = 0> (b)
            t = Add (s, a)
            u = Mul (t, total)
            o = Neg (b)
        }> (start, x, w)
}
"""


def test_scan_along_other_axes_and_backwards() -> None:
    feeds = [[_floats(n, 2), _floats(n, t, 2), _floats(t, 3)] for n, t in ((2, 3), (5, 1))]
    check(_model(SCAN), *feeds, rtol=1e-4, atol=1e-5)


SCAN_8 = """
agraph (float[N, 2] start, float[N, T, 2] x) => (float[N, 2] y, float[N, T, 2] z) {
    y, z = Scan <num_scan_inputs = 1, directions = [1],
        body = b (float[2] s, float[2] a) => (float[2] t, float[2] u) {
            t = Add (s, a)
            u = Mul (t, a)
        }> ("", start, x)
}
"""


def test_scan_of_opset_8_over_a_batch() -> None:
    feeds = [[_floats(n, 2), _floats(n, t, 2)] for n, t in ((2, 3), (4, 1))]
    check(_model(SCAN_8, 8), *feeds, rtol=1e-4, atol=1e-5)


NESTED = """
agraph (int64 m, float[N] x) => (float[K, L] y) {
    y = Loop (m, "") <body = outer (int64 i, bool going) => (bool going, float[L] row) {
        row = Loop (m, "") <body = inner (int64 j, bool on) => (bool on, float item) {
            both = Mul (i, j)
            k = Cast <to = 1> (both)
            top = ReduceMax <keepdims = 0> (x)
            item = Mul (k, top)
        }>
    }>
}
"""


def test_loops_in_loops() -> None:
    feeds = [[np.array(m, np.int64), _floats(4)] for m in (2, 5)]
    check(_model(NESTED), *feeds, rtol=1e-4, atol=1e-5)


UNEQUAL = """
agraph (bool c, float[2] x) => (float[M] y) {
    s = If (c) <
        then_branch = t () => (seq(float[2]) a) { a = SequenceConstruct (x) },
        else_branch = e () => (seq(float[2]) b) { b = SequenceConstruct (x, x) }
    >
    y = ConcatFromSequence <axis = 0> (s)
}
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (UNEQUAL, "different lengths"),
        (
            SEQUENCE.replace("(float[N, 2] x)", "(float[N, 2] x, int64 m)").replace(
                "<int64 m = {3}>", ""
            ),
            "not constant",
        ),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(UnsupportedOpsError, match=reason):
        check(_model(text), targets=("savedmodel",), rtol=1e-4, atol=1e-5)
