"""PyTorch's own exporter: modules and programs to ONNX, live modules to ``.pt2``."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from modelpack import onnx_graph
from modelpack.adapters import torch_guards, torch_loading
from modelpack.adapters.torch_attention import zero_hidden_rows
from modelpack.adapters.torch_calling import native, signature_of, weights_of
from modelpack.adapters.torch_custom import translations
from modelpack.adapters.torch_failures import cause, refusal
from modelpack.adapters.torch_fast_path import fast_path_notes
from modelpack.adapters.torch_forms import traceable
from modelpack.adapters.torch_known import known_numbers, whole_numbers
from modelpack.adapters.torch_loading import Model, load
from modelpack.adapters.torch_plain import any_sizes
from modelpack.adapters.torch_precision import in_float32, refuse_bfloat16
from modelpack.adapters.torch_programs import writable
from modelpack.adapters.torch_recurrent import export_recurrent, is_recurrent
from modelpack.adapters.torch_script import ScriptGraph, is_recurrent_script
from modelpack.adapters.torch_signature import (
    example_inputs,
    example_sizes,
    module_ranges,
)
from modelpack.adapters.torch_sizes import (
    SizedModel,
    demand_dynamic,
    fixed,
    limit_notes,
    refuse_branches,
)
from modelpack.adapters.torch_tidying import tidy
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import ConversionError
from modelpack.signature import Signature, TensorSpec
from modelpack.steps import StepOptions, StepResult


def to_onnx(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Export to ONNX with `torch.onnx` (dynamo), names and dims as in the signature.

    Raises:
        ConversionError: PyTorch cannot export the model, or not at the wanted opset, or
            fixed a dimension that the signature leaves open.
    """
    signature = signature_of(source)
    notes = fast_path_notes(source, signature)
    with _quiet(), torch_guards.recorded() as traced, torch_guards.places() as places:
        try:
            program, settings = _with_remedies(
                load(source), lambda: _export(source, signature, options)
            )
        except Exception as error:
            raise refusal(source.display, error) from error
        demand_dynamic(program.exported_program, signature, places)
        notes += limit_notes(source, program.exported_program, signature)
        if traced and not isinstance(load(source), ExportedProgram):
            refuse_branches(source, traced[-1], signature)
        _save(program, Path(target), weights_of(load(source)))
    model = onnx.load(target, load_external_data=False)
    opset = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    if options.opset is not None and opset != options.opset:
        raise ConversionError(
            f"PyTorch {torch.__version__} wrote opset {opset}, not {options.opset}",
            hint="torch.onnx writes opsets from 17 on; leave --opset away for its default",
        )
    in_float32(model)
    refuse_bfloat16(model, source.display)
    zero_hidden_rows(model)
    tidy(model, signature)
    onnx_graph.write(model, Path(target))
    onnx.checker.check_model(target, full_check=True)
    return StepResult(
        versions("torch", "onnxscript", "onnx"), {"opset": opset, **settings}, notes=notes
    )


def _with_remedies(
    model: Model, export: Callable[[], Any]
) -> tuple[Any, dict[str, str | int | float | bool]]:
    """Export, and again with a remedy where PyTorch fails in a way that there is one for.

    Returns:
        what ``export`` returns, and the settings that it was made with.

    Raises:
        Exception: whatever ``export`` raises that nothing helps against.
    """
    remedies = _remedies(model)
    settings: dict[str, str | int | float | bool] = {}
    with contextlib.ExitStack() as stack:
        while True:
            try:
                return export(), settings
            except Exception as error:
                says = next((text for text in remedies if text in cause(error)), None)
                if says is None:
                    raise
                name, value, remedy = remedies.pop(says)
                settings[name] = value
                stack.enter_context(remedy)


def _remedies(model: Model) -> dict[str, tuple[str, str, contextlib.AbstractContextManager[Any]]]:
    """By what PyTorch says of a failure: a setting of the export that may help, and its context."""
    # Fused attention views a transposed tensor, which its decomposition cannot.
    math = ("attention", "math", sdpa_kernel(SDPBackend.MATH))
    found = {"Cannot view a tensor": math}
    if not isinstance(model, ExportedProgram) and whole_numbers(model):
        found["data-dependent"] = ("buffers", "constant", known_numbers(model))
    return found


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
        "custom_translation_table": translations(),
    }
    if isinstance(model, ExportedProgram):
        with any_sizes():
            return torch.onnx.export(writable(model), **names)
    dims = {name: Dim(name) for name in signature.dynamic_dims}
    ranges = native(source)[1]
    flat = SizedModel(exportable(model), signature.inputs).eval()
    sizes = example_sizes(flat, signature.inputs, ranges)
    tensors = example_inputs(signature.inputs, sizes, ranges, seed=0)
    shapes = (tuple(_dynamic_axes(spec, dims) for spec in signature.inputs),)
    with traceable(model):
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
    flat = SizedModel(evaluated, inputs).eval()
    names = dict.fromkeys(dim for spec in inputs for dim in spec.dynamic_dims)
    dims = {name: Dim(name) for name in names}
    sizes = example_sizes(flat, inputs, {})
    ranges = module_ranges(evaluated, flat, inputs, sizes)
    tensors = example_inputs(inputs, sizes, ranges, seed=0)
    shapes = (tuple(_dynamic_axes(spec, dims) for spec in inputs),)
    # A region under no_grad is a part of its own in a program; not all can be loaded again.
    with _quiet(), traceable(evaluated), torch.no_grad(), torch_guards.places() as places:
        try:
            program, _ = _with_remedies(
                evaluated, lambda: torch.export.export(flat, tensors, dynamic_shapes=shapes)
            )
        except Exception as error:
            for name, size in sizes.items():
                if places.of(size) and "Constraints violated" in cause(error):
                    raise fixed(name, places.of(size), inputs) from error
            raise refusal(type(model).__name__, error) from error
    torch.export.save(program, path)


def _dynamic_axes(spec: TensorSpec, dims: dict[str, Any]) -> dict[int, Any]:
    return {axis: dims[dim] for axis, dim in enumerate(spec.shape or ()) if isinstance(dim, str)}


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
