"""Zeros around an image of negative numbers, of which ONNX Runtime takes a maximum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import modelpack as mp
from modelpack.parity import Verdict

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")


class _Padded(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.max_pool2d(torch.nn.functional.pad(image - 5, (1, 1, 1, 1)), 3)


def pad_values(path: Path) -> list[float]:
    graph = onnx.load(path).graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    pads = [node for node in graph.node if node.op_type == "Pad"]
    return [float(constants[node.input[2]]) if len(node.input) > 2 else 0.0 for node in pads]


@pytest.mark.parametrize("relu", [False, True])
def test_of_keras(tmp_path: Path, relu: bool) -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((7, 7, 2), name="image")
    bias = keras.initializers.Constant(0.0 if relu else -5.0)
    activation = "relu" if relu else None
    x = keras.layers.Conv2D(2, 1, bias_initializer=bias, activation=activation)(image)
    x = keras.layers.MaxPooling2D(3)(keras.layers.ZeroPadding2D(1)(x))
    keras.Model(image, x).save(tmp_path / "m.keras")
    made = mp.convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx")
    assert made.artifacts[0].parity.verdict is Verdict.PASSED
    # After a ReLU the two nodes may become one, and do.
    assert [bool(np.signbit(value)) for value in pad_values(tmp_path / "m.onnx")] == [not relu]


def test_of_torch(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        _Padded(), (torch.zeros(2, 2, 7, 7),), dynamic_shapes={"image": {0: batch}}
    )
    torch.export.save(program, tmp_path / "m.pt2")
    made = mp.convert(tmp_path / "m.pt2", tmp_path / "m.onnx", to="onnx")
    assert made.artifacts[0].parity.verdict is Verdict.PASSED
