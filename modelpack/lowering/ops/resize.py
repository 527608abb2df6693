"""Resize and Upsample: interpolation along axes, one axis after the other.

Coordinates are computed in float32 with ONNX Runtime's order of operations: which pixel is
nearest can depend on the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import sizes as shapes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import from_channel_last, to_channel_last
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

# Up to so many neighbours are gathered one by one; more of them at once, with more memory.
_MOST_UNROLLED = 4


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis that is resized.

    Attributes:
        before: its size.
        after: the size it gets.
        scale: float32; not exactly ``after / before`` if it was given.
        exact: whether it is that, whatever the sizes are.
        start, end: the region of interest, from 0 to 1.
    """

    before: Size
    after: Size
    scale: Any
    exact: bool
    start: Any = 0.0
    end: Any = 1.0

    @property
    def is_static(self) -> bool:
        """Whether all of it is known while lowering."""
        return not any(tf.is_tensor(item) for item in (self.before, self.after, self.scale))

    @property
    def is_identity(self) -> bool:
        """Whether it is known to be left as it is."""
        if tf.is_tensor(self.scale) or tf.is_tensor(self.start):
            return False
        same = self.exact or (self.is_static and self.before == self.after)
        return bool(same and self.scale == 1 and self.start == 0 and self.end == 1)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a resized tensor samples the original: the attributes of Resize."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0


@lowers("Upsample", 7)
def upsample_7(ctx: Context, x: Value, *, scales: Sequence[float], mode: str = "nearest") -> Value:
    return resize_10(ctx, x, Value(const=np.array(scales, np.float32)), mode=mode)


@lowers("Upsample", 9, 10)
@lowers("Resize", 10)
def resize_10(ctx: Context, x: Value, scales: Value, *, mode: str = "nearest") -> Value:
    """Asymmetric coordinates. ONNX Runtime rounds nearest pixels up when it scales down."""
    how = Sampling(mode, "asymmetric", "simple")
    return _resized(ctx, x, _scaled(x, range(x.rank), scales, None), how)


@lowers("Resize", 11, 13)
def resize_11(
    ctx: Context,
    x: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Value:
    return resize_18(
        ctx,
        x,
        roi,
        scales,
        sizes,
        coordinate_transformation_mode=coordinate_transformation_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=exclude_outside,
        extrapolation_value=extrapolation_value,
        mode=mode,
        nearest_mode=nearest_mode,
    )


@lowers("Resize", 18, 19)
def resize_18(
    ctx: Context,
    x: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Value:
    how = Sampling(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(exclude_outside),
        bool(antialias) and mode != "nearest",
        extrapolation_value,
    )
    over = [axis % x.rank for axis in axes] if axes is not None else list(range(x.rank))
    region = roi if coordinate_transformation_mode == "tf_crop_and_resize" else None
    if scales is not None and scales.shape != (0,):
        return _resized(ctx, x, _scaled(x, over, scales, region), how)
    if sizes is None:
        raise ctx.refuse("neither scales nor sizes are given")
    return _resized(ctx, x, _sized(x, over, sizes, region, keep_aspect_ratio_policy), how)


# --- what becomes of each axis ---------------------------------------------------------------


def _scaled(x: Value, over: Sequence[int], scales: Value, region: Value | None) -> dict[int, Axis]:
    dims = x.dims()
    plan = {}
    for i, axis in enumerate(over):
        scale = _element(scales, i)
        after = _cast(dims[axis] if _is_one(scale) else _float(dims[axis]) * scale)
        exact = not tf.is_tensor(scale) and float(scale).is_integer()
        plan[axis] = Axis(dims[axis], after, scale, exact, *_bounds(region, i, len(over)))
    return plan


def _sized(
    x: Value, over: Sequence[int], sizes: Value, region: Value | None, policy: str
) -> dict[int, Axis]:
    dims = x.dims()
    wanted = dict(zip(over, sizes.sizes(), strict=True))
    if policy != "stretch":
        return _with_aspect_ratio(dims, wanted, policy)
    plan = {}
    for i, (axis, after) in enumerate(wanted.items()):
        before = dims[axis]
        same = isinstance(after, int) and isinstance(before, int) and after == before
        scale = np.float32(1) if same else _float(after) / _float(before)
        plan[axis] = Axis(before, after, scale, True, *_bounds(region, i, len(wanted)))
    return plan


def _with_aspect_ratio(
    dims: Sequence[Size], wanted: dict[int, Size], policy: str
) -> dict[int, Axis]:
    ratios = [_float(after) / _float(dims[axis]) for axis, after in wanted.items()]
    known = not any(tf.is_tensor(ratio) for ratio in ratios)
    if policy == "not_larger":
        scale = min(ratios) if known else tf.reduce_min(tf.stack(ratios))
    else:
        scale = max(ratios) if known else tf.reduce_max(tf.stack(ratios))
    return {
        axis: Axis(dims[axis], _cast(scale * _float(dims[axis]) + np.float32(0.5)), scale, False)
        for axis in wanted
    }


def _bounds(region: Value | None, i: int, count: int) -> tuple[Any, Any]:
    if region is None:
        return 0.0, 1.0
    return _element(region, i), _element(region, count + i)


def _element(values: Value, i: int) -> Any:
    const = values.const if values.is_const else None
    return tf.cast(values.tensor[i], tf.float32) if const is None else np.float32(const[i])


def _is_one(scale: Any) -> bool:
    return not tf.is_tensor(scale) and scale == 1


def _float(size: Size) -> Any:
    return np.float32(size) if isinstance(size, int) else tf.cast(size, tf.float32)


def _cast(size: Any) -> Size:
    return tf.cast(size, tf.int32) if tf.is_tensor(size) else int(size)


# --- coordinates in the original -------------------------------------------------------------


def _half_pixel(x: Any, axis: Axis) -> Any:
    return (x + 0.5) / axis.scale - 0.5


def _half_pixel_symmetric(x: Any, axis: Axis) -> Any:
    before, after = _float(axis.before), _float(axis.after)
    offset = before / 2 * (1 - after / (axis.scale * before))
    return offset + (x + 0.5) / axis.scale - 0.5


def _pytorch_half_pixel(x: Any, axis: Axis) -> Any:
    return tf.where(axis.after > 1, _half_pixel(x, axis), 0.0)


def _asymmetric(x: Any, axis: Axis) -> Any:
    return x / axis.scale


def _align_corners(x: Any, axis: Axis) -> Any:
    return x * (_float(axis.before) - 1) / tf.maximum(_float(axis.after) - 1, 1.0)


def _tf_half_pixel_for_nn(x: Any, axis: Axis) -> Any:
    return (x + 0.5) / axis.scale


def _tf_crop_and_resize(x: Any, axis: Axis) -> Any:
    last = _float(axis.before) - 1
    steps = tf.maximum(_float(axis.after) - 1, 1.0)
    inside = axis.start * last + x * (axis.end - axis.start) * last / steps
    return tf.where(axis.after > 1, inside, 0.5 * (axis.start + axis.end) * last)


_COORDINATES: dict[str, Callable[[Any, Axis], Any]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "asymmetric": _asymmetric,
    "align_corners": _align_corners,
    "tf_half_pixel_for_nn": _tf_half_pixel_for_nn,
    "tf_crop_and_resize": _tf_crop_and_resize,
}


def _coordinates(axis: Axis, how: Sampling) -> Any:
    x = tf.range(_float(axis.after), dtype=tf.float32)
    return _COORDINATES[how.coordinates](x, axis)


def _nearest(x: Any, axis: Axis, mode: str) -> Any:
    """Indices of the nearest pixels; may lie outside."""
    floor = tf.floor(x)
    if mode == "simple":
        return tf.where(axis.scale < 1, tf.math.ceil(x), floor)
    up = {
        "floor": lambda part: tf.zeros_like(part, tf.bool),
        "ceil": lambda part: part > 0,
        "round_prefer_floor": lambda part: part > 0.5,
        "round_prefer_ceil": lambda part: part >= 0.5,
    }[mode](x - floor)
    return floor + tf.cast(up, tf.float32)


# --- neighbours and their weights --------------------------------------------------------------


def _linear(distance: Any, how: Sampling) -> Any:
    return tf.maximum(1 - distance, 0.0)


def _cubic(d: Any, how: Sampling) -> Any:
    """Keys' kernel, equation (4) of https://ieeexplore.ieee.org/document/1163711."""
    a = how.cubic_a
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return tf.where(d <= 1, near, tf.where(d < 2, far, 0.0))


_KERNELS = {"linear": (_linear, 1), "cubic": (_cubic, 2)}


def _neighbours(axis: Axis, how: Sampling) -> tuple[Any, Any]:
    """Indices and weights of the pixels that make each new one, ``[after, count]`` both."""
    x = _coordinates(axis, how)
    kernel, support = _KERNELS[how.mode]
    stretch = tf.minimum(axis.scale, 1.0) if how.antialias else 1.0
    first = tf.floor(-support / stretch) + 1
    indices = tf.floor(x)[:, None] + tf.range(first, 2 - first, dtype=tf.float32)
    weights = kernel(tf.abs(indices - x[:, None]) * stretch, how)
    if how.exclude_outside:
        inside = tf.logical_and(indices >= 0, indices < _float(axis.before))
        weights = tf.where(inside, weights, 0.0)
    if how.exclude_outside or how.antialias:
        weights /= tf.reduce_sum(weights, 1, keepdims=True)
    return _clamped(indices, axis), weights


def _clamped(indices: Any, axis: Axis) -> Any:
    last = _float(axis.before) - 1
    return tf.cast(tf.minimum(tf.maximum(indices, 0.0), last), tf.int32)


def _evaluated(axis: Axis, function: Callable[[], Any]) -> Any:
    """The function's result, as arrays if the axis is static."""
    if not axis.is_static or tf.is_tensor(axis.start):
        return function()
    with tf.init_scope():
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), function())


# --- resizing ----------------------------------------------------------------------------------


def _resized(ctx: Context, x: Value, plan: dict[int, Axis], how: Sampling) -> Value:
    if how.coordinates not in _COORDINATES or how.mode not in {"nearest", *_KERNELS}:
        raise ctx.refuse(f"mode '{how.mode}' with coordinates '{how.coordinates}' is not known")
    plan = {axis: item for axis, item in plan.items() if not item.is_identity}
    # A batch of unknown size is not resized, whatever its size is computed from.
    batch = plan.get(0)
    if batch is not None and batch.exact and tf.is_tensor(batch.before):
        result = _resized(ctx, x, {axis: plan[axis] for axis in plan if axis}, how)
        return result if ctx.builtin_only else _asserting_batch(result, batch.after)
    if not plan:
        return x
    fused = _fused(x, plan, how)
    return _separately(x, plan, how) if fused is None else fused


def _asserting_batch(result: Value, batch: Size) -> Value:
    with tf.control_dependencies([tf.debugging.assert_equal(result.dims()[0], batch)]):
        return result.like(tf.identity(result.held))


def _separately(x: Value, plan: dict[int, Axis], how: Sampling) -> Value:
    tensor = x.tensor if x.is_const else x.held
    computed = tensor.dtype
    if how.mode != "nearest" and tensor.dtype not in (tf.float32, tf.float64):
        tensor = tf.cast(tensor, tf.float32)
    for logical, axis in plan.items():
        physical = logical if x.is_const else x.axis(logical)
        if how.mode == "nearest":
            tensor = _take_nearest(tensor, physical, axis, how)
        else:
            tensor = _take_weighted(tensor, physical, axis, how)
        if how.coordinates == "tf_crop_and_resize":
            tensor = _extrapolated(tensor, physical, axis, how)
    tensor = _cast_back(tensor, computed, how)
    return Value(tensor) if x.is_const else x.like(tensor)


def _take_nearest(tensor: Any, position: int, axis: Axis, how: Sampling) -> Any:
    def indices() -> Any:
        return _clamped(_nearest(_coordinates(axis, how), axis, how.nearest), axis)

    return tf.gather(tensor, _evaluated(axis, indices), axis=position)


def _take_weighted(tensor: Any, position: int, axis: Axis, how: Sampling) -> Any:
    indices, weights = _evaluated(axis, lambda: _neighbours(axis, how))
    ones = [1] * (tensor.shape.rank - position - 1)
    weights = tf.cast(weights, tensor.dtype)
    count = indices.shape[1]
    if count is None or count > _MOST_UNROLLED:
        weights = tf.reshape(weights, tf.concat([tf.shape(weights), ones], 0))
        return tf.reduce_sum(tf.gather(tensor, indices, axis=position) * weights, position + 1)
    parts = [
        tf.gather(tensor, indices[:, i], axis=position) * tf.reshape(weights[:, i], [-1, *ones])
        for i in range(count)
    ]
    return tf.add_n(parts)


def _extrapolated(tensor: Any, position: int, axis: Axis, how: Sampling) -> Any:
    def outside() -> Any:
        x = _coordinates(axis, how)
        return tf.logical_or(x < 0, x > _float(axis.before) - 1)

    mask = tf.reshape(_evaluated(axis, outside), [-1] + [1] * (tensor.shape.rank - position - 1))
    return tf.where(mask, tf.cast(how.extrapolation, tensor.dtype), tensor)


def _cast_back(tensor: Any, dtype: Any, how: Sampling) -> Any:
    """Integers are truncated as in ONNX Runtime; where a kernel overshoots, they saturate."""
    if tensor.dtype == dtype:
        return tensor
    if dtype.is_integer and (how.antialias or how.mode == "cubic"):
        tensor = tf.clip_by_value(tf.round(tensor), float(dtype.min), float(dtype.max))
    return tf.cast(tensor, dtype)


# --- TensorFlow's own kernels, where they compute the same -------------------------------------


def _fused(x: Value, plan: dict[int, Axis], how: Sampling) -> Value | None:
    """Resize the two spatial axes of images with one op; None where none computes the same."""
    if x.rank != 4 or x.dtype not in (tf.float32, tf.float16, tf.bfloat16) or x.is_const:
        return None
    first = 1 if set(plan) <= {1, 2} and (1 in plan or x.perm is None) else 2
    if not set(plan) <= {first, first + 1} or how.antialias or how.exclude_outside:
        return None
    dims = x.dims()
    whole = [
        plan.get(axis, Axis(dims[axis], dims[axis], np.float32(1), True))
        for axis in (first, first + 1)
    ]
    centers = _kernel_of(whole, how)
    if centers is None:
        return None
    function = {
        "nearest": tf.compat.v1.image.resize_nearest_neighbor,
        "linear": tf.compat.v1.image.resize_bilinear,
    }[how.mode]
    images = x.tensor if first == 1 else to_channel_last(x)
    result = function(
        images,
        shapes.pack([axis.after for axis in whole]),
        align_corners=centers == "align_corners",
        half_pixel_centers=centers == "half_pixel",
    )
    result = tf.cast(result, x.dtype)
    return Value(result) if first == 1 else from_channel_last(result)


def _kernel_of(axes: Sequence[Axis], how: Sampling) -> str | None:
    """The coordinates for which TensorFlow's kernel samples the same pixels; None for none."""
    same = {"nearest": _same_nearest, "linear": _same_linear}.get(how.mode)
    if same is None:
        return None
    for centers in ("half_pixel", "asymmetric", "align_corners"):
        if all(same(axis, how, centers) for axis in axes):
            return centers
    return None


def _of_kernel(axis: Axis, centers: str) -> Any:
    """Coordinates as TensorFlow's and TFLite's kernels compute them; numpy."""
    x = np.arange(axis.after, dtype=np.float32)
    if centers == "align_corners":
        return x * np.float32((axis.before - 1) / max(axis.after - 1, 1))
    scale = np.float32(axis.before) / np.float32(axis.after)
    return (x + np.float32(0.5)) * scale if centers == "half_pixel" else x * scale


def _same_nearest(axis: Axis, how: Sampling, centers: str) -> bool:
    if not axis.is_static:
        # Powers of two divide without rounding, so every size gives the same pixels.
        exact = axis.exact and not tf.is_tensor(axis.scale) and np.log2(axis.scale).is_integer()
        wanted = (how.coordinates, how.nearest in {"floor", "simple"}, centers)
        return bool(exact) and wanted == ("asymmetric", True, "asymmetric")
    if tf.is_tensor(axis.start):
        return False
    x = _of_kernel(axis, centers)
    # The kernel rounds halves up, and takes half-pixel coordinates without the half.
    indices = np.floor(x + 0.5) if centers == "align_corners" else np.floor(x)
    indices = np.clip(indices, 0, axis.before - 1)
    ours = _evaluated(
        axis, lambda: _clamped(_nearest(_coordinates(axis, how), axis, how.nearest), axis)
    )
    return how.coordinates != "tf_crop_and_resize" and np.array_equal(indices, ours)


def _same_linear(axis: Axis, how: Sampling, centers: str) -> bool:
    if how.coordinates == "tf_crop_and_resize":
        return False
    if not axis.is_static:
        return axis.exact and how.coordinates == centers
    x = _of_kernel(axis, centers) - (0.5 if centers == "half_pixel" else 0.0)
    ours = _evaluated(axis, lambda: _coordinates(axis, how))
    last = axis.before - 1
    return np.allclose(np.clip(x, 0, last), np.clip(ours, 0, last), rtol=1e-6, atol=1e-6)
