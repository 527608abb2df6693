"""Filters of convolutions that are to be constants of a saved graph.

oneDNN's kernels arrange a filter for the processor once if the graph has it as a constant,
and at every call otherwise, which is a third of the time of a ResNet. But TensorFlow holds
about ten copies of a constant by the time it has traced and saved it. So what is traced has
stand-ins, which take no memory; whoever saves the graph puts the filters into the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

STAND_IN = "_filter"
"""The attribute of a stand-in's node: the number of the filter that belongs there."""


class Filters:
    """The filters that stand-ins were made for.

    Args:
        room: bytes of filters in all; what comes when it is used up gets no stand-in.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._reads: list[Callable[[], npt.NDArray[Any]]] = []

    def add(
        self, shape: tuple[int, ...], dtype: Any, read: Callable[[], npt.NDArray[Any]]
    ) -> int | None:
        """Take a filter up and return its number; None if there is no room for it.

        Args:
            shape: in the order of axes that the kernel wants.
            dtype: a ``tf.DType``.
            read: returns the array of this shape and dtype.
        """
        size = math.prod(shape) * dtype.size
        if size > self._room:
            return None
        self._room -= size
        self._reads.append(read)
        return len(self._reads) - 1

    def stand_in(self, number: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """A constant of NaN that takes the place of a filter in the graph being traced."""
        tensor = tf.constant(math.nan, dtype, shape)
        tensor.op._set_attr(STAND_IN, attr_value_pb2.AttrValue(i=number))
        return tensor

    def __len__(self) -> int:
        return len(self._reads)

    def __getitem__(self, number: int) -> npt.NDArray[Any]:
        """The array of a filter. It is read anew each time."""
        return np.ascontiguousarray(self._reads[number]())
