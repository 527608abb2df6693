"""Values: the tensors of an ONNX graph while it is lowered, with all that is known of them.

A value is a constant or a TensorFlow tensor. A constant stays a numpy array until an op
needs a tensor of it, so that shapes, axes and bounds computed from constants are constants
themselves. A tensor may be held in another order of axes than the graph has it
(`Value.perm`): after a convolution it is channel-last, and stays so until an op really
needs ONNX's order. A small integer tensor of which some elements are known (a shape with a
dynamic batch) carries those (`Value.known`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from modelpack.errors import ConversionError
from modelpack.lowering.filters import Filters
from modelpack.lowering.transposing import transposed

Array: TypeAlias = npt.NDArray[Any]
Perm: TypeAlias = tuple[int, ...]
Size: TypeAlias = Any
"""A dimension: an ``int`` when known, else a scalar int32 tensor."""

# Elements up to which partial knowledge of an integer tensor is kept: shapes are shorter.
KNOWN_LIMIT = 64


class Value:
    """A tensor of the graph. *Logical* means the order of axes that the ONNX graph means.

    Args:
        tensor: what holds the value, unless it is a constant.
        perm: the logical tensor is ``transpose(tensor, perm)``; None for the identity.
        const: the constant, or a function that reads it when it is first needed.
        known: float64 array of the value's shape with NaN for unknown elements, for an
            integer tensor of at most 64 elements.
        weights: makes tensors of constants.
    """

    def __init__(
        self,
        tensor: Any = None,
        *,
        perm: Perm | None = None,
        const: Array | Callable[[], Array] | None = None,
        known: Array | None = None,
        weights: Weights | None = None,
    ) -> None:
        if perm is not None and perm == tuple(range(len(perm))):
            perm = None
        self.held = tensor
        self.perm = perm
        self._const = const
        self._read: Callable[[], Array] | None = const if callable(const) else None
        self._known = known
        self._weights = weights
        # By graph and order: a tensor belongs to the graph (of a loop's body, say) that made it.
        self._cache: dict[Any, Any] = {}
        self._variables: dict[Perm | None, Any] = {}
        self._spec: Any = None
        self._stored = False
        # Numbers of filters by order of axes; None for one that is no constant of the graph.
        self._filters: dict[Perm, int | None] = {}

    def __repr__(self) -> str:
        kind = "const" if self.is_const else "tensor"
        return f"<{kind} {self.dtype.name}{list(self.shape)} perm={self.perm}>"

    # --- what is known ---------------------------------------------------------------

    @property
    def is_const(self) -> bool:
        """Whether the value is a constant. Does not read it."""
        return self._const is not None

    @property
    def const(self) -> Array | None:
        """The constant in logical order, or None."""
        if callable(self._const):
            self._const = self._const()
        return self._const

    def _meta(self) -> Any:
        """Shape and dtype of the constant, which outlive its array."""
        if self._spec is None:
            const = self.const
            assert const is not None
            is_text = const.dtype.kind in "OUS"
            self._spec = tf.TensorSpec(const.shape, tf.string if is_text else const.dtype)
        return self._spec

    @property
    def known(self) -> Array | None:
        """Known elements as float64, NaN for unknown ones; None if nothing is known."""
        if not self.is_const:
            return self._known
        # float64 holds every size and index below 2**53.
        exact = self.dtype.is_integer or self.dtype.is_bool
        if not exact or math.prod(self._meta().shape) > KNOWN_LIMIT:
            return None
        const = self.const
        assert const is not None
        return const.astype(np.float64)

    @property
    def dtype(self) -> Any:
        """The ``tf.DType``."""
        return self._meta().dtype if self.held is None else self.held.dtype

    @property
    def rank(self) -> int:
        """Number of axes.

        Raises:
            ConversionError: it is not known.
        """
        return len(self.shape)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Logical sizes; None for dynamic ones.

        Raises:
            ConversionError: not even the rank is known.
        """
        if self.held is None:
            return tuple(self._meta().shape)
        if self.held.shape.rank is None:
            raise ConversionError("the rank of a tensor is not known, which lowering needs")
        sizes = self.held.shape.as_list()
        return tuple(sizes[axis] for axis in self.perm or range(len(sizes)))

    # --- tensors -----------------------------------------------------------------------

    @property
    def tensor(self) -> Any:
        """The value as a tensor in logical order. A large constant is read from a variable."""
        return self.physical(None)

    def physical(self, perm: Perm | None) -> Any:
        """The tensor ``t`` for which the logical tensor is ``transpose(t, perm)``."""
        if perm is not None and perm == tuple(range(len(perm))):
            perm = None
        if not self.is_const and perm == self.perm:
            return self.held
        key = (None if tf.executing_eagerly() else tf.compat.v1.get_default_graph(), perm)
        if key not in self._cache:
            self._cache[key] = self._make(perm)
        return self._cache[key]

    def _make(self, perm: Perm | None) -> Any:
        if self.is_const:
            return self._constant_tensor(perm)
        identity = tuple(range(self.rank))
        logical_of_held = self.perm or identity
        wanted = np.argsort(perm) if perm is not None else identity
        order = [logical_of_held[axis] for axis in wanted]
        return transposed(self.held, order)

    def _constant_tensor(self, perm: Perm | None) -> Any:
        if perm in self._variables and not tf.executing_eagerly():
            return self._variables[perm].read_value()
        const = self.const
        assert const is not None
        self._meta()
        array = const if perm is None else const.transpose(np.argsort(perm))
        if self._weights is None or not self._weights.keeps(array, self._stored):
            return tf.constant(array, self.dtype)
        self._variables[perm] = self._weights.variable(array)
        self._forget()
        return self._variables[perm].read_value()

    def transposed(self, order: Sequence[int]) -> Any:
        """``transpose(logical, order)`` as a tensor; for a constant without any op at run time."""
        return self.physical(tuple(int(axis) for axis in np.argsort(order)))

    def stored(self) -> Value:
        """The same value; as a constant, its tensors are read from variables even if it is small.

        TensorFlow moves constants into the ops around them, and then does not know the groups
        of ops any more that it has one kernel for.
        """
        if not self._stored:
            self._stored = True
            self._cache.clear()
        return self

    def filter(self, order: Sequence[int]) -> Any:
        """As `transposed`, for a convolution's filter: it may become a constant of the graph."""
        filters = None if self._weights is None else self._weights.filters
        large = self.is_const and self.dtype.is_floating and self._bytes() >= Weights.SMALLEST
        if filters is None or not large or tf.executing_eagerly():
            return self.transposed(order)
        order = tuple(int(axis) for axis in order)
        shape = tuple(self._meta().shape[axis] for axis in order)
        if order not in self._filters:
            self._filters[order] = filters.add(shape, self.dtype, partial(self._filter, order))
            self._forget()
        number = self._filters[order]
        if number is None:
            return self.transposed(order)
        key = (tf.compat.v1.get_default_graph(), number)
        if key not in self._cache:
            self._cache[key] = filters.stand_in(number, shape, self.dtype)
        return self._cache[key]

    def _filter(self, order: Perm) -> Array:
        const = self.const
        assert const is not None
        self._forget()
        return const.transpose(order)

    def _bytes(self) -> int:
        return math.prod(self._meta().shape) * int(self.dtype.size)

    def _forget(self) -> None:
        """Drop a constant that is not needed for now; whoever asks for it reads it again."""
        if self._read is not None:
            self._const = self._read

    def mapped(self, function: Callable[[Any], Any]) -> Value:
        """The value of a function of the logical tensor; of a constant, at once a constant."""
        if not self.is_const:
            return Value(function(self.tensor), weights=self._weights)
        with tf.init_scope():
            return Value(const=function(tf.constant(self.const)).numpy(), weights=self._weights)

    def axis(self, axis: int) -> int:
        """The axis of ``held`` that is logical ``axis``, which may be negative."""
        axis = axis % self.rank if self.rank else 0
        return axis if self.perm is None else self.perm[axis]

    def like(self, tensor: Any) -> Value:
        """Wrap a tensor whose axes are in the order of ``held``."""
        return Value(tensor, perm=self.perm, weights=self._weights)

    def knowing(self, elements: Array) -> Value:
        """The value, with its known elements: float64, NaN for unknown ones."""
        return Value(self.held, perm=self.perm, known=elements, weights=self._weights)

    def constant_of(self, array: Array) -> Value:
        """A constant whose tensors are made as this value's are."""
        return Value(const=array, weights=self._weights)

    # --- sizes -------------------------------------------------------------------------

    def sizes(self) -> list[Size]:
        """The elements of a 1-D integer tensor (a shape, axes): ints where known.

        Raises:
            ConversionError: the number of elements is not known.
        """
        known = self.known
        if known is None:
            count = self.shape[0] if self.rank else 1
            if count is None:
                raise ConversionError("the length of a shape is not known, so its rank is not")
            known = np.full(count, np.nan)
        flat = known.reshape(-1)
        if not np.isnan(flat).any():
            return [int(size) for size in flat]
        tensor = tf.cast(self.tensor, tf.int32)
        tensor = tf.reshape(tensor, [-1]) if self.rank == 0 else tensor
        return [tensor[i] if math.isnan(size) else int(size) for i, size in enumerate(flat)]

    def dims(self) -> list[Size]:
        """The logical shape: ints where static, scalar int32 tensors where dynamic."""
        shape = self.shape
        if None not in shape:
            return list(shape)
        source = tf.shape(self.held)
        return [
            source[self.axis(axis)] if size is None else size for axis, size in enumerate(shape)
        ]


class Weights:
    """Makes variables of large constants.

    Variables are neither limited to the 2 GB of a graph nor copied when it is.

    Args:
        filters: takes filters of convolutions up, which become constants of the graph.
        pool: variables by their content, which several models share; each adds its own.

    Attributes:
        variables: every variable that was made.
    """

    SMALLEST = 1024
    """Bytes below which a variable costs more than the constant."""

    def __init__(
        self, filters: Filters | None = None, pool: dict[bytes, Any] | None = None
    ) -> None:
        self.variables: list[Any] = []
        self.filters = filters
        self._pool = pool

    def keeps(self, array: Array, small: bool = False) -> bool:
        """Whether an array should be a variable: it is large, and a graph is being made.

        Args:
            array: anything but text can be one.
            small: whether small ones should be, too.
        """
        large = small or array.nbytes >= self.SMALLEST
        return large and array.dtype.kind not in "OUS" and not tf.executing_eagerly()

    def variable(self, array: Array) -> Any:
        """A variable that holds an array."""
        array = np.ascontiguousarray(array)
        if self._pool is None:
            variable = self._made(array, len(self.variables))
        else:
            key = _content(array)
            if key not in self._pool:
                self._pool[key] = self._made(array, len(self._pool))
            variable = self._pool[key]
        self.variables.append(variable)
        return variable

    def _made(self, array: Array, number: int) -> Any:
        # tf.Variable() may be called in the first trace of a tf.function only.
        with tf.init_scope():
            return ResourceVariable(array, trainable=False, name=f"w{number}")


def _content(array: Array) -> bytes:
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()
