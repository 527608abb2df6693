"""Functions for which TFLite has no kernel, made of those it has without losing precision."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def log1p(x: Any) -> Any:
    """``log(1 + x)``, precise for small x too: the rounding error of 1 + x cancels.

    W. Kahan's formula: D. Goldberg, "What every computer scientist should know about
    floating-point arithmetic", theorem 4.
    """
    rounded = 1 + x
    logarithm = tf.math.log(rounded)
    # Of large numbers, infinity among them, the quotient is 1 or unknown.
    corrected = tf.where(rounded > 1e8, logarithm, logarithm * (x / (rounded - 1)))
    return tf.where(tf.equal(rounded, 1.0), x, corrected)
