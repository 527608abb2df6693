"""TensorFlow graphs are converted to ONNX without their weights, which are bound afterwards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from modelpack.adapters import onnx_weights, tensorflow_onnx
from modelpack.adapters.keras_tracing import plain_convolution
from modelpack.adapters.onnx_canonical import canonicalize
from modelpack.adapters.tensorflow_freezing import captured, frozen
from modelpack.errors import ConversionError
from modelpack.signature import DType, Signature, TensorSpec
from modelpack.steps import StepOptions

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

layers = keras.layers
RTOL, ATOL = 1e-5, 1e-6


def network() -> Any:
    """Filters of every kind, with norms behind them, in front of two matrices."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 8), name="image")
    x = layers.Conv2D(32, 3, padding="same", use_bias=False)(image)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(5, padding="same", depth_multiplier=2)(x)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.Conv2D(32, 3, groups=4, strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(64, activation="gelu")(x)
    model = keras.Model(image, layers.Dense(40, name="answer")(x))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2.0, item.shape) for item in layer.get_weights()])
    return model


def written(model: Any, spec: TensorSpec, target: Path) -> onnx.ModelProto:
    """The model as ONNX, with an output called y."""
    answer = TensorSpec("y", DType.FLOAT32, ("batch", *model.output_shape[1:]))
    signature = Signature((spec,), (answer,))
    tensorflow_onnx.write(
        captured(traced(model, spec)), signature, target, StepOptions(name="model")
    )
    return onnx.load(target)


def traced(model: Any, spec: TensorSpec) -> Any:
    shape = [dim if isinstance(dim, int) else None for dim in spec.shape or ()]
    tensor = tf.TensorSpec(shape, spec.dtype.value, name="arg_0")
    function = tf.function(lambda x: [model(x, training=False)], input_signature=[tensor])
    with plain_convolution():
        function.get_concrete_function()
    return function


def answers(path: Path, name: str, rows: Any) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: rows})[0]


def test_filters_are_as_good_as_constants(tmp_path: Path) -> None:
    model = network()
    target = tmp_path / "m.onnx"
    made = written(model, TensorSpec("image", DType.FLOAT32, ("batch", 16, 16, 8)), target)
    ops = Counter(node.op_type for node in made.graph.node)
    assert not ops.keys() & {"BatchNormalization", "Reshape", "Sqrt"}
    assert ops["Transpose"] <= 2
    assert ops["Conv"] == 3
    rows = np.random.default_rng(1).standard_normal((3, 16, 16, 8)).astype(np.float32)
    np.testing.assert_allclose(answers(target, "image", rows), model(rows), RTOL, ATOL)


def test_nothing_large_passes_through_the_converter() -> None:
    model = network()
    function = traced(model, TensorSpec("image", DType.FLOAT32, ("n", 16, 16, 8)))
    made = frozen(captured(function), with_weights=False)
    constants = [node.attr["value"].tensor for node in made.graph.node if node.op == "Const"]
    assert max(tf.make_ndarray(tensor).size for tensor in constants) <= 64
    filters = [array.shape for array in model.get_weights() if array.size >= 1024]
    assert sorted(read().shape for read in made.weights.values()) == sorted(filters)


def test_tables_are_gathered_from_and_shared_weights_are_kept_once(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = layers.Embedding(500, 24)
    x = layers.Dense(24)(table(ids))
    model = keras.Model(ids, keras.ops.matmul(x, keras.ops.transpose(table.embeddings)))
    target = tmp_path / "m.onnx"
    made = written(model, TensorSpec("ids", DType.INT32, ("batch", "length")), target)
    assert Counter(node.op_type for node in made.graph.node)["Gather"] >= 1
    rows = np.random.default_rng(1).integers(0, 500, (2, 7)).astype(np.int32)
    np.testing.assert_allclose(answers(target, "ids", rows), model(rows), RTOL, ATOL)


def test_what_loops_read_is_a_constant(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    steps = keras.Input((None, 12), name="steps")
    model = keras.Model(steps, layers.Dense(64)(layers.LSTM(64)(steps)))
    target = tmp_path / "m.onnx"
    made = written(model, TensorSpec("steps", DType.FLOAT32, ("batch", "length", 12)), target)
    assert Counter(node.op_type for node in made.graph.node)["LSTM"] == 1
    rows = np.random.default_rng(1).standard_normal((3, 9, 12)).astype(np.float32)
    np.testing.assert_allclose(answers(target, "steps", rows), model(rows), RTOL, ATOL)


# --- binding -------------------------------------------------------------------------------


def bound(nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    """A graph of x and weights, the latter bound."""
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", real, ["n", 4])]
        + [helper.make_tensor_value_info(name, real, a.shape) for name, a in weights.items()],
        [helper.make_tensor_value_info("y", real, ["n", None])],
        [onnx.numpy_helper.from_array(np.float32(3.0), "three")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    recipes = onnx_weights.detach(model, set(weights))
    onnx_weights.attach(model, recipes, {name: lambda a=a: a for name, a in weights.items()})
    onnx.checker.check_model(model)
    return model


def test_what_is_computed_from_weights_alone_is_computed() -> None:
    node = onnx.helper.make_node
    weights = {"v": np.arange(12, dtype=np.float32).reshape(3, 4)}
    nodes = [
        node("Transpose", ["v"], ["t"], perm=[1, 0]),
        node("Mul", ["t", "three"], ["scaled"]),
        node("MatMul", ["x", "scaled"], ["y"]),
    ]
    model = bound(nodes, weights)
    assert [item.op_type for item in model.graph.node] == ["MatMul"]
    assert [value.name for value in model.graph.input] == ["x"]
    kept = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    np.testing.assert_array_equal(kept["scaled"], weights["v"].T * 3)
    assert "v" not in kept


def test_what_an_input_takes_part_in_stays() -> None:
    node = onnx.helper.make_node
    weights = {"v": np.ones((4, 4), np.float32)}
    nodes = [node("Mul", ["x", "three"], ["z"]), node("MatMul", ["z", "v"], ["y"])]
    model = bound(nodes, weights)
    assert [item.op_type for item in model.graph.node] == ["Mul", "MatMul"]
    assert {item.name for item in model.graph.initializer} >= {"v", "three"}


def saved_function(module: Any, body: Any, spec: TensorSpec) -> Any:
    """A function of one tensor that answers a list, as the converter takes it."""

    def serve(x: Any) -> Any:
        return [tf.identity(body(module, x))]

    tensor = tf.TensorSpec([None, *(spec.shape or ())[1:]], spec.dtype.value, name="arg_0")
    return tf.function(serve, input_signature=[tensor])


def test_large_tables_of_texts_are_constants(tmp_path: Path) -> None:
    words = np.array([[f"{row} {column}" for column in range(32)] for row in range(40)])
    module = tf.Module()
    module.words = tf.Variable(words)
    columns = TensorSpec("columns", DType.INT32, ("batch",))

    def body(module: Any, columns: Any) -> Any:
        return tf.gather(module.words, columns, axis=1)

    function = saved_function(module, body, columns)
    signature = Signature((columns,), (TensorSpec("y", DType.STRING, (40, "batch")),))
    target = tmp_path / "words.onnx"
    tensorflow_onnx.write(captured(function), signature, target, StepOptions(name="model"))
    asked = np.array([3, 31, 0], np.int32)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {"columns": asked})
    assert given.tolist() == words[:, asked].tolist()


@pytest.mark.parametrize("in_branch", [False, True])
def test_a_function_that_changes_its_variables_is_refused(tmp_path: Path, in_branch: bool) -> None:
    module = tf.Module()
    module.kernel = tf.Variable(np.ones((32, 32), np.float32))

    def change() -> Any:
        return tf.identity(module.kernel.assign_add(tf.ones((32, 32))))

    def body(_: Any, x: Any) -> Any:
        if in_branch:
            return x @ tf.cond(tf.reduce_sum(x) > 0, change, module.kernel.read_value)
        return x @ change()

    spec = TensorSpec("x", DType.FLOAT32, ("batch", 32))
    signature = Signature((spec,), (TensorSpec("y", DType.FLOAT32, ("batch", 32)),))
    with pytest.raises(ConversionError, match="changes a variable"):
        function = captured(saved_function(module, body, spec))
        tensorflow_onnx.write(function, signature, tmp_path / "y.onnx", StepOptions())


def test_an_output_that_is_a_weight_stays_one() -> None:
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", real, ["n", 4])],
        [
            helper.make_tensor_value_info("y", real, ["n", 4]),
            helper.make_tensor_value_info("w", real, [4]),
        ],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    canonicalize(model)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rows = np.ones((2, 4), np.float32)
    found = dict(zip(("y", "w"), session.run(["y", "w"], {"x": rows}), strict=True))
    np.testing.assert_array_equal(found["w"], np.arange(4))
    np.testing.assert_array_equal(found["y"], rows + np.arange(4))
