"""The syntax of Python's regular expressions, as far as RE2 can express it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any, TypeAlias

from modelpack.adapters.sklearn_converters.text.characters import members, scalars
from modelpack.samples import Array

_MOST_REPEATS = 1000  # RE2's own limit


@dataclass(frozen=True, eq=False, slots=True)
class Set:
    """One character of a set, by its number."""

    mask: Array


@dataclass(frozen=True, slots=True)
class Boundary:
    r"""``\b``, between a word character and what is none; ``\B``, anywhere else."""

    there: bool = True


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One or another, the first one rather."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Several times, as often as possible (greedy) or as seldom."""

    part: Node
    low: int
    high: int | None
    greedy: bool


Node: TypeAlias = Set | Boundary | Sequence | Choice | Repeat


def read(pattern: str) -> tuple[Node, int]:
    """Read a token pattern, and the flags that it sets.

    Raises:
        NotImplementedError: it has a part that RE2 does not have; says which.
    """
    tree = _parser.parse(pattern)
    if tree.getwidth()[0] == 0:
        raise NotImplementedError("it may match nothing at all")
    flags = int(tree.state.flags)
    return _read_all(tree if tree.state.groups == 1 else _of_group(tree), flags), flags


def _of_group(tree: Any) -> Any:
    """The pattern, if its group is all that it matches: tokens are what groups match."""
    matching = [item for item in tree if item[0] is not _constants.AT]
    if len(matching) != 1 or matching[0][0] is not _constants.SUBPATTERN:
        raise NotImplementedError("its group is only a part of what it matches")
    number, _, _, inner = matching[0][1]
    if number is None:
        _of_group(inner)
    return tree


def _read_all(items: Any, flags: int) -> Node:
    parts: list[Node] = []
    for item in items:
        read = _read(item, flags)
        parts += read.parts if isinstance(read, Sequence) else (read,)
    return parts[0] if len(parts) == 1 else Sequence(tuple(parts))


def _read(item: Any, flags: int) -> Node:
    kind, value = item
    if kind in {_constants.LITERAL, _constants.NOT_LITERAL, _constants.ANY, _constants.IN}:
        return Set(_members(item, flags))
    if kind is _constants.SUBPATTERN:
        _, added, removed, inner = value
        return _read_all(inner, (flags | added) & ~removed)
    if kind is _constants.BRANCH:
        return Choice(tuple(_read_all(branch, flags) for branch in value[1]))
    if kind in {_constants.MAX_REPEAT, _constants.MIN_REPEAT}:
        low, high, inner = value
        if max(low, 0 if high is _constants.MAXREPEAT else high) > _MOST_REPEATS:
            raise NotImplementedError(f"it repeats more than {_MOST_REPEATS} times")
        last = None if high is _constants.MAXREPEAT else int(high)
        greedy = kind is _constants.MAX_REPEAT
        return Repeat(_read_all(inner, flags), int(low), last, greedy)
    if kind is _constants.AT and value in _BOUNDARIES:
        return Boundary(there=value is _constants.AT_BOUNDARY)
    raise NotImplementedError(f"it has {_NAMES.get(kind, str(kind).lower())}")


_BOUNDARIES = {_constants.AT_BOUNDARY, _constants.AT_NON_BOUNDARY}
_NAMES = {
    _constants.ASSERT: "a look at what comes before or after",
    _constants.ASSERT_NOT: "a look at what comes before or after",
    _constants.AT: "an anchor, of a line or of a text",
    _constants.GROUPREF: "a reference to a group",
    _constants.GROUPREF_EXISTS: "a reference to a group",
    _constants.ATOMIC_GROUP: "an atomic group",
    _constants.POSSESSIVE_REPEAT: "a possessive repetition",
}


def _members(item: Any, flags: int) -> Array:
    """Ask Python's own engine which characters a set has: case and classes are its own."""
    state = _parser.State()
    state.flags = flags
    return members(_compiler.compile(_parser.SubPattern(state, [item]), flags))


def walk(node: Node) -> Iterator[Node]:
    yield node
    inner: Items[Node] = ()
    if isinstance(node, Sequence):
        inner = node.parts
    elif isinstance(node, Choice):
        inner = node.branches
    elif isinstance(node, Repeat):
        inner = (node.part,)
    for each in inner:
        yield from walk(each)


def sets(node: Node) -> Iterator[Array]:
    r"""Sets of characters; everything stands for a ``\b``, which no word holds."""
    for each in walk(node):
        if isinstance(each, Set):
            yield each.mask
        elif isinstance(each, Boundary):
            yield scalars()
