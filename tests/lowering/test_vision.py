"""Sampling, boxes and cropping: dynamic sizes, paddings, ties, omitted inputs."""

from __future__ import annotations

import numpy as np
import pytest

from modelpack.errors import UnsupportedOpsError
from tests.lowering.nodes import check, node_model

RANDOM = np.random.default_rng(0)


def image(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def grid(*shape):
    return RANDOM.uniform(-1.8, 1.8, shape).astype(np.float32)


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_grid_sample(mode, padding_mode, align_corners):
    feeds = [[image(2, 3, 4, 5), grid(2, 3, 2, 2)], [image(1, 3, 1, 6), grid(1, 2, 5, 2)]]
    if align_corners and padding_mode == "reflection":
        feeds = feeds[:1]  # a single pixel has nothing to be reflected between
    model = node_model(
        "GridSample", feeds[0], opset=16, mode=mode, padding_mode=padding_mode,
        align_corners=align_corners,
    )  # fmt: skip
    check(model, *feeds, targets=["savedmodel"])


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_grid_sample_of_volumes(mode, padding_mode):
    feed = [image(2, 2, 3, 4, 5), grid(2, 2, 3, 2, 3)]
    check(node_model("GridSample", feed, opset=20, mode=mode, padding_mode=padding_mode), feed)


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 2, 4, 5)])
def test_affine_grid(size, align_corners):
    rank = len(size) - 2
    theta = image(2, rank, rank + 1)
    constants = {1: np.array(size, np.int64)}
    model = node_model(
        "AffineGrid", [theta, None], opset=20, constants=constants, align_corners=align_corners
    )
    check(model, [theta])


@pytest.mark.parametrize("opset", [10, 16, 22])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(opset, mode, ratio):
    x = image(2, 3, 9, 8)
    rois = np.array([[0, 0, 7, 7], [2, 3, 20, 30], [-9, -9, 1, 1], [5, 5, 4, 4]], np.float32)
    batch = np.array([0, 1, 1, 0])
    model = node_model(
        "RoiAlign", [x, rois, batch], opset=opset, mode=mode, sampling_ratio=ratio,
        output_height=2, output_width=3, spatial_scale=0.7,
    )  # fmt: skip
    check(model, [x, rois, batch], [x[:1], rois[:1], batch[:1]])


def boxes_and_scores(images, classes, count):
    boxes = RANDOM.random((images, count, 4)).astype(np.float32)
    return [boxes, RANDOM.random((images, classes, count)).astype(np.float32)]


@pytest.mark.parametrize("center_point_box", [0, 1])
@pytest.mark.parametrize("most", [2, 1 << 40])
def test_non_max_suppression(center_point_box, most):
    feeds = [boxes_and_scores(2, 3, 6), boxes_and_scores(1, 1, 6)]
    constants = {
        2: np.array([most]),
        3: np.array([0.3], np.float32),
        4: np.array([0.2], np.float32),
    }
    model = node_model(
        "NonMaxSuppression", [*feeds[0], None, None, None], opset=11, constants=constants,
        center_point_box=center_point_box,
    )  # fmt: skip
    check(with_count(model, 6), *feeds)
    more = [*feeds, boxes_and_scores(1, 2, 20)]
    check(with_count(model, None), *more, targets=["savedmodel"])
    with pytest.raises(UnsupportedOpsError, match="number of boxes"):
        check(model, targets=["tflite"])


def with_count(model, count):
    """The number of boxes known, or not; a box always has four numbers."""
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 4
    for info, axis in zip(model.graph.input, (1, 2), strict=True):
        dim = info.type.tensor_type.shape.dim[axis]
        dim.Clear()
        if count is not None:
            dim.dim_value = count
    return model


def test_non_max_suppression_without_thresholds():
    feed = boxes_and_scores(1, 2, 5)
    feed[1] -= 0.5
    model = node_model("NonMaxSuppression", [*feed, None], opset=10, constants={2: np.array([3])})
    check(with_count(model, 5), feed)


@pytest.mark.parametrize("axes", [None, [-1, 1]])
def test_center_crop_pad(axes):
    x = image(5, 4, 7)
    wanted = [8, 3, 4] if axes is None else [10, 3]
    attributes = {} if axes is None else {"axes": axes}
    constants = {1: np.array(wanted)}
    model = node_model("CenterCropPad", [x, None], opset=18, constants=constants, **attributes)
    check(model, [x], [x[:3, :2, :6]])


def test_decoding_images_is_refused_for_tflite():
    stream = np.zeros(8, np.uint8)
    model = node_model("ImageDecoder", [stream], opset=20)
    with pytest.raises(UnsupportedOpsError, match="ImageDecoder"):
        check(model, targets=["tflite"])
