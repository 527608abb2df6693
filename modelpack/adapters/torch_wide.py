"""Exported PyTorch programs that compute in float64, to tell what float32 loses."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx.node import map_aggregate

from modelpack.errors import InputError


def widen(program: ExportedProgram, module: torch.nn.Module) -> None:
    """Make the module of a float32 program hold weights, and compute all, in float64.

    An exported graph says the dtype wherever it makes or casts a tensor; there, float64 takes
    the place of float32.

    Args:
        program: the program; stays as it is.
        module: what ``program.module()`` gave; changed in place.

    Raises:
        InputError: it has real numbers of other dtypes.
    """
    tensors = [*program.state_dict.values(), *program.constants.values()]
    real = [item for item in tensors if isinstance(item, torch.Tensor) and item.is_floating_point()]
    if any(tensor.dtype != torch.float32 for tensor in real):
        raise InputError("only a program of float32 alone can be made to compute in float64")
    _own_graphs(module)
    for graph_module in module.modules():
        if isinstance(graph_module, torch.fx.GraphModule):
            _widen(graph_module)


def _own_graphs(module: torch.nn.Module) -> None:
    """Copy the graphs of branches and contexts, which a module shares with its program."""
    for name, child in module.named_children():
        if isinstance(child, torch.fx.GraphModule):
            setattr(module, name, copy.deepcopy(child))


def _widen(module: torch.fx.GraphModule) -> None:
    for node in module.graph.nodes:
        node.args = map_aggregate(node.args, _wide_dtype)
        node.kwargs = map_aggregate(node.kwargs, _wide_dtype)
        if node.op == "get_attr":
            _widen_attribute(module, node.target)
    module.recompile()


def _wide_dtype(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument


def _widen_attribute(module: torch.nn.Module, target: str) -> None:
    """Replace one tensor of a module, which may be a weight, a buffer or a plain constant."""
    *path, name = target.split(".")
    owner = module.get_submodule(".".join(path))
    value = getattr(owner, name)
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        wide = value.detach().double()
        if isinstance(value, torch.nn.Parameter):
            wide = torch.nn.Parameter(wide, requires_grad=False)
        setattr(owner, name, wide)
