"""Adaptive pooling of PyTorch written with other ops, of sizes that are known or not.

Window i of n along a size is from floor(i * size / n) to ceil((i + 1) * size / n).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Reduces an axis to one place: values, axis, and which places of the axis count (or all of them).
_Reduce = Callable[[Any, int, Any], Any]


def adaptive_max(image: Any, wanted: list[Any]) -> tuple[Any]:
    """`torch.nn.functional.adaptive_max_pool2d` and its like, without the places of the largest."""
    return (_adaptive(image, wanted, _largest),)


def adaptive_mean(image: Any, wanted: list[Any]) -> Any:
    """`torch.nn.functional.adaptive_avg_pool2d` and its like."""
    return _adaptive(image, wanted, _mean)


def _largest(values: Any, axis: int, counted: Any = None) -> Any:
    if counted is not None:
        values = values.masked_fill(counted.logical_not(), float("-inf"))
    return values.amax(axis, keepdim=True)


def _mean(values: Any, axis: int, counted: Any = None) -> Any:
    if counted is None:
        return values.mean(axis, keepdim=True)
    total = values.masked_fill(counted.logical_not(), 0.0).sum(axis, keepdim=True)
    return total / counted.to(values.dtype).sum(axis, keepdim=True)


def _adaptive(image: Any, wanted: list[Any], reduce: _Reduce) -> Any:
    """Reduce axis by axis: the mean of a window is the mean of means, for its rows are as long."""
    for axis, count in zip(range(-len(wanted), 0), wanted, strict=True):
        size = image.shape[axis]
        if isinstance(count, int) and count == 1:
            image = reduce(image, axis, None)
        elif isinstance(size, int) and isinstance(count, int):
            image = _one_by_one(image, axis, count, reduce)
        else:
            image = _all_at_once(image, axis, count, reduce)
    return image


def _one_by_one(image: Any, axis: int, count: int, reduce: _Reduce) -> Any:
    size = image.shape[axis]
    parts = []
    for index in range(count):
        start, end = index * size // count, -(-(index + 1) * size // count)
        parts.append(reduce(image.narrow(axis, start, end - start), axis, None))
    return torch.cat(parts, axis)


def _all_at_once(image: Any, axis: int, count: Any, reduce: _Reduce) -> Any:
    """The windows as rows of a matrix, each as long as the longest may be."""
    size = image.shape[axis]
    windows = torch.arange(count)
    start = windows * size // count
    length = ((windows + 1) * size + (count - 1)) // count - start
    longest = (size + count - 1) // count + 1
    steps = torch.arange(longest)
    counted = steps < length.unsqueeze(-1)
    places = (start.unsqueeze(-1) + steps).masked_fill(counted.logical_not(), 0)
    moved = image.movedim(axis, -1)
    rows = moved.index_select(-1, places.flatten()).unflatten(-1, (count, longest))
    return reduce(rows, -1, counted).squeeze(-1).movedim(-1, axis)
