"""Read what a pickle names, without loading it; needs no framework."""

from __future__ import annotations

import pickletools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PickleGlobals:
    """What a pickle stream names.

    Attributes:
        names: ``module.name`` of each global, each once, in order of appearance.
        problem: why reading stopped before the end; empty when it did not.
    """

    names: tuple[str, ...]
    problem: str = ""


def pickle_globals(content: bytes) -> PickleGlobals:
    """List the globals of the first pickle in ``content``, which may be damaged or hostile.

    Strings are followed through the memo, as the unpickler does, because a second use of a
    module's name is a reference to the first.
    """
    found: dict[str, None] = {}
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    top: str | None = None
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in {"GLOBAL", "INST"}:
                found[str(argument).replace(" ", ".")] = None
            elif opcode.name == "STACK_GLOBAL":
                found[".".join(strings[-2:])] = None
            if opcode.name == "MEMOIZE":
                memo[len(memo)] = top
            elif opcode.name in {"PUT", "BINPUT", "LONG_BINPUT"}:
                memo[int(argument)] = top
            else:
                is_get = opcode.name in {"GET", "BINGET", "LONG_BINGET"}
                value = memo.get(int(argument)) if is_get else argument
                text = isinstance(value, str) and (is_get or "UNICODE" in opcode.name)
                top = value if text else None
                if text:
                    strings.append(value)
    except Exception as error:  # pickletools raises many kinds on a crafted stream
        return PickleGlobals(tuple(found), str(error) or type(error).__name__)
    return PickleGlobals(tuple(found))
