"""What comes out of a fitted scikit-learn estimator, and its signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import is_classifier, is_outlier_detector, is_regressor

from modelpack.adapters.boosters import ranks
from modelpack.adapters.sklearn_columns import (
    BATCH,
    OF_LABELS,
    Columns,
    final_step,
)
from modelpack.errors import ConversionError, InputError
from modelpack.samples import SIZES, Array, numpy_dtype
from modelpack.signature import DType, Meaning, Signature, TensorSpec
from modelpack.steps import Range


def has_several_labels(model: Any) -> bool:
    """Whether a fitted classifier, or the last step of a pipeline, has several labels a row."""
    last = final_step(model)
    if isinstance(getattr(last, "classes_", None), list):
        return True
    binarizer = getattr(last, "label_binarizer_", getattr(last, "_label_binarizer", None))
    return str(getattr(binarizer, "y_type_", "")).startswith("multilabel")


# --- feeding and calling -------------------------------------------------------------


def data_for(columns: Columns, arrays: Sequence[Array]) -> Any:
    """Arrange input arrays as the estimator was fitted: a matrix, a data frame or texts."""
    if columns.kind == "text":
        return [str(item) for item in arrays[0].reshape(-1)]
    if columns.kind == "matrix" and not columns.missing:
        return pd.DataFrame(arrays[0], columns=list(columns.names)) if columns.names else arrays[0]
    whole = columns.kind == "matrix"
    flat = list(arrays[0].T) if whole else [array.reshape(-1) for array in arrays]
    flat = [
        _with_missing(columns, index, array)
        for index, array in zip(columns.positions, flat, strict=True)
    ]
    if columns.names:
        originals = [columns.names[index] for index in columns.positions]
        return pd.DataFrame(dict(zip(originals, flat, strict=True)))
    matrix = np.empty((len(flat[0]), columns.width), dtype=object)
    for index, column in zip(columns.positions, flat, strict=True):
        matrix[:, index] = column
    return matrix


def _with_missing(columns: Columns, index: int, values: Array) -> Any:
    """A column as objects, with missing values in the places of what stands for them."""
    if index not in columns.missing:
        return values
    marker = columns.missing[index].value
    objects = values.astype(object)
    if values.dtype.kind == "O":
        gone = np.array([str(value) == str(marker) for value in objects], bool)
    else:
        gone = np.isnan(values)
    objects[gone] = marker
    return pd.Series(objects, dtype=object) if columns.names else objects


def sample(
    specs: Sequence[TensorSpec], ranges: dict[str, Range], rows: int, *, missing: bool = False
) -> list[Array]:
    """Make up ``rows`` rows of usual values; floats are NaN when ``missing``."""
    rng = np.random.default_rng(0)
    arrays: list[Array] = []
    for spec in specs:
        rest = (spec.shape or ())[1:]
        shape = (rows, *(dim if isinstance(dim, int) else SIZES[1] for dim in rest))
        usual = ranges.get(spec.name, Range())
        if spec.dtype is DType.STRING:
            words = np.array(usual.values or ("a", "b"), dtype=object)
            arrays.append(words[rng.integers(0, len(words), shape)])
            continue
        low = np.asarray(usual.low or (-1.0 if spec.dtype.is_float else 0.0,))
        high = np.asarray(usual.high or (1.0,))
        values = low + (high - low) * rng.random(shape)
        if spec.dtype.is_float and missing:
            values = np.full(shape, np.nan)
        values = values if spec.dtype.is_float else np.round(values)
        arrays.append(values.astype(numpy_dtype(spec.dtype)))
    return arrays


class Role(NamedTuple):
    """One answer of an estimator.

    Attributes:
        name: of the output.
        meaning: what it says, if that is known.
        method: of the estimator.
        part: which of several arrays that the method gives.
    """

    name: str
    meaning: Meaning | None
    method: str
    part: int | None = None


_LABEL = Role("label", Meaning.LABEL, "predict")
_PROBABILITIES = Role("probabilities", Meaning.PROBABILITIES, "predict_proba")
_SCORES = Role("scores", Meaning.SCORES, "decision_function")


def roles_of(model: Any) -> list[Role]:
    """Return what the estimator answers.

    Raises:
        ConversionError: the estimator answers nothing for new data.
    """
    if is_classifier(model):
        if isinstance(getattr(model, "classes_", None), list):
            return _roles_of_several(model)
        if hasattr(model, "predict_proba"):
            return [_LABEL, _PROBABILITIES]
        return [_LABEL, _SCORES] if hasattr(model, "decision_function") else [_LABEL]
    if is_regressor(model) or ranks(model):
        return [Role("prediction", Meaning.PREDICTION, "predict")]
    if is_outlier_detector(model) and hasattr(model, "predict"):
        return [_LABEL, _SCORES]
    if hasattr(model, "predict"):
        return [_LABEL, _PROBABILITIES] if hasattr(model, "predict_proba") else [_LABEL]
    if hasattr(model, "transform"):
        return [Role("output", None, "transform")]
    if hasattr(model, "score_samples"):
        return [_SCORES._replace(method="score_samples")]
    raise ConversionError(f"a {type(model).__name__} neither predicts nor transforms new data")


def _roles_of_several(model: Any) -> list[Role]:
    """What a classifier answers that has a list of classes for each of several labels."""
    chained = hasattr(final_step(model), "chain_method_")
    if chained and any(len(classes) != 2 for classes in model.classes_):
        return [_LABEL]  # a chain has one probability for each label
    if hasattr(model, "predict_proba"):
        if chained:
            return [_LABEL, _PROBABILITIES]
        parts = range(len(model.classes_))
        return [
            _LABEL,
            *(_PROBABILITIES._replace(name=f"probabilities_{part}", part=part) for part in parts),
        ]
    return [_LABEL, _SCORES] if hasattr(model, "decision_function") else [_LABEL]


def output_specs(model: Any, columns: Columns, arrays: Sequence[Array]) -> tuple[TensorSpec, ...]:
    """Return the outputs of an estimator, their shapes found by calling it on a few rows.

    Raises:
        InputError: the estimator does not take such rows.
    """
    roles = roles_of(model)
    results = answers(model, columns, arrays)
    specs = []
    for role, result in zip(roles, results, strict=True):
        dtype = {"f": DType.FLOAT32, "i": DType.INT64}.get(result.dtype.kind, DType.STRING)
        spec = TensorSpec(role.name, dtype, (BATCH, *result.shape[1:]), meaning=role.meaning)
        classes = _classes_of(model, role, result)
        specs.append(replace(spec, classes=classes) if classes else spec)
    return tuple(specs)


def _classes_of(model: Any, role: Role, result: Array) -> tuple[str | int | float | bool, ...]:
    """The classes that an output is about; none if it is about several sets of them."""
    classes = getattr(model, "classes_", None)
    if classes is None or not (role.meaning is Meaning.LABEL or result.ndim == 2):
        return ()
    if role.meaning is Meaning.LABEL and result.ndim == 2:  # 0 and 1 for each class, or several
        return ()
    if isinstance(classes, list):
        if role.part is None:
            return ()
        classes = classes[role.part]
    return tuple(_plain_class(item) for item in classes)


def _plain_class(value: Any) -> str | int | float | bool:
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, str | int | float | bool) else str(plain)


def answers(model: Any, columns: Columns, arrays: Sequence[Array]) -> list[Array]:
    """Call the estimator; the results correspond to `roles_of`.

    Floats are float32, whole labels int64, other labels strings, and nothing is sparse.

    Raises:
        InputError: the estimator does not take the data.
    """
    data = data_for(columns, arrays)
    if type(model).__name__ in OF_LABELS:
        data = np.ravel(data)
    results = []
    for _, meaning, method, part in roles_of(model):
        result = _call(model, method, data)
        result = result if part is None else result[part]
        result = result.toarray() if sparse.issparse(result) else np.asarray(result)
        if method == "transform" and result.ndim == 1 and np.ndim(data) == 2 and len(data) == 1:
            result = result[None]  # some drop the only row (SparsePCA)
        results.append(_labels(result, model) if meaning is Meaning.LABEL else _floats(result))
    return results


def _call(model: Any, method: str, data: Any) -> Any:
    try:
        try:
            return getattr(model, method)(data)
        except (TypeError, ValueError) as error:
            if "Buffer dtype mismatch" not in str(error) and "same dtype" not in str(error):
                raise
            # Some compiled parts only take the type the estimator was fitted on.
            other = np.float32 if data.dtype == np.float64 else np.float64
            return getattr(model, method)(data.astype(other))
    except Exception as error:  # estimators raise many kinds on unsuitable data
        raise InputError(f"{type(model).__name__}.{method} fails on the data: {error}") from error


def _labels(result: Array, model: Any) -> Array:
    if result.ndim == 2 and result.shape[1] == 1:  # as CatBoost gives them
        result = result[:, 0]
    if result.dtype.kind in "iub":
        return result.astype(np.int64)
    if result.dtype.kind == "f":
        if not (result == np.round(result)).all():
            raise ConversionError(f"{type(model).__name__} has classes that are fractions")
        return result.astype(np.int64)
    return np.array([str(item) for item in result.reshape(-1)], dtype=object).reshape(result.shape)


def _floats(result: Array) -> Array:
    if result.dtype.kind in "fiub":
        return result.astype(np.float32)
    try:
        return result.astype(np.float32)
    except (TypeError, ValueError):
        return np.array([str(item) for item in result.flat], object).reshape(result.shape)


def signature_of(
    model: Any, columns: Columns, specs: tuple[TensorSpec, ...], ranges: dict[str, Range]
) -> Signature:
    """Return the native signature of a fitted estimator."""
    return Signature(specs, output_specs(model, columns, sample(specs, ranges, 3)))


def accepts_missing(
    model: Any, columns: Columns, specs: Sequence[TensorSpec], ranges: dict[str, Range]
) -> bool:
    """Whether the estimator answers for a row whose floats are all missing (NaN)."""
    if not any(spec.dtype.is_float for spec in specs):
        return False
    try:
        answers(model, columns, sample(specs, ranges, 1, missing=True))
    except InputError:
        return False
    return True
