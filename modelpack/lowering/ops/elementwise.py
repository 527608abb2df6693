"""Arithmetic, comparison and logic, element by element with broadcasting."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelpack.lowering.layout import elementwise
from modelpack.lowering.registry import lowers


@lowers("Add", 7, 13, 14)
@elementwise
def add(a: Any, b: Any) -> Any:
    return tf.add(a, b)
