"""Read what a pickle names, without loading it; needs no framework."""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass

# STACK_GLOBAL with both of its strings before it, and GLOBAL, as bytes.
_STACK_GLOBAL = re.compile(rb"\x8c.([\w.]{2,99})\x94?\x8c.([\w.]{2,99})\x94?\x93", re.DOTALL)
_GLOBAL = re.compile(rb"c([A-Za-z_][\w.]{1,99})\n([A-Za-z_][\w.]{1,99})\n")


@dataclass(frozen=True, slots=True)
class PickleGlobals:
    """What a pickle stream names.

    Attributes:
        names: ``module.name`` of each global, each once, in order of appearance.
        problem: why reading stopped before the end; empty when it did not.
    """

    names: tuple[str, ...]
    problem: str = ""


def pickle_sequence_globals(content: bytes, count: int) -> PickleGlobals:
    """List the globals of the first ``count`` pickles of several that follow each other."""
    names: dict[str, None] = {}
    start = 0
    for _ in range(count):
        found = pickle_globals(content[start:])
        names |= dict.fromkeys(found.names)
        if found.problem:
            return PickleGlobals(tuple(names), found.problem)
        *_, (_, _, end) = pickletools.genops(content[start:])
        start += int(end or 0) + 1
    return PickleGlobals(tuple(names))


def pickle_globals(content: bytes) -> PickleGlobals:
    """List the globals of the first pickle in ``content``, which may be damaged or hostile.

    Where the stream stops making sense (joblib writes arrays into it), the rest is searched
    for what looks like a global, so that later ones are likely, but not sure, to be listed.
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
                memo[int(str(argument))] = top
            else:
                top = _pushed_text(opcode.name, argument, memo)
                strings += [] if top is None else [top]
    except Exception as error:  # pickletools raises many kinds on a crafted stream
        for pattern in (_STACK_GLOBAL, _GLOBAL):
            for module, name in pattern.findall(content):
                found[f"{module.decode(errors='replace')}.{name.decode(errors='replace')}"] = None
        return PickleGlobals(tuple(found), str(error) or type(error).__name__)
    return PickleGlobals(tuple(found))


def _pushed_text(opcode: str, argument: object, memo: dict[int, str | None]) -> str | None:
    """The string that an opcode pushes; None when it pushes something else."""
    if opcode in {"GET", "BINGET", "LONG_BINGET"}:
        return memo.get(int(str(argument)))
    return argument if isinstance(argument, str) and "UNICODE" in opcode else None
