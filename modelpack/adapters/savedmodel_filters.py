"""Puts filters of convolutions into the graph of a saved model, in place of their stand-ins.

The file is written piece by piece, so that the filters are in memory one at a time.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from modelpack import wire
from modelpack.lowering.filters import STAND_IN, Filters

ROOM = 96 << 20
"""Bytes of filters that a graph may have: those of a ResNet-50.

A process that loads and runs a SavedModel through TensorFlow's Python interface holds about
ten times as much of them.
"""

# Which field leads from each message to the nodes of functions, where all filters are.
_INNER = {
    "SavedModel": "meta_graphs",
    "MetaGraphDef": "graph_def",
    "GraphDef": "library",
    "FunctionDefLibrary": "function",
    "FunctionDef": "node_def",
}


@dataclass(frozen=True, slots=True)
class _Filter:
    """The place of a filter's content: its number, and its length in bytes."""

    number: int
    length: int


_Pieces: TypeAlias = list[bytes | _Filter]


def put_in(directory: Path, filters: Filters) -> None:
    """Rewrite ``saved_model.pb`` and ``fingerprint.pb`` with filters for stand-ins."""
    from tensorflow.core.protobuf import saved_model_pb2

    if not len(filters):
        return
    path = directory / "saved_model.pb"
    pieces = _message(saved_model_pb2.SavedModel.FromString(path.read_bytes()))
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in _chunks(pieces, filters):
            file.write(chunk)
            digest.update(chunk)
    _sign(directory / "fingerprint.pb", digest.digest())


def _chunks(pieces: _Pieces, filters: Filters) -> Iterator[bytes]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        content = filters[piece.number].tobytes()
        assert len(content) == piece.length
        yield content


def _message(message: Any) -> _Pieces:
    """A message of the path to the nodes, as pieces."""
    name = message.DESCRIPTOR.name
    if name == "NodeDef":
        return _node(message)
    field = message.DESCRIPTOR.fields_by_name[_INNER[name]]
    value = getattr(message, field.name)
    inner = [
        piece
        for item in (value if field.is_repeated else [value])
        for piece in _field(field.number, _message(item))
    ]
    message.ClearField(field.name)
    return [message.SerializeToString(deterministic=True), *inner]


def _node(node: Any) -> _Pieces:
    if STAND_IN not in node.attr:
        return [node.SerializeToString(deterministic=True)]
    number = node.attr.pop(STAND_IN).i
    value = node.attr.pop("value")
    tensor = _tensor(value.tensor, number)
    fields = node.DESCRIPTOR.fields_by_name
    entry = fields["attr"].message_type.fields_by_name
    tensor_field = value.DESCRIPTOR.fields_by_name["tensor"].number
    pair = [
        *_field(entry["key"].number, [b"value"]),
        *_field(entry["value"].number, _field(tensor_field, tensor)),
    ]
    return [node.SerializeToString(deterministic=True), *_field(fields["attr"].number, pair)]


def _tensor(stand_in: Any, number: int) -> _Pieces:
    import tensorflow as tf

    bare = type(stand_in)(dtype=stand_in.dtype, tensor_shape=stand_in.tensor_shape)
    count = math.prod(dim.size for dim in stand_in.tensor_shape.dim)
    content = _Filter(number, count * tf.as_dtype(stand_in.dtype).size)
    field = stand_in.DESCRIPTOR.fields_by_name["tensor_content"].number
    return [bare.SerializeToString(deterministic=True), *_field(field, [content])]


def _field(number: int, content: _Pieces) -> _Pieces:
    """A field with a length: a message, text or bytes."""
    length = sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in content)
    return [wire.begin(number, length), *content]


def _sign(path: Path, digest: bytes) -> None:
    """Make the fingerprint one of the new content too."""
    from tensorflow.core.protobuf import fingerprint_pb2

    if not path.exists():
        return
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.saved_model_checksum = int.from_bytes(digest[:8], "little")
    fingerprint.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, fingerprint.uuid + digest.hex()))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
