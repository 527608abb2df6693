"""Fractions from which whole numbers are taken (``1.0 - mask``).

`torch.onnx` promotes the dtypes of other mixed arithmetic; here it finds no op for the float.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph

from modelpack.adapters.torch_rewriting import rewritten


def promoted(program: ExportedProgram) -> ExportedProgram:
    """The program with such whole numbers cast first, as PyTorch does inside of the op."""
    return rewritten(program, _whole, _cast)


def _whole(node: Any) -> Any | None:
    """The whole numbers that a node takes from a fraction, if it does."""
    if node.target != torch.ops.aten.rsub.Scalar:
        return None
    made = node.args[0].meta.get("val")
    is_whole = isinstance(made, torch.Tensor) and not made.dtype.is_floating_point
    return node.args[0] if is_whole and node.meta["val"].dtype.is_floating_point else None


def _cast(graph: Graph, node: Any, whole: Any) -> None:
    dtype = node.meta["val"].dtype
    with graph.inserting_before(node):
        cast = graph.call_function(torch.ops.aten.to.dtype, (whole, dtype))
    cast.meta = {**node.meta, "val": whole.meta["val"].to(dtype)}
    node.replace_input_with(whole, cast)
