"""Columns made of columns: products, bins and thresholds."""

from __future__ import annotations

import numpy as np

from modelpack.adapters.boosters.trees import float32_not_above
from modelpack.adapters.sklearn_converters.steps import piece_of
from modelpack.adapters.sklearn_converters.writer import Writer


def polynomial_features(w: Writer) -> None:
    """Products of columns; a column of ones stands for the factors that a product lacks."""
    powers, rows = np.asarray(w.item.powers_), w.rows()
    width = powers.shape[1]
    most = max(int(powers.sum(axis=1).max()), 1)
    factors = np.full((len(powers), most), width)
    for place, own in enumerate(powers):
        factors[place, : own.sum()] = np.repeat(np.arange(width), own)
    known = w.joined([rows, w.repeated(rows, [1.0])])
    result = w.columns(known, factors[:, 0])
    for column in factors.T[1:]:
        result = w.op("Mul", result, w.columns(known, column))
    w.finish(result)


def bins(w: Writer) -> None:
    """The number of the bin that each value is in, or a column for each bin.

    For float32 values, each edge is the least float32 that is not below it: so bins are the same
    where they are computed in float32.
    """
    item, rows, parts = w.item, w.rows(), []
    for index, edges in enumerate(item.bin_edges_):
        inner = np.asarray(edges[1:-1], np.float64)
        if not w.is_wide:
            inner = -np.asarray(float32_not_above(-inner), np.float64)
        place = piece_of(w, w.column(rows, index), inner, "GreaterOrEqual")
        if item.encode == "ordinal":
            parts.append(w.upright(w.cast(place, "float64")))
            continue
        each = w.constant(np.arange(item.n_bins_[index])[None], "int64")
        parts.append(w.cast(w.op("Equal", w.upright(place), each), "float64"))
    w.finish(w.joined(parts))


def binarizer(w: Writer) -> None:
    """1 for values above the threshold, and 0 for others; float32 values as `bins`."""
    border = np.asarray(w.item.threshold, np.float64)
    border = border if w.is_wide else float32_not_above(border)
    above = w.op("Greater", w.rows(), w.constant(border))
    w.finish(w.cast(above, "float64"))
