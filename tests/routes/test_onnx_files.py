"""ONNX files that runtimes load, though few tools write them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest

from modelpack import validate

FILES = {
    "scalar": """g (float x) => (float y) { y = Exp(x) }""",
    "unsorted": """g (float[n, 4] x) => (float[n, 4] y) {
        y = Neg(t)
        t = Relu(x)
    }""",
    "unsorted_capture": """g (float[n, 4] x, bool c) => (float[n, 4] y) {
        y = If(c) <
            then_branch = t () => (float[a, 4] p) { q = Exp(outer) p = Neg(q) },
            else_branch = e () => (float[b, 4] r) { r = Neg(outer) }
        >
        outer = Relu(x)
    }""",
    "loop": """g (float[n, 4] x) => (float[n, 4] y, float[steps] sums) {
        three = Constant<value_int = 3>()
        y, sums = Loop(three, , x) <body = b (int64 i, bool going, float[n, 4] s)
            => (bool go, float[n, 4] t, float u) {
            go = Identity(going)
            t = Add(s, s)
            u = ReduceSum<keepdims = 0>(t)
        }>
    }""",
    "branches": """g (float[n, 4] x, bool c) => (float[p, q] y) {
        y = If(c) <
            then_branch = t () => (float[a, b] u) { u = ReduceSum(x) },
            else_branch = e () => (float[d, f] v) { v = Concat<axis = 0>(x, x) }
        >
    }""",
}


def write(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    text = f'<ir_version: 8, opset_import: ["" : 17]>\n{FILES[name]}'
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return path


@pytest.mark.parametrize("name", FILES)
def test_it_converts_to_every_format(name: str, tmp_path: Path, modelpack) -> None:
    source = write(name, tmp_path)
    to = [word for form in ("onnx", "savedmodel", "tflite") for word in ("--to", form)]
    report = modelpack.ok("convert", source, "-o", "out", *to, "--json").json
    verdicts = [item["parity"]["verdict"] for item in report["artifacts"]]
    assert verdicts == ["passed"] * 3


def test_nodes_that_wait_for_each_other_are_refused_in_one_line(tmp_path: Path, modelpack) -> None:
    text = "g (float[n] x) => (float[n] y) { a = Add(x, b) b = Relu(a) y = Neg(b) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    (tmp_path / "cycle.onnx").write_bytes(model.SerializeToString())
    outcome = modelpack("convert", "cycle.onnx", "-o", "out", "--to", "savedmodel")
    assert outcome.code == 2
    assert "not acyclic" in outcome.stderr
    assert "Traceback" not in outcome.stderr


SHARES = """g (float[batch, 4] x) => (float[batch, 4] y)
    <float[4] rare = {{{bias}}}> {{ h = Add(x, rare) {steps} }}"""
RARE = "-18.0, -19.0, 0.0, -18.5"
EXACT = "m = Neg(h) s = Softplus(m) n = Neg(s) y = Exp(n)"


@pytest.mark.parametrize(
    ("steps", "bias", "verdict"),
    [
        ("p = Sigmoid(h) y = Identity(p)", RARE, "passed"),
        ("y = Sigmoid(h)", "-12.0, -19.0, 0.0, -18.5", "failed"),
    ],
)
def test_what_the_kernel_of_sigmoid_loses_of_rare_classes_is_no_error(
    steps: str, bias: str, verdict: str, tmp_path: Path
) -> None:
    files = {"exact": (EXACT, RARE), "made": (steps, bias)}
    for name, (nodes, numbers) in files.items():
        text = SHARES.format(steps=nodes, bias=numbers)
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    found = validate(tmp_path / "made.onnx", reference=tmp_path / "exact.onnx")
    assert [item.verdict for item in found.artifacts] == [verdict]
