"""What a lowering may know of the node it lowers and of the target it lowers for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from modelpack.errors import UnsupportedOpsError
from modelpack.lowering.value import Array, Value, Weights


class Target(Enum):
    """What will run the TensorFlow graph."""

    SAVEDMODEL = "savedmodel"
    TFLITE = "tflite"
    """LiteRT with its built-in ops only."""
    TFLITE_SELECT = "tflite with TensorFlow ops"
    """LiteRT with the Flex delegate, which brings TensorFlow's own kernels."""


@dataclass(frozen=True, slots=True)
class Context:
    """The node being lowered.

    Attributes:
        target: what will run the result.
        op: ``domain::OpType`` or ``OpType``, for messages.
        node: the node's name, or its first output's.
        opset: opset of the node's domain.
        outputs: names of the node's outputs; empty for one that nothing reads.
        weights: makes tensors of constants.
        run: lowers a subgraph of the node: takes the ``GraphProto`` and the values of its
            inputs, returns those of its outputs. Outer names are visible in it.
    """

    target: Target
    op: str
    node: str
    opset: int
    outputs: tuple[str, ...]
    weights: Weights
    run: Callable[[Any, Sequence[Any]], list[Any]]

    @property
    def builtin_only(self) -> bool:
        """Whether every op must have a TFLite built-in form."""
        return self.target is Target.TFLITE

    def constant(self, array: Array) -> Value:
        """A constant value; large ones become variables when a tensor of them is needed."""
        return Value(const=array, weights=self.weights)

    def refuse(self, reason: str) -> UnsupportedOpsError:
        """An error to raise: this node cannot be lowered for this target, and why."""
        return UnsupportedOpsError(f"{self.op} (node '{self.node}'): {reason}")
