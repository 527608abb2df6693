"""Reductions, products of matrices, softmax and attention beyond what onnx's own cases cover."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelpack.errors import ConversionError, UnsupportedOpsError
from modelpack.lowering.context import Target
from modelpack.lowering.model import prepare
from modelpack.lowering.ops.einsum import parse
from tests.lowering.backend_suite import RUNNERS
from tests.lowering.nodes import check, node_model, parsed


def real(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def whole(*shape: int, dtype: Any = np.int64, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(1, 9, shape).astype(dtype)


# --- reductions ----------------------------------------------------------------------------

REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"),
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
)


@pytest.mark.parametrize("op", REDUCTIONS)
def test_reduction_over_axes_of_an_attribute(op: str) -> None:
    x = np.abs(real(2, 3, 4)) + 0.1
    model = node_model(op, [x], opset=11, axes=[-1, 0], keepdims=0)
    check(model, [x], [np.abs(real(5, 1, 2, seed=1)) + 0.1])


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        ("ReduceSum", np.int32),
        ("ReduceMax", np.int8),
        ("ReduceMin", np.uint8),
        ("ReduceProd", np.int64),
        ("ReduceMean", np.int32),
        ("ReduceL1", np.int32),
    ],
)
def test_reduction_of_integers(op: str, dtype: Any) -> None:
    x = whole(3, 4, dtype=dtype)
    check(node_model(op, [x], opset=13 if op == "ReduceSum" else 12), [x])


@pytest.mark.parametrize("op", ["ReduceSumSquare", "ReduceLogSumExp", "ReduceMax"])
def test_no_axes_may_mean_none(op: str) -> None:
    x = real(2, 3)
    model = node_model(op, [x], opset=18, constants={1: np.array([], np.int64)})
    check(model, [x])
    model.graph.node[0].attribute.append(helper.make_attribute("noop_with_empty_axes", 1))
    if op != "ReduceMax":  # ONNX Runtime passes the input on instead of squaring it
        x = np.abs(x)
    expected = {"ReduceSumSquare": np.square(x), "ReduceLogSumExp": x, "ReduceMax": x}[op]
    assert_answers(model, [x], [expected])


def test_log_sum_exp_of_infinities() -> None:
    x = np.array([[1000.0, 999.0], [-np.inf, -np.inf], [np.inf, 0.0]], np.float32)
    model = node_model("ReduceLogSumExp", [x], opset=18, constants={1: np.array([1])}, keepdims=0)
    expected = np.array([1000.3133, -np.inf, np.inf], np.float32)
    assert_answers(model, [x], [expected])


def test_an_unknown_number_of_axes_is_refused() -> None:
    model = node_model("ReduceSum", [real(2, 3), np.array([1])], opset=13)
    with pytest.raises(UnsupportedOpsError, match="number of axes"):
        check(model, [real(2, 3), np.array([1])], targets=["savedmodel"])


# --- products ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((2, 3), (3, 4)),
        ((2, 5, 3), (3, 4)),
        ((2, 1, 5, 3), (4, 3, 2)),
        ((5, 1, 6, 7), (7, 3)),
        ((4, 1, 8, 16), (1, 1, 16, 32)),
        ((4, 1, 8, 16), (4, 1, 16, 32)),
        ((3,), (2, 3, 4)),
        ((2, 4, 3), (3,)),
        ((3,), (3,)),
    ],
)
def test_product_of_dynamic_sizes(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a, b = real(*left), real(*right, seed=1)
    check(node_model("MatMul", [a, b]), [a, b])
    check(node_model("MatMul", [a], constants={1: b}), [a])


def test_products_of_many_axes() -> None:
    model = parsed(
        """g (float[n, 2, 3, 2, 4, 5] a, float[n, 1, 3, 2, 5, 3] b) => (float[n, 2, 3, 2, 4, 3] y)
        {y = MatMul (a, b)}"""
    )
    check(model, *([real(n, 2, 3, 2, 4, 5), real(n, 1, 3, 2, 5, 3)] for n in (1, 3)))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_product_of_integers(dtype: Any) -> None:
    a, b = whole(2, 3, 4, dtype=dtype), whole(4, 5, dtype=dtype, seed=1)
    check(node_model("MatMul", [a, b]), [a, b])


@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("bias", [None, (4,), (1, 4), (2, 1), ()])
def test_gemm(transposed: tuple[int, int], bias: tuple[int, ...] | None) -> None:
    a = real(*((3, 2) if transposed[0] else (2, 3)))
    b = real(*((4, 3) if transposed[1] else (3, 4)), seed=1)
    constants = {1: b} if bias is None else {1: b, 2: real(*bias, seed=2)}
    options: dict[str, Any] = {"transA": transposed[0], "transB": transposed[1], "alpha": 0.5}
    if bias is not None:
        options["beta"] = 2.0
    model = node_model("Gemm", [a], opset=13, constants=constants, **options)
    check(model, [a], targets=["savedmodel"] if bias is None else ["savedmodel", "tflite"])


@pytest.mark.parametrize("order", [(1, 0), (0, 2, 1), (0, 2, 3, 1), (1, 0, 2, 3)])
def test_product_with_a_transpose(order: tuple[int, ...]) -> None:
    x = real(*(2, 3, 4, 5)[: len(order)])
    shape = [x.shape[axis] for axis in order]
    other = real(*shape[:-2], shape[-1], 6, seed=1)
    for position in (0, 1):
        names = ["t", "b"] if position == 0 else ["b", "t"]
        factor = other if position == 0 else np.swapaxes(real(*shape[:-2], shape[-2], 6), -1, -2)
        model = two_nodes(x, factor, order, names)
        check(model, [x, factor])


def two_nodes(x: Any, b: Any, order: tuple[int, ...], names: list[str]) -> onnx.ModelProto:
    """The product of a transposed tensor and another one."""
    sides = [("x", x), ("b", b)]
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=order),
            helper.make_node("MatMul", names, ["y"]),
        ],
        "g",
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [f"{name}{i}" for i in range(array.ndim)]
            )
            for name, array in sides
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("...ij,...jk", [(2, 1, 3, 4), (5, 4, 2)]),
        ("bii->b", [(2, 3, 3)]),
        ("ii,i", [(3, 3), (3,)]),
        ("a, b -> b a", [(2,), (3,)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("abc,cd->abd", [(2, 3, 4), (4, 5)]),
        ("bqhd,bkhd->bhqk", [(2, 3, 2, 4), (2, 5, 2, 4)]),
        ("i...->...", [(3, 2, 4)]),
        (",ij->ji", [(), (2, 3)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    inputs = [real(*shape, seed=i) for i, shape in enumerate(shapes)]
    model = node_model("Einsum", inputs, opset=12, equation=equation)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    check(model, inputs)


@pytest.mark.parametrize("equation", ["ij,ij->ij", "ij,ij->j", "ij,ij->", "ij,ik->kj"])
@pytest.mark.parametrize("position", [0, 1])
def test_a_constant_of_size_one_meets_all_of_a_dynamic_axis(equation: str, position: int) -> None:
    inputs: list[Any] = [None, None]
    inputs[1 - position] = real(3, 4)
    constants = {position: real(1, 4, seed=1)}
    model = node_model("Einsum", inputs, opset=12, constants=constants, equation=equation)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    check(model, [real(3, 4)], [real(1, 4)])


def test_capitals_of_an_equation_are_letters_of_their_own() -> None:
    inputs = [real(2, 3), real(3, 4, seed=1)]
    model = node_model("Einsum", inputs, opset=12, equation="Aa,aB")
    assert_answers(model, inputs, [inputs[0] @ inputs[1]])


def test_einsum_of_integers() -> None:
    inputs = [whole(2, 3, dtype=np.int32), whole(3, 4, dtype=np.int32, seed=1)]
    check(node_model("Einsum", inputs, opset=12, equation="ij,jk->k"), inputs)


def test_an_equation_must_fit_its_inputs() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        parse("ij->i", [3])


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_determinant_needs_exchanged_rows(rows: int) -> None:
    x = real(4, rows, rows)
    x[0, 0, 0] = 0
    x[1] = 0
    x[2] = np.eye(rows)[::-1]
    check(node_model("Det", [x], opset=11, dynamic=False), [x])


def test_determinant_of_unknown_size_has_no_builtin_form() -> None:
    model = node_model("Det", [real(3, 3)], opset=11)
    check(model, [real(3, 3)], targets=["savedmodel"])
    with pytest.raises(UnsupportedOpsError, match="determinants"):
        check(model, [real(3, 3)], targets=["tflite"])


# --- softmax -------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [2, -1])
def test_softmax_of_seven_axes(axis: int) -> None:
    x = real(2, 1, 3, 2, 2, 3, 2)
    check(node_model("Softmax", [x], axis=axis), [x])


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("opset", "axis"), [(11, 0), (11, 1), (11, -1), (13, 0), (13, 1)])
def test_softmax(op: str, opset: int, axis: int) -> None:
    x = real(2, 3, 4)
    check(node_model(op, [x], opset=opset, axis=axis), [x], [real(3, 2, 1) * 100])


# --- attention -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": 1}, {"softcap": 3.0, "scale": 0.3}],
    ids=["plain", "causal", "cap"],
)
@pytest.mark.parametrize("flat", [False, True])
def test_attention_of_dynamic_sizes(options: dict[str, Any], flat: bool) -> None:
    """Four heads of queries share two of keys, at two sizes."""
    feeds = [heads(2, 5, 7, flat), heads(1, 3, 3, flat)]
    counts = {"q_num_heads": 4, "kv_num_heads": 2} if flat else {}
    check(node_model("Attention", feeds[0], opset=23, **options, **counts), *feeds)


def heads(batch: int, queries: int, keys: int, flat: bool) -> list[Any]:
    shapes = [(4, queries, 8), (2, keys, 8), (2, keys, 8)]
    if flat:
        return [real(batch, n, h * size, seed=i) for i, (h, n, size) in enumerate(shapes)]
    return [real(batch, *shape, seed=i) for i, shape in enumerate(shapes)]


def test_a_query_that_sees_nothing_is_zero() -> None:
    inputs = heads(1, 3, 4, False)
    mask = np.zeros((3, 4), np.float32)
    mask[1] = -np.inf
    mask[2] = np.finfo(np.float32).min  # hidden alike, so no key is preferred
    model = node_model("Attention", [*inputs, mask], opset=24)
    mean = inputs[2].mean(2)[0, [0, 0, 1, 1]]
    for answer in answers(model, [*inputs, mask]):
        np.testing.assert_array_equal(answer[0][0, :, 1], 0)
        np.testing.assert_allclose(answer[0][0, :, 2], mean, rtol=1e-4, atol=1e-5)


def test_a_mask_may_be_shorter_than_the_keys() -> None:
    inputs = heads(2, 3, 6, False)
    mask = np.ones((3, 4), np.bool_)
    mask[0, 1] = False
    shorter = [inputs[0], inputs[1][:, :, :4], inputs[2][:, :, :4], mask]
    wanted = answers(node_model("Attention", shorter, opset=24), shorter, ["savedmodel"])[0]
    model = node_model("Attention", [*inputs, mask], opset=24)
    for answer in answers(model, [*inputs, mask]):
        np.testing.assert_allclose(answer[0], wanted[0], rtol=1e-4, atol=1e-5)


# --- ops that are functions ----------------------------------------------------------------


@pytest.mark.parametrize("past", [None, np.ones((1, 4, 2), np.float32)], ids=["none", "past"])
def test_the_body_of_a_function_knows_which_inputs_there_are(past: Any) -> None:
    """The bias is omitted: only the past before it, and the sum over the kernel, are left."""
    x, weight = real(1, 4, 6), np.ones((4, 1, 3), np.float32)
    inputs = [x, weight] if past is None else [x, weight, None, past]
    model = node_model("CausalConvWithState", inputs, opset=27, outputs=2, dynamic=False)
    before = np.zeros((1, 4, 2), np.float32) if past is None else past
    padded = np.concatenate([before, x], 2)
    feed = [x, weight] if past is None else [x, weight, past]
    expected = padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]
    assert_answers(model, feed, [expected, padded[..., -2:]])


def test_a_body_takes_the_defaults_of_the_op() -> None:
    a, b = real(2, 4), real(2, 4, seed=1)
    model = node_model("SwiGLU", [a, b], opset=28)
    expected = a / (1 + np.exp(-a)) * b
    assert_answers(model, [a, b], [expected])


def test_an_op_without_lowering_or_body_is_reported() -> None:
    model = node_model("NoSuchOp", [real(2)], opset=21)
    with pytest.raises(UnsupportedOpsError, match="NoSuchOp"):
        prepare(model, Target.SAVEDMODEL)


# --- ops of ONNX Runtime -------------------------------------------------------------------


@pytest.mark.parametrize(("flip_a", "flip_b"), [(0, 0), (0, 1), (1, 0)])
def test_fused_product(flip_a: int, flip_b: int) -> None:
    a, b = real(2, 3, 4), real(2, 4, 5, seed=1)
    inputs = [np.swapaxes(a, 1, 2).copy() if flip_a else a, np.swapaxes(b, 1, 2) if flip_b else b]
    options = {"alpha": 0.5, "transA": flip_a, "transB": flip_b}
    model = node_model(
        "FusedMatMul", inputs, opset=1, domain="com.microsoft", dynamic=False, **options
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    assert_answers(model, inputs, [0.5 * (a @ b)])


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Elu"])
def test_fused_gemm(activation: str) -> None:
    a, b, c = real(2, 3), real(3, 4, seed=1), real(4, seed=2)
    options = {"activation": activation, "activation_alpha": 0.1}
    model = node_model("FusedGemm", [a, b, c], opset=1, domain="com.microsoft", **options)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    if activation == "Elu":
        with pytest.raises(UnsupportedOpsError, match="Elu"):
            answers(model, [a, b, c])
        return
    total = a @ b + c
    slope = 0.1 if activation == "LeakyRelu" else 0.0
    assert_answers(model, [a, b, c], [np.where(total > 0, total, slope * total)])


def test_skip_layer_normalization() -> None:
    inputs = [real(2, 3, 8), real(2, 3, 8, seed=1), real(8, seed=2), real(8, seed=3)]
    model = node_model("SkipLayerNormalization", inputs, opset=1, domain="com.microsoft")
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    check(model, inputs)


# --- training ------------------------------------------------------------------------------


def test_momentum_of_an_unknown_mode_is_refused() -> None:
    inputs = [np.float32(0.1), np.int64(1), real(2), real(2), real(2)]
    options = {"alpha": 0.9, "beta": 0.1, "norm_coefficient": 0.0, "mode": "heavy"}
    domain = "ai.onnx.preview.training"
    model = node_model("Momentum", inputs, opset=1, domain=domain, outputs=2, **options)
    with pytest.raises((UnsupportedOpsError, ConversionError), match="heavy"):
        check(model, inputs, targets=["savedmodel"])


def answers(
    model: onnx.ModelProto, feed: list[Any], targets: Any = ("savedmodel", "tflite")
) -> Any:
    """What the artifacts of a model answer."""
    results = []
    for target in targets:
        with tempfile.TemporaryDirectory() as scratch:
            results.append(RUNNERS[target](model, Path(scratch))(feed))
    return results


def assert_answers(model: onnx.ModelProto, feed: list[Any], expected: list[Any]) -> None:
    for answer in answers(model, feed):
        for got, want in zip(answer, expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
