"""What the layers behind a Keras model's inputs tell of the values that those usually take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from modelpack.adapters.keras_calling import layers_of
from modelpack.samples import of_words
from modelpack.signature import Signature, TensorSpec
from modelpack.steps import Range

_PIXELS = Range(low=(0.0,), high=(255.0,), smooth=True)

# Scales that take bytes to about [0, 1] or [-1, 1].
_OF_PIXELS = (1 / 300, 1 / 100)

# Layers in front of preprocessing that leave values as they are.
_ONLY_PLACES = {
    "CenterCrop",
    "Cropping2D",
    "Permute",
    "RandomCrop",
    "RandomFlip",
    "Reshape",
    "Resizing",
    "ZeroPadding2D",
}

_LOOKUPS = {"IntegerLookup", "StringLookup"}

# Standard deviations from the mean to either end of a uniform distribution.
_ENDS = float(np.sqrt(3))


def ranges(model: Any, signature: Signature) -> dict[str, Range]:
    """The usual range of each input that has one: ids, pixels, what was normalized, words."""
    found = _of_ids(signature, list(layers_of(model)))
    functional = getattr(model, "_functional", None) or model
    if not hasattr(functional, "_nodes_by_depth"):
        return found
    for spec, tensor in zip(signature.inputs, functional.inputs, strict=True):
        tell = _of_preprocessing if spec.dtype.is_float else _of_vocabulary
        usual = [tell(layer) for layer in _first_layers(functional, tensor)]
        known = [item for item in usual if item is not None]
        if known:
            found[spec.name] = _fitting(known[0], spec) if spec.dtype.is_float else known[0]
    return found


def _fitting(usual: Range, spec: TensorSpec) -> Range:
    """The range with one end for all columns, unless it has one for each that the input has."""
    usual = replace(usual, smooth=usual.smooth and len(spec.shape or ()) > 2)
    if spec.shape and spec.shape[-1] == len(usual.low):
        return usual
    return replace(usual, low=(min(usual.low),), high=(max(usual.high),))


def _of_ids(signature: Signature, layers: list[Any]) -> dict[str, Range]:
    """The token ids that every Embedding layer of the model knows, for integer inputs."""
    rows = [int(layer.input_dim) for layer in layers if type(layer).__name__ == "Embedding"]
    if not rows:
        return {}
    usual = Range(low=(0.0,), high=(float(min(rows) - 1),))
    integers = [spec.name for spec in signature.inputs if spec.dtype.is_integer]
    # Keras casts ids: an Embedding without an Input layer says float32.
    only = signature.inputs[0] if len(signature.inputs) == 1 else None
    names = integers or ([only.name] if only and only.dtype.is_float else [])
    return dict.fromkeys(names, usual)


def _first_layers(functional: Any, tensor: Any) -> Iterator[Any]:
    """The layers that compute with a tensor, behind layers that only place its values."""
    for node in chain(*functional._nodes_by_depth.values()):
        positions = [i for i, read in enumerate(node.input_tensors) if read is tensor]
        if not positions or node.is_input:
            continue
        layer = node.operation
        inner = getattr(layer, "_functional", None) or layer
        if hasattr(inner, "_nodes_by_depth"):
            yield from _first_layers(inner, inner.inputs[positions[0]])
        elif type(layer).__name__ in _ONLY_PLACES:
            yield from _first_layers(functional, node.outputs[0])
        else:
            yield layer


def _of_preprocessing(layer: Any) -> Range | None:
    kind = type(layer).__name__
    if kind == "Rescaling":
        scale = np.abs(np.asarray(layer.scale, np.float64))
        within = (scale > _OF_PIXELS[0]) & (scale < _OF_PIXELS[1])
        return _PIXELS if within.all() else None
    if kind == "Normalization" and not layer.invert:
        return _of_normalization(layer)
    return None


def _of_vocabulary(layer: Any) -> Range | None:
    """What a layer looks up, and what it does not know."""
    if type(layer).__name__ not in _LOOKUPS or layer.invert:
        return None
    words = layer.get_vocabulary(include_special_tokens=False)
    if not words:
        return None
    if isinstance(words[0], str):
        return of_words(words)
    return Range(low=(float(min(words)) - 1,), high=(float(max(words)) + 1,))


def _of_normalization(layer: Any) -> Range | None:
    """As wide around the mean as was seen; for each column, if it was seen by columns."""
    if getattr(layer, "mean", None) is None:
        return None
    mean, variance = (np.asarray(item, np.float64) for item in (layer.mean, layer.variance))
    reach = _ENDS * np.sqrt(variance)
    low, high = (mean - reach).ravel(), (mean + reach).ravel()
    by_columns = mean.ndim > 0 and mean.shape[-1] == mean.size
    if not by_columns:
        low, high = low.min(keepdims=True), high.max(keepdims=True)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    return Range(low=tuple(low.tolist()), high=tuple(high.tolist()))
