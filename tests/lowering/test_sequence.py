"""Sequences and optionals, between ops that make tensors of them again."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from modelpack.errors import UnsupportedOpsError
from tests.lowering.nodes import check


def _model(body: str, opset: int = 21) -> onnx.ModelProto:
    """A graph of x and y, [N, 3], and a position p, which gives r."""
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]>\n'
        f"agraph (float[N, 3] x, float[M, 3] y, int64 p) => (float r) {{ {body} }}"
    )


def _feeds(position: int) -> list[list[Any]]:
    rng = np.random.default_rng(5)
    return [
        [rng.normal(size=(n, 3)).astype(np.float32) for n in (rows, rows + 1)]
        + [np.array(position, np.int64)]
        for rows in (1, 4)
    ]


@pytest.mark.parametrize("position", [-2, 0, 2])
@pytest.mark.parametrize(
    "change",
    [
        "t = SequenceInsert (s, x, p)",
        "t = SequenceErase (s, p)",
        "u = SequenceAt (s, p) t = SequenceConstruct (u)",
    ],
)
def test_position_known_at_run_time(change: str, position: int) -> None:
    model = _model(
        f"s = SequenceConstruct (x, y, y) {change} c = ConcatFromSequence <axis = 0> (t)"
        "r = Identity (c)"
    )
    check(model, *_feeds(position), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "s = SequenceConstruct (x, x) r = ConcatFromSequence <axis = -1, new_axis = 1> (s)",
        "s = SplitToSequence <axis = 1, keepdims = 0> (x) r = ConcatFromSequence <axis = 0> (s)",
        "two = Constant <value_int = 2> () s = SplitToSequence <axis = 1> (x, two)"
        "last = Constant <value_int = -1> () r = SequenceAt (s, last)",
        "parts = Constant <value_ints = [2, 1]> () s = SplitToSequence <axis = -1> (x, parts)"
        "first = Constant <value_int = 0> () r = SequenceAt (s, first)",
        "s = SequenceConstruct (x, y) e = SequenceErase (s) l = SequenceLength (e)"
        "r = Cast <to = 1> (l)",
        "o = Optional (x) h = OptionalHasElement (o) g = OptionalGetElement (o)"
        "k = Cast <to = 1> (h) r = Mul (g, k)",
        "s = SequenceConstruct (x, y) t = SequenceMap <body = b (float[K, 3] a, float[N, 3] c)"
        " => (float[3] d) { n = Add (a, a) m = ReduceMax <keepdims = 0> (c) d = Mul (n, m) }>"
        " (s, x) r = ConcatFromSequence <axis = 0> (t)",
    ],
)
def test_known_at_conversion(body: str) -> None:
    check(_model(body), *_feeds(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = SplitToSequence <axis = 0> (x) r = ConcatFromSequence <axis = 0> (s)", "static"),
        ("s = SplitToSequence <axis = 1> (x, p) r = ConcatFromSequence <axis = 0> (s)", "constant"),
        (
            "k = Constant <value_int = 2> () s = SequenceConstruct (x) r = SequenceAt (s, k)",
            "range",
        ),
        ("o = Optional <type = float> () r = OptionalGetElement (o)", "empty"),
        ("r = SequenceConstruct (x)", "sequence"),
    ],
)
def test_refused(body: str, reason: str) -> None:
    if "Optional <" in body:
        model = _model("r = OptionalGetElement (o)")
        kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
        empty = onnx.helper.make_node("Optional", [], ["o"], type=kind)
        model.graph.node.insert(0, empty)
    else:
        model = _model(body)
    with pytest.raises(UnsupportedOpsError, match=reason):
        _convert(model)


def _convert(model: onnx.ModelProto) -> None:
    import tensorflow as tf

    from modelpack.lowering.context import Target
    from modelpack.lowering.model import Lowered, prepare

    specs = [tf.TensorSpec([None, 3]), tf.TensorSpec([None, 3]), tf.TensorSpec([], tf.int64)]
    module = Lowered(prepare(model, Target.SAVEDMODEL), Target.SAVEDMODEL)
    module.function(specs).get_concrete_function()
