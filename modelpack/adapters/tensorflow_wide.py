"""TensorFlow functions that compute in float64, to tell what float32 loses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from modelpack.adapters.tensorflow_alone import tf
from modelpack.adapters.tensorflow_freezing import captured, frozen
from modelpack.errors import ConversionError, InputError, first_line

_DOUBLE, _SINGLE = tf.float64.as_datatype_enum, tf.float32.as_datatype_enum

# What a model rounds to these, it means to round.
_COARSE = {tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum}

# Their answers are float32, whatever they are given.
_NARROW_ANSWERS = {"ResizeBilinear", "ResizeBicubic", "ResizeArea", "CropAndResize"}

# Without a kernel for float64, and written in others.
_NORMS = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}

# They mean other numbers, of a wider dtype.
_OF_BITS = {"Bitcast"}

# Of functions: TensorFlow knows the narrow ones by their names.
_SUFFIX = "_in_float64"

# Constants of 100 MB: a graph of twice as much must not take longer than converting it.
_MOST_CONSTANTS = 25_000_000


def widened(function: Any, size: int) -> Callable[..., list[Any]]:
    """A function that computes in float64 what another computes in float32.

    Args:
        function: a ``tf.function`` with an input signature, whose answer is a list of tensors.
        size: how many numbers its variables hold.

    Returns:
        it takes one tensor for each argument, of float64 where that was a float32, and gives the
        answers in order.

    Raises:
        InputError: it is too large, or holds what cannot be computed so.
    """
    if size > _MOST_CONSTANTS:
        raise InputError("the model is too large to compute in float64")
    try:
        parts = frozen(captured(function), with_weights=True)
        if parts.tables:
            raise InputError("a model with lookup tables is not computed in float64")
        graph = _in_float64(parts.graph)
        wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        pruned = wrapped.prune(parts.inputs, parts.outputs)
    except (ConversionError, ValueError, tf.errors.OpError) as error:  # of ops without such a form
        raise InputError(f"the model cannot compute in float64: {first_line(error)}") from error
    return pruned


def _in_float64(graph: Any) -> Any:
    """A copy of a ``GraphDef`` with float64 in place of float32."""
    wide = tf.compat.v1.GraphDef()
    wide.CopyFrom(graph)
    del wide.node[:]
    for node in graph.node:
        wide.node.extend(_forms(node))
    for function in wide.library.function:
        function.signature.name += _SUFFIX
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            argument.type = _wide_type(argument.type)
        for node in function.node_def:
            if node.op in _NORMS | _NARROW_ANSWERS:
                raise InputError(f"{node.op} in a branch or loop is not computed in float64")
            _widen(node)
    return wide


def _forms(node: Any) -> Iterator[Any]:
    """A node in float64: one, or those that take its place."""
    wide = tf.compat.v1.NodeDef()
    wide.CopyFrom(node)
    _widen(wide)
    if node.op in _NORMS:
        yield from _norm(wide)
    elif node.op in _NARROW_ANSWERS:
        narrow = wide.name + "/narrow"
        yield _node("Cast", wide.name, [narrow], SrcT=_SINGLE, DstT=_DOUBLE)
        wide.name = narrow
        yield wide
    else:
        yield wide


def _norm(node: Any) -> Iterator[Any]:
    """A batch norm of known statistics.

    Raises:
        InputError: it is of training, or its channels are not last.
    """
    if node.attr["is_training"].b or node.attr["data_format"].s not in {b"", b"NHWC", b"NDHWC"}:
        raise InputError("only batch norms of inference, channels last, compute in float64")
    data, scale, offset, mean, variance = node.input[:5]
    name = node.name
    epsilon = tf.compat.v1.NodeDef(name=f"{name}/epsilon", op="Const")
    epsilon.attr["dtype"].type = _DOUBLE
    value = tf.make_tensor_proto(node.attr["epsilon"].f, tf.float64)
    epsilon.attr["value"].tensor.CopyFrom(value)
    yield epsilon
    yield _node("AddV2", f"{name}/sum", [variance, epsilon.name], T=_DOUBLE)
    yield _node("Rsqrt", f"{name}/root", [f"{name}/sum"], T=_DOUBLE)
    yield _node("Mul", f"{name}/factor", [f"{name}/root", scale], T=_DOUBLE)
    yield _node("Sub", f"{name}/centred", [data, mean], T=_DOUBLE)
    yield _node("Mul", f"{name}/scaled", [f"{name}/centred", f"{name}/factor"], T=_DOUBLE)
    yield _node("AddV2", name, [f"{name}/scaled", offset], T=_DOUBLE)


def _node(op: str, name: str, inputs: list[str], **types: int) -> Any:
    made = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
    for key, value in types.items():
        made.attr[key].type = value
    return made


def _widen(node: Any) -> None:
    if node.op in _OF_BITS:
        raise InputError(f"{node.op} is not computed in float64")
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "type":
            value.type = _wide_type(value.type)
        elif kind == "list":
            for place, item in enumerate(value.list.type):
                value.list.type[place] = _wide_type(item)
            for called in value.list.func:
                called.name += _SUFFIX
        elif kind == "func":
            value.func.name += _SUFFIX
        elif kind == "tensor" and value.tensor.dtype == _SINGLE:
            array = tf.make_ndarray(value.tensor).astype("float64")
            value.tensor.CopyFrom(tf.make_tensor_proto(array))


def _wide_type(number: int) -> int:
    if number in _COARSE:
        raise InputError("only a model of float32 alone can be made to compute in float64")
    return _DOUBLE if number == _SINGLE else number
