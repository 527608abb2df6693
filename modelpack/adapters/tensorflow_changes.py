"""What writes variables, states of random numbers and tables in a TensorFlow graph.

Artifacts keep nothing between calls: what no answer reads is dropped, the rest is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Set
from typing import Any

from modelpack.errors import ConversionError

REFERENCES = {"Variable", "VariableV2"}
"""Ops that hold a variable as TensorFlow 1 did, by a reference."""

TABLES = {
    *("HashTable", "MutableHashTable", "MutableDenseHashTable"),
    "MutableHashTableOfTensors",
}
"""Ops that hold a table; each has a form (V2) whose handle is a resource, and one of references."""

# How the names of ops begin that write variables, states of random numbers, or tables.
_WRITES = (
    *("Assign", "ResourceScatter", "ResourceApply", "ResourceSparseApply"),
    *("ResourceStridedSliceAssign", "RngReadAndSkip", "RngSkip", "StatefulRandomBinomial"),
    *("StatefulStandardNormal", "StatefulTruncatedNormal", "StatefulUniform"),
    *("LookupTableImport", "LookupTableInsert", "LookupTableRemove"),
)


def drop_unread_changes(graph: Any, outputs: Iterable[str]) -> None:
    """Drop what writes variables that the outputs do not read, as the state of random numbers.

    Raises:
        ConversionError: the outputs depend on what is written: no artifact has a place to keep it.
    """
    functions = {item.signature.name: item.node_def for item in graph.library.function}
    writers = [(node, found) for node in graph.node if (found := writer(node, functions))]
    if not writers:
        return
    nodes = {node.name: node for node in graph.node}
    needed = _reached(nodes, outputs)
    for node, found in writers:
        if {node.name, *_handles(nodes, node)} & needed:
            raise ConversionError(
                f"the model changes a variable while it answers (node '{found.name}', "
                f"{found.op}), and artifacts keep none between calls",
                hint="save a function that only reads its variables",
            )
    kept = [copy.deepcopy(node) for node in graph.node if _stays(node, needed)]
    names = {node.name for node in kept}
    del graph.node[:]
    graph.node.extend(kept)
    for node in graph.node:
        left = [item for item in node.input if item[0] != "^" or item[1:] in names]
        del node.input[:]
        node.input.extend(left)


def _stays(node: Any, needed: Set[str]) -> bool:
    return node.name in needed or node.op == "Placeholder"


def writer(node: Any, functions: Mapping[str, Any]) -> Any:
    """The node that writes a variable: this one, or one in a function it calls; else None."""
    pending = [[node]]
    seen: set[str] = set()
    while pending:
        for inner in pending.pop():
            if inner.op.startswith(_WRITES):
                return inner
            called = {item.func.name for item in inner.attr.values() if item.HasField("func")}
            called |= {item.name for value in inner.attr.values() for item in value.list.func}
            fresh = sorted(called & functions.keys() - seen)
            seen.update(fresh)
            pending += [functions[name] for name in fresh]
    return None


def _reached(nodes: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """The nodes that values of these are computed from, themselves included."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found and name in nodes:
            found.add(name)
            pending += [item.partition(":")[0] for item in nodes[name].input if item[0] != "^"]
    return found


def _handles(nodes: Mapping[str, Any], writer: Any) -> set[str]:
    """What holds the variables that a node writes, or gives to a function that writes some."""
    pending = list(writer.input)
    found = set()
    while pending:
        node = nodes.get(pending.pop().partition(":")[0])  # none for what is merely waited for
        if node is not None and node.op == "Identity":
            pending.append(node.input[0])
        elif node is not None and (_holds(node.op) or _is_handle(node)):
            found.add(node.name)
    return found


def _holds(op: str) -> bool:
    return op == "VarHandleOp" or op in REFERENCES or op.removesuffix("V2") in TABLES


def _is_handle(node: Any) -> bool:
    from tensorflow.core.framework import types_pb2

    return node.op == "Placeholder" and node.attr["dtype"].type == types_pb2.DT_RESOURCE
