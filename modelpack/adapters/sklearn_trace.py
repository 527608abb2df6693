"""scikit-learn models from the inside: what every step answers, and the layers of networks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.neural_network._base import ACTIVATIONS

from modelpack.adapters.sklearn import answer
from modelpack.adapters.sklearn_loading import load, walk
from modelpack.artifact import ModelRef
from modelpack.bisection.traces import INPUT, Probe, TraceWriter
from modelpack.samples import Array, read_cases

_METHODS = ("transform", "decision_function", "predict_proba", "predict")


def trace(ref: ModelRef, cases: str, target: str) -> list[Probe]:
    """Call the estimator on the first case and write what its steps answer, as they do.

    Of a multi-layer perceptron every layer is written: its product with the weights, that
    with the biases, and that with the activation.

    Raises:
        InputError: the feed does not fit the model.
    """
    assert ref.signature is not None
    feed = read_cases(Path(cases), ref.signature.inputs)[0]
    with TraceWriter(Path(target)) as writer:
        for name, array in feed.items():
            writer.add(Probe(name, INPUT), array)
        recorder = _Recorder(writer)
        with contextlib.ExitStack() as stack:
            for path, estimator in walk(load(ref)):
                stack.enter_context(recorder.methods(path, estimator))
            answer(ref, ref.signature, feed)
    return writer.probes


class _Recorder:
    def __init__(self, writer: TraceWriter) -> None:
        self._writer = writer

    def _add(self, name: str, op: str, node: str, value: Any) -> None:
        dense = value.toarray() if sparse.issparse(value) else np.asarray(value)
        self._writer.add(Probe(self._writer.free_name(name), op, node), dense)

    @contextlib.contextmanager
    def methods(self, path: str, estimator: Any) -> Iterator[None]:
        """Record what an estimator's methods answer while others call them."""
        wrapped = [name for name in _METHODS if hasattr(estimator, name)]
        for name in wrapped:
            setattr(estimator, name, self._recorded(path, estimator, getattr(estimator, name)))
        try:
            yield
        finally:
            for name in wrapped:
                delattr(estimator, name)

    def _recorded(
        self, path: str, estimator: Any, method: Callable[..., Any]
    ) -> Callable[..., Any]:
        kind = type(estimator).__name__

        @wraps(method)
        def call(data: Any, *args: Any, **kwargs: Any) -> Any:
            if hasattr(estimator, "coefs_") and hasattr(estimator, "out_activation_"):
                for name, value in _layers(estimator, np.asarray(data, np.float64)):
                    self._add(f"{path}/{name}", kind, path, value)
            value = method(data, *args, **kwargs)
            if not isinstance(value, list):  # of one array for each output
                self._add(f"{path}.{method.__name__}", kind, path, value)
            return value

        return call


def _layers(network: Any, values: Array) -> Iterator[tuple[str, Array]]:
    """What the layers of a multi-layer perceptron answer."""
    last = len(network.coefs_) - 1
    for number, (weights, biases) in enumerate(
        zip(network.coefs_, network.intercepts_, strict=True)
    ):
        values = values @ weights
        yield f"layer {number} product", values
        values = values + biases
        yield f"layer {number} sum", values
        values = values.copy()
        ACTIVATIONS[network.out_activation_ if number == last else network.activation](values)
        yield f"layer {number}", values
