"""Fractions from which whole numbers are taken (``1.0 - mask``).

`torch.onnx` promotes the dtypes of other mixed arithmetic; here it finds no op for the float.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule


def promoted(program: ExportedProgram) -> ExportedProgram:
    """The program with such whole numbers cast first, as PyTorch does inside of the op."""
    if next(_mixed(program.graph_module), None) is None:
        return program
    made = copy.copy(program)
    made._graph_module = copy.deepcopy(program.graph_module)
    for graph, node in list(_mixed(made.graph_module)):
        whole = node.args[0]
        dtype = node.meta["val"].dtype
        with graph.inserting_before(node):
            cast = graph.call_function(torch.ops.aten.to.dtype, (whole, dtype))
        cast.meta = {**node.meta, "val": whole.meta["val"].to(dtype)}
        node.replace_input_with(whole, cast)
    made.graph_module.recompile()
    return made


def _mixed(module: GraphModule) -> Iterator[tuple[Any, Any]]:
    """Each graph of the module with a node of it that takes whole numbers from a fraction."""
    for part in module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                if node.target == torch.ops.aten.rsub.Scalar and _is_mixed(node):
                    yield part.graph, node


def _is_mixed(node: Any) -> bool:
    made = node.args[0].meta.get("val")
    is_whole = isinstance(made, torch.Tensor) and not made.dtype.is_floating_point
    return is_whole and node.meta["val"].dtype.is_floating_point
