"""Grouped convolutions with a bias, in SavedModels that run without oneDNN as workers do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import modelpack as mp
from modelpack.parity import Verdict

keras = pytest.importorskip("keras")

# As many groups as channels, and fewer: TensorFlow has kernels of their own for both.
GROUPS = (4, 12)


def test_of_keras(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 12), name="image")
    for groups in GROUPS:
        layer = keras.layers.Conv2D(12, 3, groups=groups, bias_initializer="normal")
        x = keras.layers.ReLU()(layer(x))
    keras.Model(image, x).save(tmp_path / "m.keras")
    made = mp.convert(tmp_path / "m.keras", tmp_path / "out", to=["savedmodel", "onnx"])
    assert [item.parity.verdict for item in made.artifacts] == [Verdict.PASSED] * 2


def test_of_onnx(tmp_path: Path) -> None:
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for layer, groups in enumerate(GROUPS):
        for name, shape in (("w", (12, 12 // groups, 3, 3)), ("b", (12,))):
            array = rng.standard_normal(shape).astype(np.float32)
            weights.append(onnx.numpy_helper.from_array(array, f"{name}{layer}"))
        inputs = [f"x{layer}", f"w{layer}", f"b{layer}"]
        nodes.append(helper.make_node("Conv", inputs, [f"h{layer}"], group=groups))
        nodes.append(helper.make_node("Relu", [f"h{layer}"], [f"x{layer + 1}"]))
    ends = [
        [helper.make_tensor_value_info(name, real, ["batch", 12, size, size])]
        for name, size in (("x0", 8), ("x2", 4))
    ]
    graph = helper.make_graph(nodes, "g", *ends, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    made = mp.convert(tmp_path / "m.onnx", tmp_path / "out", to=["savedmodel"])
    assert made.artifacts[0].parity.verdict is Verdict.PASSED
