"""Sliding windows of convolutions and pools: how many there are, and what is padded for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.value import Size, Value


@dataclass(frozen=True, slots=True)
class Window:
    """A window and how it moves, one entry per spatial axis.

    Attributes:
        kernel: elements of the window along each axis.
        strides: steps between windows.
        dilations: steps between elements of a window.
        pads: explicit padding, (begin, end) for each axis.
        auto_pad: ONNX's attribute; ``pads`` counts for ``NOTSET`` only.
        ceil: whether a last window that reaches beyond the padding counts.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    auto_pad: str = "NOTSET"
    ceil: bool = False

    @classmethod
    def of(
        cls,
        kernel: Sequence[int],
        strides: Sequence[int] | None,
        pads: Sequence[int] | None,
        auto_pad: str,
        dilations: Sequence[int] | None = None,
        ceil_mode: int = 0,
    ) -> Window:
        """A window from attributes as ONNX has them; None for the defaults."""
        ones = (1,) * len(kernel)
        flat = list(pads or [0] * 2 * len(kernel))
        sides = tuple(zip(flat[: len(kernel)], flat[len(kernel) :], strict=True))
        return cls(
            tuple(kernel),
            tuple(strides or ones),
            tuple(dilations or ones),
            ((0, 0),) * len(kernel) if auto_pad == "VALID" else sides,
            auto_pad,
            bool(ceil_mode),
        )

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def extents(self) -> tuple[int, ...]:
        """What a window spans along each axis, dilation included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def is_dilated(self) -> bool:
        return any(d > 1 and k > 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def along(self, axes: Sequence[int | None]) -> Window:
        """The window along some axes of this one; None is an axis that it leaves alone."""

        def chosen(items: tuple[Any, ...], neutral: Any) -> tuple[Any, ...]:
            return tuple(neutral if axis is None else items[axis] for axis in axes)

        return replace(
            self,
            kernel=chosen(self.kernel, 1),
            strides=chosen(self.strides, 1),
            dilations=chosen(self.dilations, 1),
            pads=chosen(self.pads, (0, 0)),
        )

    def spans(self, shape: Sequence[Size]) -> list[Span]:
        """Where the windows lie on an input of these spatial sizes."""
        return [
            Span.of(size, extent, stride, pads, self.auto_pad, self.ceil)
            for size, extent, stride, pads in zip(
                shape, self.extents, self.strides, self.pads, strict=True
            )
        ]


@dataclass(frozen=True, slots=True)
class Span:
    """Where the windows lie along one axis.

    Attributes:
        size: of the input.
        begin: padding before it.
        end: padding after it, as far as a window reaches.
        count: number of windows.
        padded: the size that ONNX regards as padded input, which ``ceil`` goes beyond.
        is_same: whether this is what TensorFlow's "SAME" means, whatever the size.
    """

    size: Size
    begin: Size
    end: Size
    count: Size
    padded: Size
    is_same: bool

    @classmethod
    def of(
        cls, size: Size, extent: int, stride: int, pads: tuple[int, int], auto_pad: str, ceil: bool
    ) -> Span:
        if auto_pad.startswith("SAME"):
            return cls._same(size, extent, stride, auto_pad == "SAME_UPPER")
        begin, end = pads
        count = (size + begin + end - extent) // stride + 1
        if ceil:
            count = -(-(size + begin + end - extent) // stride) + 1
            # The last window has to start on the input or on the padding before it.
            count = _smaller(count, -(-(size + begin) // stride))
        if isinstance(size, int):
            reach = (count - 1) * stride + extent
            is_same = count == -(-size // stride) and begin == max(reach - size, 0) // 2
            return cls(
                size, begin, max(reach - size - begin, 0), count, size + begin + end, is_same
            )
        is_same = stride == 1 and (begin, end) == ((extent - 1) // 2, extent // 2)
        if ceil:
            end = larger((count - 1) * stride + extent - size - begin, 0)
        return cls(size, begin, end, count, size + begin + pads[1], is_same)

    @classmethod
    def _same(cls, size: Size, extent: int, stride: int, upper: bool) -> Span:
        """As many windows as strides fit, centred; ``upper`` puts an odd one at the end."""
        count = -(-size // stride)
        total = larger((count - 1) * stride + extent - size, 0)
        begin = total // 2 if upper else total - total // 2
        known = isinstance(size, int)
        is_same = upper or (total % 2 == 0 if known else stride == 1 and extent % 2 == 1)
        return cls(size, begin, total - begin, count, size + total, is_same)

    @property
    def is_valid(self) -> bool:
        """Whether nothing is padded, whatever the size."""
        return all(isinstance(side, int) and side == 0 for side in (self.begin, self.end))


def arranged(tensor: Any, spans: Sequence[Span], fill: float = 0.0) -> tuple[Any, str]:
    """Prepare a channel-last tensor for a kernel of TensorFlow's.

    Returns:
        the tensor, padded if need be, and the padding that the kernel is to do.
    """
    if all(span.is_valid for span in spans):
        return tensor, "VALID"
    if all(span.is_same for span in spans):
        return tensor, "SAME"
    return padded(tensor, spans, fill), "VALID"


def padded(tensor: Any, spans: Sequence[Span], fill: float = 0.0) -> Any:
    """A channel-last tensor with all the padding that its windows reach."""
    if all(span.is_valid for span in spans):
        return tensor
    sides = [[0, 0], *([span.begin, span.end] for span in spans), [0, 0]]
    result = tf.pad(tensor, sides, constant_values=fill)
    channels = tensor.shape[-1]
    if channels is not None and any(not isinstance(size, int) for side in sides for size in side):
        # Converters know no size of what is padded by computed amounts; kernels want this one.
        result = sizes.reshape(result, [*Value(result).dims()[:-1], channels])
    return result


def larger(a: Size, b: Size) -> Size:
    """The larger of two sizes, an int if both are."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tf.maximum(a, b)


def _smaller(a: Size, b: Size) -> Size:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tf.minimum(a, b)


def slid(tensor: Any, axis: int, window: Window, count: Size) -> list[Any]:
    """For every element of a window along a spatial axis, that element of all windows."""
    stride, dilation = window.strides[axis], window.dilations[axis]
    before = (slice(None),) * (axis + 1)
    starts = [i * dilation for i in range(window.kernel[axis])]
    return [
        tensor[(*before, slice(start, start + (count - 1) * stride + 1, stride))]
        for start in starts
    ]
