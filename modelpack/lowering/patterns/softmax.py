"""Rows of NaN in a softmax, which PyTorch's exporter replaces by zeros."""

from __future__ import annotations

import onnx

from modelpack.lowering.patterns.graph import Graph, Group
from modelpack.lowering.registry import OWN


def zeroed_rows_at(graph: Graph, node: onnx.NodeProto) -> Group | None:
    """``where(isnan(p), 0, p)`` of a softmax ``p``: the attention of a row that masks all.

    Infinities make a row NaN as a whole, so one element says whether it is. A NaN that comes
    in is something else: kernels leave it in its place, and there it stays.
    """
    softmax = graph.maker(node.input[0], "Softmax")
    where = graph.only_reader(node, "Where")
    if softmax is None or where is None or where.input[0] != node.output[0]:
        return None
    if where.input[2] != node.input[0] or not graph.is_scalar(where.input[1], 0.0):
        return None
    # The last axis is a default's, or, before opset 13, among those that the sum goes over.
    axis = next((item.i for item in softmax.attribute if item.name == "axis"), -1)
    whole = onnx.helper.make_node(
        "NanRowsZeroed",
        [node.input[0]],
        [where.output[0]],
        name=where.name,
        domain=OWN,
        axis=axis,
    )
    return Group(whole, (node,))
