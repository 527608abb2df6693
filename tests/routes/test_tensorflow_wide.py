"""SavedModels that compute in float64, as a measure of what float32 loses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelpack
from fixtures.inline import InlinePool
from modelpack.adapters import tensorflow as adapter
from modelpack.errors import InputError
from modelpack.judging.compare import judgement_for
from modelpack.judging.evidence import edge_evidence
from modelpack.judging.trials import tried
from modelpack.parity import Verdict
from modelpack.sources import Opened, Request, locate, open_model
from modelpack.steps import StepOptions

tf = pytest.importorskip("tensorflow")
wide = pytest.importorskip("modelpack.adapters.tensorflow_wide")

RNG = np.random.default_rng(5)

EPSILON = 2.0**-10  # which float32 has


def function_of(network: Callable[[Any], Any], *shape: int | None) -> Any:
    spec = tf.TensorSpec(shape, tf.float32)
    return tf.function(lambda x: [network(x)], input_signature=[spec], autograph=False)


class Network:
    """A convolution, a norm, a branch and a mean, of the dtype that is given."""

    def __init__(self) -> None:
        self.kernel = tf.Variable(RNG.standard_normal((3, 3, 2, 8)).astype(np.float32))
        self.scale, self.offset, self.mean = RNG.standard_normal((3, 8)).astype(np.float32)
        self.variance = RNG.random(8).astype(np.float32) + np.float32(0.1)

    def __call__(self, x: Any) -> Any:
        x = tf.nn.conv2d(x, tf.cast(self.kernel, x.dtype), 1, "SAME")
        x = self.norm(x)
        return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.tanh(x), lambda: tf.sin(x))

    def norm(self, x: Any) -> Any:
        if x.dtype == tf.float32:
            known = (self.scale, self.offset, self.mean, self.variance)
            return tf.raw_ops.FusedBatchNormV3(
                **dict(zip(("x", "scale", "offset", "mean", "variance"), (x, *known), strict=True)),
                epsilon=EPSILON,
                is_training=False,
            ).y
        scale, offset, mean, variance = (
            array.astype(np.float64)
            for array in (self.scale, self.offset, self.mean, self.variance)
        )
        return (x - mean) * (scale / np.sqrt(variance + EPSILON)) + offset


def test_all_is_computed_in_float64() -> None:
    network = Network()
    images = RNG.standard_normal((4, 6, 6, 2)).astype(np.float32)
    (found,) = wide.widened(function_of(network, None, 6, 6, 2), 144)(
        tf.constant(images, tf.float64)
    )
    exact = network(tf.constant(images, tf.float64))
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-12)
    assert np.abs(np.asarray(network(images)) - np.asarray(exact)).max() > 1e-8


def test_the_narrow_answers_of_a_resize_are_taken_as_they_are() -> None:
    images = RNG.standard_normal((1, 4, 4, 2)).astype(np.float32)
    resized = function_of(lambda x: tf.raw_ops.ResizeBilinear(images=x, size=[7, 5]), 1, 4, 4, 2)
    (found,) = wide.widened(resized, 0)(tf.constant(images, tf.float64))
    np.testing.assert_allclose(found, resized(images)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("coarse", ["float16", "bfloat16"])
def test_what_is_meant_to_be_rounded_is_not_computed_exactly(coarse: str) -> None:
    rounds = function_of(lambda x: tf.cast(tf.cast(x, coarse), tf.float32) * 3.0, 3)
    with pytest.raises(InputError, match="float32 alone"):
        wide.widened(rounds, 0)


def test_bits_and_much_are_refused() -> None:
    bits = function_of(lambda x: tf.bitcast(tf.bitcast(x, tf.int32) + 1, tf.float32), 3)
    with pytest.raises(InputError, match="Bitcast"):
        wide.widened(bits, 0)
    with pytest.raises(InputError, match="too large"):
        wide.widened(bits, 10**9)


# --- as a part of the noise --------------------------------------------------------------------


@pytest.fixture
def averaged(tmp_path: Path) -> Path:
    """A SavedModel of means over images, which TensorFlow adds up one by one."""
    colours = RNG.standard_normal(8).astype(np.float32)
    module = tf.Module()
    spec = tf.TensorSpec((None, 112, 112, 1), tf.float32, name="x")
    serve = tf.function(
        lambda x: {"y": tf.reduce_mean(x * 0.1 + colours, [1, 2])}, input_signature=[spec]
    )
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": serve})
    return tmp_path / "m"


def verdicts(saved: Path, factor: float, folder: Path) -> tuple[Verdict, Verdict]:
    """Of its ONNX form with answers that much larger: without the source at hand, and with."""
    import onnx

    pool = InlinePool(folder)
    source = open_model(pool, locate(Request(str(saved))))
    target = folder / "m.onnx"
    adapter.to_onnx(source.ref, str(target), StepOptions(name="m"))
    model = onnx.load(target)
    (final,) = (node for node in model.graph.node if "y" in node.output)
    final.output[0] = "before"
    factors = onnx.numpy_helper.from_array(np.float32([factor]), "factor")
    model.graph.initializer.append(factors)
    model.graph.node.append(onnx.helper.make_node("Mul", ["before", "factor"], ["y"]))
    onnx.save(model, target)
    made = open_model(pool, locate(Request(str(target))))
    evidence = edge_evidence(pool, source, 0)

    def verdict(reference: Opened | None) -> Verdict:
        judged = tried(pool, made, evidence, judgement_for("float32"), reference=reference)
        return judged.verdict

    return verdict(None), verdict(source)


def test_what_the_source_itself_loses_is_no_error_of_the_artifact(
    averaged: Path, tmp_path: Path
) -> None:
    assert verdicts(averaged, 1.0, tmp_path) == (Verdict.FAILED, Verdict.PASSED)


@pytest.mark.slow
def test_what_a_large_model_loses_at_edges_is_no_error_either(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    image = keras.Input((112, 112, 8))
    colours = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(0.1, 0.3)(image))
    layers = [keras.layers.Dense(1024, "relu"), keras.layers.Dense(1024)]
    keras.Sequential([keras.Model(image, colours), *layers]).save(tmp_path / "m.keras")
    pool = InlinePool(tmp_path)
    source = open_model(pool, locate(Request(str(tmp_path / "m.keras"))))
    assert source.description.is_large
    evidence = edge_evidence(pool, source, 0)
    modelpack.convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", validate=False)
    made = open_model(pool, locate(Request(str(tmp_path / "m.onnx"))))
    judgement = judgement_for("float32")
    assert tried(pool, made, evidence, judgement).verdict is Verdict.FAILED
    assert tried(pool, made, evidence, judgement, reference=source).verdict is Verdict.PASSED


def test_more_than_that_is_an_error(averaged: Path, tmp_path: Path) -> None:
    assert verdicts(averaged, 1.01, tmp_path) == (Verdict.FAILED, Verdict.FAILED)
