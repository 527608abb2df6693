"""Shapes with dynamic sizes: a list of ints and scalar tensors, static wherever it can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.value import Size


def pack(sizes: Sequence[Size], dtype: Any = tf.int32) -> Any:
    """A 1-D tensor of sizes; a numpy array if all are ints."""
    if all(isinstance(size, int) for size in sizes):
        return np.array(sizes, dtype.as_numpy_dtype)
    return tf.stack([tf.cast(size, dtype) for size in sizes])


def static(sizes: Sequence[Size]) -> list[int | None]:
    """Ints where known, None elsewhere, for ``set_shape``."""
    return [size if isinstance(size, int) else None for size in sizes]


def reshape(tensor: Any, sizes: Sequence[Size]) -> Any:
    """Reshape to sizes, of which one may be -1, and keep what is static.

    With one dynamic size the shape is a constant with -1, which converters and delegates
    like better than a computed one.
    """
    dynamic = [i for i, size in enumerate(sizes) if not isinstance(size, int) or size == -1]
    empty = any(isinstance(size, int) and size == 0 for size in sizes)
    if len(dynamic) <= 1 and not empty:
        shape: Any = [-1 if i in dynamic else size for i, size in enumerate(sizes)]
    else:
        shape = pack(sizes)
    result = tf.reshape(tensor, shape)
    known = [None if size == -1 else size for size in static(sizes)]
    result.set_shape(known)
    return result


def product(sizes: Sequence[Size]) -> Size:
    """The product, an int if all are ints."""
    result: Size = 1
    for size in sizes:
        result = size if isinstance(result, int) and result == 1 else result * size
    return result
