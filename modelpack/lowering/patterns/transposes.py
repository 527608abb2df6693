"""Transposes that PyTorch's exporter writes as one of three axes between two reshapes."""

from __future__ import annotations

import onnx

from modelpack.lowering.patterns.graph import Graph, Group, Sizes
from modelpack.lowering.registry import OWN


def matrix_transpose_at(graph: Graph, node: onnx.NodeProto) -> Group | None:
    """(..., m, n) as (-1, m, n), transposed to (-1, n, m), and back to (..., n, m).

    So it transposes the keys of an attention whose length is dynamic.
    """
    if [list(item.ints) for item in node.attribute if item.name == "perm"] != [[0, 2, 1]]:
        return None
    before = graph.maker(node.input[0], "Reshape")
    after = graph.only_reader(node, "Reshape")
    if before is None or after is None or after.input[0] != node.output[0]:
        return None
    source = before.input[0]
    rows, columns = Sizes(source, -2, -1), Sizes(source, -1)
    merged, split = (graph.maker(item.input[1], "Concat") for item in (before, after))
    if merged is None or split is None or graph.integers(merged.input[0]) != [-1]:
        return None
    if [graph.sizes(name) for name in merged.input[1:]] != [rows, columns]:
        return None
    if [graph.sizes(name) for name in split.input] != [Sizes(source, 0, -2), columns, rows]:
        return None
    whole = onnx.helper.make_node(
        "MatrixTranspose", [source], [after.output[0]], name=node.name, domain=OWN
    )
    return Group(whole, (before, node))
