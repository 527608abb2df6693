"""Functions of NumPy as ONNX nodes, and Python functions traced through them.

ONNX Runtime has few functions for float64; the others are made of those.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
from numpy.lib.mixins import NDArrayOperatorsMixin

from modelpack.adapters.sklearn_converters.writer import Writer

# Beyond the reach, the error function is 1; the rest of the series is below 1e-17.
_ERF_REACH, _ERF_PIECES, _ERF_ORDER = 6.0, 16, 10

_Unary = Callable[[Writer, str], str]


def exp_minus_one(w: Writer, x: str) -> str:
    """``(u - 1) x / log(u)`` with ``u = exp(x)`` (W. Kahan; Higham, section 1.14.1)."""
    grown, one = w.op("Exp", x), w.constant(1.0)
    same, gone = w.op("Equal", grown, one), w.op("LessOrEqual", grown, w.constant(1e-17))
    usual = w.op("Not", w.op("Or", same, gone))
    inner = w.op("Where", usual, grown, w.constant(2.0))
    less = w.op("Sub", grown, one)
    exact = w.op("Div", w.op("Mul", w.op("Sub", inner, one), x), w.op("Log", inner))
    finite = w.op("Where", w.op("Greater", x, w.constant(1.0)), less, exact)
    return w.op("Where", same, x, w.op("Where", gone, w.constant(-1.0), finite))


def log_of_one_plus(w: Writer, x: str) -> str:
    """``x log(u) / (u - 1)`` with ``u = 1 + x`` (W. Kahan)."""
    one = w.constant(1.0)
    moved = w.op("Add", x, one)
    less = w.op("Sub", moved, one)
    same, far = w.op("Equal", less, w.constant(0.0)), w.op("Greater", x, w.constant(1.0))
    inner = w.op("Where", same, one, less)
    exact = w.op("Div", w.op("Mul", x, w.op("Log", moved)), inner)
    return w.op("Where", far, w.op("Log", moved), w.op("Where", same, x, exact))


def _sinh(w: Writer, x: str) -> str:
    grown = exp_minus_one(w, w.op("Abs", x))
    share = w.op("Div", grown, w.op("Add", grown, w.constant(1.0)))
    half = w.op("Mul", w.op("Add", grown, share), w.constant(0.5))
    return w.op("Mul", w.op("Sign", x), half)


def _arcsinh(w: Writer, x: str) -> str:
    far = w.op("Abs", x)
    square = w.op("Mul", far, far)
    root = w.op("Sqrt", w.op("Add", square, w.constant(1.0)))
    added = w.op("Add", far, w.op("Div", square, w.op("Add", root, w.constant(1.0))))
    return w.op("Mul", w.op("Sign", x), log_of_one_plus(w, added))


def _cosh(w: Writer, x: str) -> str:
    grown = w.op("Exp", x)
    return w.op("Mul", w.op("Add", grown, w.op("Reciprocal", grown)), w.constant(0.5))


def _arctanh(w: Writer, x: str) -> str:
    ratio = w.op("Div", w.op("Add", x, x), w.op("Sub", w.constant(1.0), x))
    return w.op("Mul", log_of_one_plus(w, ratio), w.constant(0.5))


def _cube_root(w: Writer, x: str) -> str:
    return w.op("Mul", w.op("Sign", x), w.op("Pow", w.op("Abs", x), w.constant(1 / 3)))


def erf(w: Writer, x: str) -> str:
    """The error function, by its Taylor series around the nearest 32nd.

    Derivatives are those of Hermite's polynomials (Abramowitz and Stegun, 7.1.19).
    """
    places = (np.arange(2 * _ERF_REACH * _ERF_PIECES) + 0.5) / _ERF_PIECES - _ERF_REACH
    series = [scipy.special.erf(places)]
    bell = 2 / np.sqrt(np.pi) * np.exp(-(places**2))
    for order in range(1, _ERF_ORDER + 1):
        own = scipy.special.eval_hermite(order - 1, places) * (-1.0) ** (order - 1)
        series.append(bell * own / math.factorial(order))
    far = np.nextafter(_ERF_REACH, 0)
    within = w.op("Min", w.op("Max", x, w.constant(-far)), w.constant(far))
    scaled = w.op("Mul", w.op("Add", within, w.constant(_ERF_REACH)), w.constant(_ERF_PIECES))
    piece = w.cast(w.op("Floor", scaled), "int64")
    apart = w.op("Sub", within, w.op("Gather", w.constant(places), piece))
    result = w.op("Gather", w.constant(series[-1]), piece)
    for factor in reversed(series[:-1]):
        result = w.op("Add", w.op("Mul", result, apart), w.op("Gather", w.constant(factor), piece))
    return result


def _plain(kind: str) -> _Unary:
    return lambda w, x: w.op(kind, x)


def _scaled(function: _Unary, factor: float) -> _Unary:
    return lambda w, x: w.op("Mul", function(w, x), w.constant(factor))


def _is_finite(w: Writer, x: str) -> str:
    return w.op("Not", w.op("Or", w.op("IsNaN", x), w.op("IsInf", x)))


# By the names of NumPy's functions of one array.
UNARY: dict[str, _Unary] = {
    "absolute": _plain("Abs"),
    "arcsinh": _arcsinh,
    "arctanh": _arctanh,
    "cbrt": _cube_root,
    "ceil": _plain("Ceil"),
    "cos": _plain("Cos"),
    "cosh": _cosh,
    "deg2rad": lambda w, x: w.op("Mul", x, w.constant(np.pi / 180)),
    "exp": _plain("Exp"),
    "exp2": lambda w, x: w.op("Exp", w.op("Mul", x, w.constant(np.log(2.0)))),
    "expm1": exp_minus_one,
    "fabs": _plain("Abs"),
    "floor": _plain("Floor"),
    "isfinite": _is_finite,
    "isinf": _plain("IsInf"),
    "isnan": _plain("IsNaN"),
    "log": _plain("Log"),
    "log10": _scaled(_plain("Log"), 1 / np.log(10.0)),
    "log1p": log_of_one_plus,
    "log2": _scaled(_plain("Log"), 1 / np.log(2.0)),
    "logical_not": lambda w, x: w.op("Not", w.cast(x, "bool")),
    "negative": _plain("Neg"),
    "positive": lambda _, x: x,
    "rad2deg": lambda w, x: w.op("Mul", x, w.constant(180 / np.pi)),
    "reciprocal": _plain("Reciprocal"),
    "rint": _plain("Round"),
    "sign": _plain("Sign"),
    "sin": _plain("Sin"),
    "sinh": _sinh,
    "sqrt": _plain("Sqrt"),
    "square": lambda w, x: w.op("Mul", x, x),
    "tanh": _plain("Tanh"),
}

# By the names of NumPy's functions of two arrays: ops of two numbers, which give a number.
BINARY = {
    "add": "Add",
    "divide": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "multiply": "Mul",
    "power": "Pow",
    "subtract": "Sub",
}
COMPARISONS = {
    "equal": "Equal",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
}
LOGIC = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}
_BITWISE = {"bitwise_and": "And", "bitwise_or": "Or", "bitwise_xor": "Xor", "invert": "Not"}


class Traced(NDArrayOperatorsMixin):
    """Stands for rows while a Python function is called, and writes what it does with them.

    Args:
        w: takes the nodes.
        name: of the tensor, ``[rows, columns]`` or ``[rows]``.
        columns: how many there are; None for a vector.
        is_bool: whether it holds truth values.
    """

    def __init__(self, w: Writer, name: str, columns: int | None, is_bool: bool = False) -> None:
        self.w, self.name, self.columns, self.is_bool = w, name, columns, is_bool

    @property
    def ndim(self) -> int:
        return 1 if self.columns is None else 2

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **given: Any) -> Any:
        if method != "__call__" or any(value is not None for value in given.values()):
            raise NotImplementedError(f"numpy.{ufunc.__name__} with {method} {sorted(given)}")
        return self._applied(ufunc.__name__, inputs)

    def _applied(self, name: str, inputs: tuple[Any, ...]) -> Traced:
        wants_bool = name in LOGIC or name in _BITWISE
        names = [self._tensor(item, wants_bool) for item in inputs]
        columns = self._broadcast(inputs)
        if name in _BITWISE and not all(_is_bool(item) for item in inputs):
            raise NotImplementedError(f"numpy.{name} of numbers")
        if name in LOGIC or name in _BITWISE:
            kind = {**LOGIC, **_BITWISE}[name]
            return Traced(self.w, self.w.op(kind, *names), columns, True)
        if name == "not_equal":
            same = self.w.op("Equal", *names)
            return Traced(self.w, self.w.op("Not", same), columns, True)
        if name in COMPARISONS:
            return Traced(self.w, self.w.op(COMPARISONS[name], *names), columns, True)
        if name in BINARY:
            return Traced(self.w, self.w.op(BINARY[name], *names), columns)
        if name in UNARY:
            is_bool = name.startswith("is") or name == "logical_not"
            return Traced(self.w, UNARY[name](self.w, names[0]), columns, is_bool)
        raise NotImplementedError(f"numpy.{name}")

    def _tensor(self, item: Any, wants_bool: bool = False) -> str:
        if isinstance(item, Traced):
            if item.is_bool and not wants_bool:
                return self.w.cast(item.name, "float64")
            return item.name if item.is_bool or not wants_bool else self.w.cast(item.name, "bool")
        array = np.asarray(item)
        if array.dtype.kind not in "fiub" or array.ndim > 2:
            raise NotImplementedError(f"a constant of {array.dtype} with {array.ndim} axes")
        return self.w.constant(array, "bool" if wants_bool else "float64")

    @staticmethod
    def _broadcast(inputs: tuple[Any, ...]) -> int | None:
        """Columns of what is computed from several arrays."""
        found = {item.columns for item in inputs if isinstance(item, Traced)}
        found |= {
            np.shape(item)[-1]
            for item in inputs
            if not isinstance(item, Traced) and np.ndim(item) and np.shape(item)[-1] != 1
        }
        wide = found - {1}
        if None in found and len(found) > 1:
            raise NotImplementedError("a vector together with a matrix")
        if len(wide) > 1:
            raise NotImplementedError("arrays of different numbers of columns together")
        return next(iter(wide or found))

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> Any:
        own = _FUNCTIONS.get(function.__name__)
        if own is None:
            raise NotImplementedError(f"numpy.{function.__name__}")
        return own(self, *args, **kwargs)

    def __getitem__(self, key: Any) -> Traced:
        rows, chosen = key if isinstance(key, tuple) and len(key) == 2 else (None, None)
        if rows != slice(None) or self.columns is None:
            raise NotImplementedError("a choice of rows")
        if isinstance(chosen, int | np.integer):
            return Traced(self.w, self.w.column(self.name, int(chosen) % self.columns), None)
        places = np.arange(self.columns)[chosen]
        return Traced(self.w, self.w.columns(self.name, places), len(places), self.is_bool)

    def reshape(self, *shape: Any) -> Traced:
        """As a column."""
        if shape not in {(-1, 1), ((-1, 1),)} or self.columns not in {None, 1}:
            raise NotImplementedError(f"reshape to {shape}")
        return Traced(self.w, self.w.upright(self.name), 1, self.is_bool)

    def astype(self, dtype: Any, **_: Any) -> Traced:
        """As real numbers."""
        if np.dtype(dtype) not in {np.dtype("float64"), np.dtype("float32")}:
            raise NotImplementedError(f"astype({dtype})")
        return Traced(self.w, self._tensor(self), self.columns)

    def copy(self) -> Traced:
        """The same: nothing can be assigned to."""
        return self

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("a function that is not one of NumPy's")

    def __bool__(self) -> bool:
        raise NotImplementedError("a branch that depends on the data")

    def __iter__(self) -> Any:
        raise NotImplementedError("a loop over rows")

    def __len__(self) -> int:
        raise NotImplementedError("the number of rows")


def _is_bool(item: Any) -> bool:
    return item.is_bool if isinstance(item, Traced) else np.asarray(item).dtype.kind == "b"


def _where(x: Traced, condition: Any, yes: Any, no: Any) -> Traced:
    parts = [x._tensor(condition, wants_bool=True), x._tensor(yes), x._tensor(no)]
    return Traced(x.w, x.w.op("Where", *parts), x._broadcast((condition, yes, no)))


def _clip(x: Traced, values: Any, low: Any = None, high: Any = None, **given: Any) -> Any:
    low, high = given.pop("a_min", low), given.pop("a_max", high)
    low, high = given.pop("min", low), given.pop("max", high)
    if given:
        raise NotImplementedError(f"numpy.clip with {sorted(given)}")
    values = values if low is None else np.maximum(values, low)
    return values if high is None else np.minimum(values, high)


def _side_by_side(x: Traced, parts: Any, axis: int = 1, **given: Any) -> Traced:
    columns = [item if isinstance(item, Traced) else None for item in parts]
    if (
        axis not in {1, -1}
        or given
        or any(item is None or item.columns is None for item in columns)
    ):
        raise NotImplementedError("numpy.concatenate of anything but matrices side by side")
    present = [item for item in columns if item is not None]
    names = [x._tensor(item) for item in present]
    return Traced(x.w, x.w.joined(names), sum(item.columns or 0 for item in present))


def _stacked(x: Traced, parts: Any) -> Traced:
    upright = [item.reshape(-1, 1) if item.columns is None else item for item in parts]
    return _side_by_side(x, upright)


def _reduction(kind: str) -> Callable[..., Traced]:
    def reduced(_: Traced, values: Any, axis: Any = None, **given: Any) -> Traced:
        keeps = given.pop("keepdims", False)
        if axis not in {1, -1} or any(value is not None for value in given.values()):
            raise NotImplementedError(f"{kind} along axis {axis}")
        name = values.w.reduced(kind, values._tensor(values), keepdims=int(keeps))
        return Traced(values.w, name, 1 if keeps else None)

    return reduced


def _nan_to_num(x: Traced, values: Any, nan: float = 0.0, **given: Any) -> Traced:
    if set(given) - {"copy"}:
        raise NotImplementedError(f"numpy.nan_to_num with {sorted(given)}")
    biggest = np.finfo(np.float64).max
    filled = _where(x, np.isnan(values), nan, values)
    return filled._applied("minimum", (filled._applied("maximum", (filled, -biggest)), biggest))


def _rounded(_: Traced, values: Any, decimals: int = 0, **__: Any) -> Any:
    scale = 10.0**decimals
    return np.rint(values * scale) / scale


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "amax": _reduction("ReduceMax"),
    "amin": _reduction("ReduceMin"),
    "around": _rounded,
    "clip": _clip,
    "column_stack": _stacked,
    "concatenate": _side_by_side,
    "hstack": _side_by_side,
    "max": _reduction("ReduceMax"),
    "mean": _reduction("ReduceMean"),
    "min": _reduction("ReduceMin"),
    "nan_to_num": _nan_to_num,
    "round": _rounded,
    "sum": _reduction("ReduceSum"),
    "where": _where,
}


def traced(w: Writer, function: Any, rows: str, columns: int, given: dict[str, Any]) -> str:
    """Call a function on rows that are not there yet; return the tensor it answers.

    Raises:
        NotImplementedError: it does something that cannot be written down.
    """
    try:
        result = function(Traced(w, rows, columns), **given)
    except NotImplementedError:
        raise
    except Exception as error:  # whatever a user's function raises on what is no array
        raise NotImplementedError(f"{_name(function)}: {type(error).__name__}: {error}") from error
    if not isinstance(result, Traced):
        raise NotImplementedError(f"{_name(function)} answers a {type(result).__name__}")
    name = result._tensor(result)
    return w.upright(name) if result.columns is None else name


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))
