"""What goes into and comes out of a PyTorch model, found out by running it.

An `torch.nn.Module` does not say its shapes. It is run at several sizes of each dynamic
dimension: an axis of an output that always equals one dimension's size has its name, one
that never changes is static, and any other is unknown.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument
from torch.utils import _pytree as pytree

from modelpack.adapters.torch_arguments import INPUT_HINT, Arguments
from modelpack.adapters.torch_failures import place_of
from modelpack.adapters.torch_randomness import random_place
from modelpack.adapters.torch_ranges import program_ranges
from modelpack.adapters.torch_script import ScriptGraph, forward_signature, has_embeddings
from modelpack.artifact import ModelRef
from modelpack.errors import InputError
from modelpack.samples import Array, dtype_of, numpy_dtype
from modelpack.signature import Dim, DType, Signature, TensorSpec
from modelpack.steps import Range

# Sizes of the dynamic dimensions in the trial runs, one family after the other: small and
# different ones first, then multiples of 32 for networks that halve their input repeatedly.
# No size is 1, which broadcasts.
_FAMILIES = (
    ((2, 3, 5, 7, 11, 13), (3, 5, 7, 11, 13, 2), (4, 9, 6, 8, 10, 12)),
    ((2, 8, 16, 24, 32, 40), (3, 16, 24, 32, 40, 8), (4, 24, 32, 40, 8, 16)),
    ((2, 64, 96, 128, 160, 192), (3, 96, 128, 64, 192, 160), (4, 128, 64, 96, 224, 256)),
)


# --- tensors and arrays --------------------------------------------------------------

_UNLIMITED = 1 << 31  # sizes have no such limit in practice; PyTorch writes infinity


def torch_dtype(dtype: DType) -> torch.dtype:
    """Return the PyTorch dtype of the same name.

    Raises:
        InputError: PyTorch has no strings.
    """
    found = getattr(torch, dtype.value, None)
    if not isinstance(found, torch.dtype):
        raise InputError(f"PyTorch models take no inputs of type {dtype}")
    return found


def spec_dtype(dtype: torch.dtype, name: str) -> DType:
    """Return the `DType` of a PyTorch dtype.

    Raises:
        InputError: models exchange no such values here (complex numbers, ...).
    """
    try:
        return DType(str(dtype).removeprefix("torch."))
    except ValueError:
        raise InputError(f"'{name}' has the dtype {dtype}, which is not supported") from None


def to_tensor(array: Array, spec: TensorSpec) -> torch.Tensor:
    """Return a tensor with a copy of the array's values.

    Raises:
        InputError: the array does not have the dtype of the spec.
    """
    if dtype_of(array) is not spec.dtype:
        raise InputError(f"input '{spec.name}' is {spec.dtype}, but was fed {array.dtype}")
    copied = np.array(array, order="C")
    if spec.dtype is DType.BFLOAT16:
        return torch.from_numpy(copied.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copied)


def to_array(tensor: torch.Tensor) -> Array:
    """Return the values of a tensor of any layout as a contiguous array."""
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if dense.dtype is torch.bfloat16:
        bits: Array = dense.view(torch.int16).numpy()
        return bits.view(numpy_dtype(DType.BFLOAT16))
    array: Array = dense.numpy()
    return array


# --- calling -------------------------------------------------------------------------


class FlatModel(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """A model that takes tensors by position and returns a tuple of tensors.

    The order of outputs is that of `named_outputs`, whatever structure the model returns.

    Args:
        model: the model.
        names: its inputs by name, in the order they are given here.
    """

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self._arguments = Arguments(model, names)

    def named(self, *tensors: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        """Call the model and name its outputs."""
        args, kwargs = self._arguments(tensors)
        return named_outputs(self.model(*args, **kwargs))

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the model. A tensor returned twice, or unchanged, is copied."""
        seen = [*tensors]
        outputs: list[torch.Tensor] = []
        for _, tensor in self.named(*tensors):
            again = any(tensor is other for other in seen)
            outputs.append(tensor.clone() if again else tensor)
            seen.append(tensor)
        return tuple(outputs)


class FlatProgram(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """An exported program as a module that takes its tensors by position.

    Args:
        program: the program.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        # The program's own checks would refuse sizes that the export did not name.
        self.module = program.module(check_guards=False)
        self._spec = program.call_spec.in_spec
        self._constants = program_constants(program)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the program with the tensors in place of its example inputs."""
        remaining = iter(tensors)
        leaves = [
            self._constants[index] if index in self._constants else next(remaining)
            for index in range(self._spec.num_leaves)
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        return tuple(tensor for _, tensor in named_outputs(self.module(*args, **kwargs)))


def named_outputs(result: Any) -> list[tuple[str, torch.Tensor]]:
    """Flatten what a model returned into named tensors.

    Keys of dicts and fields of dataclasses and named tuples are names; positions are
    numbered. None is left out.

    Raises:
        InputError: there is something else than tensors in it, or nothing.
    """
    found = list(_leaves(result, ""))
    if not found:
        raise InputError("the model returns no tensor")
    if len(found) == 1 and re.fullmatch(r"(output_0)?", found[0][0]):
        return [("output", found[0][1])]
    named = [(re.sub(r"[^A-Za-z0-9_.:/-]", "_", name), tensor) for name, tensor in found]
    return [(name if re.match(r"[A-Za-z_]", name) else f"_{name}", item) for name, item in named]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):  # dicts, and the ModelOutput of transformers
        for key, item in value.items():
            yield from _leaves(item, f"{path}_{key}" if path else str(key))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from _leaves(dict(zip(value._fields, value, strict=True)), path)
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path or 'output'}_{index}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        yield from _leaves(fields, path)
    elif value is not None:
        raise InputError(
            f"the model returns a {type(value).__name__} as '{path or 'output'}', not a tensor",
            hint="wrap the model in a module that returns tensors only (for transformers "
            "models, set config.use_cache = False)",
        )


# --- modules -------------------------------------------------------------------------


def module_signature(model: torch.nn.Module, ref: ModelRef) -> tuple[Signature, dict[str, Range]]:
    """Find out the outputs of a module, and the range of its integer inputs, by running it.

    Raises:
        InputError: the inputs are not described fully, the module does not run with them,
            or gives different results for the same inputs.
    """
    _demand_inputs(model, ref)
    flat = FlatModel(model, [spec.name for spec in ref.inputs])
    dims = Signature(ref.inputs, ()).dynamic_dims
    failure: Exception | None = None
    for family in _FAMILIES:
        sizes = [dict(zip(dims, run, strict=False)) for run in family]
        try:
            ranges = module_ranges(model, flat, ref.inputs, sizes[0])
            runs = [_outputs(flat, ref.inputs, run, ranges) for run in sizes]
        except InputError:
            raise
        except Exception as error:  # whatever user code raises at a size it cannot take
            failure = failure or error
            continue
        return Signature(ref.inputs, tuple(_output_specs(runs, sizes))), ranges
    place = place_of(failure) if failure is not None else ""
    raise InputError(
        f"'{ref.display}' does not run with the described inputs "
        f"({', '.join(map(str, ref.inputs))}){place}: {failure}",
        hint="check dtypes, order and dimensions; forward takes "
        + ", ".join(forward_signature(model).parameters),
    ) from failure


def _demand_inputs(model: torch.nn.Module, ref: ModelRef) -> None:
    if not ref.inputs:
        takes = ", ".join(forward_signature(model).parameters)
        raise InputError(
            f"'{ref.display}' does not say its inputs: forward takes ({takes})", hint=INPUT_HINT
        )
    for spec in ref.inputs:
        if spec.shape is None or None in spec.shape:
            raise InputError(
                f"input '{spec.name}' needs a number or a name for each dimension, not {spec}",
                hint=INPUT_HINT,
            )
    dims = Signature(ref.inputs, ()).dynamic_dims
    if len(dims) > len(_FAMILIES[0][0]):
        raise InputError(f"{len(dims)} dynamic dimensions are more than can be told apart")


def example_inputs(
    specs: Sequence[TensorSpec], sizes: Mapping[str, int], ranges: Mapping[str, Range], seed: int
) -> tuple[torch.Tensor, ...]:
    """Make up one tensor per input at the given sizes of the dynamic dimensions."""
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for spec in specs:
        shape = [dim if isinstance(dim, int) else sizes[str(dim)] for dim in spec.shape or ()]
        dtype = torch_dtype(spec.dtype)
        if spec.dtype.is_float:
            tensors.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            high = int(ranges[spec.name].high[0]) if spec.name in ranges else 1
            tensors.append(torch.randint(0, high + 1, shape, generator=generator).to(dtype))
    return tuple(tensors)


def example_sizes(
    flat: FlatModel, specs: Sequence[TensorSpec], ranges: Mapping[str, Range]
) -> dict[str, int]:
    """Different sizes of the dynamic dimensions that a model runs with, none of them 0 or 1."""
    dims = Signature(tuple(specs), ()).dynamic_dims
    smallest = {name: 2 + index for index, name in enumerate(dims)}
    tried = [smallest, *(dict(zip(dims, runs[0], strict=False)) for runs in _FAMILIES)]
    return next((sizes for sizes in tried if _takes(flat, specs, ranges, sizes)), smallest)


def _takes(
    flat: FlatModel,
    specs: Sequence[TensorSpec],
    ranges: Mapping[str, Range],
    sizes: Mapping[str, int],
) -> bool:
    try:
        with torch.no_grad():
            flat(*example_inputs(specs, sizes, ranges, seed=0))
    except Exception:  # whatever user code raises at a size it cannot take
        return False
    return True


def module_ranges(
    model: torch.nn.Module,
    flat: FlatModel,
    specs: Sequence[TensorSpec],
    sizes: Mapping[str, int],
) -> dict[str, Range]:
    """Bound integer inputs by the embeddings that they index, or by the smallest of all."""
    tensors = example_inputs(specs, sizes, {}, seed=0)
    with torch.no_grad():
        if isinstance(model, torch.jit.ScriptModule):
            tables = _tables_of_script(model, specs, tensors)
        else:
            tables = _tables(model, flat, tensors)
    if not tables:
        return {}
    limits = {
        spec.name: min((rows for rows, indices in tables if indices is tensor), default=0)
        for spec, tensor in zip(specs, tensors, strict=True)
    }
    smallest = min(rows for rows, _ in tables)
    masks = {spec.name for spec in specs if spec.name.endswith("mask") and not limits[spec.name]}
    return {
        spec.name: Range((0.0,), (float((limits[spec.name] or smallest) - 1),))
        if spec.name not in masks
        else Range((0.0,), (1.0,))
        for spec in specs
        if spec.dtype.is_integer
    }


def _tables_of_script(
    script: torch.jit.ScriptModule,
    specs: Sequence[TensorSpec],
    tensors: Sequence[torch.Tensor],
) -> list[tuple[int, torch.Tensor | None]]:
    if not has_embeddings(script):
        return []
    graph = ScriptGraph(script)
    FlatModel(graph, [spec.name for spec in specs])(*tensors)
    return graph.tables


def _tables(
    model: torch.nn.Module, flat: FlatModel, tensors: Sequence[torch.Tensor]
) -> list[tuple[int, torch.Tensor | None]]:
    """The number of rows of each embedding, with what it was indexed by."""
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, torch.nn.Embedding | torch.nn.EmbeddingBag)
    ]
    found: list[tuple[int, torch.Tensor | None]] = [(one.num_embeddings, None) for one in layers]

    def note(layer: Any, args: tuple[Any, ...]) -> None:
        found.append((layer.num_embeddings, args[0] if args else None))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        if layers:
            flat(*tensors)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _outputs(
    flat: FlatModel,
    specs: Sequence[TensorSpec],
    sizes: Mapping[str, int],
    ranges: Mapping[str, Range],
) -> list[tuple[str, torch.Tensor]]:
    tensors = example_inputs(specs, sizes, ranges, seed=0)
    with torch.no_grad():
        first, second = flat.named(*tensors), flat.named(*tensors)
    for (name, once), (_, again) in zip(first, second, strict=True):
        if once.shape != again.shape or not torch.equal(
            torch.nan_to_num(once), torch.nan_to_num(again)
        ):
            place = random_place(lambda: flat(*tensors))
            why = "keeps state" if place is None else f"draws random numbers{place}"
            raise InputError(
                f"output '{name}' differs between two runs on the same inputs: the model {why}",
                hint="nothing can be compared with a model that does so in evaluation mode",
            )
    return first


def _output_specs(
    runs: Sequence[Sequence[tuple[str, torch.Tensor]]], sizes: Sequence[Mapping[str, int]]
) -> Iterator[TensorSpec]:
    names = [[name for name, _ in run] for run in runs]
    if any(other != names[0] for other in names):
        raise InputError("the number of outputs depends on the sizes of the inputs")
    for position, name in enumerate(names[0]):
        tensors = [run[position][1] for run in runs]
        dtype = spec_dtype(tensors[0].dtype, name)
        if len({tensor.dim() for tensor in tensors}) > 1:
            yield TensorSpec(name, dtype)
            continue
        axes = zip(*(tensor.shape for tensor in tensors), strict=True)
        yield TensorSpec(name, dtype, tuple(_dim(list(axis), sizes) for axis in axes))


def _dim(axis: list[int], sizes: Sequence[Mapping[str, int]]) -> Dim:
    if len(set(axis)) == 1:
        return axis[0]
    for name in sizes[0]:
        if axis == [run[name] for run in sizes]:
            return name
    return None


# --- exported programs ---------------------------------------------------------------


def program_constants(program: ExportedProgram) -> dict[int, Any]:
    """Return the inputs of a program that were fixed when it was exported, by position."""
    inputs = [
        item.arg for item in program.graph_signature.input_specs if item.kind.name == "USER_INPUT"
    ]
    return {
        index: item.value for index, item in enumerate(inputs) if isinstance(item, ConstantArgument)
    }


def program_signature(program: ExportedProgram) -> tuple[Signature, dict[str, Range]]:
    """Read names, dtypes and shapes from an exported program.

    A symbol that is the first axis of every input is called ``batch``; others after the
    first input that has them, ``<input>_d<axis>``.

    Raises:
        InputError: an input or output is no tensor.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    user = program.graph_signature.user_inputs
    constants = program_constants(program)
    names = [str(name) for index, name in enumerate(user) if index not in constants]
    dims = _symbol_names([(name, values[name]) for name in names])
    inputs = tuple(_spec(name, values[name], dims) for name in names)
    results = [values.get(str(name)) for name in program.graph_signature.user_outputs]
    structure = pytree.tree_unflatten(
        [torch.tensor(index) for index in range(len(results))], program.call_spec.out_spec
    )
    present = named_outputs(structure)
    outputs = tuple(_spec(name, results[int(index)], dims) for name, index in present)
    return Signature(inputs, outputs), program_ranges(program, inputs)


def program_bounds(program: ExportedProgram) -> dict[str, tuple[int, int]]:
    """Return the smallest and largest size of each dynamic dim that the program limits."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = [(str(name), values.get(str(name))) for name in program.graph_signature.user_inputs]
    dims = _symbol_names(inputs)
    return {
        dims[str(symbol)]: (int(bounds.lower), int(min(bounds.upper, _UNLIMITED)))
        for symbol, bounds in program.range_constraints.items()
        if str(symbol) in dims
    }


def _symbol_names(inputs: Sequence[tuple[str, Any]]) -> dict[str, str]:
    names: dict[str, str] = {}
    leading = [tensor.shape[0] for _, tensor in inputs if _rank(tensor)]
    if leading and isinstance(leading[0], torch.SymInt) and len(set(map(str, leading))) == 1:
        names[str(leading[0])] = "batch"
    for name, tensor in inputs:
        for axis in range(_rank(tensor)):
            size = tensor.shape[axis]
            if isinstance(size, torch.SymInt) and str(size).isidentifier():
                names.setdefault(str(size), re.sub(r"\W", "_", f"{name}_d{axis}"))
    return names


def _rank(tensor: Any) -> int:
    return tensor.dim() if isinstance(tensor, torch.Tensor) else 0


def _spec(name: str, tensor: Any, dims: Mapping[str, str]) -> TensorSpec:
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"'{name}' of the exported program is no tensor")
    shape = tuple(
        dims.get(str(size)) if isinstance(size, torch.SymInt) else int(size)
        for size in tensor.shape
    )
    return TensorSpec(name, spec_dtype(tensor.dtype, name), shape)
