"""Branches on sizes that PyTorch's exporter takes one side of, and asserts the choice.

`torch.onnx` lets `torch.export` turn such a choice into an assertion in the graph, and then
leaves assertions out: at sizes on the other side the artifact would answer wrongly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from modelpack.adapters.torch_failures import place_here
from modelpack.adapters.torch_programs import writable

# Sizes that are looked through for one at which an assertion does not hold.
_SIZES = range(1, 129)
_LARGEST = 1 << 16

# Lines that an error names, where any of them may be what fixes a size.
_MOST_PLACES = 3


@contextlib.contextmanager
def recorded() -> Iterator[list[ExportedProgram]]:
    """The programs that `torch.export` makes meanwhile, with assertions, as ONNX takes them."""
    original = torch.export.export
    programs: list[ExportedProgram] = []

    def export(*args: Any, **options: Any) -> ExportedProgram:
        programs.append(writable(original(*args, **options)))
        return programs[-1]

    torch.export.export = export
    try:
        yield programs
    finally:
        torch.export.export = original


class Places:
    """Lines of the model's code that make numbers of sizes, as `torch_failures.place_here` says."""

    def __init__(self) -> None:
        self._sizes: dict[int, str] = {}
        self._computed: dict[int, list[str]] = {}

    def note(self, guard: Any, examples: Mapping[Any, Any]) -> None:
        """Note a guard that PyTorch adds here and now, if it says what a size is.

        Args:
            guard: the condition.
            examples: the sizes that are traced with, by symbol.
        """
        number: Any = getattr(guard, "rhs", None)
        if type(guard).__name__ != "Equality" or not getattr(number, "is_Integer", False):
            return
        place = place_here()
        if guard.lhs.is_Symbol:
            self._sizes.setdefault(int(number), place)
            return
        for symbol in guard.lhs.free_symbols & examples.keys():
            found = self._computed.setdefault(int(examples[symbol]), [])
            found += [place] if place and place not in found else []

    def of(self, size: int) -> str:
        """The lines that make a constant of a size, by the example's; or nothing."""
        return self._sizes.get(size) or " or".join(self._computed.get(size, [])[:_MOST_PLACES])


@contextlib.contextmanager
def places() -> Iterator[Places]:
    """Watch where numbers are made of sizes while PyTorch traces."""
    original = ShapeEnv._log_guard
    found = Places()

    def watched(env: Any, prefix: str, guard: Any, *args: Any, **options: Any) -> None:
        found.note(guard, env.backed_var_to_val)
        original(env, prefix, guard, *args, **options)

    ShapeEnv._log_guard = watched
    try:
        yield found
    finally:
        ShapeEnv._log_guard = original


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
        for size in (*_SIZES, *_around_numbers(condition)):
            sizes = usual | {symbol: size}
            if condition.subs(sizes) == False:  # noqa: E712 -- of SymPy's own type
                return {str(one): number for one, number in sizes.items()}
    return None


def _around_numbers(condition: Any) -> list[int]:
    """Sizes beyond the usual ones at which a comparison with a number turns."""
    numbers = {abs(int(item)) for item in condition.atoms() if item.is_Integer}
    numbers |= {one * other for one in numbers for other in numbers}  # of quotients
    near = {number + step for number in numbers for step in (-1, 0, 1)}
    return sorted(size for size in near if _SIZES[-1] < size < _LARGEST)


def without_assertions(program: ExportedProgram) -> torch.nn.Module:
    """The program's module, which answers at sizes that it was not traced for."""
    module = program.module(check_guards=False)
    for node in list(module.graph.nodes):
        if _is_assertion(node):
            module.graph.erase_node(node)
    module.recompile()
    return module
