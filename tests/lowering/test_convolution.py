"""Convolutions beyond what ONNX's backend tests cover, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from modelpack.errors import UnsupportedOpsError
from tests.lowering.nodes import check, node_model, parsed

RANDOM = np.random.default_rng(7)


def real(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "same by explicit pads": ((2, 3, 9, 8), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "stride 2, even and odd size": (
        (1, 3, 8, 9),
        (4, 3, 3, 3),
        {"pads": [1, 1, 1, 1], "strides": [2, 2]},
    ),
    "asymmetric": ((1, 2, 7, 6), (3, 2, 2, 4), {"pads": [0, 2, 1, 1], "strides": [1, 2]}),
    "upper": ((1, 2, 7, 6), (3, 2, 4, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "lower": ((1, 2, 7, 6), (3, 2, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    "valid": ((1, 2, 7, 6), (3, 2, 3, 3), {"auto_pad": "VALID", "pads": [1, 1, 1, 1]}),
    "dilated": ((1, 2, 9, 9), (3, 2, 3, 2), {"dilations": [2, 3], "pads": [2, 1, 2, 2]}),
    "dilated and strided": ((1, 2, 11, 9), (3, 2, 3, 3), {"dilations": [2, 2], "strides": [2, 3]}),
    "groups": ((2, 4, 6, 6), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ((2, 4, 6, 6), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "depthwise, two of each": ((1, 3, 6, 6), (6, 1, 3, 3), {"group": 3, "strides": [2, 2]}),
    "depthwise, strides differ": ((1, 3, 7, 6), (3, 1, 3, 3), {"group": 3, "strides": [1, 2]}),
    "depthwise, dilated": ((1, 3, 9, 9), (3, 1, 3, 3), {"group": 3, "dilations": [2, 2]}),
    "one axis": ((2, 4, 9), (6, 4, 3), {"pads": [2, 0], "strides": [2]}),
    "one axis, depthwise": ((2, 4, 9), (4, 1, 3), {"group": 4, "dilations": [2]}),
    "volume": ((1, 2, 5, 6, 5), (3, 2, 3, 2, 3), {"pads": [1, 0, 1, 1, 1, 1]}),
    "volume, dilated": ((1, 2, 7, 6, 5), (3, 2, 3, 2, 1), {"dilations": [2, 3, 1]}),
    "volume, groups": ((1, 4, 5, 5, 5), (4, 2, 2, 2, 2), {"group": 2, "strides": [2, 2, 1]}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_conv_with_a_constant_kernel_at_several_sizes(name: str) -> None:
    shape, kernel, attributes = CONVOLUTIONS[name]
    w, b = real(*kernel), real(kernel[0])
    model = node_model("Conv", [real(*shape)], constants={1: w, 2: b}, **attributes)
    larger = (shape[0] + 1, shape[1], *(size + 3 for size in shape[2:]))
    check(model, [real(*shape)], [real(*larger)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["groups", "depthwise", "one axis", "volume, dilated"])
def test_conv_with_a_kernel_at_run_time(name: str) -> None:
    shape, kernel, attributes = CONVOLUTIONS[name]
    inputs = [real(*shape), real(*kernel), real(kernel[0])]
    model = node_model("Conv", inputs, dynamic=False, **attributes)
    check(model, inputs, rtol=1e-4, atol=1e-4)


def test_conv_over_four_axes_is_refused() -> None:
    model = node_model("Conv", [real(1, 2, 3, 3, 3, 3)], constants={1: real(2, 2, 1, 1, 1, 1)})
    with pytest.raises(UnsupportedOpsError, match="4 spatial axes"):
        check(model, [real(1, 2, 3, 3, 3, 3)], rtol=0, atol=0)


TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "twice the size": ((1, 3, 5, 4), (3, 2, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "kernel of the stride": ((1, 3, 5, 4), (3, 2, 2, 2), {"strides": [2, 2]}),
    "output padding": (
        (1, 3, 5, 4),
        (3, 2, 3, 3),
        {"strides": [2, 3], "pads": [1, 0, 1, 1], "output_padding": [1, 2]},
    ),
    "asymmetric": ((1, 3, 5, 4), (3, 2, 3, 4), {"strides": [2, 1], "pads": [0, 2, 1, 0]}),
    "upper": ((1, 3, 5, 4), (3, 2, 4, 3), {"strides": [3, 2], "auto_pad": "SAME_UPPER"}),
    "lower": ((1, 3, 5, 4), (3, 2, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "dilated": ((1, 3, 5, 4), (3, 2, 3, 2), {"dilations": [2, 3], "strides": [2, 1]}),
    "groups": ((1, 4, 5, 4), (4, 3, 3, 3), {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "depthwise": ((1, 3, 5, 4), (3, 1, 4, 4), {"group": 3, "strides": [2, 2], "pads": [1] * 4}),
    "one axis": ((2, 3, 5), (3, 4, 4), {"strides": [2], "pads": [1, 1]}),
    "volume": ((1, 2, 3, 4, 3), (2, 3, 3, 2, 3), {"strides": [2, 2, 1], "pads": [1, 0, 1] * 2}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_conv_transpose_at_several_sizes(name: str) -> None:
    shape, kernel, attributes = TRANSPOSED[name]
    b = real(kernel[1] * attributes.get("group", 1))
    model = node_model(
        "ConvTranspose", [real(*shape)], constants={1: real(*kernel), 2: b}, **attributes
    )
    larger = (shape[0] + 1, shape[1], *(size + 1 for size in shape[2:]))
    check(model, [real(*shape)], [real(*larger)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER"])
@pytest.mark.parametrize("output", [[10, 9], [7, 12]])
@pytest.mark.parametrize("dynamic", [True, False])
def test_conv_transpose_to_a_given_shape(auto_pad: str, output: list[int], dynamic: bool) -> None:
    x = real(1, 3, 4, 5)
    model = node_model(
        "ConvTranspose",
        [x],
        constants={1: real(3, 2, 3, 3)},
        dynamic=dynamic,
        strides=[2, 2],
        output_shape=output,
        auto_pad=auto_pad,
    )
    check(model, [x], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("with_mask", [True, False])
def test_deform_conv(groups: tuple[int, int], with_mask: bool) -> None:
    group, offset_group = groups
    x, w, b = real(2, 4, 7, 6), real(6, 4 // group, 3, 2), real(6)
    offset = 2 * real(2, offset_group * 12, 4, 5)
    mask = real(2, offset_group * 6, 4, 5) if with_mask else None
    inputs = [x, None, offset, None, mask][: 5 if with_mask else 3]
    model = node_model(
        "DeformConv",
        inputs,
        constants={1: w, 3: b},
        opset=22,
        group=group,
        offset_group=offset_group,
        pads=[1, 0, 2, 1],
        strides=[2, 1],
        dilations=[1, 2],
    )
    feed = [array for array in inputs if array is not None]
    check(model, feed, rtol=1e-4, atol=1e-4)


def test_col2im_with_constant_shapes() -> None:
    x = real(2, 3 * 6, 9)
    model = node_model(
        "Col2Im",
        [x],
        constants={1: np.array([5, 8]), 2: np.array([2, 3])},
        pads=[1, 0, 1, 0],
        strides=[2, 2],
    )
    check(model, [x], rtol=1e-5, atol=1e-5)


def test_a_leaky_relu_of_a_sum_with_a_convolution_keeps_its_slope() -> None:
    model = parsed(
        """leaky (float[n, 4, 6, 6] x) => (float[n, 4, 6, 6] y) {
            x1 = Conv <pads = [1, 1, 1, 1]> (x, kernel, bias)
            x2 = Add (x1, x)
            y = LeakyRelu <alpha: float = 0.01> (x2)
        }"""
    )
    for name, shape in {"kernel": (4, 4, 3, 3), "bias": (4,)}.items():
        model.graph.initializer.append(numpy_helper.from_array(real(*shape), name))
    check(model, [real(2, 4, 6, 6)], [real(1, 4, 6, 6)], rtol=1e-5, atol=1e-5)
