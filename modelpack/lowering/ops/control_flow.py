"""Subgraphs: If, Loop and Scan.

What is known when the model is converted is decided then: a constant condition takes its
branch, and a loop with a small constant number of steps is laid out step by step. That is
also the only form in which a loop can carry sequences, whose lengths must be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

from modelpack.lowering import loops, sizes
from modelpack.lowering.context import Context, Target
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

# A loop of tensors is laid out step by step up to this many nodes.
_MOST_UNROLLED_NODES = 256
# Exporters write while-loops with the largest number of steps there is.
_NO_LIMIT = 2**31 - 1
# A loop of sequences, which has no other form, up to this many steps.
_MOST_UNROLLED_STEPS = 1024


# --- If --------------------------------------------------------------------------------------


@lowers("If", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def if_(
    ctx: Context, cond: Value, *, then_branch: onnx.GraphProto, else_branch: onnx.GraphProto
) -> Any:
    if cond.const is not None:
        return tuple(ctx.run(then_branch if cond.const.item() else else_branch, []))
    forms: list[list[int | None]] = []

    def branch(graph: onnx.GraphProto) -> Any:
        def run() -> list[Any]:
            flat, form = _flattened(ctx, ctx.run(graph, []))
            forms.append(form)
            if form != forms[0]:
                raise ctx.refuse("its branches give sequences of different lengths")
            return [tf.identity(tensor) for tensor in flat]

        return run

    chosen = tf.cond(tf.reshape(cond.tensor, []), branch(then_branch), branch(else_branch))
    if any(tensor.shape.rank is None for tensor in chosen):
        raise ctx.refuse("its branches give tensors of different ranks")
    if ctx.target is not Target.SAVEDMODEL:
        chosen = [_of_rank(tensor) for tensor in chosen]
    return _restored(list(chosen), forms[0])


def _of_rank(tensor: Any) -> Any:
    """The tensor. The TFLite converter forgets its rank if branches give it different sizes."""
    return sizes.reshape(tensor, Value(tensor).dims()) if None in tensor.shape else tensor


def _flattened(ctx: Context, values: Sequence[Any]) -> tuple[list[Any], list[int | None]]:
    """Tensors of values in order; and for each value the length of a sequence, None for none."""
    flat: list[Any] = []
    form: list[int | None] = []
    for value in values:
        if value is None:
            raise ctx.refuse("a branch gives an optional without an element")
        items = value if isinstance(value, list) else [value]
        flat += [item.tensor for item in items]
        form.append(len(value) if isinstance(value, list) else None)
    return flat, form


def _restored(flat: list[Any], form: Sequence[int | None]) -> tuple[Any, ...]:
    values: list[Any] = []
    for length in form:
        if length is None:
            values.append(Value(flat.pop(0)))
        else:
            values.append([Value(flat.pop(0)) for _ in range(length)])
    return tuple(values)


# --- Loop ------------------------------------------------------------------------------------


@lowers("Loop", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def loop(
    ctx: Context,
    trips: Value | None = None,
    cond: Value | None = None,
    *initial: Any,
    body: onnx.GraphProto,
) -> Any:
    unrolled = _unrolled(ctx, trips, cond, initial, body)
    if unrolled is not None:
        return unrolled
    if any(not isinstance(value, Value) for value in initial):
        raise ctx.refuse("it carries a sequence, and its number of steps is not constant")
    count = len(initial)

    def step(i: Any, carried: list[Any]) -> loops.Step:
        going = Value(const=np.array(True))
        arguments = [Value(tf.cast(i, tf.int64)), going, *map(Value, carried)]
        results = ctx.run(body, arguments)
        if any(not isinstance(value, Value) for value in results):
            raise ctx.refuse("it makes sequences, and its number of steps is not constant")
        go_on, *tensors = (value.tensor for value in results)
        always = results[0].const is not None and results[0].const.item()
        return loops.Step(
            tensors[:count], tensors[count:], None if always else tf.reshape(go_on, [])
        )

    carried, stacked = loops.iterate(
        ctx.target,
        step,
        [value.tensor for value in initial],
        steps=None if trips is None else trips.sizes()[0],
        go_on=True if cond is None or _is_true(cond) else tf.reshape(cond.tensor, []),
    )
    return (*carried, *stacked)


def _is_true(value: Value) -> bool:
    return value.const is not None and bool(value.const.item())


def _unrolled(
    ctx: Context,
    trips: Value | None,
    cond: Value | None,
    initial: Sequence[Any],
    body: onnx.GraphProto,
) -> tuple[Any, ...] | None:
    """The loop step by step; None if its end is not known, or is far away."""
    if trips is not None and trips.const is None:
        return None
    tensors_only = all(isinstance(value, Value) for value in initial)
    nodes = max(1, len(body.node))
    most = _MOST_UNROLLED_NODES // nodes if tensors_only else _MOST_UNROLLED_STEPS
    steps = _NO_LIMIT if trips is None or trips.const is None else int(trips.const.item())
    if most < steps < _NO_LIMIT:
        return None
    going = Value(const=np.array(True)) if cond is None else cond
    carried = list(initial)
    stacked: list[list[Value]] = [[] for _ in body.output[1 + len(initial) :]]
    for i in range(min(steps, most + 1)):
        if going.const is None or i == most:
            return None
        if not going.const.item():
            break
        going, *results = ctx.run(body, [Value(const=np.array(i, np.int64)), going, *carried])
        carried = results[: len(carried)]
        for elements, value in zip(stacked, results[len(carried) :], strict=True):
            elements.append(value)
    if any(not elements for elements in stacked):
        return None
    return (*carried, *(tf.stack([e.tensor for e in elements]) for elements in stacked))


# --- Scan ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scan:
    """How a Scan walks along its inputs and outputs.

    Attributes:
        states: how many tensors it carries.
        axes: by scan input; the axis it walks along.
        backwards: by scan input; whether from the end.
        output_axes: by scan output; the axis that stacks its elements.
        output_backwards: by scan output; whether the first element comes last.
    """

    body: onnx.GraphProto
    states: int
    axes: Sequence[int]
    backwards: Sequence[int]
    output_axes: Sequence[int]
    output_backwards: Sequence[int]

    def run(self, ctx: Context, inputs: Sequence[Any]) -> list[Any]:
        """Scan tensors: the states, then the scanned inputs."""
        walked = [
            _walked(tensor, axis, backwards)
            for tensor, axis, backwards in zip(
                inputs[self.states :], self.axes, self.backwards, strict=True
            )
        ]

        def step(i: Any, carried: list[Any]) -> loops.Step:
            arguments = [*carried, *(tf.gather(tensor, i) for tensor in walked)]
            results = [value.tensor for value in ctx.run(self.body, list(map(Value, arguments)))]
            return loops.Step(results[: self.states], results[self.states :])

        carried, stacked = loops.iterate(
            ctx.target, step, inputs[: self.states], steps=_common_length(walked)
        )
        return carried + [
            _placed(tensor, axis, backwards)
            for tensor, axis, backwards in zip(
                stacked, self.output_axes, self.output_backwards, strict=True
            )
        ]


def _walked(tensor: Any, axis: int, backwards: int) -> Any:
    """With the axis in front, in the order of the walk."""
    axis %= tensor.shape.rank
    order = [axis, *(other for other in range(tensor.shape.rank) if other != axis)]
    tensor = tf.transpose(tensor, order) if axis else tensor
    return tf.reverse(tensor, [0]) if backwards else tensor


def _placed(tensor: Any, axis: int, backwards: int) -> Any:
    """The inverse of `_walked`."""
    tensor = tf.reverse(tensor, [0]) if backwards else tensor
    axis %= tensor.shape.rank
    order = list(range(1, tensor.shape.rank))
    order.insert(axis, 0)
    return tf.transpose(tensor, order) if axis else tensor


def _common_length(walked: Sequence[Any]) -> Size:
    lengths = [Value(tensor).dims()[0] for tensor in walked]
    return next((length for length in lengths if isinstance(length, int)), lengths[0])


@lowers("Scan", 9, 11, 16, 19, 21, 23, 24, 25)
def scan_9(
    ctx: Context,
    *inputs: Value,
    body: onnx.GraphProto,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
) -> Any:
    states = len(inputs) - num_scan_inputs
    ins, outs = [0] * num_scan_inputs, [0] * (len(body.output) - states)
    walk = _Scan(
        body,
        states,
        scan_input_axes or ins,
        scan_input_directions or ins,
        scan_output_axes or outs,
        scan_output_directions or outs,
    )
    return tuple(walk.run(ctx, [value.tensor for value in inputs]))


@lowers("Scan", 8)
def scan_8(
    ctx: Context,
    sequence_lens: Value | None,
    *inputs: Value,
    body: onnx.GraphProto,
    directions: Sequence[int] | None = None,
    num_scan_inputs: int,
) -> Any:
    """Every input has a batch in front, each item of which is scanned on its own."""
    if sequence_lens is not None:
        raise ctx.refuse("sequences of different lengths are not supported")
    states = len(inputs) - num_scan_inputs
    ins, outs = [0] * num_scan_inputs, [0] * (len(body.output) - states)
    walk = _Scan(body, states, ins, directions or ins, outs, outs)
    tensors = [value.tensor for value in inputs]

    def item(i: Any, carried: list[Any]) -> loops.Step:
        return loops.Step(carried, walk.run(ctx, [tf.gather(tensor, i) for tensor in tensors]))

    _, stacked = loops.iterate(ctx.target, item, [], steps=_common_length(tensors))
    return tuple(stacked)
