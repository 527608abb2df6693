"""The signature of a Keras model: its declared inputs, and what it answers when it is traced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from modelpack.adapters import keras_failures
from modelpack.adapters.keras_calling import Loaded, output_leaves
from modelpack.artifact import ModelRef
from modelpack.errors import ConversionError, InputError
from modelpack.signature import DEFAULT_SIGNATURE, Dim, DType, Signature, TensorSpec

# Names that Keras makes up; their number tells how many layers the process made before.
_MADE_UP_INPUT = re.compile(r"(keras_tensor|input_layer|input)(_?\d+)?\Z")

# Sizes at which dynamic dimensions are probed: large ones survive strides and pooling,
# small ones fit into tables of positions.
_PROBE_BASES = (64, 8, 3)


def declared_inputs(model: Any, ref: ModelRef) -> tuple[Any, tuple[TensorSpec, ...]]:
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
def native(loaded: Loaded) -> Signature:
    """The model's own signature; outputs are found by tracing it."""
    try:
        leaves = output_leaves(loaded, loaded.inputs)
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
    loaded: Loaded, shapes: list[list[int | None] | None]
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
    loaded: Loaded, inputs: tuple[TensorSpec, ...], base: int
) -> list[tuple[_Sized, _Sized]] | None:
    """Trace at two sets of sizes; for each output, the sizes and the shape of each time."""
    dims = list(dict.fromkeys(dim for spec in inputs for dim in spec.dynamic_dims))
    rounds = []
    for offset in (1, len(dims) + 1):
        sizes = {dim: base * (offset + index) for index, dim in enumerate(dims)}
        try:
            leaves = output_leaves(loaded, tuple(spec.with_dims(sizes) for spec in inputs))
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


def renamed(native: Signature, given: Signature) -> dict[str, str]:
    pairs = zip((*given.inputs, *given.outputs), (*native.inputs, *native.outputs), strict=True)
    return {new.name: old.name for new, old in pairs}
