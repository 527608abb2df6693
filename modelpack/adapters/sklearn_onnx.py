"""Fitted scikit-learn estimators to ONNX with skl2onnx, and what has to be put right after."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx.helper
import onnxruntime
import skl2onnx
import skl2onnx.common._container
from onnx import TensorProto, numpy_helper
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
    guess_proto_type,
)
from skl2onnx.common.utils import get_column_index as _their_column_index
from skl2onnx.operator_converters.common import concatenate_variables
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
)
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from modelpack import onnx_graph
from modelpack.adapters import sklearn_forms as forms
from modelpack.adapters.boosters import is_booster
from modelpack.adapters.boosters.converting import register as register_booster
from modelpack.adapters.sklearn_columns import Columns, final_step
from modelpack.adapters.sklearn_converters.imputers import ImputedEncoder
from modelpack.adapters.sklearn_converters.registering import register
from modelpack.adapters.sklearn_converters.writer import attach_few_trees
from modelpack.adapters.sklearn_loading import walk
from modelpack.adapters.sklearn_precision import wants_float64
from modelpack.adapters.sklearn_refusals import (
    refuse_unsupported,
)
from modelpack.adapters.sklearn_trees import add_isolation_forest
from modelpack.errors import ConversionError, UnsupportedOpsError, first_line
from modelpack.samples import Array
from modelpack.signature import DType, Signature, TensorSpec

OPSET = 21
ML_OPSET = 3  # ONNX Runtime and skl2onnx know the tree ops of later versions only in part
_TYPES = {
    DType.FLOAT32: FloatTensorType,
    DType.INT64: Int64TensorType,
    DType.STRING: StringTensorType,
}
_ELEMENTS = {
    DType.FLOAT32: TensorProto.FLOAT,
    DType.INT64: TensorProto.INT64,
    DType.STRING: TensorProto.STRING,
}
# Estimators whose answers jump where a value passes a threshold.
_STEPS = (
    *("DecisionTree", "RandomForest", "ExtraTree", "GradientBoosting", "HistGradient"),
    *("RandomTrees", "KBins", "Binarizer"),
)
# Ops whose versions from 9 to 21 add element types or optional attributes, and change nothing
# for a node that was written for an earlier one (the ONNX operator change log).
_ONLY_EXTENDED = {
    *("Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "Ceil", "Concat", "Constant", "Div"),
    *("Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "Gemm", "Greater"),
    *("Identity", "IsNaN", "Less", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow"),
    *("Reciprocal", "Relu", "Reshape", "Shape", "Sigmoid", "Sign", "Sqrt", "Sub", "Tanh", "Tile"),
    *("Transpose", "Where", "Xor"),
}
_SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)
# Those that are given columns of several types as they are; others get one matrix.
_OF_SEVERAL_TYPES = (
    *(ColumnTransformer, HistGradientBoostingClassifier, HistGradientBoostingRegressor),
    *(ImputedEncoder, MissingIndicator, OneHotEncoder, OrdinalEncoder, SimpleImputer),
    TargetEncoder,
)
# A name that no estimator's own tensors have.
_INNER = "inner_"


def convert(model: Any, columns: Columns, signature: Signature, opset: int | None) -> Any:
    """Return the `onnx.ModelProto` of an estimator, before outputs are fitted.

    Raises:
        UnsupportedOpsError: steps cannot be converted faithfully; all are listed.
        ConversionError: skl2onnx fails.
    """
    boosters = {type(item) for _, item in walk(model) if is_booster(item)}
    for kind in boosters:
        register_booster(kind)
    prepared = forms.prepared(model, columns)
    register(prepared)
    refuse_unsupported(prepared)
    if wants_float64(model):
        with contextlib.suppress(ConversionError):
            made = _converted(prepared, _types(columns, signature, wide=True), opset, wide=True)
            if _loads(made):
                return made
    return _converted(prepared, _types(columns, signature, wide=False), opset, wide=False)


def _types(columns: Columns, signature: Signature, *, wide: bool) -> list[tuple[str, Any]]:
    kinds = {**_TYPES, DType.FLOAT32: DoubleTensorType} if wide else _TYPES
    return [
        (_column_name(columns, index, spec), kinds[spec.dtype]([None, *(spec.shape or ())[1:]]))
        for index, spec in enumerate(signature.inputs)
    ]


def _loads(model: Any) -> bool:
    """Whether ONNX Runtime has all ops of a model for its types."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    attach_few_trees(copy)
    try:
        _session(copy)
    except Exception:  # ONNX Runtime raises its own unexported kinds
        return False
    return True


def _converted(prepared: Any, types: list[Any], opset: int | None, *, wide: bool) -> Any:
    own: dict[type, Any] = {IsolationForest: add_isolation_forest}
    if wide or _has_steps(prepared):
        own |= dict.fromkeys(_SCALERS, _scale_exactly)
    elif any(isinstance(item, MaxAbsScaler) and _clips(item) for _, item in walk(prepared)):
        own[MaxAbsScaler] = _scale_exactly  # theirs does not clip
    failure: Exception | None = None
    # Without an option of its own, the final classifier gets one that it may not know.
    for final_option in ({"zipmap": False}, {"nocl": False}, {}):
        try:
            with _patched():
                made = skl2onnx.convert_sklearn(
                    prepared,
                    name="model",
                    initial_types=types,
                    target_opset={"": opset or OPSET, "ai.onnx.ml": ML_OPSET},
                    options=_options(prepared, final_option),
                    custom_conversion_functions=own,
                )
            _widen_inputs(made)
            return made
        except NameError as error:  # an option that the final estimator does not know
            failure = error
        except UnsupportedOpsError:  # of a converter of our own
            raise
        except Exception as error:  # converters raise many kinds
            raise _refusal(error) from error
    raise _refusal(failure or ConversionError("no options fit")) from failure


def _refusal(error: BaseException) -> ConversionError:
    return ConversionError(
        f"skl2onnx cannot convert the model: {type(error).__name__}: {first_line(error)}"
    )


def _widen_inputs(model: Any) -> None:
    """Let a model that was converted for float64 take float32."""
    for value in model.graph.input:
        tensor = value.type.tensor_type
        if tensor.elem_type == TensorProto.DOUBLE:
            inner = f"{value.name}_as_double"
            for graph in onnx_graph.graphs(model.graph):
                for node in graph.node:
                    node.input[:] = [inner if name == value.name else name for name in node.input]
            cast = onnx.helper.make_node("Cast", [value.name], [inner], to=TensorProto.DOUBLE)
            model.graph.node.insert(0, cast)
            tensor.elem_type = TensorProto.FLOAT


def _column_name(columns: Columns, index: int, spec: TensorSpec) -> str:
    """The name by which a ColumnTransformer finds an input."""
    if columns.kind == "columns" and columns.names:
        return columns.names[columns.positions[index]]
    return spec.name


def _has_steps(model: Any) -> bool:
    """Whether the answer jumps where a value passes a threshold."""
    return any(
        type(item).__name__.startswith(_STEPS) or is_booster(item) for _, item in walk(model)
    )


def _scale_exactly(scope: Any, operator: Any, container: Any) -> None:
    """Write a scaler that rounds as scikit-learn's: what comes after may jump at a threshold.

    Every step is computed in float64 and rounded to float32, as NumPy does ``X *= scale_``
    for a float32 ``X`` and a float64 ``scale_`` (``transform`` in
    sklearn/preprocessing/_data.py). Integers become float64 for good, and float64 stays.
    """
    source = concatenate_variables(scope, operator.inputs, container)
    wide = Int64TensorType | DoubleTensorType
    single = not any(isinstance(value.type, wide) for value in operator.inputs)

    def append(op: str, *inputs: str, **attributes: Any) -> str:
        result = scope.get_unique_variable_name("scaled")
        name = scope.get_unique_operator_name(op)
        container.add_node(op, list(inputs), result, name=name, **attributes)
        return str(result)

    def constant(values: Any) -> str:
        name = scope.get_unique_variable_name("scale")
        array = np.asarray(values, np.float64)
        container.add_initializer(name, TensorProto.DOUBLE, array.shape, array.ravel())
        return str(name)

    for op, values in _arithmetic(operator.raw_operator, single):
        source = append("Cast", source, to=TensorProto.DOUBLE)
        source = append(op, source, constant(values))
        if single:
            source = append("Cast", source, to=TensorProto.FLOAT)
    element = guess_proto_type(operator.outputs[0].type)
    source = append("Cast", source, to=element)
    container.add_node("Identity", source, operator.outputs[0].full_name)


def _arithmetic(item: Any, single: bool) -> list[tuple[str, Any]]:
    """What a scaler computes, one step after the other."""
    if isinstance(item, MinMaxScaler):
        bounds = [("Max", item.feature_range[0]), ("Min", item.feature_range[1])]
        return [("Mul", item.scale_), ("Add", item.min_), *(bounds if item.clip else [])]
    if isinstance(item, StandardScaler):
        middle, spread = item.mean_ if item.with_mean else None, item.scale_
        if single:  # it alone casts its numbers to the type of X first
            middle, spread = (
                None if values is None else values.astype(np.float32) for values in (middle, spread)
            )
    else:
        middle, spread = getattr(item, "center_", None), item.scale_
    steps = [("Sub", middle), ("Div", spread)]
    if isinstance(item, MaxAbsScaler) and _clips(item):
        steps += [("Max", -1.0), ("Min", 1.0)]
    return [(op, values) for op, values in steps if values is not None]


def _clips(item: Any) -> bool:
    return bool(getattr(item, "clip", False))


def _options(model: Any, final_option: dict[str, bool]) -> dict[int, dict[str, Any]]:
    options: dict[int, dict[str, Any]] = {}
    final = final_step(model)
    if final_option and hasattr(final, "classes_"):
        options[id(final)] = dict(final_option)
    return options


@contextlib.contextmanager
def _patched() -> Iterator[None]:
    """Convert attribute values to plain numbers on their way into protobuf.

    Protobuf 7 refuses the bool and NumPy values that skl2onnx writes into integer fields.
    """
    original = onnx.helper.make_attribute

    def make_attribute(key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return original(key, _plain(value), *args, **kwargs)

    level = logging.getLogger("skl2onnx").level
    with (
        mock.patch.object(onnx.helper, "make_attribute", make_attribute),
        mock.patch.object(skl2onnx.common._container, "make_attribute", make_attribute),
        # It looks through every tree of a forest, for options of pipelines that none has here.
        mock.patch("skl2onnx._parse._process_options", _same_options),
        mock.patch.object(sys.modules["skl2onnx.convert"], "_process_options", _same_options),
        mock.patch("skl2onnx._parse.do_not_merge_columns", _OF_SEVERAL_TYPES),
        mock.patch("skl2onnx.common.utils.get_column_index", _column_index),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        logging.getLogger("skl2onnx").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("skl2onnx").setLevel(level)


def _same_options(_model: Any, options: Any) -> Any:
    return options


def _column_index(index: Any, inputs: list[Any]) -> tuple[int, int]:
    """The input that a column is in, and its place there.

    Of a single input that holds without its width, which is not known yet while skl2onnx reads
    the steps of a pipeline: it refuses a ColumnTransformer after another step.
    """
    if len(inputs) == 1 and isinstance(index, int | np.integer):
        return 0, int(index)
    return _their_column_index(index, inputs)


def _plain(value: Any) -> Any:
    if isinstance(value, bool | np.bool_ | np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def settle_opset(model: Any, wanted: int) -> None:
    """Declare the wanted opset where the file means the same in it; sort the declarations.

    skl2onnx declares the lowest opset that has the ops it used. A higher one is as right
    when none of these ops changed in between.
    """
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"} and opset.version < wanted:
            nodes = [node for graph in onnx_graph.graphs(model.graph) for node in graph.node]
            if opset.version >= 9 and all(
                node.op_type in _ONLY_EXTENDED
                or onnx.defs.get_schema(node.op_type, opset.version).since_version
                == onnx.defs.get_schema(node.op_type, wanted).since_version
                for node in nodes
                if node.domain in {"", "ai.onnx"}
            ):
                opset.version = wanted
    for holder in (model, *model.functions):  # their order is that of a set in skl2onnx
        declared = sorted(holder.opset_import, key=lambda item: str(item.domain))
        del holder.opset_import[:]
        holder.opset_import.extend(declared)
    model.ir_version = max(
        model.ir_version, onnx.helper.find_min_ir_version_for(list(model.opset_import), True)
    )


# --- after the conversion ------------------------------------------------------------


def rename_values(model: Any, names: dict[str, str]) -> None:
    """Rename tensors everywhere in a model."""
    for graph in onnx_graph.graphs(model.graph):
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = names.get(value.name, value.name)


def name_by_position(model: Any) -> None:
    """Name nodes and their results by their place in the file.

    skl2onnx numbers some of them with a counter of the process, so that a second conversion
    would give other names.
    """
    names: dict[str, str] = {}
    count = 0
    for graph in onnx_graph.graphs(model.graph):
        for constant in graph.initializer:
            names.setdefault(constant.name, f"constant_{len(names)}")
        for node in graph.node:
            node.name = f"{node.op_type}_{count}"
            for index, output in enumerate(node.output):
                if output:
                    names.setdefault(output, f"{node.name}_{index}")
            count += 1
    rename_values(model, names)


def all_values(model: Any) -> set[str]:
    """Return the names of all tensors of a model."""
    found: set[str] = set()
    for graph in onnx_graph.graphs(model.graph):
        found.update(value.name for value in (*graph.input, *graph.initializer))
        for node in graph.node:
            found.update(name for name in (*node.input, *node.output) if name)
    return found


def bind(
    model: Any, signature: Signature, arrays: Sequence[Array], expected: Sequence[Array]
) -> None:
    """Give the model exactly the inputs and outputs of the signature.

    The converter's outputs are taken in order, reshaped and cast where its declared shapes
    are wrong, and the sign and column of two-class scores found, by comparing with what
    the estimator answers (``expected``) for ``arrays``.

    Raises:
        ConversionError: an output cannot be made what the signature says.
    """
    name_by_position(model)
    graph = model.graph
    wanted = {spec.name for spec in (*signature.inputs, *signature.outputs)}
    clashes = {name: _INNER + name for name in all_values(model) if name in wanted}
    rename_values(model, clashes)
    rename_values(
        model,
        {value.name: spec.name for value, spec in zip(graph.input, signature.inputs, strict=True)},
    )
    feeds = {spec.name: array for spec, array in zip(signature.inputs, arrays, strict=True)}
    actual = _run(model, feeds)
    offered = [value.name for value in graph.output]
    if len(offered) < len(signature.outputs):
        raise ConversionError(
            f"skl2onnx writes {len(offered)} outputs, but the model has {len(signature.outputs)}"
        )
    del graph.output[:]
    del graph.value_info[:]
    for spec, source, want in zip(signature.outputs, offered, expected, strict=False):
        _fit_output(graph, spec, source, actual[source], want)
        graph.output.append(_value_info(spec))
    for value, spec in zip(graph.input, signature.inputs, strict=True):
        value.CopyFrom(_value_info(spec))
    _drop_unused(graph)


def _session(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(model: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    try:
        session = _session(model)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:  # ONNX Runtime raises its own unexported kinds
        raise ConversionError(
            f"ONNX Runtime cannot run the converted model: {first_line(error)}"
        ) from error


def _fit_output(graph: Any, spec: TensorSpec, source: str, have: Any, want: Array) -> None:
    """Append what turns the converter's output into the signature's."""
    if not isinstance(have, np.ndarray):
        raise ConversionError(f"skl2onnx writes '{spec.name}' as a {type(have).__name__}")
    rows = len(want)
    sign = 1
    if have.ndim == 2 and have.shape == (rows, 2) and want.shape == (rows,):
        column, sign = _score_column(have, want, spec)
        index = numpy_helper.from_array(np.array(column, np.int64), f"{spec.name}_column")
        graph.initializer.append(index)
        source = _append(graph, "Gather", [source, index.name], f"{spec.name}_picked", axis=1)
        have = have[:, column]
    elif have.dtype.kind == "f" and have.size == want.size and have.size:
        flat = have.reshape(want.shape)
        if np.allclose(-flat, want, 1e-3, 1e-5) and not np.allclose(flat, want, 1e-3, 1e-5):
            sign = -1
    if sign < 0:
        source = _append(graph, "Neg", [source], f"{spec.name}_negated")
    if have.shape != want.shape:
        if have.size != want.size:
            raise ConversionError(
                f"skl2onnx writes '{spec.name}' with the shape {have.shape}, not {want.shape}"
            )
        shape = numpy_helper.from_array(
            np.array([-1, *want.shape[1:]], np.int64), f"{spec.name}_shape"
        )
        graph.initializer.append(shape)
        source = _append(graph, "Reshape", [source, shape.name], f"{spec.name}_shaped")
    element = _ELEMENTS[spec.dtype]
    kinds = {DType.FLOAT32: "float32", DType.INT64: "int64", DType.STRING: "object"}
    if have.dtype.name != kinds[spec.dtype]:
        if DType.STRING in {spec.dtype} or have.dtype.kind == "O":
            raise ConversionError(f"skl2onnx writes '{spec.name}' as {have.dtype}")
        source = _append(graph, "Cast", [source], f"{spec.name}_cast", to=element)
    producer = next(node for node in graph.node if source in node.output)
    uses = sum(source in node.input for node in graph.node)
    if uses or source in {value.name for value in graph.input}:
        _append(graph, "Identity", [source], spec.name)
    else:
        producer.output[:] = [spec.name if name == source else name for name in producer.output]


def _score_column(have: Array, want: Array, spec: TensorSpec) -> tuple[int, int]:
    """Find the column and sign of two-class scores: converters differ in both."""
    # Where the largest are told apart, the small ones may have lost their digits.
    apart = max(1e-5, 1e-3 * float(np.abs(want[np.isfinite(want)]).max(initial=0.0)))
    for column in (1, 0):
        for sign in (1, -1):
            if np.allclose(sign * have[:, column], want, 1e-3, apart):
                return column, sign
    raise ConversionError(f"skl2onnx writes other values than the model's as '{spec.name}'")


def _append(graph: Any, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
    graph.node.append(onnx.helper.make_node(op, inputs, [output], name=output, **attributes))
    return output


def _value_info(spec: TensorSpec) -> Any:
    return onnx.helper.make_tensor_value_info(spec.name, _ELEMENTS[spec.dtype], spec.shape)


def _drop_unused(graph: Any) -> None:
    """Remove nodes and constants that no output needs any more."""
    needed = {value.name for value in graph.output}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if needed.isdisjoint(node.output):
            del graph.node[index]
        else:
            needed.update(onnx_graph.reads(node))
    constants = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)
