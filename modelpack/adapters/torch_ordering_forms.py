"""Ops of PyTorch that go by the order of values, written with others that the exporter knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """`torch.sort`, whose equal values keep their order in ONNX in any case."""
    return torch.sort(values, dim, descending)


def places_in_order(values: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """`torch.argsort`, as `sort`."""
    return sort(values, stable, dim, descending)[1]


def kth_value(values: Any, k: Any, dim: int = -1, keepdim: bool = False) -> tuple[Any, ...]:
    """`torch.kthvalue`: the k-th smallest values along an axis, counted from 1, and their places.

    Among equal values, PyTorch does not say whose place it is.
    """
    if values.dim() == 0:
        return values, torch.zeros_like(values, dtype=torch.int64)
    place = torch.zeros(1, dtype=torch.int64) + (k - 1)
    found = [item.index_select(dim, place) for item in torch.sort(values, dim)]
    return tuple(item if keepdim else item.squeeze(dim) for item in found)


def median(values: Any, dim: int, keepdim: bool = False) -> tuple[Any, ...]:
    """`torch.median` along an axis: the lower one of two in the middle; NaN where there is one."""
    middle = (values.shape[dim] + 1) // 2 if values.dim() else 1
    found, places = kth_value(values, middle, dim, keepdim)
    if not values.dtype.is_floating_point or not values.dim():
        return found, places
    unknown = values.isnan()
    first = unknown.to(torch.int64).argmax(dim, keepdim)
    is_unknown = unknown.any(dim, keepdim)
    return found.masked_fill(is_unknown, float("nan")), torch.where(is_unknown, first, places)


def median_of_all(values: Any) -> Any:
    """`torch.median` of all values."""
    return median(values.flatten(), 0)[0]


def running_max(values: Any, dim: int) -> tuple[Any, Any]:
    """`torch.cummax`: the largest value up to each place, and the last place that it is at.

    A value that is NaN is the largest, and the smallest. Takes memory for the square of the axis.
    """
    return _running(values, dim, torch.amax, _lowest(values.dtype))


def running_min(values: Any, dim: int) -> tuple[Any, Any]:
    """`torch.cummin`, as `running_max`."""
    return _running(values, dim, torch.amin, _highest(values.dtype))


def running_product(values: Any, dim: int, dtype: torch.dtype | None = None) -> Any:
    """`torch.cumprod`. Takes memory for the square of the axis."""
    if values.dim() == 0:
        return values.to(dtype or values.dtype)
    moved = values.to(dtype or values.dtype).movedim(dim, -1)
    return moved.unsqueeze(-2).masked_fill(_later(moved), 1).prod(-1).movedim(-1, dim)


def _running(values: Any, dim: int, reduce: Any, unseen: float) -> tuple[Any, Any]:
    if values.dim() == 0:
        return values, torch.zeros_like(values, dtype=torch.int64)
    moved = values.movedim(dim, -1)
    later = _later(moved)
    best = reduce(moved.unsqueeze(-2).masked_fill(later, unseen), -1)
    is_best = (moved.unsqueeze(-2) == best.unsqueeze(-1)) & later.logical_not()
    if values.dtype.is_floating_point:
        unknown = moved.isnan().unsqueeze(-2) & later.logical_not()
        is_unknown = unknown.any(-1)
        is_best = (is_best & is_unknown.logical_not().unsqueeze(-1)) | unknown
        best = best.masked_fill(is_unknown, float("nan"))
    places = torch.arange(moved.shape[-1])
    last = torch.where(is_best, places, -1).amax(-1)
    return best.movedim(-1, dim), last.movedim(-1, dim)


def _later(moved: Any) -> Any:
    """bool[length, length]: whether the column comes after the row."""
    places = torch.arange(moved.shape[-1])
    return places > places.unsqueeze(-1)


def _lowest(dtype: torch.dtype) -> float:
    return float("-inf") if dtype.is_floating_point else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> float:
    return float("inf") if dtype.is_floating_point else torch.iinfo(dtype).max


def search(
    ordered: Any,
    values: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """`torch.searchsorted`: how many of a row's ordered values are below each value.

    Compares each with all of its row: takes memory for their product.
    """
    if sorter is not None:
        ordered = ordered.gather(-1, sorter)
    row, one = ordered.unsqueeze(-2) if ordered.dim() > 1 else ordered, values.unsqueeze(-1)
    # Asked so that NaN comes after all.
    beyond = row > one if right or side == "right" else row >= one
    return beyond.logical_not().sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def is_in(elements: Any, tests: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    """`torch.isin`, by comparing all with all."""
    # ONNX Runtime leaves out no axis that is empty: there is always something on it.
    nothing = torch.zeros_like(elements, dtype=torch.bool).unsqueeze(-1)
    found = torch.cat([nothing, elements.unsqueeze(-1) == tests.flatten()], -1).any(-1)
    return found.logical_not() if invert else found


def largest_known(one: Any, other: Any) -> Any:
    """`torch.fmax`: NaN only where both are."""
    return _known(one, other, torch.maximum)


def smallest_known(one: Any, other: Any) -> Any:
    """`torch.fmin`: NaN only where both are."""
    return _known(one, other, torch.minimum)


def _known(one: Any, other: Any, chosen: Callable[[Any, Any], Any]) -> Any:
    dtype = torch.result_type(one, other)
    if not dtype.is_floating_point:
        return chosen(one, other)
    one, other = one.to(dtype), other.to(dtype)
    return torch.where(one.isnan(), other, torch.where(other.isnan(), one, chosen(one, other)))


def scattered_mean(
    held: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """`torch.Tensor.scatter_reduce` of means, which ONNX does not have: a sum and a count."""
    total = held.scatter_reduce(dim, index, source, "sum", include_self=include_self)
    counted = torch.full_like(held, float(include_self))
    counted = counted.scatter_add(dim, index, torch.ones_like(source)).clamp_min(1)
    if held.dtype.is_floating_point:
        return total / counted
    return torch.div(total, counted, rounding_mode="floor")


def take_along(values: Any, places: Any, dim: int | None = None) -> Any:
    """`torch.take_along_dim` of sizes that are not known."""
    if dim is None:
        return values.flatten().gather(0, places.flatten())
    shapes = [list(item.shape) for item in (values, places)]
    along = [shape.pop(dim) for shape in shapes]
    common = list(torch.broadcast_shapes(*shapes))
    at = dim % values.dim()
    wide = [
        item.expand(*common[:at], size, *common[at:])
        for item, size in zip((values, places), along, strict=True)
    ]
    return wide[0].gather(dim, wide[1])
