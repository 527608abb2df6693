"""Transposes of more axes than TFLite has a kernel for, compared with numpy and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from modelpack.lowering.transposing import transposed
from tests.lowering.nodes import check, node_model, parsed

_RANDOM = np.random.default_rng(11)


def test_any_order_by_transposes_of_at_most_six_axes() -> None:
    for rank in (2, 6, 7, 8, 9):
        for _ in range(5):
            order = [int(axis) for axis in _RANDOM.permutation(rank)]
            shape = _RANDOM.integers(1, 4, rank)
            x = np.arange(shape.prod(), dtype=np.float32).reshape(shape)
            open_axes = set(_RANDOM.integers(0, rank, 2))
            spec = tf.TensorSpec([None if i in open_axes else n for i, n in enumerate(shape)])
            function = tf.function(lambda x, order=order: transposed(x, order))
            traced = function.get_concrete_function(spec)
            np.testing.assert_array_equal(traced(tf.constant(x)), x.transpose(order))
            ops = [op for op in traced.graph.get_operations() if op.type == "Transpose"]
            assert all(op.inputs[0].shape.rank <= 6 for op in ops)
            assert len(ops) <= 3


def test_no_elements() -> None:
    for shape, order in (((2, 0, 1, 3), (2, 0, 1, 3)), ((0, 1, 2, 3, 1, 2, 2), range(6, -1, -1))):
        function = tf.function(lambda x, order=order: transposed(x, list(order)))
        traced = function.get_concrete_function(tf.TensorSpec([None, *shape[1:]]))
        x = np.zeros(shape, np.float32)
        np.testing.assert_array_equal(traced(tf.constant(x)), x.transpose(order))


@pytest.mark.parametrize("dynamic", [True, False])
def test_transpose_of_eight_axes(dynamic: bool) -> None:
    x = _RANDOM.normal(size=(2, 3, 1, 2, 2, 3, 2, 2)).astype(np.float32)
    model = node_model("Transpose", [x], perm=[7, 2, 4, 6, 1, 3, 5, 0], dynamic=dynamic)
    check(model, [x], rtol=0, atol=0)


def test_windows_of_videos() -> None:
    model = parsed(
        """g (float[batch, 4, 4, 6, 5] x) => (float[windows, 8, 5] y)
        <int64[8] cut = {-1, 2, 2, 2, 2, 3, 2, 5}, int64[3] joined = {-1, 8, 5}>
        {
            parts = Reshape (x, cut)
            windows = Transpose <perm = [0, 1, 3, 5, 2, 4, 6, 7]> (parts)
            y = Reshape (windows, joined)
        }"""
    )
    feeds = [(_RANDOM.normal(size=(n, 4, 4, 6, 5)).astype(np.float32),) for n in (1, 3)]
    check(model, *feeds, rtol=0, atol=0)
