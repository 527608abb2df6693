"""Reads ``--data`` and ``--calibration`` files into cases, and their labels.

Accepted are ``.npz`` (arrays by input name, first axis is samples), ``.npy`` (one input),
``.csv`` and ``.parquet`` (columns), and a directory of ``.npz`` shards. An array or column
that the signature does not take and that is called ``labels``, ``label``, ``target`` or
``y`` holds the true labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.errors import InputError, MissingDependencyError
from modelpack.samples import Array, Case, dtype_of, numpy_dtype
from modelpack.signature import DType, Signature, TensorSpec

LABEL_NAMES = ("labels", "label", "target", "y")
BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples for a signature.

    Attributes:
        inputs: one array per input, samples along the first axis.
        labels: true labels, one per sample; None when the file has none.
        fixed_batch: how many samples the model takes at once; None when any number.
    """

    inputs: Case
    labels: Array | None
    fixed_batch: int | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self) -> list[Case]:
        """The samples in order, in batches."""
        step = self.fixed_batch or BATCH_ROWS
        return [self._rows(begin, begin + step) for begin in range(0, len(self), step)]

    def head(self, rows: int) -> Dataset:
        """The first samples, in whole batches where the batch size is fixed."""
        size = self.fixed_batch or 1
        kept = max(rows // size, 1) * size
        labels = None if self.labels is None else self.labels[:kept]
        return replace(self, inputs=self._rows(0, kept), labels=labels)

    def uneven_cases(self, rows: int) -> list[Case]:
        """The first ``rows`` samples as cases of one, of two and of all the other rows."""
        if self.fixed_batch:
            return self.head(rows).batches()
        end = min(len(self), rows)
        bounds = [0, *(bound for bound in (1, 3) if bound < end), end]
        return [self._rows(*pair) for pair in pairwise(bounds)]

    def _rows(self, begin: int, end: int) -> Case:
        return {name: array[begin:end] for name, array in self.inputs.items()}


def read(
    path: Path, signature: Signature, rows: int | None = None, *, narrow: bool = True
) -> Dataset:
    """Read samples for the inputs of a signature: all of them, or the first ``rows``.

    Shards are read one at a time, and no further than is needed. Arrays get the dtypes of
    the signature, but float64 stays float64 unless ``narrow``: a source that computes in
    float64 must see every digit.

    Raises:
        InputError: the file cannot be read, lacks an input, or an array does not fit it.
        MissingDependencyError: a table, without pandas.
    """
    arrays = _arrays(path, signature, rows)
    labels = None
    for name in LABEL_NAMES:
        if name in arrays and name not in {spec.name for spec in signature.inputs}:
            labels = _labels(path, arrays.pop(name))
            break
    if len(signature.inputs) == 1 and len(arrays) == 1 and path.suffix == ".npz":
        arrays = {signature.inputs[0].name: next(iter(arrays.values()))}
    inputs = {spec.name: _fitted(path, spec, arrays, narrow) for spec in signature.inputs}
    sizes = {name: len(array) for name, array in inputs.items()}
    if labels is not None:
        sizes["labels"] = len(labels)
    if len(set(sizes.values())) > 1:
        raise InputError(f"'{path.name}' has arrays of different lengths: {sizes}")
    if not min(sizes.values(), default=0):
        raise InputError(f"'{path.name}' holds no samples")
    samples = _in_whole_batches(path, Dataset(inputs, labels, _fixed_batch(signature)))
    return samples if rows is None else samples.head(rows)


def _fixed_batch(signature: Signature) -> int | None:
    shape = signature.inputs[0].shape
    return shape[0] if shape and isinstance(shape[0], int) else None


def _in_whole_batches(path: Path, samples: Dataset) -> Dataset:
    """Drop the last samples that do not fill a batch, where its size is fixed."""
    size = samples.fixed_batch
    if not size or len(samples) % size == 0:
        return samples
    if len(samples) < size:
        raise InputError(
            f"the model takes {size} samples at once; '{path.name}' has {len(samples)}"
        )
    return samples.head(len(samples))


def _labels(path: Path, array: Array) -> Array:
    if array.ndim == 0:
        raise InputError(f"'{path.name}' has one label for all samples, not one for each")
    flat = np.asarray(array).reshape(len(array), -1)
    column: Array = flat[:, 0] if flat.shape[1] == 1 else flat
    return column.astype(object) if dtype_of(column) is DType.STRING else column


def _shards(path: Path, rows: int | None) -> list[dict[str, Array]]:
    parts: list[dict[str, Array]] = []
    count = 0
    for shard in sorted(path.glob("*.npz")):
        parts.append(_npz(shard))
        count += max((len(array) for array in parts[-1].values() if array.ndim), default=0)
        if rows is not None and count >= rows:
            break
    return parts


def _arrays(path: Path, signature: Signature, rows: int | None) -> dict[str, Array]:
    if path.is_dir():
        parts = _shards(path, rows)
        if not parts:
            raise InputError(f"the directory '{path}' holds no .npz shards")
        names = set(parts[0])
        if any(set(part) != names for part in parts):
            raise InputError(f"the shards in '{path.name}' do not all hold the same arrays")
        try:
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        except ValueError as error:
            raise InputError(f"the shards in '{path.name}' do not fit together: {error}") from None
    if not path.is_file():
        raise InputError(f"there is no data file '{path}'")
    match path.suffix.lower():
        case ".npz":
            return _npz(path)
        case ".npy":
            if len(signature.inputs) > 1:
                raise InputError(
                    f"'{path.name}' holds one array, the model has {len(signature.inputs)} inputs",
                    hint="use .npz with an array for each input",
                )
            return {signature.inputs[0].name: _npy(path)}
        case ".csv" | ".parquet":
            return _table(path)
    raise InputError(
        f"cannot tell what data '{path.name}' holds", hint="use .npz, .npy, .csv or .parquet"
    )


def _npz(path: Path) -> dict[str, Array]:
    return dict(_load(path).items())


def _npy(path: Path) -> Array:
    arrays = _load(path)
    if list(arrays) != [""]:
        raise InputError(f"'{path.name}' holds several arrays", hint="call it .npz")
    return arrays[""]


def _load(path: Path) -> dict[str, Array]:
    """The arrays of a file by name; a single array, as ``.npy`` holds it, has no name."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded as archive:
            return {name: archive[name] for name in archive.files}
    # NumPy hands on whatever its parsers of zip, zlib and headers raise on damaged bytes.
    except Exception as error:
        raise InputError(f"cannot read '{path.name}': {error}") from None


def _table(path: Path) -> dict[str, Array]:
    try:
        import pandas
    except ModuleNotFoundError:
        raise MissingDependencyError(
            f"reading '{path.name}' needs pandas", hint="pip install 'modelpack-cli[sklearn]'"
        ) from None
    try:
        frame: Any = (
            pandas.read_csv(path) if path.suffix.lower() == ".csv" else pandas.read_parquet(path)
        )
    except Exception as error:  # pandas and its engines raise a class for each kind of damage
        raise InputError(f"cannot read '{path.name}': {error}") from None
    return {str(name): frame[name].to_numpy() for name in frame.columns}


def _fitted(path: Path, spec: TensorSpec, arrays: dict[str, Array], narrow: bool) -> Array:
    """The array for an input: under its name, or put together from its columns."""
    array = arrays.get(spec.name)
    if array is None and spec.columns and set(spec.columns) <= set(arrays):
        array = np.stack([arrays[column] for column in spec.columns], axis=-1)
    if array is None:
        missing = [column for column in spec.columns if column not in arrays]
        wanted = f"columns {missing[:5]}" if missing else f"an array '{spec.name}'"
        raise InputError(
            f"'{path.name}' lacks {wanted} for the input '{spec}'; it holds "
            + ", ".join(list(arrays)[:8])
        )
    return _cast(path, spec, array, narrow)


def _cast(path: Path, spec: TensorSpec, array: Array, narrow: bool) -> Array:
    rank = None if spec.shape is None else len(spec.shape)
    if rank is not None and array.ndim == rank - 1 and spec.shape and spec.shape[-1] == 1:
        array = array[..., np.newaxis]
    if array.ndim == 0:
        raise InputError(f"'{path.name}': '{spec.name}' is one value, not an array of samples")
    given = dtype_of(array)
    both_float = given.is_float and spec.dtype.is_float
    widens = (given.is_integer or given is DType.BOOL) and spec.dtype.is_float
    both_integer = given.is_integer and spec.dtype.is_integer
    if given is not spec.dtype and not (both_float or widens or both_integer):
        raise InputError(f"'{path.name}': '{spec.name}' is {given}, the model takes {spec.dtype}")
    wide = both_float and given is DType.FLOAT64 and not narrow
    cast = array if wide else array.astype(numpy_dtype(spec.dtype))
    if both_integer and not np.array_equal(cast, array):
        raise InputError(f"'{path.name}': values of '{spec.name}' do not fit {spec.dtype}")
    if rank is not None and (
        cast.ndim != rank
        or any(
            isinstance(dim, int) and axis > 0 and dim != size
            for axis, (dim, size) in enumerate(zip(spec.shape or (), cast.shape, strict=True))
        )
    ):
        raise InputError(f"'{path.name}': '{spec.name}' has shape {list(cast.shape)}, not {spec}")
    return cast
