"""Numbers that are put where a mask says (``x[mask] = 0.0``), as a choice by that mask.

`torch.onnx` writes the places as a list, of as many rows as there are, which not every runtime
takes: a choice is the same, and has a shape that is known.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph

from modelpack.adapters.torch_rewriting import rewritten

_FILLS = {
    torch.ops.aten.index_put.default: torch.ops.aten.masked_fill.Tensor,
    torch.ops.aten.index_put_.default: torch.ops.aten.masked_fill_.Tensor,
}


def filled(program: ExportedProgram) -> ExportedProgram:
    """The program with one number put where one mask says written as a fill."""
    return rewritten(program, _put, _fill)


def _put(node: Any) -> tuple[Any, Any, Any] | None:
    """What is filled, where, and with which number, if a node puts one where one mask says."""
    if node.target not in _FILLS:
        return None
    held, places, number, *accumulate = node.args
    if _dtype(held) is torch.bool:
        return None  # ONNX Runtime has no choice among these
    is_mask = len(places) == 1 and _dtype(places[0]) is torch.bool
    is_alone = _dtype(number) is not None and _rank(number) == 0
    is_fill = is_mask and is_alone and not any(accumulate) and not node.kwargs
    return (held, places[0], number) if is_fill else None


def _fill(graph: Graph, node: Any, put: tuple[Any, Any, Any]) -> None:
    held, mask, number = put
    with graph.inserting_before(node):
        for _ in range(_rank(held) - _rank(mask)):
            value = mask.meta["val"].unsqueeze(-1)
            mask = graph.call_function(torch.ops.aten.unsqueeze.default, (mask, -1))
            mask.meta = {**node.meta, "val": value}
        fill = graph.call_function(_FILLS[node.target], (held, mask, number))
    fill.meta = dict(node.meta)
    node.replace_all_uses_with(fill)
    graph.erase_node(node)


def _dtype(node: Any) -> Any:
    """The dtype of the tensor that a node makes; None where it is not known to make one."""
    return getattr(getattr(node, "meta", {}).get("val"), "dtype", None)


def _rank(node: Any) -> int:
    return int(node.meta["val"].dim())
