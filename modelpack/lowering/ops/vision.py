"""NonMaxSuppression, CenterCropPad, ImageDecoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value


@lowers("NonMaxSuppression", 10, 11)
def non_max_suppression(
    ctx: Context,
    boxes: Value,
    scores: Value,
    max_output_boxes_per_class: Value | None = None,
    iou_threshold: Value | None = None,
    score_threshold: Value | None = None,
    *,
    center_point_box: int = 0,
) -> Any:
    """One kernel call for each class of each image; rows of (image, class, box)."""
    if max_output_boxes_per_class is None:
        return np.zeros((0, 3), np.int64)
    corners = _corners(boxes.tensor, bool(center_point_box))
    images, classes, count = scores.dims()
    if ctx.builtin_only and (not isinstance(count, int) or boxes.shape[2] != 4):
        raise ctx.refuse("LiteRT's kernel needs to know the number of boxes and their four numbers")
    limit = tf.cast(_scalar(max_output_boxes_per_class), tf.int64)
    # Not a maximum of a minimum: the converter takes that for a Relu6 where there are 6 boxes.
    most = tf.where(limit < 0, tf.zeros_like(limit), tf.minimum(limit, tf.cast(count, tf.int64)))
    most = tf.cast(most, tf.int32)
    overlap = tf.constant(0.0) if iou_threshold is None else _scalar(iou_threshold)
    if ctx.builtin_only:
        # LiteRT suppresses what overlaps just as much as the threshold; ONNX does not.
        overlap = overlap * (1 + 2.0**-23) + np.finfo(np.float32).tiny
    least = tf.constant(-np.inf) if score_threshold is None else _scalar(score_threshold)

    def body(i: Any, found: Any) -> tuple[Any, Any]:
        image, kind = i // classes, i % classes
        chosen, valid = tf.raw_ops.NonMaxSuppressionV4(
            boxes=tf.gather(corners, image),
            scores=tf.gather(tf.gather(scores.tensor, image), kind),
            max_output_size=most,
            iou_threshold=overlap,
            score_threshold=least,
            pad_to_max_output_size=True,
        )
        chosen = chosen[:valid]
        same = tf.zeros_like(chosen)
        rows = tf.stack([same + image, same + kind, chosen], 1)
        return i + 1, tf.concat([found, rows], 0)

    _, found = tf.while_loop(
        lambda i, _: i < images * classes,
        body,
        (tf.constant(0), tf.zeros([0, 3], tf.int32)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, 3])),
    )
    return tf.cast(found, tf.int64)


def _corners(boxes: Any, center_point_box: bool) -> Any:
    """Boxes as their least and their greatest (y, x)."""
    if center_point_box:
        center, half = boxes[..., 1::-1], boxes[..., :1:-1] / 2
        return tf.concat([center - half, center + half], -1)
    one, other = boxes[..., :2], boxes[..., 2:]
    return tf.concat([tf.minimum(one, other), tf.maximum(one, other)], -1)


def _scalar(value: Value) -> Any:
    return tf.reshape(value.tensor, [])


@lowers("CenterCropPad", 18)
def center_crop_pad(x: Value, shape: Value, *, axes: Sequence[int] | None = None) -> Any:
    over = range(x.rank) if axes is None else [axis % x.rank for axis in axes]
    dims = x.dims()
    index: list[Any] = [slice(None)] * x.rank
    pads: list[list[Size]] = [[0, 0] for _ in dims]
    result: list[Size] = list(dims)
    for axis, wanted in zip(over, shape.sizes(), strict=True):
        surplus, missing = _positive(dims[axis] - wanted), _positive(wanted - dims[axis])
        start = surplus // 2
        index[axis] = slice(start, start + dims[axis] - surplus)
        pads[axis] = [missing // 2, missing - missing // 2]
        result[axis] = wanted
    tensor = tf.pad(x.tensor[tuple(index)], pads)
    tensor.set_shape([size if isinstance(size, int) else None for size in result])
    return tensor


def _positive(size: Size) -> Size:
    return max(size, 0) if isinstance(size, int) else tf.maximum(size, 0)


@lowers("ImageDecoder", 20, builtin=False)
def image_decoder(ctx: Context, encoded_stream: Value, *, pixel_format: str = "RGB") -> Any:
    """TensorFlow reads BMP, GIF, JPEG, PNG and WebP, and fails on others when it runs."""
    if pixel_format not in {"RGB", "BGR", "Grayscale"}:
        raise ctx.refuse(f"pixel format '{pixel_format}' is not known")
    letters = tf.constant([bytes([i]) for i in range(256)])
    stream = tf.strings.reduce_join(tf.gather(letters, tf.cast(encoded_stream.tensor, tf.int32)))
    pixels = tf.cond(
        tf.io.is_jpeg(stream),
        lambda: tf.io.decode_jpeg(stream, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(stream, 3, expand_animations=False),
    )
    pixels.set_shape([None, None, 3])
    if pixel_format == "Grayscale":
        return _luma(pixels)
    return pixels[..., ::-1] if pixel_format == "BGR" else pixels


def _luma(pixels: Any) -> Any:
    """ITU-R 601-2 luma in fixed point, as Pillow computes it, which ONNX's examples use."""
    weights = tf.constant([19595, 38470, 7471])
    weighted = tf.reduce_sum(tf.cast(pixels, tf.int32) * weights, -1, keepdims=True)
    return tf.cast((weighted + 0x8000) // 0x10000, tf.uint8)
