"""TFLite files to ONNX, by tf2onnx's own reader of the format."""

from __future__ import annotations

from pathlib import Path

from modelpack.adapters import tensorflow_onnx, tflite, tflite_signatures
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import ConversionError
from modelpack.steps import StepOptions, StepResult


def to_onnx(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Write an ONNX model with the names and dims of the signature, which may be one of several.

    Quantized files become ONNX models that quantize and dequantize as the file does.

    Raises:
        UnsupportedOpsError: ops have no ONNX form; the message lists every one.
        ConversionError: two outputs are one tensor, or the conversion failed.
    """
    # tf2onnx takes the last graph of a file for the model.
    with tflite_signatures.with_one_signature(source) as one:
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
