"""Layer normalization as TensorFlow's optimizers leave it, who have a kernel of oneDNN for it.

They treat graphs of sessions, which servers make of a SavedModel, differently from functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from onnx import helper, numpy_helper

from modelpack.lowering.context import Target
from modelpack.lowering.model import Lowered, prepare
from tests.lowering.nodes import parsed, reference

RANDOM = np.random.default_rng(3)
SPREADS = (1.0, 1e-3, 1e3)

PLAIN = """own (float[n, 5, 24] x) => (float[n, 5, 24] y) {
    x1 = Mul (x, two)
    x2 = LayerNormalization <axis = -1, epsilon: float = 1e-06> (x1, scale, bias)
    y = Relu (x2)
}"""


def real(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def model_of(text: str, **constants: Any) -> Any:
    """A model with these constants, besides scale, bias and two."""
    constants = {"scale": real(24), "bias": real(24), "two": np.float32(2), **constants}
    model = parsed(text)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items() if name in used
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def in_session(model: Any, feeds: list[list[Any]], directory: Path) -> tuple[list[Any], set[str]]:
    """Answers of a session to each feed, and the types of the ops that it ran."""
    v1 = tf.compat.v1
    module = Lowered(prepare(model, Target.SAVEDMODEL), Target.SAVEDMODEL)
    specs = [
        tf.TensorSpec([None, *array.shape[1:]], array.dtype, name=f"in_{i}")
        for i, array in enumerate(feeds[0])
    ]
    serve = tf.function(
        lambda *given: {"out": module(*given)[0]}, input_signature=specs, autograph=False
    )
    tf.saved_model.save(module, str(directory), signatures=serve)
    with v1.Session(graph=tf.Graph()) as session:
        signature = v1.saved_model.load(session, ["serve"], str(directory)).signature_def
        names = signature["serving_default"]
        inputs = [item.name for _, item in sorted(names.inputs.items())]
        trace, metadata = v1.RunOptions(output_partition_graphs=True), v1.RunMetadata()
        answers = [
            session.run(
                names.outputs["out"].name, dict(zip(inputs, feed, strict=True)), trace, metadata
            )
            for feed in feeds
        ]
    return answers, {node.op for graph in metadata.partition_graphs for node in graph.node}


def assert_right(
    text: str, shapes: list[tuple[int, ...]], directory: Path, **constants: Any
) -> Any:
    """Compare with ONNX Runtime, at large and at small variance. Returns the types of ops."""
    model = model_of(text, **constants)
    feeds = [[real(*shape) * np.float32(spread) for shape in shapes] for spread in SPREADS]
    answers, types = in_session(model, feeds, directory)
    for feed, answer in zip(feeds, answers, strict=True):
        np.testing.assert_allclose(answer, reference(model, feed)[0], rtol=1e-4, atol=1e-4)
    return types


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("epsilon", ["1e-12", "1e-06", "1e-05", "1e-03", "0.1"])
def test_every_epsilon(epsilon: str, ones: bool, tmp_path: Path) -> None:
    scale = np.ones(24, np.float32) if ones else real(24)
    types = assert_right(PLAIN.replace("1e-06", epsilon), [(2, 5, 24)], tmp_path, scale=scale)
    if not _has_onednn():
        pytest.skip("this TensorFlow has no kernel for the whole")
    assert "_MklLayerNorm" in types


def test_more_axes(tmp_path: Path) -> None:
    text = PLAIN.replace("n, 5, 24", "n, 3, 5, 24")
    types = assert_right(text, [(2, 3, 5, 24)], tmp_path)
    assert "_MklLayerNorm" in types or not _has_onednn()


@pytest.mark.parametrize(
    ("ending", "constants"),
    [
        ("x2 = LayerNormalization (x1, scale) y = Add (x2, x)", {}),
        ("x2 = LayerNormalization (x1, scale, bias) y = Relu (x2)", {"scale": real(5, 24)}),
        ("x2 = LayerNormalization (x1, scale, bias) y = Relu (x2)", {"bias": real(5, 24)}),
        ("x2 = LayerNormalization <epsilon: float = 0.0> (x1, scale, bias) y = Relu (x2)", {}),
        ("x2, m, i = LayerNormalization (x1, scale, bias) x3 = Add (x2, m) y = Mul (x3, i)", {}),
        ("x2 = com.microsoft.SkipLayerNormalization (x1, x, scale, bias) y = Relu (x2)", {}),
        ("x2 = com.microsoft.SkipLayerNormalization (x1, x, scale) y = Add (x2, x)", {}),
    ],
)
def test_what_is_no_such_group(ending: str, constants: dict[str, Any], tmp_path: Path) -> None:
    text = f"own (float[n, 5, 24] x) => (float[n, 5, 24] y) {{ x1 = Mul (x, two) {ending} }}"
    assert_right(text, [(2, 5, 24)], tmp_path, **constants)


@pytest.mark.parametrize("text", [
    # As TensorFlow's own exports have it: the difference is computed twice.
    """m = ReduceMean <keepdims = 1> (x1, axes)
    d = Sub (x1, m) s = Mul (d, d) v = ReduceMean <keepdims = 1> (s, axes)
    e = Add (v, epsilon) r = Sqrt (e) i = Reciprocal (r)
    c = Sub (x1, m) n1 = Mul (c, i) n2 = Mul (n1, scale) y = Add (n2, bias)""",
    """m = ReduceMean <keepdims = 1> (x1, axes)
    d = Sub (x1, m) s = Pow (d, two) v = ReduceMean <keepdims = 1> (s, axes)
    e = Add (v, epsilon) r = Sqrt (e)
    n1 = Div (d, r) n2 = Mul (n1, scale) y = Add (n2, bias)""",
    """m = ReduceMean <keepdims = 1> (x1, axes)
    d = Sub (x1, m) s = Pow (d, two) v = ReduceMean <keepdims = 1> (s, axes)
    e = Add (v, epsilon) i = Pow (e, minus_half) f = Mul (i, scale)
    n1 = Mul (x1, f) n2 = Mul (m, f) n3 = Sub (bias, n2) y = Add (n1, n3)""",
])  # fmt: skip
def test_in_parts(text: str, tmp_path: Path) -> None:
    text = f"own (float[n, 5, 24] x) => (float[n, 5, 24] y) {{ x1 = Mul (x, two) {text} }}"
    constants = {
        "axes": np.array([2]),
        "epsilon": np.float32(1e-6),
        "minus_half": np.float32(-0.5),
    }
    assert_right(text, [(2, 5, 24)], tmp_path, **constants)


def test_instance_normalization_of_series(tmp_path: Path) -> None:
    """It is of another form: the kernel would refuse the scale, which is per channel."""
    text = "x2 = InstanceNormalization (x1, scale, bias) y = Relu (x2)"
    text = f"own (float[n, 5, 24] x) => (float[n, 5, 24] y) {{ x1 = Mul (x, two) {text} }}"
    assert_right(text, [(2, 5, 24)], tmp_path, scale=real(5), bias=real(5))


def _has_onednn() -> bool:
    from tensorflow.python.util import _pywrap_util_port

    return bool(_pywrap_util_port.IsMklEnabled())
