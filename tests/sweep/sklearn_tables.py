"""Random tables for scikit-learn: what an estimator is fitted on, and rows it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from modelpack.samples import Array

# Words of columns that are text; the last are met only after training.
WORDS = ("red", "", "żółty", "東京", "naïve", "a b", "0", "Ω")
_UNSEEN = ("unseen", "été ✓")

_KINDS = ("normal", "normal", "normal", "skewed", "whole", "flag", "halves", "constant", "again")
_SCALES = (1e-3, 0.1, 1.0, 1.0, 1.0, 30.0, 1e4)


@dataclass(frozen=True)
class Column:
    """How the values of a column of numbers are made."""

    kind: str
    scale: float
    offset: float

    def values(self, rng: np.random.Generator, count: int) -> Array:
        """As float64; those that float32 holds."""
        normal = rng.standard_normal(count)
        made = {
            "normal": lambda: self.offset + self.scale * normal,
            "skewed": lambda: self.scale * np.exp(normal),
            "whole": lambda: rng.integers(0, 7, count),
            "flag": lambda: rng.integers(0, 2, count),
            "halves": lambda: np.round(4 * normal) / 2,
            "constant": lambda: np.full(count, self.offset + self.scale),
        }
        return np.asarray(made[self.kind](), np.float32).astype(np.float64)


columns = st.builds(
    lambda kind, scale, offset: Column(kind, scale, offset * scale),
    st.sampled_from(_KINDS),
    st.sampled_from(_SCALES),
    st.sampled_from((0.0, 0.0, 0.0, 1.0, -20.0, 100.0)),
)


@dataclass(frozen=True)
class Form:
    """How a table is made.

    Attributes:
        numbers: columns of numbers.
        words: how many words each column of text knows; without any, a table is an array.
        rows: to train on.
        seed: of all values.
        dtype: of the numbers that an estimator is fitted on.
        missing: share of NaN among the numbers.
        positive: whether numbers have no sign.
        target: ``binary``, ``rare`` (binary, one in ten), ``several``, ``value``, ``positive``.
        labels: ``int``, ``gaps``, ``str`` or ``bool``.
    """

    numbers: tuple[Column, ...]
    words: tuple[int, ...] = ()
    rows: int = 60
    seed: int = 0
    dtype: str = "float64"
    missing: float = 0.0
    positive: bool = False
    target: str = "binary"
    labels: str = "int"


@dataclass(frozen=True)
class Table:
    """Rows with targets to fit on, and others by what they are like."""

    rows: Any
    targets: Any
    others: Mapping[str, Any]


def table(form: Form) -> Table:
    """Make a table; the same of the same form."""
    rng = np.random.default_rng(form.seed)
    numbers, words = _numbers(form, rng, form.rows), _words(form, rng, form.rows, WORDS)
    targets = _targets(form, rng, numbers, words)
    held = _numbers(form, rng, form.rows), _words(form, rng, form.rows, (*WORDS, *_UNSEEN))
    spread = np.nanstd(numbers, axis=0)
    moved = numbers + 0.01 * spread * rng.standard_normal(numbers.shape)
    far = held[0] * rng.choice([-10.0, -3.0, 0.0, 1.0, 10.0], numbers.shape)
    if form.positive:
        moved, far = np.abs(moved), np.abs(far)
    holes = np.where(rng.random(numbers.shape) < 0.2, np.nan, held[0])
    ends = np.where(rng.random(numbers.shape) < 0.1, np.inf, held[0])
    ends = np.where(rng.random(numbers.shape) < 0.1, -np.inf, ends)
    others = {
        "trained on": (numbers, words),
        "jittered": (moved, words),
        "held out": held,
        "one row": (held[0][:1], tuple(column[:1] for column in held[1])),
        "NaN": (holes, held[1]),
        "infinite": (ends, held[1]),
        "far": (far, held[1]),
    }
    train = _framed(form, numbers.astype(form.dtype), words)
    return Table(train, targets, {kind: _framed(form, *pair) for kind, pair in others.items()})


def in_dtype(rows: Any, dtype: str) -> Any:
    """The same rows, with numbers of another dtype."""
    if not isinstance(rows, pd.DataFrame):
        return rows.astype(dtype)
    return rows.astype({name: dtype for name in rows if rows[name].dtype.kind == "f"})


def mapped(rows: Any, change: Any) -> Any:
    """The same rows, with numbers changed: ``change`` takes and gives an array of them."""
    if not isinstance(rows, pd.DataFrame):
        return change(rows)
    result = rows.copy()
    for name in rows:
        if rows[name].dtype.kind == "f":
            result[name] = change(rows[name].to_numpy())
    return result


def _numbers(form: Form, rng: np.random.Generator, count: int) -> Array:
    made: list[Array] = []
    for column in form.numbers:
        again = column.kind == "again"
        values = made[-1] if again and made else _own(column, again, rng, count)
        made.append(np.abs(values) if form.positive else values)
    result = np.stack(made, axis=1)
    missing = rng.random(result.shape) < form.missing
    missing[0] = False  # no column is empty
    return np.where(missing, np.nan, result)


def _own(column: Column, again: bool, rng: np.random.Generator, count: int) -> Array:
    chosen = Column("normal", column.scale, column.offset) if again else column
    return chosen.values(rng, count)


def _words(
    form: Form, rng: np.random.Generator, count: int, known: tuple[str, ...]
) -> tuple[Array, ...]:
    return tuple(
        np.array((*known[:size], *known[len(WORDS) :]), dtype=object)[
            rng.integers(0, size + len(known) - len(WORDS), count)
        ]
        for size in form.words
    )


def _framed(form: Form, numbers: Array, words: tuple[Array, ...]) -> Any:
    if not form.words:
        return numbers
    named = {f"n {index}": numbers[:, index] for index in range(numbers.shape[1])}
    return pd.DataFrame({**named, **{f"w{i}": values for i, values in enumerate(words)}})


def _targets(
    form: Form, rng: np.random.Generator, numbers: Array, words: tuple[Array, ...]
) -> Array:
    filled = np.nan_to_num(numbers)
    spread = filled.std(axis=0)
    standard = (filled - filled.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    signal = standard @ rng.standard_normal(numbers.shape[1])
    signal += sum((values == WORDS[0]) * 1.0 for values in words)
    signal += 0.3 * rng.standard_normal(len(signal))
    if form.target == "value":
        return np.asarray(10 * signal + 3)
    if form.target == "positive":
        return np.asarray(np.exp(0.3 * signal) + 0.01)
    cuts = {"binary": (0.5,), "rare": (0.88,), "several": (0.3, 0.6)}[form.target]
    classes = np.searchsorted(np.quantile(signal, cuts), signal)
    return named_classes(form.labels)[classes]


def named_classes(labels: str) -> Array:
    """The classes of a kind of labels, in their order."""
    known: dict[str, Any] = {
        "int": [0, 1, 2],
        "gaps": [-3, 0, 7],
        "str": np.array(["", "non", "où ça"], dtype=object),
        "bool": [False, True],
    }
    return np.asarray(known[labels])
