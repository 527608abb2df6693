"""What Python makes of each single character, and sets of characters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from sklearn.feature_extraction.text import strip_accents_ascii, strip_accents_unicode

from modelpack.samples import Array

# Functions of a text that look at each character alone, except for `SIGMA` in lower case.
LOWER = str.lower
BY_CHARACTER: tuple[Callable[[str], str], ...] = (
    *(str.lower, str.upper, str.casefold),
    *(strip_accents_ascii, strip_accents_unicode),
)

_COUNT = 0x110000
_SURROGATES = range(0xD800, 0xE000)  # no text that is UTF-8 has them

# The one letter whose lower case depends on the letters around it.
SIGMA, MIDDLE_SIGMA, FINAL_SIGMA = "\u03a3", "\u03c3", "\u03c2"


@cache
def every() -> str:
    """All characters, each at its number; surrogates too."""
    return "".join(map(chr, range(_COUNT)))


@cache
def scalars() -> Array:
    """Which numbers are characters of UTF-8, ``[0x110000]``."""
    mask = np.ones(_COUNT, bool)
    mask[_SURROGATES.start : _SURROGATES.stop] = False
    return mask


@dataclass(frozen=True, slots=True)
class Table:
    """What becomes of each character.

    Attributes:
        entries: by character, what takes its place.
        default: what takes the place of all others; None if they stay.
    """

    entries: dict[str, str]
    default: str | None = None


@cache
def table(functions: tuple[Callable[[str], str], ...]) -> Table:
    """What functions, one after the other, make of each character alone."""
    kept: dict[str, str] = {}
    made: dict[str, str] = {}
    for number in np.flatnonzero(scalars()).tolist():
        character = text = chr(number)
        for function in functions:
            text = function(text)
        if text:
            kept[character] = text
        if text != character:
            made[character] = text
    return Table(made) if len(made) <= len(kept) else Table(kept, "")


def members(expression: re.Pattern[str]) -> Array:
    """The characters that a regular expression of one character matches, ``[0x110000]``."""
    mask = np.zeros(_COUNT, bool)
    found = "".join(expression.findall(every()))
    mask[[ord(character) for character in found]] = True
    return mask & scalars()


def ranges(mask: Array) -> list[tuple[int, int]]:
    """First and last numbers of the runs in a set of characters."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(after) - 1) for first, after in edges.reshape(-1, 2)]


def written(mask: Array, universe: Array) -> str:
    """A set of characters in the syntax of RE2.

    Args:
        mask: the set.
        universe: the characters that occur; what others belong to does not matter.
    """
    inside, outside = ranges(mask & universe), ranges(universe & ~mask)
    if not outside:
        return "(?s:.)"
    negative = len(outside) < len(inside) or not inside
    listed = "".join(_range(*each) for each in (outside if negative else inside))
    return f"[^{listed}]" if negative else f"[{listed}]"


def _range(first: int, last: int) -> str:
    return rf"\x{{{first:x}}}" + ("" if first == last else rf"-\x{{{last:x}}}")


def listed(mask: Array) -> list[str]:
    """The characters of a set."""
    return [chr(number) for number in np.flatnonzero(mask).tolist()]


@cache
def spaces() -> list[str]:
    r"""The characters that ``\s`` matches and that `str.split` splits at: they are the same."""
    return listed(members(re.compile(r"\s")))


@cache
def around_sigma() -> tuple[list[str], list[str]]:
    """Letters that make a sigma after them final, and what is overlooked between the two.

    These are the properties Cased and Case_Ignorable of the Unicode standard (section 3.13,
    Final_Sigma), as Python's lower case applies them.
    """
    numbers = np.flatnonzero(scalars()).tolist()
    cased = [c for c in map(chr, numbers) if _ends_finally(c + SIGMA)]
    known = set(cased)
    overlooked = [c for c in map(chr, numbers) if _ends_finally(f"a{c}{SIGMA}") and c not in known]
    return cased, overlooked


def _ends_finally(text: str) -> bool:
    return text.lower().endswith(FINAL_SIGMA)


def is_encodable(text: str) -> bool:
    """Whether a text can be UTF-8: one with a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
