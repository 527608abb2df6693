"""Builds Keras models from files: HDF5, and archives, of Keras 3 and of Keras 2."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from modelpack.adapters import keras_legacy, keras_scan
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError

_Saved: TypeAlias = list[tuple[str, npt.NDArray[Any]]]

# State of random numbers, which Keras 2 counts among the weights of some layers.
_NO_WEIGHTS = {"StateVar", "seed_generator_state"}

# Weights that Keras 3 calls otherwise, at least in some layers.
_RENAMED = {"depthwise_kernel": "kernel"}


def load(ref: ModelRef) -> Any:
    """Build the model and give it its weights; it is not compiled.

    Raises:
        InputError: the weights are not those of the model.
        ConversionError: a layer of Keras 2 has no counterpart.
        Exception: whatever Keras raises of a file that it cannot read.
    """
    import keras

    legacy = keras_legacy.is_legacy(keras_scan.version(ref))
    if legacy:
        importlib.import_module("modelpack.adapters.keras_legacy_ops")  # registers its classes
    if ref.encoding is Encoding.HDF5:
        return _from_hdf5(ref)
    if legacy:
        return _from_rewritten(ref)
    return keras.saving.load_model(ref.location, compile=False, safe_mode=not ref.trusted)


def _from_rewritten(ref: ModelRef) -> Any:
    """Load a copy of an archive whose configuration is in the terms of Keras 3."""
    import keras

    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "model.keras"
        with zipfile.ZipFile(ref.location) as old, zipfile.ZipFile(copy, "w") as new:
            new.writestr("config.json", json.dumps(_trimmed(keras_scan.config(ref))))
            for item in old.infolist():
                if item.filename != "config.json":
                    with old.open(item) as source, new.open(item.filename, "w") as target:
                        shutil.copyfileobj(source, target)
        return keras.saving.load_model(copy, compile=False, safe_mode=not ref.trusted)


def _from_hdf5(ref: ModelRef) -> Any:
    """Build the model as Keras does it for archives.

    Its own way for HDF5 loses some arguments: an axis of more than one, or names of functions
    that a layer takes as texts.
    """
    import h5py
    import keras

    config = _located(_trimmed(keras_scan.config(ref)))
    model = keras.saving.deserialize_keras_object(config, safe_mode=not ref.trusted)
    with h5py.File(ref.location, "r") as file:
        _set_weights(model, file["model_weights"], ref)
    return model


def _trimmed(node: Any) -> Any:
    """A configuration without what is of training only, where layers do not take it."""
    import keras

    if isinstance(node, list):
        return [_trimmed(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _trimmed(item) for key, item in node.items()}
    layer = getattr(keras.layers, str(node.get("class_name")), None)
    if isinstance(layer, type) and isinstance(node.get("config"), dict):
        taken = inspect.signature(layer).parameters
        for key in ("trainable", "noise_shape") if "kwargs" not in taken else ():
            if key not in taken:
                node["config"].pop(key, None)
    return node


def _located(node: Any) -> Any:
    """A configuration that says of every layer and operation which module it is of."""
    if isinstance(node, list):
        return [_located(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _located(item) for key, item in node.items()}
    name, config = node.get("class_name"), node.get("config")
    if not isinstance(name, str) or name.startswith("__") or not isinstance(config, dict):
        return node
    if "module" not in node and name != "Lambda":  # whose legacy form is for Keras to read
        module = _module_of(name, is_layer="trainable" in config or "dtype" in config)
        node |= {"module": module, "registered_name": None if module else name}
    return node


def _module_of(name: str, *, is_layer: bool) -> str | None:
    """Where a class of a model's graph is; None of the user's own.

    Some operations have the name of a layer (``Add``); only layers say that they can be trained.
    """
    import keras
    from keras.src.applications import convnext
    from keras.src.models import functional
    from keras.src.ops import core, math, nn, numpy

    operations = (numpy, core, math, nn)
    if not is_layer and any(isinstance(getattr(item, name, None), type) for item in operations):
        return next(item.__name__ for item in operations if hasattr(item, name))
    if hasattr(keras.layers, name):
        return "keras.layers"
    if name in {"Sequential", "Model"}:
        return "keras.models"
    for family in ("initializers", "regularizers", "constraints"):
        if hasattr(getattr(keras, family), name):
            return f"keras.{family}"
    for module in (functional, convnext, *operations):
        if isinstance(getattr(module, name, None), type):
            return str(module.__name__)
    return None


# --- weights -------------------------------------------------------------------------------


def _set_weights(model: Any, group: Any, ref: ModelRef) -> None:
    """Give every layer its weights, in order; those of nested models also by name."""
    saved = [
        (name, weights) for name in _names(group, "layer_names") if (weights := _of(group[name]))
    ]
    layers = [layer for layer in model.layers if layer.weights]
    if len(saved) != len(layers):
        raise InputError(
            f"'{ref.display}' has weights of {len(saved)} layers, but its model has {len(layers)}: "
            f"{', '.join(name for name, _ in saved)}; {', '.join(item.name for item in layers)}"
        )
    for layer, (name, weights) in zip(layers, saved, strict=True):
        _assign(layer.trainable_weights + layer.non_trainable_weights, weights, name, ref)
    own = _of(group["top_level_model_weights"]) if "top_level_model_weights" in group else []
    inner = {id(weight) for layer in model.layers for weight in layer.weights}
    _assign([item for item in model.weights if id(item) not in inner], own, "the model", ref)
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):  # of adapted layers: what they compute with
            layer.finalize_state()


def _assign(variables: list[Any], saved: _Saved, layer: str, ref: ModelRef) -> None:
    wanted = [_last(variable.path) for variable in variables]
    found = [_last(name) for name, _ in saved]
    if not _is_same(wanted, found):
        saved = _reordered(variables, saved, layer, ref)
    for variable, (name, array) in zip(variables, saved, strict=True):
        if tuple(variable.shape) != array.shape:
            raise InputError(
                f"weight '{name}' of layer '{layer}' in '{ref.display}' has the shape "
                f"{array.shape}, but the layer takes {tuple(variable.shape)}"
            )
        variable.assign(array)


def _is_same(wanted: list[str], found: list[str]) -> bool:
    """Whether names agree; Keras 3 left some variables without one."""
    return len(wanted) == len(found) and all(
        want == have or want.startswith("variable")
        for want, have in zip(wanted, found, strict=True)
    )


def _reordered(variables: list[Any], saved: _Saved, layer: str, ref: ModelRef) -> _Saved:
    """Weights in the order of the variables with their names.

    Layers that were frozen when they were saved have them in another one.
    """
    by_name = {_tail(name): (name, array) for name, array in saved}
    wanted = [_tail(variable.path) for variable in variables]
    if len(by_name) == len(saved) and sorted(wanted) == sorted(by_name):
        return [by_name[name] for name in wanted]
    raise InputError(
        f"layer '{layer}' of '{ref.display}' was saved with the weights "
        f"{', '.join(name for name, _ in saved) or 'none'}, but takes "
        + (", ".join(variable.path for variable in variables) or "none"),
        hint="load it with the Keras that saved it, and save a SavedModel or a .keras file",
    )


def _of(group: Any) -> _Saved:
    names = [name for name in _names(group, "weight_names") if _last(name) not in _NO_WEIGHTS]
    return [(name, np.asarray(group[name])) for name in names]


def _names(group: Any, key: str) -> list[str]:
    """Texts of an attribute, which is split in parts if it is long."""
    parts = [key] if key in group.attrs else list(_parts(group, key))
    values = [value for part in parts for value in group.attrs[part]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _parts(group: Any, key: str) -> Iterator[str]:
    number = 0
    while f"{key}{number}" in group.attrs:
        yield f"{key}{number}"
        number += 1


def _last(name: str) -> str:
    last = name.rpartition("/")[2].partition(":")[0]
    return _RENAMED.get(last, last)


def _tail(name: str) -> str:
    """The layer and the name of a weight, without what the layer is within."""
    return f"{name.rpartition('/')[0].rpartition('/')[2]}/{_last(name)}"
