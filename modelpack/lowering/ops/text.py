"""Ops on strings. TFLite's built-in ops compare and select strings, and do nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.registry import MICROSOFT, lowers
from modelpack.lowering.value import Value

# Bytes that UTF-8 never has: they mark where tokens begin and end.
_BEGIN, _END = b"\xfe", b"\xff"

_SHOWN = 60  # characters of a regular expression, which may list all letters there are

# Languages whose letters change their case by rules of their own.
_OWN_CASE_RULES = frozenset({"az", "el", "lt", "tr"})

_CHANGES = {"LOWER": tf.strings.lower, "UPPER": tf.strings.upper}


@lowers("StringConcat", 20, builtin=False)
def string_concat(x: Value, y: Value) -> Any:
    return tf.raw_ops.Add(x=x.tensor, y=y.tensor)  # AddV2, which tf.add is, knows no strings


@lowers("RegexFullMatch", 20, builtin=False)
def regex_full_match(x: Value, *, pattern: str | None = None) -> Any:
    return tf.strings.regex_full_match(x.tensor, pattern or "")


@lowers("StringSplit", 20, builtin=False)
def string_split(
    x: Value, *, delimiter: str | None = None, maxsplit: int | None = None
) -> tuple[Any, Any]:
    """An empty text has no pieces, as in ONNX Runtime."""
    flat = tf.reshape(x.tensor, [-1])
    if not delimiter:
        flat = tf.strings.strip(flat)
    limit = -1 if maxsplit is None else maxsplit
    pieces = tf.strings.split(flat, delimiter or None, maxsplit=limit)
    if delimiter:
        present = tf.gather(tf.not_equal(flat, ""), pieces.value_rowids())
    else:  # TensorFlow adds an empty piece where there is nothing left to split
        present = tf.not_equal(pieces.values, "")
    pieces = tf.ragged.boolean_mask(pieces, pieces.with_values(present))
    counts = tf.cast(pieces.row_lengths(), tf.int64)
    return _padded(pieces, x, ""), sizes.reshape(counts, x.dims())


def _padded(rows: Any, x: Value, padding: str) -> Any:
    """Ragged rows, one for each element of x, with one more axis than x."""
    table = rows.to_tensor(padding)
    return sizes.reshape(table, [*x.dims(), tf.shape(table)[1]])


@lowers("StringNormalizer", 10)
def string_normalizer(
    ctx: Context,
    x: Value,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str | None = None,
    stopwords: Sequence[str] | None = None,
) -> Any:
    ignores_case = bool(stopwords) and not is_case_sensitive
    changes_case = case_change_action != "NONE"
    if changes_case and case_change_action not in _CHANGES:
        raise ctx.refuse(f"case_change_action '{case_change_action}' is unknown")
    if ignores_case or changes_case:
        _refuse_case(ctx, locale)
    texts = x.tensor if x.rank == 1 else tf.reshape(x.tensor, [-1])
    if stopwords:
        texts = _without(texts, stopwords, _lower if ignores_case else tf.identity)
    if changes_case:
        texts = _CHANGES[case_change_action](texts, "utf-8")
    return texts if x.rank == 1 else tf.expand_dims(texts, 0)


def _refuse_case(ctx: Context, locale: str | None) -> None:
    if ctx.builtin_only:
        raise ctx.refuse("no built-in op knows of upper and lower case")
    language = (locale or "en").replace("-", "_").split("_")[0].lower()
    if language in _OWN_CASE_RULES:
        raise ctx.refuse(f"the case rules of locale '{locale}' are not supported")


def _lower(texts: Any) -> Any:
    return tf.strings.lower(texts, "utf-8")


def _without(texts: Any, words: Sequence[str], compared_as: Any) -> Any:
    """The texts that are none of the words; one empty text if that leaves none."""
    stop = compared_as(tf.constant(list(words)))
    own = tf.expand_dims(compared_as(texts), 1)
    keep = tf.logical_not(tf.reduce_any(tf.equal(own, tf.expand_dims(stop, 0)), 1))
    kept = tf.gather(texts, tf.reshape(tf.where(keep), [-1]))
    return tf.cond(tf.reduce_any(keep), lambda: kept, lambda: tf.constant([""]))


@lowers("Tokenizer", 1, domain=MICROSOFT, builtin=False)
def tokenizer(
    ctx: Context,
    x: Value,
    *,
    mark: int,
    mincharnum: int,
    pad_value: str,
    separators: Sequence[str] | None = None,
    tokenexp: str | None = None,
) -> Any:
    """Tokens of each text along a new last axis.

    ``tokenexp`` matches tokens, ``separators`` what is between them; one empty separator
    makes every character a token.
    """
    flat = tf.reshape(x.tensor, [-1])
    for pattern in [tokenexp] if tokenexp else separators or ():
        if _ambiguous(pattern):
            shown = pattern if len(pattern) < _SHOWN else f"{pattern[:_SHOWN]}..."
            raise ctx.refuse(f"the longest match of '{shown}' may not be the first one")
    if tokenexp:
        rows = _matches(flat, tokenexp)
    elif separators == [""]:
        rows = tf.strings.unicode_split(flat, "UTF-8")
    elif separators:
        for separator in separators:
            flat = tf.strings.regex_replace(flat, separator, _BEGIN)
        rows = tf.strings.split(flat, _BEGIN)
    else:
        raise ctx.refuse("it has neither separators nor tokenexp")
    lengths = tf.ragged.map_flat_values(tf.strings.length, rows, unit="UTF8_CHAR")
    rows = tf.ragged.boolean_mask(rows, lengths >= max(1, mincharnum))
    if mark:
        column = tf.fill(tf.stack([tf.size(flat), 1]), "")
        rows = tf.concat([column + "\x02", rows, column + "\x03"], 1)
    return _padded(rows, x, pad_value)


def _ambiguous(pattern: str) -> bool:
    """Whether a regular expression may match more than what it matches first.

    ONNX Runtime takes the longest match, TensorFlow the first. They are the same without
    alternatives and with at most one quantifier, if that is greedy.
    """
    bare = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", pattern).replace("(?", "(")
    return "|" in bare or len(re.findall(r"[*+?{]", bare)) > 1


def _matches(texts: Any, pattern: str) -> Any:
    """What a regular expression matches in each text, as ragged rows; '' among it."""
    marked = tf.strings.regex_replace(texts, f"(?s:{pattern})", _BEGIN + rb"\0" + _END)
    return tf.ragged.map_flat_values(_matched, tf.strings.split(marked, _BEGIN))


def _matched(pieces: Any) -> Any:
    """What is before the end mark; '' of a piece that has none."""
    halves = tf.strings.split(pieces, _END, maxsplit=1).to_tensor("", shape=[None, 2])
    ended = tf.strings.length(halves[:, 0]) < tf.strings.length(pieces)
    return tf.where(ended, halves[:, 0], "")
