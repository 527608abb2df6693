"""A network's code in forms that can be traced: equal ones, for as long as an export takes."""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

from modelpack.adapters.torch_experts import batched_experts
from modelpack.adapters.torch_plain import any_count_of_rows
from modelpack.adapters.torch_transformers_forms import transformers_forms


@contextlib.contextmanager
def traceable(model: torch.nn.Module) -> Iterator[None]:
    """Let the code of a model, and of its parts, be traced with dynamic sizes."""
    with (
        batched_experts(model),
        transformers_forms(model),
        _symbolic_len(model),
        any_count_of_rows(),
    ):
        yield


@contextlib.contextmanager
def _symbolic_len(model: torch.nn.Module) -> Iterator[None]:
    """Let ``len`` of a tensor be its first size, in the modules that the model's classes are of.

    Python makes a number of whatever ``__len__`` returns, which fixes a size that was dynamic.
    """
    modules = [module for module in _modules_of(model) if "len" not in vars(module)]
    try:
        for module in modules:
            module.len = _len
        yield
    finally:
        for module in modules:
            del module.len


def _len(value: Any) -> Any:
    """``len``, but symbolic for a tensor with a symbolic first size."""
    is_tensor = isinstance(value, torch.Tensor) and value.dim() > 0
    return value.shape[0] if is_tensor else builtins.len(value)


def _modules_of(model: torch.nn.Module) -> list[Any]:
    """The Python modules that define the classes of a model and its parts, PyTorch's left out."""
    kinds = {kind for part in model.modules() for kind in type(part).__mro__}
    names = {kind.__module__ for kind in kinds} - {"builtins"}
    own = {name for name in names if name.partition(".")[0] not in {"torch", "modelpack"}}
    return [sys.modules[name] for name in sorted(own) if name in sys.modules]
