"""TFLite files of several signatures: weights are shared, and every verb takes them by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from copy import copy as copied
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelpack as mp
from fixtures.inline import in_this_process
from modelpack.artifact import Encoding, ModelRef, measure
from modelpack.errors import ConversionError, InputError, QuantizationError
from modelpack.manifest import dump, read
from modelpack.parity import Verdict
from modelpack.reports.junit import junit
from modelpack.signature import Signature
from modelpack.sources import Request
from modelpack.verbs import convert, inspect, quantize, validate

tf = pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")

RNG = np.random.default_rng(11)
WEIGHTS = RNG.standard_normal((64, 256)).astype(np.float32)
HEAD = RNG.standard_normal((256, 3)).astype(np.float32) / 16
KEYS, VALUES = ["red", "green"], [3, 5]
WHILE = 93  # of BuiltinOptions in the schema
NAMES = ["features", "scores"]
ODD = ["known", "doubled"]


def spec(name: str, *dims: int | None, dtype: Any = tf.float32) -> Any:
    return tf.TensorSpec(dims, dtype, name=name)


class Network(tf.Module):
    """Two functions of the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(WEIGHTS)
        self.head = tf.Variable(HEAD)

    @tf.function(input_signature=[spec("x", None, 64)])
    def features(self, x: Any) -> dict[str, Any]:
        return {"features": tf.nn.relu(tf.matmul(x, self.weights))}

    @tf.function(input_signature=[spec("x", None, 64)])
    def scores(self, x: Any) -> dict[str, Any]:
        return {"scores": tf.matmul(self.features(x)["features"], self.head)}


class Odd(tf.Module):
    """A function of a table, and one with a loop, which both are graphs of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(KEYS, tf.constant(VALUES, tf.int64)), -1
        )

    @tf.function(input_signature=[spec("word", None, dtype=tf.string)])
    def known(self, word: Any) -> dict[str, Any]:
        return {"number": self.table.lookup(word)}

    @tf.function(input_signature=[spec("x", 1, 2)])
    def doubled(self, x: Any) -> dict[str, Any]:
        return {"y": tf.while_loop(lambda y: y[0, 0] < 9, lambda y: (y * 2 + 1,), (x,))[0]}


FEEDS = {
    "features": {"x": RNG.standard_normal((3, 64)).astype(np.float32)},
    "scores": {"x": RNG.standard_normal((2, 64)).astype(np.float32)},
    "known": {"word": np.array([b"green", b"blue", b"red"], object)},
    "doubled": {"x": np.array([[1, 0.5]], np.float32)},
}


def saved(model: Any, names: list[str], path: Path) -> Path:
    tf.saved_model.save(model, str(path), {name: getattr(model, name) for name in names})
    return path


@pytest.fixture(scope="module", autouse=True)
def inline() -> Iterator[None]:
    with in_this_process(convert, inspect, quantize, validate):
        yield


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(Network(), NAMES, tmp_path_factory.mktemp("source") / "network")


@pytest.fixture(scope="module")
def pair(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of both signatures, in a directory with its manifest."""
    path = tmp_path_factory.mktemp("pair") / "out"
    mp.convert(network, path, to="tflite", signatures=NAMES)
    return path / "model.tflite"


@pytest.fixture
def copy(pair: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair.parent, tmp_path / "copy")) / pair.name


@pytest.fixture(scope="module")
def sources(network: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The SavedModel of each signature, by its name."""
    odd = saved(Odd(), ODD, tmp_path_factory.mktemp("source") / "odd")
    return dict.fromkeys(NAMES, network) | dict.fromkeys(ODD, odd)


@pytest.fixture(scope="module")
def apart(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[ModelRef]:
    """A file of one signature for each, as TensorFlow's converter writes them."""
    folder, refs = tmp_path_factory.mktemp("apart"), []
    for name, source in sources.items():
        converter = tf.lite.TFLiteConverter.from_saved_model(str(source), signature_keys=[name])
        path = folder / f"{name}.tflite"
        path.write_bytes(converter.convert())
        signature = Signature((), (), name)
        refs.append(ModelRef("tflite", Encoding.TFLITE, str(path), signature=signature))
    return refs


@pytest.fixture(scope="module")
def whole(apart: list[ModelRef]) -> Path:
    """All signatures in one file."""
    return joined(apart, apart[0].path.with_name("whole.tflite"))


def joined(refs: list[ModelRef], target: Path) -> Path:
    from modelpack.adapters.tflite_signatures import join

    join(refs, str(target))
    return target


def runner(model: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(model))


def tree(model: Path) -> Any:
    """A file as the schema's object tree."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_with_mutable_tensors(str(model))


def write(content: Any, target: Path) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    flatbuffer_utils.write_model(content, str(target))


def changed(ref: ModelRef, change: Callable[[Any], None], folder: Path) -> ModelRef:
    """A file with its object tree changed."""
    content = tree(ref.path)
    change(content)
    write(content, folder / ref.path.name)
    return replace(ref, location=str(folder / ref.path.name))


def rewritten(model: Path, content: Any) -> None:
    """Write an object tree to a file of a directory, and the file's facts into its manifest."""
    write(content, model)
    digest, size = measure(model)
    manifest = read(model.parent)
    entries = (replace(item, digest=digest, size=size) for item in manifest.artifacts)
    text = dump(replace(manifest, artifacts=tuple(entries)))
    (model.parent / "modelpack.yaml").write_text(text)


# --- the file --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
def test_one_file_answers_as_every_signature_of_its_sources(
    order: int, whole: Path, sources: dict[str, Path]
) -> None:
    interpreter = runner(whole)
    for name in list(sources)[::order]:  # in one interpreter, where others have left their traces
        function = tf.saved_model.load(str(sources[name])).signatures[name]
        expected = function(**{key: tf.constant(value) for key, value in FEEDS[name].items()})
        found = interpreter.get_signature_runner(name)(**FEEDS[name])
        assert list(found) == list(expected)
        for key, values in expected.items():
            np.testing.assert_allclose(found[key], values.numpy(), rtol=1e-5, atol=1e-5)


def test_weights_are_held_once(pair: Path, whole: Path, apart: list[ModelRef]) -> None:
    assert [ref.path.stat().st_size > WEIGHTS.nbytes for ref in apart] == [True] * 2 + [False] * 2
    for file in (pair, whole):
        assert WEIGHTS.nbytes + HEAD.nbytes < file.stat().st_size < 1.2 * WEIGHTS.nbytes


def test_constants_begin_where_the_schema_wants_them(whole: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(whole.read_bytes())
    held = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [item._tab.Vector(item._tab.Offset(4)) for item in held if item.DataLength()]
    assert len(starts) > 5
    assert {start % 16 for start in starts} == {0}


def test_tensors_have_names_of_their_own(whole: Path, apart: list[ModelRef]) -> None:
    names = [tensor.name for graph in tree(whole).subgraphs for tensor in graph.tensors]
    alone = [
        tensor.name
        for ref in apart
        for graph in tree(ref.path).subgraphs
        for tensor in graph.tensors
    ]
    assert len(set(alone)) < len(alone) == len(names) == len(set(names))


def test_the_same_file_comes_out_again(pair: Path, network: Path, tmp_path: Path) -> None:
    mp.convert(network, tmp_path / "again.tflite", signatures=NAMES, validate=False)
    assert (tmp_path / "again.tflite").read_bytes() == pair.read_bytes()
    entries = read(tmp_path / "again.tflite.modelpack.yaml").artifacts
    assert [(item.path, item.signature) for item in entries] == [
        ("again.tflite", name) for name in NAMES
    ]


def test_each_signature_can_be_taken_out_again(whole: Path, apart: list[ModelRef]) -> None:
    from modelpack.adapters.tflite_signatures import with_one_signature

    for before in apart:
        assert before.signature is not None
        name = before.signature.name
        ref = ModelRef("tflite", Encoding.TFLITE, str(whole), signature_name=name)
        with with_one_signature(ref) as one:
            again, size = runner(one.path), one.path.stat().st_size
        assert abs(size - before.path.stat().st_size) < 400  # which is for alignment
        assert list(again.get_signature_list()) == [name]
        found = again.get_signature_runner(name)(**FEEDS[name])
        expected = runner(before.path).get_signature_runner(name)(**FEEDS[name])
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values)


def with_another_table(model: Any) -> None:
    values = np.array(VALUES, np.int64)
    for buffer in model.buffers:
        if buffer.data is not None and bytes(buffer.data) == values.tobytes():
            buffer.data = np.frombuffer((values + 1).tobytes(), np.uint8)


def with_a_signature_more(model: Any) -> None:
    further = copied(model.signatureDefs[0])
    further.signatureKey = b"further"
    model.signatureDefs.append(further)


def with_metadata(content: bytes) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        model.metadata.append(schema.MetadataT(b"notes", len(model.buffers)))
        model.buffers.append(schema.BufferT(np.frombuffer(content, np.uint8)))

    return change


def with_indices(model: Any) -> None:
    model.metadataBuffer = [1]


def with_a_graph_too_many(model: Any) -> None:
    (loop,) = (op for op in model.subgraphs[0].operators if op.builtinOptionsType == WHILE)
    loop.builtinOptions.bodySubgraphIndex = len(model.subgraphs)


def test_a_loop_that_leads_out_of_the_file_is_refused(
    apart: list[ModelRef], tmp_path: Path
) -> None:
    damaged = changed(apart[-1], with_a_graph_too_many, tmp_path)
    with pytest.raises(InputError, match="damaged: an op refers to a graph that is not there"):
        mp.validate(damaged.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_another_table, "the tables of 'doubled' hold other values"),
        (with_a_signature_more, "'doubled.tflite' has no signature, or several"),
        (with_indices, "'doubled.tflite' has unnamed metadata"),
        (with_metadata(b"b"), "different metadata 'notes'"),
    ],
)
def test_what_cannot_be_one_file_is_refused(
    change: Callable[[Any], None], message: str, apart: list[ModelRef], tmp_path: Path
) -> None:
    known = changed(apart[-2], with_metadata(b"a"), tmp_path)
    joined([known, apart[-1]], tmp_path / "right.tflite")
    with pytest.raises(ConversionError, match=message) as caught:
        joined([known, changed(apart[-1], change, tmp_path)], tmp_path / "wrong.tflite")
    assert "--signature NAME" in caught.value.hint


def test_the_newest_version_that_a_signature_needs_is_that_of_the_file(
    apart: list[ModelRef], tmp_path: Path
) -> None:
    def version(model: Any) -> Any:
        (entry,) = (item for item in model.metadata if item.name == b"min_runtime_version")
        return model.buffers[entry.buffer]

    def needing(text: bytes) -> Callable[[Any], None]:
        data = np.frombuffer(text.ljust(16, b"\0"), np.uint8)
        return lambda model: setattr(version(model), "data", data)

    texts = (b"2.9.0", b"2.10.0", b"1.14.0", b"2.9.1")
    pairs = zip(apart, texts, strict=True)
    refs = [changed(ref, needing(text), tmp_path) for ref, text in pairs]
    whole = tree(joined(refs, tmp_path / "whole.tflite"))
    assert bytes(version(whole).data).rstrip(b"\0") == b"2.10.0"


def test_one_signature_that_cannot_be_run_here_does_not_keep_others_from_it(
    tmp_path: Path,
) -> None:
    def squared(x: Any) -> Any:
        return tf.linalg.det(tf.matmul(x, x, transpose_b=True))  # LiteRT has no such op

    module = tf.Module()
    module.flex = tf.function(lambda x: {"y": squared(x)}, input_signature=[spec("x", 4, 2, 2)])
    module.plain = tf.function(lambda x: {"y": x * 2}, input_signature=[spec("x", None, 2)])
    source = saved(module, ["flex", "plain"], tmp_path / "m")
    out = tmp_path / "out"
    manifest = mp.convert(source, out, to="tflite", signatures=["flex", "plain"], select_ops=True)
    verdicts = [Verdict.UNVERIFIED, Verdict.PASSED]
    assert [item.parity.verdict for item in manifest.artifacts] == verdicts
    assert [item.verdict for item in mp.validate(out).artifacts] == verdicts


# --- validate, inspect -----------------------------------------------------------------------


def test_each_signature_is_judged(pair: Path, network: Path) -> None:
    for model, reference in ((pair, ""), (pair.parent, network)):
        report = mp.validate(model, reference=reference)
        found = [(item.path, item.verdict, item.signature) for item in report.artifacts]
        assert [item[:2] for item in found] == [(pair.name, Verdict.PASSED)] * 2
        assert [item[2].name for item in found if item[2]] == NAMES
    (alone,) = mp.validate(pair, signature_name="scores").artifacts
    assert [diff.name for diff in alone.parity.outputs] == ["scores"]
    with pytest.raises(InputError, match="no signature called 'other', but features, scores"):
        mp.validate(pair, signature_name="other")


def test_a_signature_that_answers_wrongly_fails_alone(
    copy: Path, network: Path, tmp_path: Path
) -> None:
    content = tree(copy)
    for buffer in content.buffers:
        if buffer.data is not None and len(buffer.data) == HEAD.nbytes:
            wrong = np.array(buffer.data).view(np.float32) * 1.5
            buffer.data = np.frombuffer(wrong.tobytes(), np.uint8)
    rewritten(copy, content)
    report = mp.validate(copy, reference=network, bisect=tmp_path / "where")
    assert [item.verdict for item in report.artifacts] == [Verdict.PASSED, Verdict.FAILED]
    departure = report.artifacts[1].departure
    assert departure is not None
    assert departure.op == "FULLY_CONNECTED"
    assert (tmp_path / "where" / "model.scores.tflite" / "reproduce.py").is_file()
    assert f'name="{copy.name} (scores)"' in junit(report)


def test_signatures_under_each_others_names_are_found_out(copy: Path) -> None:
    content = tree(copy)
    first, second = content.signatureDefs
    first.signatureKey, second.signatureKey = second.signatureKey, first.signatureKey
    rewritten(copy, content)
    report = mp.validate(copy)
    assert [item.verdict for item in report.artifacts] == [Verdict.FAILED] * 2
    first.subgraphIndex, second.subgraphIndex = second.subgraphIndex, first.subgraphIndex
    rewritten(copy, content)
    with pytest.raises(InputError, match="damaged: a signature refers to a tensor"):
        mp.validate(copy)


def test_all_entries_of_a_file_are_shown(pair: Path) -> None:
    found = inspect.inspect(Request(str(pair)))
    assert found.manifest is not None
    assert [item.signature for item in found.manifest.artifacts] == NAMES
    assert found.description is not None
    others = [item.name for item in found.description.other_signatures]
    assert [found.description.signature.name, *others] == NAMES


# --- quantize --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "ratio"), [("float16", 0.6), ("dynamic-int8", 0.4), ("static-int8", 0.4)]
)
def test_all_signatures_are_quantized_and_judged(
    scheme: str, ratio: float, pair: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    data = tmp_path / "data.npz"
    np.savez(data, x=rng.standard_normal((200, 64)).astype(np.float32))
    manifest = mp.quantize(pair.parent, tmp_path / "small", scheme=scheme, calibration=data)
    assert [item.signature for item in manifest.artifacts] == NAMES
    for artifact in manifest.artifacts:
        assert artifact.path == f"model.{scheme}.tflite"
        assert artifact.parity.verdict is Verdict.PASSED
        assert artifact.quantization is not None
        assert artifact.quantization.size_ratio < ratio  # the weights are still held once
    small = runner(tmp_path / "small" / f"model.{scheme}.tflite")
    x = rng.standard_normal((50, 64)).astype(np.float32)
    features = np.maximum(x @ WEIGHTS, 0)
    for name, expected in (("features", features), ("scores", features @ HEAD)):
        found = small.get_signature_runner(name)(x=x)[name]
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.05 * expected.std()
    report = mp.validate(tmp_path / "small")
    assert [item.verdict for item in report.artifacts] == [Verdict.PASSED] * 2
    assert all(item.parity.cases for item in report.artifacts)


def test_a_signature_that_loses_too_much_keeps_the_file_from_being_written(
    pair: Path, tmp_path: Path
) -> None:
    x = RNG.standard_normal((40, 64)).astype(np.float32)
    np.savez(tmp_path / "small.npz", x=x / 1000)
    np.savez(tmp_path / "usual.npz", x=x)
    options: dict[str, Any] = {
        "calibration": tmp_path / "small.npz",
        "data": tmp_path / "usual.npz",
    }
    with pytest.raises(QuantizationError, match=r"small.tflite \(scores\) lost too much"):
        mp.quantize(pair, tmp_path / "small.tflite", scheme="static-int8", **options)
    assert not (tmp_path / "small.tflite").exists()


# --- convert, package ------------------------------------------------------------------------


def test_a_signature_of_a_directory_is_converted_further(pair: Path, tmp_path: Path) -> None:
    mp.convert(pair.parent, tmp_path / "scores.onnx", signatures="scores")
    (result,) = mp.validate(tmp_path / "scores.onnx", reference=pair).artifacts
    assert result.verdict is Verdict.PASSED
    assert [diff.name for diff in result.parity.outputs] == ["scores"]


def test_an_archive_holds_the_file_once(pair: Path, tmp_path: Path) -> None:
    mp.package(pair.parent, tmp_path / "pair.tar", layout="archive")
    size = sum(file.stat().st_size for file in pair.parent.iterdir())
    assert (tmp_path / "pair.tar").stat().st_size < size + 20_000
    report = mp.validate(tmp_path / "pair.tar")
    assert [item.verdict for item in report.artifacts] == [Verdict.PASSED] * 2
