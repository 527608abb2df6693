"""Random numbers. A seed makes a graph repeatable; the numbers are TensorFlow's, not ONNX's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

_FLOAT = 1
_INT32 = 6


@lowers("RandomNormal", 1, 22, folds=False)
def random_normal(
    *,
    shape: Sequence[int],
    dtype: int = _FLOAT,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Any:
    return _normal(shape, _dtype_of(dtype), mean, scale, seed)


@lowers("RandomNormalLike", 1, 22, folds=False)
def random_normal_like(
    x: Value,
    *,
    dtype: int | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Any:
    return _normal(x.dims(), _dtype_of(dtype) or x.dtype, mean, scale, seed)


@lowers("RandomUniform", 1, 22, folds=False)
def random_uniform(
    *,
    shape: Sequence[int],
    dtype: int = _FLOAT,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
) -> Any:
    return _uniform(shape, _dtype_of(dtype), low, high, seed)


@lowers("RandomUniformLike", 1, 22, folds=False)
def random_uniform_like(
    x: Value,
    *,
    dtype: int | None = None,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
) -> Any:
    return _uniform(x.dims(), _dtype_of(dtype) or x.dtype, low, high, seed)


@lowers("Bernoulli", 15, 22, folds=False)
def bernoulli(x: Value, *, dtype: int | None = None, seed: float | None = None) -> Any:
    drawn = _uniform(x.dims(), tf.float32, 0.0, 1.0, seed)
    return tf.cast(drawn < tf.cast(x.tensor, tf.float32), _dtype_of(dtype) or x.dtype)


@lowers("Multinomial", 7, 22, folds=False)
def multinomial(
    x: Value, *, dtype: int = _INT32, sample_size: int = 1, seed: float | None = None
) -> Any:
    drawn = tf.random.categorical(tf.cast(x.tensor, tf.float32), sample_size, seed=_whole(seed))
    return tf.cast(drawn, _dtype_of(dtype))


def _normal(
    shape: Sequence[Size], dtype: Any, mean: float, scale: float, seed: float | None
) -> Any:
    drawn = tf.random.normal(sizes.pack(shape), seed=_whole(seed))
    return tf.cast(drawn * scale + mean, dtype)


def _uniform(shape: Sequence[Size], dtype: Any, low: float, high: float, seed: float | None) -> Any:
    drawn = tf.random.uniform(sizes.pack(shape), seed=_whole(seed))
    return tf.cast(drawn * (high - low) + low, dtype)


def _whole(seed: float | None) -> int | None:
    return None if seed is None else int(seed)


def _dtype_of(element_type: int | None) -> Any:
    return tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type)) if element_type else None
