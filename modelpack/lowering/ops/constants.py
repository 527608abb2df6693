"""Tensors made of attributes, sizes and bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.moving import moved
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Array, Value


@lowers("Constant", 1, 9)
def constant_1(*, value: Array) -> Array:
    return value


@lowers("Constant", 11)
def constant_11(*, value: Array | None = None, sparse_value: Array | None = None) -> Any:
    return value if sparse_value is None else sparse_value


@lowers("Constant", 12, 13, 19, 21, 23, 24, 25)
def constant_12(
    *,
    value: Array | None = None,
    sparse_value: Array | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
    value_string: str | None = None,
    value_strings: Sequence[str] | None = None,
) -> Any:
    forms = (
        (value, None),
        (sparse_value, None),
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
        (value_string, object),
        (value_strings, object),
    )
    return next(np.array(given, dtype) for given, dtype in forms if given is not None)


@lowers("ConstantOfShape", 9, 20, 21, 23, 24, 25)
def constant_of_shape(ctx: Context, shape: Value, *, value: Array | None = None) -> Any:
    element = np.zeros((), np.float32) if value is None else value.reshape(())
    if ctx.builtin_only and element.dtype.kind == "f":
        element = element.astype(np.float32)
    wanted = shape.sizes()
    dims = sizes.pack(wanted)
    filled = moved(ctx, lambda x: tf.fill(dims, x), tf.constant(element))
    return sizes.shaped(filled, wanted)


@lowers("Range", 11)
def range_11(ctx: Context, start: Value, limit: Value, delta: Value) -> Any:
    return _range(start, limit, delta)


@lowers("Range", 27)
def range_27(ctx: Context, start: Value, limit: Value, delta: Value, *, stash_type: int = 1) -> Any:
    return _range(start, limit, delta)


def _range(start: Value, limit: Value, delta: Value) -> Any:
    first, end, step = (tf.reshape(item.tensor, []) for item in (start, limit, delta))
    own = first.dtype
    if own.is_integer:
        wide = own if own in (tf.int32, tf.int64) else tf.int32
        return tf.cast(tf.range(*(tf.cast(item, wide) for item in (first, end, step))), own)
    # tf.range adds up the step, and the error with it.
    real = own if own in (tf.float32, tf.float64) else tf.float32
    first, end, step = (tf.cast(item, real) for item in (first, end, step))
    count = tf.cast(tf.math.ceil((end - first) / step), tf.int32)
    steps = tf.cast(tf.range(tf.maximum(count, 0)), real)
    return tf.cast(first + steps * step, own)


@lowers("EyeLike", 9, 22)
def eye_like(x: Value, *, dtype: int | None = None, k: int = 0) -> Any:
    wanted = x.dtype if dtype is None else onnx.helper.tensor_dtype_to_np_dtype(dtype)
    rows, columns = x.dims()
    if sizes.is_static([rows, columns]):
        numpy_dtype = wanted.as_numpy_dtype if dtype is None else wanted
        return np.eye(rows, columns, k).astype(numpy_dtype)
    on = tf.equal(tf.range(rows)[:, None] + k, tf.range(columns)[None])
    return sizes.shaped(tf.cast(on, wanted), [rows, columns])
