"""Bugs planted in the buffers of TFLite files, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

Edit = Callable[[bytearray, np.random.Generator], bool]


def _floats(content: bytearray) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Shapes and numbers of the constant float32 tensors; the numbers are views."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        buffer = model.Buffers(tensor.Buffer())
        if tensor.Type() != schema.TensorType.FLOAT32 or buffer.DataIsNone():
            continue
        shape = tuple(tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
        values = buffer.DataAsNumpy().view(np.float32)
        if values.size == int(np.prod(shape)) and values.size:
            yield shape, values


def _chosen(rng: np.random.Generator, items: list[Any]) -> Any:
    return items[int(rng.integers(len(items)))] if items else None


def _one_weight(scale: float) -> Edit:
    def edit(content: bytearray, rng: np.random.Generator) -> bool:
        large = [values for _, values in _floats(content) if values.size >= 4 and values.any()]
        values = _chosen(rng, large)
        if values is None:
            return False
        values[_chosen(rng, list(np.flatnonzero(values)))] *= 1 + scale
        return True

    return edit


def _whole_tensor(content: bytearray, rng: np.random.Generator) -> bool:
    values = _chosen(rng, [item for _, item in _floats(content) if item.size >= 4 and item.any()])
    if values is None:
        return False
    values *= np.float32(1 + 1e-4)
    return True


def _through(dtype: Any) -> Edit:
    def edit(content: bytearray, _rng: np.random.Generator) -> bool:
        found = False
        for _, values in _floats(content):
            narrow = values.astype(dtype).astype(np.float32)
            np.copyto(values, narrow, where=np.isfinite(narrow))
            found = True
        return found

    return edit


def _transposed(content: bytearray, rng: np.random.Generator) -> bool:
    square = [
        (shape, values)
        for shape, values in _floats(content)
        if len(shape) == 2 and shape[0] == shape[1] > 1
    ]
    chosen = _chosen(rng, square)
    if chosen is None:
        return False
    shape, values = chosen
    values[:] = values.reshape(shape).T.reshape(-1).copy()
    return True


def _missing_bias(content: bytearray, rng: np.random.Generator) -> bool:
    found = [v for shape, v in _floats(content) if len(shape) == 1 and v.size > 1 and v.any()]
    values = _chosen(rng, found)
    if values is None:
        return False
    values[:] = 0
    return True


EDITS: dict[str, Edit] = {
    **{f"one weight, {scale:g}": _one_weight(scale) for scale in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)},
    "a tensor scaled by 1 + 1e-4": _whole_tensor,
    "weights through float16": _through(np.float16),
    "weights through bfloat16": _through(ml_dtypes.bfloat16),
    "transposed square matrix": _transposed,
    "missing bias": _missing_bias,
}


def edited(content: bytes, edit: Edit, rng: np.random.Generator) -> bytes | None:
    """A copy of a file with the bug, or None where it does not apply or changes nothing."""
    copy = bytearray(content)
    if not edit(copy, rng) or copy == content:
        return None
    return bytes(copy)
