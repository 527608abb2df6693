"""Loops over time: tensors carried from step to step, and tensors stacked along a new axis.

The stacked ones are where the targets differ. TensorFlow collects them in a TensorArray.
The TFLite converter turns those into tensors whose element shape must be static, so a
dynamic batch is impossible with them; there the elements are appended to a flat vector,
which may have any length, and given their shape when the loop is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from modelpack.errors import ConversionError
from modelpack.lowering import sizes
from modelpack.lowering.context import Target
from modelpack.lowering.value import Size

# Shapes of carried tensors settle once a dimension that grows is known to be dynamic.
_MOST_PROBES = 8

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a loop makes.

    Attributes:
        carried: what the next step gets, in the same order and dtypes.
        stacked: elements that the loop collects.
        go_on: scalar bool, whether another step follows; None if only their number says.
    """

    carried: list[Any]
    stacked: list[Any]
    go_on: Any = None


Body: TypeAlias = Callable[[Any, list[Any]], Step]
"""Takes the number of the step (scalar int32) and the carried tensors."""


def iterate(
    target: Target,
    body: Body,
    carried: Sequence[Any],
    *,
    steps: Size | None = None,
    go_on: Any = True,
) -> tuple[list[Any], list[Any]]:
    """Run a loop.

    Args:
        target: what will run it.
        body: makes a step.
        carried: tensors that the first step gets. Later ones may have other sizes.
        steps: how many steps at most; None for no limit.
        go_on: whether there is a first step at all.

    Returns:
        what the last step carried, and what was stacked: elements along a new first axis.
    """
    carried = [tf.convert_to_tensor(tensor) for tensor in carried]
    shapes, elements = _settled(body, carried)
    grows = any(
        tensor.shape.as_list() != shape.as_list()
        for tensor, shape in zip(carried, shapes, strict=True)
    )
    if grows and not elements and target is not Target.SAVEDMODEL:
        # LiteRT takes a vector that grows from no element to one for a scalar, and lets it
        # grow no more, unless the loop also carries what it can see growing.
        results, _ = iterate(target, _counting(body), carried, steps=steps, go_on=go_on)
        return results, []
    make = _Array if target is Target.SAVEDMODEL else _Flat
    sinks = [make(element, steps) for element in elements]
    limit = _limit(steps)

    def more(i: Any, go: Any, *_: Any) -> Any:
        return tf.logical_and(tf.less(i, limit), go)

    def advance(i: Any, go: Any, now: list[Any], stores: list[Any]) -> tuple[Any, ...]:
        for tensor, shape in zip(now, shapes, strict=True):
            tensor.set_shape(shape)
        step = body(i, now)
        stores = [
            sink.add(store, i, value)
            for sink, store, value in zip(sinks, stores, step.stacked, strict=True)
        ]
        return i + 1, go if step.go_on is None else step.go_on, step.carried, stores

    state = (tf.constant(0), tf.convert_to_tensor(go_on), carried, [s.store for s in sinks])
    scalar = tf.TensorShape([])
    invariants = (scalar, scalar, shapes, [sink.shape for sink in sinks])
    count, _, final, stores = tf.while_loop(more, advance, state, shape_invariants=invariants)
    for tensor, shape in zip(final, shapes, strict=True):
        tensor.set_shape(shape)
    count = steps if isinstance(steps, int) and go_on is True else count
    return final, [sink.stacked(s, count) for sink, s in zip(sinks, stores, strict=True)]


def _counting(body: Body) -> Body:
    """The body, which also stacks the numbers of the steps."""

    def counting(i: Any, carried: list[Any]) -> Step:
        step = body(i, carried)
        return Step(step.carried, [*step.stacked, i], step.go_on)

    return counting


def _limit(steps: Size | None) -> Any:
    if steps is None:
        return tf.constant(_INT32_MAX)
    if isinstance(steps, int):
        return tf.constant(min(steps, _INT32_MAX))
    if steps.dtype is tf.int64:
        return tf.cast(tf.minimum(steps, tf.constant(_INT32_MAX, tf.int64)), tf.int32)
    return steps


def _settled(body: Body, carried: list[Any]) -> tuple[list[Any], list[tf.TensorSpec]]:
    """Shapes of carried tensors that hold for every step, and specs of the stacked elements.

    Found by tracing the body apart from the graph, until what it is given and what it
    makes agree.
    """
    shapes = [tensor.shape for tensor in carried]
    for _ in range(_MOST_PROBES):
        specs = [
            tf.TensorSpec(shape, tensor.dtype)
            for shape, tensor in zip(shapes, carried, strict=True)
        ]
        made = _probe(body, specs)
        for spec, tensor in zip(specs, made.carried, strict=True):
            if spec.dtype != tensor.dtype or spec.shape.rank != tensor.shape.rank:
                raise ConversionError(f"a loop carries {spec} in, but {tensor.shape} out")
        wider = [
            spec.shape.most_specific_compatible_shape(tensor.shape)
            for spec, tensor in zip(specs, made.carried, strict=True)
        ]
        if all(new.as_list() == old.as_list() for new, old in zip(wider, shapes, strict=True)):
            return shapes, [tf.TensorSpec(t.shape, t.dtype) for t in made.stacked]
        shapes = wider
    raise ConversionError("the shapes that a loop carries do not settle")


def _probe(body: Body, specs: list[tf.TensorSpec]) -> Step:
    made: list[Step] = []

    def trace(i: Any, *now: Any) -> Any:
        made.append(body(i, list(now)))
        return tf.constant(0)

    signature = [tf.TensorSpec([], tf.int32), *specs]
    tf.function(trace, input_signature=signature, autograph=False).get_concrete_function()
    return made[0]


class _Array:
    """Elements in a TensorArray."""

    def __init__(self, element: tf.TensorSpec, steps: Size | None) -> None:
        self._element = element
        self.shape = None
        self.store = tf.TensorArray(
            element.dtype,
            size=0 if steps is None else _limit(steps),
            dynamic_size=steps is None,
            element_shape=element.shape,
        )

    def add(self, store: Any, i: Any, value: Any) -> Any:
        return store.write(i, value)

    def stacked(self, store: Any, count: Size) -> Any:
        result = store.stack()
        # A loop that ends early leaves places that were never written.
        return result if isinstance(count, int) else result[:count]


class _Flat:
    """Elements one after the other in a row, with the shape of the last.

    The row is the second axis of a matrix, so that LiteRT sees it grow (see `iterate`).
    """

    def __init__(self, element: tf.TensorSpec, steps: Size | None) -> None:
        del steps
        self._sizes = element.shape.as_list()
        self.store = [tf.zeros([1, 0], element.dtype), tf.zeros([len(self._sizes)], tf.int32)]
        self.shape = [tf.TensorShape([1, None]), tf.TensorShape([len(self._sizes)])]

    def add(self, store: Any, i: Any, value: Any) -> Any:
        del i
        return [tf.concat([store[0], tf.reshape(value, [1, -1])], 1), tf.shape(value)]

    def stacked(self, store: Any, count: Size) -> Any:
        row, shape = store
        inner = [shape[axis] if size is None else size for axis, size in enumerate(self._sizes)]
        return sizes.reshape(row, [count, *inner])
