"""Ops without a name in ONNX, which `modelpack.lowering.patterns` puts together."""

from __future__ import annotations

import tensorflow as tf

from modelpack.lowering.layout import matrices_transposed
from modelpack.lowering.ops.normalization import group_standardized
from modelpack.lowering.registry import OWN, lowers
from modelpack.lowering.value import Value


@lowers("GroupStandardization", 1, domain=OWN)
def group_standardization(x: Value, *, groups: int, epsilon: float) -> Value:
    return group_standardized(x, groups, epsilon)


@lowers("MatrixTranspose", 1, domain=OWN)
def matrix_transpose(x: Value) -> Value:
    return matrices_transposed(x)


@lowers("NanRowsZeroed", 1, domain=OWN)
def nan_rows_zeroed(x: Value, *, axis: int) -> Value:
    """Zeros for rows along an axis whose first element is NaN."""
    tensor = x.physical(x.perm)
    first = tensor[(slice(None),) * x.axis(axis) + (slice(0, 1),)]
    return x.like(tf.where(tf.math.is_nan(first), tf.zeros([], tensor.dtype), tensor))
