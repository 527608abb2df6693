"""Encoders of categories, as tables of what each category becomes.

What a category becomes is asked of the estimator itself, so that all of its options are in
the tables: categories that are dropped, seldom, missing or unknown.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modelpack.adapters.sklearn_converters.imputers import ImputedEncoder, imputed_texts
from modelpack.adapters.sklearn_converters.writer import Column, Writer
from modelpack.samples import Array

_UNKNOWN_TEXT = "\N{REPLACEMENT CHARACTER} an unknown category"


@dataclass(frozen=True, slots=True)
class Table:
    """What one column becomes.

    Attributes:
        keys: categories, without repetition.
        values: ``[keys, columns]``.
        unknown: ``[columns]``, or None where an unknown category is an error.
    """

    keys: Sequence[Any]
    values: Array
    unknown: Array | None


def one_hot(w: Writer) -> None:
    """Columns of which the one of a row's category is 1, if it has one (OneHotEncoder)."""
    parts = []
    for column, table in _tables(w):
        width = table.values.shape[1]
        if not width:  # of a single category that is dropped
            continue
        places = _in_order(np.append(table.values, np.zeros((1, width)), axis=0))
        unknown = None if table.unknown is None else _in_order(table.unknown[None])[0]
        place = looked_up(w, column, Table(table.keys, places[:-1], unknown))
        same = w.op("Equal", place, w.constant(np.arange(width)[None], "int64"))
        parts.append(w.cast(same, "float32"))
    w.finish(w.joined(parts))


def _in_order(rows: Array) -> Array:
    """The place of the only 1 in each row; -1 where there is none."""
    return np.where(rows.any(axis=1), rows.argmax(axis=1), -1)


def numbered(w: Writer) -> None:
    """Numbers for categories: their place, or the mean of what they go with.

    OrdinalEncoder and TargetEncoder.
    """
    w.finish(w.joined([looked_up(w, column, table) for column, table in _tables(w)]))


def after_imputer(w: Writer) -> None:
    """An encoder that knows what an imputer puts in the place of missing texts."""
    (one_hot if type(w.item.encoder).__name__ == "OneHotEncoder" else numbered)(w)


def looked_up(w: Writer, column: Column, table: Table) -> str:
    """The row of a table for each row of a column; whole numbers or float64."""
    rows = table.values if table.unknown is None else _with_last(table.values, table.unknown)
    # Where there is no row for unknown categories, looking them up fails, as in scikit-learn.
    kind = "int64" if rows.dtype.kind == "i" else "float64"
    found = w.op("Gather", w.constant(rows, kind), w.flat(_places(w, column, table.keys)), axis=0)
    return w.upright(found) if rows.ndim == 1 else found


def _places(w: Writer, column: Column, keys: Sequence[Any]) -> str:
    """The place of each row's category, or one after the last of them."""
    after = len(keys)
    if column.dtype in {"float64", "bool"}:
        column = Column(w.cast(column.name, "float32"), "float32")
    name, values = _keys(column, keys)
    gaps = [place for place, value in enumerate(values) if _is_nan(value)]
    kept = [place for place in range(after) if place not in gaps]
    index = w.op(
        "LabelEncoder",
        column.name,
        domain="ai.onnx.ml",
        values_int64s=kept,
        default_int64=after,
        **{name: [values[place] for place in kept]},
    )
    if not gaps:
        return index
    # ONNX Runtime finds no key that is NaN.
    return w.op("Where", w.op("IsNaN", column.name), w.constant(gaps[0], "int64"), index)


def _with_last(values: Array, last: Any) -> Array:
    return np.concatenate([values, np.asarray(last, values.dtype)[None]])


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


def _keys(column: Column, keys: Sequence[Any]) -> tuple[str, list[Any]]:
    """The attribute of a ``LabelEncoder`` that has categories, and these.

    Raises:
        NotImplementedError: an artifact cannot tell two of them apart.
    """
    if column.dtype == "object":
        texts = [str(key) for key in keys]
        _refuse_alike(keys, texts)
        return "keys_strings", [text.encode() for text in texts]
    if column.dtype == "int64":
        return "keys_int64s", [int(key) for key in keys]
    if any(isinstance(key, str) for key in keys):
        raise NotImplementedError("categories that are text, of what was made of other columns")
    numbers = [float(np.float32(np.nan if pd.isna(key) else key)) for key in keys]
    _refuse_alike(keys, ["nan" if _is_nan(number) else number for number in numbers])
    return "keys_floats", numbers


def _refuse_alike(keys: Sequence[Any], given: Sequence[Any]) -> None:
    seen: dict[Any, Any] = {}
    for key, value in zip(keys, given, strict=True):
        if value in seen:
            raise NotImplementedError(
                f"its categories {seen[value]!r} and {key!r} are one as an input of an artifact"
            )
        seen[value] = key


# --- tables --------------------------------------------------------------------------------


def _tables(w: Writer) -> Iterator[tuple[Column, Table]]:
    item = w.item
    tables = _with_imputed(item) if isinstance(item, ImputedEncoder) else _tables_of(item)
    return zip(w.each_column(), tables, strict=True)


def _with_imputed(item: ImputedEncoder) -> list[Table]:
    """Tables in which the text of a missing value becomes what the imputed one becomes.

    Raises:
        NotImplementedError: the imputer answers other columns or no texts.
    """
    if item.imputer.add_indicator:
        raise NotImplementedError("the indicator of missing texts (add_indicator)")
    missing = str(item.imputer.missing_values)
    found = []
    for table, text in zip(_tables_of(item.encoder), imputed_texts(item.imputer), strict=True):
        keys = [key for key in table.keys if str(key) != missing]
        kept = [table.keys.index(key) for key in keys]
        known = text in table.keys
        row = table.values[table.keys.index(text)] if known else table.unknown
        if row is None:
            raise NotImplementedError(f"the imputed text {text!r} is a category it refuses")
        found.append(Table([*keys, missing], _with_last(table.values[kept], row), table.unknown))
    return found


def _tables_of(item: Any) -> list[Table]:
    """What a OneHotEncoder, OrdinalEncoder or TargetEncoder makes of its columns."""
    widths = _widths(item)
    keys = item.categories_
    rows = max(map(len, keys))
    known = _asked(item, [np.resize(own, rows) for own in keys])
    try:
        unknown = _asked(item, [_unknown(own) for own in keys])
    except ValueError:  # where it refuses these
        unknown = None
    ends = np.cumsum([0, *widths])
    return [
        Table(
            list(own),
            known[: len(own), first : first + width],
            None if unknown is None else unknown[0, first : first + width],
        )
        for own, first, width in zip(keys, ends, widths, strict=False)
    ]


def _widths(item: Any) -> list[int]:
    """Columns that each column becomes."""
    if hasattr(item, "_n_features_outs"):
        return [int(width) for width in item._n_features_outs]
    several = getattr(item, "target_type_", "") == "multiclass"
    return [len(item.classes_) if several else 1] * len(item.categories_)


def _asked(item: Any, columns: Sequence[Any]) -> Array:
    """What an encoder makes of columns of categories."""
    names = getattr(item, "feature_names_in_", range(len(columns)))
    # Of texts pandas would make its own type, which has no None.
    frame = pd.DataFrame(
        {
            name: pd.Series(values, dtype=object if values.dtype.kind in "OUST" else None)
            for name, values in zip(names, columns, strict=True)
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = item.transform(frame if hasattr(item, "feature_names_in_") else frame.to_numpy())
    dense = answer.toarray() if hasattr(answer, "toarray") else np.asarray(answer)
    return dense.astype(np.float64)


def _unknown(categories: Array) -> Array:
    """A column of one value that is no category."""
    if categories.dtype.kind in "OUST":
        present = [value for value in categories if not pd.isna(value)]
        if not present or isinstance(present[0], str):
            return np.array([_UNKNOWN_TEXT], object)
    finite = [float(value) for value in categories if not pd.isna(value)]
    other = max(finite, default=0.0) + 1.0
    return np.array([other], object if categories.dtype.kind == "O" else np.float64)
