"""Transposes of tensors, of any number of axes.

TFLite has a kernel for at most six. Axes that stay next to each other are merged first, and what
is left of more than six is a product of several transposes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_MOST = 6
"""Axes of a transpose: ``kTransposeMaxDimensions`` of TFLite."""


def transposed(tensor: Any, order: Sequence[int]) -> Any:
    """``transpose(tensor, order)``; by a reshape where only axes of size 1 move."""
    shape = tensor.shape.as_list()
    moved = [axis for axis in order if shape[axis] != 1]
    if moved == sorted(moved) and shape.count(None) <= 1 and 0 not in shape:
        return tf.reshape(tensor, [-1 if shape[axis] is None else shape[axis] for axis in order])
    if len(order) <= _MOST:
        return tf.transpose(tensor, order)
    source = tf.shape(tensor)
    sizes = [source[axis] if size is None else size for axis, size in enumerate(shape)]
    for step in _steps(moved):
        tensor = tf.transpose(_reshaped(tensor, [_product(sizes, run) for run in step[0]]), step[1])
    result = _reshaped(tensor, [sizes[axis] for axis in order])
    result.set_shape([shape[axis] for axis in order])
    return result


def _steps(order: Sequence[int]) -> list[tuple[list[list[int]], list[int]]]:
    """Transposes of at most six merged axes whose product has the axes in an order.

    Returns:
        for each the runs of axes that it takes as one, and the order of those runs.
    """
    steps = []
    held = sorted(order)
    while held != list(order):
        goal = _within_reach(held, order)
        runs = _runs(held, goal)
        steps.append(
            (runs, [runs.index(run) for run in sorted(runs, key=lambda r: goal.index(r[0]))])
        )
        held = goal
    return steps


def _within_reach(held: Sequence[int], order: Sequence[int]) -> list[int]:
    """The order, or else its first axes, as many as one transpose can bring there."""
    for count in range(len(order), 0, -1):
        first = order[:count]
        goal = [*first, *(axis for axis in held if axis not in first)]
        if len(_runs(held, goal)) <= _MOST:
            break
    return goal


def _runs(held: Sequence[int], goal: Sequence[int]) -> list[list[int]]:
    """The axes as held, in runs that are in both orders."""
    runs = [[held[0]]]
    for axis in held[1:]:
        place = goal.index(axis)
        if place and goal[place - 1] == runs[-1][-1]:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


def _product(sizes: Sequence[Any], axes: Sequence[int]) -> Any:
    result: Any = 1
    for axis in axes:
        result = sizes[axis] * result
    return result


def _reshaped(tensor: Any, sizes: Sequence[Any]) -> Any:
    """Reshape to ints and scalar tensors, by a constant shape where that can be."""
    fixed = [size if isinstance(size, int) else -1 for size in sizes]
    if fixed.count(-1) > 1 or 0 in fixed:
        return tf.reshape(tensor, tf.stack(sizes))
    return tf.reshape(tensor, fixed)
