"""Ops of ONNX Runtime (domain com.microsoft) that its optimizer makes of several of ONNX's.

Source: docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.layout import matrices_transposed
from modelpack.lowering.ops.matmul import gemm_11, matmul, scaled
from modelpack.lowering.ops.normalization import layer_normalization
from modelpack.lowering.registry import MICROSOFT, lowers
from modelpack.lowering.value import Value

# Those without parameters: what ``activation`` names.
_ACTIVATIONS = {"": tf.identity, "Relu": tf.nn.relu, "Tanh": tf.tanh, "Sigmoid": tf.sigmoid}


@lowers("FusedMatMul", 1, domain=MICROSOFT)
def fused_matmul(
    ctx: Context,
    a: Value,
    b: Value,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    transBatchA: int = 0,  # noqa: N803
    transBatchB: int = 0,  # noqa: N803
) -> Any:
    if transBatchA or transBatchB:
        raise ctx.refuse("transposes of the batch are not lowered")
    left = matrices_transposed(a) if transA and a.rank > 1 else a
    right = matrices_transposed(b) if transB and b.rank > 1 else b
    return scaled(matmul(ctx, left, right), alpha)


@lowers("FusedGemm", 1, domain=MICROSOFT)
def fused_gemm(
    ctx: Context,
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    activation: str = "",
    activation_alpha: float = 0.0,
    activation_beta: float = 0.0,
    activation_gamma: float = 0.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Any:
    result = gemm_11(ctx, a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    if activation == "LeakyRelu":
        return tf.nn.leaky_relu(result, activation_alpha)
    if activation not in _ACTIVATIONS:
        raise ctx.refuse(f"activation '{activation}' is not lowered")
    return _ACTIVATIONS[activation](result)


@lowers("SkipLayerNormalization", 1, domain=MICROSOFT)
def skip_layer_normalization(
    ctx: Context,
    x: Value,
    skip: Value,
    gamma: Value,
    beta: Value | None = None,
    bias: Value | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Any, ...]:
    total = x.tensor + skip.tensor
    total = total if bias is None else total + bias.tensor
    inner = replace(ctx, outputs=ctx.outputs[:3])
    return *layer_normalization(inner, Value(total), gamma, beta, epsilon=epsilon), total
