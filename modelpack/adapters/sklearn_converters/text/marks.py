r"""Marks at the boundaries of words, where RE2 finds them: its ``\b`` is one of ASCII letters.

A text is respelled so that its only ASCII letter is a mark, at each boundary of a word. What is
an ASCII letter, digit or underscore becomes a private character, and those private characters
become another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from modelpack.adapters.sklearn_converters.text.characters import Table, scalars
from modelpack.samples import Array

MARK = "b"
_PRIVATE = 0xF0000
_OTHER = chr(_PRIVATE + 0x80)  # what the private characters become that are taken

_MOVED = [number for number in range(0x80) if re.match(r"\w", chr(number))]
TABLE = Table(
    {
        **{chr(number): chr(_PRIVATE + number) for number in _MOVED},
        **{chr(_PRIVATE + number): _OTHER for number in _MOVED},
    }
)


def refuse_private(masks: Iterable[Array], texts: Iterable[str] = ()) -> None:
    """Raise NotImplementedError where it matters which private character it is."""
    told_apart = any(len(set(mask[_PRIVATE : _PRIVATE + 0x81].tolist())) > 1 for mask in masks)
    used = any(_PRIVATE <= ord(letter) <= _PRIVATE + 0x80 for text in texts for letter in text)
    if told_apart or used:
        raise NotImplementedError(r"it has private characters (U+F0000) and \b")


def moved(mask: Array) -> Array:
    """A set of characters as they are respelled; the mark is in none."""
    found = mask.copy()
    numbers = np.array(_MOVED)
    found[_PRIVATE + numbers] = mask[numbers]
    found[numbers] = False
    return found & scalars()


def respelled(token: str, of_word: re.Pattern[str]) -> tuple[str, str]:
    """A token as it stands in a respelled text: at a boundary it ends in a mark, or not."""
    pieces = [TABLE.entries.get(letter, letter) for letter in token]
    places = [
        place
        for place, (one, other) in enumerate(pairwise(token), 1)
        if bool(of_word.match(one)) != bool(of_word.match(other))
    ]
    for place in reversed(places):
        pieces.insert(place, MARK)
    return "".join(pieces), "".join(pieces) + MARK
