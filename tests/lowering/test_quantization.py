"""Quantized tensors: rounding, saturation, granularity, and the ops ONNX Runtime adds."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelpack.errors import UnsupportedOpsError
from tests.lowering.backend_suite import RUNNERS
from tests.lowering.nodes import check, node_model

RANDOM = np.random.default_rng(0)
REAL = RANDOM.standard_normal((2, 4, 3, 3)).astype(np.float32)
# Halves of the scale, far values, and both signs.
EDGES = np.array([[-1e6, -2.5, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 1e6]], np.float32)
QUARTER = np.float32(0.25)


def scalar(value, dtype):
    return np.array(value, dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_rounds_half_to_even_and_saturates(dtype):
    constants = {1: np.float32(1), 2: scalar(3, dtype)}
    model = node_model("QuantizeLinear", [EDGES, None, None], constants=constants)
    check(model, [EDGES], [EDGES[:, 2:]], rtol=0, atol=0)


@pytest.mark.parametrize("opset", [13, 19, 21])
@pytest.mark.parametrize("axis", [1, -1])
def test_per_axis(opset, axis):
    count = REAL.shape[axis]
    scale = np.linspace(0.01, 0.05, count).astype(np.float32)
    zero = np.arange(count).astype(np.int8)
    constants = {1: scale, 2: zero}
    model = node_model(
        "QuantizeLinear", [REAL, None, None], constants=constants, opset=opset, axis=axis
    )
    check(model, [REAL], [REAL[:1]], rtol=0, atol=0)
    whole = RANDOM.integers(-128, 127, REAL.shape).astype(np.int8)
    model = node_model(
        "DequantizeLinear", [whole, None, None], constants=constants, opset=opset, axis=axis
    )
    check(model, [whole], [whole[:1]], rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_blocks(dtype):
    whole = RANDOM.integers(0, 100, (2, 5, 3)).astype(dtype)
    scale = RANDOM.random((2, 3, 3)).astype(np.float32)
    zero = RANDOM.integers(0, 9, scale.shape).astype(dtype)
    constants = {1: scale, 2: zero}
    attributes = {"axis": 1, "block_size": 2, "constants": constants, "dynamic": False}
    check(node_model("DequantizeLinear", [whole, None, None], **attributes), [whole])
    real = (whole * 0.37).astype(np.float32)
    check(node_model("QuantizeLinear", [real, None, None], **attributes), [real])


@pytest.mark.parametrize("name", ["int4", "uint4", "int8", "int32", "float8_e4m3fn"])
def test_constant_weights_of_any_dtype(name):
    dtype = getattr(ml_dtypes, name, None) or np.dtype(name)
    weights = RANDOM.integers(0, 7, 4).astype(dtype)
    x = RANDOM.standard_normal((3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [
            onnx.numpy_helper.from_array(weights, "q"),
            onnx.numpy_helper.from_array(QUARTER, "s"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    check(model, [x], [x[:1]])


def saved_answer(model, x, scratch):
    """What the SavedModel says: ONNX Runtime has no kernels for these dtypes."""
    return np.asarray(RUNNERS["savedmodel"](model, scratch)([x])[0])


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_small_floats(saturate, dtype, tmp_path):
    to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = node_model(
        "QuantizeLinear", [EDGES, None], constants={1: QUARTER}, output_dtype=to, saturate=saturate
    )
    limit = float(ml_dtypes.finfo(dtype).max) if saturate else np.inf
    with np.errstate(all="ignore"):
        expected = np.clip(EDGES / QUARTER, -limit, limit).astype(dtype)
    answer = saved_answer(model, EDGES, tmp_path)
    assert answer.dtype == dtype
    np.testing.assert_array_equal(answer.astype(np.float32), expected.astype(np.float32))


def test_four_bits(tmp_path):
    to = TensorProto.INT4
    model = node_model("QuantizeLinear", [EDGES, None], constants={1: QUARTER}, output_dtype=to)
    answer = saved_answer(model, EDGES, tmp_path)
    assert answer.dtype == ml_dtypes.int4
    np.testing.assert_array_equal(answer.astype(int), np.clip(np.rint(EDGES / QUARTER), -8, 7))
    with pytest.raises(UnsupportedOpsError, match="no kernel that casts"):
        RUNNERS["tflite"](model, tmp_path)


def quantized(shape, dtype=np.uint8):
    low, high = (0, 255) if dtype == np.uint8 else (-128, 127)
    return RANDOM.integers(low, high + 1, shape).astype(dtype)


@pytest.mark.parametrize("inner", [7, 700])
def test_matmul_integer_is_exact(inner):
    a, b = quantized((3, inner)), quantized((inner, 5), np.int8)
    constants = {1: b, 2: scalar(200, np.uint8), 3: np.arange(5).astype(np.int8)}
    model = node_model("MatMulInteger", [a, None, None, None], opset=10, constants=constants)
    check(model, [a], [a[:1]], rtol=0, atol=0)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinear_conv(group, per_channel):
    x, w = quantized((2, 4, 6, 5)), quantized((6, 4 // group, 3, 3), np.int8)
    scale = np.linspace(0.001, 0.002, 6).astype(np.float32) if per_channel else np.float32(0.002)
    constants = {
        1: np.float32(0.02), 2: scalar(121, np.uint8), 3: w, 4: scale,
        5: np.zeros(6, np.int8) if per_channel else scalar(0, np.int8),
        6: np.float32(0.03), 7: scalar(130, np.uint8),
        8: RANDOM.integers(-999, 999, 6).astype(np.int32),
    }  # fmt: skip
    model = node_model(
        "QLinearConv", [x] + [None] * 8, opset=10, constants=constants, group=group,
        pads=[1, 1, 0, 2], strides=[2, 1], dynamic=False,
    )  # fmt: skip
    # One step of the grid: the product of the scales may be rounded differently at a half.
    check(model, [x], rtol=0, atol=1)


SCALES = [np.float32(0.02), np.float32(0.03), np.float32(0.05)]


def runtime_op(op, x, constants, **attributes):
    count = max(constants) + 1
    model = node_model(
        op, [x] + [None] * (count - 1), domain="com.microsoft", opset=1, constants=constants,
        **attributes,
    )  # fmt: skip
    # Shapes of these ops are not inferred.
    model.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(x.dtype)
    return model


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_qlinear_binary(op, dtype):
    x, other = quantized((2, 3, 4), dtype), quantized((3, 1), dtype)
    zero = scalar(5, dtype)
    constants = {
        1: SCALES[0], 2: zero, 3: other, 4: SCALES[1], 5: zero, 6: SCALES[2], 7: zero,
    }  # fmt: skip
    check(runtime_op(op, x, constants), [x], [x[:1]], rtol=0, atol=1)


@pytest.mark.parametrize("op", ["QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool"])
def test_qlinear_unary(op):
    x = quantized((2, 3, 4, 5))
    constants = {
        1: SCALES[0], 2: scalar(120, np.uint8), 3: np.float32(1 / 256), 4: scalar(3, np.uint8)
    }  # fmt: skip
    check(runtime_op(op, x, constants), [x], [x[:1]], rtol=0, atol=1)


def test_qlinear_concat():
    x, other = quantized((2, 3)), quantized((2, 2))
    zero = scalar(7, np.uint8)
    names = ["ys", "yz", "x", "xs", "xz", "o", "os", "oz"]
    values = [SCALES[2], zero, x, SCALES[0], zero, other, SCALES[1], zero]
    node = helper.make_node("QLinearConcat", names, ["y"], domain="com.microsoft", axis=1)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [2, 5])],
        [
            onnx.numpy_helper.from_array(np.asarray(value), name)
            for name, value in zip(names, values, strict=True)
            if name != "x"
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    check(helper.make_model(graph, opset_imports=opsets, ir_version=10), [x], rtol=0, atol=1)


@pytest.mark.parametrize("flip", [0, 1])
def test_qgemm(flip):
    x, w = quantized((3, 8)), quantized((5, 8) if flip else (8, 5), np.int8)
    constants = {
        1: SCALES[0], 2: scalar(110, np.uint8), 3: w,
        4: np.linspace(0.001, 0.01, 5, dtype=np.float32),
        5: np.zeros(5, np.int8), 6: RANDOM.integers(-99, 99, 5).astype(np.int32),
        7: np.float32(0.04), 8: scalar(100, np.uint8),
    }  # fmt: skip
    check(runtime_op("QGemm", x, constants, transB=flip), [x], [x[:1]], rtol=0, atol=1)


def test_dynamic_quantize_matmul():
    x = RANDOM.standard_normal((3, 8)).astype(np.float32)
    w = quantized((8, 5), np.int8)
    constants = {1: w, 2: np.float32(0.01), 3: scalar(2, np.int8)}
    model = runtime_op("DynamicQuantizeMatMul", x, constants)
    check(model, [x], rtol=1e-4, atol=1e-4)
