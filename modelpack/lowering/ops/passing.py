"""Ops that pass their input on: Identity and Dropout."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("Identity", 1, 13, 14, 16, 19, 21, 23, 24, 25)
def identity(x: Any) -> Any:
    return x


@lowers("Dropout", 7)
def dropout_7(x: Value, *, ratio: float = 0.5) -> Any:
    return x, _mask(x, x.dtype)


@lowers("Dropout", 10)
def dropout_10(x: Value, *, ratio: float = 0.5) -> Any:
    return x, _mask(x, tf.bool)


@lowers("Dropout", 12, 13, 22, folds=False)
def dropout_12(
    ctx: Context,
    x: Value,
    ratio: Value | None = None,
    training_mode: Value | None = None,
    *,
    seed: int | None = None,
) -> Any:
    if training_mode is None or (training_mode.is_const and not training_mode.const):
        return x, _mask(x, tf.bool)
    if ctx.builtin_only:
        raise ctx.refuse("training_mode may be true, and random numbers are not a built-in op")
    rate = tf.constant(0.5, x.dtype) if ratio is None else tf.cast(ratio.tensor, x.dtype)
    held = x.tensor if x.is_const else x.held
    numbers = tf.random.uniform(tf.shape(held), seed=seed)
    dropped = tf.logical_and(numbers < tf.cast(rate, tf.float32), training_mode.tensor)
    scaled = tf.where(training_mode.tensor, held / (1 - rate), held)
    results = tf.where(dropped, tf.zeros_like(held), scaled), tf.logical_not(dropped)
    return results if x.is_const else tuple(x.like(result) for result in results)


def _mask(x: Value, dtype: Any) -> Value:
    return x.like(tf.ones_like(x.tensor if x.is_const else x.held, dtype))
