"""Branches on sizes that PyTorch's exporter takes one side of, and asserts the choice.

`torch.onnx` lets `torch.export` turn such a choice into an assertion in the graph, and then
leaves assertions out: at sizes on the other side the artifact would answer wrongly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram

from modelpack.adapters.torch_promotion import promoted

# Sizes that are looked through for one at which an assertion does not hold.
_SIZES = range(1, 129)


@contextlib.contextmanager
def recorded() -> Iterator[list[ExportedProgram]]:
    """The programs that `torch.export` makes meanwhile, with assertions, as ONNX takes them."""
    original = torch.export.export
    programs: list[ExportedProgram] = []

    def export(*args: Any, **options: Any) -> ExportedProgram:
        programs.append(promoted(original(*args, **options)))
        return programs[-1]

    torch.export.export = export
    try:
        yield programs
    finally:
        torch.export.export = original


def broken_at(program: ExportedProgram) -> list[dict[str, int]]:
    """For each assertion on sizes alone, the smallest sizes at which it does not hold.

    Returns:
        sizes by the program's symbol, as in the shapes of its inputs.
    """
    found = []
    for node in program.graph.nodes:
        if _is_assertion(node):
            condition = getattr(getattr(node.args[0], "meta", {}).get("val"), "node", None)
            sizes = _breaking(condition.expr) if condition is not None else None
            if sizes:
                found.append(sizes)
    return found


def _is_assertion(node: Any) -> bool:
    return node.op == "call_function" and "_assert_scalar" in str(node.target)


def _breaking(condition: Any) -> dict[str, int] | None:
    """Sizes at which a condition on one symbol is false, or on several with the others at 3."""
    symbols = sorted(condition.free_symbols, key=str)
    if any(not str(symbol).startswith("s") for symbol in symbols):
        return None  # of values, not of sizes
    usual = {symbol: 3 + index for index, symbol in enumerate(symbols)}
    for symbol in symbols:
        for size in _SIZES:
            sizes = usual | {symbol: size}
            if condition.subs(sizes) == False:  # noqa: E712 -- of SymPy's own type
                return {str(one): number for one, number in sizes.items()}
    return None


def without_assertions(program: ExportedProgram) -> torch.nn.Module:
    """The program's module, which answers at sizes that it was not traced for."""
    module = program.module(check_guards=False)
    for node in list(module.graph.nodes):
        if _is_assertion(node):
            module.graph.erase_node(node)
    module.recompile()
    return module
