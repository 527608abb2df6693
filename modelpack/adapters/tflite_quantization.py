"""TFLite files, quantized by the AI Edge Quantizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelpack.adapters.tflite_file import (
    DTYPES,
    STRING,
    File,
    is_quantized,
    op_counts,
    parse,
    parsed,
    tensor_types,
    weights,
)
from modelpack.artifact import SCHEMES, ModelRef
from modelpack.dependencies import versions
from modelpack.errors import QuantizationError, first_line
from modelpack.samples import Case, read_cases
from modelpack.signature import DType, Signature, bound_names
from modelpack.steps import QuantizeRequest, StepResult

_QUANTIZED = {DType.INT8, DType.UINT8, DType.INT16, DType.UINT16}


def quantize(source: ModelRef, target: str, request: QuantizeRequest) -> StepResult:
    """Quantize the weights (dynamic-int8, float16), or weights and activations (static-int8).

    Inputs and outputs stay as they are, so that the signature does not change.

    Raises:
        QuantizationError: the scheme is unknown, the model is quantized already or has
            nothing to quantize, or the quantizer or the calibration failed.
    """
    if request.scheme not in SCHEMES:
        raise QuantizationError(
            f"TFLite models cannot be quantized to '{request.scheme}'",
            hint=f"use one of {', '.join(SCHEMES)}",
        )
    file = parsed(source)
    _refuse_left_out(file, source, request)
    _refuse_quantized(file, source)
    if request.scheme == "static-int8" and "WHILE" in op_counts(file.model):
        raise QuantizationError(
            f"'{source.display}' has a loop (WHILE), whose activations cannot be calibrated",
            hint="use dynamic-int8 or float16",
        )
    if request.scheme == "static-int8" and STRING in tensor_types(file.model):
        raise QuantizationError(
            f"'{source.display}' has string tensors, which TFLite's calibration does not take",
            hint="use dynamic-int8 or float16, or quantize the ONNX artifact: --to onnx",
        )
    content = _quantized(source, request)
    before, _ = weights(file.model)
    after = tensor_types(parse(content, source.display))
    if after == tensor_types(file.model):
        raise QuantizationError(
            f"nothing in '{source.display}' was quantized: its ops hold no {before} weights "
            f"that {request.scheme} covers"
        )
    Path(target).write_bytes(content)
    return StepResult(
        tools=versions("ai-edge-quantizer", "ai-edge-litert"), options={"scheme": request.scheme}
    )


def _refuse_left_out(file: File, source: ModelRef, request: QuantizeRequest) -> None:
    """Refuse a file with signatures that are not asked for, since all of it is quantized."""
    asked = {item.signature.name for item in request.others}
    left = [item.name for item in file.others if item.name not in asked]
    if left:
        raise QuantizationError(
            f"'{source.display}' has signatures that would be quantized too, and compared with "
            f"nothing: {', '.join(left)}",
            hint="convert the model that it was made from with --signature all, and quantize that",
        )


def _refuse_quantized(file: File, source: ModelRef) -> None:
    ops = op_counts(file.model)
    precision, _ = weights(file.model)
    integer = any(
        is_quantized(tensor) and DTYPES.get(tensor.type) in _QUANTIZED
        for graph in file.model.subgraphs
        for tensor in graph.tensors or ()
    )
    if integer or precision != "float32" or "QUANTIZE" in ops or "DEQUANTIZE" in ops:
        raise QuantizationError(
            f"'{source.display}' is quantized already (its weights are {precision})",
            hint="quantize the float32 artifact that it was made from",
        )


def _quantized(source: ModelRef, request: QuantizeRequest) -> bytes:
    from ai_edge_quantizer import quantizer

    work = quantizer.Quantizer(source.location)
    _configure(work, request.scheme)
    calibration = None
    try:
        if work.need_calibration:
            calibration = _calibrate(work, source, request)
        result = work.quantize(calibration, enable_progress_bar=False, enable_progress_report=False)
    except QuantizationError:
        raise
    except Exception as error:
        raise QuantizationError(
            f"the quantizer failed on '{source.display}' with {request.scheme}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    if not result.quantized_model:
        raise QuantizationError(f"the quantizer made nothing of '{source.display}'")
    return _with_shapes(bytes(result.quantized_model))


def _with_shapes(content: bytes) -> bytes:
    """Give tensors that the quantizer put beside dynamic ones their dynamic shape.

    Without it the float output of a model with a dynamic batch would promise batch 1.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = schema.ModelT.InitFromPackedBuf(content)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    casts = {schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE}
    for graph in model.subgraphs:
        for op in graph.operators or ():
            if codes[op.opcodeIndex] in casts:
                ends = [graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]]
                known = [end for end in ends if end.shapeSignature is not None]
                for end in ends if known else ():
                    end.shapeSignature = known[0].shapeSignature
                    end.shape = known[0].shape
                    end.hasRank = known[0].hasRank
    # The quantizer keeps weights behind the flatbuffer, each at a multiple of 16 bytes.
    behind = {
        index: content[buffer.offset : buffer.offset + buffer.size]
        for index, buffer in enumerate(model.buffers)
        if buffer.offset > 1
    }
    for index in behind:
        model.buffers[index].offset = model.buffers[index].size = 1
    result = flatbuffer_utils.convert_object_to_bytearray(model)
    places = {}
    for index, data in behind.items():
        result.extend(bytes(-len(result) % 16))
        places[index] = (len(result), len(data))
        result.extend(data)
    packed = schema.Model.GetRootAs(result)
    for index, (offset, size) in places.items():
        flatbuffer_utils.update_packed_buffer(packed.Buffers(index), offset=offset, size=size)
    return bytes(result)


def _calibrate(work: Any, source: ModelRef, request: QuantizeRequest) -> dict[str, Any]:
    """The smallest and largest value of each tensor over all samples.

    The quantizer's own running mean over samples lets the first one dominate, and would
    clip what the others reach.
    """
    merged: dict[str, Any] = {}
    for key, feeds in _calibration_feeds(source, request).items():
        for feed in feeds:
            for tensor, found in work.calibrate({key: [feed]}, num_threads=1).items():
                if tensor not in merged or "min" not in found:
                    merged[tensor] = found
                    continue
                known = merged[tensor]
                known["min"] = np.minimum(known["min"], found["min"])
                known["max"] = np.maximum(known["max"], found["max"])
    return merged


def _configure(work: Any, scheme: str) -> None:
    from ai_edge_quantizer import algorithm_manager, qtyping

    every, names = qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_manager.AlgorithmName
    if scheme == "dynamic-int8":
        work.add_dynamic_config(regex=".*", operation_name=every, num_bits=8)
    elif scheme == "float16":
        work.add_weight_only_config(
            regex=".*",
            operation_name=every,
            num_bits=16,
            granularity=qtyping.QuantGranularity.TENSORWISE,
            algorithm_key=names.FLOAT_CASTING,
        )
    else:
        work.add_static_config(
            regex=".*", operation_name=every, activation_num_bits=8, weight_num_bits=8
        )
        # Callers keep feeding and reading floats.
        for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            work.update_quantization_recipe(".*", edge, algorithm_key=names.NO_QUANTIZE)


def _calibration_feeds(source: ModelRef, request: QuantizeRequest) -> dict[str, list[Case]]:
    if not request.calibration:
        raise QuantizationError(
            f"{request.scheme} needs samples to calibrate with", hint="pass --calibration DATA"
        )
    file = parsed(source)
    if not file.key:
        raise QuantizationError(
            f"'{source.display}' has no signature, which calibration needs to bind the samples",
            hint="convert the model again, or use dynamic-int8",
        )
    own = source.signature or file.signature
    feeds = {file.key: _feeds(own, file.signature, request.calibration)}
    natives = {item.name: item for item in file.others}
    for item in request.others:
        name = item.signature.name
        feeds[name] = _feeds(item.signature, natives[name], item.cases)
    return feeds


def _feeds(signature: Signature, native: Signature, cases: str) -> list[Case]:
    """The samples of one signature, by the file's own names."""
    bound = bound_names(signature.inputs, native.inputs)
    feeds = read_cases(Path(cases), signature.inputs)
    if not feeds:
        raise QuantizationError("the calibration data holds no samples")
    return [{own: feed[name] for name, own in bound.items() if name in feed} for feed in feeds]
