"""What becomes of the sums of a booster's trees, as ONNX nodes and as NumPy computes it."""

from __future__ import annotations

from collections.abc import Callable

from modelpack.adapters.sklearn_converters.writer import Writer


def _log1p_exp(writer: Writer, sums: str) -> str:
    return writer.op("Softplus", sums)


def _signed_square(writer: Writer, sums: str) -> str:
    return writer.op("Mul", sums, writer.op("Abs", sums))


def _step(writer: Writer, sums: str) -> str:
    above = writer.op("Greater", sums, writer.constant(0, "float32"))
    return writer.cast(above, "float32")


TRANSFORMS: dict[str, Callable[[Writer, str], str]] = {
    "identity": lambda writer, sums: sums,
    "sigmoid": lambda writer, sums: writer.op("Sigmoid", sums),
    "softmax": lambda writer, sums: writer.op("Softmax", sums, axis=1),
    "exp": lambda writer, sums: writer.op("Exp", sums),
    "log1p_exp": _log1p_exp,
    "signed_square": _signed_square,
    "step": _step,
}
"""By name: from sums, float32 ``[rows, targets]``, to answers of the same shape."""


def both_classes(writer: Writer, second: str) -> str:
    """Probabilities of two classes, ``[rows, 2]``, of that of the second, ``[rows, 1]``."""
    first = writer.op("Sub", writer.constant(1, "float32"), second)
    return writer.joined([first, second])


def second_class(writer: Writer, second: str) -> str:
    """Index of the likelier of two classes, ``[rows]``: the second above one half."""
    above = writer.op("Greater", second, writer.constant(0.5, "float32"))
    return writer.flat(writer.cast(above, "int64"))
