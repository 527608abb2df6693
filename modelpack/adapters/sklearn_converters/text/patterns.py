r"""Python's regular expressions of tokens as expressions of RE2 that find the same tokens.

The two differ in three ways. RE2 has no look-around and takes ``\b`` for a boundary of ASCII
words; it knows characters by its own Unicode version; and ONNX Runtime takes the longest match
at a place, where Python takes the first one that its alternatives lead to. So sets of
characters are listed, boundaries are only taken around runs of word characters, and whether
the longest match is the first one is decided for all texts, or the pattern is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any, TypeAlias

import numpy as np

from modelpack.adapters.sklearn_converters.text.characters import members, scalars, written
from modelpack.samples import Array

_MOST_REPEATS = 1000  # RE2's own limit
_MOST_STATES = 4096
_LONGEST_LISTED = 3  # RE2 lists the set again for each repetition


@dataclass(frozen=True, slots=True)
class Tokens:
    """How a text is cut into tokens.

    Attributes:
        expression: of RE2; its longest matches, one after the other, are the tokens.
        whole: of RE2; tokens that it does not match as a whole are left out. Empty for none.
    """

    expression: str
    whole: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class _Set:
    mask: Array


@dataclass(frozen=True, slots=True)
class _Boundary:
    r"""``\b``, between a word and what is none."""


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    branches: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    low: int
    high: int | None
    greedy: bool


_Node: TypeAlias = _Set | _Boundary | _Sequence | _Choice | _Repeat


@cache
def tokens_of(pattern: str) -> Tokens:
    """How a vectorizer's ``token_pattern`` cuts texts.

    Raises:
        NotImplementedError: RE2 has nothing that finds the same tokens; says why.
    """
    tree = _parser.parse(pattern)
    if tree.getwidth()[0] == 0:
        raise NotImplementedError("it may match nothing at all")
    flags = tree.state.flags
    node = _read_all(tree if tree.state.groups == 1 else _of_group(tree), flags)
    word = members(re.compile(r"\w", flags & re.ASCII))
    rest = _trimmed(node, 0)
    inside = None if rest is None else _trimmed(rest, -1)
    if inside is not None and all(not (each & ~word).any() for each in _sets(inside)):
        return _of_words(inside, word)
    if any(isinstance(each, _Boundary) for each in _walk(node)):
        raise NotImplementedError(
            r"\b is only taken at both ends of a pattern of word characters (\w) alone"
        )
    if _longest_differs(node):
        raise NotImplementedError(
            "it may stop at a match that is not the longest one; ONNX Runtime takes the longest"
        )
    return Tokens(_written(node, scalars()))


def _of_words(node: _Node, word: Array) -> Tokens:
    """Between two boundaries: runs of word characters, those that match as a whole."""
    least = _least_of(node, word)
    words = written(word, scalars())
    if least is not None and least <= _LONGEST_LISTED:
        return Tokens(f"{words}{{{least},}}" if least > 1 else f"{words}+")
    return Tokens(f"{words}+", _written(node, word))


def _least_of(node: _Node, word: Array) -> int | None:
    """How many characters a node asks for at least, if it takes any others; None if not."""
    parts = node.parts if isinstance(node, _Sequence) else (node,)
    least, endless = 0, False
    for part in parts:
        repeat = part if isinstance(part, _Repeat) else _Repeat(part, 1, 1, greedy=True)
        if not isinstance(repeat.part, _Set) or not np.array_equal(repeat.part.mask, word):
            return None
        least, endless = least + repeat.low, endless or repeat.high is None
    return least if endless else None


# --- reading -------------------------------------------------------------------------


def _of_group(tree: Any) -> Any:
    """The pattern, if its group is all that it matches: tokens are what groups match."""
    matching = [item for item in tree if item[0] is not _constants.AT]
    if len(matching) != 1 or matching[0][0] is not _constants.SUBPATTERN:
        raise NotImplementedError("its group is only a part of what it matches")
    number, _, _, inner = matching[0][1]
    if number is None:
        _of_group(inner)
    return tree


def _read_all(items: Any, flags: int) -> _Node:
    parts: list[_Node] = []
    for item in items:
        read = _read(item, flags)
        parts += read.parts if isinstance(read, _Sequence) else (read,)
    return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))


def _read(item: Any, flags: int) -> _Node:
    kind, value = item
    if kind in {_constants.LITERAL, _constants.NOT_LITERAL, _constants.ANY, _constants.IN}:
        return _Set(_members(item, flags))
    if kind is _constants.SUBPATTERN:
        _, added, removed, inner = value
        return _read_all(inner, (flags | added) & ~removed)
    if kind is _constants.BRANCH:
        return _Choice(tuple(_read_all(branch, flags) for branch in value[1]))
    if kind in {_constants.MAX_REPEAT, _constants.MIN_REPEAT}:
        low, high, inner = value
        if max(low, 0 if high is _constants.MAXREPEAT else high) > _MOST_REPEATS:
            raise NotImplementedError(f"it repeats more than {_MOST_REPEATS} times")
        last = None if high is _constants.MAXREPEAT else int(high)
        greedy = kind is _constants.MAX_REPEAT
        return _Repeat(_read_all(inner, flags), int(low), last, greedy)
    if kind is _constants.AT and value is _constants.AT_BOUNDARY:
        return _Boundary()
    raise NotImplementedError(f"it has {_NAMES.get(kind, str(kind).lower())}")


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


def _trimmed(node: _Node, end: int) -> _Node | None:
    r"""The node without the ``\b`` at one end of it (0 or -1); None if there is none."""
    if isinstance(node, _Boundary):
        return _Sequence(())
    if isinstance(node, _Choice):
        branches = [_trimmed(branch, end) for branch in node.branches]
        found = tuple(branch for branch in branches if branch is not None)
        return _Choice(found) if len(found) == len(branches) else None
    if isinstance(node, _Sequence) and node.parts:
        inner = _trimmed(node.parts[end], end)
        if inner is None:
            return None
        kept = inner.parts if isinstance(inner, _Sequence) else (inner,)
        parts = (*kept, *node.parts[1:]) if end == 0 else (*node.parts[:-1], *kept)
        return parts[0] if len(parts) == 1 else _Sequence(parts)
    return None


def _walk(node: _Node) -> Iterator[_Node]:
    yield node
    inner: Sequence[_Node] = ()
    if isinstance(node, _Sequence):
        inner = node.parts
    elif isinstance(node, _Choice):
        inner = node.branches
    elif isinstance(node, _Repeat):
        inner = (node.part,)
    for each in inner:
        yield from _walk(each)


def _sets(node: _Node) -> Iterator[Array]:
    r"""Sets of characters; everything stands for a ``\b``, which no word holds."""
    for each in _walk(node):
        if isinstance(each, _Set):
            yield each.mask
        elif isinstance(each, _Boundary):
            yield scalars()


# --- writing -------------------------------------------------------------------------


def _written(node: _Node, universe: Array) -> str:
    """The node in the syntax of RE2, for texts of the characters in ``universe``."""
    if isinstance(node, _Set):
        return written(node.mask, universe)
    if isinstance(node, _Sequence):
        return "".join(_written(part, universe) for part in node.parts)
    if isinstance(node, _Choice):
        return "(?:" + "|".join(_written(branch, universe) for branch in node.branches) + ")"
    assert isinstance(node, _Repeat)
    inner = _written(node.part, universe)
    inner = inner if isinstance(node.part, _Set) else f"(?:{inner})"
    return inner + _times(node.low, node.high)


def _times(low: int, high: int | None) -> str:
    short = {(0, 1): "?", (0, None): "*", (1, None): "+"}
    return short.get((low, high)) or f"{{{low},{'' if high is None else high}}}"


# --- first and longest matches -------------------------------------------------------


class _Program:
    """A node as instructions of a machine that keeps its states in order of preference.

    As in Russ Cox, "Regular Expression Matching: the Virtual Machine Approach" (2009).
    """

    def __init__(self, node: _Node) -> None:
        self.masks: list[Array] = []
        self._code: list[tuple[str, int, int]] = []  # kind, and its set or two next places
        self._add(node)
        self.match = self._emit("match")

    def _emit(self, kind: str, one: int = 0, other: int = 0) -> int:
        self._code.append((kind, one, other))
        if len(self._code) > _MOST_STATES:
            raise NotImplementedError("it repeats too much")
        return len(self._code) - 1

    def _add(self, node: _Node) -> None:
        if isinstance(node, _Set):
            self.masks.append(node.mask)
            self._emit("set", len(self.masks) - 1)
        elif isinstance(node, _Sequence):
            for part in node.parts:
                self._add(part)
        elif isinstance(node, _Choice):
            self._add_choice(node)
        elif isinstance(node, _Repeat):
            self._add_repeat(node)

    def _add_choice(self, node: _Choice) -> None:
        jumps = []
        for branch in node.branches[:-1]:
            split = self._emit("split")
            self._add(branch)
            jumps.append(self._emit("jump"))
            self._code[split] = ("split", split + 1, len(self._code))
        self._add(node.branches[-1])
        for jump in jumps:
            self._code[jump] = ("jump", len(self._code), 0)

    def _add_repeat(self, node: _Repeat) -> None:
        for _ in range(node.low):
            self._add(node.part)
        if node.high is None:
            split = self._emit("split")
            self._add(node.part)
            self._emit("jump", split)
            self._point(split, node.greedy)
            return
        splits = []
        for _ in range(node.high - node.low):
            splits.append(self._emit("split"))
            self._add(node.part)
        for split in splits:
            self._point(split, node.greedy)

    def _point(self, split: int, greedy: bool) -> None:
        ahead, out = split + 1, len(self._code)
        self._code[split] = ("split", *((ahead, out) if greedy else (out, ahead)))

    def start(self) -> tuple[int, ...]:
        """The places before the first character."""
        return self._closed([0])

    def after(self, places: Sequence[int], kind: Sequence[bool]) -> tuple[int, ...]:
        """The places after a character, of which it is told in which sets it is."""
        return self._closed(
            [p + 1 for p in places if self._code[p][0] == "set" and kind[self._code[p][1]]]
        )

    def _closed(self, places: Sequence[int]) -> tuple[int, ...]:
        found: dict[int, None] = {}
        left = list(reversed(places))
        while left:
            place = left.pop()
            if place in found:
                continue
            found[place] = None
            kind, one, other = self._code[place]
            if kind == "jump":
                left.append(one)
            elif kind == "split":
                left += [other, one]
        return tuple(found)


def _longest_differs(node: _Node) -> bool:
    """Whether there is a text whose first match is not its longest one at the same place.

    Two machines read all texts at once: one gives up what it prefers less than a match that
    it has found, the other gives up nothing.
    """
    program = _Program(node)
    kinds = _kinds(program.masks)
    begin = (_cut(program.start(), program.match), program.start())
    seen, left = {begin}, [begin]
    while left:
        first, all_ = left.pop()
        if program.match in all_ and program.match not in first:
            return True
        for kind in kinds:
            both = (
                _cut(program.after(first, kind), program.match),
                tuple(sorted(program.after(all_, kind))),
            )
            if both not in seen:
                seen.add(both)
                left.append(both)
        if len(seen) > _MOST_STATES:
            raise NotImplementedError("it is too complicated to compare its matches")
    return False


def _cut(places: tuple[int, ...], match: int) -> tuple[int, ...]:
    return places[: places.index(match) + 1] if match in places else places


def _kinds(masks: Sequence[Array]) -> set[tuple[bool, ...]]:
    """Which combinations of sets a character can be in."""
    edges = {0}
    for mask in masks:
        edges.update((np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist())
    return {tuple(bool(mask[edge]) for mask in masks) for edge in edges}
