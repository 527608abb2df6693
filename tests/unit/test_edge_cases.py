"""Inputs at the edge of what each part of the core takes: refused with a typed error, or right."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from modelpack import archive, manifest
from modelpack.artifact import Artifact, detect, measure
from modelpack.datasets import read
from modelpack.errors import InputError, ManifestError, ModelpackError
from modelpack.judging.compare import Judgement
from modelpack.layouts import LayoutOptions, Package, arranger
from modelpack.layouts.triton import configuration
from modelpack.metrics import evaluate
from modelpack.output import publish
from modelpack.parity import Tolerance
from modelpack.samples import edges, generate, read_cases, write_cases
from modelpack.signature import DType, Meaning, Signature, TensorSpec, requested
from modelpack.steps import Description, Range
from tests.unit.judging import compare

JUDGEMENT = Judgement(Tolerance(rtol=1e-4, atol=1e-5))
BASE = """\
modelpack: 1
name: m
version: '1'
source: {framework: keras, file: m.keras}
signatures:
- inputs: []
  outputs: []
"""


def tensors(*texts: str) -> tuple[TensorSpec, ...]:
    return tuple(map(TensorSpec.parse, texts))


def signature(*inputs: str) -> Signature:
    return Signature(tensors(*inputs), ())


# --- signature ------------------------------------------------------------------------


def test_a_dimension_of_thousands_of_digits_is_refused_with_a_typed_error() -> None:
    with pytest.raises(InputError):
        TensorSpec.parse("x:float32[" + "9" * 5000 + "]")


NATIVE = Signature(tensors("a:float32[batch,4]", "b:float32[batch,4]"), tensors("y:float32[batch]"))


def test_two_sizes_for_one_dynamic_dimension_are_refused() -> None:
    with pytest.raises(InputError):
        requested(NATIVE, tensors("a:float32[3,4]", "b:float32[5,4]"), ())


def test_a_dimension_fixed_in_one_input_is_fixed_or_refused_in_the_others() -> None:
    try:
        found = requested(NATIVE, tensors("a:float32[3,4]"), ())
    except InputError:
        return
    assert str(found) == "(a:float32[3,4], b:float32[3,4]) -> (y:float32[3])"


def test_describing_one_input_twice_is_refused() -> None:
    with pytest.raises(InputError):
        requested(NATIVE, tensors("a:float32[3,4]", "a:float32[5,4]"), ())


# --- compare --------------------------------------------------------------------------

CLASSIFIER = Signature(
    (),
    (
        TensorSpec("label", DType.INT64, ("n",), meaning=Meaning.LABEL),
        TensorSpec("scores", DType.FLOAT32, ("n", 1), meaning=Meaning.SCORES),
    ),
)
SCORES = np.array([[-1.0], [1.0]], np.float32)


def labelled(values: Any) -> list[dict[str, Any]]:
    return [{"label": np.array(values), "scores": SCORES}]


def test_a_wrong_label_beside_scores_of_one_column_fails_and_does_not_crash() -> None:
    assert not compare(CLASSIFIER, labelled([0, 1]), labelled([0, 0]), JUDGEMENT)


def test_text_labels_in_place_of_integers_fail_and_do_not_crash() -> None:
    names = [{"label": np.array(["no", "yes"], object), "scores": SCORES}]
    assert not compare(CLASSIFIER, labelled([0, 1]), names, JUDGEMENT)


def test_float_labels_in_place_of_integers_fail() -> None:
    assert not compare(CLASSIFIER, labelled([0, 1]), labelled([0.0, 1.0]), JUDGEMENT)


def test_a_comparison_of_nothing_does_not_pass_and_does_not_crash() -> None:
    spec = TensorSpec("y", DType.FLOAT32, ("n",))
    assert not compare(Signature((), (spec,)), [], [], JUDGEMENT)


def test_an_error_on_a_zero_output_is_not_reported_as_zero() -> None:
    it = Signature((), (TensorSpec("y", DType.FLOAT32, ("n",)),))
    report = compare(it, [{"y": np.zeros(3)}], [{"y": np.ones(3)}], JUDGEMENT)
    assert report.max_rel > 0


def test_infinite_outputs_print_no_warnings() -> None:
    it = Signature((), (TensorSpec("y", DType.FLOAT32, ("n",)),))
    case = [{"y": np.array([np.inf, 1.0], np.float32)}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compare(it, case, case, JUDGEMENT)


# --- manifest -------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["\x85", "a\x85b"])
def test_the_line_break_nel_survives_a_manifest(text: str) -> None:
    spec = TensorSpec("y", DType.STRING, classes=(text,))
    found = manifest.load(BASE)
    found = dataclasses.replace(found, name=text, signatures=(Signature((), (spec,)),))
    assert manifest.load(manifest.dump(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        BASE + "x: " + "[" * 3000 + "]" * 3000,
        BASE + "x: 2020-13-45\n",
        BASE + "x: " + "9" * 5000 + "\n",
        BASE.replace("inputs: []", "inputs: [{name: 1bad, dtype: float32}]"),
        BASE.replace("inputs: []", "inputs: [{name: x, dtype: float32, shape: [-1]}]"),
    ],
    ids=["nested too deep", "no date", "huge number", "bad tensor name", "negative size"],
)
def test_hostile_manifests_are_refused_as_manifests(text: str) -> None:
    with pytest.raises(ManifestError):
        manifest.load(text)


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(ManifestError):
        manifest.load(BASE + "name: other\n")


def test_two_artifacts_of_one_path_are_refused() -> None:
    entry = "- {path: a.onnx, format: onnx, digest: x, size: 4}\n"
    with pytest.raises(ManifestError):
        manifest.load(BASE + "artifacts:\n" + entry + entry)


def test_two_signatures_of_one_name_are_refused() -> None:
    with pytest.raises(ManifestError):
        manifest.load(BASE + "- inputs: []\n  outputs: []\n")


# --- artifact -------------------------------------------------------------------------


def test_a_file_of_the_single_byte_80_is_refused_with_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x80")
    with pytest.raises(InputError):
        detect(tmp_path / "x")


def test_a_zip_whose_names_are_damaged_is_refused_with_a_typed_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as stream:
        stream.writestr("é", b"")
    content = (tmp_path / "x.keras").read_bytes()
    (tmp_path / "x.keras").write_bytes(content.replace("é".encode(), b"\xc3\xff"))
    with pytest.raises(InputError):
        detect(tmp_path / "x.keras")


# --- samples --------------------------------------------------------------------------


def test_a_nul_at_the_end_of_a_string_is_kept_or_refused(tmp_path: Path) -> None:
    try:
        write_cases(tmp_path / "c.npz", [{"s": np.array(["a\0"], object)}])
    except InputError:
        return
    assert read_cases(tmp_path / "c.npz")[0]["s"].tolist() == ["a\0"]


def test_bytes_that_are_no_text_are_refused_with_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_cases(tmp_path / "c.npz", [{"s": np.array([b"\xff"])}])


def test_a_single_array_is_no_file_of_cases(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.zeros(3))
    with pytest.raises(InputError):
        read_cases(tmp_path / "c.npy")


def test_integer_columns_are_drawn_from_the_range_of_each_column() -> None:
    ranges = {"x": Range((0.0, 100.0), (1.0, 200.0))}
    cases = generate(Description(signature("x:int64[n,2]"), ranges=ranges), seed=0)
    second = np.concatenate([case["x"][:, 1] for case in cases])
    assert second.min() >= 100


def test_a_string_scalar_is_generated_as_an_array() -> None:
    case = generate(Description(signature("s:string[]"), accepts_nan=True), seed=0)[0]
    assert isinstance(case["s"], np.ndarray)
    assert case["s"].shape == ()


# --- datasets -------------------------------------------------------------------------

X = signature("x:float32[batch,2]")
ROWS = np.arange(10, dtype=np.float32).reshape(5, 2)


def test_a_fixed_batch_of_64_is_kept_like_any_other(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((100, 2), np.float32))
    found = read(tmp_path / "d.npz", signature("x:float32[64,2]"))
    assert [len(batch["x"]) for batch in found.batches()] == [64]
    assert [len(case["x"]) for case in found.uneven_cases(100)] == [64]


def test_the_head_of_a_dynamic_batch_has_the_rows_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((100, 2), np.float32))
    assert len(read(tmp_path / "d.npz", X).head(90)) == 90


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_one_array_is_not_fed_to_two_inputs(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "d.npy", ROWS)
    np.savez(tmp_path / "d.npz", a=ROWS)
    with pytest.raises(InputError):
        read(tmp_path / f"d.{kind}", signature("a:float32[n,2]", "b:float32[n,2]"))


def test_labels_without_an_axis_are_refused_with_a_typed_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=ROWS, labels=np.array(3))
    with pytest.raises(InputError):
        read(tmp_path / "d.npz", X)


def test_an_input_without_an_axis_is_refused_with_a_typed_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array(3.0))
    with pytest.raises(InputError):
        read(tmp_path / "d.npz", signature("x:float32"))


def test_shards_of_different_shapes_are_refused_with_a_typed_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=ROWS)
    np.savez(tmp_path / "b.npz", x=np.zeros((5, 3), np.float32))
    with pytest.raises(InputError):
        read(tmp_path, X)


def test_an_npy_that_begins_like_a_zip_is_refused_with_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "d.npy").write_bytes(b"PK\x03\x04garbage")
    with pytest.raises(InputError):
        read(tmp_path / "d.npy", X)


def test_an_npz_called_npy_is_read_or_refused_with_a_typed_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=ROWS)
    (tmp_path / "d.npz").rename(tmp_path / "d.npy")
    with contextlib.suppress(InputError):
        np.testing.assert_array_equal(read(tmp_path / "d.npy", X).inputs["x"], ROWS)


def test_any_damage_to_a_compressed_npz_is_a_typed_error(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    np.savez_compressed(file, x=np.arange(4000, dtype=np.float32).reshape(-1, 2))
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        with contextlib.suppress(InputError):
            read(file, X)


# --- metrics --------------------------------------------------------------------------


def test_accuracy_of_a_single_sigmoid_output_is_right_or_refused() -> None:
    spec = TensorSpec("y", DType.FLOAT32, ("n", 1))
    outputs = [{"y": np.array([[0.9], [0.8], [0.1]])}]
    try:
        found = evaluate("accuracy", Signature((), (spec,)), outputs, np.array([1, 1, 0]))
    except InputError:
        return
    assert found == 1.0


def test_accuracy_does_not_tell_class_1_from_label_1_by_its_type() -> None:
    spec = TensorSpec("y", DType.FLOAT32, ("n", 2), classes=(0.0, 1.0))
    outputs = [{"y": np.array([[0.9, 0.1], [0.2, 0.8]])}]
    assert evaluate("accuracy", Signature((), (spec,)), outputs, np.array([0, 1])) == 1.0


# --- output ---------------------------------------------------------------------------


def test_directories_made_before_a_failure_are_removed(tmp_path: Path) -> None:
    root, new = tmp_path / "out", tmp_path / "new"
    root.mkdir()
    new.write_text("new")
    (root / "blocked").write_text("x")
    with pytest.raises(InputError):
        publish(root, {"sub/new": new, "blocked/x": new})
    assert [path.name for path in root.iterdir()] == ["blocked"]


def test_a_dangling_link_is_put_back_after_a_failure(tmp_path: Path) -> None:
    root, new = tmp_path / "out", tmp_path / "new"
    root.mkdir()
    new.write_text("new")
    (root / "blocked").write_text("x")
    (root / "model.onnx").symlink_to("elsewhere")
    with pytest.raises(InputError):
        publish(root, {"model.onnx": new, "blocked/x": new})
    assert (root / "model.onnx").is_symlink()


# --- archive and layouts --------------------------------------------------------------


def test_a_source_date_epoch_that_is_no_number_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    (tmp_path / "modelpack.yaml").write_text("x")
    with pytest.raises(ModelpackError):
        archive.write({"modelpack.yaml": tmp_path / "modelpack.yaml"}, tmp_path / "m.tar")


def test_a_nul_in_a_member_name_is_a_typed_error(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m.tar", "w", format=tarfile.PAX_FORMAT) as stream:
        member = tarfile.TarInfo("a")
        member.pax_headers = {"path": "a\0b"}
        stream.addfile(member, io.BytesIO())
    with pytest.raises(InputError):
        archive.extract(tmp_path / "m.tar", tmp_path / "out")


@pytest.mark.parametrize("name", ['a"b', "a\\", 'a" backend: "python'])
def test_a_name_with_quotes_cannot_write_into_a_triton_configuration(name: str) -> None:
    try:
        text = configuration(name, 'backend: "onnxruntime"', NATIVE, 0)
    except ModelpackError:
        return
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.backend) == (name, "onnxruntime")


def test_a_package_whose_artifact_lies_deeper_can_be_archived_with_its_sidecars(
    tmp_path: Path,
) -> None:
    root = tmp_path / "iris"  # as the Triton layout leaves it, and validate accepts it
    (root / "3").mkdir(parents=True)
    (root / "3" / "model.onnx").write_text("graph")
    (root / "3" / "weights.data").write_text("weights")
    digest, size = measure(root / "3" / "model.onnx", ("weights.data",))
    item = Artifact("3/model.onnx", "onnx", digest, size, sidecars=("weights.data",))
    listed = dataclasses.replace(manifest.load(BASE), artifacts=(item,))
    manifest.verify(listed, root)
    files = arranger("archive")(
        Package(listed, root, tmp_path, tmp_path / "served"), LayoutOptions()
    )
    archive.extract(files["m.tar"], tmp_path / "out")
    manifest.verify(manifest.read(tmp_path / "out"), tmp_path / "out")


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_a_scalar_is_drawn_from_its_range_and_at_its_ends(dtype: str) -> None:
    ranges = {"s": Range((3.0,), (7.0,))}
    described = Description(signature(f"s:{dtype}[]"), ranges=ranges)
    cases = generate(described, seed=0) + [case for _, case in edges(described, seed=0)]
    assert {case["s"].shape for case in cases} == {()}
    typical = generate(described, seed=0)
    assert all(3 <= case["s"] <= 7 for case in typical)
