"""Arithmetic in bfloat16, which ONNX Runtime has no kernels for on a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from modelpack import onnx_graph
from modelpack.errors import UnsupportedOpsError

_BFLOAT16 = onnx.TensorProto.BFLOAT16

# Ops that ONNX Runtime runs in bfloat16: they move numbers, or turn them into others.
_MOVING = {
    *("Cast", "Concat", "Constant", "Flatten", "Gather", "Identity", "If", "Loop", "Reshape"),
    *("Scan", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
}


def refuse_bfloat16(model: onnx.ModelProto, what: str) -> None:
    """Refuse a model that computes in bfloat16.

    Args:
        model: as PyTorch's exporter writes it, with the types of its values.
        what: the source, for the message.

    Raises:
        UnsupportedOpsError: it does; the message lists the ops.
    """
    values = {name for graph in onnx_graph.graphs(model.graph) for name in _bfloat16_values(graph)}
    found = {
        node.op_type
        for node in onnx_graph.nodes(model)
        if node.op_type not in _MOVING and not values.isdisjoint((*node.input, *node.output))
    }
    if found:
        raise UnsupportedOpsError(
            f"'{what}' computes in bfloat16, which ONNX Runtime does not on a CPU: "
            f"{', '.join(sorted(found))}",
            hint="convert it in float32: call .float() on the model, or give a float32 module as a "
            "Python reference and these weights with --weights, which become float32 then",
        )


def _bfloat16_values(graph: onnx.GraphProto) -> Iterator[str]:
    for tensor in graph.initializer:
        if tensor.data_type == _BFLOAT16:
            yield tensor.name
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _BFLOAT16:
            yield value.name
