"""SavedModels that modelpack writes with several signatures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelpack as mp
from fixtures.inline import in_this_process
from modelpack.artifact import measure
from modelpack.errors import UnsupportedOpsError
from modelpack.manifest import read
from modelpack.parity import Verdict
from modelpack.verbs import convert, validate

tf = pytest.importorskip("tensorflow")

RNG = np.random.default_rng(8)
FILTER = RNG.standard_normal((3, 3, 3, 32)).astype(np.float32)
HEAD = RNG.standard_normal((32, 16)).astype(np.float32)
OWN = RNG.standard_normal((32, 12)).astype(np.float32)
WORDS = ["red", "green"]
NAMES = ["serving_default", "features", "words"]


def spec(name: str, *dims: int | None, dtype: Any = tf.float32) -> Any:
    return tf.TensorSpec(dims, dtype, name=name)


class Pictures(tf.Module):
    """Two functions of one filter, one of words, each with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.filter, self.head, self.own = map(tf.Variable, (FILTER, HEAD, OWN))
        content = tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), tf.constant([0, 1]))
        self.table = tf.lookup.StaticHashTable(content, 2)

    def seen(self, image: Any) -> Any:
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(image, self.filter, 1, "SAME")), [1, 2])

    @tf.function(input_signature=[spec("image", None, 8, 8, 3)])
    def serve(self, image: Any) -> dict[str, Any]:
        return {"y": tf.matmul(self.seen(image), self.head)}

    @tf.function(input_signature=[spec("image", None, 8, 8, 3)])
    def features(self, image: Any) -> dict[str, Any]:
        return {"y": tf.matmul(self.seen(image), self.own)}

    @tf.function(input_signature=[spec("word", None, dtype=tf.string)])
    def words(self, word: Any) -> dict[str, Any]:
        return {"y": tf.gather(self.head, self.table.lookup(word))}


@pytest.fixture(scope="module", autouse=True)
def inline() -> Iterator[None]:
    with in_this_process(convert, validate):
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "pictures"
    model = Pictures()
    functions = (model.serve, model.features, model.words)
    tf.saved_model.save(model, str(path), dict(zip(NAMES, functions, strict=True)))
    return path


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "out"
    mp.convert(source, out, to="savedmodel", signatures="all")
    return out


IMAGE = RNG.standard_normal((2, 8, 8, 3)).astype(np.float32)
FEEDS: dict[str, dict[str, Any]] = {
    NAMES[0]: {"image": IMAGE},
    NAMES[1]: {"image": IMAGE},
    NAMES[2]: {"word": np.array(["green", "blue", "red"], object)},
}


def answers(path: Path) -> dict[str, Any]:
    """What TensorFlow 2 gets from a SavedModel, by signature."""
    functions = tf.saved_model.load(str(path)).signatures
    assert sorted(functions) == sorted(NAMES)
    return {
        name: functions[name](**{key: tf.constant(value) for key, value in feed.items()})["y"]
        for name, feed in FEEDS.items()
    }


def served(path: Path) -> dict[str, Any]:
    """What a session gets from it, as servers run it."""
    v1 = tf.compat.v1
    found = {}
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = v1.saved_model.load(session, ["serve"], str(path)).signature_def
        for name, feed in FEEDS.items():
            tensors = {signatures[name].inputs[key].name: value for key, value in feed.items()}
            found[name] = session.run(signatures[name].outputs["y"].name, tensors)
    return found


def test_one_savedmodel_has_all_signatures(source: Path, converted: Path) -> None:
    wanted = answers(source)
    for run in (answers, served):
        found = run(converted / "saved_model")
        for name in NAMES:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_each_weight_is_stored_once(converted: Path) -> None:
    reader = tf.train.load_checkpoint(str(converted / "saved_model" / "variables" / "variables"))
    shapes = reader.get_variable_to_shape_map()
    weights = sorted(shapes[name] for name in shapes if name.startswith("constants/"))
    assert weights == sorted(list(array.shape) for array in (FILTER, HEAD, OWN))
    graph = (converted / "saved_model" / "saved_model.pb").read_bytes()
    assert FILTER.tobytes() not in graph


def test_the_manifest_has_an_entry_for_each_signature(converted: Path, source: Path) -> None:
    manifest = read(converted)
    assert [item.path for item in manifest.artifacts] == ["saved_model"] * 3
    assert [item.signature for item in manifest.artifacts] == NAMES
    assert len({item.digest for item in manifest.artifacts}) == 1
    for item, name in zip(mp.validate(converted).artifacts, NAMES, strict=True):
        assert item.signature is not None
        assert (item.signature.name, item.verdict) == (name, Verdict.PASSED)
    (only,) = mp.validate(converted, signature_name="features", reference=source).artifacts
    assert only.verdict is Verdict.PASSED


def test_it_is_written_reproducibly(source: Path, converted: Path, tmp_path: Path) -> None:
    mp.convert(source, tmp_path / "out", to="savedmodel", signatures="all", validate=False)
    assert measure(tmp_path / "out" / "saved_model") == measure(converted / "saved_model")


def test_it_is_converted_by_one_of_its_signatures(converted: Path, tmp_path: Path) -> None:
    manifest = mp.convert(converted, tmp_path / "out", to="onnx", signatures="features")
    assert [item.parity.verdict for item in manifest.artifacts] == [Verdict.PASSED]
    assert manifest.artifacts[0].signature == "features"


def test_a_signature_without_a_form_is_named(tmp_path: Path) -> None:
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": x * 2}, input_signature=[spec("x", None, 2)])
    module.bessel = tf.function(
        lambda x: {"y": tf.math.bessel_i0e(x)}, input_signature=[spec("x", None, 2)]
    )
    functions = {"serving_default": module.double, "bessel": module.bessel}
    tf.saved_model.save(module, str(tmp_path / "m"), functions)
    with pytest.raises(UnsupportedOpsError, match=r"^signature 'bessel': (.|\n)*BesselI0e"):
        mp.convert(tmp_path / "m", tmp_path / "out", to="savedmodel", signatures="all")
    assert not (tmp_path / "out").exists()


def test_tensorflow_serving_gets_all_signatures_and_triton_one(
    converted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mp.package(converted, tmp_path / "tf", layout="tfserving", name="pictures")
    assert "serves the signature" not in caplog.text
    assert len(mp.validate(tmp_path / "tf" / "pictures").artifacts) == 3
    mp.package(converted, tmp_path / "triton", layout="triton", name="pictures")
    assert "serves the signature serving_default, not features, words" in caplog.text
    assert "TF_SIGNATURE_DEF" not in (tmp_path / "triton/pictures/config.pbtxt").read_text()
