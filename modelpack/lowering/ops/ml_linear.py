"""Linear models and support vector machines of ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.ops import ml_scores
from modelpack.lowering.ops.ml_kernels import Kernel, coupled
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Array, Value

_DOMAIN = "ai.onnx.ml"

Ints = Sequence[int] | None
Floats = Sequence[float] | None
Strings = Sequence[str] | None


@lowers("LinearRegressor", 1, domain=_DOMAIN)
def linear_regressor(
    ctx: Context,
    x: Value,
    *,
    coefficients: Floats = None,
    intercepts: Floats = None,
    post_transform: str = "NONE",
    targets: int = 1,
) -> Any:
    scores = _affine(ctx, x, coefficients, targets, intercepts)
    if targets == 1:
        return ml_scores.transformed_single(ctx, scores, post_transform)
    return ml_scores.transformed(ctx, scores, post_transform)


@lowers("LinearClassifier", 1, domain=_DOMAIN)
def linear_classifier(
    ctx: Context,
    x: Value,
    *,
    classlabels_ints: Ints = None,
    classlabels_strings: Strings = None,
    coefficients: Sequence[float],
    intercepts: Floats = None,
    multi_class: int = 0,
    post_transform: str = "NONE",
) -> Any:
    labels = classlabels_strings or classlabels_ints or ()
    classes = len(intercepts or labels)
    scores = _affine(ctx, x, coefficients, classes, intercepts)
    if classes > 1:
        index = ml_scores.argmax(scores)
        label = ml_scores.labelled(index, classlabels_strings, classlabels_ints)
        return label, ml_scores.transformed(ctx, scores, post_transform)
    index = ml_scores.positive(scores)
    if len(labels) != 2:
        strings = ["0", "1"] if classlabels_strings else None
        single = ml_scores.transformed_single(ctx, scores, post_transform)
        return ml_scores.labelled(index, strings, [0, 1]), single
    if post_transform == "PROBIT":
        raise ctx.refuse("PROBIT of one column of two classes is not defined")
    label = ml_scores.labelled(index, classlabels_strings, classlabels_ints)
    # ONNX Runtime takes the only score for a probability, whatever the post-transform is.
    return label, ml_scores.two_columns(scores, True, post_transform)


def _affine(ctx: Context, x: Value, coefficients: Floats, outputs: int, intercepts: Floats) -> Any:
    """``x @ coefficients.T + intercepts``; intercepts of another length do not count."""
    matrix = np.array(coefficients, np.float32).reshape(outputs, -1).T
    product = tf.matmul(ml_scores.rows(x), ctx.constant(np.ascontiguousarray(matrix)).tensor)
    if intercepts is None or len(intercepts) != outputs:
        return product
    return product + np.array(intercepts, np.float32)


@lowers("SVMRegressor", 1, domain=_DOMAIN)
def svm_regressor(
    ctx: Context,
    x: Value,
    *,
    coefficients: Floats = None,
    kernel_params: Floats = None,
    kernel_type: str = "LINEAR",
    n_supports: int = 0,
    one_class: int = 0,
    post_transform: str = "NONE",
    rho: Floats = None,
    support_vectors: Floats = None,
) -> Any:
    if post_transform != "NONE":
        raise ctx.refuse("ONNX Runtime ignores the post_transform of this op")
    if n_supports:
        vectors = np.array(support_vectors, np.float32).reshape(n_supports, -1)
        features = Kernel(ctx, kernel_type, kernel_params)(ml_scores.rows(x), vectors)
    else:
        features = ml_scores.rows(x)
    matrix = np.array(coefficients, np.float32)[:, None]
    scores = tf.matmul(features, ctx.constant(matrix).tensor) + np.float32((rho or [0])[0])
    if one_class:
        return tf.where(scores > 0, tf.ones_like(scores), -tf.ones_like(scores))
    return scores


@lowers("SVMClassifier", 1, domain=_DOMAIN)
def svm_classifier(
    ctx: Context,
    x: Value,
    *,
    classlabels_ints: Ints = None,
    classlabels_strings: Strings = None,
    coefficients: Floats = None,
    kernel_params: Floats = None,
    kernel_type: str = "LINEAR",
    post_transform: str = "NONE",
    prob_a: Floats = None,
    prob_b: Floats = None,
    rho: Floats = None,
    support_vectors: Floats = None,
    vectors_per_class: Ints = None,
) -> Any:
    classes = len(classlabels_strings or classlabels_ints or ())
    if not vectors_per_class or not sum(vectors_per_class):
        scores = _affine(ctx, x, coefficients, classes, [(rho or [0.0])[0]] * classes)
        index = _linear_class(scores, np.array(coefficients))
        transform = ml_scores.transformed if classes > 1 else ml_scores.transformed_single
        scores = transform(ctx, scores, post_transform)
        return ml_scores.labelled(index, classlabels_strings, classlabels_ints), scores
    vectors = np.array(support_vectors, np.float32).reshape(sum(vectors_per_class), -1)
    kernel = Kernel(ctx, kernel_type, kernel_params)(ml_scores.rows(x), vectors)
    matrix = _pair_matrix(np.array(coefficients, np.float32), vectors_per_class)
    pairs = np.array(rho, np.float32)[: matrix.shape[1]]
    scores = tf.matmul(kernel, ctx.constant(matrix).tensor) + pairs
    index = _voted(scores, classes)
    label = ml_scores.labelled(index, classlabels_strings, classlabels_ints)
    if prob_a:
        probabilities = coupled(scores, np.array(prob_a), np.array(prob_b), classes)
        return label, ml_scores.transformed(ctx, probabilities, post_transform)
    if classes > 2:
        return label, ml_scores.transformed(ctx, scores, post_transform)
    if post_transform == "PROBIT":
        raise ctx.refuse("PROBIT of one column of two classes is not defined")
    return label, ml_scores.two_columns(scores, post_transform != "NONE", post_transform)


def _pair_matrix(coefficients: Array, vectors_per_class: Sequence[int]) -> Array:
    """What the support vectors add to the score of each pair of classes, [vectors, pairs].

    As in libsvm: the coefficients are [classes - 1, vectors]; in the pair (i, j) the vectors
    of class i have those of row j - 1, the vectors of class j those of row i.
    """
    ends = np.cumsum(vectors_per_class)
    own = [slice(end - count, end) for end, count in zip(ends, vectors_per_class, strict=True)]
    rows = coefficients.reshape(len(vectors_per_class) - 1, -1)
    pairs = list(combinations(range(len(own)), 2))
    matrix = np.zeros((int(ends[-1]), len(pairs)), np.float32)
    for column, (i, j) in enumerate(pairs):
        matrix[own[i], column] = rows[j - 1, own[i]]
        matrix[own[j], column] = rows[i, own[j]]
    return matrix


def _voted(scores: Any, classes: int) -> Any:
    """The class that wins most pairs; a pair (i, j) is won by i if its score is positive."""
    pairs = np.array(list(combinations(range(classes), 2)))
    first, second = (np.eye(classes, dtype=np.float32)[side] for side in pairs.T)
    wins = tf.cast(scores > 0, tf.float32)
    return ml_scores.argmax(tf.matmul(wins, first - second) + second.sum(0))


def _linear_class(scores: Any, coefficients: Array) -> Any:
    """The class of a classifier without support vectors.

    Of two classes, ONNX Runtime takes the second one as soon as any score is high.
    """
    highest = ml_scores.argmax(scores)
    if scores.shape[1] != 2:
        return highest
    best = tf.reduce_max(scores, axis=1)
    high = best >= 0.5 if (coefficients >= 0).all() else best > 0
    return tf.where(high, tf.ones_like(highest), highest)
