"""Keeps Keras from tracing grouped convolutions in a form that converters or runtimes refuse."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def plain_convolution() -> Iterator[None]:
    """Trace grouped convolutions as the plain op, for a while.

    Keras compiles them with XLA for the sake of their gradients on CPU; no converter takes
    that. And it adds the bias by an op that TensorFlow fuses with them, into a kernel that
    knows no groups unless oneDNN is there (`UnimplementedError` when the model runs).
    """
    import tensorflow as tf
    from keras.src.backend.tensorflow import nn, numpy

    plain = _Changed(tf, function=_uncompiled)
    unfused = _Changed(tf, nn=_Changed(tf.nn, bias_add=_bias_added))
    originals = nn.tf, numpy.tf
    nn.tf, numpy.tf = plain, unfused
    try:
        yield
    finally:
        nn.tf, numpy.tf = originals


class _Changed:
    """A module with some of its attributes replaced."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _uncompiled(*args: Any, **options: Any) -> Any:
    """``tf.function`` without ``jit_compile``."""
    import tensorflow as tf

    options.pop("jit_compile", None)
    return tf.function(*args, **options)


def _bias_added(value: Any, bias: Any, data_format: str | None = None) -> Any:
    """``tf.nn.bias_add``, but a plain sum behind a grouped convolution, which is a call."""
    import tensorflow as tf

    is_call = tf.is_symbolic_tensor(value) and value.op.type.endswith("PartitionedCall")
    if is_call and data_format != "NCHW":
        return value + bias
    return tf.nn.bias_add(value, bias, data_format=data_format)
