"""Products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from modelpack.lowering import dtypes, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value

_KERNELS = (tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.int32, tf.int64)
"""What TensorFlow multiplies matrices of."""

_TFLITE_AXES = 5
"""Axes of TFLite's BATCH_MATMUL."""


@lowers("MatMul", 1, 9, 13)
def matmul(ctx: Context, a: Value, b: Value) -> Any:
    if a.rank == 1 or b.rank == 1:
        return _with_vector(ctx, a, b)
    (left, flip_left), (right, flip_right) = _operand(a), _operand(b)
    return product(ctx, left, right, flip_left, flip_right)


@lowers("Gemm", 1, 6)
def gemm_1(
    ctx: Context,
    a: Value,
    b: Value,
    c: Value,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Any:
    return gemm_11(ctx, a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@lowers("Gemm", 7, 9)
def gemm_7(
    ctx: Context,
    a: Value,
    b: Value,
    c: Value,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Any:
    return gemm_11(ctx, a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@lowers("Gemm", 11, 13)
def gemm_11(
    ctx: Context,
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Any:
    (left, flip_left), (right, flip_right) = _operand(a), _operand(b)
    result = product(ctx, left, right, flip_left != bool(transA), flip_right != bool(transB))
    result = scaled(result, alpha)
    if c is None:
        return result
    return result + scaled(_bias(c), beta)


def _bias(c: Value) -> Any:
    """A row is a vector: TensorFlow's fusing of the sum wants that."""
    return tf.reshape(c.tensor, [-1]) if c.rank == 2 and c.shape[0] == 1 else c.tensor


def scaled(tensor: Any, factor: float) -> Any:
    """``factor * tensor``, where integers take the whole part of the factor."""
    return tensor if factor == 1 else tensor * tf.cast(factor, tensor.dtype)


def product(ctx: Context, a: Any, b: Any, flip_a: bool = False, flip_b: bool = False) -> Any:
    """The product of tensors of matrices, broadcasting as ``numpy.matmul``.

    Args:
        ctx: of the node.
        a: matrices on the left; transposed ones if ``flip_a``.
        b: matrices on the right; transposed ones if ``flip_b``.
        flip_a: see ``a``.
        flip_b: see ``b``.
    """
    if ctx.builtin_only and not a.dtype.is_floating:
        left, right = _unflipped(a, b, flip_a, flip_b)
        return dtypes.computed_in(dtypes.TFLITE, _integer_product, left, right)

    def multiplied(a: Any, b: Any) -> Any:
        open_batch = all(size is None or size == 1 for size in b.shape[:-2])
        if open_batch and a.shape.rank > 3 and not ctx.builtin_only:
            # One matrix, perhaps: another kernel than the one below, slower but right.
            return tf.raw_ops.BatchMatMulV3(x=a, y=b, Tout=a.dtype, adj_x=flip_a, adj_y=flip_b)
        if flip_a:
            # Not MatMul: TensorFlow fuses its sum with a (1, n) tensor, and then refuses it.
            return tf.raw_ops.BatchMatMulV2(x=a, y=b, adj_x=True, adj_y=flip_b)
        return tf.matmul(a, b, transpose_b=flip_b)

    if not ctx.builtin_only and a.shape.rank > 3 and _is_single(b, a.shape.rank):
        # TensorFlow's kernel writes beyond its result for batches of (n, 1) and one matrix.
        *batch, rows, columns = Value(a).dims()
        merged = sizes.reshape(a, [sizes.product(batch), rows, columns])
        matrix = sizes.reshape(b, Value(b).dims()[-2:])
        result = dtypes.computed_in(_KERNELS, multiplied, merged, matrix)
        return sizes.reshape(result, [*batch, *Value(result).dims()[1:]])
    if ctx.builtin_only:
        return _in_fewer_axes(lambda a, b: dtypes.computed_in(_KERNELS, multiplied, a, b), a, b)
    return dtypes.computed_in(_KERNELS, multiplied, a, b)


def _in_fewer_axes(function: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """Where there are too many for TFLite, neighbouring axes of the batch are taken as one.

    They are of the same known sizes in both; others stay, which the converter then refuses.
    """
    excess = a.shape.rank - _TFLITE_AXES
    if excess <= 0 or a.shape.rank != b.shape.rank:
        return function(a, b)
    batch = list(zip(a.shape[:-2], b.shape[:-2], strict=True))
    runs = (slice(first, first + excess + 1) for first in range(len(batch) - excess))
    run = next((run for run in runs if all(m == n is not None for m, n in batch[run])), None)
    if run is None:
        return function(a, b)

    def merged(tensor: Any) -> Any:
        dims = Value(tensor).dims()
        dims[run] = [sizes.product(dims[run])]
        return sizes.reshape(tensor, dims)

    result = function(merged(a), merged(b))
    dims = Value(result).dims()
    dims[run.start : run.start + 1] = a.shape[run]
    return sizes.reshape(result, dims)


def _is_single(tensor: Any, rank: int) -> bool:
    """Whether it is one matrix, of at most ``rank`` axes."""
    return tensor.shape.rank <= rank and all(size == 1 for size in tensor.shape[:-2])


def _unflipped(a: Any, b: Any, flip_a: bool, flip_b: bool) -> tuple[Any, Any]:
    return (
        tf.linalg.matrix_transpose(a) if flip_a else a,
        tf.linalg.matrix_transpose(b) if flip_b else b,
    )


def _integer_product(a: Any, b: Any) -> Any:
    """LiteRT has no kernel for it, but kernels to multiply element by element and to add up."""
    return tf.reduce_sum(tf.expand_dims(a, -1) * tf.expand_dims(b, -3), -2)


def _operand(x: Value) -> tuple[Any, bool]:
    """The tensor to multiply, and whether it holds the transposed matrices.

    Kernels read a transposed matrix as fast, so a lazily transposed one stays as it is held.
    """
    if x.perm is None or x.is_const or x.perm[-2] < x.perm[-1]:
        return x.tensor, False
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    return x.transposed(order), True


def _with_vector(ctx: Context, a: Value, b: Value) -> Any:
    """A vector is a matrix of one row on the left, of one column on the right."""
    left = tf.expand_dims(a.tensor, 0) if a.rank == 1 else a.tensor
    right = tf.expand_dims(b.tensor, 1) if b.rank == 1 else b.tensor
    result = product(ctx, left, right)
    gone = [-2] * (a.rank == 1) + [-1] * (b.rank == 1)
    return tf.squeeze(result, gone)
