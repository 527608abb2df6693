"""A network's code in forms that can be traced: equal ones, for as long as an export takes."""

from __future__ import annotations

import builtins
import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from modelpack.adapters.torch_experts import batched_experts
from modelpack.adapters.torch_plain import any_sizes
from modelpack.adapters.torch_position_tables import endless_tables
from modelpack.adapters.torch_transformers_forms import transformers_forms


@contextlib.contextmanager
def traceable(model: torch.nn.Module) -> Iterator[None]:
    """Let the code of a model, and of its parts, be traced with dynamic sizes."""
    with (
        batched_experts(model),
        transformers_forms(model),
        endless_tables(model),
        _symbolic_len(model),
        any_sizes(),
        _masks_as_given(),
        _paths_by_example(),
    ):
        yield


@contextlib.contextmanager
def _masks_as_given() -> Iterator[None]:
    """Let the layers of `torch.nn.Transformer` use masks without looking what is in them.

    They compare them with a causal one, to take a faster way with the same result.
    """
    with mock.patch.object(
        torch.nn.modules.transformer,
        "_detect_is_causal_mask",
        lambda mask, is_causal=None, size=None: is_causal is True,
    ):
        yield


@contextlib.contextmanager
def _paths_by_example() -> Iterator[None]:
    """Let `torch.einsum` of three and more find the order to contract them by the example's sizes.

    The library that it asks makes numbers of sizes, which fixes those that were dynamic. Any
    order computes the same.
    """
    library = torch.backends.opt_einsum.get_opt_einsum()
    if library is None:
        yield
        return

    def path(equation: str, *operands: Any, optimize: Any) -> Any:
        shapes = [tuple(map(_example, item.shape)) for item in operands]
        return library.contract_path(equation, *shapes, shapes=True, optimize=optimize)

    stand_in = types.SimpleNamespace(contract_path=path)
    with mock.patch.object(torch.backends.opt_einsum, "get_opt_einsum", lambda: stand_in):
        yield


def _example(size: Any) -> int:
    """The size that is traced with, without deciding on it."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else size


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
