"""Cases: feeds by input name, how they are generated, and how they are kept in ``.npz``.

A *case* is one call's worth of arrays by tensor name. A file of cases holds members
``<case>/<name>`` with NumPy arrays that need no pickle: strings are kept as fixed-width
unicode, bfloat16 as the uint16 of its bits (the signature says which is meant).
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpack.errors import InputError
from modelpack.signature import DType, Signature, TensorSpec
from modelpack.steps import Description, Range

Array = npt.NDArray[Any]
Case = dict[str, Array]

# Sizes tried for each dynamic dimension: one, two, an odd size, and one larger than the
# others. Dimensions are shifted against each other so that no two are always equal.
SIZES = (1, 2, 5, 16)

# How far out extreme values lie, in units of the usual reach: exp(100) overflows float32.
EXTREME = 100.0


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
    description: Description, *, seed: int, extremes: bool = False, cautious: bool = False
) -> list[Case]:
    """Generate feeds for a model: typical values at several sizes of its dynamic dims.

    There is one case for each of `SIZES`, within the bounds of each dim, and a further one
    with some elements missing (NaN) for a model that takes them. In the first case the
    first dynamic dimension has its smallest size. Floats of a model that computes in
    float64 are given as such.

    Args:
        description: the signature, usual ranges and limits.
        seed: of the random generator.
        extremes: make two cases of large magnitudes (`EXTREME`) instead of the usual ones.
        cautious: keep integers of unknown meaning to 0 and 1, which index any table.

    Raises:
        InputError: an input has unknown rank, so that no shape can be made up.
    """
    rng = np.random.default_rng(seed)
    signature = description.signature
    cases = []
    for index, rows in enumerate(SIZES[:2] if extremes else SIZES):
        sizes = {}
        for shift, dim in enumerate(signature.dynamic_dims):
            low, high = description.dim_bounds.get(dim, (SIZES[0], SIZES[-1]))
            sizes[dim] = min(max(SIZES[(index + shift) % len(SIZES)], low), high)
        bound = signature.with_dims(sizes)
        case = {}
        for spec in bound.inputs:
            usual = description.ranges.get(spec.name) or _unknown_range(spec, cautious)
            values = _values(spec, usual, rng, rows)
            case[spec.name] = _extreme(values, usual, rng) if extremes else values
        cases.append(case)
    if description.accepts_nan and not extremes:
        cases.append({name: _with_missing(array, rng) for name, array in cases[-1].items()})
    return cases if description.computes_in_float64 else [narrowed(c, signature) for c in cases]


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


def _extreme(values: Array, usual: Range, rng: np.random.Generator) -> Array:
    """Some of the values pushed far out: where exponentials overflow and functions saturate."""
    if values.dtype.kind != "f":
        return values
    middle, reach = 0.0, 1.0
    if usual.low:
        middle = (np.asarray(usual.low) + np.asarray(usual.high)) / 2
        reach = (np.asarray(usual.high) - np.asarray(usual.low)) / 2
    sign = np.where(rng.random(values.shape) < 0.5, -EXTREME, EXTREME)
    return np.where(rng.random(values.shape) < 0.5, values, middle + sign * reach)


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
            low, high = np.asarray(usual.low), np.asarray(usual.high)
            values = low + (high - low) * rng.random(shape)
        else:
            values = rng.standard_normal(shape)
        return np.asarray(values)
    lowest = np.asarray(usual.low or (0,)).astype(np.int64)
    highest = np.asarray(usual.high or (1,)).astype(np.int64)
    return rng.integers(lowest, highest, shape, endpoint=True).astype(spec.dtype.value)


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
