"""Load PyTorch models from whatever they are kept in."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch._dynamo.eval_frame import OptimizedModule
from torch.export import ExportedProgram

from modelpack import reference
from modelpack.adapters.torch_regions import without_unused_regions
from modelpack.adapters.torch_scan import check_sums, scan, shown, unknown_ops
from modelpack.adapters.torch_transformers import load_pretrained
from modelpack.adapters.torch_weights import advice, apply_weights, contents
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError, UnsupportedOpsError, UntrustedSourceError, first_line

Model: TypeAlias = torch.nn.Module | ExportedProgram


def load(ref: ModelRef) -> Model:
    """Return the model in evaluation mode, on the CPU, without gradients; cached.

    Raises:
        InputError: the file is damaged, or holds weights only.
        UntrustedSourceError: loading would run code of the file, and it is not trusted.
    """
    return _load(ref.loading)


@lru_cache
def _load(ref: ModelRef) -> Model:
    torch.set_num_threads(1)  # sums split over threads differ in their last bits
    # The fused transformer layer, used for inference only, answers zero at padded positions,
    # where the layers as written, as trained and as exported compute values.
    torch.backends.mha.set_fastpath_enabled(False)
    # What torch.compile made is not needed: the code that it was made of says the same.
    torch.compiler.set_stance("force_eager")
    if ref.encoding is not Encoding.PYTHON:
        _demand_trust(ref)
    reference.import_modules(ref)
    model = _LOADERS[ref.encoding](ref)
    if isinstance(model, ExportedProgram):
        return model
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"'{ref.display}' gives a {type(model).__name__}, not an nn.Module")
    model = without_compilation(model)
    if ref.weights:
        apply_weights(model, Path(ref.weights), trusted=ref.trusted)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval().to("cpu")


def without_compilation(model: torch.nn.Module) -> torch.nn.Module:
    """The module with those that `torch.compile` wrapped in it, or itself, in their places.

    What is wrapped is the module as it was written, of the same parameters.
    """
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # of each name, where a child has several
            parent._modules[name] = _original(child)
    return _original(model)


def _original(module: torch.nn.Module) -> torch.nn.Module:
    return module._orig_mod if isinstance(module, OptimizedModule) else module


def _demand_trust(ref: ModelRef) -> None:
    found = [] if ref.trusted else scan(ref)
    if found:
        raise UntrustedSourceError(
            f"loading '{ref.display}' can run code it contains: {shown(found)}",
            hint="give --trust when you trust where it comes from",
        )


def _load_export(ref: ModelRef) -> ExportedProgram:
    check_sums(ref.path)
    try:
        return _loaded_export(ref)
    except Exception as error:
        if unknown := unknown_ops(ref.location):
            raise UnsupportedOpsError(
                f"'{ref.display}' calls custom ops that nothing here defines: {shown(unknown)}",
                hint="name the module that defines them with --import, and --trust it; what they "
                "compute has to consist of PyTorch's own ops to be converted",
            ) from error
        raise InputError(
            f"PyTorch {torch.__version__} cannot load '{ref.display}': {first_line(error)}",
            hint="export the model again under torch.no_grad()"
            if _REGION in str(error)
            else "save it again with torch.export.save of a matching PyTorch version",
        ) from error


# Code under no_grad, which PyTorch saves as a part of its own.
_REGION = "wrap_with_set_grad_enabled"


def _loaded_export(ref: ModelRef) -> ExportedProgram:
    try:
        return torch.export.load(ref.location)
    except Exception as error:
        repaired = without_unused_regions(ref.path) if _REGION in str(error) else None
        if repaired is None:
            raise
    return torch.export.load(repaired)


def _load_save(ref: ModelRef) -> Any:
    check_sums(ref.path)
    if ref.trusted and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # where the code of its classes is likely to be
    try:
        value = torch.load(ref.location, map_location="cpu", weights_only=not ref.trusted)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"'{ref.display}' needs the code of its class: {first_line(error)}",
            hint="run where that module can be imported (a class of a script is saved as "
            "'__main__'), or save the state dict and give a Python reference with --weights",
        ) from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise InputError(f"cannot load '{ref.display}': {first_line(error)}") from error
    if isinstance(value, torch.nn.Module):
        return value
    raise InputError(f"'{ref.display}' holds {contents(value)}, not a model", hint=advice(value))


def _load_script(ref: ModelRef) -> torch.jit.ScriptModule:
    # Optimized graphs differ from plain ones in their last bits, from their second call on.
    torch._C._set_graph_executor_optimize(False)
    try:
        return torch.jit.load(ref.location, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"PyTorch {torch.__version__} cannot load '{ref.display}': {first_line(error)}"
        ) from error


_LOADERS: dict[Encoding, Callable[[ModelRef], Any]] = {
    Encoding.PYTHON: reference.load,
    Encoding.TORCH_EXPORT: _load_export,
    Encoding.TORCH_SAVE: _load_save,
    Encoding.TORCHSCRIPT: _load_script,
    Encoding.TRANSFORMERS: load_pretrained,
}
