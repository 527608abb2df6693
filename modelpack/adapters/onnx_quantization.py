"""Quantizes ONNX files with ONNX Runtime's quantizers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as ort
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process

from modelpack import onnx_graph
from modelpack.adapters.onnx import apply_signature, clean
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import QuantizationError
from modelpack.samples import Case, read_cases
from modelpack.steps import QuantizeRequest, StepResult

_QUANTIZED_OPS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "MatMulInteger",
    "ConvInteger",
}

# The type of tensors that shape inference does not reach: those behind ops of ai.onnx.ml.
_DEFAULT_TYPE = {"DefaultTensorType": onnx.TensorProto.FLOAT}

# Ops with weights that the int8 schemes of ONNX Runtime cover, per its documentation.
_WEIGHTED_OPS = {
    "Attention",
    "Conv",
    "ConvTranspose",
    "EmbedLayerNormalization",
    "Gather",
    "Gemm",
    "LSTM",
    "MatMul",
}


def quantize(source: ModelRef, target: str, request: QuantizeRequest) -> StepResult:
    """Write a quantized copy of a float ONNX file; inputs and outputs keep their dtypes.

    ``dynamic-int8`` stores weights as int8 and quantizes activations as the model runs;
    ``static-int8`` writes QuantizeLinear/DequantizeLinear pairs (QDQ) with activation
    ranges seen in calibration, weights per channel; ``float16`` stores and computes in
    float16 between float32 inputs and outputs.

    Raises:
        QuantizationError: the model is quantized already, or holds no op the scheme covers.
    """
    model = onnx_graph.load(source.path)
    present = {node.op_type for node in onnx_graph.nodes(model)}
    if present & _QUANTIZED_OPS:
        raise QuantizationError(f"'{source.path.name}' is already quantized")
    if request.scheme != "float16" and not present & _WEIGHTED_OPS:
        raise _nothing_to_quantize(source, model, request.scheme)
    # Shapes that the exporter noted contradict the graph once weights are transposed or
    # halved; the quantizers infer them afresh.
    del model.graph.value_info[:]
    work = Path(target).parent / "work"
    work.mkdir()
    options: dict[str, Any] = {}
    if request.scheme == "float16":
        result = _float16(model)
    elif request.scheme == "dynamic-int8":
        result, options = _dynamic(_prepared(model, work), work)
    else:
        result, options = _static(source, _prepared(model, work), request, work)
    if not _changed(model, result):
        raise _nothing_to_quantize(source, model, request.scheme)
    assert source.signature is not None
    apply_signature(result, source.signature)
    clean(result)
    onnx_graph.save(result, Path(target))
    return StepResult(tools=versions("onnxruntime", "onnx"), options=options)


def _nothing_to_quantize(
    source: ModelRef, model: onnx.ModelProto, scheme: str
) -> QuantizationError:
    counts = Counter(node.op_type for node in onnx_graph.nodes(model))
    held = ", ".join(f"{op} ({count})" for op, count in sorted(counts.items()))
    return QuantizationError(
        f"{scheme} covers none of the ops in '{source.path.name}': {held}",
        hint="tree ensembles and other models without matrix products have nothing to quantize",
    )


def _changed(before: onnx.ModelProto, after: onnx.ModelProto) -> bool:
    def weights(model: onnx.ModelProto) -> Counter[int]:
        return Counter(tensor.data_type for tensor in model.graph.initializer)

    quantized = any(node.op_type in _QUANTIZED_OPS for node in onnx_graph.nodes(after))
    halved = weights(after)[onnx.TensorProto.FLOAT16] > weights(before)[onnx.TensorProto.FLOAT16]
    return quantized or halved


def _prepared(model: onnx.ModelProto, work: Path) -> Path:
    """The model with shapes inferred and BatchNormalization folded, as the quantizers need it."""
    plain, prepared = work / "plain.onnx", work / "prepared.onnx"
    onnx.save(model, plain)
    # The symbolic shape inference needs sympy and adds nothing for the ops quantized here.
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    return prepared


def _dynamic(prepared: Path, work: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    quantized = work / "dynamic.onnx"
    ort.quantize_dynamic(
        prepared,
        quantized,
        per_channel=True,
        weight_type=ort.QuantType.QInt8,
        extra_options=_DEFAULT_TYPE,
    )
    return onnx_graph.load(quantized), {"per_channel": True, "weight_type": "int8"}


class _Calibration(ort.CalibrationDataReader):  # type: ignore[misc]
    """Hands the cases to ONNX Runtime one by one."""

    def __init__(self, cases: list[Case]) -> None:
        self._cases: Iterator[Case] = iter(cases)

    def get_next(self) -> Case | None:
        return next(self._cases, None)


def _static(
    source: ModelRef, prepared: Path, request: QuantizeRequest, work: Path
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    assert source.signature is not None
    native = [value.name for value in onnx_graph.load(prepared, weights=False).graph.input]
    names = dict(zip([spec.name for spec in source.signature.inputs], native, strict=True))
    cases = [
        {names[name]: np.ascontiguousarray(array) for name, array in case.items()}
        for case in read_cases(Path(request.calibration), source.signature.inputs)
    ]
    quantized = work / "static.onnx"
    ort.quantize_static(
        prepared,
        quantized,
        _Calibration(cases),
        quant_format=ort.QuantFormat.QDQ,
        per_channel=True,
        activation_type=ort.QuantType.QInt8,
        weight_type=ort.QuantType.QInt8,
        calibrate_method=ort.CalibrationMethod.MinMax,
        extra_options=_DEFAULT_TYPE,
    )
    options = {
        "format": "QDQ",
        "per_channel": True,
        "activation_type": "int8",
        "weight_type": "int8",
        "calibration": "minmax",
    }
    return onnx_graph.load(quantized), options


def _float16(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers import float16

    # ONNX Runtime 1.31 segfaults on the CPU while it moves float16 Transpose nodes around.
    kept = [*float16.DEFAULT_OP_BLOCK_LIST, "Transpose"]
    result = ONNXModel(
        float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=kept)
    )
    result.topological_sort()  # the converter appends its Cast nodes at the end
    sorted_model: onnx.ModelProto = result.model
    return sorted_model
