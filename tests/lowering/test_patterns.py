"""Groups of nodes that stand for one op: found as exporters write them, and left otherwise."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tensorflow as tf

from modelpack.lowering.context import Target
from modelpack.lowering.model import Lowered, prepare
from tests.lowering.nodes import check, parsed

F = np.float32


def ops_of(model: onnx.ModelProto) -> list[str]:
    """The types of the nodes that are lowered."""
    return [node.op_type for node in prepare(model, Target.TFLITE).graph.node]


def transposes(model: onnx.ModelProto, *specs: tf.TensorSpec) -> int:
    """How many there are in the TensorFlow graph for TFLite."""
    module = Lowered(prepare(model, Target.TFLITE), Target.TFLITE)
    graph = module.function(specs).get_concrete_function().graph
    return [op.type for op in graph.get_operations()].count("Transpose")


def ramp(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, F)


# --- Gelu ------------------------------------------------------------------------------------

GELUS = {
    "divided": "s = Div(x, root) e = Erf(s) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
    "scaled": "s = Mul(inverse, x) e = Erf(s) a = Add(one, e) m = Mul(a, x) y = Mul(half, m)",
    "halved": "h = Mul(x, half) s = Div(x, root) e = Erf(s) a = Add(e, one) y = Mul(h, a)",
}
CONSTANTS = (
    "root = Constant<value = float {1.4142135}>() inverse = Constant<value = float {0.70710677}>() "
    "one = Constant<value = float {1.0}>() half = Constant<value = float {0.5}>() "
)


@pytest.mark.parametrize("form", GELUS)
def test_the_parts_of_a_gelu_become_one(form: str) -> None:
    model = parsed(f"g (float[n, 3] x) => (float[n, 3] y) {{{CONSTANTS}{GELUS[form]}}}")
    assert "Gelu" in ops_of(model)
    assert "Erf" not in ops_of(model)
    check(model, [ramp(4, 3) * 3])


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (GELUS["divided"].replace("half)", "one)"), "float[n, 3] y"),
        (GELUS["divided"].replace("Mul(x, a)", "Mul(s, a)"), "float[n, 3] y"),
        (GELUS["divided"], "float[n, 3] y, float[n, 3] e"),
    ],
    ids=["another scale", "another factor", "a part is an output"],
)
def test_what_only_looks_like_a_gelu_is_left(body: str, outputs: str) -> None:
    model = parsed(f"g (float[n, 3] x) => ({outputs}) {{{CONSTANTS}{body}}}")
    assert "Gelu" not in ops_of(model)
    check(model, [ramp(4, 3)])


# --- GroupNormalization ----------------------------------------------------------------------

GROUPS = """g (float[n, 4, h, w] x) => (float[n, 4, h, w] y) {
    rows = Constant<value_ints = [0, 2, -1]>()
    ones = Constant<value_floats = [1.0, 1.0]>()
    zeros = Constant<value_floats = [0.0, 0.0]>()
    kernel = Constant<value_floats = [0.5, 2.0, -1.0, 0.3]>()
    channels = Constant<value_ints = [-1, 1, 1, 1]>()
    weight = Reshape(kernel, channels)
    image = Conv<group = 4>(x, weight)
    merged = Reshape(image, rows)
    normal = InstanceNormalization<epsilon = 1e-2>(merged, ones, zeros)
    shape = Shape(image)
    y = Reshape(normal, shape)
}"""


@pytest.mark.parametrize("opset", [12, 17, 20])
def test_the_parts_of_a_group_normalization_become_one(opset: int) -> None:
    model = parsed(GROUPS, opset)
    assert "GroupStandardization" in ops_of(model)
    assert "InstanceNormalization" not in ops_of(model)
    check(model, [ramp(2, 4, 5, 3)], [ramp(1, 4, 2, 6)])


def test_a_group_normalization_between_convolutions_needs_no_transpose() -> None:
    text = GROUPS.replace("y = Reshape", "back = Reshape")
    model = parsed(text.replace("}", "y = Conv<group = 4>(back, weight)}"))
    check(model, [ramp(2, 4, 5, 3)])
    assert transposes(model, tf.TensorSpec([None, 4, None, None])) == 2


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("[1.0, 1.0]", "[1.0, 2.0]"),
        ("[0.0, 0.0]", "[0.0, 0.5]"),
        ("Shape(image)", "Constant<value_ints = [0, 4, -1, 3]>()"),
    ],
    ids=["scaled by group", "shifted by group", "into another shape"],
)
def test_what_only_looks_like_a_group_normalization_is_left(part: str, other: str) -> None:
    model = parsed(GROUPS.replace(part, other))
    assert "GroupStandardization" not in ops_of(model)
    check(model, [ramp(2, 4, 5, 3)])


# --- transposed matrices ---------------------------------------------------------------------

KEYS = """g (float[n, 2, m, 3] q, float[n, 2, m, 3] k) => (float[n, 2, m, m] y) {
    open = Constant<value_ints = [-1]>()
    last = Constant<value_ints = [-1]>()
    before = Constant<value_ints = [-2]>()
    end = Constant<value_ints = [9223372036854775807]>()
    begin = Constant<value_ints = [-9223372036854775808]>()
    shape = Shape(k)
    columns = Slice(shape, last, end)
    rows = Slice(shape, before, last)
    lead = Slice(shape, begin, before)
    merged = Concat<axis = 0>(open, rows, columns)
    flat = Reshape(k, merged)
    flipped = Transpose<perm = [0, 2, 1]>(flat)
    split = Concat<axis = 0>(lead, columns, rows)
    keys = Reshape(flipped, split)
    y = MatMul(q, keys)
}"""


def test_a_transpose_between_reshapes_becomes_one_of_matrices() -> None:
    model = parsed(KEYS)
    assert "MatrixTranspose" in ops_of(model)
    assert "Reshape" not in ops_of(model)
    check(model, [ramp(2, 2, 5, 3), ramp(2, 2, 5, 3) + 1], [ramp(1, 2, 1, 3)] * 2)


def test_the_product_takes_transposed_matrices_as_they_are() -> None:
    assert transposes(parsed(KEYS), *[tf.TensorSpec([None, 2, None, 3])] * 2) == 0


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("(open, rows, columns)", "(open, columns, rows)"),
        ("(lead, columns, rows)", "(lead, rows, columns)"),
        ("Shape(k)", "Shape(q)"),
        (
            "begin = Constant<value_ints = [-9223372036854775808]>",
            "begin = Constant<value_ints = [1]>",
        ),
    ],
    ids=["exchanged before", "exchanged after", "of another tensor", "another lead"],
)
def test_what_only_looks_like_a_transpose_is_left(part: str, other: str) -> None:
    assert "MatrixTranspose" not in ops_of(parsed(KEYS.replace(part, other)))


# --- softmax ---------------------------------------------------------------------------------

SOFTMAX = """g (float[n, 3, m] x) => (float[n, 3, m] y) {
    p = Softmax<axis = 1>(x)
    lost = IsNaN(p)
    zero = Constant<value_float = 0.0>()
    y = Where(lost, zero, p)
}"""


def test_rows_of_nan_become_zeros() -> None:
    model = parsed(SOFTMAX)
    assert "NanRowsZeroed" in ops_of(model)
    x = ramp(2, 3, 4)
    x[0, :, 1] = -np.inf
    x[1, 0, 3] = np.inf
    check(model, [x])


@pytest.mark.parametrize(
    ("part", "other"),
    [("Softmax<axis = 1>", "Sqrt"), ("float = 0.0", "float = 1.0"), ("zero, p)", "zero, x)")],
    ids=["of no softmax", "not by zeros", "in another tensor"],
)
def test_nan_elsewhere_is_replaced_one_by_one(part: str, other: str) -> None:
    model = parsed(SOFTMAX.replace(part, other))
    assert "NanRowsZeroed" not in ops_of(model)
    x = ramp(2, 3, 4)
    x[0, :, 1] = -np.inf
    check(model, [x])


@pytest.mark.parametrize("op", ["Gelu", "Erf"])
def test_transpositions_around_gelu_do_not_part_it(op: str) -> None:
    """TFLite's converter finds it by its form, and has no kernel for what it consists of."""
    text = f"""g (float[b, 4, 8] x, float[b, 8, 2, 2] z, float[8, 8, 1, 1] w)
        => (float[b, 8, 2, 2] y)
    <int64[4] shape = {{-1, 8, 2, 2}}>
    {{
        turned = Transpose<perm = [0, 2, 1]>(x)
        image = Reshape(turned, shape)
        sum = Add(image, z)
        active = {op}(sum)
        y = Conv(active, w)
    }}"""
    rng = np.random.default_rng(7)
    feed = [rng.normal(size=size).astype(np.float32) for size in ((3, 4, 8), (3, 8, 2, 2))]
    weights = rng.normal(size=(8, 8, 1, 1)).astype(np.float32)
    model = parsed(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    del model.graph.input[2]
    check(model, feed, targets=("tflite",))
