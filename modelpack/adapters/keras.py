"""Keras models: `.keras` and `.h5` files, and Python references that give one."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modelpack import reference
from modelpack.adapters import (
    keras_failures,
    keras_files,
    keras_scan,
    keras_wide,
    savedmodel_writing,
)
from modelpack.adapters.keras_tracing import plain_forms
from modelpack.artifact import Encoding, ModelRef
from modelpack.dependencies import versions
from modelpack.errors import (
    ConversionError,
    InputError,
    ModelpackError,
    UntrustedSourceError,
)
from modelpack.judging.noise import COARSER, flip_last_bits
from modelpack.samples import Case, numpy_dtype, read_cases, write_cases
from modelpack.signature import DEFAULT_SIGNATURE, Dim, DType, Signature, TensorSpec, requested
from modelpack.steps import (
    Description,
    Range,
    RunOptions,
    RunResult,
    StepOptions,
    StepResult,
    timed,
)

_TOOLS = ("keras", "tensorflow-cpu")

# Names that Keras makes up; their number tells how many layers the process made before.
_MADE_UP_INPUT = re.compile(r"(keras_tensor|input_layer|input)(_?\d+)?\Z")

# Sizes at which dynamic dimensions are probed: large ones survive strides and pooling,
# small ones fit into tables of positions.
_PROBE_BASES = (64, 8, 3)


def scan(ref: ModelRef) -> list[str]:
    """List what loading the file would run or import, without loading it; empty when safe.

    Raises:
        InputError: the file is damaged, or holds weights only.
    """
    if ref.encoding is Encoding.PYTHON:
        return []
    if ref.imports:
        _keras()
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
    signature = requested(_native(loaded), ref.inputs, ref.outputs)
    return Description(
        signature=signature,
        framework="keras",
        versions=versions(*_TOOLS),
        ops=dict(sorted(Counter(type(layer).__name__ for layer in layers).items())),
        parameters=sum(sizes.values()),
        precision=sizes.most_common(1)[0][0] if sizes else "float32",
        bindings=_renamed(_native(loaded), signature),
        producer=loaded.producer,
        ranges=_ranges(signature, layers),
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
    loaded = _widened(_identity(ref)) if options.wide else loaded_from(ref)
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
def _widened(ref: ModelRef) -> _Loaded:
    loaded = _load(ref)
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
    for cache in (_load, _native, _widened):
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
        concrete = _function(loaded, signature)
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
    savedmodel_writing.save(module, concrete, signature, target)


# --- loading ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Loaded:
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


def loaded_from(ref: ModelRef) -> _Loaded:
    """The live model; loaded once for all calls about the same file.

    Raises:
        InputError, UntrustedSourceError: as `describe`.
    """
    return _load(_identity(ref))


def _identity(ref: ModelRef) -> ModelRef:
    """The part of a reference that decides what is loaded."""
    return replace(ref, format="keras", outputs=(), signature=None)


@lru_cache(maxsize=1)
def _load(ref: ModelRef) -> _Loaded:
    keras = _keras()
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
    structure, inputs = _inputs(model, ref)
    if not model.built:
        _build(model, structure, inputs, ref)
    if ref.weights:
        _load_weights(model, ref)
    if any(getattr(layer, "stateful", False) for layer in layers_of(model)):
        raise ConversionError(
            f"'{ref.display}' has a stateful recurrent layer: its answers depend on earlier calls",
            hint="rebuild the model with stateful=False and load its weights",
        )
    return _Loaded(model, structure, inputs, producer)


def _keras() -> Any:
    """Import Keras on TensorFlow with one thread, so that results repeat bit by bit."""
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    # TensorFlow refuses once it has started, which it can only have done with these values.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras

    return keras


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
        model(_packed(structure, zeros), training=False)
    except Exception as error:
        raise InputError(
            f"'{ref.display}' cannot be called with {', '.join(map(str, inputs))}: "
            + keras_failures.reason(error),
            hint="describe every input as the model takes it, with --input",
        ) from error


def layers_of(model: Any) -> Iterator[Any]:
    """Every layer below the model, nested ones included, containers left out."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if type(layer).__name__ != "InputLayer" and not hasattr(layer, "layers"):
            yield layer


def _lookup_table(layer: Any) -> Any:
    """The TensorFlow table of a lookup layer; it must be tracked to be saved."""
    table = getattr(layer, "lookup_table", None)
    return table if hasattr(table, "resource_handle") else None


# --- the signature ---------------------------------------------------------------------


def _inputs(model: Any, ref: ModelRef) -> tuple[Any, tuple[TensorSpec, ...]]:
    """Return the structure of the model's inputs and one spec for each leaf."""
    import keras

    functional = getattr(model, "_functional", None) or model
    structure = getattr(functional, "_inputs_struct", None)
    if structure is None:
        return _undeclared_inputs(model, ref)
    leaves = keras.tree.flatten(structure)
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    names = _input_names(leaves, paths)
    for leaf, name in zip(leaves, names, strict=True):
        if getattr(leaf, "sparse", False) or getattr(leaf, "ragged", False):
            raise ConversionError(f"input '{name}' of '{ref.display}' is sparse or ragged")
    # A batch size that was declared, or is that of the first call, binds Keras to nothing.
    specs = tuple(
        _input_spec(name, leaf.dtype, (None, *leaf.shape[1:]) if leaf.shape else ())
        for leaf, name in zip(leaves, names, strict=True)
    )
    return structure, specs


def _input_names(leaves: Sequence[Any], paths: Sequence[tuple[Any, ...]]) -> list[str]:
    names = []
    for leaf, path in zip(leaves, paths, strict=True):
        name = leaf.name
        if _MADE_UP_INPUT.match(name):
            keys = [str(part) for part in path if isinstance(part, str)]
            name = "_".join(keys) or "input"
        names.append(_identifier(name))
    return _unique(names)


def _undeclared_inputs(model: Any, ref: ModelRef) -> tuple[Any, tuple[TensorSpec, ...]]:
    """Inputs of a subclassed model: what the user says, else the shapes it was built with."""
    if ref.inputs:
        structure = _call_structure(model, [spec.name for spec in ref.inputs])
        return structure, ref.inputs
    config = model.get_build_config() if model.built else None
    shape = (config or {}).get("input_shape")
    if not isinstance(shape, (list, tuple)) or not all(
        dim is None or isinstance(dim, int) for dim in shape
    ):
        raise InputError(
            f"'{ref.display}' does not declare its inputs",
            hint="describe each one, for example --input 'x:float32[batch,28,28]'",
        )
    dtype = getattr(model, "input_dtype", None) or model.compute_dtype
    return 0, (_input_spec("input", dtype, (None, *shape[1:])),)


def _call_structure(model: Any, names: list[str]) -> Any:
    """How a subclassed model with several inputs takes them: a dict of them, by name."""
    return 0 if len(names) == 1 else {name: index for index, name in enumerate(names)}


def _input_spec(name: str, dtype: str, shape: Sequence[int | None]) -> TensorSpec:
    dims: list[Dim] = []
    for axis, size in enumerate(shape):
        if size is not None:
            dims.append(int(size))
        else:
            dims.append("batch" if axis == 0 else f"{name}_d{axis}")
    return TensorSpec(name, _dtype(name, dtype), tuple(dims))


def _dtype(name: str, dtype: str) -> DType:
    try:
        return DType(dtype)
    except ValueError:
        raise ConversionError(
            f"tensor '{name}' has dtype {dtype}, which is not supported"
        ) from None


def _identifier(name: str) -> str:
    text = re.sub(r"\W", "_", name, flags=re.ASCII)
    return text if re.match(r"[A-Za-z_]", text) else f"_{text}"


def _unique(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    used = set(taken)
    result = []
    for name in names:
        candidate, number = name, 0
        while candidate in used:
            number += 1
            candidate = f"{name}_{number}"
        used.add(candidate)
        result.append(candidate)
    return result


@lru_cache(maxsize=1)
def _native(loaded: _Loaded) -> Signature:
    """The model's own signature; outputs are found by tracing it."""
    try:
        leaves = _output_leaves(loaded, loaded.inputs)
    except Exception as error:
        raise ConversionError(
            f"the model cannot be traced: {keras_failures.reason(error)}",
            hint="its call must work with symbolic tensors of the sizes "
            f"{', '.join(map(str, loaded.inputs))}: describe others with --input",
        ) from error
    taken = [spec.name for spec in loaded.inputs]
    names = _unique(map(_identifier, _output_names(loaded.model, leaves)), taken)
    shapes = [None if leaf.shape.rank is None else leaf.shape.as_list() for _, leaf in leaves]
    inputs, dims = _output_dims(loaded, shapes)
    outputs = tuple(
        TensorSpec(name, _dtype(name, leaf.dtype.name), shape)
        for (_, leaf), name, shape in zip(leaves, names, dims, strict=True)
    )
    return Signature(inputs, outputs, DEFAULT_SIGNATURE)


def _output_names(model: Any, leaves: list[tuple[tuple[Any, ...], Any]]) -> list[str]:
    """Keys of a dict of outputs, else the names of the output layers, else ``output``."""
    keyed = ["_".join(map(str, path)) for path, _ in leaves]
    if leaves and all(path and isinstance(path[0], str) for path, _ in leaves):
        return keyed
    functional = getattr(model, "_functional", None) or model
    declared = list(getattr(functional, "output_names", ()))
    if len(declared) == len(leaves):
        return declared
    return ["output"] if len(leaves) == 1 else [f"output_{i}" for i in range(len(leaves))]


def _output_dims(
    loaded: _Loaded, shapes: list[list[int | None] | None]
) -> tuple[tuple[TensorSpec, ...], list[tuple[Dim, ...] | None]]:
    """Name the dynamic dimensions of the outputs, by probing the model at chosen sizes.

    Inputs come back too: dimensions that must be equal for the model to be traced at all
    (a mask and its sequence) get one name.
    """
    dynamic = list(dict.fromkeys(dim for spec in loaded.inputs for dim in spec.dynamic_dims))
    if len(dynamic) < 2 and not any(None in (shape or [])[1:] for shape in shapes):
        return loaded.inputs, [_leading_batch(shape, dynamic) for shape in shapes]
    for inputs in (loaded.inputs, _joined(loaded.inputs)):
        for base in _PROBE_BASES:
            found = _probe(loaded, inputs, base)
            if found is not None:
                return inputs, [
                    _named(shape, *sizes) for shape, sizes in zip(shapes, found, strict=True)
                ]
    return loaded.inputs, [None if shape is None else tuple(shape) for shape in shapes]


def _leading_batch(shape: list[int | None] | None, dynamic: list[str]) -> tuple[Dim, ...] | None:
    if shape is None or not shape or shape[0] is not None or not dynamic:
        return None if shape is None else tuple(shape)
    return (dynamic[0], *shape[1:])


def _joined(inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Give the dynamic dimensions of one axis one name in all inputs."""
    first: dict[int, str] = {}
    for spec in inputs:
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str):
                first.setdefault(axis, dim)
    return tuple(
        replace(
            spec,
            shape=tuple(
                first[axis] if isinstance(dim, str) else dim
                for axis, dim in enumerate(spec.shape or ())
            ),
        )
        for spec in inputs
    )


_Sized = tuple[dict[str, int], list[int | None]]


def _probe(
    loaded: _Loaded, inputs: tuple[TensorSpec, ...], base: int
) -> list[tuple[_Sized, _Sized]] | None:
    """Trace at two sets of sizes; for each output, the sizes and the shape of each time."""
    dims = list(dict.fromkeys(dim for spec in inputs for dim in spec.dynamic_dims))
    rounds = []
    for offset in (1, len(dims) + 1):
        sizes = {dim: base * (offset + index) for index, dim in enumerate(dims)}
        try:
            leaves = _output_leaves(loaded, tuple(spec.with_dims(sizes) for spec in inputs))
        except Exception:
            # Sizes that the model refuses tell nothing; the caller tries others.
            return None
        rounds.append((sizes, [leaf.shape for _, leaf in leaves]))
    if any(shape.rank is None for _, shapes in rounds for shape in shapes):
        return None
    (first, ones), (second, twos) = rounds
    return [
        ((first, one.as_list()), (second, two.as_list()))
        for one, two in zip(ones, twos, strict=True)
    ]


def _named(shape: list[int | None] | None, first: _Sized, second: _Sized) -> tuple[Dim, ...] | None:
    """Put the name of the input dimension that an unknown one follows at both probes."""
    if shape is None:
        return None
    dims: list[Dim] = []
    for axis, size in enumerate(shape):
        fits = [
            dim
            for dim in first[0]
            if first[1][axis] == first[0][dim] and second[1][axis] == second[0][dim]
        ]
        dims.append(size if size is not None or not fits else fits[0])
    return tuple(dims)


def _ranges(signature: Signature, layers: list[Any]) -> dict[str, Range]:
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


def _renamed(native: Signature, given: Signature) -> dict[str, str]:
    pairs = zip((*given.inputs, *given.outputs), (*native.inputs, *native.outputs), strict=True)
    return {new.name: old.name for new, old in pairs}


# --- calling ---------------------------------------------------------------------------


def _packed(structure: Any, flat: Sequence[Any]) -> Any:
    import keras

    return keras.tree.pack_sequence_as(structure, list(flat))


def _flat_outputs(value: Any) -> list[tuple[tuple[Any, ...], Any]]:
    import keras

    found = keras.tree.flatten_with_path(value)
    return [(tuple(path), leaf) for path, leaf in found if leaf is not None]


def answer(loaded: _Loaded, signature: Signature, feed: Case) -> Case:
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
    with plain_forms():
        value = loaded.model(_packed(loaded.structure, flat), training=False)
    leaves = _flat_outputs(value)
    return {
        spec.name: np.asarray(leaf.numpy(), numpy_dtype(spec.dtype))
        for spec, (_, leaf) in zip(signature.outputs, leaves, strict=True)
    }


def _output_leaves(
    loaded: _Loaded, inputs: tuple[TensorSpec, ...]
) -> list[tuple[tuple[Any, ...], Any]]:
    """Trace the model at these inputs; return path and symbolic tensor of each output."""
    import tensorflow as tf

    found: list[tuple[tuple[Any, ...], Any]] = []

    def call(*flat: Any) -> list[Any]:
        value = loaded.model(_packed(loaded.structure, flat), training=False)
        # Tracing calls this again when the first call has made variables.
        found[:] = _flat_outputs(value)
        return [leaf for _, leaf in found]

    with plain_forms():
        tf.function(call, input_signature=_tensor_specs(tf, inputs)).get_concrete_function()
    return found


def _function(loaded: _Loaded, signature: Signature) -> Any:
    """The model traced as a function of flat, named tensors that returns a dict of them."""
    import tensorflow as tf

    def serve(*flat: Any) -> dict[str, Any]:
        value = loaded.model(_packed(loaded.structure, flat), training=False)
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
