"""Pools beyond what ONNX's backend tests cover, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.lowering.nodes import check, node_model

RANDOM = np.random.default_rng(8)


def real(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


WINDOWS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "resnet": ((1, 3, 8, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
    "ceil": ((1, 3, 8, 9), {"kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1}),
    "ceil on padding": (
        (1, 2, 9, 8),
        {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1] * 4, "ceil_mode": 1},
    ),
    "asymmetric": ((1, 2, 7, 6), {"kernel_shape": [3, 4], "pads": [0, 2, 1, 1]}),
    "lower": ((1, 2, 7, 6), {"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER"}),
    "upper": ((1, 2, 7, 6), {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "dilated": ((1, 2, 9, 9), {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 0, 1, 1]}),
    "one axis": ((2, 3, 9), {"kernel_shape": [4], "strides": [2], "pads": [2, 1]}),
    "volume": (
        (2, 3, 6, 5, 7),
        {"kernel_shape": [3, 2, 3], "strides": [2, 1, 2], "pads": [1, 0, 1, 1, 1, 1]},
    ),
}


def larger(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0] + 1, shape[1], *(size + 1 for size in shape[2:]))


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("dynamic", [True, False])
def test_max_pool(name: str, dynamic: bool) -> None:
    shape, attributes = WINDOWS[name]
    model = node_model("MaxPool", [real(*shape)], opset=12, dynamic=dynamic, **attributes)
    feeds = [[real(*shape) - 9]] + ([[real(*larger(shape)) - 9]] if dynamic else [])
    check(model, *feeds, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet", "dilated", "one axis", "volume"])
@pytest.mark.parametrize("storage_order", [0, 1])
def test_max_pool_with_indices(name: str, storage_order: int) -> None:
    shape, attributes = WINDOWS[name]
    # Whole numbers, so that maxima are found more than once.
    feeds = [[np.round(2 * real(*s))] for s in (shape, larger(shape))]
    model = node_model(
        "MaxPool", feeds[0], opset=12, outputs=2, storage_order=storage_order, **attributes
    )
    check(model, *feeds, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_max_pool_of_bytes(dtype: Any) -> None:
    x = RANDOM.integers(0, 100, (1, 2, 8, 8)).astype(dtype)
    model = node_model("MaxPool", [x], opset=12, **WINDOWS["resnet"][1])
    check(model, [x], rtol=0, atol=0)


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("include", [0, 1])
def test_average_pool(name: str, include: int) -> None:
    shape, attributes = WINDOWS[name]
    model = node_model(
        "AveragePool", [real(*shape)], opset=19, count_include_pad=include, **attributes
    )
    check(model, [real(*shape)], [real(*larger(shape))], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("op", "opset"), [("MaxPool", 7), ("MaxPool", 8), ("AveragePool", 7)])
def test_pools_of_old_opsets(op: str, opset: int) -> None:
    shape, attributes = WINDOWS["resnet"]
    check(node_model(op, [real(*shape)], opset=opset, **attributes), [real(*shape)])


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("name", ["resnet", "one axis", "dilated"])
def test_lp_pool(name: str, p: int) -> None:
    shape, attributes = WINDOWS[name]
    model = node_model("LpPool", [real(*shape)], opset=18, p=p, **attributes)
    check(model, [real(*shape)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("GlobalAveragePool", {}), ("GlobalMaxPool", {}), ("GlobalLpPool", {"p": 3})],
)
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 4), (1, 2, 3, 4, 3)])
def test_global_pools(op: str, attributes: dict[str, Any], shape: tuple[int, ...]) -> None:
    model = node_model(op, [real(*shape)], **attributes)
    check(model, [real(*shape)], [real(*larger(shape))], rtol=1e-5, atol=1e-5)


def test_max_unpool_of_overlapping_windows() -> None:
    x = np.array([[[[3, 3], [3, 4]]]], np.float32)
    indices = np.array([[[[5, 5], [5, 15]]]], np.int64)
    model = node_model("MaxUnpool", [x, indices], kernel_shape=[3, 3])
    check(model, [x, indices], rtol=0, atol=0)


def test_max_roi_pool() -> None:
    x = real(2, 3, 9, 8)
    rois = np.array([[0, 0, 0, 7, 8], [1, 3, 2, 5, 3], [1, 4, 6, 20, 20]], np.float32)
    model = node_model("MaxRoiPool", [x, rois], pooled_shape=[3, 2], spatial_scale=0.75)
    check(model, [x, rois], rtol=1e-6, atol=1e-6)
