"""Sequences and optionals.

A sequence is a list of values: its length is known when the model is converted. An optional
is what it holds, or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

# --- sequences -------------------------------------------------------------------------------


@lowers("SequenceConstruct", 11)
def sequence_construct(*inputs: Value) -> list[Value]:
    return list(inputs)


@lowers("SequenceEmpty", 11)
def sequence_empty(*, dtype: int | None = None) -> list[Value]:
    return []


@lowers("SequenceLength", 11)
def sequence_length(input_sequence: list[Value]) -> Any:
    return np.array(len(input_sequence), np.int64)


@lowers("SequenceAt", 11)
def sequence_at(ctx: Context, input_sequence: list[Value], position: Value) -> Value:
    index = _index(position, len(input_sequence))
    if isinstance(index, int):
        return input_sequence[_checked(ctx, index, len(input_sequence))]
    result = input_sequence[-1]
    for i in reversed(range(len(input_sequence) - 1)):
        result = _either(tf.equal(index, i), input_sequence[i], result)
    return result


@lowers("SequenceInsert", 11)
def sequence_insert(
    ctx: Context, input_sequence: list[Value], tensor: Value, position: Value | None = None
) -> list[Value]:
    length = len(input_sequence)
    index = length if position is None else _index(position, length)
    if isinstance(index, int):
        index = _checked(ctx, index, length + 1)
        return [*input_sequence[:index], tensor, *input_sequence[index:]]
    kept = [
        _either(tf.less(i, index), at_i, before_i)
        for i, (at_i, before_i) in enumerate(
            zip([*input_sequence, tensor], [tensor, *input_sequence], strict=True)
        )
    ]
    return [_either(tf.equal(i, index), tensor, value) for i, value in enumerate(kept)]


@lowers("SequenceErase", 11)
def sequence_erase(
    ctx: Context, input_sequence: list[Value], position: Value | None = None
) -> list[Value]:
    length = len(input_sequence)
    index = length - 1 if position is None else _index(position, length)
    if isinstance(index, int):
        index = _checked(ctx, index, length)
        return input_sequence[:index] + input_sequence[index + 1 :]
    return [
        _either(tf.less(i, index), at_i, after_i)
        for i, (at_i, after_i) in enumerate(pairwise(input_sequence))
    ]


@lowers("ConcatFromSequence", 11)
def concat_from_sequence(input_sequence: list[Value], *, axis: int, new_axis: int = 0) -> Any:
    tensors = [value.tensor for value in input_sequence]
    return tf.stack(tensors, axis) if new_axis else tf.concat(tensors, axis)


@lowers("SplitToSequence", 11, 24)
def split_to_sequence(
    ctx: Context, x: Value, split: Value | None = None, *, axis: int = 0, keepdims: int = 1
) -> list[Value]:
    axis %= x.rank
    parts = _parts(ctx, x.shape[axis], split)
    if split is None and not keepdims:
        return [Value(part) for part in tf.unstack(x.tensor, x.shape[axis], axis)]
    if not parts:
        return []
    result = tf.split(x.tensor, _packed(parts), axis, num=len(parts))
    return [Value(part) for part in result]


def _parts(ctx: Context, size: int | None, split: Value | None) -> list[Size]:
    """Sizes of the parts that an axis is split into."""
    if split is not None and split.rank:
        return split.sizes()
    if size is None:
        raise ctx.refuse("the axis has no static size, so the number of parts is not known")
    (chunk,) = [1] if split is None else split.sizes()
    if not isinstance(chunk, int):
        raise ctx.refuse("the size of parts is not constant, so their number is not known")
    return [min(chunk, size - start) for start in range(0, size, chunk)]


def _packed(parts: Sequence[Size]) -> Any:
    if all(isinstance(part, int) for part in parts):
        return list(parts)
    return tf.stack(parts)


@lowers("SequenceMap", 17)
def sequence_map(
    ctx: Context, input_sequence: list[Value], *additional_inputs: Any, body: onnx.GraphProto
) -> Any:
    """The body for each element; other sequences give theirs, tensors are the same for all."""
    results = []
    for i, element in enumerate(input_sequence):
        others = [other[i] if isinstance(other, list) else other for other in additional_inputs]
        results.append(ctx.run(body, [element, *others]))
    return tuple([result[output] for result in results] for output in range(len(body.output)))


def _index(position: Value, length: int) -> Size:
    """The position as an int or a scalar int32 tensor, counted from the start."""
    (index,) = position.sizes()
    if isinstance(index, int):
        return index + length if index < 0 else index
    return tf.where(index < 0, index + length, index)


def _checked(ctx: Context, index: int, count: int) -> int:
    if not 0 <= index < count:
        raise ctx.refuse(f"position {index} is out of range for {count} places")
    return index


def _either(condition: Any, if_true: Value, if_false: Value) -> Value:
    """One of two values, of which the sizes may differ."""
    if if_true is if_false:
        return if_true
    a, b = if_true.tensor, if_false.tensor
    return Value(tf.cond(condition, lambda: tf.identity(a), lambda: tf.identity(b)))


# --- optionals -------------------------------------------------------------------------------


@lowers("Optional", 15, 28)
def optional(value: Any = None, *, type: onnx.TypeProto | None = None) -> Any:
    return value


@lowers("OptionalHasElement", 15, 18, 28)
def optional_has_element(value: Any = None) -> Any:
    return np.array(value is not None)


@lowers("OptionalGetElement", 15, 18, 28)
def optional_get_element(ctx: Context, value: Any) -> Any:
    if value is None:
        raise ctx.refuse("the optional is empty")
    return value
