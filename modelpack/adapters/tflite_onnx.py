"""TFLite files to ONNX, by tf2onnx's own reader of the format."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.adapters import tensorflow_onnx, tflite, tflite_file
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import ConversionError
from modelpack.steps import StepOptions, StepResult


def to_onnx(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Write an ONNX model with the names and dims of the signature, which may be one of several.

    Quantized files become ONNX models that quantize and dequantize as the file does.

    Raises:
        UnsupportedOpsError: ops have no ONNX form; the message lists every one.
        ConversionError: two outputs are one tensor, the signature cannot be told from others, or
            the conversion failed.
    """
    if not tflite_file.parsed(source).others:
        return _to_onnx(source, target, options)
    with tempfile.TemporaryDirectory() as scratch:
        alone = Path(scratch) / source.path.name
        alone.write_bytes(_of_one_signature(source))
        one = replace(source, location=str(alone), signature_name="")
        return _to_onnx(one, target, options)


def _to_onnx(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    description = tflite.describe(source)
    signature = source.signature or description.signature
    inputs = [description.bindings[spec.name] for spec in signature.inputs]
    outputs = [description.bindings[spec.name] for spec in signature.outputs]
    if len({*inputs, *outputs}) < len(inputs) + len(outputs):
        raise ConversionError(f"two outputs of '{source.display}' are one tensor")
    names = [spec.name for spec in (*signature.inputs, *signature.outputs)]
    opset = tensorflow_onnx.chosen_opset(options)
    settings = {
        "opset": opset,
        "tflite_path": source.location,
        "input_names": inputs,
        "output_names": outputs,
        "tensors_to_rename": dict(zip([*inputs, *outputs], names, strict=True)),
    }
    tensorflow_onnx.write_tflite(settings, signature, Path(target), options)
    return StepResult(tools=versions("tf2onnx", "tensorflow-cpu", "onnx"), options={"opset": opset})


def _of_one_signature(source: ModelRef) -> bytes:
    """The file with the graph of its signature alone: tf2onnx takes the last one there is."""
    from ai_edge_litert.tools import flatbuffer_utils

    file = tflite_file.parsed(source, fresh=True)
    model, graph = file.model, file.model.subgraphs[file.subgraph]
    if any(_calls_another(op) for op in graph.operators):
        raise ConversionError(
            f"'{source.display}' has several signatures, and '{file.signature.name}' has loops, "
            "branches or variables in graphs of their own",
            hint="convert the model that it was made from",
        )
    content = source.path.read_bytes()
    for buffer in model.buffers:
        if buffer.offset > 1:  # weights that lie behind the flatbuffer
            part = content[buffer.offset : buffer.offset + buffer.size]
            buffer.data = np.frombuffer(part, np.uint8)
            buffer.offset = buffer.size = 0
    model.subgraphs = [graph]
    model.signatureDefs = [
        item for item in model.signatureDefs if item.signatureKey.decode() == file.key
    ]
    model.signatureDefs[0].subgraphIndex = 0
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _calls_another(op: Any) -> bool:
    """Whether an op refers to graphs of the file, as loops, branches and initializers do."""
    options = [item for item in (op.builtinOptions, op.builtinOptions2) if item is not None]
    return any("ubgraph" in name for item in options for name in vars(item))
