"""ONNX files: describe them, run them in ONNX Runtime, and clean them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.defs

from modelpack import onnx_graph
from modelpack.adapters import checking, onnx_runtimes
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import ConversionError, InputError, UnsupportedOpsError, first_line
from modelpack.samples import read_cases, write_cases
from modelpack.signature import Dim, DType, Signature, TensorSpec, refuse_swapped, requested
from modelpack.steps import (
    CheckRequest,
    Description,
    Finding,
    RunOptions,
    RunResult,
    StepOptions,
    StepResult,
    timed,
)

_DTYPES = {
    onnx.TensorProto.BOOL: DType.BOOL,
    onnx.TensorProto.INT8: DType.INT8,
    onnx.TensorProto.INT16: DType.INT16,
    onnx.TensorProto.INT32: DType.INT32,
    onnx.TensorProto.INT64: DType.INT64,
    onnx.TensorProto.UINT8: DType.UINT8,
    onnx.TensorProto.UINT16: DType.UINT16,
    onnx.TensorProto.UINT32: DType.UINT32,
    onnx.TensorProto.UINT64: DType.UINT64,
    onnx.TensorProto.FLOAT16: DType.FLOAT16,
    onnx.TensorProto.BFLOAT16: DType.BFLOAT16,
    onnx.TensorProto.FLOAT: DType.FLOAT32,
    onnx.TensorProto.DOUBLE: DType.FLOAT64,
    onnx.TensorProto.STRING: DType.STRING,
}

_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}

# Domains whose ops ONNX Runtime brings without a schema in the onnx package.
_RUNTIME_DOMAINS = {"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}


def describe(ref: ModelRef) -> Description:
    """Describe an ONNX file from its graph; weights are not loaded.

    Raises:
        InputError: no readable ONNX model, or its inputs and outputs are not all tensors.
        UnsupportedOpsError: it holds ops that are in no known op set.
    """
    model = onnx_graph.load(ref.path, weights=False)
    _check_ops(model)
    graph = model.graph
    initialized = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initialized]
    native = Signature(
        tuple(map(_spec, _unique(inputs))), tuple(map(_spec, _unique(list(graph.output))))
    )
    if ref.signature is None:
        refuse_swapped(native, ref.outputs)
    signature = requested(native, ref.inputs, ref.outputs)
    bound = zip((*signature.inputs, *signature.outputs), (*inputs, *graph.output), strict=True)
    makers = {output: node for node in graph.node for output in node.output}
    return Description(
        signature=signature,
        framework="onnx",
        versions=versions("onnx", "onnxruntime"),
        ops=dict(sorted(Counter(node.op_type for node in onnx_graph.nodes(model)).items())),
        parameters=sum(_count(tensor) for tensor in graph.initializer),
        precision=_precision(model),
        opset={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        bindings={spec.name: value.name for spec, value in bound},
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        sidecars=_external_files(model),
        shares=tuple(
            spec.name
            for spec, value in zip(signature.outputs, graph.output, strict=True)
            if _is_sigmoid(makers, value.name)
        ),
    )


# Ops that leave numbers as they are.
_PLACING = {"Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
_PLACING |= {"Transpose", "Unsqueeze"}


def _is_sigmoid(makers: Mapping[str, onnx.NodeProto], name: str) -> bool:
    """Whether numbers of this value come from a Sigmoid, whose kernel is off by up to 1e-7.

    A share of 1e-8 may so be twice as large, or 0 (ONNX Runtime 1.31, ``MlasComputeLogistic``).
    """
    waiting, seen = [name], set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type == "Sigmoid":
            return True
        if node is not None and node.op_type in _PLACING:
            waiting += [item for item in node.input if item not in seen]
            seen.update(node.input)
    return False


def run(ref: ModelRef, cases: str, outputs: str, options: RunOptions) -> RunResult:
    """Run the file on the CPU, in ONNX Runtime or the runtime that is named.

    ``plain`` is ONNX Runtime without its graph optimizations, ``reference`` the evaluator in
    Python that defines what ops mean, ``openvino`` OpenVINO in float32.

    Raises:
        InputError: the runtime cannot load the file.
        MissingDependencyError: it is not installed.
    """
    assert ref.signature is not None
    options.refuse("wide")
    runner = onnx_runtimes.load(ref, options)
    call = onnx_runtimes.calling(ref, runner)
    feeds = read_cases(Path(cases), ref.signature.inputs)
    write_cases(Path(outputs), [call(feed) for feed in feeds])
    return RunResult(runner.title, timed(lambda: call(feeds[0]), options.repeat))


def check(ref: ModelRef, request: CheckRequest) -> list[Finding]:
    """Check the file with `onnx.checker`, load it into its runtime, and call it repeatedly.

    Raises:
        MissingDependencyError: the runtime is not installed.
    """
    assert ref.signature is not None
    found = _checked(ref.path)
    try:
        runner = onnx_runtimes.load(ref, RunOptions(runtime=ref.runtime))
    except InputError as error:
        return [*found, Finding("ops", False, error.message)]
    found.append(Finding("ops", True, f"{runner.title} has all of them, in their versions"))
    call = onnx_runtimes.calling(ref, runner)
    more = (lambda: call) if runner.concurrent else None
    return [*found, *checking.called(ref.signature, request, call, more)]


def _checked(path: Path) -> list[Finding]:
    """What `onnx.checker` says of the file, and shape inference of its shapes."""
    passed = Finding("checker", True, f"onnx {onnx.__version__}")
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.shape_inference.InferenceError as error:
        return [passed, Finding("shapes", False, first_line(error))]
    except Exception as error:  # ValidationError, and what the C++ code raises besides
        return [Finding("checker", False, first_line(error))]
    return [passed, Finding("shapes", True, "they fit those that shape inference finds")]


def to_onnx(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Check an ONNX file and write it cleaned, with the signature's names and dims.

    Documentation strings, metadata, unused initializers and initializers listed as inputs
    go; names of dimensions, inputs and outputs become the signature's. Numbers stay.

    Raises:
        InputError: the file does not pass `onnx.checker`.
        ConversionError: another opset was asked for, and onnx cannot convert to it.
    """
    assert source.signature is not None
    model = onnx_graph.load(source.path)
    random = sorted({n.op_type for n in onnx_graph.nodes(model) if n.op_type in _RANDOM})
    if random:
        raise UnsupportedOpsError(
            f"the model draws random numbers ({', '.join(random)}), so it cannot be compared"
        )
    if options.opset is not None:
        model = _with_opset(model, options.opset)
    apply_signature(model, source.signature)
    clean(model)
    onnx_graph.save(model, Path(target))
    return StepResult(
        tools=versions("onnx"), options={} if options.opset is None else {"opset": options.opset}
    )


def clean(model: onnx.ModelProto) -> None:
    """Remove, in place, what does not bear on the numbers and may name files of this machine."""
    onnx_graph.scrub(model)
    onnx_graph.drop_unused_opsets(model)
    graph = model.graph
    used = {name for node in onnx_graph.nodes(model) for name in node.input}
    used |= {output.name for output in graph.output}
    _keep(graph.initializer, [item for item in graph.initializer if item.name in used])
    initialized = {item.name for item in graph.initializer}
    _keep(graph.input, [item for item in graph.input if item.name not in initialized])


def apply_signature(model: onnx.ModelProto, signature: Signature) -> None:
    """Rename, in place, inputs, outputs and dynamic dims as the signature has them, by position."""
    graph = model.graph
    initialized = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initialized]
    renames: dict[str, str] = {}
    dims: dict[str, str] = {}
    pairs = [
        *zip(signature.inputs, inputs, strict=True),
        *zip(signature.outputs, graph.output, strict=True),
    ]
    for spec, value in pairs:
        renames[value.name] = spec.name
        for dim, proto in zip(spec.shape or (), value.type.tensor_type.shape.dim, strict=False):
            if isinstance(dim, str):
                dims[proto.dim_param] = dim
                proto.dim_param = dim
            elif isinstance(dim, int):
                proto.dim_value = dim
    _rename_values(model, {old: new for old, new in renames.items() if old != new})
    for value in graph.value_info:
        for proto in value.type.tensor_type.shape.dim:
            if proto.dim_param:
                proto.dim_param = dims.get(proto.dim_param, proto.dim_param)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        maps = value.type.sequence_type.elem_type.HasField("map_type")
        raise InputError(
            f"'{value.name}' is a {kind or 'value of unknown type'}, not a tensor",
            hint="convert the model without ZipMap (skl2onnx: options={'zipmap': False})"
            if maps
            else "",
        )
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type)
    if dtype is None:
        name = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise InputError(f"'{value.name}' has the element type {name}, which is not supported")
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(map(_dim, tensor.shape.dim))
    return TensorSpec(value.name, dtype, shape)


def _dim(proto: onnx.TensorShapeProto.Dimension) -> Dim:
    if proto.HasField("dim_value"):
        return int(proto.dim_value) if proto.dim_value >= 0 else None
    name = proto.dim_param
    # Exporters also write formulas ("2*batch") and generated marks here: not names to keep.
    return name if name.isascii() and name.isidentifier() else None


def _unique(values: list[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    """Copies whose names a `TensorSpec` takes; ONNX itself allows any text."""
    taken: set[str] = set()
    result = []
    for value in values:
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        name = "".join(
            char if char.isascii() and (char.isalnum() or char in "_.:/-") else "_"
            for char in value.name
        )
        name = name if name[:1].isalpha() or name[:1] == "_" else f"_{name}"
        while name in taken:
            name += "_"
        taken.add(name)
        copy.name = name
        result.append(copy)
    return result


def _check_ops(model: onnx.ModelProto) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opsets.setdefault("", opsets.get("ai.onnx", 1))
    own = {(function.domain, function.name) for function in model.functions}
    unknown: dict[str, list[str]] = {}
    for node in onnx_graph.nodes(model):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (node.domain, node.op_type) in own or domain in _RUNTIME_DOMAINS:
            continue
        if not onnx.defs.has(node.op_type, opsets.get(domain, 1), domain):
            label = f"{domain}::{node.op_type}" if domain else node.op_type
            unknown.setdefault(label, []).append(node.name or (node.output or ["?"])[0])
    if unknown:
        lines = [f"{op} ({', '.join(nodes)})" for op, nodes in sorted(unknown.items())]
        raise UnsupportedOpsError(
            "the model holds ops that no known op set has: " + "; ".join(lines),
            hint="ops of ai.onnx, ai.onnx.ml and com.microsoft are known",
        )


def _with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # the C++ converter raises RuntimeError and others
        raise ConversionError(
            f"onnx cannot convert the model to opset {opset}: {first_line(error)}"
        ) from None


def _precision(model: onnx.ModelProto) -> str:
    sizes: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        dtype = _DTYPES.get(tensor.data_type)
        if dtype is not None and (dtype.is_float or dtype in {DType.INT8, DType.UINT8}):
            sizes[dtype.value] += _count(tensor)
    return sizes.most_common(1)[0][0] if sizes else "float32"


def _count(tensor: onnx.TensorProto) -> int:
    return int(np.prod(list(tensor.dims), dtype=np.int64)) if tensor.dims else 1


def _external_files(model: onnx.ModelProto) -> tuple[str, ...]:
    found = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(sorted(found))


def _keep(items: Any, kept: list[Any]) -> None:
    copies = []
    for item in kept:
        copy = type(item)()
        copy.CopyFrom(item)
        copies.append(copy)
    del items[:]
    items.extend(copies)


def _rename_values(model: onnx.ModelProto, renames: dict[str, str]) -> None:
    """Rename values everywhere in the main graph; a value that stood in the way gets ``_``."""
    if not renames:
        return
    graph = model.graph
    taken = {name for node in onnx_graph.nodes(model) for name in (*node.input, *node.output)}
    taken |= {item.name for item in (*graph.input, *graph.output, *graph.initializer)}
    for wanted in set(renames.values()) & (taken - set(renames)):
        spare = wanted
        while spare in taken:
            spare += "_"
        taken.add(spare)
        renames[wanted] = spare
    inputs = {item.name for item in graph.input}
    passed = [item.name for item in graph.output if item.name in inputs]
    if passed:
        raise ConversionError(
            f"the model returns its input '{passed[0]}' unchanged, so the output cannot have "
            "a name of its own"
        )
    for node in onnx_graph.nodes(model):
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renames.get(name, name)
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        item.name = renames.get(item.name, item.name)
