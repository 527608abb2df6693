"""Keeps the TFLite converter from exchanging the operands of differences and quotients.

The converter moves a transpose behind the arithmetic that follows it, and where the other
operand is a constant it writes ``x - c`` for ``c - x``, and ``x / c`` for ``c / x``. It moves
none through Maximum, so a maximum of such an ``x`` with itself keeps them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_EXCHANGED = {"Div", "RealDiv", "Sub", "TruncateDiv"}

# The converter writes -x + c as c - x.
_NEGATION = "Neg"

# What a transpose may be moved through.
_ELEMENTWISE = {
    *_EXCHANGED,
    *("Add", "AddV2", "Cast", "Elu", "Exp", "Identity", "LeakyRelu", "Log", "LogicalNot"),
    *("Mul", "Neg", "Relu", "Relu6", "Rsqrt", "Select", "SelectV2", "Sigmoid", "Sqrt"),
    *("Square", "Tanh"),
}


def guard(nodes: Any) -> int:
    """Guard operands in the body of one function, in place; return how many."""
    by_name = {node.name: node for node in nodes}
    moved = _reached({"Transpose"}, nodes, by_name)
    guarded = [node for node in nodes if _is_at_risk(node) and _source(node.input, -1) in moved]
    for node in guarded:
        operand = [name for name in node.input if not name.startswith("^")][-1]
        kept = nodes.add(name=f"{node.name}/kept", op="Maximum", input=[operand, operand])
        kept.attr["T"].CopyFrom(node.attr["T"])
        node.input[list(node.input).index(operand, _operands(node) - 1)] = f"{kept.name}:z:0"
    return len(guarded)


def _is_at_risk(node: Any) -> bool:
    return node.op == _NEGATION or node.op in _EXCHANGED


def _operands(node: Any) -> int:
    return sum(not name.startswith("^") for name in node.input)


def _source(inputs: Iterable[str], position: int) -> str:
    """The node that makes an operand; the empty string for an argument of the function."""
    operand = [name for name in inputs if not name.startswith("^")][position]
    node, colon, _ = operand.partition(":")
    return node if colon else ""


def _reached(ops: set[str], nodes: Iterable[Any], by_name: Mapping[str, Any]) -> set[str]:
    """Names of nodes that are reached from some ops through elementwise ones alone."""
    readers: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name.lstrip("^").partition(":")[0], []).append(node.name)
    found: set[str] = set()
    waiting = [node.name for node in nodes if node.op in ops]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += [
            reader for reader in readers.get(name, []) if by_name[reader].op in _ELEMENTWISE
        ]
    return found
