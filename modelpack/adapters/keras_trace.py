"""Keras models from the inside: what every layer and operation answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from modelpack.adapters.keras_calling import answer, layers_of
from modelpack.adapters.keras_loading import loaded_from
from modelpack.artifact import ModelRef
from modelpack.bisection.traces import INPUT, Probe, TraceWriter
from modelpack.samples import read_cases

# A recurrent layer calls its cell at every step; nothing is told apart beyond this.
_MOST = 4096


def trace(ref: ModelRef, cases: str, target: str) -> list[Probe]:
    """Call the model on the first case and write what its layers answer, as they do.

    A layer that applies an activation gives two tensors: without and with it.
    """
    assert ref.signature is not None
    loaded = loaded_from(ref)
    feed = read_cases(Path(cases), ref.signature.inputs)[0]
    with TraceWriter(Path(target)) as writer:
        for name, array in feed.items():
            writer.add(Probe(name, INPUT), array)
        recorder = _Recorder(writer)
        with recorder.calls(), recorder.activations(layers_of(loaded.model)):
            answer(loaded, ref.signature, feed)
    return writer.probes


class _Recorder:
    def __init__(self, writer: TraceWriter) -> None:
        self._writer = writer

    def _add(self, name: str, op: str, node: str, value: Any) -> None:
        import keras

        for tensor in keras.tree.flatten(value):
            # Within a compiled function there are no values.
            if hasattr(tensor, "numpy") and len(self._writer.probes) < _MOST:
                probe = Probe(self._writer.free_name(name), op, node)
                self._writer.add(probe, tensor.numpy())

    @contextlib.contextmanager
    def calls(self) -> Iterator[None]:
        """Record what every layer and operation returns, the inner ones first."""
        from keras.src.ops.operation import Operation

        original = Operation.__call__

        @wraps(original)
        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            value = original(operation, *args, **kwargs)
            path = getattr(operation, "path", None) or operation.name  # of operations: None
            self._add(operation.name, type(operation).__name__, path, value)
            return value

        Operation.__call__ = call
        try:
            yield
        finally:
            Operation.__call__ = original

    @contextlib.contextmanager
    def activations(self, layers: Iterator[Any]) -> Iterator[None]:
        """Record what layers apply their activation to."""
        with contextlib.ExitStack() as stack:
            for layer in layers:
                own = getattr(layer, "activation", None)
                if callable(own) and not hasattr(layer, "recurrent_activation"):
                    layer.activation = self._before(layer, own)
                    stack.callback(setattr, layer, "activation", own)
            yield

    def _before(self, layer: Any, activation: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(activation)
        def apply(value: Any, *args: Any, **kwargs: Any) -> Any:
            self._add(f"{layer.name}/before activation", type(layer).__name__, layer.path, value)
            return activation(value, *args, **kwargs)

        return apply
