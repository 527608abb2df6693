"""One-node models of ai.onnx.ml: as in nodes.py, with the types of results that onnx infers not."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto

from tests.lowering.nodes import node_model

_ELEMENTS = {
    "tensor(float)": TensorProto.FLOAT,
    "tensor(double)": TensorProto.DOUBLE,
    "tensor(int64)": TensorProto.INT64,
    "tensor(int32)": TensorProto.INT32,
    "tensor(string)": TensorProto.STRING,
}


def ml_model(op: str, *inputs: Any, opset: int = 1, **settings: Any) -> onnx.ModelProto:
    """A model of one node; attributes that are None are left out."""
    settings = {name: value for name, value in settings.items() if value is not None}
    made = node_model(op, list(inputs), domain="ai.onnx.ml", opset=opset, **settings)
    if all(output.type.HasField("tensor_type") for output in made.graph.output):
        return made
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(made.SerializeToString(), options)
        types = [result.type for result in session.get_outputs()]
    except Exception:  # a class per status code, without a base: nothing to compare with
        types = ["tensor(float)"] * len(made.graph.output)
    for output, kind in zip(made.graph.output, types, strict=True):
        output.type.tensor_type.elem_type = _ELEMENTS.get(kind, TensorProto.FLOAT)
    return made
