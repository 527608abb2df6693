"""Models of classes of their own, as a Python reference gives them."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tests.sweep.keras_cases import seeded


class Residual(keras.Model):
    """A model that is a class, called with what it was built for."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Dense(8, "gelu")
        self.norm = layers.LayerNormalization()
        self.last = layers.Dense(3)

    def call(self, x: Any) -> Any:
        """(batch, 8) to (batch, 3)."""
        return self.last(self.norm(x + self.first(x)))


class Scale(layers.Layer):
    """A layer that is not part of Keras."""

    def build(self, shape: Any) -> None:
        """One factor for each column."""
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")

    def call(self, x: Any) -> Any:
        """Elementwise."""
        return keras.ops.tanh(x * self.factor)


def build_subclassed() -> Any:
    """A model whose inputs are known from how it was built."""

    def build() -> Any:
        model = Residual()
        model.build((None, 8))
        return model

    return seeded(build)


def build_custom_layer() -> Any:
    """A functional model of a custom layer."""

    def build() -> Any:
        x = keras.Input((5,), name="x")
        return keras.Model(x, layers.Dense(3)(Scale()(x)))

    return seeded(build)
