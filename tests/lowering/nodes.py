"""One-node models, compared with ONNX Runtime or onnx's reference evaluator at several sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper

from tests.lowering.backend_suite import RUNNERS, compare


def parsed(text: str, opset: int = 20) -> onnx.ModelProto:
    """A model from ONNX's textual form; ``own`` is the domain of its functions."""
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}, "own" : 1]>\n{text}'
    )


def node_model(
    op: str,
    inputs: Sequence[Any],
    *,
    domain: str = "",
    opset: int = 21,
    constants: dict[int, Any] | None = None,
    outputs: int = 1,
    dynamic: bool = True,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node.

    Args:
        inputs: arrays; None for an omitted input. They give dtypes and ranks, and sizes
            unless ``dynamic``.
        constants: by position, the inputs that are initializers instead.
        opset: of the node's domain (21 is used for ai.onnx if that is another one).
    """
    constants = constants or {}
    infos, initializers, names = [], [], []
    for position in range(max([len(inputs), *(i + 1 for i in constants)])):
        name = f"x{position}"
        if position in constants:
            array = np.asarray(constants[position])
            initializers.append(onnx.numpy_helper.from_array(array, name))
        elif inputs[position] is None:
            name = ""
        else:
            array = np.asarray(inputs[position])
            shape = [f"{name}_d{i}" if dynamic else size for i, size in enumerate(array.shape)]
            infos.append(helper.make_tensor_value_info(name, _element_type(array), shape))
        names.append(name)
    node = helper.make_node(
        op, names, [f"y{i}" for i in range(outputs)], name="node", domain=domain, **attributes
    )
    opsets = [helper.make_opsetid("", 21 if domain else opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, opset))
    results = [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)]
    graph = helper.make_graph([node], "g", infos, results, initializers)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    return inferred


def check(
    model: onnx.ModelProto,
    *feeds: Sequence[Any],
    targets: Sequence[str] = ("savedmodel", "tflite"),
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Convert once per target, run every feed, compare with ONNX Runtime or the reference."""
    expected = [reference(model, feed) for feed in feeds]
    for target in targets:
        with tempfile.TemporaryDirectory() as scratch:
            run = RUNNERS[target](model, Path(scratch))
            for feed, answer in zip(feeds, expected, strict=True):
                compare(run(list(feed)), answer, rtol, atol)


def reference(model: onnx.ModelProto, feed: Sequence[Any]) -> list[Any]:
    """ONNX Runtime's answer; that of onnx's reference evaluator where it has no kernel."""
    import onnxruntime

    names = [info.name for info in model.graph.input]
    values = dict(zip(names, feed, strict=True))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
    except Exception:  # a class per status code, without a base: no kernel for this op or dtype
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(model).run(None, values))
    return list(session.run(None, values))


def _element_type(array: Any) -> int:
    if array.dtype.kind in "OUS":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
