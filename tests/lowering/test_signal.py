"""Fourier transforms, windows and filter banks: lengths, axes, dynamic sizes; random numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from modelpack.errors import UnsupportedOpsError
from tests.lowering.backend_suite import RUNNERS
from tests.lowering.nodes import check, node_model

RANDOM = np.random.default_rng(0)


def signal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def length_input(x, length):
    """Inputs and constants for an optional dft_length."""
    return ([x], {}) if length is None else ([x, None], {1: np.array(length)})


@pytest.mark.parametrize("length", [None, 8, 5, 12])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("inverse", [0, 1])
def test_dft(length, parts, inverse):
    x = signal(2, 8, 3, parts)
    inputs, constants = length_input(x, length)
    model = node_model(
        "DFT", inputs, opset=17, constants=constants, axis=1, inverse=inverse, dynamic=False
    )
    check(model, [x], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [None, 7, 12])
def test_one_sided(length):
    x = signal(2, 9, 1)
    inputs, constants = length_input(x, length)
    model = node_model("DFT", inputs, opset=20, constants=constants, onesided=1, dynamic=False)
    check(model, [x], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [8, 9])
def test_one_sided_inverse(length):
    spectrum = np.fft.rfft(RANDOM.standard_normal((2, length)))
    x = np.stack([spectrum.real, spectrum.imag], -1).astype(np.float32)
    model = node_model(
        "DFT", [x, None], opset=20, constants={1: np.array(length)}, onesided=1, inverse=1,
        dynamic=False,
    )  # fmt: skip
    expected = np.fft.irfft(spectrum, length)[..., None]
    for run in RUNNERS:
        np.testing.assert_allclose(answer(model, run, x), expected, rtol=1e-4, atol=1e-5)


def answer(model, target, *feed):
    with tempfile.TemporaryDirectory() as scratch:
        return RUNNERS[target](model, Path(scratch))(list(feed))[0]


def with_parts(model, parts):
    """Real or complex is never a dynamic size."""
    model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value = parts
    return model


def test_dft_of_any_length():
    x = signal(3, 8, 1)
    model = with_parts(node_model("DFT", [x], opset=20), 1)
    check(model, [x], [x[:1, :5]], rtol=1e-4, atol=1e-5)


def test_unknown_parts_are_refused():
    x = signal(3, 8, 1)
    with pytest.raises(UnsupportedOpsError, match="real or complex"):
        check(node_model("DFT", [x], opset=20), [x])


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("given", ["window", "length"])
def test_stft(onesided, given):
    x = signal(2, 40, 1)
    window = np.hanning(16).astype(np.float32)
    constants = {1: np.array(5), **({2: window} if given == "window" else {3: np.array(16)})}
    inputs = [x] + [None] * max(constants)
    model = with_parts(
        node_model("STFT", inputs, opset=17, constants=constants, onesided=onesided), 1
    )
    check(model, [x], [x[:1, :30]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(op, periodic):
    size = np.array(11)
    check(node_model(op, [size], opset=17, periodic=periodic), [size], rtol=1e-5, atol=1e-6)
    double = node_model(op, [None], opset=17, constants={0: size}, output_datatype=TensorProto.DOUBLE)  # noqa: E501  # fmt: skip
    check(double, [], targets=["savedmodel"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mels", [4, 7])
def test_mel_weights(mels):
    values = [np.array(mels), np.array(64), np.array(8000), np.float32(20), np.float32(3900)]
    constants = dict(enumerate(values))
    model = node_model("MelWeightMatrix", [None] * 5, opset=17, constants=constants)
    check(model, [], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "attributes", "mean"),
    [
        ("RandomNormalLike", {"mean": 3.0, "scale": 0.5}, 3.0),
        ("RandomUniformLike", {"low": 2.0, "high": 6.0}, 4.0),
        ("Bernoulli", {"dtype": TensorProto.FLOAT}, 0.25),
        ("Multinomial", {"sample_size": 400}, 1.0),
    ],
)
@pytest.mark.parametrize("target", RUNNERS)
def test_random_numbers_have_their_distribution(op, attributes, mean, target):
    x = np.full((40, 50), 0.25, np.float32)
    if op == "Multinomial":
        x = np.log(np.array([[0.25, 0.5, 0.25]], np.float32)).repeat(5, 0)
    model = node_model(op, [x], opset=15, seed=3.0, **attributes)
    drawn = answer(model, target, x)
    assert len(drawn) == len(x)
    np.testing.assert_allclose(drawn.mean(), mean, rtol=0, atol=0.15)
    assert drawn.std() > 0.1
