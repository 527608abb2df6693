"""Determinants."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelpack.lowering import dtypes
from modelpack.lowering.context import Context
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value

# Elimination without a kernel takes a dozen ops per row.
_MOST_ROWS = 16


@lowers("Det", 11, 22)
def det(ctx: Context, x: Value) -> Any:
    if not ctx.builtin_only:
        return dtypes.computed_in((tf.float32, tf.float64), tf.linalg.det, x.tensor)
    rows = x.shape[-1]
    if rows is None or rows > _MOST_ROWS:
        raise ctx.refuse(f"determinants of matrices of {rows or 'unknown'} rows have no kernel")
    return _eliminated(x.tensor, rows)


def _eliminated(matrix: Any, rows: int) -> Any:
    """The product of the pivots of Gaussian elimination, and -1 for each exchange of rows.

    The pivot is the largest element of its column, so nothing is divided by a smaller one.
    """
    result: Any = 1.0
    for left in range(rows, 1, -1):
        column = tf.abs(matrix[..., 0])
        chosen = tf.one_hot(tf.argmax(column, -1, output_type=tf.int32), left)
        first = tf.one_hot(0, left)
        pivot_row = tf.reduce_sum(matrix * tf.expand_dims(chosen, -1), -2, keepdims=True)
        # Moving the first row to the pivot's place exchanges them, unless it is the pivot.
        moved = (matrix + tf.expand_dims(chosen, -1) * (matrix[..., :1, :] - pivot_row))[..., 1:, :]
        pivot = pivot_row[..., 0]
        safe = tf.where(tf.equal(pivot, 0), tf.ones_like(pivot), pivot)
        factors = moved[..., :1] / tf.expand_dims(safe, -1)
        matrix = (moved - factors * pivot_row)[..., 1:]
        sign = 2 * tf.reduce_sum(chosen * first, -1) - 1
        result = result * pivot[..., 0] * sign
    return result * matrix[..., 0, 0] if rows else tf.ones(tf.shape(matrix)[:-2], matrix.dtype)
