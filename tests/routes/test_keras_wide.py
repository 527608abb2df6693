"""Keras models that compute in float64, as a measure of what float32 loses."""

from __future__ import annotations

import numpy as np
import pytest

from modelpack.adapters.keras_wide import widened
from modelpack.errors import InputError

keras = pytest.importorskip("keras")


def test_every_layer_computes_in_float64() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(50, activation="tanh"), keras.layers.Dense(3)]
    )
    rows = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    first, bias, second, other = (array.astype(np.float64) for array in model.get_weights())
    exact = np.tanh(rows @ first + bias) @ second + other
    found = widened(model)(rows)
    np.testing.assert_allclose(found, exact, rtol=1e-13, atol=1e-13)
    assert np.abs(np.asarray(model(rows)) - exact).max() > 1e-9


def test_the_model_itself_stays_as_it_was() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    before = [array.tobytes() for array in model.get_weights()]
    widened(model)
    assert [array.tobytes() for array in model.get_weights()] == before
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}


def test_a_model_without_a_configuration_is_refused() -> None:
    class Own(keras.Model):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = keras.layers.Dense(width)

        def call(self, rows):  # type: ignore[no-untyped-def]
            return self.layer(rows)

    model = Own(3)
    model(np.zeros((1, 2), np.float32))
    with pytest.raises(InputError, match="float64"):
        widened(model)


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
def test_a_model_of_mixed_precision_computes_in_float64_throughout(policy: str) -> None:
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(50, activation="tanh", dtype=policy)
    model = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(3)])
    rows = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    first, bias, second, other = (array.astype(np.float64) for array in model.get_weights())
    exact = np.tanh(rows @ first + bias) @ second + other
    np.testing.assert_allclose(widened(model)(rows), exact, rtol=1e-13, atol=1e-13)
    assert np.abs(np.asarray(model(rows)) - exact).max() > 1e-5
