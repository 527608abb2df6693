"""Steps of optimizers: new values of tensors from their gradients.

The inputs after the learning rate and the update count are the tensors ``X``, then their
gradients ``G``, then what each step keeps for the next one; so are the outputs, without
the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value

_DOMAIN = "ai.onnx.preview.training"


@lowers("Adagrad", 1, domain=_DOMAIN)
def adagrad(
    r: Value,
    t: Value,
    *inputs: Value,
    decay_factor: float = 0.0,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
) -> tuple[Any, ...]:
    rate = r.tensor / (1 + _count(t, r) * decay_factor)

    def step(x: Any, gradient: Any, squares: Any) -> tuple[Any, ...]:
        gradient = gradient + norm_coefficient * x
        squares = squares + tf.square(gradient)
        return x - _as(x, rate) * gradient / (tf.sqrt(squares) + epsilon), squares

    return _each(step, inputs, 3)


@lowers("Adam", 1, domain=_DOMAIN)
def adam(
    r: Value,
    t: Value,
    *inputs: Value,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> tuple[Any, ...]:
    count = _count(t, r)
    corrected = r.tensor * tf.sqrt(1 - _power(beta, count)) / (1 - _power(alpha, count))
    rate = tf.where(count > 0, corrected, r.tensor)

    def step(x: Any, gradient: Any, mean: Any, squares: Any) -> tuple[Any, ...]:
        gradient = gradient + norm_coefficient * x
        mean = alpha * mean + (1 - alpha) * gradient
        squares = beta * squares + (1 - beta) * tf.square(gradient)
        moved = x - _as(x, rate) * mean / (tf.sqrt(squares) + epsilon)
        return (1 - norm_coefficient_post) * moved, mean, squares

    return _each(step, inputs, 4)


@lowers("Momentum", 1, domain=_DOMAIN)
def momentum(
    ctx: Context,
    r: Value,
    t: Value,
    *inputs: Value,
    alpha: float,
    beta: float,
    mode: str,
    norm_coefficient: float,
) -> tuple[Any, ...]:
    if mode not in {"standard", "nesterov"}:
        raise ctx.refuse(f"mode '{mode}' is neither 'standard' nor 'nesterov'")
    share = tf.where(_count(t, r) > 0, tf.cast(beta, r.dtype), tf.cast(1, r.dtype))

    def step(x: Any, gradient: Any, velocity: Any) -> tuple[Any, ...]:
        gradient = gradient + norm_coefficient * x
        velocity = alpha * velocity + _as(x, share) * gradient
        direction = gradient + alpha * velocity if mode == "nesterov" else velocity
        return x - _as(x, r.tensor) * direction, velocity

    return _each(step, inputs, 3)


def _count(t: Value, r: Value) -> Any:
    return tf.cast(t.tensor, r.dtype)


def _power(base: float, exponent: Any) -> Any:
    return tf.pow(tf.cast(base, exponent.dtype), exponent)


def _as(x: Any, number: Any) -> Any:
    return tf.cast(number, x.dtype)


def _each(
    step: Callable[..., tuple[Any, ...]], inputs: Sequence[Value], groups: int
) -> tuple[Any, ...]:
    """Apply a step to the tensors with the same place in each group; return them by group."""
    count = len(inputs) // groups
    stepped = [step(*(x.tensor for x in inputs[i::count])) for i in range(count)]
    return tuple(tensor for group in zip(*stepped, strict=True) for tensor in group)
