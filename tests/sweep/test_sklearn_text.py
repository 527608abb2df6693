"""Text vectorizers in ONNX for every character, for random token patterns and for many texts."""
# ruff: noqa: RUF001 - letters that look alike are what is tested

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    strip_accents_ascii,
    strip_accents_unicode,
)

from modelpack.adapters.sklearn_converters.text.characters import SIGMA, around_sigma, table
from modelpack.adapters.sklearn_converters.text.patterns import tokens_of
from tests.routes.test_sklearn_text import SETTINGS, TEXTS, answer, counted_alike, session, wanted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EVERY = [chr(number) for number in range(0x110000) if not 0xD800 <= number < 0xE000]


def shuffled(seed: int) -> list[str]:
    """Every character but the one whose lower case depends on others, in texts of random order."""
    order = np.random.default_rng(seed).permutation(len(EVERY))
    text = "".join(EVERY[index] for index in order).replace(SIGMA, "")
    return [text[start : start + 1000] for start in range(0, len(text), 1000)]


@pytest.mark.parametrize(
    "functions",
    [
        (str.lower,),
        (str.casefold,),
        (str.upper,),
        (strip_accents_unicode,),
        (strip_accents_ascii,),
        (str.lower, strip_accents_unicode),
        (str.lower, strip_accents_ascii),
    ],
)
def test_functions_look_at_each_character_alone(functions: tuple[Callable[[str], str]]) -> None:
    known = table(functions)
    for text in shuffled(0):
        expected = text
        for function in functions:
            expected = function(expected)
        made = (
            known.entries.get(letter, letter if known.default is None else known.default)
            for letter in text
        )
        assert "".join(made) == expected


def test_a_sigma_is_final_where_python_says_so() -> None:
    special = {letter for letters in around_sigma() for letter in letters}
    others = np.random.default_rng(0).choice(len(EVERY), 20_000, replace=False)
    letters = sorted(special | {EVERY[index] for index in others})
    texts = [f"{c}Σ aΣ{c} a{c}Σ Σ{c}a aΣ{c}a a{c}{c}Σ {c}aΣ aΣ{c}{c}b ΣΣ{c} {c}" for c in letters]
    model = CountVectorizer(analyzer="char", ngram_range=(1, 2), vocabulary=["σ", "ς", "aς", "ςb"])
    np.testing.assert_array_equal(answer(session(model), texts), wanted(model, texts))


@pytest.mark.parametrize("pattern", [r"\w+", r"\b\w\w+\b", r"[^\W\d_]+", r"\S+", r"(?i)[a-zåßſ]+"])
def test_every_character_is_in_or_out_of_a_token(pattern: str) -> None:
    model = HashingVectorizer(
        n_features=61, norm=None, lowercase=False, token_pattern=pattern, alternate_sign=False
    )
    run = session(model)
    texts = [
        "".join(f"a{c}b " for c in EVERY[start : start + 40]) for start in range(0, 1112064, 40)
    ]
    for start in range(0, len(texts), 2000):
        part = texts[start : start + 2000]
        np.testing.assert_array_equal(answer(run, part), wanted(model, part))


ATOMS = (
    r"(?:a\b)",
    r"(?:-\b)",
    r"(?:\B\w)",
    "a",
    "b",
    "é",
    "-",
    "[ab]",
    "[^a]",
    r"\w",
    r"\d",
    r"[a\-]",
    r"[^\W\d]",
    ".",
    "(?:ab)",
    "(?i:A)",
)
TIMES = ("", "", "", "+", "*", "?", "{2}", "{1,2}", "{2,}", "+?", "*?", "??")


def pattern_of(rng: np.random.Generator, depth: int = 2) -> str:
    """A random token pattern."""
    pieces = []
    for _ in range(rng.integers(1, 4)):
        inner = depth and rng.random() < 0.25
        atom = f"(?:{pattern_of(rng, depth - 1)})" if inner else str(rng.choice(ATOMS))
        # Repeated repetitions would keep Python busy for ever.
        pieces.append(atom + str(rng.choice(TIMES if not inner else ("", "?", "{2}"))))
    text = "".join(pieces)
    if rng.random() < 0.25:
        text += "|" + pattern_of(rng, 0)
    chance = rng.random() if depth == 2 else 1
    if chance < 0.3:
        return rf"\b(?:{text})\b"
    return rf"\b(?:{text})" if chance < 0.45 else text


def test_random_patterns_find_what_python_finds() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("aabbé-1 \nA_"), rng.integers(0, 12))) for _ in range(400)]
    taken = refused = 0
    while taken < 60:
        pattern = pattern_of(rng)
        try:
            tokens_of(pattern)
        except NotImplementedError:
            refused += 1
            continue
        model = CountVectorizer(lowercase=False, token_pattern=pattern)
        try:
            model.fit(texts)
        except ValueError:  # no text has a token
            continue
        taken += 1
        found, expected = answer(session(model), texts), wanted(model, texts)
        np.testing.assert_array_equal(found, expected, err_msg=pattern)
    assert refused < 6 * taken


def test_refusals_for_the_longest_match_have_a_text_that_shows_why() -> None:
    """Each pattern that is refused for it finds other tokens than the longest ones."""
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("aabbé-1A"), rng.integers(1, 9))) for _ in range(3000)]
    seen = shown = 0
    while seen < 40:
        pattern = pattern_of(rng)
        try:
            tokens_of(pattern)
        except NotImplementedError as error:
            if "longest" not in str(error):
                continue
            seen += 1
            shown += any(_differs(pattern, text) for text in texts)
    assert shown > 30  # a few need rarer texts


def _differs(pattern: str, text: str) -> bool:
    first: Any = re.compile(pattern).match(text)
    if first is None:
        return False
    longest = max(n for n in range(len(text) + 1) if re.fullmatch(pattern, text[:n]))
    return bool(longest != first.end())


@pytest.mark.parametrize("name", SETTINGS)
@settings(
    max_examples=3000,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(texts=st.lists(TEXTS, max_size=6))
def test_any_text_is_counted_alike(name: str, texts: list[str]) -> None:
    counted_alike(name, texts)
