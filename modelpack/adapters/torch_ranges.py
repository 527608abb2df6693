"""Values that the integer inputs of an exported program usually take, read from its graph."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence, Set
from typing import Any

import torch
from torch.export import ExportedProgram

from modelpack.signature import TensorSpec
from modelpack.steps import Range

# Ops of aten that keep every value, or leave some out.
_KEEPING = {
    *("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "expand", "expand_as", "flatten"),
    *("transpose", "permute", "t", "select", "slice", "clone", "contiguous", "repeat", "alias"),
    *("detach", "detach_", "split", "split_with_sizes", "chunk", "unbind", "lift_fresh_copy"),
}
_CASTS = {"to", "_to_copy", "type_as"}


def program_ranges(program: ExportedProgram, inputs: Sequence[TensorSpec]) -> dict[str, Range]:
    """Bound integer inputs of a program with embeddings: by the table that each indexes.

    Masks that positions are counted along, or of which ``(1 - mask) * -10000`` is made, are 0
    and 1. Others are bounded by the smallest table: rows of zeros, of which some models make
    NaN, are rare among these.
    """
    nodes = {node.name: node for node in program.graph.nodes}
    tables = [_rows(node) for node in nodes.values() if _op(node) in _TABLES]
    if not tables:
        return {}
    return {
        spec.name: Range((0.0,), (float(_highest(nodes[spec.name], min(tables))),))
        for spec in inputs
        if spec.dtype.is_integer and spec.name in nodes
    }


_TABLES = {"embedding", "embedding_bag", "_embedding_bag"}


def _highest(node: Any, fewest_rows: int) -> int:
    uses = list(_uses(node))
    rows = [_rows(user) for user, value in uses if _op(user) in _TABLES and user.args[1] is value]
    if rows:
        return min(rows) - 1
    is_counted = any(_op(user) == "cumsum" for user, _ in uses)
    return 1 if is_counted or _is_hiding(node) else fewest_rows - 1


def _uses(node: Any, through: Set[str] = frozenset(_KEEPING)) -> Iterator[tuple[Any, Any]]:
    """Each node that computes with the values of ``node``, with what it takes them from."""
    for user in node.users:
        if _op(user) in through or user.target is operator.getitem or _is_number_cast(user):
            yield from _uses(user, through)
        else:
            yield user, node


def _is_hiding(node: Any) -> bool:
    """Whether scores are hidden where a mask is 0: they get ``(1 - mask)`` times a large number."""
    return any(
        _is_large(user, value)
        for inverse, _ in _uses(node, _KEEPING | {"mul"})
        if _op(inverse) == "rsub" and inverse.args[1:] in {(1,), (1.0,)}
        for user, value in _uses(inverse)
    )


# The smallest number that hides a score for certain, added to it.
_LARGE = 1e3


def _is_large(node: Any, value: Any) -> bool:
    """Whether a node multiplies a value by a large number."""
    other = [argument for argument in node.args if argument is not value]
    is_number = len(other) == 1 and isinstance(other[0], int | float)
    return _op(node) == "mul" and is_number and abs(other[0]) >= _LARGE


def _is_number_cast(node: Any) -> bool:
    return _op(node) in _CASTS and getattr(node.meta.get("val"), "dtype", None) != torch.bool


def _op(node: Any) -> str:
    """The name of an op of aten, without its overload; empty for other nodes."""
    target = node.target
    is_aten = isinstance(target, torch._ops.OpOverload) and target.namespace == "aten"
    return target._schema.name.partition("::")[2] if is_aten else ""


def _rows(node: Any) -> int:
    return int(node.args[0].meta["val"].shape[0])
