"""TFLite files of several signatures: made of files of one each, and taken apart again."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from modelpack.adapters.tflite_file import graph_fields, parse, parsed, reached
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import ConversionError
from modelpack.steps import StepResult

_ALIGNMENT = 16
"""Bytes that ``data`` of a ``Buffer`` begins at a multiple of, by the schema (``force_align``)."""

_LARGEST = (1 << 31) - 1
"""Bytes of the largest flatbuffer: offsets in it are 32-bit and signed."""

_ALONE = "convert each signature alone, to a directory of its own: --signature NAME"

_VERSION = b"min_runtime_version"
_OF_THE_FIRST = (b"CONVERSION_METADATA",)
"""Metadata that says how the converter was called: that of the first file stands for all."""


def join(parts: list[ModelRef], target: str) -> StepResult:
    """Write one file with the signature of each part, under the name that its ref has for it.

    The graphs of the parts follow each other. Constants of equal type, shape and content are
    kept once, and tensors whose names were used before get other ones.

    Args:
        parts: files of one signature each, as TensorFlow's converter writes them. Their graphs
            are the file's in this order, so the first is what runs where no signature is named.
        target: the file to write.

    Raises:
        ConversionError: a part has what cannot be joined, or they are too large together.
    """
    whole = _Whole()
    for part in parts:
        assert part.signature is not None
        model = parse(_mapped(part.path), part.path.name)
        _refuse_unusual(model, part)
        whole.add(model, part.signature.name)
    whole.write(Path(target))
    return StepResult(tools=versions("ai-edge-litert", "flatbuffers"))


@contextlib.contextmanager
def with_one_signature(ref: ModelRef) -> Iterator[ModelRef]:
    """The file, or for a while one that has nothing but the signature that is meant.

    For what takes a file's first graph, or its last one, for all of it.

    Raises:
        ConversionError: the signature's weights lie behind the graphs, and are too large for
            the place that others have.
    """
    if len(parsed(ref).model.signatureDefs or ()) < 2:
        yield ref
        return
    with tempfile.TemporaryDirectory() as scratch:
        alone = Path(scratch) / ref.path.name
        _write(_of_one_signature(ref), alone)
        yield replace(ref, location=str(alone), signature_name="")


def _of_one_signature(ref: ModelRef) -> Any:
    file, content = parsed(ref), _mapped(ref.path)
    model = parse(content, ref.path.name)
    _keep_graph(model, file.subgraph)
    for index, buffer in enumerate(model.buffers):
        if buffer.offset > 1:  # weights that lie behind the flatbuffer
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        model.buffers[index] = _Constant(buffer.data)
    model.signatureDefs = [
        item for item in model.signatureDefs if item.signatureKey.decode() == file.key
    ]
    model.signatureDefs[0].subgraphIndex = 0
    return model


def _keep_graph(model: Any, graph: int) -> None:
    """Leave one graph, which becomes the first, and those that it calls, with their constants."""
    kept = reached(model, graph)
    places = {old: new for new, old in enumerate(kept)}
    model.subgraphs = [model.subgraphs[index] for index in kept]
    for op in _ops(model):
        _redirect(op, places.__getitem__)
    used = {tensor.buffer for item in model.subgraphs for tensor in item.tensors or ()}
    used |= {item.buffer for item in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data, buffer.offset, buffer.size = None, 0, 0


def _ops(model: Any) -> Iterator[Any]:
    for graph in model.subgraphs:
        yield from graph.operators or ()


def _redirect(op: Any, place: Callable[[int], int]) -> None:
    """Let an op refer to graphs by their new indices."""
    for options, name in graph_fields(op):
        value = getattr(options, name)
        several = [place(int(item)) if item >= 0 else -1 for item in np.atleast_1d(value)]
        setattr(options, name, several if np.ndim(value) else several[0])


# --- what is read -----------------------------------------------------------------------------


def _mapped(path: Path) -> mmap.mmap:
    """A file whose constants stay on disk until they are read."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _refuse_unusual(model: Any, part: ModelRef) -> None:
    """Refuse what TensorFlow's converter does not write, and what is not joined here.

    Raises:
        ConversionError: there is such a thing.
    """
    unusual = {
        "no signature, or several": len(model.signatureDefs or ()) != 1,
        "weights in other files": bool(model.externalBuffers or model.externalBufferGroups),
        "weights behind its graphs": any(buffer.offset > 1 for buffer in model.buffers or ()),
        "options behind its graphs": any(op.largeCustomOptionsOffset for op in _ops(model)),
        "unnamed metadata": model.metadataBuffer is not None and len(model.metadataBuffer) > 0,
    }
    for what, there in unusual.items():
        if there:
            raise ConversionError(
                f"'{part.display}' has {what}, so it cannot be one file with others", hint=_ALONE
            )


def _resources(model: Any) -> bytes:
    """Digest of what the file fills its tables and variables with; empty without any."""
    filled = sorted(
        {
            options.initSubgraphIndex
            for op in _ops(model)
            for options in [op.builtinOptions]
            if isinstance(options, schema.CallOnceOptionsT)
        }
    )
    digest = hashlib.sha256()
    for index in filled:
        for tensor in model.subgraphs[index].tensors or ():
            data = model.buffers[tensor.buffer].data
            digest.update(_kind(tensor))
            digest.update(b"" if data is None else data)
    return digest.digest() if filled else b""


def _kind(tensor: Any) -> bytes:
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    return repr((tensor.type, shape)).encode()


# --- what is written --------------------------------------------------------------------------


@dataclass
class _Constant:
    """A buffer, as the schema's ``BufferT`` is, but at the alignment that the schema asks for."""

    data: Any = None

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - as the schema's classes call it
        if self.data is None:
            return schema.BufferT().Pack(builder)
        # Python's flatbuffers knows no force_align; what is padded now stands behind the data.
        builder.Prep(_ALIGNMENT, len(self.data))
        return schema.BufferT(self.data).Pack(builder)


def _write(model: Any, target: Path) -> None:
    """Write an object tree whose buffers are `_Constant`.

    Raises:
        ConversionError: it is too large for its format.
    """
    weights = sum(len(item.data) for item in model.buffers if item.data is not None)
    if weights + _ALIGNMENT * len(model.buffers) > _LARGEST:
        names = ", ".join(item.signatureKey.decode() for item in model.signatureDefs)
        raise ConversionError(
            f"the weights of {names} are {weights >> 20} MiB together, and a TFLite file holds "
            "less than 2 GiB",
            hint=_ALONE,
        )
    # Room for the weights, so that they are not copied whenever it grows.
    builder = flatbuffers.Builder(min(weights + weights // 64 + (1 << 16), _LARGEST))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    with target.open("wb") as file:
        file.write(memoryview(builder.Bytes)[builder.Head() :])


@dataclass
class _Whole:
    """The file that parts are put into."""

    model: Any = field(
        default_factory=lambda: schema.ModelT(
            operatorCodes=[],
            subgraphs=[],
            buffers=[_Constant()],
            metadata=[],
            signatureDefs=[],
        )
    )
    codes: dict[tuple[Any, ...], int] = field(default_factory=dict)
    buffers: dict[bytes, int] = field(default_factory=dict)
    metadata: dict[bytes, bytes] = field(default_factory=dict)
    names: set[bytes] = field(default_factory=set)
    resources: bytes = b""

    def add(self, part: Any, key: str) -> None:
        """Put a file of one signature behind the others, which it is told from by the key."""
        first = len(self.model.subgraphs)
        self._take_description(part)
        self._take_resources(part, key)
        for graph in part.subgraphs:
            for tensor in graph.tensors or ():
                tensor.buffer = self._buffer(part.buffers[tensor.buffer].data, _kind(tensor))
                tensor.name = self._free_name(tensor.name, key)
            for op in graph.operators or ():
                op.opcodeIndex = self._code(part.operatorCodes[op.opcodeIndex])
                _redirect(op, lambda index: index + first)
        (definition,) = part.signatureDefs
        definition.signatureKey = key.encode()
        definition.subgraphIndex += first
        self.model.subgraphs += part.subgraphs
        self.model.signatureDefs.append(definition)

    def write(self, target: Path) -> None:
        """Write the file.

        Raises:
            ConversionError: it would be too large for its format.
        """
        for name, content in self.metadata.items():
            buffer = self._buffer(np.frombuffer(content, np.uint8), b"metadata")
            self.model.metadata.append(schema.MetadataT(name, buffer))
        _write(self.model, target)

    def _take_description(self, part: Any) -> None:
        """The facts about the whole file: the newest of versions, else the first's."""
        self.model.version = max(self.model.version, part.version)
        self.model.description = self.model.description or part.description
        for item in part.metadata or ():
            content = bytes(part.buffers[item.buffer].data)
            known = self.metadata.setdefault(item.name, content)
            if item.name == _VERSION:
                self.metadata[item.name] = max(known, content, key=_release)
            elif known != content and item.name not in _OF_THE_FIRST:
                raise ConversionError(
                    f"the signatures' files have different metadata '{item.name.decode()}'",
                    hint=_ALONE,
                )

    def _take_resources(self, part: Any, key: str) -> None:
        """Tables and variables of equal names are one in a file, so all must be filled alike."""
        found = _resources(part)
        if found and self.resources not in {b"", found}:
            raise ConversionError(
                f"the tables of '{key}' hold other values than those of the signatures before it",
                hint=_ALONE,
            )
        self.resources = self.resources or found

    def _buffer(self, data: Any, kind: bytes) -> int:
        """Where a constant is kept: with an equal one, if there is any."""
        if data is None:
            return 0
        digest = hashlib.sha256(kind + b"\0")
        digest.update(data)
        if digest.digest() not in self.buffers:
            self.buffers[digest.digest()] = len(self.model.buffers)
            self.model.buffers.append(_Constant(data))
        return self.buffers[digest.digest()]

    def _code(self, code: Any) -> int:
        kind = (code.deprecatedBuiltinCode, code.builtinCode, code.version, code.customCode)
        if kind not in self.codes:
            self.codes[kind] = len(self.codes)
            self.model.operatorCodes.append(code)
        return self.codes[kind]

    def _free_name(self, name: bytes | None, key: str) -> bytes | None:
        """A name that no other tensor has: tools for such files tell tensors by it."""
        if not name:
            return name
        found, number = name, 0
        while found in self.names:
            found = b"%s/%s" % (key.encode(), name) + (b"_%d" % number if number else b"")
            number += 1
        self.names.add(found)
        return found


def _release(version: bytes) -> list[int]:
    """A version such as ``2.5.0``, padded with zero bytes, as numbers."""
    parts = version.rstrip(b"\0").decode(errors="replace").split(".")
    return [int(part) if part.isdigit() else 0 for part in parts]
