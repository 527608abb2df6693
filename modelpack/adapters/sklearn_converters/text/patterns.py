r"""Python's regular expressions of tokens as expressions of RE2 that find the same tokens.

The two differ in three ways. RE2 takes ``\b`` for a boundary of ASCII words; it knows characters
by its own Unicode version; and ONNX Runtime takes the longest match at a place, where Python
takes the first one that its alternatives lead to. So sets of characters are listed, words are
looked at as a whole or marked, and whether the longest match is the first one is decided for all
texts, or the pattern is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from modelpack.adapters.sklearn_converters.text import marks
from modelpack.adapters.sklearn_converters.text.characters import members, scalars, written
from modelpack.adapters.sklearn_converters.text.matching import longest_differs
from modelpack.adapters.sklearn_converters.text.syntax import (
    Boundary,
    Choice,
    Node,
    Repeat,
    Sequence,
    Set,
    read,
    sets,
    walk,
)
from modelpack.samples import Array

_LONGEST_LISTED = 3  # RE2 lists the set again for each repetition


@dataclass(frozen=True, slots=True)
class Tokens:
    """How a text is cut into tokens.

    Attributes:
        expression: of RE2; its longest matches, one after the other, are the tokens.
        whole: of RE2; tokens that it does not match as a whole are left out. Empty for none.
        marked: matches the characters of words, at whose boundaries the expression expects
            marks; None if it expects none.
    """

    expression: str
    whole: str = ""
    marked: re.Pattern[str] | None = None


@cache
def tokens_of(pattern: str) -> Tokens:
    """How a vectorizer's ``token_pattern`` cuts texts.

    Raises:
        NotImplementedError: RE2 has nothing that finds the same tokens; says why.
    """
    node, flags = read(pattern)
    of_word = re.compile(r"\w", flags & re.ASCII)
    word = members(of_word)
    rest = _trimmed(node, 0)
    inside = None if rest is None else _trimmed(rest, -1)
    if inside is not None and all(not (each & ~word).any() for each in sets(inside)):
        return _of_words(inside, word)
    if longest_differs(node, word):
        raise NotImplementedError(
            "it may stop at a match that is not the longest one; ONNX Runtime takes the longest"
        )
    if not any(isinstance(each, Boundary) for each in walk(node)):
        return Tokens(_written(node, scalars()))
    marks.refuse_private(each.mask for each in walk(node) if isinstance(each, Set))
    return Tokens(_written(node, scalars(), marked=True), marked=of_word)


def word_character(how: Tokens) -> str:
    """What RE2 knows the characters of words by, for tokens that expect marks."""
    assert how.marked is not None
    return written(members(how.marked), scalars())


def _of_words(node: Node, word: Array) -> Tokens:
    """Between two boundaries: runs of word characters, those that match as a whole."""
    least = _least_of(node, word)
    words = written(word, scalars())
    if least is not None and least <= _LONGEST_LISTED:
        return Tokens(f"{words}{{{least},}}" if least > 1 else f"{words}+")
    return Tokens(f"{words}+", _written(node, word))


def _least_of(node: Node, word: Array) -> int | None:
    """How many characters a node asks for at least, if it takes any others; None if not."""
    parts = node.parts if isinstance(node, Sequence) else (node,)
    least, endless = 0, False
    for part in parts:
        repeat = part if isinstance(part, Repeat) else Repeat(part, 1, 1, greedy=True)
        if not isinstance(repeat.part, Set) or not np.array_equal(repeat.part.mask, word):
            return None
        least, endless = least + repeat.low, endless or repeat.high is None
    return least if endless else None


def _trimmed(node: Node, end: int) -> Node | None:
    r"""The node without the ``\b`` at one end of it (0 or -1); None if there is none."""
    if isinstance(node, Boundary):
        return Sequence(()) if node.there else None
    if isinstance(node, Choice):
        branches = [_trimmed(branch, end) for branch in node.branches]
        found = tuple(branch for branch in branches if branch is not None)
        return Choice(found) if len(found) == len(branches) else None
    if isinstance(node, Sequence) and node.parts:
        inner = _trimmed(node.parts[end], end)
        if inner is None:
            return None
        kept = inner.parts if isinstance(inner, Sequence) else (inner,)
        parts = (*kept, *node.parts[1:]) if end == 0 else (*node.parts[:-1], *kept)
        return parts[0] if len(parts) == 1 else Sequence(parts)
    return None


def _written(node: Node, universe: Array, *, marked: bool = False) -> str:
    """The node in the syntax of RE2, for texts of the characters in ``universe``.

    Args:
        node: of a regular expression.
        universe: characters that occur.
        marked: whether the texts are respelled, with marks after characters.
    """
    if isinstance(node, Set):
        if not marked:
            return written(node.mask, universe)
        return f"(?:{written(marks.moved(node.mask), universe)}{marks.MARK}?)"
    if isinstance(node, Boundary):
        return r"\b" if node.there else r"\B"
    if isinstance(node, Sequence):
        return "".join(_written(part, universe, marked=marked) for part in node.parts)
    if isinstance(node, Choice):
        branches = [_written(branch, universe, marked=marked) for branch in node.branches]
        return f"(?:{'|'.join(branches)})"
    inner = _written(node.part, universe, marked=marked)
    inner = inner if isinstance(node.part, Set) else f"(?:{inner})"
    return inner + _times(node.low, node.high)


def _times(low: int, high: int | None) -> str:
    short = {(0, 1): "?", (0, None): "*", (1, None): "+"}
    return short.get((low, high)) or f"{{{low},{'' if high is None else high}}}"
