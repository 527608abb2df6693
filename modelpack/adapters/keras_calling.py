"""A loaded Keras model as a function of flat, named tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack.adapters.keras_memory import answers_forgotten
from modelpack.adapters.keras_tracing import plain_forms
from modelpack.errors import InputError
from modelpack.samples import Case, numpy_dtype
from modelpack.signature import Signature, TensorSpec


@dataclass(frozen=True, eq=False)
class Loaded:
    """A live model with how to call it.

    Attributes:
        model: the Keras model.
        structure: nested structure of its inputs, as it takes them.
        inputs: its inputs in the order in which the structure is flattened.
        producer: what wrote the file.
    """

    model: Any
    structure: Any
    inputs: tuple[TensorSpec, ...]
    producer: str = ""


def layers_of(model: Any) -> Iterator[Any]:
    """Every layer below the model, nested ones included, containers left out."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if type(layer).__name__ != "InputLayer" and not hasattr(layer, "layers"):
            yield layer


def packed(structure: Any, flat: Sequence[Any]) -> Any:
    import keras

    return keras.tree.pack_sequence_as(structure, list(flat))


def _flat_outputs(value: Any) -> list[tuple[tuple[Any, ...], Any]]:
    import keras

    found = keras.tree.flatten_with_path(value)
    return [(tuple(path), leaf) for path, leaf in found if leaf is not None]


def answer(loaded: Loaded, signature: Signature, feed: Case) -> Case:
    """Call the model.

    Raises:
        InputError: the feed lacks an input.
    """
    import tensorflow as tf

    missing = [spec.name for spec in signature.inputs if spec.name not in feed]
    if missing:
        raise InputError(f"the samples have no input '{missing[0]}'")
    flat = [
        tf.constant(feed[spec.name], tf.as_dtype(spec.dtype.value)) for spec in signature.inputs
    ]
    with plain_forms(), answers_forgotten():
        value = loaded.model(packed(loaded.structure, flat), training=False)
    leaves = _flat_outputs(value)
    return {
        spec.name: np.asarray(leaf.numpy(), numpy_dtype(spec.dtype))
        for spec, (_, leaf) in zip(signature.outputs, leaves, strict=True)
    }


def output_leaves(
    loaded: Loaded, inputs: tuple[TensorSpec, ...]
) -> list[tuple[tuple[Any, ...], Any]]:
    """Trace the model at these inputs; return path and symbolic tensor of each output."""
    import tensorflow as tf

    found: list[tuple[tuple[Any, ...], Any]] = []

    def call(*flat: Any) -> list[Any]:
        value = loaded.model(packed(loaded.structure, flat), training=False)
        # Tracing calls this again when the first call has made variables.
        found[:] = _flat_outputs(value)
        return [leaf for _, leaf in found]

    with plain_forms():
        tf.function(call, input_signature=_tensor_specs(tf, inputs)).get_concrete_function()
    return found


def traced(loaded: Loaded, signature: Signature) -> Any:
    """The model traced as a function of flat, named tensors that returns a dict of them."""
    import tensorflow as tf

    def serve(*flat: Any) -> dict[str, Any]:
        value = loaded.model(packed(loaded.structure, flat), training=False)
        leaves = [leaf for _, leaf in _flat_outputs(value)]
        return {spec.name: leaf for spec, leaf in zip(signature.outputs, leaves, strict=True)}

    function = tf.function(serve, input_signature=_tensor_specs(tf, signature.inputs))
    with plain_forms():
        return function.get_concrete_function()


def _tensor_specs(tf: Any, inputs: tuple[TensorSpec, ...]) -> list[Any]:
    return [
        tf.TensorSpec(
            None
            if spec.shape is None
            else [dim if isinstance(dim, int) else None for dim in spec.shape],
            tf.as_dtype(spec.dtype.value),
            name=spec.name,
        )
        for spec in inputs
    ]
