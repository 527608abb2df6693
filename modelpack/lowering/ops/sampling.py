"""Sampling images at computed places: GridSample, AffineGrid, RoiAlign.

Images are flattened to rows of channels, and every neighbour of every place is one gather of
rows, weighted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import from_channel_last, to_channel_last
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

_CUBIC_A = -0.75


class _Tap(NamedTuple):
    """A neighbour along one axis, for every place.

    Attributes:
        index: int32, inside the image.
        weight: what it counts; None for all.
        inside: False where the neighbour is padding of zeros; None if it never is.
    """

    index: Any
    weight: Any
    inside: Any


@lowers("GridSample", 16)
def grid_sample_16(
    ctx: Context,
    x: Value,
    grid: Value,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Value:
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return grid_sample_20(
        ctx, x, grid, align_corners=align_corners, mode=mode, padding_mode=padding_mode
    )


@lowers("GridSample", 20, 22)
def grid_sample_20(
    ctx: Context,
    x: Value,
    grid: Value,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Value:
    if mode not in {"nearest", "linear", "cubic"}:
        raise ctx.refuse(f"mode '{mode}' is not known")
    images = to_channel_last(x)
    dims = Value(images).dims()
    taps = [
        # The grid has the last axis first.
        _taps(grid.tensor[..., -1 - axis], size, mode, padding_mode, bool(align_corners))
        for axis, size in enumerate(dims[1:-1])
    ]
    batch = tf.reshape(tf.range(dims[0]), [-1] + [1] * (x.rank - 2))
    return from_channel_last(_gathered(images, dims, batch, taps))


def _taps(
    normalized: Any, size: Size, mode: str, padding_mode: str, align_corners: bool
) -> list[_Tap]:
    length = tf.cast(size, normalized.dtype)
    low, high = (0.0 * length, length - 1) if align_corners else (-0.5 + 0 * length, length - 0.5)
    x = (
        (normalized + 1) / 2 * (length - 1)
        if align_corners
        else ((normalized + 1) * length - 1) / 2
    )
    if mode == "nearest":
        x = tf.round(x)
    # Of cubic interpolation only the neighbours are moved inside, as in PyTorch.
    if padding_mode == "border" and mode != "cubic":
        x = _clipped(x, length)
    elif padding_mode == "reflection" and mode != "cubic":
        x = _reflected(x, low, high)
    floor = tf.floor(x)
    part = x - floor
    offsets = {
        "nearest": [(0, None)],
        "linear": [(0, 1 - part), (1, part)],
        "cubic": [(i, _cubic(tf.abs(part - i))) for i in (-1, 0, 1, 2)],
    }[mode]
    taps = []
    for offset, weight in offsets:
        place = floor + offset
        inside = None
        if padding_mode == "zeros":
            inside = tf.logical_and(place >= 0, place < length)
        elif padding_mode == "reflection":
            place = _reflected(place, low, high)
        taps.append(_Tap(tf.cast(_clipped(place, length), tf.int32), weight, inside))
    return taps


def _clipped(x: Any, length: Any) -> Any:
    return tf.minimum(tf.maximum(x, 0), length - 1)


def _reflected(x: Any, low: Any, high: Any) -> Any:
    """Folded at the borders as often as it takes to lie between them."""
    span = tf.maximum(high - low, 1)
    distance = tf.abs(x - low)
    times = tf.floor(distance / span)
    rest = distance - times * span
    even = tf.equal(times, 2 * tf.floor(times / 2))
    return tf.where(even, low + rest, high - rest)


def _cubic(d: Any) -> Any:
    near = ((_CUBIC_A + 2) * d - (_CUBIC_A + 3)) * d * d + 1
    far = ((_CUBIC_A * d - 5 * _CUBIC_A) * d + 8 * _CUBIC_A) * d - 4 * _CUBIC_A
    return tf.where(d <= 1, near, far)


def _gathered(images: Any, dims: Sequence[Size], batch: Any, taps: Sequence[Sequence[_Tap]]) -> Any:
    """The sum over all neighbours; taps by axis, in the order of the images' axes."""
    rows = sizes.reshape(images, [-1, dims[-1]])
    weighted = any(tap.weight is not None for axis in taps for tap in axis)
    if weighted and not images.dtype.is_floating:
        rows = tf.cast(rows, tf.float32)
    total = None
    for corner in product(*taps):
        index = batch
        for size, tap in zip(dims[1:-1], corner, strict=True):
            index = index * size + tap.index
        part = _counted(tf.gather(rows, index), corner)
        total = part if total is None else total + part
    return tf.cast(total, images.dtype)


def _counted(values: Any, corner: Sequence[_Tap]) -> Any:
    for tap in corner:
        if tap.weight is not None:
            values *= tf.expand_dims(tf.cast(tap.weight, values.dtype), -1)
        if tap.inside is not None:
            values = tf.where(tf.expand_dims(tap.inside, -1), values, tf.zeros_like(values))
    return values


@lowers("AffineGrid", 20)
def affine_grid(theta: Value, size: Value, *, align_corners: int = 0) -> Any:
    spatial = size.sizes()[2:]
    rank = len(spatial)
    lines = []
    for axis, length in enumerate(spatial):
        steps = tf.range(length)
        places = tf.cast(2 * steps, theta.dtype)
        if align_corners:
            places = places / tf.cast(tf.maximum(length - 1, 1), theta.dtype) - 1
        else:
            places = (places + 1) / tf.cast(length, theta.dtype) - 1
        lines.append(tf.reshape(places, [-1 if i == axis else 1 for i in range(rank)]))
    full = sizes.pack(spatial)
    # Coordinates have the last axis first, and end with a one.
    points = [tf.broadcast_to(line, full) for line in reversed(lines)]
    base = tf.stack([*points, tf.ones_like(points[0])], -1)
    moved = tf.matmul(tf.reshape(base, [1, -1, rank + 1]), theta.tensor, transpose_b=True)
    return sizes.reshape(moved, [Value(theta.tensor).dims()[0], *spatial, rank])


# --- RoiAlign ------------------------------------------------------------------------------------


@lowers("RoiAlign", 10)
def roi_align_10(
    x: Value,
    rois: Value,
    batch_indices: Value,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Value:
    return roi_align_16(
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@lowers("RoiAlign", 16, 22)
def roi_align_16(
    x: Value,
    rois: Value,
    batch_indices: Value,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Value:
    """Regions are cut into bins, bins sampled at a grid of points, points interpolated."""
    shift = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    images = to_channel_last(x)
    dims = Value(images).dims()
    corners = rois.tensor * spatial_scale - shift
    extent = corners[:, 2:] - corners[:, :2]
    if not shift:
        extent = tf.maximum(extent, 1.0)
    vertical, horizontal = (
        _bin_samples(corners[:, i], extent[:, i], bins, sampling_ratio, dims[2 - i])
        for i, bins in ((1, output_height), (0, output_width))
    )
    batch = tf.reshape(tf.cast(batch_indices.tensor, tf.int32), [-1, 1, 1, 1, 1])
    return from_channel_last(_pooled(images, dims, batch, vertical, horizontal, mode))


class _Samples(NamedTuple):
    """Sampling points along one axis.

    Attributes:
        taps: low and high neighbour, ``[regions, bins, points]``.
        used: whether a region has this point, ``[regions, 1, points]``.
        count: the number of points, ``[regions]``.
    """

    taps: list[_Tap]
    used: Any
    count: Any


def _bin_samples(start: Any, extent: Any, bins: int, ratio: int, size: Size) -> _Samples:
    start, extent = start[:, None, None], extent[:, None, None]
    width = extent / bins
    count = tf.ones_like(width) * ratio if ratio > 0 else tf.math.ceil(width)
    most: Any = ratio if ratio > 0 else tf.cast(tf.reduce_max(tf.maximum(count, 1.0)), tf.int32)
    point = tf.cast(tf.range(most), width.dtype)[None, None]
    used = point < count
    bin_ = tf.cast(tf.range(bins), width.dtype)[None, :, None]
    x = start + bin_ * width + (point + 0.5) * width / tf.maximum(count, 1.0)
    length = tf.cast(size, x.dtype)
    inside = tf.logical_and(x >= -1, x <= length)
    x = _clipped(x, length)
    low = tf.floor(x)
    high = tf.minimum(low + 1, length - 1)
    part = x - low
    taps = [
        _Tap(tf.cast(low, tf.int32), 1 - part, inside),
        _Tap(tf.cast(high, tf.int32), part, inside),
    ]
    return _Samples(taps, used, count[:, 0, 0])


def _pooled(
    images: Any,
    dims: Sequence[Size],
    batch: Any,
    vertical: _Samples,
    horizontal: _Samples,
    mode: str,
) -> Any:
    rows = sizes.reshape(images, [-1, dims[-1]])
    down = [_Tap(*map(_down, tap)) for tap in vertical.taps]
    across = [_Tap(*map(_across, tap)) for tap in horizontal.taps]
    values = [
        _counted(tf.gather(rows, (batch * dims[1] + y.index) * dims[2] + x.index), (y, x))
        for y, x in product(down, across)
    ]
    used = tf.expand_dims(tf.logical_and(_down(vertical.used), _across(horizontal.used)), -1)
    if mode == "max":
        # The greatest weighted neighbour, as ONNX defines it, and not of their sum.
        best = tf.where(used, _greatest(values), images.dtype.min)
        found = tf.reduce_max(best, [2, 4])
        return tf.where(found > images.dtype.min, found, tf.zeros_like(found))
    total = tf.where(used, tf.add_n(values), tf.cast(0, images.dtype))
    count = tf.maximum(vertical.count * horizontal.count, 1.0)
    return tf.reduce_sum(total, [2, 4]) / tf.reshape(tf.cast(count, images.dtype), [-1, 1, 1, 1])


def _down(tensor: Any) -> Any:
    """From ``[regions, bins, points]`` to ``[regions, bins, points, 1, 1]``."""
    return tf.expand_dims(tf.expand_dims(tensor, -1), -1)


def _across(tensor: Any) -> Any:
    """From ``[regions, bins, points]`` to ``[regions, 1, 1, bins, points]``."""
    return tf.expand_dims(tf.expand_dims(tensor, 1), 1)


def _greatest(values: Sequence[Any]) -> Any:
    result = values[0]
    for value in values[1:]:
        result = tf.maximum(result, value)
    return result
