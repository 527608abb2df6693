"""Indices as ONNX means them (negative ones count from the end), and offsets in flat tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.value import Size, Value


def from_start(indices: Value, size: Size) -> Any:
    """Indices of an axis, none of them negative."""
    if indices.is_const:
        const = indices.const
        assert const is not None
        if (const >= 0).all():
            return const.astype(np.int32)
        if isinstance(size, int):
            return np.where(const < 0, const + size, const).astype(np.int32)
    return positive(tf.cast(indices.tensor, tf.int32), size)


def positive(indices: Any, size: Any) -> Any:
    """An int32 tensor of indices with the negative ones counted from the start."""
    return tf.where(indices < 0, indices + size, indices)


def strides(dims: Sequence[Size]) -> list[Size]:
    """How far apart neighbours along each axis are in the flat tensor."""
    return [sizes.product(dims[axis + 1 :]) for axis in range(len(dims))]


def element_offsets(x: Value, indices: Value, axis: int) -> Any:
    """Where in the flat ``x`` the elements are that ``indices`` chooses along an axis.

    The other coordinates of an element are those of its index.
    """
    own = x.dims()
    steps = strides(own)
    offsets = from_start(indices, own[axis]) * steps[axis]
    for other, size in enumerate(indices.dims()):
        if other != axis:
            offsets = offsets + along(other, indices.rank, size) * steps[other]
    return offsets


def row_offsets(x: Value, indices: Value, depth: int, batch_dims: int = 0) -> Any:
    """Where the rows are that index tuples choose.

    Rows are what is left of ``x`` behind its first ``batch_dims + depth`` axes, all of them
    counted through.
    """
    outer = x.dims()[: batch_dims + depth]
    steps = strides(outer)
    size, step = sizes.pack(outer[batch_dims:]), sizes.pack(steps[batch_dims:])
    tuples = tf.cast(indices.tensor, tf.int32)
    offsets = tf.reduce_sum(positive(tuples, size) * step, -1)
    for axis in range(batch_dims):
        offsets = offsets + along(axis, indices.rank - 1, outer[axis]) * steps[axis]
    return offsets


def along(axis: int, rank: int, size: Size) -> Any:
    """0, 1, ... along one of ``rank`` axes, of size 1 along the others."""
    count = np.arange(size, dtype=np.int32) if isinstance(size, int) else tf.range(size)
    shape = [1] * rank
    shape[axis] = -1
    return count.reshape(shape) if isinstance(count, np.ndarray) else tf.reshape(count, shape)
