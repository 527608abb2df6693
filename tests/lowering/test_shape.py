"""Ops on shapes, slices and pads beyond ONNX's own tests: dynamic sizes, old versions, edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper

from modelpack.errors import ModelpackError
from modelpack.lowering import layout, sizes
from modelpack.lowering.regrouping import reshaped
from modelpack.lowering.value import Value
from tests.lowering.nodes import check, node_model, parsed

_RANDOM = np.random.default_rng(7)


def _floats(*shape: int) -> Any:
    return _RANDOM.normal(size=shape).astype(np.float32)


def _scalar(value: float) -> Any:
    return np.array(value, np.float32)


def _ints(*values: Any) -> Any:
    return np.array(values, np.int64)


# op, opset, shapes of the data fed, the other inputs as constants, attributes
CONSTANT = [
    ("Reshape", 13, [(2, 3, 4), (5, 3, 4)], [_ints(0, -1)], {}),
    ("Reshape", 21, [(2, 3, 4), (5, 3, 2)], [_ints(0, 0, 2, -1)], {}),
    ("Reshape", 21, [(4, 3)], [_ints(2, 2, 3)], {"allowzero": 1}),
    ("Squeeze", 11, [(1, 3, 1, 2), (1, 1, 1, 5)], [], {"axes": [0, -2]}),
    ("Squeeze", 13, [(3, 1), (1, 1)], [_ints(1)], {}),
    ("Unsqueeze", 11, [(3, 2), (1, 4)], [], {"axes": [3, 0]}),
    ("Unsqueeze", 21, [(3, 2), (1, 4)], [_ints(-1, 1)], {}),
    ("Flatten", 9, [(2, 3, 4), (1, 2, 2)], [], {"axis": 2}),
    ("Flatten", 13, [(2, 3, 4), (1, 2, 2)], [], {"axis": -2}),
    ("Size", 13, [(2, 3), (4, 5)], [], {}),
    ("Shape", 21, [(2, 3, 4), (5, 6, 7)], [], {"start": 1, "end": -1}),
    ("Split", 11, [(4, 6), (2, 6)], [], {"axis": 1, "split": [1, 3, 2]}),
    ("Split", 18, [(3, 7), (2, 6), (1, 5)], [], {"axis": 1, "num_outputs": 3}),
    ("Slice", 1, [(5, 6), (3, 9)], [], {"starts": [1, -3], "ends": [9999, -1], "axes": [0, 1]}),
    ("Slice", 13, [(5, 6), (3, 4)], [_ints(-1), _ints(-(2**63)), _ints(0), _ints(-2)], {}),
    ("Slice", 13, [(5, 6), (3, 4)], [_ints(-4), _ints(-(2**63)), _ints(0), _ints(-1)], {}),
    ("Slice", 13, [(5, 6), (8, 4)], [_ints(1, 0), _ints(2**63 - 1, 3)], {}),
    ("Expand", 13, [(3, 1), (1, 1)], [_ints(2, 1, 4)], {}),
    ("Expand", 8, [(2, 3, 4)], [_ints(3, 1)], {}),
    ("Tile", 13, [(2, 3), (1, 2)], [_ints(2, 3)], {}),
    ("Pad", 2, [(2, 3), (4, 5)], [], {"pads": [0, 1, 2, -1], "value": 1.5}),
    ("Pad", 13, [(2, 3), (4, 5)], [_ints(1, -1, 0, 2), np.float32(2.5)], {}),
    ("Pad", 21, [(2, 4), (4, 6)], [_ints(0, 1, 1, 3)], {"mode": "edge"}),
    ("Pad", 21, [(2, 4), (4, 6)], [_ints(1, 2, 0, 3)], {"mode": "reflect"}),
    ("Pad", 21, [(2, 4), (4, 6)], [_ints(0, 1, 1, 3)], {"mode": "wrap"}),
    ("EyeLike", 9, [(3, 5), (4, 2)], [], {"k": -1, "dtype": TensorProto.INT64}),
    ("DepthToSpace", 13, [(2, 8, 2, 3), (1, 8, 1, 1)], [], {"blocksize": 2, "mode": "CRD"}),
]


@pytest.mark.parametrize(
    ("op", "opset", "shapes", "constants", "attributes"),
    CONSTANT,
    ids=[f"{op}-{opset}-{i}" for i, (op, opset, *_) in enumerate(CONSTANT)],
)
def test_constant_operands(
    op: str, opset: int, shapes: list[Any], constants: list[Any], attributes: dict[str, Any]
) -> None:
    feeds = [(_floats(*shape),) for shape in shapes]
    others = {i + 1: constant for i, constant in enumerate(constants)}
    outputs = 3 if op == "Split" else 1
    keep = op == "DepthToSpace"  # needs its number of channels
    model = node_model(
        op, feeds[0], opset=opset, constants=others, outputs=outputs, dynamic=not keep, **attributes
    )
    check(model, *(feeds[:1] if keep else feeds), rtol=0, atol=0)


COMPUTED = [
    ("Reshape", 13, [[_floats(2, 6), _ints(0, 2, -1)], [_floats(3, 4), _ints(-1, 0, 1)]], {}),
    ("Reshape", 13, [[_floats(2, 6), _ints(3, 4, 1)], [_floats(3, 4), _ints(0, 2, 2)]], {}),
    ("Expand", 13, [[_floats(2, 1), _ints(1, 3)], [_floats(1, 4), _ints(2, 1)]], {}),
    ("Tile", 13, [[_floats(2, 1), _ints(1, 3)], [_floats(1, 4), _ints(2, 5)]], {}),
    (
        "Slice",
        13,
        [
            [_floats(5, 6), _ints(-3, 1), _ints(2**63 - 1, -1), _ints(1, 0), _ints(2, 1)],
            [_floats(4, 3), _ints(-1, 9), _ints(-(2**63), -9), _ints(0, 1), _ints(-1, -2)],
        ],
        {},
    ),
    ("Pad", 18, [[_floats(3, 4), _ints(1, -1), _scalar(2), _ints(-1)]], {}),
    (
        "Pad",
        13,
        [[_floats(3, 4), _ints(2, 0, 0, 3)], [_floats(5, 5), _ints(0, -1, 4, 3)]],
        {"mode": "reflect"},
    ),
    ("Squeeze", 13, [[_floats(1, 3, 1), _ints(-1, 0)], [_floats(2, 1, 1), _ints(1, 2)]], {}),
    ("Unsqueeze", 13, [[_floats(2, 3), _ints(-1, 0)], [_floats(1, 5), _ints(1, 2)]], {}),
    ("Range", 11, [[_scalar(1), _scalar(2), _scalar(0.3)]], {}),
    ("Range", 11, [[np.array(9), np.array(-1), np.array(-3)]], {}),
    ("ConstantOfShape", 9, [[_ints(2, 3)], [_ints(4, 1)]], {}),
]


@pytest.mark.parametrize(
    ("op", "opset", "feeds", "attributes"),
    COMPUTED,
    ids=[f"{op}-{i}" for i, (op, *_) in enumerate(COMPUTED)],
)
def test_operands_given_at_run_time(
    op: str, opset: int, feeds: list[list[Any]], attributes: dict[str, Any]
) -> None:
    model = node_model(op, feeds[0], opset=opset, **attributes)
    # The number of sizes or axes is known, so that the rank is.
    for info, array in zip(model.graph.input, feeds[0], strict=True):
        if array.dtype == np.int64 and array.ndim:
            info.type.tensor_type.shape.dim[0].dim_value = len(array)
    check(model, *feeds, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint64", "bool"])
@pytest.mark.parametrize("op", ["Concat", "Slice", "Expand", "Pad"])
def test_dtypes_that_kernels_lack(op: str, dtype: str) -> None:
    data = np.arange(6).reshape(2, 3).astype(dtype)
    constants = {
        "Concat": {},
        "Slice": {1: _ints(1), 2: _ints(3), 3: _ints(1)},
        "Expand": {1: _ints(2, 2, 3)},
        "Pad": {1: _ints(0, 1, 1, 0)},
    }[op]
    inputs = [data, data] if op == "Concat" else [data]
    attributes = {"axis": 1} if op == "Concat" else {}
    model = node_model(op, inputs, opset=21, constants=constants, **attributes)
    check(model, inputs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value_float": 1.5}, np.float32(1.5)),
        ({"value_floats": [1.0, 2.0]}, np.array([1, 2], np.float32)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [3, 4]}, _ints(3, 4)),
    ],
)
def test_forms_of_constants(attributes: dict[str, Any], expected: Any) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], **attributes),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    element = helper.np_dtype_to_tensor_dtype(expected.dtype)
    infos = [helper.make_tensor_value_info(name, element, ["n"]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    check(model, [np.zeros(2, expected.dtype)], rtol=0, atol=0)


def test_squeeze_of_unknown_sizes_is_refused() -> None:
    model = node_model("Squeeze", [_floats(1, 3)], opset=13)
    with pytest.raises(ModelpackError, match="depends on dynamic sizes"):
        check(model, [_floats(1, 3)])


def _chain(*nodes: Any, shape: list[Any], constants: dict[str, Any]) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", infos, results, weights)
    opsets = [helper.make_opsetid("", 17)]
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8)
    )


def test_heads_of_attention_with_two_dynamic_sizes() -> None:
    """Shape, Gather, Unsqueeze, Concat, Reshape, as exporters write them."""
    node = helper.make_node
    model = _chain(
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["b"]),
        node("Gather", ["s", "one"], ["n"]),
        node("Unsqueeze", ["b", "axis"], ["b1"]),
        node("Unsqueeze", ["n", "axis"], ["n1"]),
        node("Concat", ["b1", "n1", "heads", "rest"], ["wanted"], axis=0),
        node("Reshape", ["x", "wanted"], ["split"]),
        node("Transpose", ["split"], ["y"], perm=[0, 2, 1, 3]),
        shape=["batch", "length", 12],
        constants={
            "zero": np.int64(0),
            "one": np.int64(1),
            "axis": _ints(0),
            "heads": _ints(3),
            "rest": _ints(4),
        },
    )
    check(model, [_floats(2, 5, 12)], [_floats(1, 1, 12)], [_floats(3, 7, 12)], rtol=0, atol=0)


LAYOUT = [
    ((2, 6, 4, 5), (2, 6, 20)),
    ((2, 6, 4, 5), (2, 2, 3, 4, 5)),
    ((2, 6, 4, 5), (2, 1, 6, 4, 5, 1)),
    ((2, 6, 1, 1), (2, 6)),
    ((2, 6, 4, 5), (-1, 5)),
    ((2, 6, 4, 5), (12, 4, 5)),
]


@pytest.mark.parametrize(("shape", "wanted"), LAYOUT)
@pytest.mark.parametrize("dynamic", [False, True])
def test_reshape_of_what_is_held_channel_last(shape: Any, wanted: Any, dynamic: bool) -> None:
    data = _floats(*shape)

    @tf.function(autograph=False)
    def run(held: Any) -> Any:
        return reshaped(layout.from_channel_last(held), wanted).tensor

    spec = tf.TensorSpec([None if dynamic else 2, *shape[2:], shape[1]])
    answer = run.get_concrete_function(spec)(tf.constant(data.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(answer, data.reshape(wanted))


@pytest.mark.parametrize(
    ("wanted", "transposes"), [((-1, 6, 20), 0), ((-1, 2, 3, 4, 5), 0), ((-1, 120), 1)]
)
def test_reshape_keeps_the_layout_where_it_can(wanted: Any, transposes: int) -> None:
    @tf.function(autograph=False)
    def run(held: Any) -> Any:
        return reshaped(layout.from_channel_last(held), wanted).held

    graph = run.get_concrete_function(tf.TensorSpec([None, 4, 5, 6])).graph
    assert sum(op.type == "Transpose" for op in graph.get_operations()) == transposes


def test_sizes_are_static_where_all_are_known() -> None:
    assert sizes.product([2, 3]) == 6
    assert isinstance(sizes.pack([2, 3]), np.ndarray)
    assert Value(const=_ints(4, 5)).sizes() == [4, 5]


@pytest.mark.parametrize("op", ["Add", "Div", "Mul", "Sub"])
@pytest.mark.parametrize("times", [[2, 1], [1, 3], [2, 3]])
def test_arithmetic_behind_a_tile_of_a_dynamic_axis(op: str, times: list[int]) -> None:
    text = f"""g (float[n, m] x) => (float[a, b] y) {{
        times = Constant<value_ints = {times}>()
        t = Tile(x, times)
        c = Constant<value_float = 2.0>()
        y = {op}(t, c)
    }}"""
    check(parsed(text), [_floats(3, 2)], [_floats(1, 5)])
