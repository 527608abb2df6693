"""Groups of nodes that exporters write for one op, put back together.

A model holds what an op is made of where its opset has no such op, or the exporter does not
know it. Kernels for the whole are faster than the parts, and the layout of what happens
between the parts need not be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from modelpack.lowering.graph import reads
from modelpack.lowering.patterns.gelu import gelu_at
from modelpack.lowering.patterns.graph import Graph, Group
from modelpack.lowering.patterns.groups import group_normalization_at
from modelpack.lowering.patterns.softmax import zeroed_rows_at
from modelpack.lowering.patterns.transposes import matrix_transpose_at
from modelpack.lowering.value import Array

# By the type of the node that is looked at.
_PATTERNS: Mapping[str, Callable[[Graph, onnx.NodeProto], Group | None]] = {
    "Erf": gelu_at,
    "InstanceNormalization": group_normalization_at,
    "IsNaN": zeroed_rows_at,
    "Transpose": matrix_transpose_at,
}


def recombined(
    model: onnx.ModelProto, constants: Mapping[str, Callable[[], Array]]
) -> onnx.ModelProto:
    """Put one node in the place of each group of nodes that one of the patterns finds.

    Args:
        model: is changed. Only its main graph is looked through.
        constants: reads an initializer of that graph, by name.
    """
    graph = Graph(model.graph, constants)
    candidates = (
        _PATTERNS[node.op_type](graph, node)
        for node in model.graph.node
        if node.op_type in _PATTERNS and node.domain in {"", "ai.onnx"}
    )
    groups = [group for group in candidates if group is not None]
    if groups:
        _replace(model.graph, groups)
        _import_domains(model, {group.node.domain for group in groups})
    return model


def _replace(graph: onnx.GraphProto, groups: list[Group]) -> None:
    replaced = {group.node.output[0]: group.node for group in groups}
    parts = {node.output[0] for group in groups for node in group.others}
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        first = node.output[0] if node.output else ""
        if first not in parts or needed.intersection(node.output):
            kept.append(replaced.get(first, node))
            needed.update(reads(kept[-1]))
    del graph.node[:]
    graph.node.extend(reversed(kept))


def _import_domains(model: onnx.ModelProto, domains: set[str]) -> None:
    present = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(
        onnx.helper.make_opsetid(domain, 1) for domain in sorted(domains - present)
    )
