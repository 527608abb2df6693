"""The real numbers that an ONNX model holds, wherever it holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from modelpack import onnx_graph

_REAL = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


@dataclass(frozen=True)
class Weight:
    """Numbers of a model, and how they are put back."""

    name: str
    array: Any
    write: Callable[[Any], None]


def weights(model: onnx.ModelProto) -> list[Weight]:
    """Initializers, constants and attributes of classical operators that are real and not empty."""
    found = [_of_tensor(tensor) for tensor in tensors(model) if tensor.data_type in _REAL]
    for node in onnx_graph.nodes(model):
        if node.domain != "ai.onnx.ml":
            continue
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.FLOATS:
                found.append(_of_floats(attribute))
            elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _REAL:
                found.append(_of_tensor(attribute.t))
    return [weight for weight in found if weight.array.size]


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initializers and the values of Constant nodes."""
    for graph in onnx_graph.graphs(model.graph):
        yield from graph.initializer
    for node in onnx_graph.nodes(model):
        if node.op_type == "Constant":
            yield from (item.t for item in node.attribute if item.name == "value")


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Tensors by the name that nodes know them under."""
    found = {
        item.name: item for graph in onnx_graph.graphs(model.graph) for item in graph.initializer
    }
    for node in onnx_graph.nodes(model):
        if node.op_type == "Constant":
            found.update(
                (node.output[0], item.t) for item in node.attribute if item.name == "value"
            )
    return found


def replace_tensor(tensor: onnx.TensorProto, array: Any) -> None:
    """Give a tensor other numbers, under its name."""
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def _of_tensor(tensor: onnx.TensorProto) -> Weight:
    array = np.array(numpy_helper.to_array(tensor))
    return Weight(tensor.name, array, lambda changed: replace_tensor(tensor, changed))


def _of_floats(attribute: onnx.AttributeProto) -> Weight:
    def write(changed: Any) -> None:
        attribute.floats[:] = [float(value) for value in changed]

    return Weight(attribute.name, np.array(attribute.floats, np.float32), write)
