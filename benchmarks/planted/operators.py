"""Bugs in the operators of an ONNX model: another epsilon, mode, branch or rounding."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.planted.graph import (
    attribute,
    chosen,
    insert_after,
    is_padded,
    named,
    set_attribute,
)
from benchmarks.planted.weights import constants, replace_tensor
from modelpack import onnx_graph


def epsilon(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Another framework's epsilon in a normalization."""
    nodes = [node for node in onnx_graph.nodes(model) if attribute(node, "epsilon")]
    known = constants(model)
    small = [item for item in known.values() if _is_epsilon(item)]
    place = chosen(rng, [*nodes, *small])
    if place is None:
        return False
    if isinstance(place, onnx.NodeProto):
        epsilon = attribute(place, "epsilon").f  # type: ignore[union-attr]
        set_attribute(place, "epsilon", 1e-5 if epsilon > 5e-4 else 1e-3)
        return True
    value = numpy_helper.to_array(place)
    replace_tensor(place, np.full_like(value, 1e-5 if value.max() > 5e-4 else 1e-3))
    return True


def _is_epsilon(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
        return False
    value = numpy_helper.to_array(tensor)
    return value.size == 1 and 1e-13 < float(value.max()) < 2e-3


def missing_bias(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    known = constants(model)
    names = [n.input[2] for n in named(model, "Conv", "Gemm") if len(n.input) > 2]
    names += [n.input[3] for n in named(model, "LSTM", "GRU") if len(n.input) > 3]
    names += [name for node in named(model, "Add") for name in node.input if name in known]
    names = [name for name in names if name in known and numpy_helper.to_array(known[name]).any()]
    name = chosen(rng, names)
    if name is None:
        return False
    replace_tensor(known[name], np.zeros_like(numpy_helper.to_array(known[name])))
    return True


def swapped_outputs(model: onnx.ModelProto, _rng: np.random.Generator) -> bool:
    kinds = [str(output.type) for output in model.graph.output]
    pairs = [(i, j) for i in range(len(kinds)) for j in range(i) if kinds[i] == kinds[j]]
    if not pairs:
        return False
    one, other = (model.graph.output[index].name for index in pairs[0])
    names = {one: f"{one}__", other: one, f"{one}__": other}
    for old in (one, other, f"{one}__"):
        for node in model.graph.node:
            node.input[:] = [names[old] if name == old else name for name in node.input]
            node.output[:] = [names[old] if name == old else name for name in node.output]
    return True


def approximate_gelu(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """One GELU by tanh, D. Hendrycks and K. Gimpel, arXiv:1606.08415, instead of by erf."""
    whole = chosen(rng, named(model, "Gelu"))
    if whole is not None:
        set_attribute(whole, "approximate", "tanh")
        return True
    node = chosen(rng, named(model, "Erf"))
    if node is None:
        return False
    # erf(u), u = x / sqrt(2), becomes tanh(2 / sqrt(pi) * (u + 0.08943 * u**3)).
    value, own = node.input[0], node.output[0]
    numbers = {"gelu_three": 3.0, "gelu_cubic": 0.08943, "gelu_factor": 2 / np.sqrt(np.pi)}
    for name, number in numbers.items():
        model.graph.initializer.append(
            numpy_helper.from_array(np.array(number, np.float32), f"{own}_{name}")
        )
    steps = [
        ("Pow", [value, f"{own}_gelu_three"], "a"),
        ("Mul", [f"{own}__a", f"{own}_gelu_cubic"], "b"),
        ("Add", [f"{own}__b", value], "c"),
        ("Mul", [f"{own}__c", f"{own}_gelu_factor"], "d"),
    ]
    nodes = [helper.make_node(op, inputs, [f"{own}__{out}"]) for op, inputs, out in steps]
    nodes.append(helper.make_node("Tanh", [f"{own}__d"], [own]))
    node.output[0] = f"{own}__unused"
    insert_after(model, node, nodes)
    return True


def align_corners(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    node = chosen(rng, named(model, "Resize"))
    if node is None:
        return False
    mode = attribute(node, "coordinate_transformation_mode")
    aligned = mode is not None and mode.s == b"align_corners"
    other = "half_pixel" if aligned else "align_corners"
    set_attribute(node, "coordinate_transformation_mode", other)
    return True


def baked_branch(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """The way that one sample takes, taken by all."""
    node = chosen(rng, named(model, "Where"))
    if node is None:
        return False
    node.input[0] = node.input[0] + "__baked"
    always = np.array(bool(rng.integers(2)))
    model.graph.initializer.append(numpy_helper.from_array(always, node.input[0]))
    return True


def saturated(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """ReLU taken for ReLU6, or a leaky slope forgotten."""
    node = chosen(rng, named(model, "Relu", "LeakyRelu", "Elu"))
    if node is None:
        return False
    if node.op_type != "Relu":
        set_attribute(node, "alpha", 0.2 if node.op_type == "LeakyRelu" else 0.9)
        return True
    own = node.output[0]
    node.output[0] = f"{own}__open"
    limit = numpy_helper.from_array(np.array(6, np.float32), f"{own}__six")
    model.graph.initializer.append(limit)
    insert_after(model, node, [helper.make_node("Min", [node.output[0], limit.name], [own])])
    return True


def wrong_rounding(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Halves rounded up instead of to even, or a cast that rounds instead of cutting off."""
    nodes = named(model, "Round")
    node = chosen(rng, nodes)
    if node is None:
        return False
    own = node.output[0]
    half = numpy_helper.from_array(np.array(0.5, np.float32), f"{own}__half")
    model.graph.initializer.append(half)
    value = node.input[0]
    node.output[0] = f"{own}__unused"
    more = [
        helper.make_node("Add", [value, half.name], [f"{own}__up"]),
        helper.make_node("Floor", [f"{own}__up"], [own]),
    ]
    insert_after(model, node, more)
    return True


def padding_counted(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Zeros of the padding counted in an average, or no longer."""
    nodes = [node for node in named(model, "AveragePool") if is_padded(node)]
    node = chosen(rng, nodes)
    if node is None:
        return False
    counted = attribute(node, "count_include_pad")
    set_attribute(node, "count_include_pad", 0 if counted is not None and counted.i else 1)
    return True
