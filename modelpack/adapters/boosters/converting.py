"""Boosters to ONNX, as converters that skl2onnx calls, so that they may end a pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
from skl2onnx import update_registered_converter
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

from modelpack.adapters.boosters.from_lightgbm import ZERO
from modelpack.adapters.boosters.reading import read
from modelpack.adapters.boosters.scores import TRANSFORMS, both_classes, second_class
from modelpack.adapters.boosters.trees import Forest, ensemble
from modelpack.adapters.sklearn_converters.writer import Writer

# Those that skl2onnx asks of classifiers.
_OPTIONS = {"zipmap": [True, False, "columns"], "output_class_labels": [False, True]}


def register(kind: type) -> None:
    """Let skl2onnx know the class of a booster."""
    if kind in sklearn_operator_name_map:
        return
    update_registered_converter(
        kind,
        f"Modelpack{kind.__name__}",
        _shapes,
        _convert,
        options=_OPTIONS if hasattr(kind, "predict_proba") else None,
        parser=_parse,
    )


def _parse(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> Any:
    """Declare what a booster answers: label and probabilities, or a prediction."""
    operator = scope.declare_local_operator(sklearn_operator_name_map[type(model)], model)
    operator.inputs = inputs
    if hasattr(model, "predict_proba"):
        operator.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
        operator.outputs.append(scope.declare_local_variable("probabilities", FloatTensorType()))
    else:
        operator.outputs.append(scope.declare_local_variable("variable", FloatTensorType()))
    return operator.outputs


def _shapes(operator: Any) -> None:
    """Types and sizes of what a booster answers."""
    item = operator.raw_operator
    rows = operator.inputs[0].get_first_dimension()
    if hasattr(item, "predict_proba"):
        text = np.asarray(item.classes_).dtype.kind not in "iubf"
        operator.outputs[0].type = (StringTensorType if text else Int64TensorType)([rows])
        operator.outputs[1].type = FloatTensorType([rows, len(item.classes_)])
    else:
        operator.outputs[0].type = FloatTensorType([rows, read(item).targets])


def sums_of(writer: Writer, item: Any, rows: str) -> str:
    """The sums of a booster's trees, float32 ``[rows, targets]``.

    Args:
        writer: of the booster, or of an estimator that asks it.
        item: the booster.
        rows: float32.
    """
    forest = read(item)
    given = _missing_marked(writer, rows, forest, item.n_features_in_)
    return writer.op("TreeEnsembleRegressor", given, domain="ai.onnx.ml", **ensemble(forest))


def _convert(scope: Any, operator: Any, container: Any) -> None:
    writer = Writer(scope, operator, container)
    forest = read(writer.item)
    sums = sums_of(writer, writer.item, writer.rows("float32"))
    answers = TRANSFORMS[forest.transform](writer, sums)
    if not hasattr(writer.item, "predict_proba"):
        writer.finish(answers)
    elif forest.targets == 1:
        best = second_class(writer, answers)
        label = writer.chosen_labels(best, writer.item.classes_)
        writer.finish(label, both_classes(writer, answers))
    else:
        writer.finish_classes(answers)


def _missing_marked(writer: Writer, rows: str, forest: Forest, width: int) -> str:
    """Replace what a booster takes for a missing value by NaN."""
    nan = writer.constant(np.nan, "float32")
    if forest.missing is not None:
        given = writer.op("Equal", rows, writer.constant(forest.missing, "float32"))
        rows = writer.op("Where", given, nan, rows)
    if forest.zero_missing:
        # Other columns are compared with a number that no magnitude is below.
        width = max(width, *(index + 1 for index in forest.zero_missing))
        limits = np.full(width, -1.0)
        limits[list(forest.zero_missing)] = ZERO
        size = writer.op("Abs", rows)
        above = writer.op("Greater", size, writer.constant(limits, "float32"))
        rows = writer.op("Where", above, rows, nan)
    return rows
