"""SavedModels of TensorFlow 1: variables by reference, lookup tables, several graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError, InputError
from modelpack.samples import write_cases
from modelpack.sources import Request, locate
from modelpack.steps import RunOptions, StepOptions
from tests.thinned import thinned

tf = pytest.importorskip("tensorflow")
v1 = tf.compat.v1

RNG = np.random.default_rng(5)
WORDS = ["red", "green", "größe"]
ASKED = np.array(["red", "Red", "größe", "", "green", "blue"], object)  # half of it unknown
WEIGHTS = RNG.standard_normal((5, 3)).astype(np.float32)

Build = Callable[[], tuple[dict[str, Any], dict[str, Any]]]


def saved(path: Path, build: Build, *others: list[str]) -> Path:
    """Save what is built in a session, as it was done; with graphs of other tags before it."""
    with tf.Graph().as_default(), v1.Session() as session:
        inputs, outputs = build()
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(path))
        signature = v1.saved_model.predict_signature_def(inputs, outputs)
        settings = {
            "signature_def_map": {"serving_default": signature},
            "assets_collection": v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            "main_op": v1.tables_initializer(),
        }
        tags = [*others, ["serve"]]
        builder.add_meta_graph_and_variables(session, tags[0], **settings)
        for further in tags[1:]:
            v1.get_default_graph().clear_collection("saved_model_main_op")
            builder.add_meta_graph(further, **settings)
        builder.save()
    return path


def weights(*, resource: bool) -> Any:
    return v1.get_variable("weights", initializer=WEIGHTS, use_resource=resource)


def table(keys: Any, values: Any, default: Any) -> Any:
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(values))
    return tf.lookup.StaticHashTable(initializer, default)


def words(default: int = 3) -> Any:
    return table(WORDS, np.arange(3), default)


def looked_up(rows: Any, *, resource: bool = True) -> Build:
    """The rows of the weights that texts stand for, by a function of the texts."""

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = v1.placeholder(tf.string, (None,), name="x")
        return {"x": x}, {"y": tf.gather(weights(resource=resource), rows(x))}

    return build


def located(path: Path) -> ModelRef:
    """The source that a SavedModel is, with its signature."""
    from modelpack.adapters.tensorflow import describe

    ref = locate(Request(str(path)))
    return replace(ref, signature=describe(ref).signature)


def expected(path: Path, x: Any) -> dict[str, Any]:
    """What TensorFlow itself answers."""
    answers = tf.saved_model.load(str(path)).signatures["serving_default"](x=tf.constant(x))
    return {name: value.numpy() for name, value in answers.items()}


def in_onnx(path: Path, x: Any) -> dict[str, Any]:
    from modelpack.adapters.tensorflow import to_onnx

    target = path.with_suffix(".onnx")
    to_onnx(located(path), str(target), StepOptions(name="m"))
    session = onnxruntime.InferenceSession(target)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def in_tflite(path: Path, x: Any) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    from modelpack.adapters.savedmodel_tflite import to_tflite

    target = path.with_suffix(".tflite")
    to_tflite(located(path), str(target), StepOptions(name="m"))
    encoded = [item.encode() for item in x.flat] if x.dtype.kind == "O" else x
    given = np.array(encoded, x.dtype).reshape(x.shape)
    return dict(Interpreter(str(target)).get_signature_runner()(x=given))


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if value.dtype.kind == "O":
            texts = [
                item.decode() if isinstance(item, bytes) else item for item in found[name].flat
            ]
            assert texts == [item.decode() for item in value.flat]
        else:
            assert found[name].dtype == value.dtype
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


# --- variables -------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", thinned([False, True], 2))
def test_variables_become_weights(resource: bool, tmp_path: Path) -> None:
    from modelpack.adapters.tensorflow import describe

    large = RNG.standard_normal((6, 200)).astype(np.float32)

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = v1.placeholder(tf.float32, (None, 6), name="x")
        matrix = v1.get_variable("w", initializer=large, use_resource=resource)
        return {"x": x}, {"y": tf.matmul(x, matrix)}

    path = saved(tmp_path / "m", build)
    x = RNG.standard_normal((3, 6)).astype(np.float32)
    assert_same(in_onnx(path, x), {"y": x @ large})
    assert describe(located(path)).parameters == large.size


@pytest.mark.parametrize(("reads", "resource"), [(False, False), (False, True), (True, False)])
def test_variables_that_change_are_refused_where_answers_need_them(
    reads: bool, resource: bool, tmp_path: Path
) -> None:
    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = v1.placeholder(tf.float32, (None, 5), name="x")
        calls = v1.get_variable("calls", initializer=1.0, use_resource=resource)
        with tf.control_dependencies([v1.assign_add(calls, 1.0)]):
            y = tf.matmul(x, weights(resource=False))
            return {"x": x}, {"y": y * calls if reads else tf.identity(y)}

    path = saved(tmp_path / "m", build)
    x = RNG.standard_normal((2, 5)).astype(np.float32)
    if reads:
        with pytest.raises(ConversionError, match="changes a variable while it answers"):
            in_onnx(path, x)
    else:
        assert_same(in_onnx(path, x), {"y": x @ WEIGHTS})
        assert_same(in_tflite(path, x), {"y": x @ WEIGHTS})


def test_the_graph_that_is_served_is_taken(tmp_path: Path) -> None:
    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = v1.placeholder(tf.float32, (None, 5), name="x")
        return {"x": x}, {"y": tf.matmul(x, weights(resource=True))}

    path = saved(tmp_path / "m", build, ["train"], ["serve", "tpu"])
    x = RNG.standard_normal((2, 5)).astype(np.float32)
    assert_same(in_onnx(path, x), {"y": x @ WEIGHTS})


# --- tables ----------------------------------------------------------------------------------


def from_file(x: Any, path: Path) -> Any:
    path.write_text("\n".join(WORDS), encoding="utf-8")
    whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    content = tf.lookup.TextFileInitializer(str(path), tf.string, whole, tf.int64, number)
    return tf.lookup.StaticHashTable(content, 3).lookup(x)


def by_reference(x: Any) -> Any:
    """A table as the first versions of TensorFlow had them."""
    handle = tf.raw_ops.HashTable(key_dtype=tf.string, value_dtype=tf.int64, shared_name="old")
    values = tf.constant(np.arange(3))
    fill = tf.raw_ops.InitializeTable(table_handle=handle, keys=tf.constant(WORDS), values=values)
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, fill)
    default = tf.constant(3, tf.int64)
    found = tf.raw_ops.LookupTableFind(table_handle=handle, keys=x, default_value=default)
    return tf.ensure_shape(found, (None,))


def changeable(x: Any) -> Any:
    made = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 3)
    fill = made.insert(tf.constant(WORDS), tf.constant(np.arange(3)))
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, fill)
    return made.lookup(x)


def buckets(x: Any, count: int) -> Any:
    content = tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), tf.constant(np.arange(3)))
    return tf.lookup.StaticVocabularyTable(content, count).lookup(x)


def looking_up_in(kinds: dict[str, Any], *, resource: bool) -> Build:
    """Rows of the weights by each of several functions of the same texts."""

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x, held = v1.placeholder(tf.string, (None,), name="x"), weights(resource=resource)
        return {"x": x}, {name: tf.gather(held, rows(x)) for name, rows in kinds.items()}

    return build


@pytest.mark.parametrize("resource", thinned([False, True], 2))
def test_tables_find_what_tensorflow_finds(resource: bool, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    kinds = {
        "constants": lambda x: words().lookup(x),
        "reference": by_reference,
        "changeable": changeable,
        "file": lambda x: from_file(x, file),
    }
    path = saved(tmp_path / "m", looking_up_in(kinds, resource=resource))
    file.unlink()  # the SavedModel has it among its assets
    wanted = expected(path, ASKED)
    assert_same(in_onnx(path, ASKED), wanted)
    assert_same(in_tflite(path, ASKED), wanted)


def test_one_bucket_has_all_that_is_unknown(tmp_path: Path) -> None:
    path = saved(tmp_path / "m", looked_up(lambda x: buckets(x, 1)))
    wanted = expected(path, ASKED)
    assert_same(in_onnx(path, ASKED), wanted)
    assert_same(in_tflite(path, ASKED), wanted)


KINDS = {
    "int32 to text": (np.array([1, 2], np.int32), WORDS[:2], "?"),
    "int64 to float32": (np.array([-1, 2]), np.array([0.5, 2], np.float32), -1.5),
    "int32 to float64": (np.array([1, 2], np.int32), np.array([1 / 3, 2]), -1.5),
    "text to int32": (WORDS, np.array([1, 2, 3], np.int32), -1),
    "text to bool": (WORDS, np.array([True, False, True]), False),
}


def test_tables_of_every_type_reach_onnx_and_a_savedmodel(tmp_path: Path) -> None:
    from modelpack.adapters.tensorflow_lowering import to_savedmodel

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = v1.placeholder(tf.string, (None,), name="x")
        number = words(-1).lookup(x)
        outputs = {}
        for name, (keys, values, default) in KINDS.items():
            asked = x if isinstance(keys, list) else tf.cast(number, keys.dtype)
            outputs[name.replace(" ", "_")] = table(keys, values, default).lookup(asked)
        return {"x": x}, outputs

    path = saved(tmp_path / "m", build)
    wanted = expected(path, ASKED)
    assert_same(in_onnx(path, ASKED), wanted)
    between = replace(located(path), format="onnx", encoding=Encoding.ONNX, location=f"{path}.onnx")
    path.with_suffix(".onnx").rename(between.location)
    to_savedmodel(between, str(tmp_path / "again"), StepOptions(name="m"))
    assert_same(expected(tmp_path / "again", ASKED), wanted)


def test_a_default_may_be_computed(tmp_path: Path) -> None:
    def rows(x: Any) -> Any:
        lookup = tf.raw_ops.LookupTableFindV2
        default = tf.size(x, tf.int64) % 5
        return lookup(table_handle=words().resource_handle, keys=x, default_value=default)

    path = saved(tmp_path / "m", looked_up(lambda x: tf.ensure_shape(rows(x), (None,))))
    assert_same(in_onnx(path, ASKED), expected(path, ASKED))


@pytest.mark.parametrize("kind", [by_reference, lambda x: words().lookup(x)])
def test_samples_have_texts_that_tables_know(kind: Any, tmp_path: Path) -> None:
    from modelpack.adapters.tensorflow import describe

    path = saved(tmp_path / "m", looked_up(kind))
    usual = describe(located(path)).ranges["x"].values
    assert usual == (*sorted(WORDS), "an unknown value")


def test_keys_have_an_order(tmp_path: Path) -> None:
    many = [f"word{number}" for number in range(50)]
    path = saved(tmp_path / "m", looked_up(lambda x: table(many, np.arange(50) % 4, 4).lookup(x)))
    in_onnx(path, ASKED)
    (encoder,) = (
        node
        for node in onnx.load(path.with_suffix(".onnx")).graph.node
        if node.op_type == "LabelEncoder"
    )
    keys = next(item.strings for item in encoder.attribute if item.name == "keys_strings")
    assert list(keys) == sorted(item.encode() for item in many)
    in_tflite(path, ASKED)
    assert "".join(sorted(many)).encode() in path.with_suffix(".tflite").read_bytes()


def dense(x: Any) -> Any:
    made = tf.lookup.experimental.DenseHashTable(tf.string, tf.int64, 3, "<none>", "<gone>")
    return made.lookup(x)


def remembering(x: Any) -> Any:
    made = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 3)
    with tf.control_dependencies([made.insert(x, tf.zeros_like(x, tf.int64))]):
        return made.lookup(x)


def branching(x: Any) -> Any:
    made, nothing = words(), tf.zeros_like(x, tf.int64)
    return tf.cond(tf.size(x) > 1, lambda: made.lookup(x), lambda: nothing)


REFUSED = [
    (lambda x: buckets(x, 2), "StringToHashBucketFast puts texts into 2 buckets"),
    (dense, "MutableDenseHashTable"),
    (remembering, "changes a variable while it answers.*LookupTableInsertV2"),
    (branching, "table in a branch or loop"),
]


@pytest.mark.parametrize(("rows", "why"), REFUSED, ids=lambda item: getattr(item, "__name__", ""))
def test_other_tables_are_refused_by_name(rows: Any, why: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m", looked_up(rows))
    with pytest.raises(ConversionError, match=why):
        in_onnx(path, ASKED)


# --- records ---------------------------------------------------------------------------------


def test_inputs_that_it_does_not_take_are_refused_with_tensorflows_own_words(
    tmp_path: Path,
) -> None:
    from modelpack.adapters.tensorflow import run

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = v1.placeholder(tf.string, (None,), name="x")
        features = {"size": tf.io.FixedLenFeature([2], tf.float32)}
        return {"x": x}, {"y": v1.io.parse_example(x, features)["size"]}

    path = saved(tmp_path / "m", build)
    write_cases(tmp_path / "cases.npz", [{"x": np.array(["no record"], object)}])
    with pytest.raises(
        InputError, match=r"Could not parse example input, .*ParseExample"
    ) as caught:
        run(located(path), str(tmp_path / "cases.npz"), str(tmp_path / "out.npz"), RunOptions())
    assert "tf.Example records" in caught.value.hint
