"""Means of many numbers, which LiteRT adds up one by one, as `onnx_means` says of ONNX Runtime.

Of a constant image of 112 by 112 its MEAN is off by 1.7e-4, and the mean of the means of rows by
3e-6, as measured with LiteRT 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from modelpack.adapters.tensorflow_alone import tf

# Of fewer numbers the sum is good enough, and one op faster than two.
_MANY = 512

_INDICES = {tf.int32.as_datatype_enum, tf.int64.as_datatype_enum}


def by_rows(function: Any) -> int:
    """Take means over several axes of many numbers by the last axis first, where shapes tell.

    Args:
        function: of a SavedModel; changed in place.

    Returns:
        how many means there were.
    """
    nodes = function.node_def
    shapes = {node.name: saved_shapes(node.attr) for node in nodes}
    for place, argument in enumerate(function.signature.input_arg):
        known = function.arg_attr[place].attr if place in function.arg_attr else {}
        shapes[argument.name] = saved_shapes(known)
    constants = {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in nodes
        if node.op == "Const" and node.attr["dtype"].type in _INDICES
    }
    found = [
        (node, axis)
        for node in list(nodes)
        if node.op == "Mean" and (axis := _rows(node, shapes, constants)) is not None
    ]
    for node, axis in found:
        axes = nodes.add(name=f"{node.name}/last_axis", op="Const")
        value = tf.make_tensor_proto(axis.reshape(1))
        axes.attr["dtype"].type = value.dtype
        axes.attr["value"].tensor.CopyFrom(value)
        rows = nodes.add(name=f"{node.name}/rows", op="Mean")
        rows.input.extend([node.input[0], f"{axes.name}:output:0"])
        for key in {"T", "Tidx"} & node.attr.keys():  # what is usual is left out
            rows.attr[key].CopyFrom(node.attr[key])
        rows.attr["keep_dims"].b = True
        node.input[0] = f"{rows.name}:output:0"
    return len(found)


def _rows(node: Any, shapes: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    """The last axis of a mean that is to be taken by rows, else None."""
    shape = _shape(node.input[0], shapes)
    axes = constants.get(node.input[1].partition(":")[0])
    is_real = tf.as_dtype(node.attr["T"].type).is_floating
    if not is_real or shape is None or axes is None or axes.size < 2:
        return None
    places = np.sort(axes % len(shape))
    sizes = [shape[place] for place in places]
    return places[-1] if min(sizes) > 0 and prod(sizes) >= _MANY else None


def saved_shapes(attributes: Any) -> Any:
    """The shapes of a node's results, where they are saved: to read what is not would add it."""
    return attributes["_output_shapes"].list.shape if "_output_shapes" in attributes else ()


def _shape(tensor: str, shapes: Mapping[str, Any]) -> list[int] | None:
    """The shape that the saved graph tells of a tensor, -1 where a size is dynamic."""
    name, _, port = tensor.partition(":")
    known, place = shapes.get(name, ()), int(port.rpartition(":")[2] or 0)
    if place >= len(known) or known[place].unknown_rank:
        return None
    return [dim.size for dim in known[place].dim]
