from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.artifact import Artifact, Quantization, Step, measure
from modelpack.errors import InputError, ManifestError
from modelpack.manifest import (
    SCHEMA_VERSION,
    Golden,
    Manifest,
    Source,
    dump,
    find,
    load,
    plain,
    read,
    side_path,
    verify,
)
from modelpack.parity import ParityReport, TensorDiff, Tolerance, Verdict, unverified
from modelpack.signature import DType, Meaning, Signature, TensorSpec

# Words that YAML takes for other types or for its own marks.
YAML_TRAPS = ["yes", "no", "on", "null", "~", "1", "1.0", "0x1f", "1e3", "1_0", ".inf", "=", "<<"]
YAML_TRAPS += ["12:30", "2020-01-01", "#c", "'", '"', "\\", "!!str", "&a", "*a", "%", "@", "`"]
YAML_TRAPS += ["- a", "a: b", " a ", "a\nb\n", "\n", "\t", "\x00", "\u2028", "a\u2029", "\ufeff"]
YAML_TRAPS += ["é", "😀", "x" * 300]
# Text that Unicode can encode: any but lone surrogates, and NEL, which has a test of its
# own in test_found_bugs.py.
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85"), max_size=12),
    st.sampled_from(YAML_TRAPS),
)
NUMBERS = st.one_of(st.integers(-(2**62), 2**62), st.floats(allow_nan=False))
FIGURES = st.floats(allow_nan=False)
COUNTS = st.integers(0, 2**62)
PLAIN = st.one_of(st.booleans(), TEXT, NUMBERS)
VERSIONS = st.dictionaries(TEXT, TEXT, max_size=3)
PATHS = st.lists(
    st.from_regex(r"[A-Za-z0-9_é ][A-Za-z0-9_. é-]{0,8}", fullmatch=True), min_size=1, max_size=3
).map("/".join)
DIMS = st.one_of(
    st.integers(0, 2**40), st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True), st.none()
)


def several(items: st.SearchStrategy[Any], size: int = 3) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=size).map(tuple)


SPECS = st.builds(
    TensorSpec,
    name=st.from_regex(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,8}", fullmatch=True),
    dtype=st.sampled_from(DType),
    shape=st.none() | several(DIMS),
    columns=several(TEXT),
    classes=several(PLAIN),
    meaning=st.none() | st.sampled_from(Meaning),
)
UNIQUE_SPECS = st.lists(SPECS, max_size=2, unique_by=lambda spec: spec.name).map(tuple)
PARITY = st.builds(
    ParityReport,
    verdict=st.sampled_from(Verdict),
    reference=TEXT,
    runtime=TEXT,
    tolerance=st.none() | st.builds(Tolerance, FIGURES, FIGURES),
    cases=COUNTS,
    rows=COUNTS,
    outputs=several(
        st.builds(TensorDiff, TEXT, FIGURES, FIGURES, FIGURES, FIGURES, COUNTS, COUNTS, COUNTS)
    ),
    reason=TEXT,
)
STEPS = st.builds(Step, TEXT, VERSIONS, st.dictionaries(TEXT, PLAIN, max_size=3))
QUANTIZATIONS = st.builds(
    Quantization, TEXT, PATHS, COUNTS, FIGURES, TEXT, st.none() | FIGURES, st.none() | FIGURES
)
GOLDENS = st.builds(Golden, PATHS, TEXT, COUNTS, TEXT, COUNTS)
ARTIFACTS = st.builds(
    Artifact,
    path=PATHS,
    format=TEXT,
    digest=TEXT,
    size=COUNTS,
    precision=TEXT,
    opset=st.dictionaries(TEXT, COUNTS, max_size=2),
    steps=several(STEPS, 2),
    bindings=VERSIONS,
    fixed_dims=st.dictionaries(TEXT, COUNTS, max_size=2),
    sidecars=several(PATHS, 2),
    parity=PARITY,
    quantization=st.none() | QUANTIZATIONS,
    golden=st.none() | GOLDENS,
)
MANIFESTS = st.builds(
    Manifest,
    modelpack=st.just(SCHEMA_VERSION),
    name=TEXT,
    version=TEXT,
    source=st.builds(Source, TEXT, TEXT, TEXT, VERSIONS, VERSIONS),
    signatures=st.builds(Signature, UNIQUE_SPECS, UNIQUE_SPECS).map(lambda one: (one,)),
    artifacts=st.lists(ARTIFACTS, max_size=2, unique_by=lambda one: one.path).map(tuple),
    golden=st.none() | GOLDENS,
)

SMALL = Manifest(
    modelpack=1,
    name="iris",
    version="3",
    source=Source("sklearn", "iris.skops", "sha256:00", versions={"numpy": "2", "abc": "1"}),
    signatures=(
        Signature(
            (TensorSpec("x", DType.FLOAT32, ("batch", 4), columns=("a", "b", "c", "d")),),
            (TensorSpec("y", DType.STRING, (None,), classes=("no", 1, 1.0, True)),),
        ),
    ),
    artifacts=(
        Artifact("model.onnx", "onnx", "sha256:11", 12, opset={"ai.onnx": 21}),
        Artifact(
            "model.int8.onnx",
            "onnx",
            "sha256:22",
            3,
            parity=ParityReport(
                Verdict.PASSED,
                tolerance=Tolerance(1e-4, 1e-5),
                outputs=(TensorDiff("y", *[0] * 5),),
            ),
            quantization=Quantization("dynamic-int8", "model.onnx", reference_metric=0.0),
        ),
    ),
    golden=Golden("golden.npz", "sha256:33", 4),
)
SMALL_TEXT = """\
modelpack: 1
name: iris
version: '3'
source:
  framework: sklearn
  file: iris.skops
  digest: sha256:00
  versions:
    abc: '1'
    numpy: '2'
signatures:
- inputs:
  - name: x
    dtype: float32
    shape: [batch, 4]
    columns: [a, b, c, d]
  outputs:
  - name: y
    dtype: string
    shape: [null]
    classes: ['no', 1, 1.0, true]
artifacts:
- path: model.onnx
  format: onnx
  digest: sha256:11
  size: 12
  opset:
    ai.onnx: 21
- path: model.int8.onnx
  format: onnx
  digest: sha256:22
  size: 3
  parity:
    verdict: passed
    tolerance:
      rtol: 0.0001
      atol: 1.0e-05
    outputs:
    - name: y
      max_abs: 0
      max_rel: 0
      mean_abs: 0
      rms_rel: 0
      elements: 0
  quantization:
    scheme: dynamic-int8
    of: model.onnx
    reference_metric: 0.0
golden:
  path: golden.npz
  digest: sha256:33
  cases: 4
"""


def changed(**fields: Any) -> str:
    """SMALL as YAML, with these top-level fields replaced; None removes one."""
    document = plain(SMALL) | fields
    return yaml.safe_dump({key: item for key, item in document.items() if item is not None})


# --- round trip -----------------------------------------------------------------------


@settings(max_examples=60)
@given(MANIFESTS)
def test_a_manifest_is_read_back_as_it_was_written(manifest: Manifest) -> None:
    text = dump(manifest)
    found = load(text)
    assert found == manifest
    assert dump(found) == text


@settings(max_examples=15)
@given(MANIFESTS)
def test_a_manifest_survives_a_file(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest
) -> None:
    file = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    file.write_text(dump(manifest), encoding="utf-8", newline="")
    assert read(file) == manifest


@given(several(PLAIN, 6))
def test_classes_keep_their_types(classes: tuple[Any, ...]) -> None:
    spec = TensorSpec("y", DType.STRING, classes=classes)
    manifest = dataclasses.replace(SMALL, signatures=(Signature((), (spec,)),))
    found = load(dump(manifest)).signatures[0].outputs[0].classes
    assert [(type(item), item) for item in found] == [(type(item), item) for item in classes]


def test_the_bytes_of_a_manifest_do_not_change() -> None:
    assert dump(SMALL) == SMALL_TEXT
    assert load(SMALL_TEXT) == SMALL


def test_the_order_in_which_dictionaries_were_filled_does_not_matter() -> None:
    reordered = dataclasses.replace(SMALL.source, versions={"abc": "1", "numpy": "2"})
    assert dump(dataclasses.replace(SMALL, source=reordered)) == SMALL_TEXT


def test_a_scalar_and_an_unknown_rank_stay_apart() -> None:
    specs = TensorSpec("a", DType.INT8, ()), TensorSpec("b", DType.INT8, None)
    found = load(dump(dataclasses.replace(SMALL, signatures=(Signature(specs, ()),))))
    assert [spec.shape for spec in found.signatures[0].inputs] == [(), None]


TWO = dataclasses.replace(
    SMALL,
    signatures=(*SMALL.signatures, dataclasses.replace(SMALL.signatures[0], name="other")),
    artifacts=(
        Artifact("model.tflite", "tflite", "sha256:44", 5),
        Artifact("model.tflite", "tflite", "sha256:44", 5, signature="other"),
    ),
)


def test_a_file_may_have_an_entry_for_each_of_its_signatures() -> None:
    assert load(dump(TWO)) == TWO
    assert [TWO.name_in_file(item) for item in TWO.artifacts] == ["serving_default", "other"]
    assert [SMALL.name_in_file(item) for item in SMALL.artifacts] == ["", ""]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signature": "serving_default"}, "two artifacts called 'model.tflite' of the signature"),
        ({"digest": "sha256:45"}, "different things about the file 'model.tflite'"),
        ({"size": 6}, "different things about the file"),
        ({"format": "onnx"}, "different things about the file"),
    ],
)
def test_entries_of_one_file_must_agree_on_it(change: dict[str, Any], message: str) -> None:
    first, second = TWO.artifacts
    wrong = dataclasses.replace(TWO, artifacts=(first, dataclasses.replace(second, **change)))
    with pytest.raises(ManifestError, match=message):
        dump(wrong)


def test_a_file_that_is_written_anew_has_none_of_its_old_entries() -> None:
    alone = dataclasses.replace(TWO.artifacts[1], digest="sha256:55")
    assert TWO.with_artifacts(alone).artifacts == (alone,)
    both = tuple(dataclasses.replace(item, digest="sha256:66") for item in TWO.artifacts)
    found = SMALL.with_artifacts(*both).artifacts
    assert [item.path for item in found] == ["model.int8.onnx", "model.onnx", *["model.tflite"] * 2]
    assert found[2:] == both


def test_a_manifest_that_could_not_be_read_is_not_written() -> None:
    twice = dataclasses.replace(SMALL, signatures=SMALL.signatures * 2)
    with pytest.raises(ManifestError, match="lists two signatures called 'serving_default'"):
        dump(twice)


def test_the_options_of_a_step_keep_their_types() -> None:
    step = Step("c", options={"fold": True, "one": 1, "none": 0.0})
    artifact = dataclasses.replace(SMALL.artifacts[0], steps=(step,))
    found = load(dump(dataclasses.replace(SMALL, artifacts=(artifact,)))).artifacts[0]
    assert [(k, type(v)) for k, v in sorted(found.steps[0].options.items())] == [
        ("fold", bool),
        ("none", float),
        ("one", int),
    ]


# --- refusals -------------------------------------------------------------------------


def test_the_helper_of_these_tests_makes_documents_that_load() -> None:
    assert load(changed()) == SMALL


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"surprise": 1}, "unknown fields: surprise"),
        ({"modelpack": 2}, "schema version 2"),
        ({"modelpack": 0}, "schema version 0"),
        ({"modelpack": "1"}, "schema version '1'"),
        ({"modelpack": True}, "breaks the schema"),
        ({"modelpack": None}, "lacks the field 'modelpack'"),
        ({"name": None}, "breaks the schema: .*name"),
        ({"name": 3}, r"\$\.name"),
        ({"version": 1}, r"\$\.version"),
        ({"source": None}, "source"),
        ({"source": {"framework": "keras"}}, "file"),
        ({"source": {"framework": "keras", "file": "a", "path": "/x"}}, "fields: source.path"),
        ({"signatures": None}, "signatures"),
        ({"signatures": []}, "has no signature"),
        ({"signatures": {}}, r"\$\.signatures"),
        ({"artifacts": "model.onnx"}, r"\$\.artifacts"),
        ({"artifacts": [{"path": "a"}]}, "format"),
        ({"golden": {"path": "g", "digest": "d", "cases": "4"}}, r"golden\.cases"),
        ({"golden": {"path": "g", "digest": "d", "cases": 4.5}}, r"golden\.cases"),
    ],
)
def test_documents_that_break_the_schema_are_refused(
    document: dict[str, Any], message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        load(changed(**document))


def artifact(**fields: Any) -> dict[str, Any]:
    return {"path": "a.onnx", "format": "onnx", "digest": "d", "size": 1} | fields


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (artifact(sizes=1), "artifacts.0.sizes"),
        (artifact(parity={"verdict": "passed", "seen": 1}), "artifacts.0.parity.seen"),
        (artifact(parity={"verdict": "fine"}), "verdict"),
        (artifact(size="1"), "size"),
        (artifact(size=1.5), "size"),
        (artifact(opset={"ai.onnx": "21"}), "opset"),
        (artifact(steps=[{"converter": "a", "options": {"b": [1]}}]), "options"),
        (artifact(signature="other"), "no signature 'other'"),
    ],
)
def test_artifacts_that_break_the_schema_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        load(changed(artifacts=[entry]))


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "x"},
        {"name": "x", "dtype": "float31"},
        {"name": "x", "dtype": "float32", "shape": 3},
        {"name": "x", "dtype": "float32", "shape": [1.5]},
        {"name": "x", "dtype": "float32", "shape": [[1]]},
        {"name": "x", "dtype": "float32", "meaning": "truth"},
        {"name": "x", "dtype": "float32", "classes": [None]},
        {"name": "x", "dtype": "float32", "rank": 1},
    ],
)
def test_tensors_that_break_the_schema_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        load(changed(signatures=[{"inputs": [spec], "outputs": []}]))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../model.onnx",
        "a/../../model.onnx",
        "a/..",
        "..",
        ".",
        "",
        "..\\model.onnx",
        "C:\\model.onnx",
    ],
)
@pytest.mark.parametrize("place", ["artifact", "sidecar", "golden", "artifact golden"])
def test_paths_that_leave_the_directory_are_refused(path: str, place: str) -> None:
    document: dict[str, Any] = {
        "artifact": {"artifacts": [artifact(path=path)]},
        "sidecar": {"artifacts": [artifact(sidecars=[path])]},
        "golden": {"golden": {"path": path, "digest": "d", "cases": 1}},
        "artifact golden": {
            "artifacts": [artifact(golden={"path": path, "digest": "d", "cases": 1})]
        },
    }[place]
    with pytest.raises(ManifestError, match="leaves its directory"):
        load(changed(**document))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "- modelpack: 1",
        "a: [1",
        "a: b: c",
        "\tmodelpack: 1",
        "modelpack: 1\n---\nmodelpack: 1\n",
        "modelpack: 1\x00",
        "modelpack: !!python/object/apply:os.getcwd []",
        "{[1]: 2}",
        "\x89PNG",
    ],
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        load(text)


def test_aliases_that_would_unfold_to_gigabytes_are_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ManifestError, match="aliases are not allowed"):
        load("modelpack: 1\n" + "\n".join(levels))


def test_an_alias_is_refused_as_a_key_and_as_a_merge_too() -> None:
    for text in ("a: &a {b: 1}\nc: {<<: *a}", "a: &a b\n*a : 1"):
        with pytest.raises(ManifestError, match="aliases are not allowed"):
            load(text)


def test_messages_name_the_file() -> None:
    with pytest.raises(ManifestError, match=r"side\.yaml is not valid YAML"):
        load("a: [1", "side.yaml")


# --- files ----------------------------------------------------------------------------


def test_a_directory_stands_for_the_manifest_in_it(tmp_path: Path) -> None:
    (tmp_path / "modelpack.yaml").write_text(SMALL_TEXT)
    assert read(tmp_path) == read(tmp_path / "modelpack.yaml") == SMALL


def test_a_manifest_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        read(tmp_path)


def test_a_manifest_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modelpack.yaml").write_bytes(SMALL_TEXT.encode("utf-16"))
    with pytest.raises(ManifestError, match="not UTF-8"):
        read(tmp_path)


def test_a_manifest_of_absurd_size_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "modelpack.yaml"
    with file.open("wb") as stream:
        stream.truncate((16 << 20) + 1)
    with pytest.raises(ManifestError, match="larger than 16 MiB"):
        read(tmp_path)


def test_the_manifest_of_a_single_file_is_found_beside_it(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    assert find(model) is None
    side_path(model).write_text(SMALL_TEXT)
    assert side_path(model).name == "model.onnx.modelpack.yaml"
    assert find(model) == (SMALL, SMALL.artifacts[:1])
    assert find(tmp_path / "other.onnx") is None


def test_the_manifest_of_a_directory_is_found_from_its_artifacts(tmp_path: Path) -> None:
    (tmp_path / "modelpack.yaml").write_text(SMALL_TEXT)
    assert find(tmp_path / "model.int8.onnx") == (SMALL, SMALL.artifacts[1:])
    assert find(tmp_path / "stranger.onnx") is None


@pytest.fixture
def package(tmp_path: Path) -> tuple[Manifest, Path]:
    """A manifest of one file, one file with sidecars, one directory and golden samples."""
    (tmp_path / "plain.onnx").write_bytes(b"plain")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "large.onnx").write_bytes(b"large")
    (tmp_path / "deep" / "large.data").write_bytes(b"weights")
    (tmp_path / "saved_model" / "variables").mkdir(parents=True)
    (tmp_path / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "saved_model" / "variables" / "index").write_bytes(b"index")
    (tmp_path / "golden.npz").write_bytes(b"golden")
    (tmp_path / "own.npz").write_bytes(b"own")
    own = Golden("own.npz", "sha256:" + hashlib.sha256(b"own").hexdigest(), 1)
    entries = []
    for path, sidecars in (
        ("plain.onnx", ()),
        ("deep/large.onnx", ("large.data",)),
        ("saved_model", ()),
    ):
        digest, size = measure(tmp_path / path, sidecars)
        golden = own if path == "plain.onnx" else None
        entries.append(Artifact(path, "onnx", digest, size, sidecars=sidecars, golden=golden))
    golden = Golden("golden.npz", "sha256:" + hashlib.sha256(b"golden").hexdigest(), 1)
    return dataclasses.replace(SMALL, artifacts=tuple(entries), golden=golden), tmp_path


def test_an_untouched_package_is_verified(package: tuple[Manifest, Path]) -> None:
    verify(*package)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("plain.onnx", "plain.onnx"),
        ("deep/large.onnx", "deep/large.onnx"),
        ("deep/large.data", "deep/large.onnx"),
        ("saved_model/saved_model.pb", "saved_model"),
        ("saved_model/variables/index", "saved_model"),
        ("golden.npz", "golden.npz"),
        ("own.npz", "own.npz"),
    ],
)
@pytest.mark.parametrize("how", ["flip", "append", "truncate"])
def test_a_changed_file_is_found(
    package: tuple[Manifest, Path], file: str, named: str, how: str
) -> None:
    manifest, root = package
    content = (root / file).read_bytes()
    damaged = {
        "flip": bytes([content[0] ^ 1]) + content[1:],
        "append": content + b"\0",
        "truncate": content[:-1],
    }[how]
    (root / file).write_bytes(damaged)
    with pytest.raises(ManifestError, match=f"integrity: {named} is not what") as caught:
        verify(manifest, root)
    assert caught.value.message.count("is not what") == 1


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("plain.onnx", "plain.onnx is missing"),
        ("deep/large.data", "deep/large.onnx is missing"),
        ("golden.npz", "golden.npz is missing"),
        ("own.npz", "own.npz is missing"),
        ("saved_model/variables/index", "saved_model is not what"),
    ],
)
def test_a_missing_file_is_found(package: tuple[Manifest, Path], file: str, named: str) -> None:
    manifest, root = package
    (root / file).unlink()
    with pytest.raises(ManifestError, match=named):
        verify(manifest, root)


def test_a_file_that_moved_inside_a_directory_artifact_is_found(
    package: tuple[Manifest, Path],
) -> None:
    manifest, root = package
    (root / "saved_model" / "variables" / "index").rename(root / "saved_model" / "index")
    with pytest.raises(ManifestError, match="saved_model is not what"):
        verify(manifest, root)


def test_a_file_added_to_a_directory_artifact_is_found(package: tuple[Manifest, Path]) -> None:
    manifest, root = package
    (root / "saved_model" / "extra").write_bytes(b"")
    with pytest.raises(ManifestError, match="saved_model is not what"):
        verify(manifest, root)


def test_all_wrong_files_are_listed_at_once(package: tuple[Manifest, Path]) -> None:
    manifest, root = package
    (root / "plain.onnx").unlink()
    (root / "golden.npz").write_bytes(b"")
    with pytest.raises(ManifestError) as caught:
        verify(manifest, root)
    assert "plain.onnx is missing; golden.npz is not what" in caught.value.message


# --- queries --------------------------------------------------------------------------


def test_artifacts_are_replaced_by_path_and_sorted() -> None:
    newer = Artifact("model.onnx", "onnx", "sha256:99", 1)
    first = Artifact("a.tflite", "tflite", "sha256:98", 1)
    found = SMALL.with_artifacts(newer, first).artifacts
    assert [item.path for item in found] == ["a.tflite", "model.int8.onnx", "model.onnx"]
    assert found[2] == newer


def test_the_signature_of_an_artifact_has_the_dims_it_fixed() -> None:
    fixed = dataclasses.replace(SMALL.artifacts[0], fixed_dims={"batch": 1})
    assert SMALL.signature_of(fixed).inputs[0].shape == (1, 4)
    with pytest.raises(ManifestError, match="no signature 'other'"):
        SMALL.signature("other")


def test_an_artifact_is_compared_with_its_own_samples_or_the_common_ones() -> None:
    own = Golden("own.npz", "sha256:44", 2)
    special = dataclasses.replace(SMALL.artifacts[0], golden=own)
    manifest = SMALL.with_artifacts(special)
    assert manifest.golden_of(special) == own
    assert manifest.golden_of(SMALL.artifacts[1]) == SMALL.golden
    assert manifest.goldens() == (SMALL.golden, own)


def test_the_common_samples_are_those_of_the_first_signature() -> None:
    further = dataclasses.replace(SMALL.signatures[0], name="further")
    manifest = dataclasses.replace(SMALL, signatures=(*SMALL.signatures, further))
    artifact = dataclasses.replace(SMALL.artifacts[0], signature="further", golden=None)
    assert manifest.golden_of(artifact) is None
    assert manifest.golden_of(SMALL.artifacts[1]) == SMALL.golden


def test_a_signature_is_asked_for_by_name() -> None:
    further = dataclasses.replace(SMALL.signatures[0], name="further")
    manifest = dataclasses.replace(SMALL, signatures=(*SMALL.signatures, further))
    assert manifest.named_signature("further") == further
    assert manifest.named_signature("") == manifest.named_signature("all") == SMALL.signatures[0]
    with pytest.raises(InputError, match=r"no signature called 'other', but .*further"):
        manifest.named_signature("other")


def test_an_artifact_is_unverified_until_it_was_compared() -> None:
    assert SMALL.artifacts[0].parity == unverified("not compared")
