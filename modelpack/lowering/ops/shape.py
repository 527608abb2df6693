"""Ops that move elements about or ask for sizes, and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import known, sizes
from modelpack.lowering.layout import permuted
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("Shape", 1, 13)
def shape_1(x: Value) -> Value:
    return shape_15(x)


@lowers("Shape", 15, 19, 21, 23, 24, 25)
def shape_15(x: Value, *, start: int = 0, end: int | None = None) -> Value:
    elements = known.shape_of(x)[start:end]
    if not np.isnan(elements).any():
        return Value(const=elements.astype(np.int64))
    return Value(sizes.pack(x.dims()[start:end], tf.int64), known=elements)


@lowers("Transpose", 1, 13, 21, 23, 24, 25)
def transpose(x: Value, *, perm: Sequence[int] | None = None) -> Value:
    return permuted(x, list(reversed(range(x.rank))) if perm is None else perm)


@lowers("Reshape", 5, 13)
def reshape_5(x: Value, shape: Value) -> Any:
    return reshape(x, shape)


@lowers("Reshape", 14, 19, 21, 23, 24, 25)
def reshape(x: Value, shape: Value, *, allowzero: int = 0) -> Any:
    wanted = shape.sizes()
    if not allowzero and any(size == 0 for size in wanted if isinstance(size, int)):
        own = x.dims()
        wanted = [own[i] if isinstance(s, int) and s == 0 else s for i, s in enumerate(wanted)]
    return sizes.reshape(x.tensor, wanted)
