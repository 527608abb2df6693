"""Casts between dtypes."""

from __future__ import annotations

from typing import Any

import onnx
import tensorflow as tf

from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("Cast", 6, 9, 13)
def cast_6(x: Value, *, to: int) -> Any:
    return cast_24(x, to=to)


@lowers("Cast", 19, 21, 23)
def cast_19(x: Value, *, to: int, saturate: int = 1) -> Any:
    return cast_24(x, to=to, saturate=saturate)


@lowers("Cast", 24, 25, 28)
def cast_24(x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    dtype = tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(to))
    held = x.tensor if x.is_const else x.held
    return x.like(tf.cast(held, dtype)) if not x.is_const else tf.cast(held, dtype)
