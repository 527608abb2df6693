"""Arithmetic in bfloat16, which ONNX Runtime has no kernels for on a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from modelpack import onnx_graph
from modelpack.errors import UnsupportedOpsError

_BFLOAT16 = onnx.TensorProto.BFLOAT16

# Ops that ONNX Runtime runs in bfloat16: they move numbers, or turn them into others.
_MOVING = {
    *("Cast", "Concat", "Constant", "Flatten", "Gather", "Identity", "If", "Loop", "Reshape"),
    *("Scan", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
}

# Ops that PyTorch computes in float32 and rounds once: a network of float32 that has a few of
# them, as Falcon's biases of positions, answers the same where they are written so.
_ROUNDED_ONCE = {"Add", "Div", "Mul", "Sub"}


def in_float32(model: onnx.ModelProto) -> None:
    """Let arithmetic on pairs of bfloat16 be float32 between casts, in place.

    A model that takes or gives bfloat16 is left as it is: such tensors cannot be fed anyway.
    """
    ends = (*model.graph.input, *model.graph.output)
    if any(value.type.tensor_type.elem_type == _BFLOAT16 for value in ends):
        return
    for graph in onnx_graph.graphs(model.graph):
        values = set(_bfloat16_values(graph))
        for node in list(graph.node):
            if node.op_type in _ROUNDED_ONCE and values.issuperset((*node.input, *node.output)):
                _cast_around(graph, node)


def _cast_around(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    made = node.output[0]
    place = next(index for index, other in enumerate(graph.node) if other is node)
    node.output[0] = f"{made}_float32"
    graph.node.insert(place + 1, _cast(node.output[0], made, _BFLOAT16))
    for index, read in enumerate(node.input):
        node.input[index] = f"{made}_from_{index}"
        graph.node.insert(place, _cast(read, node.input[index], onnx.TensorProto.FLOAT))


def _cast(read: str, made: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [read], [made], name=f"node_{made}_cast", to=dtype)


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
