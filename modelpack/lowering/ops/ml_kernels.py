"""The kernels of support vector machines, and probabilities from their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.value import Array

# Up to this exponent, squared distances may be computed by a product of matrices: what
# cancels out there is an error of about 1e-7 times it.
_LARGEST_EXPONENT = 100.0

# libsvm's constants for the coupling of pairs (svm.cpp).
_ROUNDS = 100
_PRECISION = 0.005
_LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class Kernel:
    """A kernel function of rows of features and support vectors.

    Attributes:
        ctx: the node.
        kind: LINEAR, POLY, RBF or SIGMOID.
        parameters: gamma, coef0 and degree.
    """

    ctx: Context
    kind: str
    parameters: Sequence[float] | None

    def __call__(self, x: Any, vectors: Array) -> Any:
        """The kernel of all pairs, [rows, vectors]."""
        gamma, coef0, degree = self.parameters or (0.0, 0.0, 0.0)
        if self.kind == "RBF":
            return tf.exp(-gamma * self._squared_distances(x, vectors, gamma))
        product = tf.matmul(x, self._transposed(vectors))
        if self.kind == "LINEAR":
            return product
        if self.kind == "SIGMOID":
            return tf.tanh(gamma * product + coef0)
        if self.kind == "POLY":
            return _power(gamma * product + coef0, degree)
        raise self.ctx.refuse(f"kernel_type '{self.kind}' is not defined")

    def _squared_distances(self, x: Any, vectors: Array, gamma: float) -> Any:
        center = vectors.mean(0, dtype=np.float64)
        centered = vectors - center
        squares = (centered**2).sum(1)
        if gamma * squares.max() > _LARGEST_EXPONENT:
            rows = tf.expand_dims(x, 1)
            differences = tf.math.squared_difference(rows, self.ctx.constant(vectors).tensor)
            return tf.reduce_sum(differences, 2)
        x = x - center.astype(np.float32)
        product = tf.matmul(x, self._transposed(-2 * centered))
        total = tf.reduce_sum(x * x, 1, keepdims=True) + product + squares.astype(np.float32)
        return tf.maximum(total, 0.0)

    def _transposed(self, vectors: Array) -> Any:
        matrix = np.ascontiguousarray(vectors.T.astype(np.float32))
        return self.ctx.constant(matrix).tensor


def _power(base: Any, degree: float) -> Any:
    if degree == 2:
        return base * base
    if degree == 3:
        return base * base * base
    return tf.pow(base, tf.constant(degree, base.dtype))


def coupled(scores: Any, a: Array, b: Array, classes: int) -> Any:
    """Class probabilities from the scores of pairs, [N, classes].

    Platt's sigmoid gives the probability of each pair, and the second method of Wu, Lin and
    Weng (2004) couples them, with libsvm's starting point and stopping rule.
    """
    pairs = list(combinations(range(classes), 2))
    a, b = (part.astype(np.float32)[: len(pairs)] for part in (a, b))
    first = tf.sigmoid(-(scores * a + b))
    first = tf.clip_by_value(first, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    # wins[:, i, j] is the probability of i in the pair of i and j; 0 for i = j.
    spread = np.zeros((2, len(pairs), classes * classes), np.float32)
    for index, (i, j) in enumerate(pairs):
        spread[0, index, i * classes + j] = spread[1, index, j * classes + i] = 1
    flat = tf.matmul(first, spread[0]) + tf.matmul(1.0 - first, spread[1])
    wins = tf.reshape(flat, [-1, classes, classes])
    losses = tf.transpose(wins, [0, 2, 1])
    own = tf.reduce_sum(losses * losses, 2)
    form = tf.eye(classes) * tf.expand_dims(own, 2) - wins * losses
    return _minimised(form, own, classes)


def _minimised(form: Any, own: Any, classes: int) -> Any:
    """The distribution p of least ``p.T @ form @ p``, row by row, by coordinate descent.

    ``form`` is [N, classes, classes] and symmetric, ``own`` its diagonals.
    """

    def gradient(p: Any) -> tuple[Any, Any]:
        product = tf.reduce_sum(form * tf.expand_dims(p, 1), 2)
        return product, tf.reduce_sum(p * product, 1, keepdims=True)

    def unfinished(p: Any) -> Any:
        product, value = gradient(p)
        error = tf.reduce_max(tf.abs(product - value), 1, keepdims=True)
        return error >= _PRECISION / classes

    def another(count: Any, p: Any) -> Any:
        return tf.logical_and(count < _ROUNDS, tf.reduce_any(unfinished(p)))

    def round_(count: Any, p: Any) -> tuple[Any, Any]:
        product, value = gradient(p)
        better = p
        for i in range(classes):
            step = (value - product[:, i : i + 1]) / own[:, i : i + 1]
            scale = 1.0 + step
            value = value + step * (step * own[:, i : i + 1] + 2.0 * product[:, i : i + 1])
            value = value / (scale * scale)
            product = (product + step * form[:, i]) / scale
            better = (better + step * np.eye(classes, dtype=np.float32)[i]) / scale
        return count + 1, tf.where(unfinished(p), better, p)

    start = tf.zeros_like(own) + 1.0 / classes
    return tf.while_loop(another, round_, (tf.constant(0), start), maximum_iterations=None)[1]
