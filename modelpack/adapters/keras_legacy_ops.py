"""What Keras 2 had and Keras 3 has not, or has otherwise: functions and layers of its models."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from modelpack.adapters.keras_legacy import PACKAGE, TENSOR
from modelpack.errors import ConversionError

# Python's operators on tensors, as Keras 2 names them.
_OPERATORS = {
    "add": tf.add,
    "radd": lambda x, y: tf.add(y, x),
    "ne": tf.not_equal,
    "eq": tf.equal,
    "getitem": lambda x, slice_spec: x[_slices(slice_spec)],
}


@keras.saving.register_keras_serializable(PACKAGE)  # type: ignore[untyped-decorator]
def hard_sigmoid(x: Any) -> Any:
    """Keras 2's: a slope of 1 / 5, where Keras 3 has 1 / 6."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


@keras.saving.register_keras_serializable(PACKAGE)
class TFOpLambda(keras.layers.Layer):  # type: ignore[misc]
    """A function of TensorFlow that was applied to symbolic tensors.

    Args:
        function: its name below ``tf``.
        arguments: ``args`` and ``kwargs`` of it, where ``{TENSOR: n}`` stands for a tensor.
        options: of any layer.

    Raises:
        ConversionError: there is no function of that name.
    """

    def __init__(self, function: str, arguments: dict[str, Any], **options: Any) -> None:
        super().__init__(**options, autocast=False)
        self.function = function
        self.arguments = arguments
        self._call = _named(function)

    def call(self, tensors: list[Any]) -> Any:
        """Apply the function."""
        args = _filled(self.arguments["args"], tensors)
        kwargs = _filled(self.arguments["kwargs"], tensors)
        kwargs.pop("name", None)
        return self._call(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """As it was made."""
        return {**super().get_config(), "function": self.function, "arguments": self.arguments}


@keras.saving.register_keras_serializable(PACKAGE)
class SlicingOpLambda(TFOpLambda):
    """Indexing of a symbolic tensor."""


def _filled(item: Any, tensors: list[Any]) -> Any:
    if isinstance(item, list | tuple):
        return [_filled(inner, tensors) for inner in item]
    if not isinstance(item, dict):
        return item
    if TENSOR in item:
        return tensors[item[TENSOR]]
    return {key: _filled(inner, tensors) for key, inner in item.items()}


@keras.saving.register_keras_serializable(PACKAGE)
class ThresholdedReLU(keras.layers.Layer):  # type: ignore[misc]
    """What is above a threshold, and 0 elsewhere.

    Args:
        theta: the threshold.
        options: of any layer.
    """

    def __init__(self, theta: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.theta = theta

    def call(self, inputs: Any) -> Any:
        """Apply it."""
        return inputs * keras.ops.cast(inputs > self.theta, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """As it was made."""
        return {**super().get_config(), "theta": self.theta}


def _named(function: str) -> Any:
    name = function.removeprefix("compat.v1.")
    module, _, last = name.rpartition(".")
    if module == "__operators__":
        found: Any = _OPERATORS.get(last)
    else:
        found = tf
        for part in function.split("."):
            found = getattr(found, part, None)
    if found is None:
        raise ConversionError(f"TensorFlow has no function '{function}' any more")
    return found


def _slices(spec: Any) -> Any:
    if isinstance(spec, dict):
        if spec.get("class_name") == "__ellipsis__":
            return Ellipsis
        return slice(spec["start"], spec["stop"], spec["step"])
    if isinstance(spec, list | tuple):
        return tuple(_slices(item) for item in spec)
    return spec
