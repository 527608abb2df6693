"""Zeros around an image that a maximum is taken of, which ONNX Runtime must not drop.

ONNX Runtime's optimizer makes one node of ``Pad`` and ``MaxPool``, whose own padding never wins
the maximum. That is right for a padding of zeros only where nothing is negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from modelpack import onnx_graph

# What makes no negative numbers, so that the nodes may become one.
_NOT_NEGATIVE = {"Relu", "Sigmoid", "Softmax", "Abs", "Exp"}


def keep_zeros(model: onnx.ModelProto) -> None:
    """Pad with -0.0 where ONNX Runtime would drop zeros: equal, and not taken for no padding."""
    for graph in onnx_graph.graphs(model.graph):
        makers = {name: node for node in graph.node for name in node.output}
        for node in graph.node:
            if node.op_type == "MaxPool":
                pad = _source(makers, node.input[0])
                if pad is not None and pad.op_type == "Pad":
                    _mark(graph, makers, pad)


def _source(makers: dict[str, Any], name: str) -> Any:
    node = makers.get(name)
    while node is not None and node.op_type == "Identity":
        node = makers.get(node.input[0])
    return node


def _mark(graph: Any, makers: dict[str, Any], pad: Any) -> None:
    before = _source(makers, pad.input[0])
    if before is not None and before.op_type in _NOT_NEGATIVE:
        return
    if any(item.name == "mode" and item.s != b"constant" for item in pad.attribute):
        return
    value = _value(graph, makers, pad)
    if value is None or value.dtype.kind not in "fV" or np.any(value):
        return
    name = f"{pad.output[0]}_zero"
    pad.input.extend([""] * (3 - len(pad.input)))
    pad.input[2] = name
    graph.initializer.append(numpy_helper.from_array(np.negative(np.zeros_like(value)), name))


def _value(graph: Any, makers: dict[str, Any], pad: Any) -> Any:
    """What a node pads with; None if that is not known."""
    if len(pad.input) < 2:
        return None  # before opset 11
    name = pad.input[2] if len(pad.input) > 2 else ""
    if not name:
        kinds = [
            item.data_type for item in graph.initializer if item.data_type in onnx_graph.FLOATS
        ]
        kind = onnx.helper.tensor_dtype_to_np_dtype(kinds[0] if kinds else onnx.TensorProto.FLOAT)
        return np.zeros((), kind)
    constants = [item for item in graph.initializer if item.name == name]
    if constants:
        return numpy_helper.to_array(constants[0])
    node = _source(makers, name)
    if node is None or node.op_type != "Constant" or node.attribute[0].name != "value":
        return None
    return numpy_helper.to_array(node.attribute[0].t)
