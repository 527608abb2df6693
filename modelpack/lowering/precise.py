"""Functions for which TFLite has no kernel, made of those it has without losing precision."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def log1p(x: Any) -> Any:
    """``log(1 + x)``, precise for small x too.

    Near 0 as ``2 * atanh(x / (2 + x))``, by the series of atanh. Correcting ``log(1 + x)`` for
    the rounding of 1 + x would not do: TFLite's kernel of log is itself off by 1e-7 near 1.
    """
    s = x / (2 + x)
    square = s * s
    near = 2 * s * (1 + square * (1 / 3 + square * (1 / 5 + square / 7)))
    return tf.where(tf.abs(x) < 0.25, near, tf.math.log(1 + x))
