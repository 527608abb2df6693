"""Small edits of ONNX graphs, shared by the bugs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelpack import onnx_graph

Mutate = Callable[[onnx.ModelProto, np.random.Generator], bool]
"""Plants a bug in a model, in place; says whether it applies to the model at all."""


def chosen(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    """One of the items, or None if there are none."""
    return items[int(rng.integers(len(items)))] if items else None


def named(model: onnx.ModelProto, *kinds: str) -> list[onnx.NodeProto]:
    """Nodes of some kinds, at every depth."""
    return [node for node in onnx_graph.nodes(model) if node.op_type in kinds]


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    """An attribute of a node by name."""
    return next((item for item in node.attribute if item.name == name), None)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Give an attribute another value, or add it."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def insert_after(
    model: onnx.ModelProto, node: onnx.NodeProto, more: Sequence[onnx.NodeProto]
) -> None:
    """Put nodes behind another."""
    for graph in onnx_graph.graphs(model.graph):
        for index, item in enumerate(graph.node):
            if item is node or item == node:
                for offset, new in enumerate(more):
                    graph.node.insert(index + 1 + offset, new)
                return


def give_constant(model: onnx.ModelProto, node: onnx.NodeProto, position: int, array: Any) -> bool:
    """Give one input of one node other numbers; other users of the constant keep theirs."""
    name = f"{node.input[position]}__{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    node.input[position] = name
    return True


def is_padded(node: onnx.NodeProto) -> bool:
    """Whether a window reaches over the edge."""
    auto, pads = attribute(node, "auto_pad"), attribute(node, "pads")
    same = auto is not None and auto.s.startswith(b"SAME")
    return same or (pads is not None and any(pads.ints))
