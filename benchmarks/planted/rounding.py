"""Bugs in the numbers of an ONNX model: wrong weights, and fewer digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.planted.graph import Mutate, chosen, insert_after
from benchmarks.planted.weights import Weight, constants, replace_tensor, tensors, weights
from modelpack import onnx_graph


def _large(model: onnx.ModelProto) -> list[Weight]:
    """Weights of several numbers, some not zero."""
    return [item for item in weights(model) if item.array.size >= 8 and item.array.any()]


def one_weight(scale: float) -> Mutate:
    def mutate(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
        weight = chosen(rng, _large(model))
        if weight is None:
            return False
        flat = weight.array.reshape(-1)
        position = chosen(rng, np.flatnonzero(flat).tolist())
        flat[position] *= 1 + scale
        weight.write(weight.array)
        return True

    return mutate


def whole_tensor(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    weight = chosen(rng, _large(model))
    if weight is None:
        return False
    weight.write((weight.array * (1 + 1e-4)).astype(weight.array.dtype))
    return True


def through(dtype: Any) -> Mutate:
    """All weights through a narrower dtype."""

    def mutate(model: onnx.ModelProto, _rng: np.random.Generator) -> bool:
        for weight in weights(model):
            narrow = weight.array.astype(dtype).astype(weight.array.dtype)
            weight.write(np.where(np.isfinite(narrow), narrow, weight.array))
        return True

    return mutate


def one_through(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """One tensor through float16."""
    weight = chosen(rng, _large(model))
    if weight is None:
        return False
    narrow = weight.array.astype(np.float16).astype(weight.array.dtype)
    weight.write(np.where(np.isfinite(narrow), narrow, weight.array))
    return True


def float64_downcast(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """What is kept in float64 is rounded to float32, weights and one computed value."""
    wide = [item for item in tensors(model) if item.data_type == onnx.TensorProto.DOUBLE]
    for tensor in wide:
        narrow = numpy_helper.to_array(tensor).astype(np.float32).astype(np.float64)
        replace_tensor(tensor, narrow)
    names = {tensor.name for tensor in wide}
    users = [node for node in onnx_graph.nodes(model) if names & set(node.input) and node.output]
    node = chosen(rng, users)
    if node is None or node.op_type in {"Cast", "Constant", "Greater", "Less", "Equal"}:
        return bool(wide)
    _rounded_after(model, node, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    return True


def computed_in_float16(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """One computed value through float16."""
    kinds = {"Gemm", "MatMul", "Conv", "Relu", "Add", "Tanh", "Sigmoid", "Mul"}
    nodes = [node for node in model.graph.node if node.op_type in kinds]
    known = constants(model)
    doubles = {name for name, item in known.items() if item.data_type != onnx.TensorProto.FLOAT}
    node = chosen(rng, [node for node in nodes if not doubles & set(node.input)])
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
    insert_after(model, node, casts)
