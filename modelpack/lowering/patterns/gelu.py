"""Gelu, which ONNX did not have before opset 20."""

from __future__ import annotations

import math

import onnx

from modelpack.lowering.patterns.graph import Graph, Group
from modelpack.lowering.registry import MICROSOFT


def gelu_at(graph: Graph, erf: onnx.NodeProto) -> Group | None:
    """``x * 0.5 * (1 + erf(x / sqrt(2)))``, in any order of its factors."""
    scaled = graph.maker(erf.input[0])
    source = _scaled(graph, scaled, math.sqrt(0.5))
    shifted = graph.only_reader(erf, "Add")
    if scaled is None or source is None or shifted is None:
        return None
    if not graph.is_scalar(_other(shifted, erf), 1.0):
        return None
    product = graph.only_reader(shifted, "Mul")
    if product is None:
        return None
    parts = (scaled, erf, shifted)
    factor = _other(product, shifted)
    if _scaled(graph, graph.maker(factor), 0.5) == source:
        return _gelu(source, product, parts)
    last = graph.only_reader(product)
    if factor == source and last is not None and _scaled(graph, last, 0.5) == product.output[0]:
        return _gelu(source, last, (*parts, product))
    return None


def _gelu(source: str, last: onnx.NodeProto, others: tuple[onnx.NodeProto, ...]) -> Group:
    node = onnx.helper.make_node(
        "Gelu", [source], [last.output[0]], name=last.name, domain=MICROSOFT
    )
    return Group(node, others)


def _scaled(graph: Graph, node: onnx.NodeProto | None, scale: float) -> str | None:
    """What a node multiplies by a scale, or divides by its inverse."""
    if node is None or node.op_type not in {"Mul", "Div"}:
        return None
    left, right = node.input
    if node.op_type == "Div":
        return left if graph.is_scalar(right, 1 / scale) else None
    if graph.is_scalar(right, scale):
        return left
    return right if graph.is_scalar(left, scale) else None


def _other(node: onnx.NodeProto, maker: onnx.NodeProto) -> str:
    """The input of a node of two that another node does not make; empty if it makes both."""
    return next((name for name in node.input if name != maker.output[0]), "")
