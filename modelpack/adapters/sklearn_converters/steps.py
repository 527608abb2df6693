"""Functions of one column that are put together from pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import PPoly

from modelpack.adapters.sklearn_converters.functions import exp_minus_one, log_of_one_plus
from modelpack.adapters.sklearn_converters.writer import Writer
from modelpack.samples import Array


def isotonic_regression(w: Writer) -> None:
    """Linear between thresholds.

    Raises:
        NotImplementedError: values beyond the thresholds raise an error.
    """
    item = w.item
    values = w.flat(w.rows())
    if item.out_of_bounds == "raise":
        raise NotImplementedError("out_of_bounds='raise'")
    clipped = w.op("Min", w.op("Max", values, w.constant(item.X_min_)), w.constant(item.X_max_))
    result = interpolated(w, clipped, item.X_thresholds_, item.y_thresholds_)
    if item.out_of_bounds == "nan":
        inside = w.op("Equal", values, clipped)
        result = w.op("Where", inside, result, w.constant(np.nan))
    w.finish(w.upright(result))


def interpolated(w: Writer, values: str, places: Any, heights: Any) -> str:
    """A vector of values on straight lines between points; all lie between the ends.

    A value on a point belongs to the piece before it, as ``scipy.interpolate.interp1d`` has it.
    """
    places, heights = np.asarray(places, np.float64), np.asarray(heights, np.float64)
    if len(places) == 1:
        return w.op("Add", w.op("Mul", values, w.constant(0.0)), w.constant(heights[0]))
    slopes = np.diff(heights) / np.diff(places)
    piece = _piece(w, values, places[1:-1], "Greater")
    start, low, slope = (
        w.op("Gather", w.constant(each), piece) for each in (places[:-1], heights[:-1], slopes)
    )
    return w.op("Add", w.op("Mul", slope, w.op("Sub", values, start)), low)


def _piece(w: Writer, values: str, borders: Array, comparison: str) -> str:
    """How many of the borders lie below each value."""
    beyond = w.op(comparison, w.upright(values), w.constant(borders[None]))
    if not len(borders):
        return w.cast(w.op("Mul", values, w.constant(0.0)), "int64")
    return w.cast(w.summed(w.cast(beyond, "float64"), keepdims=0), "int64")


# --- powers --------------------------------------------------------------------------------


def power_transformer(w: Writer) -> None:
    """Yeo and Johnson's (2000) or Box and Cox's powers of each column, standardized."""
    item, rows = w.item, w.rows()
    if item.method == "box-cox":
        result = _powered(w, w.op("Log", rows), item.lambdas_)
    else:
        below = w.op("Less", rows, w.constant(0.0))
        far = log_of_one_plus(w, w.op("Abs", rows))
        mirrored = w.op("Neg", _powered(w, far, 2 - item.lambdas_))
        result = w.op("Where", below, mirrored, _powered(w, far, item.lambdas_))
    if item.standardize:
        scaler = item._scaler
        result = w.op("Sub", result, w.constant(scaler.mean_[None]))
        result = w.op("Div", result, w.constant(scaler.scale_[None]))
    w.finish(result)


def _powered(w: Writer, logarithms: str, powers: Any) -> str:
    """``(exp(power * x) - 1) / power``; ``x`` where a power is 0."""
    none = powers == 0
    grown = exp_minus_one(w, w.op("Mul", logarithms, w.constant(powers[None])))
    divided = w.op("Div", grown, w.constant(np.where(none, 1.0, powers)[None]))
    if not none.any():
        return divided
    return w.op("Where", w.constant(none[None], "bool"), logarithms, divided)


# --- splines -------------------------------------------------------------------------------


def splines(w: Writer) -> None:
    """B-splines of each column, as polynomials between the knots.

    Raises:
        NotImplementedError: values beyond the knots raise an error.
    """
    item = w.item
    if item.extrapolation == "error":
        raise NotImplementedError("extrapolation='error'")
    rows = w.rows()
    parts = [
        _spline(w, w.column(rows, index), spline) for index, spline in enumerate(item.bsplines_)
    ]
    w.finish(w.joined(parts))


def _spline(w: Writer, values: str, spline: Any) -> str:
    item, degree = w.item, spline.k
    low, high = spline.t[degree], spline.t[len(spline.t) - degree - 1]
    missing = w.op("IsNaN", values)
    filled = w.op("Where", missing, w.constant(low), values)
    within = w.op("Min", w.op("Max", filled, w.constant(low)), w.constant(high))
    if item.extrapolation == "periodic":
        apart = w.op("Sub", filled, w.constant(low))
        turns = w.op("Floor", w.op("Div", apart, w.constant(high - low)))
        place = w.op("Sub", filled, w.op("Mul", turns, w.constant(high - low)))
    else:
        place = filled if item.extrapolation == "continue" else within
    result = _polynomials(w, place, spline)
    if item.extrapolation == "linear":
        beyond = w.upright(w.op("Sub", filled, within))
        slopes = np.array([spline.derivative()(end) for end in (low, high)])
        if degree == 1:  # at a knot the slope is that of the piece inside
            slopes = np.array([_slope(spline, low, high, end) for end in (0, 1)])
        below, above = (w.op("Mul", beyond, w.constant(slope[None])) for slope in slopes)
        is_below = w.op("Less", beyond, w.constant(0.0))
        result = w.op("Add", result, w.op("Where", is_below, below, above))
    if item.handle_missing == "zeros":
        result = w.op("Where", w.upright(w.op("IsNaN", values)), w.constant(0.0), result)
    kept = result if item.include_bias else w.columns(result, range(spline.c.shape[1] - 1))
    return kept


def _slope(spline: Any, low: float, high: float, end: int) -> Array:
    knots = np.unique(np.clip(spline.t, low, high))
    first, second = (knots[:2], knots[-2:])[end]
    return np.asarray((spline(second) - spline(first)) / (second - first))


def _polynomials(w: Writer, values: str, spline: Any) -> str:
    """All splines at each value, ``[rows, splines]``."""
    degree = spline.k
    first, last = degree, len(spline.t) - degree - 1
    each = [PPoly.from_spline((spline.t, column, degree)) for column in spline.c.T]
    starts = each[0].x[first:last]
    factors = np.stack([polynomial.c[:, first:last] for polynomial in each], axis=-1)
    piece = _piece(w, values, starts[1:], "GreaterOrEqual")
    start = w.op("Gather", w.constant(starts), piece)
    apart = w.upright(w.op("Sub", values, start))
    result = w.op("Gather", w.constant(factors[0]), piece)
    for factor in factors[1:]:
        result = w.op("Add", w.op("Mul", result, apart), w.op("Gather", w.constant(factor), piece))
    return result
