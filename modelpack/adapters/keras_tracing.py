"""Keeps Keras from tracing layers in a form that converters or runtimes refuse."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
    """Trace every layer in a form that can be converted, for a while."""
    with plain_convolution(), folded_time(), no_dropout_masks():
        yield


@contextlib.contextmanager
def no_dropout_masks() -> Iterator[None]:
    """Trace recurrent layers without the masks of their dropout, which inference does not read.

    Keras makes them all the same before the loop, and counts on the state of a random generator.
    A layer called with ``training=True`` makes its own as it needs them.
    """
    from keras.layers import RNN

    original = RNN._maybe_config_dropout_masks
    RNN._maybe_config_dropout_masks = lambda *_: None
    try:
        yield
    finally:
        RNN._maybe_config_dropout_masks = original


@contextlib.contextmanager
def folded_time() -> Iterator[None]:
    """Trace `TimeDistributed` over a dynamic number of steps as one call with all of them.

    Keras maps the layer over the steps; TensorFlow vectorizes that into a graph that cannot
    always be run, let alone converted. At inference the rows of a batch do not depend on each
    other, so steps may be rows.
    """
    from keras.layers import TimeDistributed

    original = TimeDistributed.call

    def call(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if inputs.shape[1] is not None:
            return original(layer, inputs, training=training, mask=mask)
        return _call_on_steps(layer.layer, inputs, training, mask)

    TimeDistributed.call = call
    try:
        yield
    finally:
        TimeDistributed.call = original


def _call_on_steps(layer: Any, inputs: Any, training: Any, mask: Any) -> Any:
    """Call a layer on (batch, time, ...) as if that were (batch * time, ...)."""
    from keras import ops

    def folded(tensor: Any) -> Any:
        return ops.reshape(tensor, (-1, *ops.shape(tensor)[2:]))

    options = {}
    if layer._call_has_mask_arg and mask is not None:
        options["mask"] = folded(mask)
    if layer._call_has_training_arg:
        options["training"] = training
    result = layer.call(folded(inputs), **options)
    return ops.reshape(result, (-1, ops.shape(inputs)[1], *ops.shape(result)[1:]))


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
