"""Loading Keras models: files, weights, and Python references that give one."""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modelpack import reference
from modelpack.adapters import keras_failures, keras_files, keras_scan
from modelpack.adapters.keras_calling import Loaded, layers_of, packed
from modelpack.adapters.keras_signature import declared_inputs
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError, InputError, ModelpackError, UntrustedSourceError
from modelpack.signature import TensorSpec

# What Keras imports if it finds it, for training and plots: a second, and 150 MB.
_BESIDE = ("sklearn", "pandas", "matplotlib")


def loaded_from(ref: ModelRef) -> Loaded:
    """The live model; loaded once for all calls about the same file.

    Raises:
        InputError, UntrustedSourceError: as `describe`.
    """
    return load(identity(ref))


def identity(ref: ModelRef) -> ModelRef:
    """The part of a reference that decides what is loaded."""
    return replace(ref, format="keras", outputs=(), signature=None)


@lru_cache(maxsize=1)
def load(ref: ModelRef) -> Loaded:
    keras = import_keras()
    reference.import_modules(ref)
    producer = ""
    if ref.encoding is Encoding.PYTHON:
        model = reference.load(ref)
        if not isinstance(model, keras.layers.Layer):
            raise InputError(f"'{ref.display}' gives a {type(model).__name__}, not a Keras model")
    else:
        model = _load_file(ref)
        producer = keras_scan.producer(ref)
    model.trainable = False
    structure, inputs = declared_inputs(model, ref)
    if not model.built:
        _build(model, structure, inputs, ref)
    if ref.weights:
        _load_weights(model, ref)
    if any(getattr(layer, "stateful", False) for layer in layers_of(model)):
        raise ConversionError(
            f"'{ref.display}' has a stateful recurrent layer: its answers depend on earlier calls",
            hint="rebuild the model with stateful=False and load its weights",
        )
    return Loaded(model, structure, inputs, producer)


def import_keras() -> Any:
    """Import Keras on TensorFlow with one thread, so that results repeat bit by bit."""
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"
    from modelpack.adapters.tensorflow_alone import tf

    # TensorFlow refuses once it has started, which it can only have done with these values.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    with _hidden(_BESIDE):
        import keras

    return keras


@contextlib.contextmanager
def _hidden(names: Iterable[str]) -> Iterator[None]:
    """Let modules seem not installed, for a while; those that are imported already stay."""
    nothing: Any = None  # which Python takes for a module that cannot be imported
    fresh = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(fresh, nothing))
    try:
        yield
    finally:
        for name in fresh:
            del sys.modules[name]


def _load_file(ref: ModelRef) -> Any:
    keras_scan.config(ref)  # tells what is wrong with a file better than Keras does
    try:
        return keras_files.load(ref)
    except ModelpackError:
        raise
    except Exception as error:
        if isinstance(error, zipfile.BadZipFile):
            raise InputError(f"'{ref.display}' is damaged: {error}") from error
        found = keras_scan.findings(ref)
        if "deserialization of a" in str(error) and not ref.trusted:
            raise UntrustedSourceError(
                f"loading '{ref.display}' would run code that it contains: "
                + ("; ".join(found) or keras_failures.reason(error)),
                hint="pass --trust if you trust its source",
            ) from error
        raise InputError(
            f"Keras cannot load '{ref.display}': {keras_failures.reason(error)}"
            + ("".join(f"\n  {item}" for item in found)),
            hint=_load_hint(ref, found),
        ) from error


def _load_hint(ref: ModelRef, found: list[str]) -> str:
    if found or ref.imports:
        return (
            "a custom class is not in the file: decorate it with "
            "keras.saving.register_keras_serializable() and give its module with --import, or "
            f"give a Python reference that builds the model, with --weights {ref.display}"
        )
    if ref.encoding is Encoding.HDF5:
        return "the .h5 format cannot hold every model: save it again as .keras"
    return "load and save the model with the installed Keras version"


def _load_weights(model: Any, ref: ModelRef) -> None:
    try:
        model.load_weights(ref.weights)
    except Exception as error:
        raise InputError(
            f"the weights '{Path(ref.weights).name}' do not fit '{ref.display}': "
            + keras_failures.reason(error),
            hint="weights are a .weights.h5, .h5 or .keras file of the same architecture",
        ) from error


def _build(model: Any, structure: Any, inputs: tuple[TensorSpec, ...], ref: ModelRef) -> None:
    """Call the model once on zeros, since only then it knows its weights."""
    zeros = [
        np.zeros([dim if isinstance(dim, int) else 1 for dim in spec.shape or ()], spec.dtype.value)
        for spec in inputs
    ]
    try:
        model(packed(structure, zeros), training=False)
    except Exception as error:
        raise InputError(
            f"'{ref.display}' cannot be called with {', '.join(map(str, inputs))}: "
            + keras_failures.reason(error),
            hint="describe every input as the model takes it, with --input",
        ) from error
