"""Whether the first match of a regular expression is always its longest one."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import TypeAlias

import numpy as np

from modelpack.adapters.sklearn_converters.text.syntax import (
    Boundary,
    Choice,
    Node,
    Repeat,
    Sequence,
    Set,
)
from modelpack.samples import Array

_MOST_STATES = 4096

# The places of both machines, and whether the last character is of a word.
_State: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], bool]


class _Program:
    """A node as instructions of a machine that keeps its states in order of preference.

    As in Russ Cox, "Regular Expression Matching: the Virtual Machine Approach" (2009).
    """

    def __init__(self, node: Node) -> None:
        self.masks: list[Array] = []
        # A kind, and its set, its boundary or the two places that come next.
        self._code: list[tuple[str, int, int]] = []
        self._add(node)
        self.match = self._emit("match")

    def _emit(self, kind: str, one: int = 0, other: int = 0) -> int:
        self._code.append((kind, one, other))
        if len(self._code) > _MOST_STATES:
            raise NotImplementedError("it repeats too much")
        return len(self._code) - 1

    def _add(self, node: Node) -> None:
        if isinstance(node, Set):
            self.masks.append(node.mask)
            self._emit("set", len(self.masks) - 1)
        elif isinstance(node, Boundary):
            self._emit("boundary", node.there)
        elif isinstance(node, Sequence):
            for part in node.parts:
                self._add(part)
        elif isinstance(node, Choice):
            self._add_choice(node)
        elif isinstance(node, Repeat):
            self._add_repeat(node)

    def _add_choice(self, node: Choice) -> None:
        jumps = []
        for branch in node.branches[:-1]:
            split = self._emit("split")
            self._add(branch)
            jumps.append(self._emit("jump"))
            self._code[split] = ("split", split + 1, len(self._code))
        self._add(node.branches[-1])
        for jump in jumps:
            self._code[jump] = ("jump", len(self._code), 0)

    def _add_repeat(self, node: Repeat) -> None:
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

    def reached(self, places: Items[int], boundary: bool) -> tuple[int, ...]:
        """The places that are reached before the next character, the preferred ones first."""
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
            elif kind == "boundary" and bool(one) == boundary:
                left.append(place + 1)
        return tuple(found)

    def after(self, places: Items[int], kind: Items[bool]) -> tuple[int, ...]:
        """The places after a character, of which it is told in which sets it is."""
        return tuple(
            place + 1
            for place in places
            if self._code[place][0] == "set" and kind[self._code[place][1]]
        )


def longest_differs(node: Node, word: Array) -> bool:
    """Whether there is a text whose first match is not its longest one at the same place.

    Two machines read all texts at once: one gives up what it prefers less than a match that
    it has found, the other gives up nothing.

    Args:
        node: of a regular expression.
        word: the characters of words, ``[0x110000]``.

    Raises:
        NotImplementedError: it would take too long to find out.
    """
    program = _Program(node)
    kinds = _kinds([*program.masks, word])  # whether it is of a word comes last
    end = (False,) * (len(program.masks) + 1)
    seen: set[_State] = set()
    left: list[_State] = [((0,), (0,), of_word) for of_word in (False, True)]
    while left:
        state = left.pop()
        if state in seen:
            continue
        seen.add(state)
        if len(seen) > _MOST_STATES:
            raise NotImplementedError("it is too complicated to compare its matches")
        first, every, of_word = state
        for kind in (end, *kinds):
            boundary = of_word != kind[-1]
            found = program.reached(every, boundary)
            preferred = _cut(program.reached(first, boundary), program.match)
            if program.match in found and program.match not in preferred:
                return True
            following = program.after(preferred, kind), program.after(found, kind)
            left.append((following[0], tuple(sorted(following[1])), kind[-1]))
    return False


def _cut(places: tuple[int, ...], match: int) -> tuple[int, ...]:
    return places[: places.index(match) + 1] if match in places else places


def _kinds(masks: Items[Array]) -> set[tuple[bool, ...]]:
    """Which combinations of sets a character can be in."""
    edges = {0}
    for mask in masks:
        edges.update((np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist())
    return {tuple(bool(mask[edge]) for mask in masks) for edge in edges}
