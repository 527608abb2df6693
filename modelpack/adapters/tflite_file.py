"""TFLite files, read without a runtime: what they promise, and what they hold."""

from __future__ import annotations

import contextlib
import mmap
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

from modelpack.artifact import ModelRef
from modelpack.errors import InputError
from modelpack.signature import (
    DEFAULT_SIGNATURE,
    EVERY_SIGNATURE,
    Dim,
    DType,
    Signature,
    TensorSpec,
    unknown_signature,
)

# TensorType of the TFLite schema, as far as models exchange them.
DTYPES = {
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
STRING = 5
_INT4 = 17


@dataclass(frozen=True, eq=False)
class File:
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


def parsed(ref: ModelRef, *, fresh: bool = False) -> File:
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
def _read(location: str, _changed: int, _size: int, name: str) -> File:
    path = Path(location)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read '{path.name}': {error.strerror}") from None
    model = parse(content, path.name)
    definitions = {(item.signatureKey or b"").decode(): item for item in model.signatureDefs or []}
    key = _chosen_key(path.name, list(definitions), name)
    chosen = definitions.get(key)
    graph = model.subgraphs[chosen.subgraphIndex if chosen else 0]
    inputs = _entries(chosen.inputs if chosen else None, graph, graph.inputs)
    outputs = _entries(chosen.outputs if chosen else None, graph, graph.outputs)
    several = len(definitions) > 1
    signature = _signature(graph, inputs, outputs, key if several else DEFAULT_SIGNATURE)
    pairs = dict((*inputs, *outputs))
    return File(
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
        raise unknown_signature(file, name, keys)
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


def parse(content: bytes | mmap.mmap, name: str) -> Any:
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
            if any(index >= len(model.subgraphs) for index in _called(op)):
                return "an op refers to a graph that is not there"
        if any(not -1 <= index < count for index in used):
            return "an op refers to a tensor that is not there"
    return _signature_problem(model)


def _signature_problem(model: Any) -> str:
    for definition in model.signatureDefs or ():
        if not 0 <= definition.subgraphIndex < len(model.subgraphs):
            return "a signature refers to a graph that is not there"
        count = len(model.subgraphs[definition.subgraphIndex].tensors or ())
        maps = (*(definition.inputs or ()), *(definition.outputs or ()))
        if any(item.tensorIndex >= count for item in maps):
            return "a signature refers to a tensor that is not there"
    return _key_problem([item.signatureKey or b"" for item in model.signatureDefs or ()])


def _key_problem(keys: list[bytes]) -> str:
    """What keeps signatures from being told apart by their names."""
    for key in keys:
        try:
            name = key.decode()
        except UnicodeDecodeError:
            return f"the name of a signature, {key!r}, is not UTF-8"
        if not name and len(keys) > 1:
            return "one of several signatures has no name"
        if keys.count(key) > 1:
            return f"two signatures are called '{name}'"
    return ""


def _indices(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


# --- the signature -----------------------------------------------------------------------------


def _spec(name: str, tensor: Any, dim_prefix: str) -> TensorSpec:
    dtype = DTYPES.get(tensor.type)
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


def op_counts(model: Any) -> dict[str, int]:
    found = (op_names(model, graph) for graph in range(len(model.subgraphs)))
    return dict(sorted(Counter(chain.from_iterable(found)).items()))


def graph_fields(op: Any) -> Iterator[tuple[Any, str]]:
    """The fields of an op that hold indices of graphs, as (options, name of the field)."""
    for options in (op.builtinOptions, op.builtinOptions2):
        for name in vars(options) if options is not None else ():
            if "ubgraph" in name:
                yield options, name


def reached(model: Any, graph: int) -> list[int]:
    """A graph of the file, and those that its loops, branches and initializers lead to."""
    found = [graph]
    for index in found:  # which grows meanwhile
        for op in model.subgraphs[index].operators or ():
            found += [item for item in dict.fromkeys(_called(op)) if item not in found]
    return found


def _called(op: Any) -> list[int]:
    """Indices of the graphs that an op refers to."""
    fields = (getattr(options, name) for options, name in graph_fields(op))
    return [int(index) for value in fields for index in np.atleast_1d(value) if index >= 0]


def unrunnable(model: Any, graph: int) -> str:
    """Why no interpreter here can run a graph of the file; empty if LiteRT can.

    Neither LiteRT's package nor, since 2.20, TensorFlow's brings the Flex delegate:
    https://github.com/google-ai-edge/LiteRT/issues/6458
    """
    found = {name for index in reached(model, graph) for name in op_names(model, index)}
    flex = sorted(name for name in found if name.startswith("Flex"))
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


def is_quantized(tensor: Any) -> bool:
    quantization = tensor.quantization
    return (
        quantization is not None and quantization.scale is not None and len(quantization.scale) > 0
    )


def weights(model: Any) -> tuple[str, int]:
    """The type that most weights have, and the number of weights.

    Integers without a scale are shapes and axes, not weights.
    """
    sizes: Counter[str] = Counter()
    parameters = 0
    for tensor, elements in _constants(model):
        dtype = "int4" if tensor.type == _INT4 else str(DTYPES.get(tensor.type, ""))
        if dtype.startswith(("float", "bfloat")) or is_quantized(tensor):
            sizes[dtype] += elements
            parameters += elements
    return (sizes.most_common(1)[0][0] if sizes else "float32"), parameters


def tensor_types(model: Any) -> Counter[int]:
    return Counter(tensor.type for graph in model.subgraphs for tensor in graph.tensors or ())
