"""Evaluates an ONNX graph node by node as TensorFlow ops.

Called inside a ``tf.function`` the ops are recorded; a node whose inputs are all constants
is evaluated at once instead, by the same lowering, and its result is a constant again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper

from modelpack.errors import ConversionError, ModelpackError, UnsupportedOpsError, first_line
from modelpack.lowering import known, registry
from modelpack.lowering.context import Context, Target
from modelpack.lowering.registry import Lowering
from modelpack.lowering.value import Array, Value, Weights

# A folded constant of more elements than this, and than its inputs, is computed at run time.
_LARGEST_FOLD = 1 << 20

_AS_FLOAT32 = (tf.float64, tf.float16, tf.bfloat16)


class Evaluator:
    """Evaluates graphs of one model.

    Args:
        opsets: opset version by domain.
        target: what will run the result.
        weights: makes tensors of constants.

    Attributes:
        narrowed: whether what the graph computes in float64 is computed in float32.
    """

    def __init__(self, opsets: Mapping[str, int], target: Target, weights: Weights) -> None:
        self._opsets = opsets
        self._target = target
        self._weights = weights
        self.narrowed = False

    def run(
        self, graph: onnx.GraphProto, inputs: Sequence[Any], outer: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Evaluate a graph.

        Args:
            graph: its nodes in topological order, as ONNX demands.
            inputs: values of the graph's inputs, in order.
            outer: values by name that the graph sees from outside.

        Returns:
            values of its outputs, in order: `Value`, or a list of them for a sequence, or
            None for an empty optional.

        Raises:
            UnsupportedOpsError: a node cannot be lowered as it is.
            ConversionError: a lowering failed.
        """
        scope: dict[str, Any] = dict(outer or {})
        for tensor in graph.initializer:
            scope[tensor.name] = self.constant(partial(numpy_helper.to_array, tensor))
        for sparse in graph.sparse_initializer:
            scope[sparse.values.name] = self.constant(dense(sparse))
        scope.update({info.name: value for info, value in zip(graph.input, inputs, strict=False)})
        remaining = _uses(graph)
        for node in graph.node:
            for name, value in zip(node.output, self._node(node, scope), strict=False):
                if name:
                    scope[name] = value
            # Weights that nothing reads any more give their memory back.
            for name in reads(node):
                remaining[name] -= 1
                if remaining[name] == 0:
                    scope.pop(name, None)
        return [scope[value.name] for value in graph.output]

    def constant(self, const: Array | Callable[[], Array]) -> Value:
        """A constant value."""
        if self._target is not Target.SAVEDMODEL:
            const = partial(_as_float32, const)
        return Value(const=const, weights=self._weights)

    def _node(self, node: onnx.NodeProto, scope: Mapping[str, Any]) -> tuple[Any, ...]:
        domain = "" if node.domain == "ai.onnx" else node.domain
        opset = self._opsets.get(domain, 1)
        lowering = registry.lookup(domain, node.op_type, opset)
        label = f"{domain}::{node.op_type}" if domain else node.op_type
        name = node.name or next(filter(None, node.output), "?")
        if lowering is None:
            raise ConversionError(f"{label} (node '{name}') has no lowering")
        context = Context(
            self._target,
            label,
            name,
            opset,
            tuple(node.output),
            self._weights,
            lambda graph, inputs: self.run(graph, inputs, scope),
        )
        arguments = [scope[tensor] if tensor else None for tensor in node.input]
        attributes = {item.name: attribute(item) for item in node.attribute}
        try:
            if lowering.folds and _foldable(node, arguments):
                # Whatever will run the rest, TensorFlow runs this, here and now.
                here = replace(context, target=Target.SAVEDMODEL)
                folded = self._fold(lowering, here, arguments, attributes)
                if folded is not None:
                    return folded
            results = self._lowered(lowering, context, arguments, attributes)
        except ModelpackError:
            raise
        except Exception as error:
            raise ConversionError(
                f"{label} (node '{name}') could not be lowered: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        return known.propagated(node.op_type, arguments, attributes, results)

    def _lowered(
        self, lowering: Lowering, context: Context, arguments: list[Any], attributes: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Lower a node; TensorFlow's own kernels only where nothing built in will do."""
        if self._target is Target.TFLITE_SELECT and lowering.builtin:
            builtin = replace(context, target=Target.TFLITE)
            with contextlib.suppress(UnsupportedOpsError):
                return self._call(lowering, builtin, arguments, attributes)
        return self._call(lowering, context, arguments, attributes)

    def _call(
        self, lowering: Lowering, context: Context, arguments: list[Any], attributes: dict[str, Any]
    ) -> tuple[Any, ...]:
        first = (context,) if lowering.takes_context else ()
        results = lowering.function(*first, *arguments, **attributes)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(self._wrapped(result) for result in results)

    def _fold(
        self, lowering: Lowering, context: Context, arguments: list[Any], attributes: dict[str, Any]
    ) -> tuple[Any, ...] | None:
        """Evaluate at once; None if the result would be much larger than what it is made of."""
        with tf.init_scope():
            results = self._call(lowering, context, arguments, attributes)
            if not all(isinstance(result, Value) for result in results):
                return None
            arrays = [_array(result) for result in results]
        limit = max([_LARGEST_FOLD, *(int(np.prod(a.shape)) for a in arguments if a is not None)])
        if any(array.size > limit for array in arrays):
            return None
        return tuple(self.constant(array) for array in arrays)

    def _wrapped(self, result: Any) -> Any:
        if result is None or isinstance(result, list):
            return result
        if isinstance(result, np.ndarray | np.generic):
            return self.constant(np.asarray(result))
        return self.computable(
            result if isinstance(result, Value) else Value(result, weights=self._weights)
        )

    def computable(self, value: Value) -> Value:
        """The value in the dtype that the target computes it in.

        LiteRT's kernels know one dtype of real numbers, float32; the others are only
        stored, and become float32 as soon as they are made. What leaves the graph is cast
        back to what the graph declares.
        """
        if self._target is Target.SAVEDMODEL or value.is_const or value.dtype not in _AS_FLOAT32:
            return value
        self.narrowed |= value.dtype is tf.float64
        return Value(tf.cast(value.held, tf.float32), perm=value.perm, weights=self._weights)


def attribute(item: onnx.AttributeProto) -> Any:
    """A node's attribute as a Python value: text as ``str``, tensors as arrays."""
    kind = onnx.AttributeProto
    if item.type == kind.STRING:
        return item.s.decode()
    if item.type == kind.STRINGS:
        return [text.decode() for text in item.strings]
    if item.type == kind.TENSOR:
        return numpy_helper.to_array(item.t)
    if item.type == kind.SPARSE_TENSOR:
        return dense(item.sparse_tensor)
    value = onnx.helper.get_attribute_value(item)
    return list(value) if item.type in {kind.INTS, kind.FLOATS, kind.GRAPHS} else value


def dense(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse tensor as an array. Indices are linear, or one row of coordinates per value."""
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    result = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 2:
        result[tuple(indices.T)] = values
    else:
        result.reshape(-1)[indices] = values
    return result


def bodies(node: onnx.NodeProto) -> Iterable[onnx.GraphProto]:
    """The subgraphs of a node."""
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            yield item.g
        yield from item.graphs


def reads(node: onnx.NodeProto) -> list[str]:
    """Names a node reads, its subgraphs included, with repetitions."""
    names = [name for name in node.input if name]
    for body in bodies(node):
        names += [name for inner in body.node for name in reads(inner)]
        names += [value.name for value in body.output]
    return names


def _uses(graph: onnx.GraphProto) -> Counter[str]:
    return Counter(
        [name for node in graph.node for name in reads(node)] + [v.name for v in graph.output]
    )


def _foldable(node: onnx.NodeProto, arguments: list[Any]) -> bool:
    if any(True for _ in bodies(node)):
        return False
    return all(a is None or (isinstance(a, Value) and a.is_const) for a in arguments)


def _as_float32(const: Array | Callable[[], Array]) -> Array:
    array = const() if callable(const) else const
    if array.dtype.kind in "OUS" or tf.as_dtype(array.dtype) not in _AS_FLOAT32:
        return array
    return array.astype(np.float32)


def _array(value: Value) -> Array:
    if value.is_const:
        const = value.const
        assert const is not None
        return const
    return np.asarray(value.tensor.numpy())
