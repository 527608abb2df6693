"""Bugs in trees, thresholds and classes of an ONNX model."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.planted.graph import attribute, chosen, named, set_attribute
from benchmarks.planted.weights import constants, replace_tensor
from modelpack import onnx_graph


def _trees(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in onnx_graph.nodes(model) if node.op_type.startswith("TreeEnsemble")]


def nan_routing(model: onnx.ModelProto, _rng: np.random.Generator) -> bool:
    """Missing values go the other way."""
    for node in _trees(model):
        names = ("nodes_missing_value_tracks_true", "nodes_modes", "nodes_featureids")
        tracks, *others = (attribute(node, name) for name in names)
        count = max((len(item.ints) or len(item.strings) for item in others if item), default=0)
        values = list(tracks.ints) if tracks is not None else [0] * count
        set_attribute(node, names[0], [1 - value for value in values])
    return bool(_trees(model))


def open_intervals(model: onnx.ModelProto, _rng: np.random.Generator) -> bool:
    """Less-or-equal at the nodes of trees taken for less."""
    changed = False
    for node in _trees(model):
        modes = attribute(node, "nodes_modes")
        if modes is not None and modes.strings:
            other = {b"BRANCH_LEQ": b"BRANCH_LT", b"BRANCH_LT": b"BRANCH_LEQ"}
            set_attribute(node, "nodes_modes", [other.get(mode, mode) for mode in modes.strings])
            changed = True
    return changed


def dropped_threshold(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A decision at the usual half, or at zero."""
    for node in named(model, "Binarizer"):
        set_attribute(node, "threshold", 0.0)
        return True
    known = constants(model)
    found = [
        name
        for node in named(model, "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
        for name in node.input
        if name in known and known[name].data_type in {1, 11}
    ]
    name = chosen(rng, found)
    if name is None:
        return False
    value = numpy_helper.to_array(known[name])
    replace_tensor(known[name], np.full_like(value, 0.5 if value.size == 1 else 0.0))
    return True


def class_order(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Two classes exchanged: in the list of labels, or as columns of the last layer."""
    for node in onnx_graph.nodes(model):
        for item in node.attribute:
            labels = list(item.ints) or list(item.strings)
            if item.name.startswith("classlabels") and len(labels) > 1:
                set_attribute(node, item.name, [labels[1], labels[0], *labels[2:]])
                return True
    for node in named(model, "ArrayFeatureExtractor", "Gather"):
        tensor = constants(model).get(node.input[0])
        if tensor is not None and len(tensor.dims) == 1 and tensor.dims[0] > 1:
            labels = numpy_helper.to_array(tensor).copy()
            labels[[0, 1]] = labels[[1, 0]]
            replace_tensor(tensor, labels)
            return True
    return _swapped_columns(model, rng)


def _swapped_columns(model: onnx.ModelProto, _rng: np.random.Generator) -> bool:
    """The columns of two classes exchanged in the answer."""
    output = model.graph.output[0]
    dims = output.type.tensor_type.shape.dim
    if len(dims) != 2 or not dims[1].dim_value > 1:
        return False
    producer = next(n for n in model.graph.node if output.name in n.output)
    position = list(producer.output).index(output.name)
    producer.output[position] = f"{output.name}__straight"
    order = np.arange(dims[1].dim_value)
    order[[0, 1]] = order[[1, 0]]
    model.graph.initializer.append(numpy_helper.from_array(order, "order__"))
    gather = helper.make_node(
        "Gather", [f"{output.name}__straight", "order__"], [output.name], axis=1
    )
    model.graph.node.append(gather)
    return True
