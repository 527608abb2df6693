"""Filters of convolutions as constants of a saved graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf

from modelpack.adapters import savedmodel_filters
from modelpack.lowering.context import Target
from modelpack.lowering.filters import STAND_IN, Filters
from modelpack.lowering.model import Lowered, prepare
from modelpack.lowering.value import Weights
from tests.lowering.nodes import check, node_model, reference

RANDOM = np.random.default_rng(11)


def real(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def model_of(filter_: Any, **attributes: Any) -> onnx.ModelProto:
    channels = filter_.shape[1] * attributes.get("group", 1)
    return node_model("Conv", [real(2, channels, 7, 6)], constants={1: filter_}, **attributes)


def saved(model: onnx.ModelProto, directory: Path, room: int) -> tuple[Filters, Lowered]:
    """Save a model of one input with its filters put in."""
    filters = Filters(room)
    module = Lowered(prepare(model, Target.SAVEDMODEL), Target.SAVEDMODEL, weights=Weights(filters))
    function = module.function([tf.TensorSpec([None] * 4, tf.float32, "x")])
    concrete = function.get_concrete_function()
    tf.saved_model.save(module, str(directory), signatures={"serving_default": concrete})
    savedmodel_filters.put_in(directory, filters)
    return filters, module


def nodes_of(directory: Path) -> list[Any]:
    from tensorflow.core.protobuf import saved_model_pb2

    content = (directory / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def
    return [node for function in graph.library.function for node in function.node_def]


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((16, 12, 3, 3), {"pads": [1, 1, 1, 1]}),
    "groups": ((16, 8, 3, 3), {"group": 2}),
    "depthwise": ((96, 1, 3, 3), {"group": 96, "strides": [2, 2]}),
    "depthwise, two of each": ((96, 1, 3, 3), {"group": 48}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_filter_feeds_its_convolution_as_a_constant(name: str, tmp_path: Path) -> None:
    shape, attributes = CONVOLUTIONS[name]
    model = model_of(real(*shape), **attributes)
    filters, module = saved(model, tmp_path, room=1 << 20)
    assert len(filters) == 1
    assert not module.constants
    nodes = nodes_of(tmp_path)
    convolution = next(node for node in nodes if "Conv2d" in node.op or node.op == "Conv2D")
    source = convolution.input[1].split(":")[0]
    constant = next(node for node in nodes if node.name == source)
    assert constant.op == "Const"
    assert STAND_IN not in constant.attr

    run = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    for batch, height in ((1, 7), (3, 12)):
        x = real(batch, shape[1] * attributes.get("group", 1), height, 6)
        answer = next(iter(run(tf.constant(x)).values())).numpy()
        np.testing.assert_allclose(answer, reference(model, [x])[0], rtol=1e-4, atol=1e-4)


def test_a_filter_without_room_is_a_variable(tmp_path: Path) -> None:
    filter_ = real(16, 12, 3, 3)
    filters, module = saved(model_of(filter_), tmp_path, room=filter_.nbytes - 1)
    assert len(filters) == 0
    assert [variable.shape.as_list() for variable in module.constants] == [[3, 3, 12, 16]]


def test_files_depend_on_the_filters_alone(tmp_path: Path) -> None:
    filter_ = real(16, 12, 3, 3)
    contents = []
    for name, values in (("a", filter_), ("b", filter_), ("c", filter_ + 1)):
        filters = Filters(1 << 20)
        filters.add(values.shape, tf.float32, lambda values=values: values)
        (tmp_path / name).mkdir()
        node = stand_in_node(filters)
        write_graph_of(tmp_path / name, node)
        savedmodel_filters.put_in(tmp_path / name, filters)
        contents.append((tmp_path / name / "saved_model.pb").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def stand_in_node(filters: Filters) -> Any:
    """A stand-in's node, as a function of a saved graph has it."""
    with tf.Graph().as_default():
        return filters.stand_in(0, (16, 12, 3, 3), tf.float32).op.node_def


def write_graph_of(directory: Path, node: Any) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.meta_graphs.add().graph_def.library.function.add().node_def.append(node)
    (directory / "saved_model.pb").write_bytes(model.SerializeToString())


@pytest.mark.parametrize("rank", [1, 2])
def test_a_convolution_of_one_point_is_a_product(rank: int) -> None:
    shape = (2, 24) + (1,) * rank
    kernel = real(40, 24, *(1,) * rank)
    model = node_model("Conv", [real(*shape)], constants={1: kernel, 2: real(40)}, dynamic=False)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    check(model, [real(*shape)], [real(5, *shape[1:])], rtol=1e-4, atol=1e-5)
    module = Lowered(prepare(model, Target.SAVEDMODEL), Target.SAVEDMODEL)
    function = module.function([tf.TensorSpec([None, *shape[1:]], tf.float32)])
    ops = {op.type for op in function.get_concrete_function().graph.get_operations()}
    assert "MatMul" in ops
    assert "Conv2D" not in ops
