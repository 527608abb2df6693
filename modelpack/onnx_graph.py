"""What every adapter that writes ONNX does to the file: walk it, clear it, check and save it."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from modelpack import wire
from modelpack.errors import ConversionError, InputError, first_line

# protobuf refuses messages of 2 GiB and more; larger models keep weights beside the file.
LARGEST_FILE = 1_900_000_000

# Types of real numbers.
FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
}


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs of its nodes, at every depth."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node: of the graph, of subgraphs and of the model's own functions."""
    for graph in graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def scrub(message: Message) -> None:
    """Clear documentation and metadata at every depth: exporters write stack traces there."""
    for field, value in message.ListFields():
        if field.name in {"metadata_props", "doc_string"}:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                scrub(part)


def drop_unused_opsets(model: onnx.ModelProto) -> None:
    """Keep only the op sets that a node belongs to, and the default one."""
    used = {node.domain for node in nodes(model)} | {"", "ai.onnx"}
    kept = [(item.domain, item.version) for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    for domain, version in kept:
        model.opset_import.add(domain=domain, version=version)


def load(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Load an ONNX file, with nodes behind those that they read from.

    ONNX demands that order. ONNX Runtime does in subgraphs only.

    Raises:
        InputError: the file is damaged, or its external data is missing.
    """
    try:
        model = onnx.load(path, load_external_data=weights)
    except DecodeError:
        raise InputError(f"'{path.name}' is truncated or damaged: no ONNX model in it") from None
    except (OSError, onnx.checker.ValidationError, ValueError) as error:
        raise InputError(f"cannot read '{path.name}': {first_line(error)}") from None
    if not model.HasField("graph") or not model.graph.output:
        raise InputError(f"'{path.name}' is truncated or damaged: it has no graph")
    _sort(model.graph)
    return model


def _sort(graph: onnx.GraphProto) -> None:
    """Sort nodes if they need it. Those that wait for each other stay: no runtime loads them."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waits = [
        {makers[name] for name in reads(node) if name in makers} - {i}
        for i, node in enumerate(graph.node)
    ]
    if all(max(others, default=-1) < i for i, others in enumerate(waits)):
        return
    try:
        order = list(TopologicalSorter(dict(enumerate(waits))).static_order())
    except CycleError:
        return
    copies = [onnx.NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
    del graph.node[:]
    graph.node.extend(copies)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for graph in graphs(body):
                yield from (name for inner in graph.node for name in inner.input)
                yield from (value.name for value in graph.output)


def save(model: onnx.ModelProto, target: Path) -> None:
    """Write a model and check it; weights go to ``<target>.data`` when one file cannot hold them.

    Raises:
        ConversionError: the model is not valid ONNX.
    """
    if _size(model) > LARGEST_FILE:
        onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")
    else:
        write(model, target)
    try:
        _check(model, target)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        target.unlink()
        raise ConversionError(f"the model is not valid ONNX: {first_line(error)}") from None


# Messages that hold most of a model: taken apart, they are never in memory a second time.
_LARGE_MESSAGES = (onnx.GraphProto, onnx.TensorProto)


def write(model: onnx.ModelProto, target: Path) -> None:
    """Write what ``SerializeToString`` returns, which would take the size of the model twice."""
    with target.open("wb") as file:
        for piece in _pieces(model):
            file.write(piece)


def _size(message: Message) -> int:
    """How long its bytes are. ``ByteSize`` would write them into memory."""
    return sum(map(len, _pieces(message)))


def _pieces(message: Message) -> Iterator[bytes]:
    """The bytes of a message by its fields, and those of a large one by its own."""
    if len(UnknownFieldSet(message)):  # of a newer ONNX: they have no name here
        yield message.SerializeToString(deterministic=True)
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                yield from _as_field(field.number, item)
        elif field.name == "raw_data":
            yield wire.begin(field.number, len(value))
            yield value
        else:
            alone = type(message)()
            _copy_field(field, value, alone)
            yield alone.SerializeToString(deterministic=True)


def _as_field(number: int, message: Message) -> Iterator[bytes]:
    if isinstance(message, _LARGE_MESSAGES):
        yield wire.begin(number, _size(message))
        yield from _pieces(message)
    else:
        found = message.SerializeToString(deterministic=True)
        yield wire.begin(number, len(found)) + found


# Bytes of an initializer from which on the checker need not see its values.
_LARGE = 1 << 16


def _check(model: onnx.ModelProto, target: Path) -> None:
    """Run the checker on the model without its large weights, of which it would make copies."""
    bare = target.with_name(f"{target.name}.check")
    bare.write_bytes(_bare(model, target.name).SerializeToString())
    try:
        onnx.checker.check_model(bare, full_check=True)
    finally:
        bare.unlink()


def _bare(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    """The model with large initializers said to lie in the file of this name."""
    bare = onnx.ModelProto()
    _copy_fields(model, bare, but="graph")
    _copy_fields(model.graph, bare.graph, but="initializer")
    for tensor in model.graph.initializer:
        copy = bare.graph.initializer.add()
        if len(tensor.raw_data) < _LARGE:
            copy.CopyFrom(tensor)
            continue
        _copy_fields(tensor, copy, but="raw_data")
        copy.data_location = onnx.TensorProto.EXTERNAL
        del copy.external_data[:]
        copy.external_data.add(key="location", value=location)
    return bare


def _copy_fields(source: Message, target: Message, but: str) -> None:
    for field, value in source.ListFields():
        if field.name != but:
            _copy_field(field, value, target)


def _copy_field(field: FieldDescriptor, value: Any, target: Message) -> None:
    if field.is_repeated:
        getattr(target, field.name).extend(value)
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(value)
    else:
        setattr(target, field.name, value)
