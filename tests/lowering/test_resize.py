"""Resize and Upsample: constant scales and sizes (the fused kernels), dynamic sizes, versions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.lowering.nodes import check, node_model

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.standard_normal((2, 3, 7, 6)).astype(np.float32)
OTHER = RANDOM.standard_normal((1, 3, 9, 5)).astype(np.float32)
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners",
)  # fmt: skip
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def scaled(x, scales, *, opset=19, dynamic=False, **attributes):
    constants = {2: np.array(scales, np.float32)}
    return node_model(
        "Resize", [x, None, None], opset=opset, constants=constants, dynamic=dynamic, **attributes
    )


def sized(x, sizes, *, dynamic=False, **attributes):
    constants = {3: np.array(sizes, np.int64)}
    return node_model(
        "Resize", [x, None, None, None], opset=19, constants=constants, dynamic=dynamic,
        **attributes,
    )  # fmt: skip


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("scales", [(2.0, 2.0), (0.5, 0.4), (1.7, 3.0)])
def test_linear(coordinates, scales):
    model = scaled(
        IMAGE, (1, 1, *scales), mode="linear", coordinate_transformation_mode=coordinates
    )
    check(model, [IMAGE], targets=["tflite"], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("nearest", NEAREST)
def test_nearest(coordinates, nearest):
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    for scales in ((2.0, 3.0), (0.65, 1.4)):
        model = scaled(IMAGE, (1, 1, *scales), mode="nearest", **attributes)
        check(model, [IMAGE], targets=["savedmodel"], rtol=0, atol=0)


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners"])
def test_nearest_kernel_of_tflite(coordinates):
    model = scaled(
        IMAGE, (1, 1, 2, 2), mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode=coordinates,
    )  # fmt: skip
    check(model, [IMAGE], targets=["tflite"], rtol=0, atol=0)


@pytest.mark.parametrize(
    "attributes",
    [
        {"mode": "linear"},
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "linear", "antialias": 1},
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
    ],
)
def test_any_size_of_images(attributes):
    check(scaled(IMAGE, (1, 1, 2, 1.5), dynamic=True, **attributes), [IMAGE], [OTHER])
    if "exclude_outside" not in attributes:
        check(sized(IMAGE[:1], (1, 3, 4, 8), dynamic=True, **attributes), [IMAGE[:1]], [OTHER])


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scales", [(0.3, 0.7), (2.5, 0.5)])
@pytest.mark.parametrize("exclude_outside", [0, 1])
def test_antialias(mode, scales, exclude_outside):
    model = scaled(IMAGE, (1, 1, *scales), mode=mode, antialias=1, exclude_outside=exclude_outside)
    check(model, [IMAGE], targets=["savedmodel"])


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_aspect_ratio(policy, dynamic):
    attributes = {"keep_aspect_ratio_policy": policy, "axes": [3, 2], "mode": "linear"}
    check(sized(IMAGE, (9, 11), dynamic=dynamic, **attributes), [IMAGE])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_integers_are_truncated(dtype):
    x = RANDOM.integers(0, 200, (1, 2, 4, 5)).astype(dtype)
    check(scaled(x, (1, 1, 2, 2), mode="linear"), [x], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 5), (1, 2, 3, 4, 5)])
def test_other_ranks(shape, dtype):
    x = RANDOM.integers(-9, 9, shape).astype(dtype)
    scales = (1,) * (len(shape) - 1) + (2,)
    check(scaled(x, scales, mode="nearest", dynamic=True), [x], rtol=0, atol=0)


def test_volume():
    x = RANDOM.standard_normal((1, 2, 3, 4, 5)).astype(np.float32)
    check(scaled(x, (1, 1, 2, 1.5, 2), mode="linear"), [x])


def test_channel_last_graph():
    x = RANDOM.standard_normal((1, 4, 5, 3)).astype(np.float32)
    check(scaled(x, (1, 2, 2, 1), mode="linear"), [x])


def test_crop():
    constants = {1: np.array([0, 0, 0.2, -0.3, 1, 1, 0.9, 1.2], np.float32),
                 2: np.array([1, 1, 1.5, 2], np.float32)}  # fmt: skip
    model = node_model(
        "Resize", [IMAGE, None, None], opset=13, constants=constants, mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=7.0,
    )  # fmt: skip
    check(model, [IMAGE])


@pytest.mark.parametrize(
    ("op", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10), ("Resize", 11)]
)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_versions(op, opset, mode):
    scales = [1.0, 1.0, 2.0, 3.0]
    position = 2 if opset == 11 else 1
    constants = {} if opset == 7 else {position: np.array(scales, np.float32)}
    if opset == 11:
        constants[1] = np.zeros(0, np.float32)
    attributes = {"scales": scales} if opset == 7 else {}
    inputs = [IMAGE] + [None] * len(constants)
    model = node_model(op, inputs, opset=opset, constants=constants, mode=mode, **attributes)
    check(model, [IMAGE], targets=["savedmodel"])


def test_old_nearest_rounds_up_when_it_scales_down():
    constants = {1: np.array([1, 1, 0.6, 0.7], np.float32)}
    model = node_model("Resize", [IMAGE, None], opset=10, constants=constants, mode="nearest")
    check(model, [IMAGE], targets=["savedmodel"], rtol=0, atol=0)
