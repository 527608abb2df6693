"""Functions of one column that are put together from pieces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.interpolate import BSpline

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
    piece = piece_of(w, values, places[1:-1], "Greater")
    start, low, slope = (
        w.op("Gather", w.constant(each), piece) for each in (places[:-1], heights[:-1], slopes)
    )
    return w.op("Add", w.op("Mul", slope, w.op("Sub", values, start)), low)


def piece_of(w: Writer, values: str, borders: Array, comparison: str) -> str:
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
        _spline(w, w.column(rows, index), spline, _degree(item, index))
        for index, spline in enumerate(item.bsplines_)
    ]
    w.finish(w.joined(parts))


def _degree(item: Any, column: int) -> int:
    """The degree by which a column's first and last knot are found.

    Below 2, ``SplineTransformer.transform`` adds to it in each column that it extends linearly.
    """
    grows = item.extrapolation == "linear" and item.degree < 2
    return min(item.degree + column, 2) if grows else item.degree


def _spline(w: Writer, values: str, spline: Any, degree: int) -> str:
    item = w.item
    low, high = spline.t[degree], spline.t[len(spline.t) - degree - 1]
    missing = w.op("IsNaN", values)
    filled = w.op("Where", missing, w.constant(low), values)
    if item.extrapolation in {"constant", "linear"}:
        within = w.op("Min", w.op("Max", filled, w.constant(low)), w.constant(high))
        result = _polynomials(w, within, spline)
        for index, end in enumerate((low, high)):
            beyond = w.op(("Less", "Greater")[index], filled, w.constant(end))
            line = _beyond(w, filled, spline, (degree, index))
            result = w.op("Where", w.upright(beyond), line, result)
    elif item.extrapolation == "periodic":
        result = _polynomials(w, _turned(w, filled, low, high), spline)
    else:
        result = _polynomials(w, filled, spline)
    if item.handle_missing == "zeros":
        result = w.op("Where", w.upright(missing), w.constant(0.0), result)
    kept = result if item.include_bias else w.columns(result, range(spline.c.shape[1] - 1))
    return kept


def _turned(w: Writer, values: str, low: float, high: float) -> str:
    """Values less the periods between them and the first."""
    if high == low:
        return w.op("Mul", values, w.constant(0.0))
    apart = w.op("Sub", values, w.constant(low))
    turns = w.op("Floor", w.op("Div", apart, w.constant(high - low)))
    return w.op("Sub", values, w.op("Mul", turns, w.constant(high - low)))


def _beyond(w: Writer, values: str, spline: Any, where: tuple[int, int]) -> str:
    """All splines beyond the knots, constant or straight; those that end before are 0.

    Args:
        w: of the estimator.
        values: of the column.
        spline: of the column.
        where: the degree by which knots are found, and 0 below the first one, 1 above the last.
    """
    (degree, side), straight = where, w.item.extrapolation == "linear"
    end = spline.t[degree] if side == 0 else spline.t[-degree - 1]
    count = spline.c.shape[1]
    kept = degree + 1 if straight and degree <= 1 else degree
    place = np.arange(count) if side == 0 else np.arange(count)[::-1]
    heights = np.where(place < kept, spline(end), 0.0)
    slopes = np.where(place < kept, spline(end, nu=1), 0.0) if straight else np.zeros(count)
    apart = w.upright(w.op("Sub", values, w.constant(end)))
    rising = w.op("Mul", apart, w.constant(slopes[None]))
    return w.op("Add", rising, w.constant(heights[None]))


def _polynomials(w: Writer, values: str, spline: Any) -> str:
    """All splines at each value, ``[rows, splines]``, by their Taylor series in each piece.

    Pieces without length, between equal knots, are skipped, but for the one that SciPy takes
    for values below the first knot, or for the last knot and above. Each series is about an end
    of its piece: about any other place it loses digits where knots are close together.
    """
    degree = spline.k
    knots = spline.t[degree : len(spline.t) - degree]
    starts = knots[:-1][np.diff(knots) > 0]
    places = np.array([np.nextafter(knots[0], -np.inf), *starts, knots[-1]])
    endless = BSpline.construct_fast(spline.t, spline.c, degree, extrapolate=True)
    factors = [endless(places, nu=order) / math.factorial(order) for order in range(degree + 1)]
    piece = piece_of(w, values, np.array([*starts, knots[-1]]), "GreaterOrEqual")
    apart = w.upright(w.op("Sub", values, w.op("Gather", w.constant(places), piece)))
    result = w.op("Gather", w.constant(factors[-1]), piece)
    for factor in factors[-2::-1]:
        result = w.op("Add", w.op("Mul", result, apart), w.op("Gather", w.constant(factor), piece))
    return result
