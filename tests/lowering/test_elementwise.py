"""Element-wise ops beyond ONNX's own tests: dtypes, edge values, dynamic sizes, old opsets."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelpack.errors import UnsupportedOpsError
from tests.lowering.backend_suite import RUNNERS, compare
from tests.lowering.nodes import check, node_model

INF, NAN = np.inf, np.nan
RANDOM = np.random.default_rng(7)
FLOATS = RANDOM.normal(0, 3, (2, 3, 4)).astype(np.float32)


def check_exactly(
    model: ModelProto,
    feed: Sequence[np.ndarray],
    expected: np.ndarray,
    targets: Sequence[str] = ("savedmodel", "tflite"),
) -> None:
    """Compare with a known answer, where runtimes compute integers by way of float64."""
    for target in targets:
        with tempfile.TemporaryDirectory() as scratch:
            answer = RUNNERS[target](model, Path(scratch))(list(feed))
        compare(answer, [expected], rtol=0, atol=0)


def check_refused(model: ModelProto, target: str, reason: str) -> None:
    with tempfile.TemporaryDirectory() as scratch, pytest.raises(UnsupportedOpsError, match=reason):
        RUNNERS[target](model, Path(scratch))


def integers(dtype: str, *extra: int) -> np.ndarray:
    """Numbers of every magnitude of a dtype, and both ends of its range."""
    info = np.iinfo(dtype)
    sizes = 2.0 ** RANDOM.uniform(0, np.log2(float(info.max)), 60)
    numbers = [int(size) for size in sizes] + [info.max, info.max - 1, 1, *extra]
    if info.min < 0:
        numbers += [-number for number in numbers]
    return np.array(numbers, dtype)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64"])
@pytest.mark.parametrize(("op", "attributes"), [("Div", {}), ("Mod", {}), ("Mod", {"fmod": 1})])
def test_integer_division(op: str, attributes: dict[str, int], dtype: str) -> None:
    a, b = integers(dtype, 0), RANDOM.permutation(integers(dtype, 3))
    exact_a, exact_b = a.astype(object), b.astype(object)
    quotient = abs(exact_a) // abs(exact_b) * np.sign(exact_a) * np.sign(exact_b)
    remainder = exact_a - quotient * exact_b if attributes else exact_a % exact_b
    expected = (quotient if op == "Div" else remainder).astype(dtype)
    check_exactly(node_model(op, [a, b], **attributes), [a, b], expected)


@pytest.mark.parametrize("dtype", ["uint64", "int64", "uint8"])
@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("Max", np.maximum),
        ("Min", np.minimum),
        ("Less", np.less),
        ("GreaterOrEqual", np.greater_equal),
        ("Equal", np.equal),
        ("Add", np.add),
        ("Mul", np.multiply),
    ],
)
def test_order_and_wrapping_of_integers(op: str, function: np.ufunc, dtype: str) -> None:
    a = integers(dtype, 0, 5)
    b = RANDOM.permutation(a)
    b[:5] = a[:5]
    check_exactly(node_model(op, [a, b]), [a, b], function(a, b))


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_nan_spreads_from_either_side(op: str) -> None:
    a = np.array([NAN, 1, NAN, 2, INF, -INF], np.float32)
    b = np.array([1, NAN, NAN, 3, NAN, 0], np.float32)
    check(node_model(op, [a, b]), [a, b], [b, a])


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "Where", "Less"])
def test_dynamic_sizes_broadcast(op: str) -> None:
    a, b = np.abs(FLOATS) + 0.5, np.abs(FLOATS[0, :1]) + 0.5
    choice = [FLOATS > 0] if op == "Where" else []
    more = [np.concatenate([item, item]) for item in [*choice, a]]
    check(node_model(op, [*choice, a, b]), [*choice, a, b], [*more, b])


@pytest.mark.parametrize("exponent", [2.0, 0.5, 3.0, -1.0, 0.0])
def test_power_with_constant_exponent(exponent: float) -> None:
    x = np.abs(FLOATS) + 0.1
    model = node_model("Pow", [x], constants={1: np.array(exponent, np.float32)})
    check(model, [x], [x[:1]])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integer_power(dtype: str) -> None:
    x = np.array([0, 1, -1, 2, -3, 7, 2, 10, -1, 1, 3], dtype)
    y = np.array([0, 70, 71, 30, 5, 0, 1, 9, 64, 63, 2], dtype)
    check(node_model("Pow", [x, y]), [x, y], rtol=0, atol=0)


def test_integer_to_real_power_is_refused_without_float64() -> None:
    x, y = np.array([7], np.int32), np.array([0.5], np.float32)
    check(node_model("Pow", [x, y]), [x, y], targets=["savedmodel"], rtol=0, atol=0)
    check_refused(node_model("Pow", [x, y]), "tflite", "float64")


EDGES = np.array([0.0, -0.0, 1e-6, -1e-4, 0.03, -0.5, 0.9999, 1, -1, 3, -30, 80], np.float32)
DOMAINS = {
    "Asin": EDGES[:9],
    "Acos": EDGES[:9],
    "Atanh": EDGES[:7],
    "Acosh": np.array([1, 1.0001, 1.5, 30, 1e4, 1e20], np.float32),
    "Asinh": np.append(EDGES, np.float32([1e4, -1e20])),
    "Tan": EDGES,
}


UNARY = "Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh Erf Softplus Mish Elu Selu"


@pytest.mark.parametrize("op", UNARY.split())
def test_small_and_large_arguments(op: str) -> None:
    x = DOMAINS.get(op, EDGES)
    name = op.lower().replace("as", "arcs").replace("ac", "arcc").replace("at", "arct")
    model = node_model(op, [x])
    if not hasattr(np, name):
        check(model, [x], rtol=2e-5, atol=1e-7)
        return
    expected = getattr(np, name)(x.astype(np.float64)).astype(np.float32)
    for target in ("savedmodel", "tflite"):
        with tempfile.TemporaryDirectory() as scratch:
            compare(RUNNERS[target](model, Path(scratch))([x]), [expected], rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("op", "x"),
    [
        ("Erf", [INF, -INF, NAN]),
        ("Sign", [INF, -INF, 0.0]),
        ("Softplus", [INF, -INF, 200]),
        ("IsInf", [INF, -INF, NAN]),
        ("IsNaN", [INF, -INF, NAN]),
        ("Round", [0.5, 1.5, -2.5, -0.4]),
        ("Mish", [200, -200, 0]),
        ("Relu", [INF, -INF, -0.0]),
    ],
)
def test_infinite_and_special_values(op: str, x: list[float]) -> None:
    array = np.array(x, np.float32)
    check(node_model(op, [array], opset=21), [array])


@pytest.mark.parametrize(("negative", "positive"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_signs_of_infinity(negative: int, positive: int) -> None:
    x = np.array([INF, -INF, NAN, 1], np.float32)
    model = node_model("IsInf", [x], detect_negative=negative, detect_positive=positive)
    check(model, [x])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint64"])
@pytest.mark.parametrize("bounds", [(2, 5), (None, 5), (2, None), (5, 2), (None, None)])
def test_clip(bounds: tuple[int | None, int | None], dtype: str) -> None:
    x = np.arange(9).astype(dtype)
    constants = {i + 1: np.array(b, dtype) for i, b in enumerate(bounds) if b is not None}
    inputs = [x] + [None] * max(constants, default=0)
    targets = ["savedmodel"] if dtype in {"float16", "int8"} else ["savedmodel", "tflite"]
    check(node_model("Clip", inputs, constants=constants), [x], targets=targets, rtol=0, atol=0)


@pytest.mark.parametrize("attributes", [{}, {"min": -1.0}, {"max": 0.5}, {"min": 0.0, "max": 6.0}])
def test_clip_by_attributes(attributes: dict[str, float]) -> None:
    check(node_model("Clip", [FLOATS], opset=7, **attributes), [FLOATS], [FLOATS[:1]])


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("LeakyRelu", {"alpha": 0.3}),
        ("LeakyRelu", {"alpha": 1.5}),
        ("Elu", {"alpha": 0.7}),
        ("Celu", {"alpha": 1.7}),
        ("Celu", {"alpha": 1.0}),
        ("Selu", {"alpha": 1.1, "gamma": 0.5}),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
        ("HardSigmoid", {"alpha": 0.4, "beta": 0.3}),
        ("ThresholdedRelu", {"alpha": -0.5}),
        ("Shrink", {"lambd": 1.5, "bias": 0.5}),
        ("Gelu", {"approximate": "tanh"}),
        ("Gelu", {}),
    ],
)
def test_activations(op: str, attributes: dict[str, float | str]) -> None:
    x = np.concatenate([FLOATS, np.float32([[[0, -0.0, 1, -1]] * 3])])
    check(node_model(op, [x], opset=21, **attributes), [x], [x[:1]])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int64"])
@pytest.mark.parametrize("attributes", [{"lambd": 2.0, "bias": 1.5}, {"lambd": 2.5}])
def test_shrink_of_integers(attributes: dict[str, float], dtype: str) -> None:
    x = np.arange(-6 if dtype != "uint8" else 0, 7).astype(dtype)
    targets = ["savedmodel", "tflite"] if dtype != "int64" else ["savedmodel"]
    check(node_model("Shrink", [x], **attributes), [x], targets=targets, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (1,), (4,), (2, 3, 4, 4)])
def test_prelu_slopes(shape: tuple[int, ...]) -> None:
    x = RANDOM.normal(size=(2, 3, 4, 4)).astype(np.float32)
    slope = RANDOM.normal(size=shape).astype(np.float32)
    check(node_model("PRelu", [x], opset=16, constants={1: slope}), [x])


def test_prelu_of_volumes() -> None:
    x = RANDOM.normal(size=(2, 3, 4, 4, 4)).astype(np.float32)
    slope = RANDOM.normal(size=(3, 1, 1, 1)).astype(np.float32)
    check(node_model("PRelu", [x], opset=16, constants={1: slope}), [x])


@pytest.mark.parametrize(
    ("op", "bias"),
    [("Gelu", 0), ("FastGelu", 0), ("FastGelu", 1), ("BiasGelu", 1), ("QuickGelu", 0)],
)
def test_activations_of_onnxruntime(op: str, bias: int) -> None:
    inputs = [FLOATS, FLOATS[0, 0]][: 1 + bias]
    model = node_model(op, inputs, domain="com.microsoft", opset=1)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    check(model, inputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64", "int32"])
@pytest.mark.parametrize("op", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
def test_bitwise_logic(op: str, dtype: str) -> None:
    a = integers(dtype, 0)
    b = RANDOM.permutation(a)
    check(node_model(op, [a, b]), [a, b], rtol=0, atol=0)


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64"])
def test_shifts_by_up_to_the_width(dtype: str, direction: str) -> None:
    bits = np.iinfo(dtype).bits
    x = np.full(6, np.iinfo(dtype).max // 3, dtype)
    y = np.array([0, 1, 5, bits - 1, 2, 7], dtype)
    targets = (
        ["savedmodel"] if (dtype, direction) == ("uint64", "RIGHT") else ["savedmodel", "tflite"]
    )
    model = node_model("BitShift", [x, y], direction=direction)
    check(model, [x, y], targets=targets, rtol=0, atol=0)


def test_text_is_equal() -> None:
    a = np.array(["one", "two", ""], np.object_)
    b = np.array(["one", "TWO", ""], np.object_)
    check(node_model("Equal", [a, b], dynamic=False), [a, b])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "bool", "float16"])
def test_where_of_dtypes(dtype: str) -> None:
    a, b = np.arange(6).astype(dtype), np.arange(6)[::-1].astype(dtype)
    condition = np.arange(6) % 2 == 0
    check(node_model("Where", [condition, a, b]), [condition, a, b], rtol=0, atol=0)


@pytest.mark.parametrize(("opset", "masked"), [(7, False), (10, False), (13, True)])
def test_dropout_of_inference(opset: int, masked: bool) -> None:
    attributes = {"ratio": 0.3} if opset < 12 else {}
    model = node_model("Dropout", [FLOATS], opset=opset, outputs=1 + masked, **attributes)
    check(model, [FLOATS], [FLOATS[:1]])


def test_dropout_of_training_drops_its_ratio() -> None:
    x = np.ones((100, 100), np.float32)
    constants = {1: np.array(0.25, np.float32), 2: np.array(True)}
    model = node_model("Dropout", [x], constants=constants, opset=13, outputs=2)
    with tempfile.TemporaryDirectory() as scratch:
        result, mask = RUNNERS["savedmodel"](model, Path(scratch))([x])
    assert np.array_equal(result, np.where(mask, np.float32(1 / 0.75), 0))
    assert 0.7 < mask.mean() < 0.8
    check_refused(model, "tflite", "random")


# --- casts -----------------------------------------------------------------------------------

NUMBERS = np.array([0, 1, -1, 2.5, -2.5, 100.75, 1e-3], np.float32)


@pytest.mark.parametrize("to", ["FLOAT16", "INT8", "INT64", "BOOL", "DOUBLE"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_casts(dtype: str, to: str) -> None:
    x = NUMBERS.astype(dtype)
    model = node_model("Cast", [x], to=getattr(TensorProto, to))
    check(model, [x], [x[:2]], rtol=0, atol=0)


def test_casts_of_unsigned_64_bits() -> None:
    x = np.array([0, 5, 1 << 40, (1 << 63) + (1 << 40)], np.uint64)
    check(node_model("Cast", [x], to=TensorProto.FLOAT), [x], rtol=0, atol=0)
    check(node_model("Cast", [x], to=TensorProto.INT64), [x], rtol=0, atol=0)
    y = x.astype(np.float32)
    check(node_model("Cast", [y], to=TensorProto.UINT64), [y], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_numbers_to_text(dtype: str) -> None:
    x = np.array([0, 1, -3, 2.5, 1e-7, 123456.789, 1e20][: 7 if dtype == "float32" else 3], dtype)
    model = node_model("Cast", [x], to=TensorProto.STRING)
    check(model, [x], targets=["savedmodel"])
    check_refused(model, "tflite", "text")


@pytest.mark.parametrize("to", ["FLOAT", "INT32"])
def test_text_to_numbers(to: str) -> None:
    x = np.array(["3", "-12", "1e3", "NaN", "-INF"][: 5 if to == "FLOAT" else 2], np.object_)
    model = node_model("Cast", [x], to=getattr(TensorProto, to), dynamic=False)
    check(model, [x], targets=["savedmodel"])


@pytest.mark.parametrize("to", ["FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT8E4M3FNUZ"])
@pytest.mark.parametrize("saturate", [0, 1])
def test_casts_to_8_bit_reals(to: str, saturate: int) -> None:
    x = np.array([0, 1.0625, -300, 1e6, -1e6, INF, NAN, 1e-3], np.float32)
    model = node_model("Cast", [x], to=getattr(TensorProto, to), saturate=saturate)
    expected = ReferenceEvaluator(model).run(None, {"x0": x})[0]
    check_exactly(model, [x], expected, targets=["savedmodel"])
    check_refused(model, "tflite", "kernels")


def test_dtypes_without_kernels_are_refused() -> None:
    model = node_model("Cast", [NUMBERS], opset=25, to=TensorProto.FLOAT4E2M1)
    check_refused(model, "savedmodel", "float4_e2m1fn")


@pytest.mark.parametrize(
    ("op", "constant"), [("Sub", 1.0), ("Div", 1.0), ("Div", 2.0), ("Reciprocal", None)]
)
@pytest.mark.parametrize("between", ["Identity", "Relu", "Sqrt"])
def test_constant_first_and_a_transpose_behind(
    op: str, constant: float | None, between: str
) -> None:
    """The TFLite converter moves transposes, and exchanges operands as it does."""
    transpose = helper.make_node("Transpose", ["x"], ["t"], perm=[1, 2, 3, 0])
    names = ["u"] if constant is None else ["c", "u"]
    nodes = [transpose, helper.make_node(between, ["t"], ["u"]), helper.make_node(op, names, ["y"])]
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 5, 8, "n"]),
    ]
    constants = [numpy_helper.from_array(np.float32(constant or 0), "c")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    check(model, [1 + np.arange(240, dtype=np.float32).reshape(2, 3, 5, 8)], targets=["tflite"])


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_a_choice_among_tensors_of_many_axes(dtype: str, dynamic: bool) -> None:
    """TFLite's own kernel makes tensors of at most five axes equally large."""
    x = RANDOM.normal(size=(2, 3, 7, 2, 7, 2)).astype(dtype)
    chosen = RANDOM.normal(size=(7, 2, 1, 1)) > 0
    constants = {0: chosen, 1: np.zeros((), dtype)}
    model = node_model("Where", [None, None, x], constants=constants, dynamic=dynamic)
    check(model, [x], rtol=0, atol=0)
