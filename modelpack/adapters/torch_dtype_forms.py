"""Ops of PyTorch on conditions and whole numbers, where ONNX has them for fractions alone."""

from __future__ import annotations

import functools
from typing import Any

import torch


def either(one: Any, other: Any) -> Any:
    """The sum of conditions, which is one of them."""
    return one | other


def chosen(where: Any, one: Any, other: Any) -> Any:
    """`torch.where` of conditions."""
    return (where & one) | (where.logical_not() & other)


def filled(values: Any, where: Any, value: Any) -> Any:
    """`torch.masked_fill` of conditions."""
    return chosen(where, value if isinstance(value, torch.Tensor) else bool(value), values)


def all_true(values: Any) -> Any:
    """`torch._is_all_true`, which checks of values that raise are made of."""
    return values.all()


def any_true(values: Any) -> Any:
    """`torch._is_any_true`, as `all_true`."""
    return values.any()


def not_negative(values: Any) -> Any:
    """`torch.relu` of whole numbers."""
    return values.clamp_min(0)


def whole(values: Any) -> Any:
    """`torch.floor` and its like of whole numbers: the numbers."""
    return values.clone()


def is_unknown(values: Any) -> Any:
    """`torch.isnan` of whole numbers."""
    return values != values  # noqa: PLR0124 -- nowhere, in any shape


def mean(values: Any, dim: Any, keepdim: bool = False, *, dtype: torch.dtype) -> Any:
    """`torch.mean` along axes, in a dtype that the values are converted to first."""
    return values.to(dtype).mean(dim, keepdim)


def mean_of_all(values: Any, *, dtype: torch.dtype) -> Any:
    """`torch.mean` of all values, in a dtype that they are converted to first."""
    return values.to(dtype).mean()


def softmax(values: Any, dim: int, dtype: torch.dtype) -> Any:
    """`torch.softmax` of whole numbers."""
    return values.to(dtype).softmax(dim)


def log_softmax(values: Any, dim: int, dtype: torch.dtype) -> Any:
    """`torch.log_softmax` of whole numbers."""
    return values.to(dtype).log_softmax(dim)


def stack(tensors: list[Any], dim: int = 0) -> Any:
    """`torch.stack` of several dtypes: in the one that takes the values of all."""
    dtype = functools.reduce(torch.promote_types, (item.dtype for item in tensors))
    return torch.stack([item.to(dtype) for item in tensors], dim)
