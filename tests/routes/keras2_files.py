"""Writes HDF5 files as Keras 2 writes them: its configuration, and its names of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Weights = Mapping[str, Sequence[tuple[str, Any]]]


def layer(kind: str, name: str, *nodes: Any, **config: Any) -> dict[str, Any]:
    """A layer of a model's configuration; nodes are its calls in a functional model."""
    own = {"name": name, "trainable": True, "dtype": "float32", **config}
    made: dict[str, Any] = {"class_name": kind, "config": own}
    return {**made, "name": name, "inbound_nodes": list(nodes)} if nodes else made


def entry(name: str, *shape: int | None, **config: Any) -> dict[str, Any]:
    """The input of a functional model, or the first item of a Sequential."""
    own = {"batch_input_shape": [None, *shape], "dtype": "float32", "sparse": False}
    own |= {"ragged": False, "name": name, **config}
    return {"class_name": "InputLayer", "config": own, "name": name, "inbound_nodes": []}


def sequential(name: str, *layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def functional(
    name: str, inputs: list[Any], outputs: list[Any], *layers: dict[str, Any]
) -> dict[str, Any]:
    config = {"name": name, "trainable": True, "layers": list(layers)}
    return {
        "class_name": "Functional",
        "config": {**config, "input_layers": inputs, "output_layers": outputs},
    }


def write(path: Path, config: dict[str, Any], weights: Weights, version: str = "2.15.0") -> Path:
    """Write a compiled model with a loss and metrics of the user's own.

    Args:
        path: of the file.
        config: of the model.
        weights: by layer, in the order of the model, names and arrays.
        version: of Keras.
    """
    training = {"loss": "my_loss", "metrics": ["my_metric"], "optimizer_config": {}}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["training_config"] = json.dumps(training)
        file.create_group("optimizer_weights")
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        group.create_group("top_level_model_weights").attrs["weight_names"] = np.zeros(0, "S1")
        for name, items in weights.items():
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [key.encode() for key, _ in items]
            for key, array in items:
                inner.create_dataset(key, data=np.asarray(array, np.float32))
    return path
