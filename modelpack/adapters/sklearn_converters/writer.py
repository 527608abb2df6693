"""Writing the ONNX nodes of one estimator, whichever kind it is."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.helper
import onnx.parser
from onnx import TensorProto
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common.data_types import (
    DoubleTensorType,
    Int64TensorType,
    StringTensorType,
    guess_proto_type,
    guess_tensor_type,
)
from skl2onnx.operator_converters.common import concatenate_variables
from sklearn.base import is_classifier

from modelpack import onnx_graph
from modelpack.samples import Array

_ELEMENTS = {
    "float64": TensorProto.DOUBLE,
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "object": TensorProto.STRING,
}


_DTYPES = {element: dtype for dtype, element in _ELEMENTS.items()}

# Fields of attributes by the kind of an array.
_FIELDS = {
    "f": ("floats", onnx.AttributeProto.FLOATS),
    "i": ("ints", onnx.AttributeProto.INTS),
    "S": ("strings", onnx.AttributeProto.STRINGS),
}


# Attributes of ensembles, and the one that says which of them a node is to get.
_ENSEMBLES: list[Mapping[str, Any]] = []
_KEPT = "modelpack_ensemble"
# Ensembles of so many nodes are loaded in no time.
_FEW_NODES = 20_000


def attach_few_trees(model: onnx.ModelProto) -> None:
    """Give each ensemble its trees, or its first one alone of many: to check and run the model.

    Until `attach_ensembles` gives it the others, its documentation says which it is.
    """
    for node in onnx_graph.nodes(model):
        if len(node.attribute) == 1 and node.attribute[0].name == _KEPT:
            index = node.attribute[0].i
            whole = _ENSEMBLES[index]
            few = max(values.size for values in whole.values()) <= _FEW_NODES
            _replace(node, whole if few else _first_tree(index))
            node.doc_string = f"{_KEPT} {index}"


def _first_tree(index: int) -> dict[str, Array]:
    return {
        name: values[_of_first_tree(name, index)] if _is_of_trees(name, values) else values
        for name, values in _ENSEMBLES[index].items()
    }


def _is_of_trees(name: str, values: Array) -> bool:
    return values.ndim > 0 and not name.startswith("classlabels")


def _of_first_tree(name: str, index: int) -> Array:
    owners: Array = _ENSEMBLES[index][f"{name.partition('_')[0]}_treeids"]
    return owners == 0


def attach_ensembles(model: onnx.ModelProto) -> None:
    """Give the ensembles of a converted model all of their trees."""
    for node in onnx_graph.nodes(model):
        if node.doc_string.startswith(_KEPT):
            _replace(node, _ENSEMBLES[int(node.doc_string.split()[1])])
            node.ClearField("doc_string")
    _ENSEMBLES.clear()


def _replace(node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    del node.attribute[:]
    for name, values in attributes.items():
        _set(node.attribute.add(name=name), values)


def _set(attribute: onnx.AttributeProto, values: Array) -> None:
    field, attribute.type = _FIELDS[values.dtype.kind]
    if values.ndim == 0 and field == "strings":
        attribute.type, attribute.s = onnx.AttributeProto.STRING, values.item()
    elif values.ndim == 0:
        attribute.type, attribute.i = onnx.AttributeProto.INT, int(values)
    else:
        getattr(attribute, field).extend(values.tolist())


# Stands for the columns of an estimator's input where these are no matrix of numbers.
_AS_GIVEN = "columns as they are given"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a classifier answers: names of tensors.

    Attributes:
        labels: ``[rows]``.
        scores: probabilities or decisions, ``[rows, classes]`` or, of two classes, ``[rows]``.
    """

    labels: str
    scores: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an estimator's input.

    Attributes:
        name: of a tensor ``[rows, 1]``.
        dtype: of its elements, as `Writer.constant` takes it.
    """

    name: str
    dtype: str


class Writer:
    """Appends nodes to the graph that skl2onnx builds, for one of its operators.

    Real numbers are float64 between input and output: scikit-learn computes so.

    Args:
        scope: names tensors.
        operator: an estimator with its inputs and outputs.
        container: takes nodes and constants.

    Attributes:
        item: the estimator.
        is_wide: whether it is given float64.
    """

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope, self._operator, self._container = scope, operator, container
        self.item = operator.raw_operator
        self.is_wide = any(isinstance(each.type, DoubleTensorType) for each in operator.inputs)

    def into(self, container: Any) -> Writer:
        """A writer of the same estimator whose nodes another container takes."""
        return Writer(self._scope, self._operator, container)

    def name(self, stem: str) -> str:
        """A new name of a tensor."""
        return str(self._scope.get_unique_variable_name(stem))

    @property
    def target_opset(self) -> int:
        """The version of ONNX's ops that is written."""
        return int(self._container.target_opset)

    def require(self, versions: Mapping[str, int]) -> None:
        """Declare ops that a subgraph has: the target's of ONNX, and those of other domains."""
        pairs = {("", self.target_opset), *versions.items()}
        self._container.node_domain_version_pair_sets.update(pairs)

    def texts(self) -> str:
        """All elements of the input, which are strings, as a vector."""
        source = concatenate_variables(self._scope, self._operator.inputs, self._container)
        return self.flat(source)

    def rows(self, dtype: str = "float64") -> str:
        """All columns of the input as one matrix.

        Columns of text are none: what is returned then may only be handed to `ask`.
        """
        if any(isinstance(value.type, StringTensorType) for value in self._operator.inputs):
            return _AS_GIVEN
        inputs = self._operator.inputs
        if len(inputs) == 1:
            return self.cast(inputs[0].full_name, dtype)
        return self.cast(concatenate_variables(self._scope, inputs, self._container), dtype)

    def each_column(self) -> list[Column]:
        """The columns of the inputs one by one, in their own types."""
        found = []
        for variable in self._operator.inputs:
            dtype = _DTYPES[guess_proto_type(variable.type)]
            width = variable.type.shape[1]
            if width is None:  # the only input
                width = self.item.n_features_in_
            for index in range(width):
                whole = variable.full_name
                name = whole if width == 1 else self.columns(whole, [index])
                found.append(Column(name, dtype))
        return found

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; return the name of its only output."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Append a node; return the names of its outputs."""
        if _AS_GIVEN in inputs:
            raise NotImplementedError("columns of text, outside of a pipeline that encodes them")
        made = [str(self._scope.get_unique_variable_name(kind.lower())) for _ in range(outputs)]
        name = self._scope.get_unique_operator_name(kind)
        domain = attributes.pop("domain", None)
        placed = {} if domain is None else {"op_domain": domain}
        self._container.add_node(kind, list(inputs), made, name=name, **placed, **attributes)
        return made

    def ensemble(self, rows: str, attributes: Mapping[str, Any]) -> list[str]:
        """Append an ensemble of trees; return its outputs.

        Its attributes may be arrays of millions of numbers, of which skl2onnx would make
        copies: `attach_ensembles` gives them to the node later.

        Returns:
            of a ``TreeEnsembleRegressor`` what it answers, ``[rows, targets]``; of a
            ``TreeEnsembleClassifier``, which has labels of classes, the label and the sums.
        """
        classifies = any(name.startswith("classlabels") for name in attributes)
        kind = "TreeEnsembleClassifier" if classifies else "TreeEnsembleRegressor"
        results = [
            str(self._scope.get_unique_variable_name("ensemble")) for _ in range(1 + classifies)
        ]
        node = onnx.helper.make_node(
            kind,
            [rows],
            results,
            name=self._scope.get_unique_operator_name(kind),
            domain="ai.onnx.ml",
        )
        node.attribute.append(onnx.helper.make_attribute(_KEPT, len(_ENSEMBLES)))
        _ENSEMBLES.append(attributes)
        self._container.nodes.append(node)
        self._container.node_domain_version_pair_sets.add(("ai.onnx.ml", 3))
        return results

    def loop(
        self, most: int, lines: Sequence[str], state: Mapping[str, tuple[str, str, int]]
    ) -> list[str]:
        """Repeat nodes, in ONNX's textual syntax, while they make ``again`` true.

        Args:
            most: how often, at most.
            lines: nodes. They read ``i``, the number of the round (int64), the state, and
                whatever is outside of the loop.
            state: by name: the name of its next value, its first value and its rank. All are
                float64; a name that begins with "busy" is a bool.

        Returns:
            the last values of the state.
        """

        def typed(name: str, rank: int) -> str:
            dims = ",".join("abcd"[:rank])
            kind = "bool" if name.startswith("busy") else "double"
            return f"{kind}[{dims}] {name}" if rank else f"{kind} {name}"

        into = ", ".join(typed(name, rank) for name, (_, _, rank) in state.items())
        out = ", ".join(typed(name, rank) for name, _, rank in state.values())
        head = f"body (int64 i, bool go, {into}) => (bool again, {out})"
        body = onnx.parser.parse_graph(f"{head} {{ {' '.join(lines)} }}")
        first = [value for _, value, _ in state.values()]
        count, go = self.constant(most, "int64"), self.constant(True, "bool")
        return self.ops("Loop", len(first), count, go, *first, body=body)

    def constant(self, values: Any, dtype: str = "float64") -> str:
        """Keep an array; return its name."""
        name = str(self._scope.get_unique_variable_name("constant"))
        array = np.asarray(values).astype(dtype)
        flat = [item.encode() for item in array.ravel()] if dtype == "object" else array.ravel()
        self._container.add_initializer(name, _ELEMENTS[dtype], array.shape, flat)
        return name

    def integers(self, *values: int) -> str:
        """A constant vector of int64."""
        return self.constant(values, "int64")

    def cast(self, source: str, dtype: str) -> str:
        """Convert to another element type."""
        return self.op("Cast", source, to=_ELEMENTS[dtype])

    def linear(self, rows: str, matrix: Any, bias: Any = None) -> str:
        """``rows @ matrix + bias``."""
        product = self.op("MatMul", rows, self.constant(matrix))
        return product if bias is None else self.op("Add", product, self.constant(bias))

    def sigmoid(self, values: str) -> str:
        """``1 / (1 + exp(-x))``: ONNX Runtime's own for float64 is not exact."""
        grown = self.op("Exp", self.op("Neg", values))
        return self.op("Reciprocal", self.op("Add", grown, self.constant(1.0)))

    def columns(self, rows: str, chosen: Iterable[int]) -> str:
        """Some of the columns."""
        return self.op("Gather", rows, self.integers(*map(int, chosen)), axis=1)

    def column(self, rows: str, index: int) -> str:
        """One column, as a vector."""
        return self.op("Gather", rows, self.constant(index, "int64"), axis=1)

    def joined(self, parts: Sequence[str]) -> str:
        """Matrices side by side."""
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=1)

    def upright(self, vector: str) -> str:
        """A vector, or a matrix of one column, as a matrix of one column."""
        return self.op("Reshape", vector, self.integers(-1, 1))

    def flat(self, column: str) -> str:
        """A matrix of one column as a vector."""
        return self.op("Reshape", column, self.integers(-1))

    def reduced(self, kind: str, rows: str, keepdims: int = 1) -> str:
        """Reduce along the last axis."""
        return self.reduced_along(kind, rows, -1, keepdims)

    def reduced_along(self, kind: str, tensor: str, axis: int, keepdims: int = 0) -> str:
        """Reduce along one axis."""
        if self._container.target_opset >= (13 if kind == "ReduceSum" else 18):
            return self.op(kind, tensor, self.integers(axis), keepdims=keepdims)
        return self.op(kind, tensor, axes=[axis], keepdims=keepdims)

    def summed(self, rows: str, keepdims: int = 1) -> str:
        """Sums along the last axis."""
        return self.reduced("ReduceSum", rows, keepdims)

    def repeated(self, rows: str, values: Any) -> str:
        """One and the same row of values for each of the rows, whatever these hold."""
        count = self.op("Shape", rows)
        count = self.op("Slice", count, *(self.integers(i) for i in (0, 1, 0)))
        size = self.op("Concat", count, self.integers(len(values)), axis=0)
        return self.op("Expand", self.constant([values]), size)

    def chosen_labels(self, index: str, classes: Any) -> str:
        """Labels at positions of int64, as the declared output has them."""
        values = np.asarray(classes)
        kind = "int64" if values.dtype.kind in "iubf" else "object"
        texts = values if kind == "int64" else np.array([str(item) for item in values], object)
        return self.op("Gather", self.constant(texts, kind), index, axis=0)

    def ask(self, estimator: Any, rows: str) -> Answer:
        """Write another estimator, asked for a matrix of float64, or for the same columns.

        Returns:
            for anything but a classifier, its only output as ``scores``.
        """
        alias = sklearn_operator_name_map[type(estimator)]
        operator = self._scope.declare_local_operator(alias, estimator)
        kind = guess_tensor_type(self._operator.inputs[0].type).__class__
        if rows == _AS_GIVEN:
            operator.inputs = list(self._operator.inputs)
        else:
            operator.inputs.append(self._given(estimator, rows, kind))
        labels = ""
        if is_classifier(estimator):
            answer = self._scope.declare_local_variable("asked_label", Int64TensorType())
            operator.outputs.append(answer)
            labels = answer.full_name
        scores = self._scope.declare_local_variable("asked_scores", kind())
        operator.outputs.append(scores)
        return Answer(labels, self.cast(scores.full_name, "float64"))

    def ask_raw(self, estimator: Any, rows: str) -> str:
        """Write another classifier by skl2onnx's own converter, asked for its raw scores.

        Returns:
            decisions, ``[rows, classes]``.
        """
        # skl2onnx keeps options by estimator, and this one may be asked for probabilities too.
        asked = copy.copy(estimator)
        for keeper in (self._scope, self._container):
            keeper.add_options(id(asked), {"raw_scores": True})
        return self.ask(asked, rows).scores

    def _given(self, estimator: Any, rows: str, kind: Any) -> Any:
        """Rows as an input of another estimator."""
        width = getattr(estimator, "n_features_in_", None)
        given = self._scope.declare_local_variable("asked", kind([None, width]))
        self._container.add_node(
            "Cast",
            rows,
            given.full_name,
            name=self._scope.get_unique_operator_name("Cast"),
            to=guess_proto_type(given.type),
        )
        return given

    def finish(self, *names: str) -> None:
        """Give tensors out as the outputs of the estimator, in their declared types."""
        for name, output in zip(names, self._operator.outputs, strict=False):
            kind = output.type
            text = isinstance(kind, StringTensorType)
            given = name if text else self.op("Cast", name, to=guess_proto_type(kind))
            self._container.add_node(
                "Identity",
                given,
                output.full_name,
                name=self._scope.get_unique_operator_name("Identity"),
            )

    def finish_classes(self, scores: str) -> None:
        """Give out the label of the highest score, and the scores, ``[rows, classes]``."""
        best = self.op("ArgMax", scores, axis=1, keepdims=0)
        classes = np.asarray(self.item.classes_)
        if not np.array_equal(classes, np.arange(len(classes))):  # those are their own places
            best = self.chosen_labels(best, classes)
        self.finish(best, scores)
