"""Weights of an ONNX graph that were its inputs while it was converted.

What is computed from weights alone (a filter in another order, scaled by a norm) is taken out
of the graph as a recipe (`detach`) and computed, one tensor at a time, when the graph is done
(`attach`): until then nothing copies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator

from modelpack import onnx_graph

# What converters do to weights. Results are not larger than what goes in.
_FOLDED = {
    *("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"),
    *("Mul", "Add", "Sub", "Div", "Neg", "Slice", "Split"),
}


def detach(model: onnx.ModelProto, weights: set[str]) -> dict[str, onnx.ModelProto]:
    """Replace inputs that are weights by initializers without a value.

    Args:
        model: changed in place. The ``doc_string`` of each such initializer is its key, since
            its name may change.
        weights: names of its inputs.

    Returns:
        by key, a model that computes the value from inputs that are weights.
    """
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    folded = _folded(graph, weights, constants)
    gone = {id(node) for node in folded.values()}
    kept = [node for node in graph.node if id(node) not in gone]
    read = {value.name for value in graph.output}
    read |= {name for node in kept for name in onnx_graph.reads(node)}
    recipes = {
        name: _recipe(model, name, folded, constants)
        for name in sorted(read & (weights | folded.keys()))
    }
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    inputs = [value for value in graph.input if value.name not in weights]
    for field, items in ((graph.node, copies), (graph.input, inputs)):
        del field[:]
        field.extend(items)
    for name in recipes:
        graph.initializer.add(name=name, doc_string=name)
    return recipes


def attach(
    model: onnx.ModelProto,
    recipes: Mapping[str, onnx.ModelProto],
    weights: Mapping[str, Callable[[], npt.NDArray[Any]]],
) -> None:
    """Compute the values of the initializers that `detach` left, and set them.

    Args:
        model: changed in place.
        recipes: as `detach` returned them.
        weights: what gives the value of a weight.
    """
    for item in model.graph.initializer:
        if item.doc_string in recipes:
            _set(item, _computed(recipes[item.doc_string], weights))
            item.ClearField("doc_string")


def _computed(
    recipe: onnx.ModelProto, weights: Mapping[str, Callable[[], npt.NDArray[Any]]]
) -> npt.NDArray[Any]:
    feed = {value.name: weights[value.name]() for value in recipe.graph.input}
    if not recipe.graph.node:
        return next(iter(feed.values()))
    result: npt.NDArray[Any] = ReferenceEvaluator(recipe).run(None, feed)[0]
    return result


def _set(tensor: onnx.TensorProto, array: npt.NDArray[Any]) -> None:
    """Give a tensor its value, with one copy beside the array: a single one may be half a model.

    ONNX keeps numbers in little-endian order, as this machine does if it runs TensorFlow.
    """
    tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.tobytes()


def _folded(
    graph: onnx.GraphProto, weights: set[str], constants: Mapping[str, Any]
) -> dict[str, onnx.NodeProto]:
    """Nodes that compute with weights and constants alone, by what they compute."""
    known = weights | constants.keys()
    found: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        needed = [name for name in node.input if name]
        from_weights = any(name in weights or name in found for name in needed)
        if node.op_type in _FOLDED and from_weights and known.issuperset(needed):
            known |= set(node.output)
            found.update(dict.fromkeys(node.output, node))
    return found


def _recipe(
    model: onnx.ModelProto,
    name: str,
    folded: Mapping[str, onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
) -> onnx.ModelProto:
    """A model that computes one folded tensor."""
    nodes: dict[int, onnx.NodeProto] = {}
    leaves: dict[str, None] = {}

    def add(wanted: str) -> None:
        node = folded.get(wanted)
        if node is None:
            leaves[wanted] = None
        elif id(node) not in nodes:
            for needed in filter(None, node.input):
                add(needed)
            nodes[id(node)] = node

    add(name)
    types = {value.name: value for value in model.graph.input}
    graph = onnx.helper.make_graph(
        list(nodes.values()),
        "weight",
        [types[leaf] for leaf in leaves if leaf not in constants],
        [onnx.helper.make_empty_tensor_value_info(name)],
        [constants[leaf] for leaf in leaves if leaf in constants],
    )
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
