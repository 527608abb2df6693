"""Indices of 32 bits, where ONNX has 64 bits alone: PyTorch has ops that count in either."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from modelpack import onnx_graph

# Ops that take int64 alone, and which of their inputs are indices.
_WIDE = {"ScatterND": 1, "GatherND": 1}


def widen_indices(model: onnx.ModelProto) -> None:
    """Convert indices of 32 bits before the ops that take 64."""
    for graph in onnx_graph.graphs(model.graph):
        narrow = _narrow(graph)
        nodes = []
        for node in graph.node:
            at = _WIDE.get(node.op_type)
            if at is not None and node.input[at] in narrow:
                name = f"{node.output[0]}_indices"
                nodes.append(
                    helper.make_node("Cast", [node.input[at]], [name], name, to=TensorProto.INT64)
                )
                node.input[at] = name
            nodes.append(node)
        if len(nodes) > len(graph.node):
            kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(kept)


def _narrow(graph: onnx.GraphProto) -> set[str]:
    """The values of a graph that are known to be int32."""
    values = [
        item.name
        for item in (*graph.input, *graph.value_info)
        if item.type.tensor_type.elem_type == TensorProto.INT32
    ]
    constants = [item.name for item in graph.initializer if item.data_type == TensorProto.INT32]
    return {*values, *constants}
