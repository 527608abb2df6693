"""Makes the files of a SavedModel depend on the model alone.

TensorFlow numbers functions by what else the process has traced, orders them as they come,
and puts a random id into ``fingerprint.pb``. Here functions are numbered and ordered by
creation, and the id is derived from the content.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

_NUMBERED = re.compile(r"(?P<base>.*?)_?(?P<number>\d+)\Z", re.DOTALL)


def canonicalize(directory: Path) -> None:
    """Rewrite ``saved_model.pb`` and ``fingerprint.pb`` in place so that they are reproducible."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = directory / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta in saved.meta_graphs:
        _canonicalize_graph(meta)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    _rewrite_fingerprint(directory)


def _canonicalize_graph(meta: Any) -> None:
    library = meta.graph_def.library
    names = _numbered_by_creation([function.signature.name for function in library.function])
    for nodes in (meta.graph_def.node, *(function.node_def for function in library.function)):
        for node in nodes:
            node.ClearField("experimental_debug_info")
            # It numbers the Python gradient function of one process; serving needs none.
            node.attr.pop("_gradient_op_type", None)
    _rename(meta.graph_def, names)
    _rename(meta.object_graph_def, names)
    order = {name: position for position, name in enumerate(names.values())}
    functions = sorted(library.function, key=lambda function: order[function.signature.name])
    copies = [type(function).FromString(function.SerializeToString()) for function in functions]
    del library.function[:]
    library.function.extend(copies)


def _numbered_by_creation(names: list[str]) -> dict[str, str]:
    """Map each function's name to one numbered by rank; the old number is its creation time."""

    def parts(name: str) -> tuple[int, str]:
        match = _NUMBERED.match(name)
        return (int(match["number"]), match["base"]) if match else (-1, name)

    ordered = sorted(names, key=parts)
    return {name: f"{parts(name)[1]}_{rank}" for rank, name in enumerate(ordered)}


def _rename(message: Any, names: dict[str, str]) -> None:
    """Replace every string field and map key of a message that is one of ``names``."""
    for field, value in message.ListFields():
        is_text = field.cpp_type == field.CPPTYPE_STRING and field.type == field.TYPE_STRING
        kind = field.message_type
        if kind is not None and kind.full_name == "tensorflow.TensorProto":
            continue
        if kind is not None and kind.GetOptions().map_entry:
            _rename_map(value, kind, names)
        elif field.is_repeated:
            for index, item in enumerate(value):
                if is_text and item in names:
                    value[index] = names[item]
                elif kind is not None:
                    _rename(item, names)
        elif kind is not None:
            _rename(value, names)
        elif is_text and value in names:
            setattr(message, field.name, names[value])


def _rename_map(entries: Any, kind: Any, names: dict[str, str]) -> None:
    holds_messages = kind.fields_by_name["value"].message_type is not None
    if holds_messages:
        for key in list(entries):
            _rename(entries[key], names)
    renamed = {key: names[key] for key in entries if isinstance(key, str) and key in names}
    kept = {new: type(entries[old]).FromString(entries[old].SerializeToString())
            for old, new in renamed.items()} if holds_messages else {}
    for old in renamed:
        del entries[old]
    for new, value in kept.items():
        entries[new].CopyFrom(value)


def _rewrite_fingerprint(directory: Path) -> None:
    """Compute the fingerprint anew, its random id replaced by one of the other fields."""
    from tensorflow.core.protobuf import fingerprint_pb2
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

    path = directory / "fingerprint.pb"
    if not path.exists():
        return
    content = fingerprinting.CreateFingerprintDef(str(directory))
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(content)
    fingerprint.ClearField("uuid")
    fixed = fingerprint.SerializeToString(deterministic=True)
    fingerprint.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, fixed.hex()))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
