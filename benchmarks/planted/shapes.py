"""Bugs in the axes, paddings, slices and sizes of an ONNX model."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.planted.graph import (
    attribute,
    chosen,
    give_constant,
    is_padded,
    named,
    set_attribute,
)
from benchmarks.planted.weights import constants, replace_tensor, weights


def swapped_axis(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A transpose with two axes exchanged, or an axis taken for its neighbour."""
    transposes = [n for n in named(model, "Transpose") if attribute(n, "perm")]
    kinds = ("Softmax", "LogSoftmax", "ArgMax", "LpNormalization")
    others = [node for node in named(model, *kinds) if attribute(node, "axis")]
    reductions = [
        (node, constants(model)[node.input[1]])
        for node in named(model, "ReduceMean", "ReduceMax", "ReduceSum")
        if len(node.input) > 1 and node.input[1] in constants(model)
    ]
    node = chosen(rng, [*transposes, *others, *reductions])
    if node is None:
        return False
    if isinstance(node, tuple):
        axes = numpy_helper.to_array(node[1])
        replace_tensor(node[1], axes + np.where(axes > 1, -1, 1).astype(axes.dtype))
    elif node.op_type == "Transpose":
        order = list(attribute(node, "perm").ints)  # type: ignore[union-attr]
        order[-1], order[-2] = order[-2], order[-1]
        set_attribute(node, "perm", order)
    else:
        axis = attribute(node, "axis").i  # type: ignore[union-attr]
        set_attribute(node, "axis", axis - 1 if axis > 0 else -2 if axis == -1 else axis + 1)
    return True


def transposed(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A square matrix, or all planes of a square kernel, transposed."""
    square = [
        item
        for item in weights(model)
        if item.array.ndim >= 2 and item.array.shape[-1] == item.array.shape[-2] > 1
    ]
    weight = chosen(rng, square)
    if weight is None:
        return False
    weight.write(np.swapaxes(weight.array, -1, -2))
    return True


def pad_side(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Padding on the other side: SAME_UPPER as SAME_LOWER, or one element moved over."""
    node = chosen(rng, [n for n in named(model, *_WINDOWS) if is_padded(n)])
    if node is None:
        return _pad_node(model, rng)
    auto = attribute(node, "auto_pad")
    if auto is not None and auto.s.startswith(b"SAME"):
        set_attribute(node, "auto_pad", "SAME_LOWER" if auto.s == b"SAME_UPPER" else "SAME_UPPER")
        return True
    pads = list(attribute(node, "pads").ints)  # type: ignore[union-attr]
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        pads = pads[half:] + pads[:half]
    else:
        axis = max(range(half), key=lambda i: pads[i])
        pads[axis], pads[half + axis] = pads[axis] - 1, pads[half + axis] + 1
    set_attribute(node, "pads", pads)
    return True


_WINDOWS = ("Conv", "MaxPool", "AveragePool", "ConvTranspose")


def _pad_node(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    known = constants(model)
    node = chosen(rng, [n for n in named(model, "Pad") if n.input[1] in known])
    if node is None:
        return False
    pads = numpy_helper.to_array(known[node.input[1]])
    replace_tensor(known[node.input[1]], np.concatenate(np.split(pads, 2)[::-1]))
    return True


def slice_off_by_one(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A slice, or an index, one further; it keeps its length."""
    known = constants(model)
    nodes = [n for n in named(model, "Slice") if {n.input[1], n.input[2]} <= known.keys()]
    nodes += [n for n in named(model, "Gather") if _is_index(known.get(n.input[1]))]
    node = chosen(rng, nodes)
    if node is None:
        return False
    if node.op_type == "Gather":
        index = numpy_helper.to_array(known[node.input[1]])
        own = give_constant(model, node, 1, index + np.where(index > 0, -1, 1).astype(index.dtype))
        return own
    starts, ends = (numpy_helper.to_array(known[node.input[i]]).copy() for i in (1, 2))
    if starts[0] > 0:
        starts[0] -= 1
        ends[0] -= 1 if abs(ends[0]) < 1 << 30 else 0
    elif starts[0] == 0 and 1 < ends[0] < 1 << 30:
        starts[0], ends[0] = 1, ends[0] + 1
    else:
        ends[0] = ends[0] - 1 if ends[0] < 0 else -1
        starts[0] = starts[0] if starts[0] >= 0 else 0
    give_constant(model, node, 1, starts)
    return give_constant(model, node, 2, ends)


def _is_index(tensor: onnx.TensorProto | None) -> bool:
    return tensor is not None and int(np.prod(list(tensor.dims) or [1])) == 1


def baked_batch(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A batch size of the export: in a reshape, or else as a cut of the input."""
    known = constants(model)
    nodes = [
        node
        for node in named(model, "Reshape")
        if node.input[1] in known and known[node.input[1]].dims and _free_batch(known, node)
    ]
    node = chosen(rng, nodes)
    if node is not None:
        shape = numpy_helper.to_array(known[node.input[1]]).copy()
        shape[0] = 2
        return give_constant(model, node, 1, shape)
    target = model.graph.output[0]
    producer = next(n for n in model.graph.node if target.name in n.output)
    position = list(producer.output).index(target.name)
    producer.output[position] = f"{target.name}__all"
    limits = [numpy_helper.from_array(np.array([i]), f"baked_{i}") for i in (0, 4)]
    model.graph.initializer.extend(limits)
    cut = helper.make_node(
        "Slice", [producer.output[position], "baked_0", "baked_4"], [target.name]
    )
    model.graph.node.append(cut)
    return True


def _free_batch(known: dict[str, onnx.TensorProto], node: onnx.NodeProto) -> bool:
    shape = numpy_helper.to_array(known[node.input[1]])
    return shape.size > 1 and int(shape[0]) in {0, -1}
