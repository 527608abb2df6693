"""What goes into a fitted scikit-learn estimator: its columns, and their types.

Estimators know the number and perhaps the names of their columns, not their types. Types
are taken from the categories that encoders learned, and are float32 otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from modelpack.adapters.boosters import columns_of_booster, is_booster
from modelpack.adapters.sklearn_loading import children
from modelpack.errors import InputError
from modelpack.samples import Array
from modelpack.signature import DType, TensorSpec

ENCODERS = {"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"}
# They take texts, one a row.
OF_TEXT = {"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"}
PRESERVING = {"SimpleImputer", "KNNImputer", "IterativeImputer", "VarianceThreshold"}
# They take labels, one a row.
OF_LABELS = {"LabelEncoder", "LabelBinarizer"}
BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Columns:
    """How an estimator takes its data.

    Attributes:
        kind: ``matrix`` (one array), ``columns`` (one input per column) or ``text``.
        names: names of the columns it was fitted on; empty when it was fitted on an array.
        positions: which columns of the fitted data the inputs are, for ``columns``.
        dtypes: element type of each column.
        width: number of columns of the fitted data.
        missing: what stands for a missing value in columns of objects, by position. As an
            input it is NaN, or of text what Python prints for it: nan, None.
    """

    kind: str
    names: tuple[str, ...]
    positions: tuple[int, ...]
    dtypes: tuple[DType, ...]
    width: int
    missing: dict[int, Any] = field(default_factory=dict)


def columns_of(model: Any) -> Columns:
    """Find out the columns that a fitted estimator takes.

    Raises:
        InputError: the estimator does not tell them.
    """
    first = first_step(model)
    if takes_text(first):
        _refuse_files(first)
        return Columns("text", (), (), (DType.STRING,), 1)
    names = tuple(map(str, getattr(model, "feature_names_in_", ())))
    width = getattr(model, "n_features_in_", None)
    if is_booster(model):
        names, width = columns_of_booster(model)
    if type(first).__name__ == "IsotonicRegression":
        width = 1
    if type(model).__name__ in OF_LABELS:
        return Columns("matrix", (), (0,), (category_dtype(np.asarray(model.classes_)),), 1)
    if width is None:
        raise InputError(
            f"the {type(model).__name__} does not tell how many columns it takes",
            hint="describe its input, for example --input 'X:float32[batch,4]'",
        )
    _refuse_hidden_text(model, first)
    known = _of_columns(_dtypes, model, range(width), names)
    dtypes = tuple(known.get(index, DType.FLOAT32) for index in range(width))
    missing = _of_columns(_missing, model, range(width), names)
    mixed = len(set(dtypes)) > 1
    if not mixed and not (dtypes[0] is DType.STRING and _share_nothing(model, names, width)):
        return Columns("matrix", names, tuple(range(width)), dtypes, width, missing)
    used = _used(first, width, names)
    return Columns("columns", names, used, tuple(dtypes[i] for i in used), width, missing)


def takes_text(step: Any) -> bool:
    """Whether a step is a text vectorizer, or all steps that stand side by side in it are."""
    if type(step).__name__ != "FeatureUnion":
        return type(step).__name__ in OF_TEXT
    parts = [part for _, part in step.transformer_list if part != "drop"]
    return bool(parts) and all(takes_text(first_step(part)) for part in parts)


def _refuse_files(step: Any) -> None:
    for part in [first_step(part) for _, part in getattr(step, "transformer_list", [("", step)])]:
        if getattr(part, "input", "content") != "content":
            raise InputError(
                f"the {type(part).__name__} reads its texts from files (input={part.input!r})",
                hint="set its input to 'content', and give texts",
            )


def input_specs(columns: Columns) -> tuple[TensorSpec, ...]:
    """Return the inputs of an estimator that takes these columns."""
    if columns.kind == "text":
        return (TensorSpec("text", DType.STRING, (BATCH, 1)),)
    if columns.kind == "matrix":
        shape = (BATCH, columns.width)
        return (TensorSpec("X", columns.dtypes[0], shape, columns=columns.names),)
    originals = [columns.names[i] if columns.names else f"x{i}" for i in columns.positions]
    return tuple(
        TensorSpec(name, dtype, (BATCH, 1), columns=(original,) if columns.names else ())
        for name, original, dtype in zip(
            _tensor_names(originals), originals, columns.dtypes, strict=True
        )
    )


def _tensor_names(originals: Sequence[str]) -> list[str]:
    """Make column names usable as tensor names, and keep them different."""
    names: list[str] = []
    for original in originals:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", original)
        name = name if re.match(r"[A-Za-z_]", name) else f"_{name}"
        while name in names:
            name += "_"
        names.append(name)
    return names


def first_step(model: Any) -> Any:
    """Return the step that a pipeline feeds first; an estimator that is no pipeline itself."""
    while hasattr(model, "steps"):
        steps = [step for _, step in model.steps if step not in (None, "passthrough")]
        if not steps:
            return model
        model = steps[0]
    return model


def final_step(model: Any) -> Any:
    """Return the last step of a pipeline; an estimator that is no pipeline itself."""
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return model


def _used(first: Any, width: int, names: tuple[str, ...]) -> tuple[int, ...]:
    """Columns that are read. Positions shift without the others, so those stay then."""
    if not hasattr(first, "transformers_") or not names:
        return tuple(range(width))
    used: set[int] = set()
    for _, transformer, selection in first.transformers_:
        if transformer is None or (isinstance(transformer, str) and transformer == "drop"):
            continue
        if not all(isinstance(item, str) for item in _as_list(selection)):
            return tuple(range(width))
        used.update(positions_of(selection, width, names))
    return tuple(sorted(used))


def _as_list(selection: Any) -> list[Any]:
    if isinstance(selection, str | int | slice):
        return [selection]
    return list(selection)


def positions_of(selection: Any, width: int, names: tuple[str, ...]) -> list[int]:
    """Resolve a column selection of a ColumnTransformer to positions."""
    if isinstance(selection, slice):
        if isinstance(selection.start, str) or isinstance(selection.stop, str):
            start = names.index(selection.start) if selection.start else 0
            stop = names.index(selection.stop) + 1 if selection.stop else width
            return list(range(start, stop))
        return list(range(width))[selection]
    items = _as_list(selection)
    if items and all(isinstance(item, bool | np.bool_) for item in items):
        return [index for index, chosen in enumerate(items) if chosen]
    return [
        names.index(item) if isinstance(item, str) else range(width)[int(item)] for item in items
    ]


def _of_columns(
    told: Callable[[Any], list[Any] | None],
    model: Any,
    positions: Iterable[int],
    names: tuple[str, ...],
) -> dict[int, Any]:
    """What fitted steps betray of the columns at these positions.

    Args:
        told: what one step does of each of its columns; None in it or for it is nothing.
        model: a fitted estimator.
        positions: of the columns that it is given.
        names: of these, if they have names.
    """
    where = list(positions)
    found: dict[int, Any] = {}
    if hasattr(model, "transformers_"):
        for _, step, selection in model.transformers_:
            chosen = [where[index] for index in positions_of(selection, len(where), names)]
            found = {**found, **_of_columns(told, step, chosen, ())}
        return found
    if hasattr(model, "steps"):
        for step in steps_on(model, len(where)):
            found = {**_of_columns(told, step, where, names), **found}
        return found
    if hasattr(model, "transformer_list"):
        for _, step in model.transformer_list:
            found = {**found, **_of_columns(told, step, where, names)}
        return found
    each = told(model)
    if each is None:
        for _, child in children(model):  # of what asks others, given the same columns
            if getattr(child, "n_features_in_", None) == len(where):
                return _of_columns(told, child, where, names)
        return {}
    return {index: value for index, value in zip(where, each, strict=False) if value is not None}


def _refuse_hidden_text(model: Any, first: Any) -> None:
    """Refuse categories of text that other steps hand on: the input's columns do not tell them.

    Raises:
        InputError: there are some.
    """
    last = final_step(model)
    boosts = type(last).__name__.startswith("HistGradientBoosting") and last is not first
    if boosts and any(kind is not None for kind in _dtypes(last) or ()):
        raise InputError(
            f"the {type(last).__name__} takes categories of text from the steps before it",
            hint="encode them before it: OrdinalEncoder, and its numbers as categorical_features",
        )


def steps_on(model: Any, width: int) -> Iterator[Any]:
    """The first steps of a pipeline, as long as they are given the columns that it is given."""
    for _, step in model.steps:
        if getattr(step, "n_features_in_", width) != width:
            return
        yield step
        if type(step).__name__ not in PRESERVING:
            return


def _dtypes(model: Any) -> list[Any] | None:
    """Types of the columns of one step."""
    name, width = type(model).__name__, getattr(model, "n_features_in_", 1)
    if name in ENCODERS:
        return [category_dtype(values) for values in model.categories_]
    if name in OF_TEXT:
        return [DType.STRING]
    if name == "CategoricalNB":
        return [DType.INT64] * width
    if name.startswith("HistGradientBoosting"):
        return [
            DType.STRING if values is not None and category_dtype(values) is DType.STRING else None
            for values in categories_of_histograms(model)
        ]
    if _imputes_text(model):
        return [DType.STRING] * width
    return None


def _imputes_text(model: Any) -> bool:
    if type(model).__name__ == "MissingIndicator":
        return not isinstance(model.missing_values, int | float | np.number)
    fitted: np.dtype[Any] = getattr(model, "_fit_dtype", np.dtype(float))
    return type(model).__name__ == "SimpleImputer" and fitted.kind in "OUST"


def categories_of_histograms(item: Any) -> list[Array | None]:
    """The categories of each column of a histogram boosting; None of columns of numbers."""
    categorical = getattr(item, "is_categorical_", None)
    if categorical is None or getattr(item, "_preprocessor", None) is None:
        return [None] * item.n_features_in_
    encoder = item._preprocessor.named_transformers_["encoder"]
    found: list[Array | None] = [None] * len(categorical)
    for column, values in zip(np.flatnonzero(categorical), encoder.categories_, strict=True):
        found[column] = values
    return found


@dataclass(frozen=True, slots=True)
class _Missing:
    """What stands for a missing value in a column of objects; None is one."""

    value: Any


def _missing(model: Any) -> list[Any] | None:
    """What stands for a missing value in the columns of one step that are no numbers."""
    if type(model).__name__ in ENCODERS:
        return [_missing_among(values) for values in model.categories_]
    if _imputes_text(model) and pd.isna(model.missing_values):
        return [_Missing(model.missing_values)] * model.n_features_in_
    return None


def _missing_among(categories: Array) -> _Missing | None:
    if categories.dtype.kind != "O":
        return None
    found = [_Missing(value) for value in categories if pd.isna(value)]
    if found:
        return found[0]
    return None if category_dtype(categories) is DType.STRING else _Missing(np.nan)


def _categories(model: Any) -> list[Any] | None:
    """The only values that each column of one step may have."""
    refuses = getattr(model, "handle_unknown", "") == "error"
    return list(model.categories_) if type(model).__name__ in ENCODERS and refuses else None


def _share_nothing(model: Any, names: tuple[str, ...], width: int) -> bool:
    """Whether no text may be in all columns of a table."""
    found = _of_columns(_categories, model, range(width), names).values()
    texts = [{str(value) for value in categories} for categories in found]
    return len(texts) > 1 and not set.intersection(*texts)


def category_dtype(values: Array) -> DType:
    if values.dtype.kind in "iub":
        return DType.INT64
    if values.dtype.kind == "f":
        return DType.FLOAT32
    present = [value for value in values if not pd.isna(value)]
    if any(isinstance(value, str) for value in present):
        return DType.STRING
    whole = all(isinstance(value, int | np.integer) for value in present)
    return DType.INT64 if whole and len(present) == len(values) else DType.FLOAT32
