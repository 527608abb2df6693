"""Attention of rows that a mask hides whole, as PyTorch answers it: with zeros.

PyTorch's exporter adds the lowest finite number to the scores that a boolean mask hides, and puts
zeros in the place of NaN behind the softmax. But a softmax of finite numbers is not NaN: where a
row is hidden whole, it would be the mean of everything that is hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

from modelpack import onnx_graph

# From this opset on, axes of reductions are an input.
_AXES_AS_INPUT = 18


class _Attention(NamedTuple):
    """The nodes of one attention: ``where(isnan(p), 0, p)``, and the mask that ``p`` is of."""

    test: onnx.NodeProto
    mask: str


def zero_hidden_rows(model: onnx.ModelProto) -> None:
    """Let the mask itself say which rows of an attention are zeros, in place."""
    opset = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    for graph in onnx_graph.graphs(model.graph):
        made: dict[str, str] = {}
        for attention in list(_attentions(graph)):
            if attention.mask not in made:
                made[attention.mask] = f"{attention.mask}_hides_row"
                _insert(graph, attention, made[attention.mask], opset)
            _replace(graph, attention.test, made[attention.mask])


def _attentions(graph: onnx.GraphProto) -> Iterator[_Attention]:
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "IsNaN":
            continue
        softmax = makers.get(node.input[0])
        added = makers.get(softmax.input[0]) if softmax and softmax.op_type == "Softmax" else None
        for mask in _masks(added, makers):
            yield _Attention(node, mask)


def _masks(added: onnx.NodeProto | None, makers: Mapping[str, onnx.NodeProto]) -> Iterator[str]:
    """Yield the mask of the ``where(mask, 0, lowest)`` that a node adds to something."""
    for name in added.input if added is not None and added.op_type == "Add" else ():
        where = makers.get(name)
        if where is not None and where.op_type == "Where":
            yield where.input[0]


def _insert(graph: onnx.GraphProto, attention: _Attention, name: str, opset: int) -> None:
    """Compute whether a mask hides all of a row, before its first use."""
    seen, most, any_seen = (f"{name}_{part}" for part in ("seen", "most", "any"))
    axes, attributes = [], {"axes": [-1]}
    if opset >= _AXES_AS_INPUT:
        axes, attributes = [f"{name}_axes"], {}
        graph.initializer.append(helper.make_tensor(axes[0], TensorProto.INT64, [1], [-1]))
    nodes = [
        helper.make_node("Cast", [attention.mask], [seen], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", [seen, *axes], [most], keepdims=1, **attributes),
        helper.make_node("Cast", [most], [any_seen], to=TensorProto.BOOL),
        helper.make_node("Not", [any_seen], [name]),
    ]
    position = list(graph.node).index(attention.test)
    for node in reversed(nodes):
        node.name = f"node_{node.output[0]}"
        graph.node.insert(position, node)


def _replace(graph: onnx.GraphProto, test: onnx.NodeProto, name: str) -> None:
    for node in graph.node:
        for index, read in enumerate(node.input):
            if read == test.output[0]:
                node.input[index] = name
    graph.node.remove(test)
