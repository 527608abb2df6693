"""Imputers of single values, the columns that say where they were, and encoders after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from modelpack.adapters.sklearn_converters.writer import Column, Writer
from modelpack.samples import Array


class ImputedEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """An imputer of texts and the encoder after it, as one step.

    A text that is missing becomes what the imputed text becomes: nothing has to choose
    between texts, which TensorFlow Lite cannot.

    Args:
        imputer: a fitted SimpleImputer.
        encoder: a fitted encoder of what it answers.
    """

    def __init__(self, imputer: Any, encoder: Any) -> None:
        self.imputer, self.encoder, self.stands_for = imputer, encoder, encoder
        self.n_features_in_ = imputer.n_features_in_

    def transform(self, rows: Any) -> Any:
        """Impute, then encode."""
        return self.encoder.transform(self.imputer.transform(rows))


def takes_text(item: Any) -> bool:
    """Whether a SimpleImputer was fitted on texts."""
    return getattr(item, "_fit_dtype", np.dtype(float)).kind in "OUST"


def joined_steps(steps: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The steps of a pipeline, with imputers of texts joined to the encoders after them."""
    found: list[tuple[str, Any]] = []
    for name, step in steps:
        before = found[-1][1] if found else None
        encodes = type(step).__name__ in {"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"}
        if encodes and type(before).__name__ == "SimpleImputer" and takes_text(before):
            found[-1] = (name, ImputedEncoder(before, step))
        else:
            found.append((name, step))
    return found


def simple_imputer(w: Writer) -> None:
    """Missing values replaced by a statistic of their column, and where they were.

    Raises:
        NotImplementedError: texts are replaced by something else, or with an indicator.
    """
    item = w.item
    if takes_text(item):
        return _imputed_texts(w)
    wide = w.each_column()[0].dtype == "float64"
    dtype = "float64" if wide else "float32"
    rows = w.rows(dtype)
    missing = is_missing(w, rows, item.missing_values, dtype)
    statistics = statistics_of(item)
    chosen = w.op("Where", missing, w.constant(statistics[None], dtype), rows)
    if not item.keep_empty_features and np.isnan(statistics).any():
        chosen = w.columns(chosen, np.flatnonzero(~np.isnan(statistics)))
    return w.finish(with_indicator(w, chosen, rows, dtype))


def statistics_of(item: Any) -> Array:
    """What a SimpleImputer of numbers puts in the place of missing ones, in float64.

    It is rounded to the dtype of the rows that it was fitted on, whatever those that it is given.
    """
    return np.asarray(item.statistics_.astype(item._fill_dtype), np.float64)


def is_missing(w: Writer, rows: str, value: Any, dtype: str) -> str:
    """Whether elements are what stands for a missing value."""
    if pd.isna(value):
        return w.op("IsNaN", rows)
    return w.op("Equal", rows, w.constant(value, dtype))


def with_indicator(w: Writer, imputed: str, rows: str, dtype: str) -> str:
    """What an imputer answers: imputed columns, and those that say what was missing."""
    indicator = w.item.indicator_ if w.item.add_indicator else None
    if indicator is None or not len(indicator.features_):
        return imputed
    missing = is_missing(w, w.columns(rows, indicator.features_), indicator.missing_values, dtype)
    return w.joined([imputed, w.cast(missing, dtype)])


def _imputed_texts(w: Writer) -> None:
    item = w.item
    if item.add_indicator:
        raise NotImplementedError("the indicator of missing texts (add_indicator)")
    parts = []
    for column, text in zip(w.each_column(), imputed_texts(item), strict=True):
        missing = w.op("Equal", column.name, w.constant([[str(item.missing_values)]], "object"))
        parts.append(w.op("Where", missing, w.constant([[text]], "object"), column.name))
    return w.finish(w.joined(parts))


def imputed_texts(item: Any) -> list[str]:
    """What an imputer puts in the place of a missing text, for each column.

    Raises:
        NotImplementedError: it is no text, or a column is left out.
    """
    texts = list(item.statistics_)
    for text in texts:
        if not isinstance(text, str):
            raise NotImplementedError(f"missing texts replaced by {text!r}, which is no text")
    return texts


def missing_indicator(w: Writer) -> None:
    """Which values are missing, of the columns that it looks at (MissingIndicator)."""
    item, columns = w.item, w.each_column()
    parts = [_indicated(w, columns[index]) for index in item.features_]
    w.finish(w.joined(parts))


def _indicated(w: Writer, column: Column) -> str:
    value = w.item.missing_values
    if column.dtype == "object":
        return w.op("Equal", column.name, w.constant([[str(value)]], "object"))
    return is_missing(w, column.name, value, column.dtype)
