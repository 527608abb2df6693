"""Finding many values among many constants, without comparing each with each."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering.value import Array


def searched(keys: Array, values: Any) -> Any:
    """1 + the place of each value in an array of distinct keys; 0 if it is not there, int64.

    Built-in ops of TFLite have no form for it.

    Args:
        keys: int64, or strings as objects.
        values: a tensor of the same kind.
    """
    sorted_by, wanted = keys, values
    if keys.dtype.kind == "O":
        # A text is looked for by its hash, and then compared.
        with tf.init_scope():
            sorted_by = _hashed(tf.constant(list(keys), tf.string)).numpy()
        if len(np.unique(sorted_by)) < len(keys):
            return _compared(keys, values)
        wanted = _hashed(values)
    order = np.argsort(sorted_by)
    place = tf.searchsorted(tf.constant(sorted_by[order]), tf.reshape(wanted, [-1]))
    place = tf.minimum(place, len(keys) - 1)
    kind = tf.string if keys.dtype.kind == "O" else tf.int64
    found = tf.gather(tf.constant(list(keys[order]), kind), place)
    number = tf.gather(tf.constant(order + 1, tf.int64), place)
    number = tf.where(tf.equal(found, tf.reshape(values, [-1])), number, tf.zeros_like(number))
    return tf.reshape(number, tf.shape(values))


def _hashed(texts: Any) -> Any:
    return tf.strings.to_hash_bucket_fast(texts, 2**63 - 1)


def _compared(keys: Array, values: Any) -> Any:
    same = tf.equal(tf.expand_dims(values, -1), tf.constant(list(keys), tf.string))
    return tf.reduce_sum(tf.cast(same, tf.int64) * np.arange(1, len(keys) + 1), -1)
