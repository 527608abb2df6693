"""Means of many numbers, which ONNX Runtime sums one after the other.

Of a constant image of 112 by 112 its `ReduceMean` is off by 1e-5, and its `GlobalAveragePool` by
1e-4, as measured with ONNX Runtime 1.31: each addition rounds the same way. The mean of the means
of rows is off by 2e-7, and takes as long.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelpack import onnx_graph

MEANS = ("ReduceMean", "GlobalAveragePool")

# Of fewer numbers the sum is good enough, and one node faster than two.
_MANY = 512

# From this version of the operators on, the axes are an input.
_AXES_ARE_INPUT = 18


def by_rows(model: onnx.ModelProto) -> None:
    """Take means over several axes of many numbers by the last axis first, where shapes tell.

    Those of whole numbers stay: they are rounded, and the mean of rounded means is another.
    """
    opset = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    told = (*model.graph.input, *model.graph.value_info)
    shapes = {
        each.name: _shape(each)
        for each in told
        if each.type.tensor_type.elem_type in onnx_graph.FLOATS
    }
    for graph in onnx_graph.graphs(model.graph):
        nodes = [
            part
            for node in graph.node
            for part in _parts(graph, node, shapes.get(_read(node)), opset)
        ]
        del graph.node[:]
        graph.node.extend(nodes)


def _read(node: Any) -> str:
    return node.input[0] if node.input else ""


def _parts(graph: Any, node: Any, shape: list[int | None] | None, opset: int) -> list[Any]:
    """The node itself, or a mean of rows and the mean of that."""
    shape = shape or []
    axes = _axes(graph, node, shape)
    if len(axes) < 2 or prod(int(shape[axis] or 0) for axis in axes) < _MANY:
        return [node]
    rows = f"{node.output[0]}_rows"
    first = _mean(graph, node.input[0], rows, axes[-1:], opset)
    if node.op_type == "GlobalAveragePool":
        return [first, _mean(graph, rows, node.output[0], axes, opset)]
    second = onnx.NodeProto()
    second.CopyFrom(node)
    second.input[0] = rows
    return [first, second]


def _shape(value: Any) -> list[int | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") else None
        for dim in value.type.tensor_type.shape.dim
    ]


def _axes(graph: Any, node: Any, shape: list[int | None]) -> tuple[int, ...]:
    """The axes that a node takes the mean of, in order; none where they are not known."""
    if node.op_type not in MEANS:
        return ()
    if node.op_type == "GlobalAveragePool":
        return tuple(range(2, len(shape)))
    given = next((item.ints for item in node.attribute if item.name == "axes"), ())
    if len(node.input) > 1:
        found = [item for item in graph.initializer if item.name == node.input[1]]
        given = numpy_helper.to_array(found[0]).tolist() if found else ()
    return tuple(sorted(axis % len(shape) for axis in given if shape))


def _mean(graph: Any, source: str, target: str, axes: tuple[int, ...], opset: int) -> Any:
    """A mean that keeps its axes."""
    if opset < _AXES_ARE_INPUT:
        return helper.make_node("ReduceMean", [source], [target], target, axes=axes, keepdims=1)
    name = f"{target}_axes"
    graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
    return helper.make_node("ReduceMean", [source, name], [target], target, keepdims=1)
