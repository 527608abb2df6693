"""Cases: feeds by input name, how they are generated, and how they are kept in ``.npz``.

A *case* is one call's worth of arrays by tensor name. A file of cases holds members
``<case>/<name>`` with NumPy arrays that need no pickle: strings are kept as fixed-width
unicode, bfloat16 as the uint16 of its bits (the signature says which is meant).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from modelpack.errors import InputError
from modelpack.signature import DType, Signature, TensorSpec
from modelpack.steps import Description, Range

Array = npt.NDArray[Any]
Case = dict[str, Array]
_Change: TypeAlias = Callable[[Array, "Range", np.random.Generator], Array]

# Sizes tried for each dynamic dimension: one, two, an odd size, and one larger than the
# others. Dimensions are shifted against each other so that no two are always equal.
SIZES = (1, 2, 5, 8)

# Kinds of feeds at the edges of what a model takes; each is a word for "inputs that are ...".
EMPTY = "empty"

# The unit of sizes for networks that take no small ones: of images that five layers halve, and
# whose halves are joined again.
WIDE_STEP = 32

# Random numbers along each axis of an image, and the noise of its pixels, of a range of 1.
_KNOTS = 8
_GRAIN = 0.02

# Words of a vocabulary.
_MOST_WORDS = 50

# Rows of a large batch, which visits more of a model's branches, and elements it may have.
MANY = 512
_MOST_ELEMENTS = 1 << 18

# Of a batch that is mostly zero, so much is.
_BLANK = 0.75

# How far out extreme values lie, in units of the usual reach: exp(100) overflows float32. A
# model that computes in float64 is taken less far: where float32 underflows, its artifacts
# can but differ.
EXTREME = 100.0
EXTREME_IN_FLOAT64 = 3.0


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype that holds values of ``dtype`` in memory (strings are objects)."""
    if dtype is DType.STRING:
        return np.dtype(object)
    if dtype is DType.BFLOAT16:
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(dtype.value)


def dtype_of(array: Array) -> DType:
    """The `DType` of an array; object, bytes and unicode arrays are strings.

    Raises:
        InputError: the dtype (complex, datetime, ...) is none that models exchange here.
    """
    if array.dtype.kind in "OUST":
        return DType.STRING
    try:
        return DType(array.dtype.name)
    except ValueError:
        raise InputError(f"arrays of dtype {array.dtype} are not supported") from None


def write_cases(path: Path, cases: Sequence[Mapping[str, Array]]) -> None:
    """Write cases to one ``.npz``. The bytes depend on nothing but names and values."""
    members: dict[str, Array] = {}
    for index, case in enumerate(cases):
        for name, array in case.items():
            members[f"{index}/{name}"] = _storable(np.asarray(array))
    with path.open("wb") as stream:
        np.savez(stream, **members)  # type: ignore[arg-type]


def read_cases(path: Path, specs: Sequence[TensorSpec] = ()) -> list[Case]:
    """Read what `write_cases` wrote; ``specs`` restore bfloat16.

    Raises:
        InputError: the file cannot be read, or is no such file.
    """
    bfloat16 = {spec.name for spec in specs if spec.dtype is DType.BFLOAT16}
    cases: dict[int, Case] = {}
    try:
        with zipfile.ZipFile(path):  # np.load would also take a single array
            pass
        with np.load(path, allow_pickle=False) as archive:
            for member in archive.files:
                index, _, name = member.partition("/")
                array = archive[member]
                if name in bfloat16:
                    array = array.view(numpy_dtype(DType.BFLOAT16))
                elif array.dtype.kind == "U":
                    array = array.astype(object)
                cases.setdefault(int(index), {})[name] = array
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"cannot read the samples in '{path.name}': {error}") from None
    return [cases[index] for index in sorted(cases)]


def _storable(array: Array) -> Array:
    if array.dtype.name == "bfloat16":
        return array.view(np.uint16)
    if array.dtype.kind in "OST":
        texts = [_text(item) for item in array.flat]
        return np.array(texts, dtype=np.str_).reshape(array.shape)
    return array


def _text(item: object) -> str:
    """A string as `.npz` keeps it: UTF-8, and without NUL at its end, which NumPy drops."""
    try:
        text = item.decode() if isinstance(item, bytes) else str(item)
    except UnicodeDecodeError:
        raise InputError(f"the string {item!r} is not UTF-8 text") from None
    if text.endswith("\0"):
        raise InputError(f"the string {text!r} ends in a NUL character, which cannot be kept")
    return text


def generate(
    description: Description, *, seed: int, cautious: bool = False, step: int = 1
) -> list[Case]:
    """Generate typical feeds for a model, at several sizes of its dynamic dims.

    There is one case for each of `SIZES`, within the bounds of each dim, and a further one
    with some elements missing (NaN) for a model that takes them. In the first case the
    first dynamic dimension has its smallest size. Where there are several dynamic dims, they
    are crossed, and two further cases have them all at one size. Floats of a model that
    computes in float64 are given as such.

    Args:
        description: the signature, usual ranges and limits.
        seed: of the random generator.
        cautious: keep integers of unknown meaning to 0 and 1, which index any table.
        step: the unit of dynamic dims that nothing bounds and that count no rows, as `WIDE_STEP`.

    Raises:
        InputError: an input has unknown rank, so that no shape can be made up.
    """
    rng = np.random.default_rng(seed)
    shifts = [(index, 1) for index in range(len(SIZES))]
    if len(description.signature.dynamic_dims) > 1:
        shifts += [(0, 0), (2, 0)]
    cases = [
        _typical(description, rng, start, shift, cautious=cautious, step=step)
        for start, shift in shifts
    ]
    if description.accepts_nan:
        cases.append({name: _with_missing(array, rng) for name, array in cases[-1].items()})
    return _as_taken(description, cases)


def _typical(
    description: Description,
    rng: np.random.Generator,
    start: int,
    shift: int,
    *,
    cautious: bool = False,
    step: int = 1,
) -> Case:
    """One feed; the dynamic dims have the sizes from ``start`` on, ``shift`` apart."""
    signature = description.signature
    stepped = set(free_dims(description)) if step > 1 else set()
    sizes = {}
    for index, dim in enumerate(signature.dynamic_dims):
        low, high = description.dim_bounds.get(dim, (1, step * SIZES[-1]))
        size = SIZES[(start + index * shift) % len(SIZES)] * (step if dim in stepped else 1)
        sizes[dim] = min(max(size, low), high)
    return {
        spec.name: _values(spec, _usual(description, spec, cautious), rng, SIZES[start])
        for spec in signature.with_dims(sizes).inputs
    }


def _usual(description: Description, spec: TensorSpec, cautious: bool) -> Range:
    return description.ranges.get(spec.name) or _unknown_range(spec, cautious)


def of_words(words: Iterable[str]) -> Range:
    """The range of an input of text: words that a model knows, some of many, and an unknown one."""
    known = sorted({str(word) for word in words})  # Keras has them as numpy.str_
    some = known[:: max(len(known) // _MOST_WORDS, 1)][:_MOST_WORDS]
    return Range(values=(*some, "an unknown value"))


def _as_taken(description: Description, cases: list[Case]) -> list[Case]:
    if description.computes_in_float64:
        return cases
    return [narrowed(case, description.signature) for case in cases]


def free_dims(description: Description) -> list[str]:
    """The dynamic dimensions that nothing bounds and that count no rows."""
    signature = description.signature
    rows = batch_dim(signature)
    return [d for d in signature.dynamic_dims if d != rows and d not in description.dim_bounds]


def edges(description: Description, *, seed: int, step: int = 1) -> list[tuple[str, Case]]:
    """Feeds at the edges of what a model may be given, each with a word for its kind.

    Whether the model takes them is not known here. Only real numbers and text are pushed
    out; integers are usually indices, and are taken at both ends of their known range.
    """
    rng = np.random.default_rng([seed, 1])
    usual = _typical(description, rng, 1, 1, step=step)
    found = []
    for kind, change in _EDGES.items():
        if kind in _MISSING and not description.accepts_nan:
            continue
        if kind in _FAR[description.computes_in_float64]:
            continue
        case = {
            spec.name: change(usual[spec.name], _usual(description, spec, cautious=False), rng)
            for spec in description.signature.inputs
        }
        if any(case[name] is not usual[name] for name in case):
            found.append((kind, case))
    if batch_dim(description.signature):
        found += _many(description, usual, rng)
        found.append((EMPTY, {name: array[:0] for name, array in usual.items()}))
    return list(
        zip(
            [kind for kind, _ in found],
            _as_taken(description, [case for _, case in found]),
            strict=True,
        )
    )


def _many(
    description: Description, usual: Case, rng: np.random.Generator
) -> list[tuple[str, Case]]:
    """Large batches, unless it would be too large or the batch is bounded."""
    dim = batch_dim(description.signature)
    each = sum(array.size // max(len(array), 1) for array in usual.values())
    rows = min(MANY, _MOST_ELEMENTS // max(each, 1), description.dim_bounds.get(dim, (1, MANY))[1])
    if rows <= 4 * SIZES[-1] or description.is_large:
        return []
    ranges = {
        spec.name: _usual(description, spec, cautious=False)
        for spec in description.signature.inputs
    }
    found = [("in a large batch", _batch(usual, description.signature, ranges, rows, rng))]
    if description.rare_rows:
        rare = {name: np.asarray(rows) for name, rows in description.rare_rows.items()}
        found.append(("in each leaf of its trees", usual | rare))
    # Of inputs whose range is not known: many models were trained on shares and on pixels, of
    # which most are often blank; errors of a single weight stand out there.
    unit = {
        spec.name: Range((0.0,), (1.0,))
        for spec in description.signature.inputs
        if spec.dtype.is_float and not ranges[spec.name].low
    }
    if unit:
        batch = _batch(usual, description.signature, ranges | unit, rows, rng)
        blank = {
            name: np.where(rng.random(array.shape) < _BLANK, 0, array) if name in unit else array
            for name, array in batch.items()
        }
        found += [("between 0 and 1", batch), ("mostly zero", blank)]
    return found


def _batch(
    usual: Case,
    signature: Signature,
    ranges: Mapping[str, Range],
    rows: int,
    rng: np.random.Generator,
) -> Case:
    """So many rows of what is usual, each of the shape of those given."""
    return {
        spec.name: _values(
            replace(spec, shape=(rows, *usual[spec.name].shape[1:])), ranges[spec.name], rng, rows
        )
        for spec in signature.inputs
    }


def _of_reals(change: Callable[[Array], Array]) -> _Change:
    """A change of real values alone."""

    def changed(values: Array, _usual: Range, _rng: np.random.Generator) -> Array:
        return change(values).astype(values.dtype) if values.dtype.kind == "f" else values

    return changed


def _of_text(text: str) -> _Change:
    """Every second string replaced."""

    def changed(values: Array, _usual: Range, _rng: np.random.Generator) -> Array:
        if values.dtype.kind != "O":
            return values
        result = values.copy()
        result.reshape(-1)[::2] = text
        return result

    return changed


def _pushed(reach: float) -> _Change:
    """Some real values pushed far out: where exponentials overflow and functions saturate."""

    def changed(values: Array, usual: Range, rng: np.random.Generator) -> Array:
        if values.dtype.kind != "f":
            return values
        middle, half = np.asarray(0.0), np.asarray(1.0)
        if usual.low:
            low, high = _ends(usual, values.ndim)
            middle, half = (low + high) / 2, (high - low) / 2
        sign = np.where(rng.random(values.shape) < 0.5, -reach, reach)
        return np.where(rng.random(values.shape) < 0.5, values, middle + sign * half)

    return changed


def _infinite(values: Array, _usual: Range, rng: np.random.Generator) -> Array:
    if values.dtype.kind != "f":
        return values
    chosen = rng.random(values.shape)
    return np.where(chosen < 0.1, -np.inf, np.where(chosen > 0.9, np.inf, values))


def _at_end(end: str) -> _Change:
    """Integers of a known range all at one end of it: the first and last rows of tables."""

    def changed(values: Array, usual: Range, _rng: np.random.Generator) -> Array:
        if values.dtype.kind not in "iu" or not usual.low:
            return values
        low, high = _ends(usual, values.ndim)
        limit = low if end == "low" else high
        return np.broadcast_to(limit, values.shape).astype(values.dtype)

    return changed


# What each kind does to an input; one that returns its argument has nothing to change there.
_EDGES: dict[str, _Change] = {
    "zero": _of_reals(np.zeros_like),
    "one": _of_reals(np.ones_like),
    "negative": _of_reals(lambda values: -np.abs(values)),
    # Ties of rounding, and thresholds of trees that were fitted on whole numbers.
    "halves": _of_reals(lambda values: np.round(values * 2) / 2),
    "tiny": _of_reals(lambda values: values * 1e-30),
    "extreme": _pushed(EXTREME),
    "far out": _pushed(EXTREME_IN_FLOAT64),
    "missing": _of_reals(lambda values: np.full_like(values, np.nan)),
    "infinite": _infinite,
    "at the lower end of their range": _at_end("low"),
    "at the upper end of their range": _at_end("high"),
    "unknown text": _of_text("not seen before"),
    "empty text": _of_text(""),
    "non-ASCII text": _of_text(
        "na\u00efve \u6771\u4eac e\u0301t\u00e9 \u0130I\u0131 \u03a3\u0391\u03a3 \U0001f600"
    ),
}
_MISSING = {"missing", "infinite"}
# Not for models that compute in float32, and not for those that do in float64.
_FAR = ({"far out"}, {"extreme", "tiny"})


def batch_dim(signature: Signature) -> str:
    """The dynamic dimension that is first in every input and output; empty if there is none."""
    specs = (*signature.inputs, *signature.outputs)
    first = {spec.shape[0] if spec.shape else None for spec in specs}
    only = first.pop() if len(first) == 1 else None
    return only if isinstance(only, str) else ""


def narrowed(case: Mapping[str, Array], signature: Signature) -> Case:
    """The feed with each array in the dtype that the signature says."""
    dtypes = {spec.name: numpy_dtype(spec.dtype) for spec in signature.inputs}
    return {name: array.astype(dtypes[name], copy=False) for name, array in case.items()}


def _unknown_range(spec: TensorSpec, cautious: bool) -> Range:
    """Integers of unknown meaning: of both signs, since division and modulo differ there."""
    signed = spec.dtype.is_integer and not spec.dtype.value.startswith("u")
    if not spec.dtype.is_integer or cautious:
        return Range()
    return Range((-5.0,) if signed else (0.0,), (5.0,))


def _values(spec: TensorSpec, usual: Range, rng: np.random.Generator, rows: int) -> Array:
    if spec.shape is None:
        raise InputError(
            f"input '{spec.name}' has unknown rank, so no samples can be generated",
            hint=f"describe it with --input '{spec.name}:{spec.dtype}[...]', or give --data",
        )
    # An unknown first dimension is nearly always the batch; nothing is known of the others.
    shape = tuple(
        dim if isinstance(dim, int) else (rows if axis == 0 else SIZES[1])
        for axis, dim in enumerate(spec.shape)
    )
    if spec.dtype is DType.STRING:
        words = usual.values or ("a", "b", "hello world", "é")
        chosen = np.array(words, dtype=object)[rng.integers(0, len(words), shape)]
        return np.asarray(chosen, dtype=object)
    if spec.dtype is DType.BOOL:
        values = rng.integers(0, 2, shape).astype(bool)
        if values.ndim:  # a mask that keeps nothing makes attention divide by zero
            values[..., :1] = True
        return values
    if spec.dtype.is_float:
        if usual.low:
            low, high = _ends(usual, len(shape))
            share = _smooth(shape, rng) if usual.smooth else rng.random(shape)
            values = low + (high - low) * share
        else:
            values = rng.standard_normal(shape)
        return np.asarray(values)
    low, high = _ends(usual if usual.low else Range((0.0,), (1.0,)), len(shape))
    lowest, highest = low.astype(np.int64), high.astype(np.int64)
    return np.asarray(rng.integers(lowest, highest, shape, endpoint=True), spec.dtype.value)


def _ends(usual: Range, rank: int) -> tuple[Array, Array]:
    """Both ends of a known range, for values of a rank: one for all, or one for each column."""
    low, high = np.asarray(usual.low), np.asarray(usual.high)
    return (low[0], high[0]) if rank == 0 else (low, high)


def _smooth(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Numbers in [0, 1], linear between some random ones along all axes but first and last.

    Networks for images answer white noise, which no camera gives, by last bits.
    """
    values = rng.random((shape[0], *(_KNOTS for _ in shape[1:-1]), shape[-1]))
    for axis, size in enumerate(shape[1:-1], start=1):
        places = np.linspace(0, _KNOTS - 1, size)
        weights = [np.interp(places, np.arange(_KNOTS), knot) for knot in np.eye(_KNOTS)]
        values = np.moveaxis(np.tensordot(np.array(weights).T, values, (1, axis)), 0, axis)
    grain = _GRAIN * rng.standard_normal(shape)
    return np.clip(values + grain, 0.0, 1.0)


def _with_missing(array: Array, rng: np.random.Generator) -> Array:
    if array.dtype.kind != "f":
        return array
    missing = rng.random(array.shape) < 0.2
    return np.where(missing, np.array(np.nan, array.dtype), array)


def channel_last(case: Case, names: Collection[str]) -> Case:
    """A feed with the second axis of the named arrays moved to the end."""
    return {
        name: np.moveaxis(array, 1, -1) if name in names else array for name, array in case.items()
    }


def channel_first(case: Case, names: Collection[str]) -> Case:
    """Undo `channel_last`."""
    return {
        name: np.moveaxis(array, -1, 1) if name in names else array for name, array in case.items()
    }
