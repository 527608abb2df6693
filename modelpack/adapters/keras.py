"""Keras models: `.keras` and `.h5` files, and Python references that give one."""

from __future__ import annotations

import contextlib
import gc
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.adapters import keras_failures, keras_scan, keras_wide, savedmodel_writing
from modelpack.adapters.keras_calling import Loaded, answer, layers_of, traced
from modelpack.adapters.keras_loading import identity, import_keras, load, loaded_from
from modelpack.adapters.keras_ranges import ranges
from modelpack.adapters.keras_signature import native, renamed
from modelpack.artifact import Encoding, ModelRef
from modelpack.dependencies import versions
from modelpack.errors import ConversionError, InputError, ModelpackError
from modelpack.judging.noise import COARSER, flip_last_bits
from modelpack.samples import read_cases, write_cases
from modelpack.signature import requested
from modelpack.steps import Description, RunOptions, RunResult, StepOptions, StepResult, timed

_TOOLS = ("keras", "tensorflow-cpu")


def scan(ref: ModelRef) -> list[str]:
    """List what loading the file would run or import, without loading it; empty when safe.

    Raises:
        InputError: the file is damaged, or holds weights only.
    """
    if ref.encoding is Encoding.PYTHON:
        return []
    if ref.imports:
        import_keras()
    return keras_scan.findings(ref)


def describe(ref: ModelRef) -> Description:
    """Load the model and describe it.

    Raises:
        InputError: the file is damaged, holds weights only, or needs code it does not hold.
        UntrustedSourceError: loading would run code that the file contains.
        ConversionError: the model cannot be described by a signature.
    """
    loaded = loaded_from(ref)
    weights = loaded.model.weights
    sizes: Counter[str] = Counter()
    for weight in weights:
        sizes[str(weight.dtype)] += int(np.prod(weight.shape))
    layers = list(layers_of(loaded.model))
    signature = requested(native(loaded), ref.inputs, ref.outputs)
    return Description(
        signature=signature,
        framework="keras",
        versions=versions(*_TOOLS),
        ops=dict(sorted(Counter(type(layer).__name__ for layer in layers).items())),
        parameters=sum(sizes.values()),
        precision=sizes.most_common(1)[0][0] if sizes else "float32",
        bindings=renamed(native(loaded), signature),
        producer=loaded.producer,
        ranges=ranges(loaded.model, signature),
        computes_in=_coarsest(layers),
        fingerprint=_fingerprint(loaded.model) if ref.encoding is Encoding.PYTHON else "",
    )


def _fingerprint(model: Any) -> str:
    """Digest of the bytes of all weights, in order."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"sha256:{digest.hexdigest()}"


def run(ref: ModelRef, cases: str, outputs: str, options: RunOptions) -> RunResult:
    """Call the Keras model itself on each case: the reference answer. On one thread.

    Raises:
        InputError: the cases do not fit the model, or it has no form in float64.
    """
    options.refuse("threads", "runtime")
    loaded = _widened(identity(ref)) if options.wide else loaded_from(ref)
    signature = ref.signature or describe(ref).signature
    feeds = read_cases(Path(cases), signature.inputs)
    try:
        with _nudged(loaded.model, options.nudge):
            write_cases(Path(outputs), [answer(loaded, signature, feed) for feed in feeds])
            latency = timed(lambda: answer(loaded, signature, feeds[0]), options.repeat)
    except ModelpackError:
        raise
    except Exception as error:
        raise InputError(
            f"Keras cannot run '{ref.display}': {keras_failures.reason(error)}"
        ) from error
    found = versions(*_TOOLS)
    runtime = f"keras {found.get('keras')} on tensorflow {found.get('tensorflow-cpu')}"
    return RunResult(runtime, latency)


@lru_cache(maxsize=1)
def _widened(ref: ModelRef) -> Loaded:
    loaded = load(ref)
    return replace(loaded, model=keras_wide.widened(loaded.model))


@contextlib.contextmanager
def _nudged(model: Any, seed: int) -> Iterator[None]:
    """The model with the last bits of its weights changed, for a while."""
    _flip(model, seed)
    try:
        yield
    finally:
        _flip(model, seed)


def _flip(model: Any, seed: int) -> None:
    coarse = _coarse_variables(model)
    for index, variable in enumerate(model.variables if seed else ()):
        array = np.array(variable.numpy(), order="C")
        flip_last_bits(array, seed, index, coarse.get(id(variable), ""))
        variable.assign(array)


def _coarse_variables(model: Any) -> dict[int, str]:
    """By the identity of a variable, the dtype that its layer computes in, if that is coarser."""
    return {
        id(variable): layer.compute_dtype
        for layer in layers_of(model)
        if layer.compute_dtype in COARSER
        for variable in layer.variables
    }


def _coarsest(layers: Iterable[Any]) -> str:
    """The coarsest dtype that layers compute in; empty for float32 and finer."""
    found = {layer.compute_dtype for layer in layers} & COARSER.keys()
    return max(found, key=COARSER.__getitem__, default="")


def to_savedmodel(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Write a SavedModel with one signature, ``serving_default``, and each weight once.

    Raises:
        ConversionError: the model cannot be traced, or a name cannot be an input's name.
    """
    _write(source, target)
    # The steps that follow in this process load what was written, beside the model.
    for cache in (load, native, _widened):
        cache.cache_clear()
    gc.collect()
    return StepResult(tools=versions(*_TOOLS))


def _write(source: ModelRef, target: str) -> None:
    import tensorflow as tf

    loaded = loaded_from(source)
    signature = source.signature or describe(source).signature
    savedmodel_writing.check_input_names(signature)
    module = tf.Module()
    try:
        # Were the function an attribute of the module, saving would trace it once more,
        # beyond the reach of plain_forms, and write it twice.
        concrete = traced(loaded, signature)
    except ModelpackError:
        raise
    except Exception as error:
        raise ConversionError(
            f"TensorFlow cannot trace '{source.display}': {keras_failures.reason(error)}",
            hint="the model's call must work with symbolic tensors of the sizes "
            + ", ".join(map(str, signature.inputs)),
        ) from error
    captured = {id(tensor) for tensor in concrete.captured_inputs}
    values = [variable.value for variable in loaded.model.variables]
    module.variables_ = [value for value in values if id(value.handle) in captured]
    module.tables_ = [
        table for layer in layers_of(loaded.model) if (table := _lookup_table(layer)) is not None
    ]
    savedmodel_writing.save(module, {signature.name: concrete}, target)


def _lookup_table(layer: Any) -> Any:
    """The TensorFlow table of a lookup layer; it must be tracked to be saved."""
    table = getattr(layer, "lookup_table", None)
    return table if hasattr(table, "resource_handle") else None
