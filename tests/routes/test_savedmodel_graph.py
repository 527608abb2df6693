"""Signatures of SavedModels that are taken from the file, without TensorFlow loading it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelpack.adapters import tensorflow as savedmodels
from modelpack.artifact import ModelRef
from modelpack.errors import ConversionError, InputError
from modelpack.signature import Signature
from modelpack.sources import Request, locate
from modelpack.steps import StepOptions

tf = pytest.importorskip("tensorflow")

RTOL, ATOL = 1e-5, 1e-6


class Network(tf.Module):
    """Variables that are shared, scalar, small, large, whole numbers, or read in a loop."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)

        def normal(*shape: int) -> Any:
            return rng.standard_normal(shape).astype(np.float32)

        self.kernel = tf.Variable(normal(32, 32) / 6, name="fed_0")
        self.table = tf.Variable(normal(200, 32), name="same")
        self.bias = tf.Variable(normal(32), name="same")
        self.steps = tf.Variable(3, name="steps")
        self.scale = tf.Variable(0.5)
        self.unused = tf.Variable(normal(40, 40))

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 32), tf.float32, "x"),
            tf.TensorSpec((None,), tf.int32, "row"),
        ]
    )
    def __call__(self, x: Any, row: Any) -> dict[str, Any]:
        def step(count: Any, value: Any) -> tuple[Any, Any]:
            return count + 1, tf.tanh(value @ self.kernel) * self.scale

        _, looped = tf.while_loop(lambda count, _: count < self.steps, step, (0, x))
        shown = x @ self.kernel + tf.gather(self.table, row) + self.bias
        return {"looped": looped, "shown": shown, "again": shown, "same": tf.identity(x)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, ModelRef]:
    network = Network()
    folder = tmp_path_factory.mktemp("graph") / "m"
    tf.saved_model.save(network, str(folder), signatures=network.__call__)
    return network, locate(Request(str(folder)))


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(savedmodels, "_load_at", fail)


def feed(batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(batch)
    x = rng.standard_normal((batch, 32)).astype(np.float32)
    return {"x": x, "row": rng.integers(0, 200, batch, np.int32)}


def check(network: Network, target: Path, batch: int) -> None:
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    found = dict(zip(names, session.run(None, feed(batch)), strict=True))
    want = network(**{name: tf.constant(array) for name, array in feed(batch).items()})
    assert found.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_allclose(found[name], array.numpy(), RTOL, ATOL, err_msg=name)


@pytest.mark.usefixtures("unloadable")
def test_nothing_is_loaded(saved: tuple[Network, ModelRef], tmp_path: Path) -> None:
    network, ref = saved
    savedmodels.to_onnx(ref, str(tmp_path / "m.onnx"), StepOptions())
    for batch in (1, 3):
        check(network, tmp_path / "m.onnx", batch)


@pytest.mark.usefixtures("unloadable")
def test_dims_that_are_given_are_kept(saved: tuple[Network, ModelRef], tmp_path: Path) -> None:
    network, ref = saved
    native = savedmodels.describe(ref).signature
    x, row = sorted(native.inputs, key=lambda spec: spec.name, reverse=True)
    fixed = Signature((replace(x, shape=(2, 32)), replace(row, shape=(2,))), native.outputs)
    savedmodels.to_onnx(replace(ref, signature=fixed), str(tmp_path / "m.onnx"), StepOptions())
    check(network, tmp_path / "m.onnx", 2)


class Assigned(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]
    """Gives a variable its value when the model is loaded."""

    def __init__(self, variable: Any) -> None:
        super().__init__()
        self.variable = variable

    def _create_resource(self) -> Any:
        return tf.constant(0)

    def _initialize(self) -> None:
        self.variable.assign(tf.ones((32, 32)) * 0.25)


class Product(tf.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.ones((32, 32)), name=name)

    @tf.function(input_signature=[tf.TensorSpec((None, 32), tf.float32, "x")])
    def __call__(self, x: Any) -> dict[str, Any]:
        return {"y": x @ self.kernel}


@pytest.mark.parametrize(
    ("name", "held"), [("kernel", 0.25), ("modelpack/fed_0", 1.0)], ids=["assigned", "named alike"]
)
def test_what_the_file_alone_does_not_tell_is_loaded(
    name: str, held: float, tmp_path: Path
) -> None:
    network = Product(name)
    if held != 1:
        network.resource = Assigned(network.kernel)
    tf.saved_model.save(network, str(tmp_path / "m"), signatures=network.__call__)
    savedmodels.to_onnx(
        locate(Request(str(tmp_path / "m"))), str(tmp_path / "m.onnx"), StepOptions()
    )
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    x = feed(3)["x"]
    (found,) = session.run(None, {"x": x})
    np.testing.assert_allclose(found, x @ np.full((32, 32), held, np.float32), RTOL, ATOL)


def test_an_output_that_is_called_as_an_input_is_refused_by_name(
    saved: tuple[Network, ModelRef], tmp_path: Path
) -> None:
    native = savedmodels.describe(saved[1]).signature
    outputs = (replace(native.outputs[0], name="row"), *native.outputs[1:])
    ref = replace(saved[1], signature=replace(native, outputs=outputs))
    with pytest.raises(ConversionError, match="'row' is an input and an output"):
        savedmodels.to_onnx(ref, str(tmp_path / "m.onnx"), StepOptions())


@pytest.mark.parametrize(
    "other", [tf.zeros((32, 16)), tf.zeros((32, 32), tf.float64)], ids=["shape", "dtype"]
)
def test_variables_of_another_model_are_refused(
    saved: tuple[Network, ModelRef], other: Any, tmp_path: Path
) -> None:
    network, ref = saved
    kept = shutil.copytree(ref.location, tmp_path / "m")
    module = tf.Module()
    for name, variable in vars(network).items():
        if isinstance(variable, tf.Variable):
            setattr(module, name, variable)
    module.kernel = tf.Variable(other)
    tf.saved_model.save(module, str(tmp_path / "other"))
    shutil.rmtree(kept / "variables")
    shutil.copytree(tmp_path / "other" / "variables", kept / "variables")
    with pytest.raises(InputError):
        savedmodels.to_onnx(locate(Request(str(kept))), str(tmp_path / "m.onnx"), StepOptions())


def test_what_the_file_says_is_what_tensorflow_loads(saved: tuple[Network, ModelRef]) -> None:
    _, ref = saved
    function = tf.saved_model.load(ref.location).signatures["serving_default"]
    said = savedmodels.describe(ref).signature
    inputs = function.structured_input_signature[1]
    for specs, loaded in ((said.inputs, inputs), (said.outputs, function.structured_outputs)):
        assert {spec.name: (spec.dtype.value, len(spec.shape or ())) for spec in specs} == {
            name: (item.dtype.name, item.shape.rank) for name, item in loaded.items()
        }
