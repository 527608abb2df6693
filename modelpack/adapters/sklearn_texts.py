"""Texts that a text vectorizer is tried on: its own words, and what is hard about text."""

from __future__ import annotations

import unicodedata
from typing import Any

from modelpack.adapters.sklearn_columns import OF_TEXT
from modelpack.adapters.sklearn_loading import walk

_MOST_TERMS = 60  # of a vocabulary
_IN_A_TEXT = 4
_WORDS = ("text", "of", "some", "words")  # for one that hashes, and knows none

# What is between words: spaces of several kinds, marks, joiners, and letters of no word.
_BETWEEN = (
    " ",
    "  ",
    "\n",
    "\t\r\n",
    "\u00a0",
    "\u2003",
    "\x1f",
    "-",
    "'",
    "_",
    ".",
    "\u200d",
    "1",
)

# Letters whose case, width or accents change by rules of their own, and other scripts.
_HARD = (
    "\u0130stanbul \u0131\u015f\u0131k I\u011eDIR",  # the Turkish i with and without a dot
    "Stra\u00dfe STRASSE \u1e9e",
    "\u039f\u0394\u039f\u03a3 \u03a3\u0391\u03a3 \u03a3. \u0391\u03a3'\u0391",  # final sigma
    "cre\u0300me bru\u0302le\u0301e \u00c9T\u00c9",  # combining marks and composed letters
    "\ufb01nd \u00bd \u00b2 \u2167 \u2460 \uff21\uff22",  # compatibility characters
    "\u6771\u4eac\u90fd \ud55c\uad6d\uc5b4 \u0939\u093f\u0928\u094d\u0926\u0940 \u0645\u0631\u062d",
    "\U0001f600\U0001f44d\U0001f3fd \U00010400\U00010428",  # outside of the first plane
    "12 3.14 \u0661\u0662 x_1 __x__ don't e-mail",
    "...!?",
    "   ",
    "a",
    "",
    "long " * 60,
)


# Letters that become others in lower case, or in the usual forms.
_OTHER_LETTERS = str.maketrans(
    {"i": "\u0130", "k": "\u212a", "s": "\u017f", "a": "\uff21", "e": "\u00c9", "\u03c2": "\u03a3"}
)
_ACCENTED = str.maketrans("aeiouc", "\u00e1\u00e9\u00ee\u00f6\u00fc\u00e7")


def probes(model: Any) -> tuple[str, ...]:
    """Return texts for an estimator that begins with text vectorizers."""
    found = [item for _, item in walk(model) if type(item).__name__ in OF_TEXT]
    terms = list(dict.fromkeys(term for item in found for term in _terms(item)))
    plain = [
        " ".join(terms[start : start + _IN_A_TEXT]) for start in range(0, len(terms), _IN_A_TEXT)
    ]
    several = range(max(len(plain), len(_BETWEEN)) if plain else 0)
    texts = [*plain, *(_changed(plain[number % len(plain)], number) for number in several)]
    accented = [text.translate(_ACCENTED) for text in plain]
    texts += [*accented, *(unicodedata.normalize("NFD", text) for text in accented)]
    texts += [text.translate(_OTHER_LETTERS) for text in plain]
    texts += [text for item in found for text in _interrupted(item, terms)]
    texts += [f"{hard} {term}" for hard, term in zip(_HARD, terms, strict=False)]
    return tuple(dict.fromkeys((*texts, *_HARD)))


def _terms(item: Any) -> list[str]:
    """Terms from all over a vocabulary, and stop words among them."""
    known = getattr(item, "vocabulary_", None) or getattr(item, "vocabulary", None) or _WORDS
    known = sorted(map(str, known))
    step = max(1, len(known) // _MOST_TERMS)
    chosen = known[::step][:_MOST_TERMS]
    for place, word in enumerate(sorted(item.get_stop_words() or ())[:_IN_A_TEXT]):
        chosen.insert(place * _IN_A_TEXT + 1, str(word))
    return [term for term in chosen if term.isprintable()]


def _interrupted(item: Any, terms: list[str]) -> list[str]:
    """Terms of several words with a stop word between these, which does not count."""
    stop = sorted(map(str, item.get_stop_words() or ()))[:1]
    long = [term for term in terms if " " in term.strip()][:_IN_A_TEXT]
    return [term.replace(" ", f" {word} ") for word in stop for term in long]


def _changed(text: str, number: int) -> str:
    """A text in another case, with other spaces, accents or repeated words: by its number."""
    words = text.split(" ")
    between = _BETWEEN[number % len(_BETWEEN)]
    change = number % 4
    if change == 0:
        return between.join(word.upper() for word in words)
    if change == 1:
        return between.join(word.capitalize() for word in words)
    if change == 2:
        return between.join([*words, *words[:2], words[0]])
    return f"{between}{between.join(reversed(words))}{between}\u00e9"
