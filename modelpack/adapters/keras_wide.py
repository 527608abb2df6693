"""A Keras model that computes in float64, to tell what float32 loses."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.errors import InputError, first_line

_NARROW = {"float16", "bfloat16", "float32"}
_POLICIES = {*_NARROW, "mixed_float16", "mixed_bfloat16"}

# Weights of 100 MB: building the model once more must not take longer than converting it.
_MOST_WEIGHTS = 25_000_000


def widened(model: Any) -> Any:
    """A copy of a model with weights, and all that is computed, in float64.

    Of mixed precision too: what it loses is the noise of its own arithmetic.

    Raises:
        InputError: it cannot be built from its configuration, has other dtypes, or is too large.
    """
    import keras

    if model.count_params() > _MOST_WEIGHTS:
        raise InputError("the model is too large to compute in float64")
    weights = model.get_weights()
    if any(array.dtype.kind in "fV" and array.dtype.name not in _NARROW for array in weights):
        raise InputError("a model of float64 computes in it already")
    try:
        config = _in_float64(keras.saving.serialize_keras_object(model))
        copy = keras.saving.deserialize_keras_object(config)
        copy.set_weights([_wide(array) for array in weights])
        for layer in copy._flatten_layers():
            if hasattr(layer, "finalize_state"):  # of adapted layers: what they compute with
                layer.finalize_state()
    except Exception as error:  # custom classes and lambdas fail in ways of their own
        raise InputError(
            f"the model cannot be built to compute in float64: {first_line(error)}"
        ) from error
    copy.trainable = False
    return copy


def _in_float64(config: Any) -> Any:
    """A serialized object with float64 in place of every coarser dtype and policy."""
    if isinstance(config, dict):
        return {key: _in_float64(item) for key, item in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_in_float64(item) for item in config)
    return "float64" if isinstance(config, str) and config in _POLICIES else config


def _wide(array: Any) -> Any:
    return array.astype(np.float64) if array.dtype.kind in "fV" else array
