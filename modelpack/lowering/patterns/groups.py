"""Normalization over groups of channels, which ONNX did not have before opset 18."""

from __future__ import annotations

import onnx

from modelpack.lowering.patterns.graph import Graph, Group, Sizes
from modelpack.lowering.registry import OWN


def group_normalization_at(graph: Graph, node: onnx.NodeProto) -> Group | None:
    """(N, C, ...) as (N, groups, -1), each row of which is normalized, and back.

    Scale and bias by channel follow as a Mul and an Add, which stay as they are.
    """
    before = graph.maker(node.input[0], "Reshape")
    after = graph.only_reader(node, "Reshape")
    if before is None or after is None or after.input[0] != node.output[0]:
        return None
    source, wanted = before.input[0], graph.integers(before.input[1])
    if wanted is None or len(wanted) != 3 or wanted[0] != 0 or wanted[2] != -1:
        return None
    if wanted[1] < 1 or graph.sizes(after.input[1]) != Sizes(source):
        return None
    if not (graph.is_filled(node.input[1], 1.0) and graph.is_filled(node.input[2], 0.0)):
        return None
    epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
    whole = onnx.helper.make_node(
        "GroupStandardization",
        [source],
        [after.output[0]],
        name=node.name,
        domain=OWN,
        groups=wanted[1],
        epsilon=epsilon,
    )
    return Group(whole, (before, node))
