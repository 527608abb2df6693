"""Means over images of one colour, which ONNX Runtime and LiteRT add up pixel by pixel.

TensorFlow does so too, and is off by 1e-4 itself: the colour is what they are compared with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import modelpack as mp
from modelpack.adapters.tflite_means import by_rows
from tests.thinned import thinned

Interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

COLOURS = np.array([0.1, 0.7, 1.3], np.float32)


def means(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


@pytest.mark.parametrize("keepdims", thinned([False, True], 2))
def test_of_keras(tmp_path: Path, keepdims: bool) -> None:
    image = keras.Input((96, 96, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=keepdims)(image)
    keras.Model(image, pooled).save(tmp_path / "m.keras")
    mp.convert(tmp_path / "m.keras", tmp_path / "made", to=["onnx", "tflite"])
    feed = np.broadcast_to(COLOURS, (2, 96, 96, 3)).copy()
    found = means(tmp_path / "made" / "model.onnx", feed).reshape(2, 3)
    np.testing.assert_allclose(found, np.stack([COLOURS] * 2), rtol=1e-6, atol=0)
    runner = Interpreter(str(tmp_path / "made" / "model.tflite")).get_signature_runner()
    (found,) = runner(image=feed).values()
    np.testing.assert_allclose(found.reshape(2, 3), np.stack([COLOURS] * 2), rtol=1e-5, atol=0)


class _Means(torch.nn.Module):
    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(image).mean((-2, -1), keepdim=self.keepdim)


@pytest.mark.parametrize("keepdim", thinned([False, True], 2))
def test_of_torch(tmp_path: Path, keepdim: bool) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    model = _Means(keepdim)
    shapes = {"image": {0: batch}}
    program = torch.export.export(model, (torch.zeros(2, 3, 96, 96),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "m.pt2")
    mp.convert(tmp_path / "m.pt2", tmp_path / "m.onnx", to="onnx")
    feed = np.broadcast_to(COLOURS[:, None, None], (2, 3, 96, 96)).copy()
    found = means(tmp_path / "m.onnx", feed).reshape(2, 3)
    np.testing.assert_allclose(found, np.stack([COLOURS] * 2), rtol=1e-6, atol=0)


def test_of_few_numbers_is_one_node(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3), name="image")
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(tmp_path / "m.keras")
    mp.convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert sum("Mean" in kind or "Average" in kind for kind in kinds) == 1


def test_looking_for_means_adds_nothing_to_other_nodes() -> None:
    """TensorFlow does not load a node that has a result, and an empty list of shapes."""
    function = pytest.importorskip("tensorflow.core.framework.function_pb2").FunctionDef()
    function.node_def.add(name="negated", op="Neg", input=["x"])
    function.signature.input_arg.add(name="x")
    before = function.SerializeToString()
    assert by_rows(function) == 0
    assert function.SerializeToString() == before
