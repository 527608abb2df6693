"""A whole ONNX model as a ``tf.Module`` with a function of flat arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf
from onnx import numpy_helper

from modelpack.errors import UnsupportedOpsError
from modelpack.lowering import functions, patterns, registry
from modelpack.lowering import ops as _ops  # fills the table  # noqa: F401
from modelpack.lowering.context import Target
from modelpack.lowering.graph import Evaluator, bodies, dense
from modelpack.lowering.layout import channel_last, channels_moved_last
from modelpack.lowering.value import Array, Value, Weights


@dataclass(frozen=True)
class Prepared:
    """A model ready to be lowered: functions inlined, every op in the table.

    Attributes:
        graph: the main graph, without its large constants.
        opsets: opset version by domain.
        initializers: reads a constant of the graph, by name.
    """

    graph: onnx.GraphProto
    opsets: Mapping[str, int]
    initializers: Mapping[str, Callable[[], Array]]


def prepare(model: onnx.ModelProto, target: Target, directory: Path | None = None) -> Prepared:
    """Take a model apart and check that every op of it can be lowered.

    Args:
        model: stays as it is. Its constants are read when they are needed.
        target: what is to run the result.
        directory: where external data is, if it was not loaded with the model.

    Raises:
        UnsupportedOpsError: the message lists every op without a lowering, with its nodes.
    """
    initializers = _initializers(model.graph, directory)
    tensors = model.graph.initializer
    model = _without_initializers(model)
    model = patterns.recombined(functions.own_inlined(model), initializers)
    # Bodies that ONNX defines stand in for ops which the table does not have.
    model = functions.inlined(model, tensors, _without_lowering)
    prepared = Prepared(model.graph, _opsets(model), initializers)
    found = unsupported(model, target)
    if found:
        lines = [f"{op}: {', '.join(nodes)}" for op, nodes in found.items()]
        what = "SavedModel" if target is Target.SAVEDMODEL else "built-in TFLite"
        raise UnsupportedOpsError(
            f"these ONNX ops have no {what} form:\n  " + "\n  ".join(lines),
            hint="docs/reference/onnx-ops.md lists the ops that have one",
        )
    return prepared


def unsupported(model: onnx.ModelProto, target: Target) -> dict[str, list[str]]:
    """Node names by op, of all ops of a model that cannot be lowered for a target."""
    opsets = _opsets(model)
    found: dict[str, list[str]] = {}
    for node in _all_nodes(model.graph):
        lowering = registry.lookup(node.domain, node.op_type, _opset_of(node, opsets))
        if lowering is None or (target is Target.TFLITE and not lowering.builtin):
            key = registry.key_of(node.domain, node.op_type, _opset_of(node, opsets))
            label = str(key) if key else f"{node.domain or 'ai.onnx'}::{node.op_type} (unknown)"
            names = found.setdefault(label, [])
            names.append(node.name or next(filter(None, node.output), "?"))
    return dict(sorted(found.items()))


class Lowered(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """A prepared model as TensorFlow ops.

    Args:
        prepared: the model.
        target: what is to run it.
        channel_last: names of inputs and outputs that are exchanged channel-last, although
            the graph has them channel-first.
        weights: makes variables of large constants. Where it has filters, the graph has
            stand-ins for those and computes NaN until they are put in.
    """

    def __init__(
        self,
        prepared: Prepared,
        target: Target,
        channel_last: frozenset[str] = frozenset(),
        weights: Weights | None = None,
    ) -> None:
        super().__init__(name="model")
        self._prepared = prepared
        self._target = target
        self._channel_last = channel_last
        self._store = weights or Weights()
        self._evaluator = Evaluator(prepared.opsets, target, self._store)
        # Kept from one trace to the next, so that a further trace makes no further variables.
        self._initializers = {
            name: self._evaluator.constant(read) for name, read in prepared.initializers.items()
        }
        self.constants: tuple[Any, ...] = ()

    def function(self, specs: Sequence[tf.TensorSpec]) -> Any:
        """A ``tf.function`` of the graph's inputs in order; it returns a list of outputs."""

        def serve(*flat: Any) -> list[Any]:
            results = self(*flat)
            for info, result in zip(self._prepared.graph.output, results, strict=True):
                if result is None or isinstance(result, list):
                    raise UnsupportedOpsError(
                        f"output '{info.name}' is a sequence or an optional, not a tensor"
                    )
            return results

        return tf.function(serve, input_signature=list(specs), autograph=False)

    def __call__(self, *arguments: Any) -> list[Any]:
        """Evaluate the graph.

        Args:
            arguments: by input of the graph a tensor, a list of them for a sequence, or None
                for an optional without an element.

        Returns:
            the same for each output.
        """
        prepared = self._prepared
        evaluator = self._evaluator
        inputs = [
            _each(partial(self._entering, evaluator, info.name), argument)
            for info, argument in zip(graph_inputs(prepared), arguments, strict=True)
        ]
        names = [info.name for info in graph_inputs(prepared)]
        scope = {**self._initializers, **dict(zip(names, inputs, strict=True))}
        results = evaluator.run(_without_inputs(prepared.graph), [], scope)
        outputs = [
            _each(partial(self._leaving, info), value)
            for info, value in zip(prepared.graph.output, results, strict=True)
        ]
        # What tf.saved_model.save finds the variables by.
        self.constants = tuple(self._store.variables)
        return outputs

    @property
    def narrowed(self) -> bool:
        """Whether what the graph computes in float64 was traced in float32."""
        return self._evaluator.narrowed

    def _entering(self, evaluator: Evaluator, name: str, tensor: Any) -> Value:
        perm = channel_last(tensor.shape.rank) if name in self._channel_last else None
        return evaluator.computable(Value(tensor, perm=perm, weights=self._store))

    def _leaving(self, info: onnx.ValueInfoProto, value: Value) -> Any:
        if info.name in self._channel_last:
            value = channels_moved_last(value)
        declared = onnx.helper.tensor_dtype_to_np_dtype(_tensor_type(info.type).elem_type)
        tensor = value.tensor
        if tensor.dtype.is_floating and declared != tensor.dtype.as_numpy_dtype:
            tensor = tf.cast(tensor, declared)
        return tf.identity(tensor)


def graph_inputs(prepared: Prepared) -> list[onnx.ValueInfoProto]:
    """Inputs of the graph that are not initializers."""
    return [info for info in prepared.graph.input if info.name not in prepared.initializers]


def _tensor_type(kind: onnx.TypeProto) -> onnx.TypeProto.Tensor:
    """The type of a tensor, of a sequence's elements, or of what an optional may hold."""
    if kind.HasField("sequence_type"):
        return _tensor_type(kind.sequence_type.elem_type)
    if kind.HasField("optional_type"):
        return _tensor_type(kind.optional_type.elem_type)
    return kind.tensor_type


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to a tensor, or to every tensor of a sequence; None stays None."""
    if isinstance(value, list):
        return [_each(function, item) for item in value]
    return None if value is None else function(value)


def _without_inputs(graph: onnx.GraphProto) -> onnx.GraphProto:
    bare = onnx.GraphProto()
    bare.node.extend(graph.node)
    bare.output.extend(graph.output)
    return bare


def _initializers(graph: onnx.GraphProto, directory: Path | None) -> dict[str, Callable[[], Array]]:
    base = "" if directory is None else str(directory)
    found: dict[str, Callable[[], Array]] = {
        tensor.name: partial(numpy_helper.to_array, tensor, base) for tensor in graph.initializer
    }
    for sparse in graph.sparse_initializer:
        found[sparse.values.name] = partial(dense, sparse)
    return found


def _without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the initializers: onnx's tools cannot hold 2 GB of them."""
    bare = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    graph = model.graph
    bare.graph.name = graph.name
    for field in ("node", "input", "output"):
        getattr(bare.graph, field).extend(getattr(graph, field))
    return bare


def _without_lowering(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    opsets = _opsets(model)
    return [
        node
        for node in _all_nodes(model.graph)
        if registry.lookup(node.domain, node.op_type, _opset_of(node, opsets)) is None
    ]


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = []
    for node in graph.node:
        found.append(node)
        for body in bodies(node):
            found += _all_nodes(body)
    return found


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opsets[""] = max(opsets.get("", 0), opsets.pop("ai.onnx", 0)) or 1
    return opsets


def _opset_of(node: onnx.NodeProto, opsets: Mapping[str, int]) -> int:
    return opsets.get("" if node.domain == "ai.onnx" else node.domain, 1)
