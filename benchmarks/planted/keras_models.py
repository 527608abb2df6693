"""Keras models of the planted-bug benchmark, trained for seconds on the digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.planted import data

_CLASSES = 10


def _cnn() -> Any:
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(32, activation="relu")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(_CLASSES, name="logits")(x))


def _separable() -> Any:
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(16, 3, padding="same")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.AveragePooling2D(2, padding="same")(layers.BatchNormalization()(x))
    x = layers.Flatten()(x)
    return keras.Model(image, layers.Dense(_CLASSES, activation="softmax", name="scores")(x))


def _gelu() -> Any:
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Dense(48, activation="gelu")(layers.Flatten()(image))
    x = layers.Dense(48, activation="gelu")(x)
    return keras.Model(image, layers.Dense(_CLASSES, name="logits")(x))


def _lstm() -> Any:
    steps = keras.Input((None, 8), name="steps")
    x = layers.LSTM(24)(steps)
    return keras.Model(steps, layers.Dense(_CLASSES, name="logits")(x))


def _gru() -> Any:
    steps = keras.Input((None, 8), name="steps")
    x = layers.Bidirectional(layers.GRU(16))(steps)
    return keras.Model(steps, layers.Dense(_CLASSES, activation="softmax", name="scores")(x))


def _attention() -> Any:
    steps = keras.Input((None, 8), name="steps")
    x = layers.Dense(16)(steps)
    mixed = layers.MultiHeadAttention(4, 4)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, mixed]))
    x = layers.Add()([x, layers.Dense(16, activation="gelu")(layers.Dense(16)(x))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(steps, layers.Dense(_CLASSES, name="logits")(x))


def _upsampling() -> Any:
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="elu")(x)
    x = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="restored")(x)
    return keras.Model(image, x)


def _outputs() -> Any:
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="valid", activation="relu")(image)
    x = layers.Dense(24, activation="tanh")(layers.Flatten()(x))
    logits = layers.Dense(_CLASSES, name="logits")(x)
    others = layers.Dense(_CLASSES, name="following")(x)
    return keras.Model(image, {"logits": logits, "following": others})


def _conv1d() -> Any:
    steps = keras.Input((None, 8), name="steps")
    x = layers.Conv1D(16, 3, padding="causal", activation="relu")(steps)
    x = layers.Conv1D(24, 3, padding="same", dilation_rate=2, activation="swish")(x)
    x = layers.GlobalMaxPooling1D()(x)
    return keras.Model(steps, layers.Dense(_CLASSES, name="logits")(x))


MODELS: dict[str, Callable[[], Any]] = {
    "keras_cnn": _cnn,
    "keras_separable": _separable,
    "keras_gelu": _gelu,
    "keras_lstm": _lstm,
    "keras_gru": _gru,
    "keras_attention": _attention,
    "keras_upsampling": _upsampling,
    "keras_outputs": _outputs,
    "keras_conv1d": _conv1d,
}


def make(name: str, folder: Path) -> None:
    """Train a model, and keep it as it was before its last epoch too."""
    keras.utils.set_random_seed(data.SEED)
    model = MODELS[name]()
    images, labels, held = data.digits()
    sequences = model.input_shape[-1] == 8
    shaped, rows = (a if sequences else a[..., None] for a in (images, held))
    goal, loss = _goal(model, shaped, labels)
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=loss)
    model.fit(shaped, goal, batch_size=64, epochs=5, verbose=0)
    model.save(folder / "stale.keras")
    model.fit(shaped, goal, batch_size=64, epochs=1, verbose=0)
    model.save(folder / "model.keras")
    data.write(folder, {model.inputs[0].name: rows})


def _goal(model: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    """What the model is to answer, and its loss."""
    if model.output_names == ["restored"] or getattr(model.layers[-1], "name", "") == "restored":
        return images, "mse"
    softmax = "scores" in [layer.name for layer in model.layers]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    if isinstance(model.output, dict):
        goals = {"logits": labels, "following": np.mod(labels + 1, _CLASSES)}
        return goals, {"logits": loss, "following": loss}
    return labels, loss
