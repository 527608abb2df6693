"""Models that compute in float16 are judged by what float16 loses, no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest

import modelpack
from modelpack.judging.noise import SAFETY

keras = pytest.importorskip("keras")


@pytest.mark.slow
def test_a_mixed_precision_model_is_judged_by_the_noise_of_float16(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(32, "relu", dtype="mixed_float16") for _ in range(2)]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)])
    model.save(tmp_path / "m.keras")
    manifest = modelpack.convert(tmp_path / "m.keras", tmp_path / "out", to=["onnx", "tflite"])
    for artifact in manifest.artifacts:  # both compute in float32
        (figures,) = artifact.parity.outputs
        assert artifact.parity.verdict.value == "passed"
        assert 0.2 < figures.max_noise < SAFETY
        assert figures.max_rel > 1e-5
