"""Activation functions."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelpack.lowering.layout import elementwise
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("Identity", 1, 13, 14, 16, 19, 21, 23, 24, 25)
def identity(x: Value) -> Value:
    return x


@lowers("Relu", 6, 13, 14)
@elementwise
def relu(x: Any) -> Any:
    return tf.nn.relu(x)


@lowers("Sigmoid", 6, 13)
@elementwise
def sigmoid(x: Any) -> Any:
    return tf.sigmoid(x)


@lowers("Tanh", 6, 13)
@elementwise
def hyperbolic_tangent(x: Any) -> Any:
    return tf.tanh(x)


@lowers("Gelu", 20)
@elementwise
def gelu(x: Any, *, approximate: str = "none") -> Any:
    return tf.nn.gelu(x, approximate=approximate == "tanh")
