"""Estimators fitted on float32 that compute in float64, to tell what float32 loses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import scipy.sparse

from modelpack.adapters.sklearn_loading import walk
from modelpack.errors import InputError


def widened(model: Any) -> Any:
    """A copy of an estimator that holds what it learned in float64, and so computes in it.

    What is compiled, as trees are, stays as it is.

    Raises:
        InputError: it learned nothing in float32.
    """
    if not any(_is_narrow(value) for _, item in walk(model) for value in _learned(item).values()):
        raise InputError("the estimator computes in float64 already")
    copied = copy.deepcopy(model)
    for _, item in walk(copied):
        for name, value in _learned(item).items():
            if _is_narrow(value):
                setattr(item, name, _wide(value))
    return copied


def _learned(item: Any) -> dict[str, Any]:
    return dict(getattr(item, "__dict__", {}))


def _is_narrow(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_narrow(part) for part in value)
    is_array = isinstance(value, np.ndarray | np.floating) or scipy.sparse.issparse(value)
    return bool(is_array and value.dtype == np.float32)


def _wide(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_wide(part) for part in value)
    return value.astype(np.float64) if _is_narrow(value) else value
