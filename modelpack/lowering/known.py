"""What is known of shapes with dynamic sizes, through the arithmetic that graphs do on them.

A shape such as (batch, 3, 224, 224) has elements that are known and one that is not. The
rules here compute the known elements of a result with numpy, on float64 arrays in which NaN
stands for an unknown element: NaN spreads through arithmetic just as not knowing does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.value import KNOWN_LIMIT, Array, Value

_Rule = Callable[..., Array | None]


def propagated(
    op_type: str, arguments: list[Any], attributes: Mapping[str, Any], results: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Add to an op's first result what its rule knows; a result known entirely is a constant."""
    rule = _RULES.get(op_type)
    result = results[0] if results else None
    if rule is None or not isinstance(result, Value) or result.is_const:
        return results
    if not result.dtype.is_integer and not result.dtype.is_bool:
        return results
    knowns = [item.known if isinstance(item, Value) else None for item in arguments]
    if knowns and all(item is None for item in knowns):
        return results
    elements = rule(*_unknown_as_nan(arguments, knowns), **attributes)
    if elements is None:
        return results
    return (_informed(result, elements), *results[1:])


def shape_of(x: Value) -> Array:
    """Known sizes of a value."""
    return np.array([np.nan if size is None else size for size in x.shape], np.float64)


# Ops that make sizes of sizes. None of them makes a zero that stands for something else.
_SIZE_OPS = frozenset(
    [
        "Shape",
        "Const",
        "Cast",
        "StridedSlice",
        "GatherV2",
        "Pack",
        "ConcatV2",
        "ExpandDims",
        "Squeeze",
        "Reshape",
        "Identity",
        "Transpose",
        "AddV2",
        "Sub",
        "Mul",
        "FloorDiv",
    ]
)
_LARGEST_WALK = 1024


def made_of_sizes(x: Value) -> bool:
    """Whether a tensor is computed from sizes of tensors, and from constants, alone."""
    if x.is_const or tf.executing_eagerly():
        return False
    waiting = [x.held.op]
    seen: set[str] = set()
    while waiting:
        op = waiting.pop()
        if op.type not in _SIZE_OPS or len(seen) > _LARGEST_WALK:
            return False
        seen.add(op.name)
        if op.type != "Shape":
            waiting += [item.op for item in op.inputs if item.op.name not in seen]
    return True


def _informed(result: Value, elements: Array) -> Value:
    if np.isnan(elements).any():
        return result.knowing(elements)
    return result.constant_of(elements.astype(result.dtype.as_numpy_dtype))


def _unknown_as_nan(arguments: list[Any], knowns: list[Array | None]) -> list[Array | None]:
    return [
        _all_unknown(item) if known is None and isinstance(item, Value) else known
        for item, known in zip(arguments, knowns, strict=True)
    ]


def _all_unknown(x: Value) -> Array | None:
    shape = [size for size in x.shape if size is not None]
    return np.full(shape, np.nan) if len(shape) == x.rank else None


def _all(function: Callable[..., Array]) -> _Rule:
    """A rule that says nothing unless something is said of every argument."""

    def rule(*arguments: Array | None, **attributes: Any) -> Array | None:
        if any(item is None for item in arguments):
            return None
        with np.errstate(all="ignore"):
            return np.asarray(function(*arguments, **attributes), np.float64)

    return rule


def _divide(a: Array, b: Array) -> Array:
    # Integer division of ONNX truncates; sizes are not negative, so flooring is the same.
    return np.where((a >= 0) & (b > 0), np.floor_divide(a, b), np.nan)


def _where(condition: Array, a: Array, b: Array) -> Array:
    chosen = np.where(condition != 0, a, b)
    return np.where(np.isnan(condition), np.where(a == b, a, np.nan), chosen)


def _compare(function: Callable[[Array, Array], Array]) -> _Rule:
    def rule(a: Array, b: Array) -> Array:
        return np.where(np.isnan(a) | np.isnan(b), np.nan, function(a, b))

    return _all(rule)


def _gather(data: Array | None, indices: Array | None, axis: int = 0) -> Array | None:
    if data is None or indices is None or np.isnan(indices).any():
        return None
    return np.take(data, indices.astype(np.int64), axis=axis)


def _slice(
    data: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array | None:
    bounds = [item for item in (starts, ends, axes, steps) if item is not None]
    if data is None or starts is None or ends is None or np.isnan(np.concatenate(bounds)).any():
        return None
    index = [slice(None)] * data.ndim
    count = len(starts)
    axes = np.arange(count) if axes is None else axes
    steps = np.ones(count) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        low = -(1 << 62)
        stop = None if step < 0 and end <= low else int(min(end, 1 << 62))
        index[int(axis)] = slice(int(start), stop, int(step))
    return data[tuple(index)]


def _reshape(data: Array | None, shape: Array | None, allowzero: int = 0) -> Array | None:
    if data is None or shape is None or np.isnan(shape).any() or (0 in shape and data.size):
        return None
    return data.reshape([int(size) for size in shape])


def _unsqueeze(data: Array | None, axes: Any = None) -> Array | None:
    if data is None or axes is None or np.isnan(axes).any():
        return None
    return np.expand_dims(data, tuple(int(axis) for axis in np.asarray(axes).reshape(-1)))


def _squeeze(data: Array | None, axes: Any = None) -> Array | None:
    if data is None or (axes is not None and np.isnan(axes).any()):
        return None
    kept = None if axes is None else tuple(int(axis) for axis in np.asarray(axes).reshape(-1))
    return np.squeeze(data, kept)


def _transpose(data: Array | None, perm: Any = None) -> Array | None:
    return None if data is None else np.transpose(data, perm)


def _expand(data: Array | None, shape: Array | None) -> Array | None:
    if data is None or shape is None or np.isnan(shape).any() or np.prod(shape) > KNOWN_LIMIT:
        return None
    sizes = np.broadcast_shapes(data.shape, tuple(int(size) for size in shape))
    return np.broadcast_to(data, sizes)


def _reduce_prod(
    data: Array | None, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Array | None:
    if data is None or data.ndim != 1 or noop_with_empty_axes:
        return None
    return np.asarray(np.prod(data, keepdims=bool(keepdims)))


def _cast(
    data: Array | None, *, to: int, saturate: int = 1, round_mode: str = "up"
) -> Array | None:
    return data


_RULES: dict[str, _Rule] = {
    "Add": _all(np.add),
    "Cast": _cast,
    "Concat": _all(lambda *parts, axis: np.concatenate(parts, axis)),
    "Div": _all(_divide),
    "Equal": _compare(np.equal),
    "Expand": _expand,
    "Gather": _gather,
    "Greater": _compare(np.greater),
    "Identity": _all(lambda x: x),
    "Less": _compare(np.less),
    "Max": _all(lambda *xs: np.maximum.reduce(np.broadcast_arrays(*xs))),
    "Min": _all(lambda *xs: np.minimum.reduce(np.broadcast_arrays(*xs))),
    "Mul": _all(np.multiply),
    "Neg": _all(np.negative),
    "ReduceProd": _reduce_prod,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _all(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _all(_where),
}
