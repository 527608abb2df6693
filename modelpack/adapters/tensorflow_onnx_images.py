"""Resizes of images as ONNX nodes: tf2onnx writes some wrong, and has no form for others."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

_IMAGES_AS_ONNX, _IMAGES_AS_TENSORFLOW = [0, 3, 1, 2], [0, 2, 3, 1]


def _resize(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write a resize by its sizes: by factors, which tf2onnx takes, it may be one short."""
    if node.type == "ResizeBilinear" and _is_uneven(context, node):
        _resample(context, node, name, arguments)
        return
    kind = "linear" if node.type == "ResizeBilinear" else "nearest"
    half, corners = (
        bool(node.get_attr_value(key, 0)) for key in ("half_pixel_centers", "align_corners")
    )
    centres = "tf_half_pixel_for_nn" if kind == "nearest" else "half_pixel"
    attributes: dict[str, Any] = {
        "mode": kind,
        "nearest_mode": "round_prefer_ceil" if corners else "floor",
        "coordinate_transformation_mode": (
            "align_corners" if corners else centres if half else "asymmetric"
        ),
    }
    _make_resize(context, node, attributes)


def _is_uneven(context: Any, node: Any) -> bool:
    """Whether known sizes are no multiples: ONNX Runtime rounds the places of pixels otherwise."""
    before, after = (context.get_shape(item) for item in (node.input[0], node.output[0]))
    if not before or not after or min(*before[1:3], *after[1:3]) <= 0:
        return False
    pairs = zip(before[1:3], after[1:3], strict=True)
    return _constant(node.inputs[1]) is not None and any(a % b and b % a for a, b in pairs)


def _make_resize(context: Any, node: Any, attributes: dict[str, Any]) -> None:
    from tf2onnx import utils

    (image, size), (output,) = node.input, node.output
    shape, dtype = context.get_shape(output), context.get_dtype(output)

    def constant(value: Any) -> str:
        return str(context.make_const(utils.make_name("number"), value).output[0])

    def made(op: str, *inputs: str, **attributes: Any) -> str:
        return str(context.make_node(op, list(inputs), attr=attributes).output[0])

    given = image if context.get_dtype(image) == dtype else made("Cast", image, to=dtype)
    planes = made("Transpose", given, perm=_IMAGES_AS_ONNX)
    first, third = (constant(np.array([value], np.int64)) for value in (0, 2))
    kept = made("Slice", made("Shape", planes), first, third)
    sizes = made("Concat", kept, made("Cast", size, to=onnx.TensorProto.INT64), axis=0)
    nothing = constant(np.zeros(0, np.float32))
    resized = made("Resize", planes, nothing, nothing, sizes, **attributes)
    context.remove_node(node.name)
    context.make_node(
        "Transpose", [resized], attr={"perm": _IMAGES_AS_TENSORFLOW}, name=node.name,
        outputs=[output], shapes=[shape], dtypes=[dtype],
    )  # fmt: skip


def _resample(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write a resize of known sizes as what it is, a product with a matrix for each axis.

    ONNX computes other weights, where it has the kernel at all: TensorFlow takes those of a cubic
    from a table.
    """
    from tf2onnx import utils

    image, output = node.input[0], node.output[0]
    before, shape = context.get_shape(image), context.get_shape(output)
    known = before and shape and min(*before[1:3], *shape[1:3]) > 0
    if not known or any(_constant(item) is None for item in node.inputs[1:]):
        raise ValueError("only a resize from and to known sizes can be written")
    dtype = context.get_dtype(output)

    def made(op: str, *inputs: str, **attributes: Any) -> str:
        return str(context.make_node(op, list(inputs), attr=attributes).output[0])

    rows, columns = (
        str(context.make_const(utils.make_name("weights"), array).output[0])
        for array in (_weights(node, 0, before[1]), _weights(node, 1, before[2]).T.copy())
    )
    given = image if context.get_dtype(image) == dtype else made("Cast", image, to=dtype)
    planes = made("Transpose", given, perm=_IMAGES_AS_ONNX)
    resized = made("MatMul", made("MatMul", rows, planes), columns)
    context.remove_node(node.name)
    context.make_node(
        "Transpose", [resized], attr={"perm": _IMAGES_AS_TENSORFLOW}, name=node.name,
        outputs=[output], shapes=[shape], dtypes=[dtype],
    )  # fmt: skip


def _weights(node: Any, axis: int, before: int) -> Any:
    """The matrix (after, before) of a resize along one axis, as TensorFlow computes it."""
    import tensorflow as tf

    size, *factors = (_constant(item) for item in node.inputs[1:])
    units = np.eye(before, dtype=np.float32)[None, :, None, :]  # an image of unit columns
    after = np.array([size[axis], 1], np.int32)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        if node.type == "ScaleAndTranslate":
            scale, shift = factors
            found = tf.raw_ops.ScaleAndTranslate(
                images=units,
                size=after,
                scale=np.array([scale[axis], 1], np.float32),
                translation=np.array([shift[axis], 0], np.float32),
                kernel_type=node.get_attr_value("kernel_type", b"lanczos3"),
                antialias=bool(node.get_attr_value("antialias", 1)),
            )
        else:
            options = {"align_corners": bool(node.get_attr_value("align_corners", 0))}
            if node.type != "ResizeArea":
                options["half_pixel_centers"] = bool(node.get_attr_value("half_pixel_centers", 0))
            found = getattr(tf.raw_ops, node.type)(images=units, size=after, **options)
        return session.run(found)[0, :, 0, :]


def _constant(node: Any) -> Any:
    """What a node gives, if it follows from constants and known sizes alone; else None."""
    if node.is_const():
        return node.get_tensor_value(as_list=False)
    if node.type == "Shape":
        sizes = node.graph.get_shape(node.input[0])
        return None if sizes is None else np.array(sizes, np.float64)  # -1 where unknown
    if node.type not in {"Cast", "Identity", "Div", "Slice"}:
        return None
    values = [_constant(item) for item in node.inputs]
    if any(value is None for value in values):
        return None
    if node.type == "Div":
        return None if (values[1] <= 0).any() else (values[0] / values[1]).astype(np.float32)
    if node.type == "Slice":
        start, stop = (int(value[0]) for value in values[1:3])
        return values[0][start:stop]
    return values[0]


HANDLERS = {
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor"), _resize),
    **dict.fromkeys(("ResizeArea", "ResizeBicubic", "ScaleAndTranslate"), _resample),
}
"""By TensorFlow's name of an op, what writes it."""
