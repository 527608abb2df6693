"""Shapes with dynamic sizes: a list of ints and scalar tensors, static wherever it can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.value import Size, Value

_INT32 = np.iinfo(np.int32)


def pack(sizes: Sequence[Size], dtype: Any = tf.int32) -> Any:
    """A 1-D tensor of sizes; a numpy array if all are ints."""
    if is_static(sizes):
        return np.array(sizes, dtype.as_numpy_dtype)
    return tf.cast(tf.stack([tf.cast(size, tf.int32) for size in sizes]), dtype)


def is_static(sizes: Sequence[Size]) -> bool:
    """Whether all sizes are ints."""
    return all(isinstance(size, int) for size in sizes)


def static(sizes: Sequence[Size]) -> list[int | None]:
    """Ints where known, None elsewhere, for ``set_shape``."""
    return [size if isinstance(size, int) else None for size in sizes]


def shaped(tensor: Any, sizes: Sequence[Size]) -> Any:
    """The same tensor, with what is static of its sizes set."""
    tensor.set_shape(static(sizes))
    return tensor


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
    result = tf.reshape(tensor, np.array(shape, np.int32) if isinstance(shape, list) else shape)
    result.set_shape([None if size == -1 else size for size in static(sizes)])
    return result


def product(sizes: Sequence[Size]) -> Size:
    """The product, an int if all are ints."""
    known = int(np.prod([size for size in sizes if isinstance(size, int)], dtype=np.int64))
    unknown = [size for size in sizes if not isinstance(size, int)]
    result: Size = known
    for size in unknown:
        result = size if isinstance(result, int) and result == 1 else result * size
    return result


def single(value: Value) -> Size:
    """The only element of an integer tensor of rank 0 or 1."""
    if value.shape in ((), (1,)):
        return value.sizes()[0]
    return tf.reshape(tf.cast(value.tensor, tf.int32), [])


def bounds(value: Value) -> list[Size]:
    """Like `Value.sizes`, for indices: what int32 cannot hold becomes its limit.

    ONNX writes "to the end" as the largest int64.
    """
    if value.dtype is tf.int64 and not value.is_const:
        limited = tf.clip_by_value(value.tensor, int(_INT32.min), int(_INT32.max))
        value = Value(limited, known=value.known)
    return [
        max(int(_INT32.min), min(int(_INT32.max), size)) if isinstance(size, int) else size
        for size in value.sizes()
    ]


def by_axis(values: Sequence[Size], axes: Sequence[Size], rank: int, default: int) -> Any:
    """A vector with an element for each axis: those of ``values`` for ``axes``, else a default."""
    listed = tf.equal(pack(axes)[:, None] % rank, tf.range(rank)[None])
    offsets = tf.where(listed, pack(values)[:, None] - default, 0)
    return tf.reduce_sum(offsets, 0) + default
