"""What the classifiers and regressors of ai.onnx.ml share: rows, post-transforms, labels.

The specification leaves much of this open. Where it does, ONNX Runtime's answer is given,
which is what converters such as skl2onnx are written for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.value import Value

# Below this, a score counts as zero for SOFTMAX_ZERO.
_ZERO = 1e-7


def rows(x: Value, dtype: Any = tf.float32) -> Any:
    """The input as rows of features, [N, F]: a vector is one row."""
    tensor = x.tensor if x.dtype == dtype else tf.cast(x.tensor, dtype)
    return sizes.reshape(tensor, [1, *x.dims()]) if x.rank == 1 else tensor


def transformed(ctx: Context, scores: Any, post_transform: str) -> Any:
    """Scores [N, K] of at least two columns after the post-transform of a node."""
    if post_transform == "NONE":
        return scores
    if post_transform == "LOGISTIC":
        return tf.sigmoid(scores)
    if post_transform == "SOFTMAX":
        return tf.nn.softmax(scores)
    if post_transform == "SOFTMAX_ZERO":
        return _softmax_zero(scores)
    if post_transform == "PROBIT":
        return probit(scores)
    raise ctx.refuse(f"post_transform '{post_transform}' is not defined")


def transformed_single(ctx: Context, scores: Any, post_transform: str) -> Any:
    """Scores [N, 1]: ONNX Runtime applies PROBIT to a single score, and no other transform."""
    known = {"NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"}
    return scores if post_transform in known else transformed(ctx, scores, post_transform)


def two_columns(scores: Any, complement: bool, post_transform: str) -> Any:
    """Both classes' scores from the positive one's, [N, 1].

    They are [1 - s, s] where s is a probability (``complement``), else [-s, s]. LOGISTIC is
    the only transform that ONNX Runtime applies here.
    """
    both = tf.concat([-scores, scores], 1)
    if post_transform == "LOGISTIC":
        return tf.sigmoid(both)
    return tf.concat([1.0 - scores, scores], 1) if complement else both


def probit(p: Any) -> Any:
    """The quantile function of the normal distribution, by Winitzki's closed form of erfinv."""
    x = 2.0 * p - 1.0
    log = tf.math.log((1.0 - x) * (1.0 + x))
    half = 2.0 / (np.pi * 0.147) + 0.5 * log
    excess = -log / 0.147
    root = tf.sqrt(half * half + excess)
    # root - half; for a positive half without the difference of nearly equal numbers.
    square = tf.where(half > 0, excess / (root + half), root - half)
    return np.sqrt(2.0) * tf.sign(x) * tf.sqrt(square)


def _softmax_zero(scores: Any) -> Any:
    """Softmax over the scores that are not zero; zeros stay zeros."""
    highest = tf.reduce_max(scores, axis=-1, keepdims=True)
    zero = tf.abs(scores) <= _ZERO
    weights = tf.where(zero, tf.zeros_like(scores), tf.exp(scores - highest))
    total = tf.reduce_sum(weights, axis=-1, keepdims=True)
    return tf.where(zero, scores * tf.exp(-highest), weights) / total


def labelled(index: Any, strings: Sequence[str] | None, ints: Sequence[int] | None) -> Any:
    """Labels of classes by their index."""
    if strings:
        return tf.gather(tf.constant(list(strings)), index)
    table = np.array(ints or (), np.int64)
    if np.array_equal(table, np.arange(len(table))):
        return tf.cast(index, tf.int64)
    return tf.gather(tf.constant(table), index)


def argmax(scores: Any) -> Any:
    """Index of the highest score of each row; the first one of equals."""
    return tf.argmax(scores, axis=-1, output_type=tf.int32)


def positive(scores: Any, threshold: float = 0.0) -> Any:
    """1 where the only score of a row, [N, 1], is above a threshold, else 0."""
    return tf.cast(sizes.reshape(scores, [-1]) > threshold, tf.int32)
