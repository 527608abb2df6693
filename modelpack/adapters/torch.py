"""PyTorch: `torch.nn.Module` and exported programs, and their way to ONNX.

Loading and its dangers are in `torch_loading`, signatures in `torch_signature`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from modelpack import onnx_graph
from modelpack.adapters import torch_guards, torch_loading
from modelpack.adapters.onnx_padding import keep_zeros
from modelpack.adapters.torch_attention import zero_hidden_rows
from modelpack.adapters.torch_failures import cause, refusal
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_precision import refuse_bfloat16
from modelpack.adapters.torch_recurrent import export_recurrent, is_recurrent
from modelpack.adapters.torch_scan import scan
from modelpack.adapters.torch_script import ScriptGraph, is_recurrent_script
from modelpack.adapters.torch_signature import (
    FlatModel,
    FlatProgram,
    example_inputs,
    module_ranges,
    module_signature,
    program_bounds,
    program_signature,
    to_array,
    to_tensor,
)
from modelpack.adapters.torch_transformers import default_inputs, length_limit
from modelpack.adapters.torch_wide import widen
from modelpack.artifact import Encoding, ModelRef
from modelpack.dependencies import versions
from modelpack.errors import ConversionError, InputError
from modelpack.judging.noise import flip_last_bits
from modelpack.samples import read_cases, write_cases
from modelpack.signature import Signature, TensorSpec, for_inputs, own_names, requested
from modelpack.steps import (
    Description,
    Range,
    RunOptions,
    RunResult,
    StepOptions,
    StepResult,
    timed,
)

__all__ = ["describe", "run", "scan", "to_onnx"]

_FAST_PATH_NOTE = (
    "PyTorch's fused transformer layer, which eager inference uses by itself, answers zero at "
    "padded positions; the artifact and its reference compute the layers as they are written"
)


# A limit above this is none in practice, and too large to try.
_LARGEST_TRIED = 100_000


# --- describing ----------------------------------------------------------------------


def describe(ref: ModelRef) -> Description:
    """Describe a PyTorch model. A module is run on made-up inputs to learn its outputs.

    Raises:
        InputError: the inputs of a module are not described, or it does not run with them.
        UntrustedSourceError: loading would run code of the file, and it is not trusted.
    """
    model = load(ref)
    native, native_ranges = _native(_key(ref))
    signature = requested(native, ref.inputs, ref.outputs)
    tensors = _weights(model)
    return Description(
        signature,
        framework="torch",
        versions=_libraries(ref),
        ops=_ops(model),
        parameters=sum(tensor.numel() for tensor in tensors),
        precision=_precision(tensors),
        bindings=own_names(signature, native),
        ranges=for_inputs(native_ranges, native, signature),
        dim_bounds=_bounds(model, native, signature),
        fingerprint=_fingerprint(model) if ref.encoding is Encoding.PYTHON else "",
    )


def _bounds(
    model: torch_loading.Model, native: Signature, signature: Signature
) -> dict[str, tuple[int, int]]:
    """The limits of dynamic dims, under the names in force."""
    if not isinstance(model, ExportedProgram):
        limit = length_limit(model) if hasattr(model, "get_input_embeddings") else None
        return dict.fromkeys(_lengths(signature), (1, limit)) if limit else {}
    limits = program_bounds(model)
    return {
        new: limits[old]
        for before, after in zip(native.inputs, signature.inputs, strict=True)
        for old, new in zip(before.shape or (), after.shape or (), strict=True)
        if isinstance(old, str) and isinstance(new, str) and old in limits
    }


def _lengths(signature: Signature) -> list[str]:
    """The dims that count tokens, of a model of transformers."""
    second = [(spec.shape or ())[1:2] for spec in signature.inputs if spec.name.endswith("_ids")]
    return [axis[0] for axis in second if axis and isinstance(axis[0], str)]


def _libraries(ref: ModelRef) -> dict[str, str]:
    more = ("transformers",) if ref.encoding is Encoding.TRANSFORMERS else ()
    return versions("torch", *more)


def _fingerprint(model: torch_loading.Model) -> str:
    """Digest of names and bytes of all weights and buffers, in order."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _key(ref: ModelRef) -> ModelRef:
    """The part of a reference that decides on the native signature."""
    return replace(ref.loading, inputs=ref.inputs)


@lru_cache
def _native(ref: ModelRef) -> tuple[Signature, dict[str, Range]]:
    model = load(ref)
    if isinstance(model, ExportedProgram):
        return program_signature(model)
    if ref.encoding is Encoding.TRANSFORMERS and not ref.inputs:
        ref = replace(ref, inputs=default_inputs(model, ref.path))
    return module_signature(model, ref)


def _ops(model: torch_loading.Model) -> dict[str, int]:
    if isinstance(model, ExportedProgram):
        names = [str(node.target) for node in model.graph.nodes if node.op == "call_function"]
    else:
        leaves = [layer for layer in model.modules() if next(layer.children(), None) is None]
        names = [getattr(layer, "original_name", type(layer).__name__) for layer in leaves]
    return dict(sorted(Counter(names).items()))


def _weights(model: torch_loading.Model) -> list[torch.Tensor]:
    state = model.state_dict if isinstance(model, ExportedProgram) else model.state_dict()
    return [tensor for tensor in state.values() if isinstance(tensor, torch.Tensor)]


def _precision(tensors: list[torch.Tensor]) -> str:
    """The floating-point dtype that most weights have."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else "float32"


# --- running -------------------------------------------------------------------------


def run(ref: ModelRef, cases: str, outputs: str, options: RunOptions) -> RunResult:
    """Run the model itself, in eager mode; see `modelpack.adapters`.

    Raises:
        InputError: a feed does not fit the model.
    """
    signature = _signature(ref)
    call = callable_for(ref, signature)
    options.refuse("runtime")
    feeds = [
        tuple(to_tensor(case[spec.name], spec) for spec in signature.inputs)
        for case in read_cases(Path(cases), signature.inputs)
    ]
    if options.wide:
        _check_can_widen(load(ref))
        feeds = [tuple(_widened(tensor) for tensor in feed) for feed in feeds]
    names = [spec.name for spec in signature.outputs]
    with torch.no_grad(), _changed(load(ref), call, options):
        try:
            results = [call(*feed) for feed in feeds]
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise InputError(f"'{ref.display}' does not run on the data: {error}") from error
        latency = timed(lambda: call(*feeds[0]), options.repeat)
    write_cases(
        Path(outputs),
        [dict(zip(names, map(to_array, result), strict=True)) for result in results],
    )
    return RunResult(f"torch {torch.__version__}", latency)


# Weights of 1 GB: in float64 they take two more.
_MOST_WIDENED = 1 << 28


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


@contextlib.contextmanager
def _changed(
    model: torch_loading.Model, call: FlatModel | FlatProgram, options: RunOptions
) -> Iterator[None]:
    """The model under the options, for a while; on leaving it is bit by bit what it was.

    Raises:
        InputError: it has no form that computes in float64.
    """
    torch.set_num_threads(options.threads)
    try:
        _flip(_weights(model), options.nudge)
        if options.wide and isinstance(model, ExportedProgram):
            widen(model, call.module)
        elif options.wide:
            model.double()
        yield
    finally:
        if options.wide and not isinstance(model, ExportedProgram):
            model.float()
        _flip(_weights(model), options.nudge)
        torch.set_num_threads(1)


def _check_can_widen(model: torch_loading.Model) -> None:
    is_program = isinstance(model, ExportedProgram)
    tensors = _weights(model) if is_program else [*model.parameters(), *model.buffers()]
    if any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in tensors):
        raise InputError("only a module of float32 alone can be made to compute in float64")
    if sum(tensor.numel() for tensor in tensors) > _MOST_WIDENED:
        raise InputError("the model is too large to compute in float64")


def _flip(weights: list[torch.Tensor], seed: int) -> None:
    """Flip last bits in place, of tensors that share no memory with an earlier one."""
    seen: set[int] = set()
    for index, tensor in enumerate(weights if seed else ()):
        if not tensor.is_floating_point() or tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        dense = tensor.detach().contiguous()
        flip_last_bits(to_array(dense), seed, index)
        if not tensor.is_contiguous():
            tensor.detach().copy_(dense)


def _signature(ref: ModelRef) -> Signature:
    return ref.signature or requested(_native(_key(ref))[0], ref.inputs, ref.outputs)


def callable_for(ref: ModelRef, signature: Signature) -> FlatModel | FlatProgram:
    """The model as a function of tensors in the order of the signature's inputs."""
    model = load(ref)
    if isinstance(model, ExportedProgram):
        return FlatProgram(model)
    return FlatModel(model, [spec.name for spec in signature.inputs])


# --- exporting -----------------------------------------------------------------------


def to_onnx(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Export to ONNX with `torch.onnx` (dynamo), names and dims as in the signature.

    Raises:
        ConversionError: PyTorch cannot export the model, or not at the wanted opset, or
            fixed a dimension that the signature leaves open.
    """
    signature = _signature(source)
    notes = _fast_path_notes(source, signature)
    settings: dict[str, str | int | float | bool] = {}
    with _quiet(), torch_guards.recorded() as traced:
        try:
            program = _export(source, signature, options)
        except Exception as error:
            if "Cannot view a tensor" not in cause(error):
                raise refusal(source.display, error) from error
            # Fused attention views a transposed tensor, which its decomposition cannot.
            settings["attention"] = "math"
            try:
                with sdpa_kernel(SDPBackend.MATH):
                    program = _export(source, signature, options)
            except Exception as again:
                raise refusal(source.display, again) from again
        _demand_dynamic(program.exported_program, signature)
        notes += _limit_notes(source, program.exported_program, signature)
        if traced and not isinstance(load(source), ExportedProgram):
            _refuse_branches(source, traced[-1], signature)
        _save(program, Path(target), _weights(load(source)))
    model = onnx.load(target, load_external_data=False)
    opset = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    if options.opset is not None and opset != options.opset:
        raise ConversionError(
            f"PyTorch {torch.__version__} wrote opset {opset}, not {options.opset}",
            hint="torch.onnx writes opsets from 17 on; leave --opset away for its default",
        )
    refuse_bfloat16(model, source.display)
    zero_hidden_rows(model)
    _tidy(model, signature)
    Path(target).write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(target, full_check=True)
    return StepResult(
        versions("torch", "onnxscript", "onnx"), {"opset": opset, **settings}, notes=notes
    )


# Exporting torch.cond needs the compiler, which is off for whatever else runs.
@torch.compiler.set_stance("default")  # type: ignore[untyped-decorator]
def _export(source: ModelRef, signature: Signature, options: StepOptions) -> Any:
    model = load(source)
    names: dict[str, Any] = {
        "input_names": [spec.name for spec in signature.inputs],
        "output_names": [spec.name for spec in signature.outputs],
        "opset_version": options.opset,
        "dynamo": True,
        "verbose": False,
    }
    if isinstance(model, ExportedProgram):
        return torch.onnx.export(model, **names)
    dims = {name: Dim(name) for name in signature.dynamic_dims}
    # Different sizes, none of them 0 or 1, which the exporter would make static.
    sizes = {name: 2 + index for index, name in enumerate(dims)}
    ranges = _native(_key(source))[1]
    tensors = example_inputs(signature.inputs, sizes, ranges, seed=0)
    flat = FlatModel(exportable(model), names["input_names"]).eval()
    shapes = (tuple(_dynamic_axes(spec, dims) for spec in signature.inputs),)
    if is_recurrent(model) or is_recurrent_script(model):
        onnx_program = export_recurrent(
            flat, tensors, shapes, lambda program: torch.onnx.export(program, **names)
        )
        if onnx_program is not None:
            return onnx_program
    return torch.onnx.export(flat, tensors, dynamic_shapes=shapes, **names)


def exportable(model: torch.nn.Module) -> torch.nn.Module:
    """The module as `torch.export` takes it, which refuses script modules."""
    return ScriptGraph(model) if isinstance(model, torch.jit.ScriptModule) else model


def save_program(model: torch.nn.Module, inputs: tuple[TensorSpec, ...], path: Path) -> None:
    """Save a live module as a ``.pt2`` file, with the dynamic dims that the inputs name.

    Raises:
        InputError: the module does not run with such inputs.
        ConversionError: PyTorch cannot export it.
    """
    evaluated = torch_loading.without_compilation(copy.deepcopy(model)).eval()
    flat = FlatModel(evaluated, [spec.name for spec in inputs]).eval()
    names = dict.fromkeys(dim for spec in inputs for dim in spec.dynamic_dims)
    dims = {name: Dim(name) for name in names}
    sizes = {name: 2 + index for index, name in enumerate(dims)}
    ranges = module_ranges(evaluated, flat, inputs, sizes)
    tensors = example_inputs(inputs, sizes, ranges, seed=0)
    shapes = (tuple(_dynamic_axes(spec, dims) for spec in inputs),)
    with _quiet():
        try:
            program = torch.export.export(flat, tensors, dynamic_shapes=shapes)
        except Exception as error:
            raise refusal(type(model).__name__, error) from error
    torch.export.save(program, path)


def _dynamic_axes(spec: TensorSpec, dims: dict[str, Any]) -> dict[int, Any]:
    return {axis: dims[dim] for axis, dim in enumerate(spec.shape or ()) if isinstance(dim, str)}


def _demand_dynamic(program: ExportedProgram, signature: Signature) -> None:
    """Check that the exporter kept dimensions open, which it may fix without a word."""
    for spec, traced in zip(signature.inputs, program_signature(program)[0].inputs, strict=True):
        for axis, (want, have) in enumerate(zip(spec.shape or (), traced.shape or (), strict=True)):
            if isinstance(want, str) and isinstance(have, int):
                raise ConversionError(
                    f"the model only works with '{want}' = {have}: PyTorch fixed axis {axis} "
                    f"of '{spec.name}' while tracing",
                    hint=f"give '{want}' a number, or change the code that depends on its size",
                )


def _limit_notes(
    source: ModelRef, program: ExportedProgram, signature: Signature
) -> tuple[str, ...]:
    """Say which sizes the program does not cover, which PyTorch limits without a word.

    Raises:
        ConversionError: the module itself takes a size that the program does not cover: its
            code depends on the size, and the artifact would answer there as if it did not.
    """
    if isinstance(load(source), ExportedProgram):
        return ()  # limits of a saved program are its author's
    native, bounds = program_signature(program)[0], program_bounds(program)
    names = {
        old: new
        for before, after in zip(native.inputs, signature.inputs, strict=True)
        for old, new in zip(before.shape or (), after.shape or (), strict=True)
        if isinstance(old, str) and isinstance(new, str)
    }
    notes = []
    for old, (low, high) in bounds.items():
        beyond = [size for size in (low - 1, high + 1) if 1 <= size <= _LARGEST_TRIED]
        for size in beyond if old in names else ():
            if _runs_at(source, signature, {names[old]: size}):
                raise ConversionError(
                    f"the model's code depends on the size of '{names[old]}': what PyTorch traced "
                    f"holds from {low} to {high} only, but the model also takes {size}",
                    hint=f"give '{names[old]}' a number, or use torch.cond for the branch",
                )
        if beyond and old in names:
            notes.append(f"'{names[old]}' can be from {low} to {high}")
    return tuple(notes)


def _runs_at(source: ModelRef, signature: Signature, sizes: dict[str, int]) -> bool:
    """Whether the module itself runs at these sizes (the other dims are small)."""
    call = callable_for(source, signature)
    return _answers(call, _tensors_at(source, signature, sizes)) is not None


def _tensors_at(
    source: ModelRef, signature: Signature, sizes: dict[str, int]
) -> list[torch.Tensor]:
    every = {name: 3 + index for index, name in enumerate(signature.dynamic_dims)} | sizes
    return list(example_inputs(signature.inputs, every, _native(_key(source))[1], seed=0))


def _answers(call: torch.nn.Module, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...] | None:
    try:
        with torch.no_grad():
            return tuple(call(*tensors))
    except Exception:  # whatever the user's code raises at a size it does not take
        return None


def _refuse_branches(source: ModelRef, traced: ExportedProgram, signature: Signature) -> None:
    """Refuse a module that takes another branch at sizes that its trace was not made for.

    Raises:
        ConversionError: it answers there, and otherwise than its trace.
    """
    names = _dims_by_symbol(traced, signature)
    for broken in torch_guards.broken_at(traced):
        sizes = {names[symbol]: size for symbol, size in broken.items() if symbol in names}
        if len(sizes) < len(broken):
            continue
        tensors = _tensors_at(source, signature, sizes)
        own = _answers(callable_for(source, signature), tensors)
        made = _answers(torch_guards.without_assertions(traced), tensors)
        if own is not None and (made is None or not _alike(own, made)):
            listing = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise ConversionError(
                f"the model's code depends on its sizes: at {listing} it answers otherwise than "
                "what PyTorch traced",
                hint="give these dimensions numbers, or use torch.cond for the branch",
            )


def _dims_by_symbol(program: ExportedProgram, signature: Signature) -> dict[str, str]:
    """The signature's names of dims, by the symbols of a program with the same inputs."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    shapes = [
        getattr(values.get(str(name)), "shape", ()) for name in program.graph_signature.user_inputs
    ]
    return {
        str(size): dim
        for spec, shape in zip(signature.inputs, shapes, strict=False)
        for dim, size in zip(spec.shape or (), shape, strict=False)
        if isinstance(dim, str)
    }


def _alike(own: tuple[torch.Tensor, ...], made: tuple[torch.Tensor, ...]) -> bool:
    """Whether answers are those of one branch: no judgement of accuracy, which comes later."""
    return len(own) == len(made) and all(
        one.shape == other.shape
        and torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-5, equal_nan=True)
        for one, other in zip(own, made, strict=True)
    )


def _fast_path_notes(source: ModelRef, signature: Signature) -> tuple[str, ...]:
    """Tell when PyTorch's own inference shortcut answers something else than the layers."""
    model = load(source)
    if isinstance(model, ExportedProgram) or not any(
        isinstance(layer, torch.nn.TransformerEncoder | torch.nn.TransformerEncoderLayer)
        for layer in model.modules()
    ):
        return ()
    sizes = {name: 3 + index for index, name in enumerate(signature.dynamic_dims)}
    tensors = example_inputs(signature.inputs, sizes, _native(_key(source))[1], seed=0)
    call = callable_for(source, signature)
    same = all(_same_by_fast_path(call, feed) for feed in _padded(tensors))
    return () if same else (_FAST_PATH_NOTE,)


def _same_by_fast_path(call: Any, feed: tuple[torch.Tensor, ...]) -> bool:
    with _quiet(), torch.no_grad():
        plain = call(*feed)
        torch.backends.mha.set_fastpath_enabled(True)
        try:
            fast = call(*feed)
        finally:
            torch.backends.mha.set_fastpath_enabled(False)
    return all(
        one.shape == other.shape and torch.allclose(one, other, 1e-3, 1e-4, equal_nan=True)
        for one, other in zip(plain, fast, strict=True)
    )


def _padded(tensors: tuple[torch.Tensor, ...]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield feeds whose second row ends early, in either sense that a mask may have."""
    for body, end in ((1, 0), (0, 1)):
        feed = []
        for tensor in tensors:
            padded = tensor
            is_mask = tensor.dim() == 2 and not tensor.is_floating_point()
            if is_mask and min(tensor.shape) > 1:
                padded = torch.full_like(tensor, body)
                padded[1, -1] = end
            feed.append(padded)
        yield tuple(feed)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence advice that is meant for callers of the exporter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.getLogger("torch.onnx").level
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("torch.onnx").setLevel(level)


def _save(program: Any, target: Path, weights: list[torch.Tensor]) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    wanted = size > onnx_graph.LARGEST_FILE
    program.save(str(target), external_data=wanted)
    if target.with_name(target.name + ".data").exists() != wanted:
        raise ConversionError(
            f"PyTorch {'kept' if wanted else 'moved'} {size >> 20} MiB of weights "
            f"{'in' if wanted else 'out of'} the ONNX file against what was asked"
        )


# --- tidying the file ----------------------------------------------------------------


def _tidy(model: onnx.ModelProto, signature: Signature) -> None:
    """Bind the file's dimensions to the signature's names; remove paths and stack traces.

    Raises:
        ConversionError: a dimension is fixed in the file, but named in the signature.
    """
    onnx_graph.scrub(model)
    keep_zeros(model)
    renamed: dict[str, str | int] = {}
    for value, spec in zip(model.graph.input, signature.inputs, strict=True):
        for have, want in zip(value.type.tensor_type.shape.dim, spec.shape or (), strict=True):
            if have.dim_param and want is not None:
                renamed[have.dim_param] = want
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            _rename(dim, renamed)
    for value, spec in zip(
        (*model.graph.input, *model.graph.output),
        (*signature.inputs, *signature.outputs),
        strict=True,
    ):
        _bind(value, spec)


def _rename(dim: Any, renamed: dict[str, str | int]) -> None:
    """Put the signature's dimension in the place of the exporter's symbol."""
    symbols = re.findall(r"[A-Za-z_]\w*", dim.dim_param)
    if not any(symbol in renamed for symbol in symbols):
        return
    new = renamed.get(dim.dim_param)
    if isinstance(new, int):
        dim.dim_value = new
    elif isinstance(new, str):
        dim.dim_param = new
    elif any(isinstance(renamed.get(symbol), int) for symbol in symbols):
        dim.Clear()  # an expression of a size that is now fixed: left to shape inference
    else:
        dim.dim_param = re.sub(
            r"[A-Za-z_]\w*", lambda match: str(renamed.get(match[0], match[0])), dim.dim_param
        )


def _bind(value: Any, spec: TensorSpec) -> None:
    dims = value.type.tensor_type.shape.dim
    if spec.shape is None:
        return
    if len(dims) != len(spec.shape):
        raise ConversionError(
            f"PyTorch gave '{spec.name}' the rank {len(dims)}, but the model has {spec}"
        )
    for axis, (have, want) in enumerate(zip(dims, spec.shape, strict=True)):
        if isinstance(want, str) and have.HasField("dim_value"):
            raise ConversionError(
                f"PyTorch fixed axis {axis} of '{spec.name}' to {have.dim_value}, "
                f"but it is dynamic ('{want}') in the model",
                hint=f"give '{want}' a number, or change the code that depends on its size",
            )
        if isinstance(want, str):
            have.dim_param = want
        elif isinstance(want, int):
            have.dim_value = want
        elif not have.HasField("dim_value") and (
            not have.dim_param.isidentifier() or re.fullmatch(r"[su]\d+", have.dim_param)
        ):
            have.Clear()  # an expression, or a symbol of the exporter's own
