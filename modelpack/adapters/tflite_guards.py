"""Rewrites what the TFLite converter or LiteRT would get wrong; what is computed stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelpack.adapters import tflite_means, tflite_transposes

# What is added to, or is at least so much, is not zero.
_NOT_ZERO = {"Add", "AddV2", "Maximum"}

_PRELU_AXES = 4
"""Axes of LiteRT's PRELU."""


def guard(saved_model: Path) -> None:
    """Rewrite the functions of a SavedModel's graph in place.

    Args:
        saved_model: its ``saved_model.pb``.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(saved_model.read_bytes())
    guarded = 0
    for meta in saved.meta_graphs:
        for function in meta.graph_def.library.function:
            guarded += tflite_transposes.guard(function.node_def)
            guarded += tflite_means.by_rows(function)
            guarded += _guard_roots(function.node_def)
            guarded += _guard_slopes(function.node_def)
    if guarded:
        saved_model.write_bytes(saved.SerializeToString(deterministic=True))


def _guard_roots(nodes: Any) -> int:
    """Let what may be zero be infinite at 1 / sqrt: with XNNPACK, RSQRT is NaN there."""
    ops = {node.name: node.op for node in nodes}
    guarded = [
        node
        for node in nodes
        if node.op == "Rsqrt" and ops.get(node.input[0].partition(":")[0]) not in _NOT_ZERO
    ]
    for node in guarded:
        root = nodes.add(name=f"{node.name}/root", op="Sqrt", input=[node.input[0]])
        root.attr["T"].CopyFrom(node.attr["T"])
        node.op = "Reciprocal"
        node.input[0] = f"{root.name}:y:0"
    return len(guarded)


def _guard_slopes(nodes: Any) -> int:
    """Keep ``relu(x) - slope * relu(-x)`` of more axes than PRELU takes from becoming one.

    The converter makes it one all the same, and then refuses it. It knows no maximum of a tensor
    with itself.
    """
    negated = {node.name: node for node in nodes if node.op == "Neg" and _axes(node) > _PRELU_AXES}
    guarded = [
        node for node in nodes if node.op == "Relu" and node.input[0].partition(":")[0] in negated
    ]
    for node in guarded:
        operand = node.input[0]
        kept = nodes.add(name=f"{node.name}/kept", op="Maximum", input=[operand, operand])
        kept.attr["T"].CopyFrom(node.attr["T"])
        node.input[0] = f"{kept.name}:z:0"
    return len(guarded)


def _axes(node: Any) -> int:
    """Axes of a node's first result, where its saved shape tells."""
    shapes = tflite_means.saved_shapes(node.attr)
    return len(shapes[0].dim) if len(shapes) else 0
