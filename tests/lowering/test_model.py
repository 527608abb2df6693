"""Whole models: refusals, constants, what is known of shapes, weights, functions, subgraphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

from modelpack.errors import UnsupportedOpsError
from modelpack.lowering.context import Target
from modelpack.lowering.model import Lowered, prepare
from tests.lowering.nodes import check, parsed

F = np.float32


def lowered(model: onnx.ModelProto, *specs: tf.TensorSpec) -> tuple[Lowered, Any]:
    """The module and its concrete function."""
    module = Lowered(prepare(model, Target.SAVEDMODEL), Target.SAVEDMODEL)
    return module, module.function(specs).get_concrete_function()


def ops_of(function: Any) -> list[str]:
    """Types of the ops of a concrete function."""
    return [op.type for op in function.graph.get_operations()]


def test_every_unsupported_op_is_listed_with_its_nodes_before_any_work() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"], name="fine"),
            helper.make_node("Fooo", ["a"], ["b"], name="first", domain="com.microsoft"),
            helper.make_node("Baar", ["b"], ["c"], name="second", domain="com.microsoft"),
            helper.make_node("Fooo", ["c"], ["y"], name="third", domain="com.microsoft"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    with pytest.raises(UnsupportedOpsError) as caught:
        prepare(helper.make_model(graph, opset_imports=opsets), Target.SAVEDMODEL)
    assert "Baar (since 1): second" in caught.value.message
    assert "Fooo (since 1): first, third" in caught.value.message
    assert "fine" not in caught.value.message


def test_shape_arithmetic_is_done_at_conversion() -> None:
    model = parsed(
        """g (float[n, 3, 4] x) => (float[n, 12] y) {
            shape = Shape(x)
            zero = Constant<value_ints = [0]>()
            one = Constant<value_ints = [1]>()
            three = Constant<value_ints = [3]>()
            batch = Slice(shape, zero, one)
            rest = Slice(shape, one, three)
            size = ReduceProd(rest)
            wanted = Concat<axis = 0>(batch, size)
            y = Reshape(x, wanted)
        }"""
    )
    _, function = lowered(model, tf.TensorSpec([None, 3, 4], tf.float32))
    assert function.structured_outputs[0].shape.as_list() == [None, 12]
    reshape = next(op for op in function.graph.get_operations() if op.type == "Reshape")
    assert reshape.inputs[1].op.type == "Const"
    check(model, [np.ones((2, 3, 4), F)], [np.ones((5, 3, 4), F)])


def test_the_rank_of_a_reshape_with_several_dynamic_sizes_is_known() -> None:
    model = parsed(
        """g (float[n, m, 6] x) => (float[n, m, 2, 3] y) {
            shape = Shape<start = 0, end = 2>(x)
            heads = Constant<value_ints = [2, 3]>()
            wanted = Concat<axis = 0>(shape, heads)
            y = Reshape(x, wanted)
        }"""
    )
    _, function = lowered(model, tf.TensorSpec([None, None, 6], tf.float32))
    assert function.structured_outputs[0].shape.as_list() == [None, None, 2, 3]
    feeds = [[np.random.default_rng(n).standard_normal((n, m, 6), F)] for n, m in ((1, 4), (3, 2))]
    check(model, *feeds)


def test_large_constants_are_variables_and_small_ones_are_not(tmp_path: Path) -> None:
    model = parsed(
        "g (float[n, 64] x, float[64, 64] w, float[64] b) => (float[n, 64] y) {"
        "h = MatMul(x, w)\n y = Add(h, b)}"
    )
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((64, 64), F), rng.standard_normal(64, F)
    del model.graph.input[1:]
    model.graph.initializer.extend(
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")]
    )
    module, function = lowered(model, tf.TensorSpec([None, 64], tf.float32))
    assert [v.shape.as_list() for v in module.constants] == [[64, 64]]
    tf.saved_model.save(module, str(tmp_path), signatures=function)
    assert (tmp_path / "saved_model.pb").stat().st_size < w.nbytes
    check(model, [rng.standard_normal((3, 64), F)])


def test_one_constant_used_twice_is_one_variable() -> None:
    model = parsed(
        "g (float[n, 64] x, float[64, 64] w) => (float[n, 64] y) {"
        "h = MatMul(x, w)\n y = MatMul(h, w)}"
    )
    del model.graph.input[1:]
    model.graph.initializer.append(numpy_helper.from_array(np.ones((64, 64), F), "w"))
    module, _ = lowered(model, tf.TensorSpec([None, 64], tf.float32))
    assert len(module.constants) == 1


def test_tracing_again_makes_no_further_variables() -> None:
    model = parsed("g (float[n, 64] x, float[64, 64] w) => (float[n, 64] y) {y = MatMul(x, w)}")
    del model.graph.input[1:]
    model.graph.initializer.append(numpy_helper.from_array(np.ones((64, 64), F), "w"))
    module, _ = lowered(model, tf.TensorSpec([None, 64], tf.float32))
    module.function([tf.TensorSpec([1, 64], tf.float32)]).get_concrete_function()
    assert len(module.constants) == 1


def test_functions_of_the_model_are_inlined() -> None:
    model = parsed(
        """g (float[n] x) => (float[n] y) {
            h = own.twice(x)
            y = own.twice(h)
        }
        <domain: "own", opset_import: ["" : 20]>
        twice (a) => (b) { b = Add(a, a) }"""
    )
    check(model, [np.array([1, -2, 3], F)])


def with_function(op_type: str, opset: int) -> onnx.ModelProto:
    """A model of opset 17 that calls a function of another one."""
    return parsed(
        f"""g (float[n, 4] x) => (float[n, 4] y) {{ y = own.made(x) }}
        <domain: "own", opset_import: ["" : {opset}]>
        made (a) => (b) {{ b = {op_type}(a) }}""",
        opset=17,
    )


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_a_function_of_another_opset_is_inlined_if_its_ops_mean_the_same(opset: int) -> None:
    check(with_function("Relu", opset), [np.array([[1, -2, 3, -4]], F)])


def test_a_function_whose_ops_mean_something_else_is_refused() -> None:
    with pytest.raises(UnsupportedOpsError, match="own::made: Softmax"):
        prepare(with_function("Softmax", 11), Target.SAVEDMODEL)


def test_a_constant_of_a_subgraph_and_an_outer_value_are_seen_in_it() -> None:
    model = parsed(
        """g (float[n] x, bool c) => (float[n] y) {
            outer = Relu(x)
            y = If(c) <
                then_branch = t () => (float[n] a) {
                    two = Constant<value_float = 2.0>()
 a = Mul(outer, two)
                },
                else_branch = e () => (float[n] b) {b = Neg(outer)}
            >
        }"""
    )
    x = np.array([1, -2, 3], F)
    check(model, [x, np.array(True)], [x, np.array(False)])


def test_images_can_be_exchanged_channel_last() -> None:
    model = parsed("g (float[n, 3, 4, 5] x) => (float[n, 3, 4, 5] y) {y = Relu(x)}")
    prepared = prepare(model, Target.SAVEDMODEL)
    module = Lowered(prepared, Target.SAVEDMODEL, frozenset({"x", "y"}))
    function = module.function([tf.TensorSpec([None, 4, 5, 3], tf.float32)]).get_concrete_function()
    assert "Transpose" not in ops_of(function)
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3), F)
    np.testing.assert_array_equal(function(tf.constant(x))[0], np.maximum(x, 0))


def test_a_model_without_inputs_keeps_its_constants() -> None:
    model = parsed("g () => (float[400] y) {y = Abs(c)}")
    model.graph.initializer.append(numpy_helper.from_array(-np.arange(400, dtype=F), "c"))
    check(model, [], targets=["savedmodel"])


def test_parts_of_a_transposed_tensor_share_its_transpose() -> None:
    model = parsed(
        """own (float[n, 5, 3, 2, 4] x) => (float[n, 2, 5, 4] q,
                float[n, 2, 5, 4] k, float[n, 2, 5, 4] v) {
            zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> ()
            two = Constant <value_ints = [2]> () three = Constant <value_ints = [3]> ()
            t = Transpose <perm = [2, 0, 3, 1, 4]> (x)
            a = Slice (t, zero, one, zero) q = Squeeze (a, zero)
            b = Slice (t, one, two, zero) k = Squeeze (b, zero)
            c = Slice (t, two, three, zero) v = Squeeze (c, zero)
        }"""
    )
    _, function = lowered(model, tf.TensorSpec([None, 5, 3, 2, 4], tf.float32))
    assert ops_of(function).count("Transpose") == 1
    check(model, [np.random.default_rng(0).standard_normal((2, 5, 3, 2, 4)).astype(F)])
