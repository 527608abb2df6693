"""TfIdfVectorizer: how often each n-gram of a pool occurs in rows of tokens.

An n-gram is looked up token by token, as in a trie: the number of what was found so far and
the number of the next token make the key of the next look-up. Number 0 is for what the pool
does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.registry import lowers
from modelpack.lowering.searching import searched
from modelpack.lowering.value import Array, Value

_MODES = ("TF", "IDF", "TFIDF")


@lowers("TfIdfVectorizer", 9)
def tf_idf_vectorizer(
    ctx: Context,
    x: Value,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Any:
    if mode not in _MODES:
        raise ctx.refuse(f"mode '{mode}' is none of {', '.join(_MODES)}")
    pool = _Pool.of(pool_strings or pool_int64s or (), ngram_counts, ngram_indexes)
    look_up = _compared if ctx.builtin_only else searched
    rows = x.tensor if x.rank == 2 else tf.expand_dims(x.tensor, 0)
    rows = rows if pool_strings else tf.cast(rows, tf.int64)
    numbers = look_up(pool.tokens, rows)
    columns = []
    for length, grams in pool.grams.items():
        if not min_gram_length <= length <= max_gram_length:
            continue
        for skip in range(max_skip_count + 1 if length > 1 else 1):
            columns.append(_columns(pool, length, grams, numbers, skip + 1, look_up))
    counts = _counted(tf.concat(columns, 1), pool.width, ctx.builtin_only)
    result = _weighted(counts, mode, _by_column(weights, ngram_indexes, pool.width))
    return result if x.rank == 2 else result[0]


@dataclass(frozen=True)
class _Pool:
    """The n-grams to look for.

    Attributes:
        tokens: those that occur, each once.
        grams: by length, rows of the numbers of tokens, and the column that each counts in.
        width: number of columns.
    """

    tokens: Array
    grams: dict[int, tuple[Array, Array]]
    width: int

    @classmethod
    def of(cls, flat: Sequence[Any], starts: Sequence[int], columns: Sequence[int]) -> _Pool:
        """Take the attributes of the op apart: n-grams lie one after the other by length."""
        tokens = np.array(sorted(set(flat)), object if isinstance(flat[0], str) else np.int64)
        number = {token: i + 1 for i, token in enumerate(tokens)}
        grams, done = {}, 0
        for i, start in enumerate(starts):
            length, end = i + 1, starts[i + 1] if i + 1 < len(starts) else len(flat)
            rows = np.array([number[token] for token in flat[start:end]], np.int64)
            rows = rows.reshape(-1, length)
            if len(rows):
                grams[length] = (rows, np.array(columns[done : done + len(rows)], np.int64))
            done += len(rows)
        return cls(tokens, grams, max(columns) + 1)


_LookUp = Callable[[Array, Any], Any]


def _columns(
    pool: _Pool,
    length: int,
    grams: tuple[Array, Array],
    numbers: Any,
    stride: int,
    look_up: _LookUp,
) -> Any:
    """For each place where an n-gram may begin: 1 + the column that it counts in, or 0."""
    rows, columns = grams
    base = len(pool.tokens) + 1
    span = (length - 1) * stride
    places = tf.maximum(tf.shape(numbers)[1] - span, 0)
    found, prefix = numbers[:, :places], rows[:, 0]
    for i in range(1, length):
        following = numbers[:, i * stride : i * stride + places]
        keys, prefix = np.unique(prefix * base + rows[:, i], return_inverse=True)
        prefix = prefix.reshape(-1) + 1
        hit = look_up(keys, found * base + following)
        found = tf.where(tf.equal(following, 0), tf.zeros_like(hit), hit)
    table = np.zeros(int(max(prefix.max(), base if length == 1 else 0)) + 1, np.int64)
    table[prefix] = columns + 1
    return tf.gather(tf.constant(table), found)


def _compared(keys: Array, values: Any) -> Any:
    """As `searched`, by comparing with every key: built-in ops neither sort nor hash."""
    table = tf.constant(keys, tf.string if keys.dtype.kind == "O" else tf.int64)
    same = tf.equal(tf.expand_dims(values, -1), tf.reshape(table, [1, 1, -1]))
    places = tf.cast(same, tf.float32) * np.arange(1, len(keys) + 1, dtype=np.float32)
    return tf.cast(tf.reduce_sum(places, -1), tf.int64)


def _counted(columns: Any, width: int, builtin_only: bool) -> Any:
    """How often each number from 1 to ``width`` occurs in each row."""
    if builtin_only:
        return tf.reduce_sum(tf.one_hot(tf.cast(columns, tf.int32) - 1, width), 1)
    counts = tf.math.bincount(
        columns, minlength=width + 1, maxlength=width + 1, dtype=tf.float32, axis=-1
    )
    return tf.ensure_shape(counts, [None, width + 1])[:, 1:]


def _by_column(weights: Sequence[float] | None, columns: Sequence[int], width: int) -> Array:
    result = np.ones(width, np.float32)
    if weights:
        result[np.asarray(columns)] = weights
    return result


def _weighted(counts: Any, mode: str, weights: Array) -> Any:
    if mode == "TF":
        return counts
    if mode == "IDF":
        counts = tf.cast(tf.greater(counts, 0.0), tf.float32)
    return counts * weights
