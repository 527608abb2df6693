"""Models of several signatures: each is converted, compared, validated and packaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import modelpack as mp
from fixtures.inline import in_this_process
from modelpack.artifact import measure
from modelpack.errors import InputError, UnsupportedOpsError
from modelpack.manifest import dump, read
from modelpack.parity import Verdict
from modelpack.verbs import convert, quantize, validate
from modelpack.verbs.building import places

tf = pytest.importorskip("tensorflow")

RNG = np.random.default_rng(5)
WEIGHTS = RNG.standard_normal((6, 20)).astype(np.float32)


def spec(name: str, *dims: int | None) -> Any:
    return tf.TensorSpec(dims, tf.float32, name=name)


class Codec(tf.Module):
    """Three functions of one weight; the last two look alike from the outside."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(WEIGHTS)

    @tf.function(input_signature=[spec("x", None, 6), spec("scale")])
    def encode(self, x: Any, scale: Any) -> dict[str, Any]:
        return {"code": tf.matmul(x, self.weights) * scale}

    @tf.function(input_signature=[spec("code", None, 20)])
    def decode(self, code: Any) -> dict[str, Any]:
        return {"x": tf.matmul(code, self.weights, transpose_b=True)}

    @tf.function(input_signature=[spec("code", None, 20)])
    def halved(self, code: Any) -> dict[str, Any]:
        return {"x": tf.matmul(code, self.weights, transpose_b=True) / 2}


NAMES = ["serving_default", "decode", "halved"]
FILES = ["model.onnx", "model.decode.onnx", "model.halved.onnx"]
JOINED = "model.tflite"
SAMPLES = ["golden.npz", "golden.decode.npz", "golden.halved.npz"]


def answers(code_rows: int) -> list[tuple[dict[str, Any], str, Any]]:
    """For each signature a feed, the output, and what NumPy has for it."""
    x = RNG.standard_normal((code_rows, 6)).astype(np.float32)
    code = RNG.standard_normal((code_rows, 20)).astype(np.float32)
    scale = np.array(1.5, np.float32)
    return [
        ({"x": x, "scale": scale}, "code", x @ WEIGHTS * scale),
        ({"code": code}, "x", code @ WEIGHTS.T),
        ({"code": code}, "x", code @ WEIGHTS.T / 2),
    ]


def in_onnxruntime(path: Path, feed: dict[str, Any]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def in_litert(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path))


@pytest.fixture(scope="module", autouse=True)
def inline() -> Iterator[None]:
    with in_this_process(convert, quantize, validate):
        yield


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "codec"
    model = Codec()
    functions = (model.encode, model.decode, model.halved)
    tf.saved_model.save(model, str(path), dict(zip(NAMES, functions, strict=True)))
    return path


@pytest.fixture(scope="module")
def converted(codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "out"
    mp.convert(codec, out, to=["onnx", "tflite"], signatures="all")
    return out


@pytest.fixture
def copy(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "copy"))


# --- convert ---------------------------------------------------------------------------------


def test_each_signature_gets_an_onnx_file_with_its_own_answers(converted: Path) -> None:
    for file, (feed, output, expected) in zip(FILES, answers(3), strict=True):
        found = in_onnxruntime(converted / file, feed)
        assert list(found) == [output]
        np.testing.assert_allclose(found[output], expected, rtol=1e-4, atol=1e-5)


def test_one_tflite_file_has_all_signatures(converted: Path) -> None:
    interpreter = in_litert(converted / JOINED)
    assert set(interpreter.get_signature_list()) == set(NAMES)
    for _ in range(2):  # one may not change what another answers
        for name, (feed, output, expected) in zip(NAMES, answers(3), strict=True):
            found = interpreter.get_signature_runner(name)(**feed)
            assert list(found) == [output]
            np.testing.assert_allclose(found[output], expected, rtol=1e-4, atol=1e-5)


def test_the_manifest_lists_the_signatures_and_a_verdict_on_each(converted: Path) -> None:
    manifest = read(converted)
    assert [item.name for item in manifest.signatures] == ["serving_default", *sorted(NAMES[1:])]
    listed = sorted([*zip(FILES, NAMES, strict=True), *((JOINED, name) for name in NAMES)])
    assert sorted((item.path, item.signature) for item in manifest.artifacts) == listed
    assert len({item.digest for item in manifest.in_file(JOINED)}) == 1
    for artifact in manifest.artifacts:
        assert artifact.parity.verdict is Verdict.PASSED
        golden = manifest.golden_of(artifact)
        assert golden is not None
        assert golden.path == SAMPLES[NAMES.index(artifact.signature)]
        promised = manifest.signature_of(artifact)
        tensors = {item.name for item in (*promised.inputs, *promised.outputs)}
        assert set(artifact.bindings) == tensors


def test_some_signatures_are_converted_and_those_left_out_are_named(
    codec: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = mp.convert(codec, tmp_path / "out", to="onnx", signatures=["halved", "decode"])
    assert [item.name for item in manifest.signatures] == ["halved", "decode"]
    signatures = {item.path: item.signature for item in manifest.artifacts}
    assert signatures == {"model.onnx": "halved", "model.decode.onnx": "decode"}
    assert "left out: serving_default" in caplog.text


def test_a_signature_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": x * 2}, input_signature=[spec("x", None, 2)])
    module.bessel = tf.function(
        lambda x: {"y": tf.math.bessel_i0e(x)}, input_signature=[spec("x", None, 2)]
    )
    functions = {"serving_default": module.double, "bessel": module.bessel}
    tf.saved_model.save(module, str(tmp_path / "m"), functions)
    with pytest.raises(UnsupportedOpsError, match=r"^signature 'bessel': (.|\n)*BesselI0e"):
        mp.convert(tmp_path / "m", tmp_path / "out", to="onnx", signatures="all")
    assert not (tmp_path / "out").exists()


def test_what_is_about_one_signature_is_refused_for_several(codec: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is one file, but 3 signatures become one each"):
        mp.convert(codec, tmp_path / "m.onnx", signatures="all")
    with pytest.raises(InputError, match="--input and --output describe one signature"):
        mp.convert(codec, tmp_path / "out", to="onnx", signatures="all", outputs=["z"])
    with pytest.raises(InputError, match="no signature called 'encode', but decode, halved"):
        mp.convert(codec, tmp_path / "out", to="onnx", signatures=["decode", "encode"])


@pytest.mark.parametrize("names", [["a b", "a/b"], ["A", "a"], ["float16"]])
def test_signatures_whose_files_would_be_called_alike_are_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match="as others are"):
        places(Path("out"), ["serving_default", *names])


def test_signatures_whose_names_are_too_long_for_files_are_refused() -> None:
    for name in ("n" * 201, ""):
        with pytest.raises(InputError, match="no file name can hold") as caught:
            places(Path("out"), ["serving_default", name])
        assert "--signature NAME" in caught.value.hint
    assert places(Path("m.onnx"), ["n" * 201])[0].file_name("onnx") == "m.onnx"


def test_a_directory_is_converted_by_one_of_its_signatures(
    converted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, (feed, output, expected), _ = answers(2)
    mp.convert(converted, tmp_path / "one.onnx", signatures="decode")
    found = in_onnxruntime(tmp_path / "one.onnx", feed)
    np.testing.assert_allclose(found[output], expected, rtol=1e-4, atol=1e-5)
    assert "left out: serving_default, halved" in caplog.text
    with pytest.raises(InputError, match=r"signatures of .* may be files of their own"):
        mp.convert(converted, tmp_path / "out", to="onnx", signatures="all")
    with pytest.raises(InputError, match="has no signature called 'encode'"):
        mp.convert(converted, tmp_path / "none", to="onnx", signatures="encode")


def test_new_golden_samples_replace_the_old_ones_for_every_artifact(
    copy: Path, codec: Path
) -> None:
    mp.convert(codec, copy, to="onnx", signatures="all", seed=7)
    manifest = read(copy)
    assert {golden.seed for golden in manifest.goldens()} == {7}
    assert mp.validate(copy).verdict is Verdict.PASSED


# --- validate --------------------------------------------------------------------------------


def test_each_artifact_is_validated_as_its_signature(converted: Path, codec: Path) -> None:
    for reference in ("", codec, converted):
        report = mp.validate(converted, reference=reference)
        assert len(report.artifacts) == 6
        assert {item.verdict for item in report.artifacts} == {Verdict.PASSED}
    (only, other) = mp.validate(converted, signature_name="decode", reference=codec).artifacts
    assert (only.path, other.path) == (FILES[1], JOINED)
    for item in (only, other):
        assert item.signature is not None
        assert item.signature.name == "decode"
        assert item.parity.outputs[0].name == "x"


def test_the_answers_of_another_signature_are_not_taken(copy: Path, codec: Path) -> None:
    manifest = read(copy)
    one, other = (copy / file for file in FILES[1:])
    shutil.copyfile(other, one)  # takes and gives the same, but half of it
    digest, size = measure(one)
    swapped = [
        replace(item, digest=digest, size=size) if item.path == one.name else item
        for item in manifest.artifacts
    ]
    (copy / "modelpack.yaml").write_text(dump(replace(manifest, artifacts=tuple(swapped))))
    for reference in ("", codec):
        report = mp.validate(copy, reference=reference)
        failed = [item.path for item in report.artifacts if item.verdict is Verdict.FAILED]
        assert failed == [one.name]


def test_models_of_different_signatures_are_not_compared(converted: Path) -> None:
    one, other = (converted / file for file in FILES[1:])
    with pytest.raises(InputError, match="implements the signature 'halved', not 'decode'"):
        mp.validate(one, reference=other)
    assert mp.validate(one, reference=converted / JOINED).verdict is Verdict.PASSED
    with pytest.raises(InputError, match="has no signature called 'encode'"):
        mp.validate(converted, signature_name="encode")
    with pytest.raises(InputError, match="one signature is meant"):
        mp.validate(converted, signature_name="all")


@pytest.fixture(scope="module")
def alone(codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alone") / "decode.onnx"
    mp.convert(codec, path, signatures="decode")
    return path


@pytest.fixture(scope="module")
def bare(codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of one signature that no manifest describes."""
    path = tmp_path_factory.mktemp("bare") / "decode.tflite"
    mp.convert(codec, path, signatures="decode", validate=False)
    return Path(shutil.copyfile(path, path.with_name("bare.tflite")))


def test_an_artifact_made_of_one_signature_is_compared_with_that_one(
    alone: Path, codec: Path, shared: Path, bare: Path, converted: Path, tmp_path: Path
) -> None:
    mp.package(converted, tmp_path / "all.tar", layout="archive")
    own = (converted / FILES[1], converted / JOINED, tmp_path / "all.tar")
    for reference in (codec, shared, bare, *own):
        assert mp.validate(alone, reference=reference).verdict is Verdict.PASSED
    assert mp.validate(converted / FILES[1], reference=bare).verdict is Verdict.PASSED
    with pytest.raises(InputError, match="implements the signature 'halved', not 'decode'"):
        mp.validate(alone, reference=converted / FILES[2])


@pytest.mark.parametrize("name", ["nope", "serving_default"])
def test_an_artifact_is_not_validated_as_a_signature_that_it_does_not_implement(
    name: str, alone: Path, codec: Path
) -> None:
    for reference in ("", codec):
        with pytest.raises(InputError, match=f"implements the signature 'decode', not '{name}'"):
            mp.validate(alone, signature_name=name, reference=reference)
    with pytest.raises(InputError, match=f"implements the signature 'decode', not '{name}'"):
        mp.validate(codec, signature_name=name, reference=alone)
    assert mp.validate(alone, signature_name="decode").verdict is Verdict.PASSED
    report = mp.validate(alone, signature_name="decode", reference=codec)
    assert report.verdict is Verdict.PASSED


def test_what_was_made_without_names_is_compared_with_the_signature_of_a_name(
    bare: Path, codec: Path, tmp_path: Path
) -> None:
    mp.convert(bare, tmp_path / "out", to="onnx")  # which calls its signature serving_default
    for model in (tmp_path / "out", tmp_path / "out" / "model.onnx"):
        report = mp.validate(model, reference=codec, signature_name="decode")
        assert report.verdict is Verdict.PASSED
        with pytest.raises(InputError, match="'decode'"):
            mp.validate(model, signature_name="decode")


# --- TFLite files ----------------------------------------------------------------------------


def in_one_file(saved: Path, names: list[str], target: Path) -> Path:
    """Convert signatures of a SavedModel to one TFLite file, by TensorFlow's own means."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=names)
    target.write_bytes(converter.convert())
    return target


@pytest.fixture(scope="module")
def shared(codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_one_file(codec, NAMES, tmp_path_factory.mktemp("tflite") / "codec.tflite")


def test_any_signature_of_a_tflite_file_is_converted(shared: Path, tmp_path: Path) -> None:
    manifest = mp.convert(shared, tmp_path / "out", to="onnx", signatures="all")
    assert {item.parity.verdict for item in manifest.artifacts} == {Verdict.PASSED}
    for file, (feed, output, expected) in zip(FILES, answers(3), strict=True):
        found = in_onnxruntime(tmp_path / "out" / file, feed)
        np.testing.assert_allclose(found[output], expected, rtol=1e-4, atol=1e-5)
        (result,) = mp.validate(tmp_path / "out" / file, reference=shared).artifacts
        assert result.verdict is Verdict.PASSED


def test_any_signature_of_a_tflite_file_is_validated(
    shared: Path, codec: Path, converted: Path
) -> None:
    for name in NAMES:
        (result,) = mp.validate(shared, reference=codec, signature_name=name).artifacts
        assert result.signature is not None
        assert (result.verdict, result.signature.name) == (Verdict.PASSED, name)
    assert mp.validate(converted, reference=shared).verdict is Verdict.PASSED
    (alone,) = mp.validate(shared, signature_name="decode").artifacts
    assert alone.signature is not None
    assert [spec.name for spec in alone.signature.inputs] == ["code"]
    with pytest.raises(InputError, match="no signature called 'encode', but decode"):
        mp.validate(shared, signature_name="encode")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([b"serving_default", b"", b"halved"], "one of several signatures has no name"),
        ([b"same", b"same", b"halved"], "two signatures are called 'same'"),
        ([b"serving_default", b"\xff\xfe", b"halved"], r"b'\\xff\\xfe', is not UTF-8"),
    ],
)
def test_tflite_files_whose_signatures_cannot_be_told_apart_are_refused(
    keys: list[bytes], message: str, shared: Path, tmp_path: Path
) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(shared))
    for item, key in zip(model.signatureDefs, keys, strict=True):
        item.signatureKey = key
    flatbuffer_utils.write_model(model, str(tmp_path / "m.tflite"))
    for name in ("", "halved"):
        with pytest.raises(InputError, match=f"damaged: .*{message}"):
            mp.validate(tmp_path / "m.tflite", signature_name=name)


def test_a_tflite_file_of_several_signatures_is_quantized_with_all(
    shared: Path, tmp_path: Path
) -> None:
    manifest = mp.quantize(shared, tmp_path / "small.tflite", scheme="float16")
    assert [item.name for item in manifest.signatures] == ["serving_default", *sorted(NAMES[1:])]
    assert {item.parity.verdict for item in manifest.artifacts} == {Verdict.PASSED}
    interpreter = in_litert(tmp_path / "small.tflite")
    for name, (feed, output, expected) in zip(NAMES, answers(3), strict=True):
        found = interpreter.get_signature_runner(name)(**feed)
        np.testing.assert_allclose(found[output], expected, rtol=2e-3, atol=1e-2)
    report = mp.validate(tmp_path / "small.tflite")
    assert [item.verdict for item in report.artifacts] == [Verdict.PASSED] * 3
    assert all(item.parity.cases for item in report.artifacts)


def test_loops_of_one_of_several_signatures_are_converted(tmp_path: Path) -> None:
    def repeated(x: Any) -> dict[str, Any]:
        return {"y": tf.while_loop(lambda y: y[0, 0] < 9, lambda y: (y * 2 + 1,), (x,))[0]}

    module = tf.Module()
    module.plain = tf.function(lambda x: {"y": x * 2}, input_signature=[spec("x", 1, 2)])
    module.loop = tf.function(repeated, input_signature=[spec("x", 1, 2)])
    names = ["plain", "loop"]
    functions = dict(zip(names, (module.plain, module.loop), strict=True))
    tf.saved_model.save(module, str(tmp_path / "m"), functions)
    file = in_one_file(tmp_path / "m", names, tmp_path / "m.tflite")
    mp.convert(file, tmp_path / "out", to="onnx", signatures=names)
    feed = {"x": np.ones((1, 2), np.float32)}
    for path, expected in (("model.onnx", [[2, 2]]), ("model.loop.onnx", [[15, 15]])):
        found = in_onnxruntime(tmp_path / "out" / path, feed)
        np.testing.assert_array_equal(found["y"], expected)


# --- quantize, package -----------------------------------------------------------------------


def test_quantized_artifacts_keep_their_signature_and_samples(
    converted: Path, tmp_path: Path
) -> None:
    manifest = mp.quantize(converted, tmp_path / "small", scheme="float16", to="onnx")
    assert sorted(item.signature for item in manifest.artifacts) == sorted(NAMES)
    assert mp.validate(tmp_path / "small").verdict is Verdict.PASSED
    with pytest.raises(InputError, match=r"no artifact of 'codec' implements .* 'decode'"):
        mp.quantize(converted / FILES[0], tmp_path / "first", scheme="float16")
        mp.validate(tmp_path / "first", signature_name="decode")
    alone = tmp_path / "alone.onnx"
    mp.quantize(converted / FILES[1], alone, scheme="float16")
    (result,) = mp.validate(alone).artifacts
    assert result.verdict is Verdict.PASSED
    assert result.parity.cases


def test_a_server_gets_one_signature_and_the_others_are_named(
    converted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mp.package(converted, tmp_path, layout="triton", name="codec")
    assert "serves the signature serving_default, not decode, halved" in caplog.text
    decode = FILES[1]
    mp.package(converted, tmp_path, layout="triton", name="decode", artifact=decode)
    assert "serves the signature decode, not serving_default, halved" in caplog.text
    for name in ("codec", "decode"):
        (result,) = mp.validate(tmp_path / name).artifacts
        assert result.verdict is Verdict.PASSED
        assert result.parity.cases


def test_an_archive_keeps_every_signature(converted: Path, tmp_path: Path) -> None:
    mp.package(converted, tmp_path / "all.tar", layout="archive")
    report = mp.validate(tmp_path / "all.tar")
    assert len(report.artifacts) == 6
    assert report.verdict is Verdict.PASSED
