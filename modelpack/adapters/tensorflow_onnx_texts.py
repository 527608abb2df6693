"""Lookup tables, and comparisons and hashes of texts, as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

# Names of a LabelEncoder's attributes for the ONNX types of keys and of values.
_ENCODED = {
    onnx.TensorProto.STRING: "strings",
    onnx.TensorProto.INT64: "int64s",
    onnx.TensorProto.FLOAT: "floats",
}

# TensorFlow's name of what writes numbers as texts, and what tf2onnx may have made of it.
_TO_TEXT = {"AsString", "Cast"}


def _lookup(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write a lookup in a table that does not change."""
    keys, values = _contents(context, node, arguments)
    (_, given, default), (output,) = node.input, node.output
    is_const, kind = node.inputs[2].is_const(), _ENCODED.get(context.get_dtype(output))
    if is_const and kind:
        beyond = node.inputs[2].get_tensor_value(as_list=False).reshape(-1)[0]
        attributes = {
            f"values_{kind}": values.tolist(),
            f"default_{kind.removesuffix('s')}": beyond.item()
            if hasattr(beyond, "item")
            else beyond,
        }
        final = _final(context, node)
        _encode(context, given, keys, attributes, **final)
        return
    # A LabelEncoder has no such values: it gives their places.
    places = {"values_int64s": list(range(len(keys))), "default_int64": len(keys)}
    held = _constant(context, values)
    last = context.make_node("Reshape", [default, _constant(context, np.ones(1, np.int64))])
    final = _final(context, node)
    place = _encode(context, given, keys, places)
    every = context.make_node("Concat", [held, last.output[0]], attr={"axis": 0})
    context.make_node("Gather", [every.output[0], place], **final)


def _contents(context: Any, node: Any, arguments: Any) -> Any:
    """Keys and values of the table that a node looks into."""
    source = node.inputs[0]
    while source.type == "Identity":
        source = source.inputs[0]
    shared = source.get_attr_value("shared_name")
    if shared is None:
        raise ValueError("it looks into a table in a branch or loop, which is not converted")
    (tables,) = arguments
    return tables[shared.decode()]


def _encode(
    context: Any, given: str, keys: Any, attributes: dict[str, Any], **settings: Any
) -> str:
    """Write a LabelEncoder."""
    dtype = context.get_dtype(given)
    if dtype == onnx.TensorProto.INT32:
        dtype = onnx.TensorProto.INT64
        given = context.make_node("Cast", [given], attr={"to": dtype}).output[0]
    made = context.make_node(
        "LabelEncoder",
        [given],
        domain="ai.onnx.ml",
        attr={f"keys_{_ENCODED[dtype]}": keys.tolist(), **attributes},
        **settings,
    )
    return str(made.output[0])


def _size(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write how many keys a table has."""
    keys, _ = _contents(context, node, arguments)
    (output,) = node.output
    context.remove_node(node.name)
    count = _constant(context, np.array(len(keys), np.int64))
    context.make_node(
        "Identity", [count], outputs=[output], shapes=[[]], dtypes=[onnx.TensorProto.INT64]
    )


def _hash(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write the bucket of a text where there is only one."""
    count = node.get_attr_value("num_buckets")
    if count != 1:
        raise ValueError(
            f"{node.type} puts texts into {count} buckets by a hash that ONNX does not have; "
            "with one bucket for what is in no vocabulary it could be converted"
        )
    # Texts may be numbers before, whose texts need not be made.
    source = node.inputs[0]
    given = source.input[0] if source.type in _TO_TEXT else node.input[0]
    final = _final(context, node)
    zero = onnx.helper.make_tensor("zero", onnx.TensorProto.INT64, [1], [0])
    shape = context.make_node("Shape", [given]).output[0]
    context.make_node("ConstantOfShape", [shape], attr={"value": zero}, **final)


def _equal(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write a comparison of texts with one that is known as a lookup of that."""
    from tf2onnx.onnx_opset.logical import Equal

    if context.get_dtype(node.input[0]) != onnx.TensorProto.STRING:
        compare = Equal.version_11 if context.opset >= 11 else Equal.version_7
        compare(context, node)
        return
    places = [place for place in (0, 1) if node.inputs[place].is_const()]
    known = node.inputs[places[0]].get_tensor_value(as_list=False) if places else np.zeros(0)
    if known.size != 1 or known.ndim > 1:
        raise ValueError("it compares texts, which ONNX does with one text that is known alone")
    keys = np.array([_bytes(known.reshape(-1)[0])], object)
    equals = int(node.type == "Equal")
    given, final = node.input[1 - places[0]], _final(context, node)
    found = {"values_int64s": [equals], "default_int64": 1 - equals}
    place = _encode(context, given, keys, found)
    context.make_node("Cast", [place], attr={"to": onnx.TensorProto.BOOL}, **final)


def _bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


def _final(context: Any, node: Any) -> dict[str, Any]:
    """Remove a node; what its last stand-in is made with."""
    (output,) = node.output
    settings = {
        "name": node.name,
        "outputs": [output],
        "shapes": [context.get_shape(output)],
        "dtypes": [context.get_dtype(output)],
    }
    context.remove_node(node.name)
    return settings


def _constant(context: Any, value: Any) -> str:
    from tf2onnx import utils

    return str(context.make_const(utils.make_name("number"), value).output[0])


HANDLERS = {
    "Equal": _equal,
    "NotEqual": _equal,
    "StringToHashBucket": _hash,
    "StringToHashBucketFast": _hash,
    "StringToHashBucketStrong": _hash,
}
"""What writes an op, by TensorFlow's name."""

LOOKUPS = {"LookupTableFindV2": _lookup, "LookupTableSizeV2": _size}
"""What writes an op with a table, to be given the contents of all by ``shared_name``."""
