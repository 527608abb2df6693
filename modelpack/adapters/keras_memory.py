"""Runs functional Keras models without the memory of answers that no layer reads any more."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def answers_forgotten() -> Iterator[None]:
    """Let go of what each layer answers after the last layer that reads it, for a while.

    Keras keeps all of them until the model has answered: 0.7 GB for one image in EfficientNetB4.
    """
    from keras.src.ops.function import Function

    original = Function._run_through_graph

    def run(
        function: Any, inputs: Any, operation_fn: Callable[[Any], Any] = _same, call_fn: Any = None
    ) -> Any:
        if call_fn is not None:  # of shapes alone
            return original(function, inputs, operation_fn, call_fn)
        return _run(function, inputs, operation_fn)

    Function._run_through_graph = run
    try:
        yield
    finally:
        Function._run_through_graph = original


def _same(operation: Any) -> Any:
    return operation


def _run(function: Any, inputs: Any, operation_fn: Callable[[Any], Any]) -> Any:
    from keras import tree

    depths = sorted(function._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in function._nodes_by_depth[depth]]
    nodes = [node for node in nodes if not node.is_input]
    readers = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    readers.update(id(tensor) for tensor in function.outputs)
    given = zip(function.inputs, tree.flatten(inputs), strict=True)
    known = {id(tensor): value for tensor, value in given}
    for node in nodes:
        if any(id(tensor) not in known for tensor in node.input_tensors):
            continue  # of another model: Keras passes it over too
        _call(node, known, operation_fn)
        for tensor in node.input_tensors:
            readers[id(tensor)] -= 1
            if not readers[id(tensor)]:
                del known[id(tensor)]
    outputs = [known[id(tensor)] for tensor in function.outputs]
    return tree.pack_sequence_as(function._outputs_struct, outputs)


def _call(node: Any, known: dict[int, Any], operation_fn: Callable[[Any], Any]) -> None:
    """Call a layer on known values; add its own. What it was called with is let go of here."""
    from keras import tree

    arguments, options = node.arguments.fill_in(known)
    answer = operation_fn(node.operation)(*arguments, **options)
    # A layer may answer with more than it told of: Keras takes the first.
    known.update(zip(map(id, node.outputs), tree.flatten(answer), strict=False))
