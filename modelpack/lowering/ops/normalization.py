"""Normalization by a mean and a variance, given or computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from onnx.helper import tensor_dtype_to_np_dtype

from modelpack.lowering import layer_norm, sizes
from modelpack.lowering.context import Context, Target
from modelpack.lowering.layout import (
    channel_last,
    elementwise,
    from_channel_last,
    reduced,
    to_channel_last,
)
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("BatchNormalization", 6)
def batch_normalization_6(
    ctx: Context,
    x: Value,
    scale: Value,
    b: Value,
    mean: Value,
    var: Value,
    *,
    epsilon: float = 1e-5,
    is_test: int = 0,
    momentum: float = 0.9,
    spatial: int = 1,
) -> Value:
    if not is_test:
        raise ctx.refuse("training mode of BatchNormalization before opset 14")
    return _batch_normalized(x, (scale, b, mean, var), epsilon)


@lowers("BatchNormalization", 7)
def batch_normalization_7(
    ctx: Context,
    x: Value,
    scale: Value,
    b: Value,
    mean: Value,
    var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
) -> Value:
    _refuse_training(ctx)
    return _batch_normalized(x, (scale, b, mean, var), epsilon)


@lowers("BatchNormalization", 9)
def batch_normalization_9(
    ctx: Context,
    x: Value,
    scale: Value,
    b: Value,
    mean: Value,
    var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
) -> Value:
    _refuse_training(ctx)
    return _batch_normalized(x, (scale, b, mean, var), epsilon)


@lowers("BatchNormalization", 14, 15)
def batch_normalization(
    ctx: Context,
    x: Value,
    scale: Value,
    b: Value,
    input_mean: Value,
    input_var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:
    if not training_mode:
        return _batch_normalized(x, (scale, b, input_mean, input_var), epsilon)
    others = [axis for axis in range(x.rank) if axis != 1]
    mean, variance = (Value(tf.reshape(m.tensor, [-1])) for m in _moments(x, others))
    result = _batch_normalized(x, (scale, b, mean, variance), epsilon)
    running_mean = input_mean.tensor * momentum + mean.held * (1 - momentum)
    running_var = input_var.tensor * momentum + variance.held * (1 - momentum)
    return result, running_mean, running_var


def _refuse_training(ctx: Context) -> None:
    """Before opset 14, a node is in training mode if it has the outputs of training."""
    if len([name for name in ctx.outputs if name]) > 1:
        raise ctx.refuse("training mode of BatchNormalization before opset 14")


def _batch_normalized(x: Value, parameters: Sequence[Value], epsilon: float) -> Value:
    """``x * s + (b - mean * s)`` with ``s = scale / sqrt(var + epsilon)``.

    The parameters have one element per channel, or, without ``spatial``, one per element.
    They become two constants, which converters fold into a convolution before.
    """
    if all(item.is_const for item in parameters):
        scale, b, mean, var = (np.asarray(item.const, np.float64) for item in parameters)
        factor = scale / np.sqrt(var + epsilon)
        term = b - mean * factor
        dtype = x.dtype.as_numpy_dtype
        pair = [parameters[0].constant_of(array.astype(dtype)) for array in (factor, term)]
    else:
        scale, b, mean, var = (tf.cast(item.tensor, x.dtype) for item in parameters)
        factor = scale * tf.math.rsqrt(var + epsilon)
        pair = [Value(factor), Value(b - mean * factor)]
    return _scaled(x, *(_per_channel(value, x.rank) for value in pair))


@elementwise
def _scaled(x: Any, factor: Any, term: Any) -> Any:
    return x * factor + term


def _per_channel(value: Value, rank: int) -> Value:
    """One value per channel, to broadcast with a tensor N, C, spatial..."""
    if value.rank != 1:
        return value
    return value.mapped(lambda tensor: tf.reshape(tensor, [-1] + [1] * (rank - 2)))


def _moments(x: Value, axes: Sequence[int]) -> tuple[Value, Value]:
    """Mean and variance over axes, which are kept."""
    mean = reduced(x, axes, True, tf.reduce_mean)
    deviation = _squared_difference(x, mean)
    return mean, reduced(deviation, axes, True, tf.reduce_mean)


@elementwise
def _squared_difference(a: Any, b: Any) -> Any:
    return tf.math.squared_difference(a, b)


@elementwise
def _inverse_deviation(variance: Any, *, epsilon: float) -> Any:
    return tf.math.rsqrt(variance + epsilon)


@elementwise
def _product(a: Any, b: Any) -> Any:
    return a * b


@elementwise
def _centred_and_scaled(x: Any, mean: Any, factor: Any) -> Any:
    return (x - mean) * factor


@elementwise
def _affine(x: Any, scale: Any, bias: Any) -> Any:
    x = x * tf.cast(scale, x.dtype)
    return x if bias is None else x + tf.cast(bias, x.dtype)


@elementwise
def _cast(x: Any, *, dtype: Any) -> Any:
    return tf.cast(x, dtype)


def _wide(x: Value) -> Value:
    """At least float32, in which the attribute ``stash_type`` wants statistics computed."""
    return _cast(x, dtype=tf.float64 if x.dtype is tf.float64 else tf.float32)


@lowers("InstanceNormalization", 6, 22)
def instance_normalization(x: Value, scale: Value, b: Value, *, epsilon: float = 1e-5) -> Value:
    centred, mean, variance = _centred(x, range(2, x.rank))
    inverse = _inverse_deviation(variance, epsilon=epsilon)
    # The products of what is small first: passes less over the large tensor.
    factor = _product(inverse, _per_channel(scale, x.rank))
    return _scaled(centred, factor, _less(_per_channel(b, x.rank), mean, factor))


def _centred(x: Value, axes: Sequence[int]) -> tuple[Value, Value, Value]:
    """The value less its mean over axes, the mean of that, and the variance.

    TensorFlow adds up what it takes the mean of one after the other: the mean of a constant
    image of 96 by 96 is off by 1e-4 of it, and the inverse deviation makes 300 times of that.
    So what is left of the mean is taken away too.
    """
    centred = _difference(x, reduced(x, axes, True, tf.reduce_mean))
    return centred, *_moments(centred, axes)


@elementwise
def _difference(a: Any, b: Any) -> Any:
    return a - b


@elementwise
def _sum(a: Any, b: Any) -> Any:
    return a + b


@elementwise
def _less(term: Any, mean: Any, factor: Any) -> Any:
    # Not a difference: TensorFlow would put a kernel for layer normalization in the place of all of
    # an instance normalization over one axis, and then refuse the shape of its scale.
    return term + -mean * factor


@lowers("GroupNormalization", 18)
def group_normalization_18(
    ctx: Context, x: Value, scale: Value, bias: Value, *, num_groups: int, epsilon: float = 1e-5
) -> Value:
    channels = x.shape[1]
    if channels is None:
        raise ctx.refuse("the number of channels is not known before it runs")
    parameters = (_per_member(item, channels // num_groups) for item in (scale, bias))
    return group_normalization(x, *parameters, num_groups=num_groups, epsilon=epsilon)


@lowers("GroupNormalization", 21)
def group_normalization(
    x: Value,
    scale: Value,
    bias: Value,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Value:
    result = group_standardized(x, num_groups, epsilon)
    return _affine(result, _per_channel(scale, x.rank), _per_channel(bias, x.rank))


def _per_member(value: Value, members: int) -> Value:
    """A parameter per group as one per channel."""
    return value.mapped(
        lambda tensor: tf.reshape(tensor[:, None] * tf.ones([1, members], tensor.dtype), [-1])
    )


def group_standardized(x: Value, groups: int, epsilon: float) -> Value:
    """Mean 0 and variance 1 over each group of channels of a tensor N, C, spatial..."""
    return _cast(_group_standardized(_wide(x), groups, epsilon), dtype=x.dtype)


def _group_standardized(x: Value, groups: int, epsilon: float) -> Value:
    batch, channels, *spatial = x.dims()
    if x.perm == channel_last(x.rank):
        shape = [batch, sizes.product(spatial), groups, channels // groups]
        axes = [1, 3]
    else:
        shape = [batch, groups, sizes.product([channels // groups, *spatial])]
        axes = [2]
    held = x.tensor if x.perm is None or len(shape) == 3 else x.held
    grouped = Value(sizes.reshape(held, shape))
    centred, mean, variance = _centred(grouped, axes)
    inverse = _inverse_deviation(variance, epsilon=epsilon)
    result = _centred_and_scaled(centred, mean, inverse).held
    if len(shape) == 4:
        return x.like(sizes.reshape(result, Value(held).dims()))
    return Value(sizes.reshape(result, x.dims()))


@lowers("LayerNormalization", 17)
def layer_normalization(
    ctx: Context,
    x: Value,
    scale: Value,
    b: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Value, Value | None, Value | None]:
    if b is not None and layer_norm.fuses(ctx, x, scale, b, axis, epsilon):
        return layer_norm.fused(x, scale, b, epsilon), None, None
    wide = _wide(x)
    mean, variance = _moments(wide, range(axis % x.rank, x.rank))
    inverse = _inverse_deviation(variance, epsilon=epsilon)
    if ctx.target is Target.SAVEDMODEL and x.dtype is wide.dtype:
        # The product of the small ones first: the other order is the form `layer_norm` is about.
        result = _centred_and_scaled(wide, mean, _product(inverse, scale))
        result = result if b is None else _sum(result, b)
    else:
        result = _cast(_centred_and_scaled(wide, mean, inverse), dtype=x.dtype)
        result = _affine(result, scale, b)
    stash = tf.as_dtype(tensor_dtype_to_np_dtype(stash_type))
    return result, _cast(mean, dtype=stash), _cast(inverse, dtype=stash)


@lowers("RMSNormalization", 23)
def rms_normalization(
    x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Value:
    wide = _wide(x)
    squares = reduced(_product(wide, wide), range(axis % x.rank, x.rank), True, tf.reduce_mean)
    result = _product(wide, _inverse_deviation(squares, epsilon=epsilon))
    return _affine(_cast(result, dtype=x.dtype), scale, None)


@lowers("MeanVarianceNormalization", 9, 13)
def mean_variance_normalization(x: Value, *, axes: Sequence[int] = (0, 2, 3)) -> Value:
    centred, mean, variance = _centred(x, axes)
    return _centred_and_scaled(centred, mean, _reciprocal_deviation(variance))


@elementwise
def _reciprocal_deviation(variance: Any) -> Any:
    # The constant is that of the function that ONNX defines the op by.
    return 1 / (tf.sqrt(variance) + 1e-9)


@lowers("LpNormalization", 1, 22)
def lp_normalization(x: Value, *, axis: int = -1, p: int = 2) -> Value:
    norm = reduced(x, [axis], True, _l1 if p == 1 else _l2)
    return _quotient_or_zero(x, norm)


def _l1(x: Any, axes: list[int], keepdims: bool) -> Any:
    return tf.reduce_sum(tf.abs(x), axes, keepdims)


def _l2(x: Any, axes: list[int], keepdims: bool) -> Any:
    return tf.sqrt(tf.reduce_sum(tf.square(x), axes, keepdims))


@elementwise
def _quotient_or_zero(x: Any, norm: Any) -> Any:
    """Where the norm is 0, ``x`` is."""
    return x / tf.where(tf.equal(norm, 0), tf.ones_like(norm), norm)


@lowers("LRN", 1, 13)
def local_response_normalization(
    x: Value, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Value:
    tensor = to_channel_last(x)
    if size % 2 and x.rank == 4 and tensor.dtype is tf.float32:
        result = tf.nn.local_response_normalization(
            tensor, size // 2, bias=bias, alpha=alpha / size, beta=beta
        )
        return from_channel_last(result)
    before = (size - 1) // 2
    sides = [[0, 0]] * (x.rank - 1) + [[before, size - 1 - before]]
    squares = tf.pad(tf.square(tensor), sides)
    channels = x.dims()[1]
    total = sum(squares[..., i : i + channels] for i in range(size))
    return from_channel_last(tensor / tf.pow(bias + alpha / size * total, beta))
