"""Columns by their quantiles, and the inverse of the normal distribution."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from modelpack.adapters.sklearn_converters.steps import piece_of
from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.samples import Array

# How near to an end of a column a value counts as that end, and where answers are cut
# (``BOUNDS_THRESHOLD`` in sklearn/preprocessing/_data.py).
_MARGIN = 1e-7

# Approximations by ratios of polynomials, highest power first, right to 1.2e-9 (P. J. Acklam,
# An algorithm for computing the inverse normal cumulative distribution function, 2003).
_TAIL = 0.02425
_CENTRAL = (
    (
        *(-39.69683028665376, 220.9460984245205, -275.9285104469687),
        *(138.3577518672690, -30.66479806614716, 2.506628277459239),
    ),
    (
        *(-54.47609879822406, 161.5858368580409, -155.6989798598866),
        *(66.80131188771972, -13.28068155288572, 1.0),
    ),
)
_OUTER = (
    (
        *(-0.007784894002430293, -0.3223964580411365, -2.400758277161838),
        *(-2.549732539343734, 4.374664141464968, 2.938163982698783),
    ),
    (0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1.0),
)


def quantile_transformer(w: Writer) -> None:
    """The share of known values below each value, or what a normal distribution has there."""
    item, rows = w.item, w.rows()
    columns = range(item.n_features_in_)
    parts = [_shares(w, w.column(rows, i), item.quantiles_[:, i]) for i in columns]
    shares = w.joined([w.upright(part) for part in parts])
    w.finish(_normal(w, shares) if item.output_distribution == "normal" else shares)


def _shares(w: Writer, values: str, quantiles: Array) -> str:
    """Straight lines between quantiles; of equal ones, the middle of their shares."""
    item = w.item
    margin = _MARGIN if item.output_distribution == "normal" else 0.0
    places, first = np.unique(quantiles, return_index=True)
    last = len(quantiles) - 1 - np.unique(quantiles[::-1], return_index=True)[1]
    low, high = item.references_[first], item.references_[last]
    slopes = np.append((low[1:] - high[:-1]) / np.diff(places), 0.0)
    missing = w.op("IsNaN", values)
    filled = w.op("Where", missing, w.constant(places[0]), values)
    within = w.op("Min", w.op("Max", filled, w.constant(places[0])), w.constant(places[-1]))
    piece = piece_of(w, within, places[1:], "GreaterOrEqual")
    start = w.op("Gather", w.constant(places), piece)
    apart = w.op("Sub", within, start)
    line = w.op(
        "Add",
        w.op("Gather", w.constant(high), piece),
        w.op("Mul", w.op("Gather", w.constant(slopes), piece), apart),
    )
    middle = w.op("Gather", w.constant((low + high) / 2), piece)
    shares = w.op("Where", w.op("Equal", apart, w.constant(0.0)), middle, line)
    top = w.op("GreaterOrEqual", values, w.constant(places[-1] - margin))
    bottom = w.op("LessOrEqual", values, w.constant(places[0] + margin))
    shares = w.op("Where", top, w.constant(1.0), shares)
    shares = w.op("Where", bottom, w.constant(0.0), shares)
    return w.op("Where", missing, values, shares)


def _normal(w: Writer, shares: str) -> str:
    """``scipy.stats.norm.ppf``, cut at both ends."""
    ends = norm.ppf(_MARGIN - np.spacing(1)), norm.ppf(1 - (_MARGIN - np.spacing(1)))
    below = w.op("Min", shares, w.op("Sub", w.constant(1.0), shares))
    tail = w.op("Max", below, w.constant(_MARGIN / 2))
    root = w.op("Sqrt", w.op("Mul", w.op("Log", tail), w.constant(-2.0)))
    outer = _ratio(w, root, _OUTER)
    side = w.op("Sign", w.op("Sub", shares, w.constant(0.5)))
    outer = w.op("Neg", w.op("Mul", outer, side))
    apart = w.op("Sub", shares, w.constant(0.5))
    central = w.op("Mul", apart, _ratio(w, w.op("Mul", apart, apart), _CENTRAL))
    is_outer = w.op("Less", below, w.constant(_TAIL))
    result = w.op("Where", is_outer, outer, central)
    cut = w.op("Min", w.op("Max", result, w.constant(ends[0])), w.constant(ends[1]))
    return w.op("Where", w.op("IsNaN", shares), shares, cut)


def _ratio(w: Writer, x: str, factors: tuple[tuple[float, ...], ...]) -> str:
    parts = []
    for each in factors:
        result = w.constant(each[0])
        for factor in each[1:]:
            result = w.op("Add", w.op("Mul", result, x), w.constant(factor))
        parts.append(result)
    return w.op("Div", *parts)
