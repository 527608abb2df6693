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

_NUMBERED = re.compile(r"(?P<base>.*)_(?P<number>\d+)\Z", re.DOTALL)
# Arguments that a loop passes through are named after the function they pass through.
_PLACEHOLDER = re.compile(r"(?<=_)(?P<number>\d+)(?P<rest>___redundant_placeholder\d+)")


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
    names = canonicalize_functions(meta.graph_def)
    _rename(meta.object_graph_def, names)


def canonicalize_functions(graph: Any) -> _Names:
    """Number and order the functions of a ``GraphDef`` by creation; return their new names."""
    library = graph.library
    names = _Names([function.signature.name for function in library.function])
    for function in library.function:
        _name_captures(function)
        for attributes in function.arg_attr.values():
            # Captured tensors are "called" by their number within the process.
            if attributes.attr["_user_specified_name"].s.isdigit():
                del attributes.attr["_user_specified_name"]
    for nodes in (graph.node, *(function.node_def for function in library.function)):
        for node in nodes:
            node.ClearField("experimental_debug_info")
            # It numbers the Python gradient function of one process; serving needs none.
            node.attr.pop("_gradient_op_type", None)
    _rename(graph, names)
    functions = sorted(library.function, key=lambda function: _number(function.signature.name))
    copies = [type(function).FromString(function.SerializeToString()) for function in functions]
    del library.function[:]
    library.function.extend(copies)
    return names


def _name_captures(function: Any) -> None:
    """Name the variables that a function captures by position, in its own scope.

    TensorFlow calls some of them by their number within the process.
    """
    from tensorflow.core.framework import types_pb2

    taken = {node.name for node in function.node_def}
    taken |= {argument.name for argument in function.signature.input_arg}
    names: dict[str, str] = {}
    for position, argument in enumerate(function.signature.input_arg):
        new = f"captured_{position}"
        if argument.type == types_pb2.DT_RESOURCE and new not in taken:
            names[argument.name] = new
            argument.name = new
    for node in function.node_def:
        node.input[:] = [names.get(item, item) for item in node.input]
    for key in list(function.ret):
        function.ret[key] = names.get(function.ret[key], function.ret[key])


def _number(name: str) -> int:
    match = _NUMBERED.match(name)
    return int(match["number"]) if match else -1


class _Names:
    """New function names: numbered by rank, where the old number is the time of creation."""

    def __init__(self, names: list[str]) -> None:
        ordered = sorted(names, key=lambda name: (_number(name), name))
        self._functions: dict[str, str] = {}
        self._numbers: dict[str, str] = {}
        for rank, name in enumerate(ordered):
            match = _NUMBERED.match(name)
            self._functions[name] = f"{match['base'] if match else name}_{rank}"
            if match:
                self._numbers[match["number"]] = str(rank)

    def __call__(self, text: str) -> str:
        if text in self._functions:
            return self._functions[text]
        return _PLACEHOLDER.sub(
            lambda match: self._numbers.get(match["number"], match["number"]) + match["rest"], text
        )


def _rename(message: Any, names: _Names) -> None:
    """Apply ``names`` to every string field and map key of a message, weights excepted."""
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is not None and kind.full_name == "tensorflow.TensorProto":
            continue
        if kind is not None and kind.GetOptions().map_entry:
            _rename_map(value, kind, names)
        elif kind is not None:
            for item in value if field.is_repeated else (value,):
                _rename(item, names)
        elif field.type == field.TYPE_STRING and field.is_repeated:
            value[:] = [names(item) for item in value]
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, names(value))


def _rename_map(entries: Any, kind: Any, names: _Names) -> None:
    holds_messages = kind.fields_by_name["value"].message_type is not None
    for key in list(entries):
        if holds_messages:
            _rename(entries[key], names)
        if not isinstance(key, str) or names(key) == key:
            continue
        if holds_messages:
            entries[names(key)].CopyFrom(entries[key])
        else:
            entries[names(key)] = entries[key]
        del entries[key]


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
