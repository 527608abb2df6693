"""TFLite files: described, run by LiteRT, and quantized by the AI Edge Quantizer."""

from __future__ import annotations

import contextlib
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.adapters import checking
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import InputError, QuantizationError, first_line
from modelpack.samples import Array, Case, numpy_dtype, read_cases, write_cases
from modelpack.signature import (
    DEFAULT_SIGNATURE,
    EVERY_SIGNATURE,
    Dim,
    DType,
    Signature,
    TensorSpec,
    bound_names,
    in_order_of,
    refuse_swapped,
    requested,
)
from modelpack.steps import (
    CheckRequest,
    Description,
    Finding,
    QuantizeRequest,
    RunOptions,
    RunResult,
    StepResult,
    timed,
)

SCHEMES = ("dynamic-int8", "float16", "static-int8")

# TensorType of the TFLite schema, as far as models exchange them.
_DTYPES = {
    0: DType.FLOAT32,
    1: DType.FLOAT16,
    2: DType.INT32,
    3: DType.UINT8,
    4: DType.INT64,
    5: DType.STRING,
    6: DType.BOOL,
    7: DType.INT16,
    9: DType.INT8,
    10: DType.FLOAT64,
    12: DType.UINT64,
    15: DType.UINT32,
    16: DType.UINT16,
    18: DType.BFLOAT16,
}
_STRING = 5
_INT4 = 17
_QUANTIZED = {DType.INT8, DType.UINT8, DType.INT16, DType.UINT16}


def describe(ref: ModelRef) -> Description:
    """Describe the file's ``serving_default``, or else its first signature, without a runtime.

    Raises:
        InputError: the file is damaged, or has tensors that models cannot exchange.
    """
    file = parsed(ref)
    native = file.signature
    signature = in_order_of(native, ref.signature)
    if ref.signature is None:
        refuse_swapped(native, ref.outputs)
        signature = requested(native, ref.inputs, ref.outputs)
    precision, parameters = _weights(file.model)
    return Description(
        signature=signature,
        framework="tflite",
        versions=versions("ai-edge-litert"),
        ops=_op_counts(file.model),
        parameters=parameters,
        precision=precision,
        bindings={
            name: file.tensors[own]
            for given, own_specs in (
                (signature.inputs, native.inputs),
                (signature.outputs, native.outputs),
            )
            for name, own in sorted(bound_names(given, own_specs).items())
        },
        other_signatures=file.others,
        unrunnable=_unrunnable(file.model),
    )


def run(ref: ModelRef, cases: str, outputs: str, options: RunOptions) -> RunResult:
    """Run each case with LiteRT, bound by names.

    A quantized tensor that the signature calls a float is quantized on the way in and
    dequantized on the way out. The runtime "plain" is LiteRT without XNNPACK.

    Raises:
        InputError: the cases do not fit the model, or LiteRT cannot run it.
    """
    options.refuse("nudge", "wide")
    runner = _Runner(ref, options)
    feeds = read_cases(Path(cases), runner.signature.inputs)
    write_cases(Path(outputs), [runner(feed) for feed in feeds])
    latency = timed(lambda: runner(feeds[0]), options.repeat)
    return RunResult(_title(options), latency)


def check(ref: ModelRef, request: CheckRequest) -> list[Finding]:
    """Allocate the tensors of the file, which finds a kernel for each op, and call it repeatedly.

    Its offsets were checked when it was described. Each thread has an interpreter of its own:
    one is not made to be shared.
    """
    options = RunOptions(runtime=ref.runtime)
    title = _title(options)
    found = [Finding("checker", True, "every offset lies in the file")]
    try:
        _interpreter(ref, options, allocate=True)
        runner = _Runner(ref, options)
    except InputError as error:
        return [*found, Finding("ops", False, error.message)]
    found.append(Finding("ops", True, f"{title} has a kernel for each"))
    return [
        *found,
        *checking.called(runner.signature, request, runner, lambda: _Runner(ref, options)),
    ]


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
    _refuse_several(file, source)
    _refuse_quantized(file, source)
    if request.scheme == "static-int8" and "WHILE" in _op_counts(file.model):
        raise QuantizationError(
            f"'{source.display}' has a loop (WHILE), whose activations cannot be calibrated",
            hint="use dynamic-int8 or float16",
        )
    if request.scheme == "static-int8" and _STRING in _tensor_types(file.model):
        raise QuantizationError(
            f"'{source.display}' has string tensors, which TFLite's calibration does not take",
            hint="use dynamic-int8 or float16, or quantize the ONNX artifact: --to onnx",
        )
    content = _quantized(source, request)
    before, _ = _weights(file.model)
    after = _tensor_types(_parse(content, source.display))
    if after == _tensor_types(file.model):
        raise QuantizationError(
            f"nothing in '{source.display}' was quantized: its ops hold no {before} weights "
            f"that {request.scheme} covers"
        )
    Path(target).write_bytes(content)
    return StepResult(
        tools=versions("ai-edge-quantizer", "ai-edge-litert"), options={"scheme": request.scheme}
    )


# --- reading ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _File:
    """A parsed file.

    Attributes:
        model: the schema's object tree (``ModelT``).
        signature: inputs and outputs in the file's own names.
        key: name of the signature in the file; empty when it has none.
        tensors: name of the tensor behind each input and output name.
        indices: index of that tensor in its subgraph.
        subgraph: which one the signature means.
        others: further signatures.
    """

    model: Any
    signature: Signature
    key: str
    tensors: dict[str, str]
    indices: dict[str, int]
    subgraph: int = 0
    others: tuple[Signature, ...] = ()


def parsed(ref: ModelRef, *, fresh: bool = False) -> _File:
    """A file: read once, or ``fresh`` for callers that change it.

    Raises:
        InputError: the file is damaged, lacks the signature that is meant, or has tensors that
            models cannot exchange.
    """
    name = "" if ref.signature_name == EVERY_SIGNATURE else ref.signature_name
    return (_read.__wrapped__ if fresh else _read)(*_stamp(ref.location), name)


def _stamp(location: str) -> tuple[str, int, int]:
    """The file and what changes when it is written anew."""
    try:
        status = Path(location).stat()
    except OSError as error:
        raise InputError(f"cannot read '{Path(location).name}': {error.strerror}") from None
    return location, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=2)
def _read(location: str, _changed: int, _size: int, name: str) -> _File:
    path = Path(location)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read '{path.name}': {error.strerror}") from None
    model = _parse(content, path.name)
    definitions = {(item.signatureKey or b"").decode(): item for item in model.signatureDefs or []}
    key = _chosen_key(path.name, list(definitions), name)
    chosen = definitions.get(key)
    graph = model.subgraphs[chosen.subgraphIndex if chosen else 0]
    inputs = _entries(chosen.inputs if chosen else None, graph, graph.inputs)
    outputs = _entries(chosen.outputs if chosen else None, graph, graph.outputs)
    several = len(definitions) > 1
    signature = _signature(graph, inputs, outputs, key if several else DEFAULT_SIGNATURE)
    pairs = dict((*inputs, *outputs))
    return _File(
        model=model,
        signature=signature,
        key=key,
        tensors={name: graph.tensors[index].name.decode() for name, index in pairs.items()},
        indices={
            f"{side}/{name}": index
            for side, entries in (("in", inputs), ("out", outputs))
            for name, index in entries
        },
        subgraph=chosen.subgraphIndex if chosen else 0,
        others=tuple(_others(model, key)),
    )


def _chosen_key(file: str, keys: list[str], name: str) -> str:
    """The signature that is meant: the user's, the usual one, or the first; empty without any."""
    if name and name not in keys:
        raise InputError(
            f"'{file}' has no signature called '{name}', but {', '.join(keys) or 'none at all'}",
            hint="choose one with --signature",
        )
    return name or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in keys else next(iter(keys), ""))


def _others(model: Any, key: str) -> Iterator[Signature]:
    """The signatures that are not meant, but for those of tensors that models cannot exchange."""
    for item in model.signatureDefs or []:
        name, graph = (item.signatureKey or b"").decode(), model.subgraphs[item.subgraphIndex]
        with contextlib.suppress(InputError):
            inputs, outputs = (
                _entries(maps, graph, indices)
                for maps, indices in ((item.inputs, graph.inputs), (item.outputs, graph.outputs))
            )
            if name != key:
                yield _signature(graph, inputs, outputs, name)


def _signature(
    graph: Any, inputs: list[tuple[str, int]], outputs: list[tuple[str, int]], name: str
) -> Signature:
    return Signature(
        tuple(_spec(own, graph.tensors[index], own) for own, index in inputs),
        tuple(_spec(own, graph.tensors[index], "") for own, index in outputs),
        name,
    )


def _entries(maps: Any, graph: Any, indices: Any) -> list[tuple[str, int]]:
    """Name and tensor index of each input or output, sorted by name when named."""
    if maps is not None:
        return sorted((item.name.decode(), int(item.tensorIndex)) for item in maps)
    found: list[tuple[str, int]] = []
    for index in indices if indices is not None else ():
        text = (graph.tensors[index].name or b"tensor").decode().removesuffix(":0")
        name = base = re.sub(r"[^A-Za-z0-9_.:/-]", "_", text.removeprefix("serving_default_"))
        name = base = base if re.match(r"[A-Za-z_]", base) else f"_{base}"
        number = 0
        while any(name == taken for taken, _ in found):
            number += 1
            name = f"{base}_{number}"
        found.append((name, int(index)))
    return found


def _parse(content: bytes, name: str) -> Any:
    """Unpack the flatbuffer and check every offset that a runtime would follow blindly.

    Raises:
        InputError: something points outside the file, or is missing.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        problem = _structure_problem(model, len(content))
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"'{name}' is truncated or damaged: {error}") from None
    if problem:
        raise InputError(f"'{name}' is truncated or damaged: {problem}")
    return model


def _structure_problem(model: Any, size: int) -> str:
    if not model.subgraphs:
        return "it has no graph"
    for buffer in model.buffers or ():
        if buffer.offset > 1 and buffer.offset + buffer.size > size:
            return "weights lie beyond its end"
    buffers, codes = len(model.buffers or ()), len(model.operatorCodes or ())
    for graph in model.subgraphs:
        count = len(graph.tensors if graph.tensors is not None else ())
        for tensor in graph.tensors or ():
            if not 0 <= tensor.buffer < buffers:
                return f"tensor {tensor.name!r} has no buffer"
        used: list[int] = [*_indices(graph.inputs), *_indices(graph.outputs)]
        for op in graph.operators or ():
            if not 0 <= op.opcodeIndex < codes:
                return "an op has no code"
            used += [*_indices(op.inputs), *_indices(op.outputs)]
        if any(not -1 <= index < count for index in used):
            return "an op refers to a tensor that is not there"
    for definition in model.signatureDefs or ():
        if not 0 <= definition.subgraphIndex < len(model.subgraphs):
            return "a signature refers to a graph that is not there"
    return ""


def _indices(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


# --- the signature -----------------------------------------------------------------------------


def _spec(name: str, tensor: Any, dim_prefix: str) -> TensorSpec:
    dtype = _DTYPES.get(tensor.type)
    if dtype is None:
        raise InputError(f"tensor '{name}' has the TFLite type {tensor.type}, not supported")
    shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    sizes = _indices(shape)
    if not sizes and not tensor.hasRank:
        return TensorSpec(name, dtype, None)
    dims: list[Dim] = []
    prefix = re.sub(r"\W", "_", dim_prefix, flags=re.ASCII)
    for axis, size in enumerate(sizes):
        unknown: Dim = "batch" if axis == 0 else f"{prefix}_d{axis}" if prefix else None
        dims.append(unknown if size < 0 else size)
    return TensorSpec(name, dtype, tuple(dims))


# --- facts ---------------------------------------------------------------------------------------


def op_names(model: Any, graph: int) -> list[str]:
    """The op of each step of a graph of the file."""
    from ai_edge_litert import schema_py_generated as schema

    names = {
        value: name
        for name, value in vars(schema.BuiltinOperator).items()
        if isinstance(value, int)
    }
    codes = []
    for code in model.operatorCodes or ():
        # Files from before 2020 keep the op in a byte, later ones in both.
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        codes.append(code.customCode.decode() if code.customCode else names.get(builtin, "?"))
    return [codes[op.opcodeIndex] for op in model.subgraphs[graph].operators or ()]


def _op_counts(model: Any) -> dict[str, int]:
    found = (op_names(model, graph) for graph in range(len(model.subgraphs)))
    return dict(sorted(Counter(chain.from_iterable(found)).items()))


def _unrunnable(model: Any) -> str:
    """Why no interpreter here can run the file; empty if LiteRT can.

    Neither LiteRT's package nor, since 2.20, TensorFlow's brings the Flex delegate:
    https://github.com/google-ai-edge/LiteRT/issues/6458
    """
    flex = [op for op in _op_counts(model) if op.startswith("Flex")]
    if not flex:
        return ""
    return f"no interpreter here has the Flex delegate that it needs ({', '.join(flex)})"


def _constants(model: Any) -> Iterator[tuple[Any, int]]:
    """Each constant tensor once, with the number of its elements."""
    seen = set()
    for graph in model.subgraphs:
        for tensor in graph.tensors or ():
            buffer = model.buffers[tensor.buffer]
            data = 0 if buffer.data is None else len(buffer.data)
            size = max(data, int(buffer.size))
            if size and tensor.buffer not in seen:
                seen.add(tensor.buffer)
                yield tensor, int(np.prod(_indices(tensor.shape), dtype=np.int64))


def _is_quantized(tensor: Any) -> bool:
    quantization = tensor.quantization
    return (
        quantization is not None and quantization.scale is not None and len(quantization.scale) > 0
    )


def _weights(model: Any) -> tuple[str, int]:
    """The type that most weights have, and the number of weights.

    Integers without a scale are shapes and axes, not weights.
    """
    sizes: Counter[str] = Counter()
    parameters = 0
    for tensor, elements in _constants(model):
        dtype = "int4" if tensor.type == _INT4 else str(_DTYPES.get(tensor.type, ""))
        if dtype.startswith(("float", "bfloat")) or _is_quantized(tensor):
            sizes[dtype] += elements
            parameters += elements
    return (sizes.most_common(1)[0][0] if sizes else "float32"), parameters


def _tensor_types(model: Any) -> Counter[int]:
    return Counter(tensor.type for graph in model.subgraphs for tensor in graph.tensors or ())


# --- running -------------------------------------------------------------------------------------


# By name: LiteRT's resolver, and what the report adds to the version.
_RUNTIMES = {
    "": ("AUTO", ""),
    "plain": ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", " without XNNPACK"),
}


def _title(options: RunOptions) -> str:
    version = versions("ai-edge-litert").get("ai-edge-litert", "")
    return f"LiteRT {version}{_RUNTIMES[options.runtime][1]}"


def _interpreter(ref: ModelRef, options: RunOptions, *, allocate: bool = False) -> Any:
    """LiteRT with the file; where asked, with the memory of all its tensors planned.

    Raises:
        InputError: LiteRT has no kernel for an op, or shapes do not fit each other.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        made = Interpreter(
            model_path=ref.location,
            num_threads=options.threads,
            experimental_op_resolver_type=OpResolverType[_RUNTIMES[options.runtime][0]],
        )
        if allocate:
            made.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT cannot load '{ref.display}': {first_line(error)}") from error
    return made


class _Runner:
    """Calls the model by the names of ``ref.signature``."""

    def __init__(self, ref: ModelRef, options: RunOptions) -> None:
        self._file = parsed(ref)
        self.signature = ref.signature or self._file.signature
        native = self._file.signature
        self._inputs = bound_names(self.signature.inputs, native.inputs)
        self._outputs = bound_names(self.signature.outputs, native.outputs)
        self._interpreter = _interpreter(ref, options)
        try:
            if self._file.key:
                self._call = self._interpreter.get_signature_runner(self._file.key)
                self._details = {
                    **{f"in/{k}": v for k, v in self._call.get_input_details().items()},
                    **{f"out/{k}": v for k, v in self._call.get_output_details().items()},
                }
            else:
                self._details = self._details_by_index()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"LiteRT cannot load '{ref.display}': {str(error).strip()}") from error

    def _details_by_index(self) -> dict[str, Any]:
        details = {
            item["index"]: item
            for item in (
                *self._interpreter.get_input_details(),
                *self._interpreter.get_output_details(),
            )
        }
        return {name: details[index] for name, index in self._file.indices.items()}

    def __call__(self, feed: Case) -> Case:
        missing = [spec.name for spec in self.signature.inputs if spec.name not in feed]
        if missing:
            raise InputError(f"the samples have no input '{missing[0]}'")
        native = {}
        for spec in self.signature.inputs:
            own = self._inputs[spec.name]
            native[own] = entering(feed[spec.name], spec, self._details[f"in/{own}"])
        try:
            answer = self._call(**native) if self._file.key else self._invoke(native)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"LiteRT cannot run the model: {str(error).strip()}") from error
        return {
            spec.name: leaving(answer[own], spec, self._details[f"out/{own}"])
            for spec in self.signature.outputs
            for own in (self._outputs[spec.name],)
        }

    def _invoke(self, native: Case) -> Case:
        indices = self._file.indices
        for name, array in native.items():
            self._interpreter.resize_tensor_input(indices[f"in/{name}"], array.shape)
        self._interpreter.allocate_tensors()
        for name, array in native.items():
            self._interpreter.set_tensor(indices[f"in/{name}"], array)
        self._interpreter.invoke()
        return {
            spec.name: self._interpreter.get_tensor(indices[f"out/{spec.name}"])
            for spec in self._file.signature.outputs
        }


def entering(array: Array, spec: TensorSpec, detail: Any) -> Array:
    """What a tensor holds for values of the signature: quantized, where it is."""
    if spec.dtype is DType.STRING:
        return np.array([str(item).encode() for item in array.flat]).reshape(array.shape)
    held = np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    if spec.dtype.is_float and held.kind in "iu" and scale:
        limits = np.iinfo(held)
        steps = np.round(array.astype(np.float64) / scale) + zero_point
        clipped: Array = np.clip(steps, limits.min, limits.max).astype(held)
        return clipped
    return np.asarray(array, order="C")  # keeps a scalar one


def leaving(array: Array, spec: TensorSpec, detail: Any) -> Array:
    """What the signature has for what a tensor holds."""
    scale, zero_point = detail["quantization"]
    if spec.dtype.is_float and array.dtype.kind in "iu" and scale:
        real: Array = (array.astype(np.float64) - zero_point) * scale
        return np.asarray(real, numpy_dtype(spec.dtype))
    return np.array(array)


# --- quantization --------------------------------------------------------------------------------


def _refuse_several(file: _File, source: ModelRef) -> None:
    if file.others:
        raise QuantizationError(
            f"'{source.display}' has several signatures, of which only one would be compared: "
            + ", ".join([file.signature.name, *(item.name for item in file.others)]),
            hint="quantize a file of one signature",
        )


def _refuse_quantized(file: _File, source: ModelRef) -> None:
    ops = _op_counts(file.model)
    precision, _ = _weights(file.model)
    integer = any(
        _is_quantized(tensor) and _DTYPES.get(tensor.type) in _QUANTIZED
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
    signature = source.signature or file.signature
    bound = bound_names(signature.inputs, file.signature.inputs)
    feeds = read_cases(Path(request.calibration), signature.inputs)
    if not feeds:
        raise QuantizationError("the calibration data holds no samples")
    return {
        file.key: [
            {own: feed[name] for name, own in bound.items() if name in feed} for feed in feeds
        ]
    }
