"""Vectorizers of texts: counts of n-grams, their weights, and hashes of n-grams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import strip_accents_ascii, strip_accents_unicode

from modelpack.adapters.sklearn_converters.text import marks, reading
from modelpack.adapters.sklearn_converters.text.characters import (
    BY_CHARACTER,
    LOWER,
    is_encodable,
    table,
)
from modelpack.adapters.sklearn_converters.text.patterns import Tokens, tokens_of
from modelpack.adapters.sklearn_converters.text.rows import RUNTIME_DOMAIN, of_each_row
from modelpack.adapters.sklearn_converters.writer import Writer

_ACCENTS = {"ascii": strip_accents_ascii, "unicode": strip_accents_unicode}

# Numbers of tokens: of those that count in no n-gram, and of those that are taken out.
_UNKNOWN, _STOP = 0, -1

# The remainder of the one hash that has no absolute value in int32.
_LEAST_HASH = -(2**31)

_Gram = tuple[str, ...]


# --- settings ------------------------------------------------------------------------


def problem(item: Any) -> str:
    """Say why a vectorizer cannot be written; empty if it can."""
    try:
        if item.input != "content":
            return f"it reads its texts from elsewhere (input={item.input!r})"
        if item.analyzer not in {"word", "char", "char_wb"}:
            return "its analyzer is code of its own"
        _functions(item)
        if item.analyzer == "word":
            _refuse_marks(item, _tokens(item))
        if hasattr(item, "vocabulary"):
            _vocabulary(item)
    except NotImplementedError as error:
        return str(error)
    return ""


def _functions(item: Any) -> tuple[Callable[[str], str], ...]:
    """What is done to a text before it is taken apart, one after the other."""
    if item.preprocessor is not None:
        return (_known(item.preprocessor, "preprocessor"),)
    lower = (LOWER,) if item.lowercase else ()
    accents = item.strip_accents
    if not accents:
        return lower
    return (*lower, _known(_ACCENTS.get(accents, accents), "strip_accents"))


def _known(function: Any, name: str) -> Callable[[str], str]:
    found = next((known for known in BY_CHARACTER if known == function), None)
    if found is None:
        raise NotImplementedError(f"its {name} is code of its own")
    return found


def _tokens(item: Any) -> Tokens:
    if item.tokenizer == str.split:
        return tokens_of(r"\S+")
    if item.tokenizer is not None:
        raise NotImplementedError(
            "its tokenizer is code of its own: a token_pattern may replace it"
        )
    try:
        return tokens_of(item.token_pattern)
    except NotImplementedError as error:
        reason = f"the token pattern {item.token_pattern!r} cannot be written: {error}"
        raise NotImplementedError(reason) from None


def _refuse_marks(item: Any, how: Tokens) -> None:
    """Refuse marks in tokens where these are more than looked up."""
    if how.marked is None:
        return
    if not hasattr(item, "vocabulary"):
        raise NotImplementedError(
            r"\b around more than word characters (\w) is not supported for hashes"
        )
    marks.refuse_private((), [*_vocabulary(item), *(item.get_stop_words() or ())])


def _vocabulary(item: Any) -> dict[str, int]:
    if not hasattr(item, "vocabulary_"):  # given, and not learned
        item._validate_vocabulary()
    found: dict[str, int] = getattr(item, "vocabulary_", {})
    if not all(isinstance(term, str) for term in found):
        raise NotImplementedError("its vocabulary is not of strings")
    return found


# --- converters ----------------------------------------------------------------------


def counts(writer: Writer) -> None:
    """``CountVectorizer.transform`` (sklearn/feature_extraction/text.py)."""
    item = writer.item
    width = len(_vocabulary(item))
    writer.finish(of_each_row(writer, writer.texts(), width, _counted))


def weighted_counts(writer: Writer) -> None:
    """``TfidfVectorizer.transform``."""

    def answer(inner: Writer, text: str) -> str:
        found = _counted(inner, text)
        # A text has few of the terms: only these are weighted.
        places = inner.flat(inner.op("NonZero", found))
        values = inner.cast(inner.op("Gather", found, places, axis=0), "float64")
        weighted = inner.cast(_weighted(inner, values, writer.item._tfidf, places), "float32")
        return inner.op("ScatterElements", found, places, weighted, axis=0)

    width = len(_vocabulary(writer.item))
    writer.finish(of_each_row(writer, writer.texts(), width, answer))


def weights(writer: Writer) -> None:
    """``TfidfTransformer.transform``: of counts, whoever counted them."""
    writer.finish(_weighted(writer, writer.rows(), writer.item))


def hashes(writer: Writer) -> None:
    """``HashingVectorizer.transform``, dense."""
    item = writer.item
    width = int(item.n_features)
    writer.finish(of_each_row(writer, writer.texts(), width, _hashed))


# --- counting ------------------------------------------------------------------------


def _counted(writer: Writer, text: str) -> str:
    """How often each term of the vocabulary occurs, float32 ``[terms]``."""
    item = writer.item
    vocabulary = _vocabulary(item)
    stop = frozenset(item.get_stop_words() or ()) if item.analyzer == "word" else frozenset()
    text = _preprocessed(writer, text, reading.needs_sigma([*vocabulary, *stop]))
    if item.analyzer == "word":
        parts = reading.tokens(writer, text, _tokens(item))
        grams = _grams_of_words(vocabulary, item.ngram_range)
    elif item.analyzer == "char":
        parts = reading.single_spaced(writer, text)
        grams = _grams_of_characters(vocabulary, item.ngram_range)
    else:
        words = reading.padded_words(writer, text)
        parts = reading.characters(writer, reading.joined(writer, words))
        grams = _grams_in_words(vocabulary, item.ngram_range)
    numbers = {part: place for place, part in enumerate(sorted({p for g in grams for p in g}), 1)}
    ids = _ids(writer, parts, {**numbers, **dict.fromkeys(sorted(stop), _STOP)})
    found = _occurrences(writer, ids, grams, numbers, len(vocabulary))
    if not item.binary:
        return found
    return writer.cast(writer.op("Greater", found, writer.constant(0, "float32")), "float32")


def _preprocessed(writer: Writer, text: str, sigma: bool) -> str:
    functions = _functions(writer.item)
    if not functions:
        return text
    kept = LOWER in functions and strip_accents_ascii not in functions
    return reading.replaced(writer, text, table(functions), sigma and kept)


def _grams_of_words(vocabulary: Mapping[str, int], lengths: tuple[int, int]) -> dict[_Gram, int]:
    """The column of each sequence of tokens: a term may be several, if tokens hold blanks."""
    grams = {}
    for term, column in vocabulary.items():
        blanks = [place for place, letter in enumerate(term) if letter == " "]
        for length in range(lengths[0], min(lengths[1], len(blanks) + 1) + 1):
            for cuts in combinations(blanks, length - 1):
                edges = [-1, *cuts, len(term)]
                words = tuple(term[begin + 1 : end] for begin, end in pairwise(edges))
                if all(words):
                    grams[words] = column
    return grams


def _grams_of_characters(
    vocabulary: Mapping[str, int], lengths: tuple[int, int]
) -> dict[_Gram, int]:
    return {
        tuple(term): column
        for term, column in vocabulary.items()
        if lengths[0] <= len(term) <= lengths[1]
    }


def _grams_in_words(vocabulary: Mapping[str, int], lengths: tuple[int, int]) -> dict[_Gram, int]:
    """A word that is shorter than all n-grams is one of its own, with its blanks.

    What has blanks inside, or two side by side, is in no word.
    """
    least, most = lengths
    return {
        tuple(term): column
        for term, column in vocabulary.items()
        if " " not in term[1:-1]
        and term != "  "
        and (least <= len(term) <= most or _is_short_word(term, least))
    }


def _is_short_word(term: str, least: int) -> bool:
    return 3 <= len(term) < least and term[0] == term[-1] == " "


def _ids(writer: Writer, parts: str, numbers: Mapping[str, int]) -> str:
    """The numbers of the parts of a text, without stop words."""
    how = _tokens(writer.item) if writer.item.analyzer == "word" else None
    if how is not None and how.marked is not None:
        numbers = {
            spelling: number
            for part, number in numbers.items()
            for spelling in marks.respelled(part, how.marked)
        }
    given = {part: number for part, number in numbers.items() if is_encodable(part)}
    ids = reading.numbered(writer, parts, given or {"": _UNKNOWN}, _UNKNOWN)
    if _STOP in given.values():
        kept = writer.op("Not", writer.op("Equal", ids, writer.constant(_STOP, "int64")))
        ids = writer.op("Compress", ids, kept)
    # One more, which counts nowhere: of no tokens at all, nothing could be counted.
    return writer.op("Concat", ids, writer.integers(_UNKNOWN), axis=0)


def _occurrences(
    writer: Writer,
    ids: str,
    grams: Mapping[_Gram, int],
    numbers: Mapping[str, int],
    width: int,
) -> str:
    """How often each n-gram occurs among the parts of a text, by their numbers."""
    pool = [([numbers[part] for part in gram], column) for gram, column in grams.items()]
    never = sorted(set(range(width)) - set(grams.values()))  # terms that no text has
    pool += [([len(numbers) + 1 + column], column) for column in never]
    return _counts_of(writer, ids, sorted(pool, key=lambda pair: (len(pair[0]), pair[1])))


def _counts_of(writer: Writer, ids: str, pool: Sequence[tuple[list[int], int]]) -> str:
    """How often each sequence of numbers occurs; the pool has them with columns, by length."""
    most = len(pool[-1][0])
    sizes = [sum(len(gram) for gram, _ in pool if len(gram) < n) for n in range(1, most + 1)]
    return writer.op(
        "TfIdfVectorizer",
        ids,
        mode="TF",
        min_gram_length=1,
        max_gram_length=most,
        max_skip_count=0,
        ngram_counts=sizes,
        ngram_indexes=[column for _, column in pool],
        pool_int64s=[number for gram, _ in pool for number in gram],
    )


# --- weights -------------------------------------------------------------------------


def _weighted(writer: Writer, found: str, item: Any, places: str = "") -> str:
    """Counts as float64, weighted and of norm 1, as ``TfidfTransformer.transform``.

    Args:
        writer: of the graph.
        found: the counts, of all terms or of some.
        item: a fitted ``TfidfTransformer``.
        places: which terms, int64; empty for all.
    """
    if item.sublinear_tf:
        zero, one = writer.constant(0.0), writer.constant(1.0)
        absent = writer.op("Equal", found, zero)
        logarithm = writer.op("Log", writer.op("Where", absent, one, found))
        found = writer.op("Where", absent, zero, writer.op("Add", logarithm, one))
    if hasattr(item, "idf_"):
        factors = writer.constant(item.idf_)
        factors = writer.op("Gather", factors, places, axis=0) if places else factors
        found = writer.op("Mul", found, factors)
    return _of_norm_one(writer, found, item.norm)


def _of_norm_one(writer: Writer, values: str, norm: str | None) -> str:
    if norm is None:
        return values
    one = writer.constant(1.0)
    if norm == "l1":
        size = writer.summed(writer.op("Abs", values))
    elif norm == "l2":
        size = writer.op("Sqrt", writer.summed(writer.op("Mul", values, values)))
    else:
        raise NotImplementedError(f"the norm {norm!r} is unknown")
    nothing = writer.op("Equal", size, writer.constant(0.0))
    return writer.op("Div", values, writer.op("Where", nothing, one, size))


# --- hashing -------------------------------------------------------------------------


def _hashed(writer: Writer, text: str) -> str:
    """Signed sums of hashes, float32 ``[n_features]``.

    As ``_hashing_transform`` (sklearn/feature_extraction/_hashing_fast.pyx): MurmurHash3 with
    seed 0 of UTF-8, its absolute value modulo the number of features, and its sign.
    """
    item = writer.item
    width = int(item.n_features)
    grams = _all_grams(writer, text)
    hashed = writer.op("MurmurHash3", grams, domain=RUNTIME_DOMAIN, positive=0, seed=0)
    hashed = writer.cast(hashed, "int64")
    place = writer.op("Mod", writer.op("Abs", hashed), writer.constant(width, "int64"))
    least = writer.op("Equal", hashed, writer.constant(_LEAST_HASH, "int64"))
    odd_one = writer.constant(2**31 - 1 - (width - 1), "int64")
    place = writer.op("Where", least, odd_one, place)
    one = writer.constant(1.0)
    size = writer.op("Shape", hashed)
    ones = writer.op("Expand", one, size)
    zeros = writer.constant(np.zeros(1))
    zeros = writer.op("Expand", zeros, writer.integers(width))
    negative = writer.op("Less", hashed, writer.constant(0, "int64"))
    signed = writer.op("Where", negative, writer.constant(-1.0), ones)
    if item.binary:  # where anything was added, even if it came to nothing
        found = writer.op("ScatterElements", zeros, place, ones, axis=0, reduction="max")
    else:
        added = signed if item.alternate_sign else ones
        found = writer.op("ScatterElements", zeros, place, added, axis=0, reduction="add")
    return writer.cast(_of_norm_one(writer, found, item.norm), "float32")


def _all_grams(writer: Writer, text: str) -> str:
    """All n-grams of a text as strings, as a vector."""
    item = writer.item
    least, most = item.ngram_range
    text = _preprocessed(writer, text, sigma=True)
    if item.analyzer == "word":
        parts = reading.tokens(writer, text, _tokens(item))
        if stop := sorted(item.get_stop_words() or ()):
            known = list(filter(is_encodable, stop))
            kept = writer.op("Not", reading.is_one_of(writer, parts, known))
            parts = writer.op("Compress", parts, kept)
        return _side_by_side(writer, parts, range(least, most + 1), " ")
    if item.analyzer == "char":
        parts = reading.single_spaced(writer, text)
        return _side_by_side(writer, parts, range(least, most + 1), "")
    words = reading.padded_words(writer, text)
    grams = _side_by_side(
        writer,
        reading.characters(writer, reading.joined(writer, words)),
        range(least, most + 1),
        "",
        whole=" ?[^ ]+ ?| ",
    )
    short = writer.op("RegexFullMatch", words, pattern=f"(?s:.{{0,{least - 1}}})")
    return writer.op("Concat", grams, writer.op("Compress", words, short), axis=0)


def _side_by_side(
    writer: Writer, parts: str, lengths: Sequence[int], between: str, whole: str = ""
) -> str:
    """So many neighbours at a time as strings; those that match an expression, if there is one."""
    reading.refuse_early(writer)
    size = writer.op("Shape", parts)
    found, grown = [], parts
    glue = writer.constant(between, "object")
    zero = writer.integers(0)
    for length in range(1, max(lengths) + 1):
        if length > 1:
            start = writer.integers(length - 1)
            left = writer.op("Max", writer.op("Sub", size, start), zero)
            begun = writer.op("Slice", grown, zero, left)
            following = writer.op("Slice", parts, start, writer.op("Add", left, start))
            begun = writer.op("StringConcat", begun, glue) if between else begun
            grown = writer.op("StringConcat", begun, following)
        if length in lengths:
            found.append(grown)
    grams = writer.op("Concat", *found, axis=0) if len(found) > 1 else found[0]
    if not whole:
        return grams
    return writer.op("Compress", grams, writer.op("RegexFullMatch", grams, pattern=whole))
