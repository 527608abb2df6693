"""The search for transposes around convolutions, against that of tf2onnx itself."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from tf2onnx.optimizer import _get_optimizers

from modelpack import convert
from modelpack.adapters import tensorflow as adapter
from modelpack.adapters import tensorflow_onnx_transposes
from modelpack.sources import Request, locate
from modelpack.steps import StepOptions

keras = pytest.importorskip("keras")
layers = keras.layers


def network(folder: Path) -> Path:
    """Branches that are added, joined and scaled, as in ResNets, DenseNets and EfficientNets."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    tensor = layers.Conv2D(8, 3, padding="same")(image)
    for _ in range(3):
        branch = layers.ReLU()(layers.BatchNormalization()(tensor))
        branch = layers.DepthwiseConv2D(3, padding="same")(branch)
        share = layers.GlobalAveragePooling2D(keepdims=True)(branch)
        share = layers.Conv2D(8, 1, activation="sigmoid")(share)
        tensor = layers.add([tensor, layers.multiply([branch, share])])
        tensor = layers.Conv2D(8, 1)(layers.Concatenate()([tensor, branch]))
    model = keras.Model(image, layers.MaxPooling2D()(tensor))
    model.save(folder / "m.keras")
    convert(folder / "m.keras", folder / "made", to="savedmodel", validate=False)
    return folder / "made" / "saved_model"


def test_the_graph_is_that_of_tf2onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = locate(Request(str(network(tmp_path))))
    ours, theirs = tmp_path / "ours.onnx", tmp_path / "theirs.onnx"
    adapter.to_onnx(source, str(ours), StepOptions(name="m"))
    monkeypatch.setattr(tensorflow_onnx_transposes, "optimizers", _get_optimizers)
    adapter.to_onnx(source, str(theirs), StepOptions(name="m"))
    assert ours.read_bytes() == theirs.read_bytes()
    ops = [node.op_type for node in onnx.load(ours).graph.node]
    assert ops.count("Transpose") == 2  # of the image, and of the answer
    assert ops.count("Conv") >= 4
