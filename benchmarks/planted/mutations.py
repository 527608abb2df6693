"""Bugs planted in ONNX models: a table of small functions.

Each takes a model, which it changes in place, and a random generator that chooses among the
places where it applies; it returns whether it applies at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.planted.weights import Weight, constants, replace_tensor, tensors, weights
from modelpack import onnx_graph

Mutate = Callable[[onnx.ModelProto, np.random.Generator], bool]

SCALES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Mutation:
    """A kind of bug, as the table of results names it, and one way to make it."""

    kind: str
    mutate: Mutate


def mutated(
    model: onnx.ModelProto, mutation: Mutation, rng: np.random.Generator
) -> onnx.ModelProto | None:
    """A copy of the model with the bug, or None where it does not apply or changes nothing."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not mutation.mutate(copy, rng) or copy == model:
        return None
    return copy


# --- numbers -------------------------------------------------------------------------------


def _chosen(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    return items[int(rng.integers(len(items)))] if items else None


def _large(model: onnx.ModelProto) -> list[Weight]:
    """Weights of several numbers, some not zero."""
    return [item for item in weights(model) if item.array.size >= 4 and item.array.any()]


def _one_weight(scale: float) -> Mutate:
    def mutate(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
        weight = _chosen(rng, _large(model))
        if weight is None:
            return False
        flat = weight.array.reshape(-1)
        position = _chosen(rng, np.flatnonzero(flat).tolist())
        flat[position] *= 1 + scale
        weight.write(weight.array)
        return True

    return mutate


def _whole_tensor(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    weight = _chosen(rng, _large(model))
    if weight is None:
        return False
    weight.write((weight.array * (1 + 1e-4)).astype(weight.array.dtype))
    return True


def _through(dtype: Any) -> Mutate:
    """All weights through a narrower dtype."""

    def mutate(model: onnx.ModelProto, _rng: np.random.Generator) -> bool:
        for weight in weights(model):
            narrow = weight.array.astype(dtype).astype(weight.array.dtype)
            weight.write(np.where(np.isfinite(narrow), narrow, weight.array))
        return True

    return mutate


def _one_through(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """One tensor through float16."""
    weight = _chosen(rng, _large(model))
    if weight is None:
        return False
    narrow = weight.array.astype(np.float16).astype(weight.array.dtype)
    weight.write(np.where(np.isfinite(narrow), narrow, weight.array))
    return True


def _float64_downcast(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """What is kept in float64 is rounded to float32, weights and one computed value."""
    wide = [item for item in tensors(model) if item.data_type == onnx.TensorProto.DOUBLE]
    for tensor in wide:
        narrow = numpy_helper.to_array(tensor).astype(np.float32).astype(np.float64)
        replace_tensor(tensor, narrow)
    names = {tensor.name for tensor in wide}
    users = [node for node in onnx_graph.nodes(model) if names & set(node.input) and node.output]
    node = _chosen(rng, users)
    if node is None or node.op_type in {"Cast", "Constant", "Greater", "Less", "Equal"}:
        return bool(wide)
    _rounded_after(model, node, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    return True


def _computed_in_float16(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """One computed value through float16."""
    kinds = {"Gemm", "MatMul", "Conv", "Relu", "Add", "Tanh", "Sigmoid", "Mul"}
    nodes = [node for node in model.graph.node if node.op_type in kinds]
    known = constants(model)
    doubles = {name for name, item in known.items() if item.data_type != onnx.TensorProto.FLOAT}
    node = _chosen(rng, [node for node in nodes if not doubles & set(node.input)])
    if node is None or _doubles(model):
        return False
    _rounded_after(model, node, onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)
    return True


def _doubles(model: onnx.ModelProto) -> bool:
    return any(item.data_type == onnx.TensorProto.DOUBLE for item in tensors(model))


def _rounded_after(model: onnx.ModelProto, node: onnx.NodeProto, low: int, high: int) -> None:
    own = node.output[0]
    node.output[0] = f"{own}__wide"
    casts = [
        helper.make_node("Cast", [f"{own}__wide"], [f"{own}__narrow"], to=low),
        helper.make_node("Cast", [f"{own}__narrow"], [own], to=high),
    ]
    _insert_after(model, node, casts)


def _insert_after(
    model: onnx.ModelProto, node: onnx.NodeProto, more: Sequence[onnx.NodeProto]
) -> None:
    for graph in onnx_graph.graphs(model.graph):
        for index, item in enumerate(graph.node):
            if item is node or item == node:
                for offset, new in enumerate(more):
                    graph.node.insert(index + 1 + offset, new)
                return


# --- shapes and axes -----------------------------------------------------------------------


def _attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    return next((item for item in node.attribute if item.name == name), None)


def _set(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _named(model: onnx.ModelProto, *kinds: str) -> list[onnx.NodeProto]:
    return [node for node in onnx_graph.nodes(model) if node.op_type in kinds]


def _swapped_axis(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A transpose with two axes exchanged, or an axis taken for its neighbour."""
    transposes = [n for n in _named(model, "Transpose") if _attribute(n, "perm")]
    kinds = ("Softmax", "LogSoftmax", "ArgMax", "LpNormalization")
    others = [node for node in _named(model, *kinds) if _attribute(node, "axis")]
    reductions = [
        (node, constants(model)[node.input[1]])
        for node in _named(model, "ReduceMean", "ReduceMax", "ReduceSum")
        if len(node.input) > 1 and node.input[1] in constants(model)
    ]
    node = _chosen(rng, [*transposes, *others, *reductions])
    if node is None:
        return False
    if isinstance(node, tuple):
        axes = numpy_helper.to_array(node[1])
        replace_tensor(node[1], axes + np.where(axes > 1, -1, 1).astype(axes.dtype))
    elif node.op_type == "Transpose":
        order = list(_attribute(node, "perm").ints)  # type: ignore[union-attr]
        order[-1], order[-2] = order[-2], order[-1]
        _set(node, "perm", order)
    else:
        axis = _attribute(node, "axis").i  # type: ignore[union-attr]
        _set(node, "axis", axis - 1 if axis > 0 else -2 if axis == -1 else axis + 1)
    return True


def _transposed(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A square matrix, or all planes of a square kernel, transposed."""
    square = [
        item
        for item in weights(model)
        if item.array.ndim >= 2 and item.array.shape[-1] == item.array.shape[-2] > 1
    ]
    weight = _chosen(rng, square)
    if weight is None:
        return False
    weight.write(np.swapaxes(weight.array, -1, -2))
    return True


def _pad_side(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Padding on the other side: SAME_UPPER as SAME_LOWER, or one element moved over."""
    node = _chosen(rng, [n for n in _named(model, *_WINDOWS) if _can_shift(n)])
    if node is None:
        return _pad_node(model, rng)
    auto = _attribute(node, "auto_pad")
    if auto is not None and auto.s.startswith(b"SAME"):
        _set(node, "auto_pad", "SAME_LOWER" if auto.s == b"SAME_UPPER" else "SAME_UPPER")
        return True
    pads = list(_attribute(node, "pads").ints)  # type: ignore[union-attr]
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        pads = pads[half:] + pads[:half]
    else:
        axis = max(range(half), key=lambda i: pads[i])
        pads[axis], pads[half + axis] = pads[axis] - 1, pads[half + axis] + 1
    _set(node, "pads", pads)
    return True


_WINDOWS = ("Conv", "MaxPool", "AveragePool", "ConvTranspose")


def _can_shift(node: onnx.NodeProto) -> bool:
    auto, pads = _attribute(node, "auto_pad"), _attribute(node, "pads")
    same = auto is not None and auto.s.startswith(b"SAME")
    return same or (pads is not None and any(pads.ints))


def _pad_node(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    known = constants(model)
    node = _chosen(rng, [n for n in _named(model, "Pad") if n.input[1] in known])
    if node is None:
        return False
    pads = numpy_helper.to_array(known[node.input[1]])
    replace_tensor(known[node.input[1]], np.concatenate(np.split(pads, 2)[::-1]))
    return True


def _slice_off_by_one(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A slice, or an index, one further; it keeps its length."""
    known = constants(model)
    nodes = [n for n in _named(model, "Slice") if {n.input[1], n.input[2]} <= known.keys()]
    nodes += [n for n in _named(model, "Gather") if _is_index(known.get(n.input[1]))]
    node = _chosen(rng, nodes)
    if node is None:
        return False
    if node.op_type == "Gather":
        index = numpy_helper.to_array(known[node.input[1]])
        own = _copied(model, node, 1, index + np.where(index > 0, -1, 1).astype(index.dtype))
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
    _copied(model, node, 1, starts)
    return _copied(model, node, 2, ends)


def _is_index(tensor: onnx.TensorProto | None) -> bool:
    return tensor is not None and int(np.prod(list(tensor.dims) or [1])) == 1


def _copied(model: onnx.ModelProto, node: onnx.NodeProto, position: int, array: Any) -> bool:
    """Give one input of one node other numbers; other users of the constant keep theirs."""
    name = f"{node.input[position]}__{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    node.input[position] = name
    return True


def _baked_batch(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A batch size of the export: in a reshape, or else as a cut of the input."""
    known = constants(model)
    nodes = [
        node
        for node in _named(model, "Reshape")
        if node.input[1] in known and known[node.input[1]].dims and _free_batch(known, node)
    ]
    node = _chosen(rng, nodes)
    if node is not None:
        shape = numpy_helper.to_array(known[node.input[1]]).copy()
        shape[0] = 2
        return _copied(model, node, 1, shape)
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


# --- operators -----------------------------------------------------------------------------


def _epsilon(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Another framework's epsilon in a normalization."""
    nodes = [node for node in onnx_graph.nodes(model) if _attribute(node, "epsilon")]
    known = constants(model)
    small = [item for item in known.values() if _is_epsilon(item)]
    chosen = _chosen(rng, [*nodes, *small])
    if chosen is None:
        return False
    if isinstance(chosen, onnx.NodeProto):
        epsilon = _attribute(chosen, "epsilon").f  # type: ignore[union-attr]
        _set(chosen, "epsilon", 1e-5 if epsilon > 5e-4 else 1e-3)
        return True
    value = numpy_helper.to_array(chosen)
    replace_tensor(chosen, np.full_like(value, 1e-5 if value.max() > 5e-4 else 1e-3))
    return True


def _is_epsilon(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
        return False
    value = numpy_helper.to_array(tensor)
    return value.size == 1 and 1e-13 < float(value.max()) < 2e-3


def _missing_bias(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    known = constants(model)
    names = [n.input[2] for n in _named(model, "Conv", "Gemm") if len(n.input) > 2]
    names += [n.input[3] for n in _named(model, "LSTM", "GRU") if len(n.input) > 3]
    names += [name for node in _named(model, "Add") for name in node.input if name in known]
    names = [name for name in names if name in known and numpy_helper.to_array(known[name]).any()]
    name = _chosen(rng, names)
    if name is None:
        return False
    replace_tensor(known[name], np.zeros_like(numpy_helper.to_array(known[name])))
    return True


def _swapped_outputs(model: onnx.ModelProto, _rng: np.random.Generator) -> bool:
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


def _approximate_gelu(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """One GELU by tanh, D. Hendrycks and K. Gimpel, arXiv:1606.08415, instead of by erf."""
    whole = _chosen(rng, _named(model, "Gelu"))
    if whole is not None:
        _set(whole, "approximate", "tanh")
        return True
    node = _chosen(rng, _named(model, "Erf"))
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
    _insert_after(model, node, nodes)
    return True


def _align_corners(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    node = _chosen(rng, _named(model, "Resize"))
    if node is None:
        return False
    mode = _attribute(node, "coordinate_transformation_mode")
    aligned = mode is not None and mode.s == b"align_corners"
    other = "half_pixel" if aligned else "align_corners"
    _set(node, "coordinate_transformation_mode", other)
    return True


def _baked_branch(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """The way that one sample takes, taken by all."""
    node = _chosen(rng, _named(model, "Where"))
    if node is None:
        return False
    node.input[0] = node.input[0] + "__baked"
    always = np.array(bool(rng.integers(2)))
    model.graph.initializer.append(numpy_helper.from_array(always, node.input[0]))
    return True


def _saturated(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """ReLU taken for ReLU6, or a leaky slope forgotten."""
    node = _chosen(rng, _named(model, "Relu", "LeakyRelu", "Elu"))
    if node is None:
        return False
    if node.op_type != "Relu":
        _set(node, "alpha", 0.2 if node.op_type == "LeakyRelu" else 0.9)
        return True
    own = node.output[0]
    node.output[0] = f"{own}__open"
    limit = numpy_helper.from_array(np.array(6, np.float32), f"{own}__six")
    model.graph.initializer.append(limit)
    _insert_after(model, node, [helper.make_node("Min", [node.output[0], limit.name], [own])])
    return True


def _wrong_rounding(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Halves rounded up instead of to even, or a cast that rounds instead of cutting off."""
    nodes = _named(model, "Round")
    node = _chosen(rng, nodes)
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
    _insert_after(model, node, more)
    return True


def _padding_counted(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Zeros of the padding counted in an average, or no longer."""
    nodes = [node for node in _named(model, "AveragePool") if _can_shift(node)]
    node = _chosen(rng, nodes)
    if node is None:
        return False
    counted = _attribute(node, "count_include_pad")
    _set(node, "count_include_pad", 0 if counted is not None and counted.i else 1)
    return True


# --- classical models ----------------------------------------------------------------------


def _trees(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in onnx_graph.nodes(model) if node.op_type.startswith("TreeEnsemble")]


def _nan_routing(model: onnx.ModelProto, _rng: np.random.Generator) -> bool:
    """Missing values go the other way."""
    for node in _trees(model):
        names = ("nodes_missing_value_tracks_true", "nodes_modes", "nodes_featureids")
        tracks, *others = (_attribute(node, name) for name in names)
        count = max((len(item.ints) or len(item.strings) for item in others if item), default=0)
        values = list(tracks.ints) if tracks is not None else [0] * count
        _set(node, names[0], [1 - value for value in values])
    return bool(_trees(model))


def _open_intervals(model: onnx.ModelProto, _rng: np.random.Generator) -> bool:
    """Less-or-equal at the nodes of trees taken for less."""
    changed = False
    for node in _trees(model):
        modes = _attribute(node, "nodes_modes")
        if modes is not None and modes.strings:
            other = {b"BRANCH_LEQ": b"BRANCH_LT", b"BRANCH_LT": b"BRANCH_LEQ"}
            _set(node, "nodes_modes", [other.get(mode, mode) for mode in modes.strings])
            changed = True
    return changed


def _dropped_threshold(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A decision at the usual half, or at zero."""
    for node in _named(model, "Binarizer"):
        _set(node, "threshold", 0.0)
        return True
    known = constants(model)
    found = [
        name
        for node in _named(model, "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
        for name in node.input
        if name in known and known[name].data_type in {1, 11}
    ]
    name = _chosen(rng, found)
    if name is None:
        return False
    value = numpy_helper.to_array(known[name])
    replace_tensor(known[name], np.full_like(value, 0.5 if value.size == 1 else 0.0))
    return True


def _class_order(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Two classes exchanged: in the list of labels, or as columns of the last layer."""
    for node in onnx_graph.nodes(model):
        for item in node.attribute:
            labels = list(item.ints) or list(item.strings)
            if item.name.startswith("classlabels") and len(labels) > 1:
                _set(node, item.name, [labels[1], labels[0], *labels[2:]])
                return True
    for node in _named(model, "ArrayFeatureExtractor", "Gather"):
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


MUTATIONS: tuple[Mutation, ...] = (
    *(Mutation(f"one weight, {scale:g}", _one_weight(scale)) for scale in SCALES),
    Mutation("a tensor scaled by 1 + 1e-4", _whole_tensor),
    Mutation("weights through float16", _through(np.float16)),
    Mutation("weights through bfloat16", _through(ml_dtypes.bfloat16)),
    Mutation("one tensor through float16", _one_through),
    Mutation("one value computed in float16", _computed_in_float16),
    Mutation("float64 downcast", _float64_downcast),
    Mutation("swapped axis", _swapped_axis),
    Mutation("transposed square matrix", _transposed),
    Mutation("wrong pad side", _pad_side),
    Mutation("off-by-one slice", _slice_off_by_one),
    Mutation("baked batch", _baked_batch),
    Mutation("wrong epsilon", _epsilon),
    Mutation("missing bias", _missing_bias),
    Mutation("swapped outputs", _swapped_outputs),
    Mutation("approximate GELU", _approximate_gelu),
    Mutation("align corners", _align_corners),
    Mutation("baked branch", _baked_branch),
    Mutation("wrong activation", _saturated),
    Mutation("wrong rounding", _wrong_rounding),
    Mutation("padding in averages", _padding_counted),
    Mutation("NaN routing", _nan_routing),
    Mutation("open intervals in trees", _open_intervals),
    Mutation("dropped threshold", _dropped_threshold),
    Mutation("class order", _class_order),
)
