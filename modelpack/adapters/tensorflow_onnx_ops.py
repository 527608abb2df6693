"""ONNX forms of TensorFlow ops that tf2onnx has none for, and of those that it gets wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from modelpack.adapters import tensorflow_onnx_images, tensorflow_onnx_texts

_INT64_MAX = 2**63 - 1


def _erfc(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write erfc(x) as 1 - erf(x): ONNX has no Erfc, and Keras computes GELU with it."""
    from tf2onnx import utils

    node.type = "Erf"
    output = node.output[0]
    dtype = context.get_dtype(output)
    one = context.make_const(
        utils.make_name("one"), np.array(1, utils.map_onnx_to_numpy_type(dtype))
    )
    difference = context.make_node(
        "Sub", [one.output[0], output], dtypes=[dtype], shapes=[context.get_shape(output)]
    )
    users = [other for other in context.get_nodes() if other.name != difference.name]
    context.replace_all_inputs(output, difference.output[0], ops=users)


def _expm1(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write exp(x) - 1 as tanh(x / 2) * (exp(x) + 1): ONNX has no Expm1.

    Where x is small the plain difference would cancel; where it is large the tanh is 1 or -1.
    """
    from tf2onnx import utils

    (given,), (output,) = node.input, node.output
    dtype, shape = context.get_dtype(output), context.get_shape(output)
    numpy_type = utils.map_onnx_to_numpy_type(dtype)
    half, one = (
        context.make_const(utils.make_name("number"), np.array(value, numpy_type)).output[0]
        for value in (0.5, 1)
    )

    def made(op: str, *inputs: str) -> str:
        return str(context.make_node(op, list(inputs), dtypes=[dtype], shapes=[shape]).output[0])

    tanh = made("Tanh", made("Mul", given, half))
    sum_ = made("Add", made("Exp", given), one)
    context.remove_node(node.name)
    context.make_node(
        "Mul", [tanh, sum_], name=node.name, outputs=[output], shapes=[shape], dtypes=[dtype]
    )


def _bucketize(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write the number of boundaries that are not above a value, which is its bucket."""
    from tf2onnx import utils

    boundaries = np.array(node.get_attr_value("boundaries"), np.float32).astype(np.float64)
    (given,), (output,) = node.input, node.output
    shape, dtype = context.get_shape(output), context.get_dtype(output)

    def constant(value: Any) -> str:
        return str(context.make_const(utils.make_name("number"), value).output[0])

    def made(op: str, *inputs: str, **attributes: Any) -> str:
        return str(context.make_node(op, list(inputs), attr=attributes).output[0])

    value = made("Cast", given, to=onnx.TensorProto.DOUBLE)
    column = made("Reshape", value, constant(np.array([-1, 1], np.int64)))
    reached = made("Not", made("Less", column, constant(boundaries)))
    ones = made("Cast", reached, to=onnx.TensorProto.DOUBLE)
    counts = made("MatMul", ones, constant(np.ones(len(boundaries))))
    whole = made("Cast", counts, to=dtype)
    sizes = made("Shape", given)
    context.remove_node(node.name)
    context.make_node(
        "Reshape", [whole, sizes], name=node.name, outputs=[output], shapes=[shape], dtypes=[dtype]
    )


def _floor_div(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write the quotient of whole numbers rounded down; ONNX rounds it towards zero."""
    from tf2onnx import utils

    (x, y), (output,) = node.input, node.output
    shape, dtype = context.get_shape(output), context.get_dtype(output)

    def made(op: str, *inputs: str, **attributes: Any) -> str:
        return str(context.make_node(op, list(inputs), attr=attributes).output[0])

    context.remove_node(node.name)
    final = {"name": node.name, "outputs": [output], "shapes": [shape], "dtypes": [dtype]}
    numpy_type = np.dtype(utils.map_onnx_to_numpy_type(dtype))
    if numpy_type.kind not in "iu":
        context.make_node("Floor", [made("Div", x, y)], **final)
        return
    # The remainder has the sign of y, so what is left divides without one.
    whole = made("Sub", x, made("Mod", x, y)) if numpy_type.kind == "i" else x
    context.make_node("Div", [whole, y], **final)


def _floor_mod(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write the remainder with the sign of the divisor: of whole numbers that is ONNX's own."""
    from tf2onnx import utils

    (x, y), (output,) = node.input, node.output
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    context.remove_node(node.name)
    final = {"name": node.name, "outputs": [output], "shapes": [shape], "dtypes": [dtype]}
    if np.dtype(utils.map_onnx_to_numpy_type(dtype)).kind in "iu":
        context.make_node("Mod", [x, y], **final)
        return
    quotient = context.make_node("Floor", context.make_node("Div", [x, y]).output)
    whole = context.make_node("Mul", [quotient.output[0], y])
    context.make_node("Sub", [x, whole.output[0]], **final)


def _truncate_mod(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write the remainder with the sign of the dividend."""
    node.type = "Mod"
    node.set_attr("fmod", 1)


# By TensorFlow's name of an op, what writes it, and from which opset on.
_BY_NAME = {
    "Bucketize": _bucketize,
    "Erfc": _erfc,
    "Expm1": _expm1,
    **tensorflow_onnx_texts.HANDLERS,
}
_SINCE = {
    10: {"FloorDiv": _floor_div, "FloorMod": _floor_mod, "TruncateMod": _truncate_mod},
    11: tensorflow_onnx_images.HANDLERS,
}


def handlers(tables: Any, opset: int) -> dict[str, Any]:
    """What tf2onnx is to call for an op, and with which argument.

    Args:
        tables: keys and values of lookup tables, by ``shared_name``.
        opset: that is written.
    """
    written = dict(_BY_NAME)
    for since, ops in _SINCE.items():
        written |= ops if opset >= since else {}
    found: dict[str, Any] = {op: (write, []) for op, write in written.items()}
    for op, look in tensorflow_onnx_texts.LOOKUPS.items():
        found[op] = (look, [None, tables])  # tf2onnx takes the first one for an ONNX op's name
    return found


# --- what tf2onnx drops --------------------------------------------------------------------


@contextlib.contextmanager
def kept_casts() -> Iterator[None]:
    """Keep tf2onnx from dropping casts to a type that holds less, for a while."""
    from tf2onnx.optimizer import back_to_back_optimizer

    functions = back_to_back_optimizer._func_map
    original = functions[("Cast",)]

    def optimize(graph: Any, node: Any, consumers: Any) -> Any:
        given, to = graph.get_dtype(node.input[0]), node.get_attr_value("to")
        repeats = node.inputs[0].type == "Cast" and given == to
        if repeats or _holds(to, given):
            return original(graph, node, consumers)
        return [consumer.output[0] for consumer in consumers]

    functions[("Cast",)] = optimize
    try:
        yield
    finally:
        functions[("Cast",)] = original


def _holds(wide: int, narrow: int | None) -> bool:
    """Whether a type has every number of another one."""
    if not narrow:
        return False
    given, to = (onnx.helper.tensor_dtype_to_np_dtype(item) for item in (narrow, wide))
    return bool(np.can_cast(given, to, casting="safe"))


# --- what tf2onnx wrote ----------------------------------------------------------------------


def repair(graph: Any) -> None:
    """Rewrite what tf2onnx wrote otherwise than TensorFlow computes it, in place."""
    _drop_negative_pads(graph)
    _keep_negative_classes_out(graph)


def _drop_negative_pads(graph: Any) -> None:
    """Let transposed convolutions reach beyond the last step by ``output_padding``.

    tf2onnx writes it as a negative padding at the end, which ONNX does not allow.
    """
    for node in graph.node:
        attributes = {item.name: item for item in node.attribute}
        if node.op_type != "ConvTranspose" or "pads" not in attributes:
            continue
        pads = attributes["pads"].ints
        axes = len(pads) // 2
        beyond = [max(-pad, 0) for pad in pads[axes:]]
        if not any(beyond) or "output_padding" in attributes:
            continue
        node.attribute.append(onnx.helper.make_attribute("output_padding", beyond))
        pads[axes:] = [max(pad, 0) for pad in pads[axes:]]


def _keep_negative_classes_out(graph: Any) -> None:
    """Let negative indices have no column: ONNX counts them from the end, TensorFlow does not."""
    nodes = list(graph.node)
    changed = False
    rebuilt = []
    for number, node in enumerate(nodes):
        if node.op_type == "OneHot":
            changed = True
            rebuilt += _without_negatives(graph, node, f"one_hot_{number}")
        rebuilt.append(node)
    if changed:
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in rebuilt]
        del graph.node[:]
        graph.node.extend(kept)


def _without_negatives(graph: Any, node: Any, prefix: str) -> list[Any]:
    """Nodes that give a OneHot node its indices, those below zero beyond every depth."""
    make = onnx.helper.make_node
    for name, value in ((f"{prefix}/zero", 0), (f"{prefix}/beyond", _INT64_MAX)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.int64), name))
    wide, below, result = (f"{prefix}/{part}" for part in ("wide", "below", "indices"))
    given, node.input[0] = node.input[0], result
    return [
        make("Cast", [given], [wide], to=onnx.TensorProto.INT64),
        make("Less", [wide, f"{prefix}/zero"], [below]),
        make("Where", [below, f"{prefix}/beyond", wide], [result]),
    ]
