from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from modelpack import layouts
from modelpack.artifact import Artifact, Quantization, measure
from modelpack.errors import InputError, PackagingError
from modelpack.layouts import LayoutOptions, Package, arranger, choose, version_number
from modelpack.layouts.triton import configuration
from modelpack.manifest import Golden, Manifest, Source, read, verify
from modelpack.signature import DType, Signature, TensorSpec

BACKEND = 'backend: "onnxruntime"'
SIGNATURE = Signature(
    (TensorSpec.parse("x:float32[batch,?,4]"),),
    (TensorSpec.parse("label:int64[batch]"), TensorSpec.parse("p:float32[batch,3]")),
)
# By the table "Datatypes" of Triton's model configuration documentation.
TRITON_TYPES = {
    "bool": "TYPE_BOOL",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "string": "TYPE_STRING",
}


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """An ONNX file with a sidecar, a quantized ONNX file, a SavedModel and golden samples."""
    root = tmp_path / "package"
    (root / "saved_model").mkdir(parents=True)
    for name in ("model.onnx", "weights.data", "model.int8.onnx", "golden.npz"):
        (root / name).write_text(f"content of {name}")
    (root / "saved_model" / "saved_model.pb").write_text("graph")

    def listed(path: str, form: str, sidecars: tuple[str, ...] = (), **more: Any) -> Artifact:
        return Artifact(path, form, *measure(root / path, sidecars), sidecars=sidecars, **more)

    golden = Golden("golden.npz", measure(root / "golden.npz")[0], 2)
    manifest = Manifest(
        modelpack=1,
        name="iris",
        version="3",
        source=Source("sklearn", "iris.skops"),
        signatures=(SIGNATURE,),
        artifacts=(
            listed(
                "model.int8.onnx", "onnx", quantization=Quantization("dynamic-int8", "model.onnx")
            ),
            listed("model.onnx", "onnx", ("weights.data",)),
            listed("saved_model", "savedmodel"),
        ),
        golden=golden,
    )
    (tmp_path / "scratch").mkdir()
    return Package(manifest, root, tmp_path / "scratch", tmp_path / "served")


def without(package: Package, *paths: str) -> Package:
    kept = tuple(item for item in package.manifest.artifacts if item.path not in paths)
    return dataclasses.replace(
        package, manifest=dataclasses.replace(package.manifest, artifacts=kept)
    )


def laid_out(files: dict[str, Path], root: Path) -> Path:
    """Copy what a layout arranged to its place, as `output.publish` does."""
    for name, path in files.items():
        for file in path.rglob("*") if path.is_dir() else [path]:
            target = root / name / file.relative_to(path) if path.is_dir() else root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return root


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


# --- Triton ---------------------------------------------------------------------------


def test_a_triton_configuration_says_what_the_signature_says() -> None:
    config = parsed(configuration("iris", BACKEND, SIGNATURE, 0))
    assert (config.name, config.backend, config.platform) == ("iris", "onnxruntime", "")
    assert config.max_batch_size == 0
    (x,) = config.input
    assert (x.name, x.data_type, list(x.dims)) == ("x", model_config_pb2.TYPE_FP32, [-1, -1, 4])
    label, p = config.output
    assert (label.name, label.data_type, list(label.dims)) == (
        "label",
        model_config_pb2.TYPE_INT64,
        [-1],
    )
    assert (p.name, p.data_type, list(p.dims)) == ("p", model_config_pb2.TYPE_FP32, [-1, 3])
    assert not any(tensor.HasField("reshape") for tensor in (x, label, p))


def test_with_batching_triton_adds_the_batch_dimension_itself() -> None:
    config = parsed(configuration("iris", BACKEND, SIGNATURE, 16))
    assert config.max_batch_size == 16
    assert list(config.input[0].dims) == [-1, 4]
    # A label per sample has no further axis: one element, reshaped to none.
    assert list(config.output[0].dims) == [1]
    assert config.output[0].HasField("reshape")
    assert list(config.output[0].reshape.shape) == []
    assert list(config.output[1].dims) == [3]
    assert not config.output[1].HasField("reshape")


@pytest.mark.parametrize("dtype", list(DType))
def test_triton_knows_every_dtype(dtype: DType) -> None:
    it = Signature((TensorSpec("x", dtype, (1,)),), (TensorSpec("y", dtype, ()),))
    config = parsed(configuration("m", BACKEND, it, 0))
    expected = model_config_pb2.DataType.Value(TRITON_TYPES[dtype])
    assert config.input[0].data_type == expected
    assert config.output[0].data_type == expected


DIMS = st.one_of(st.integers(0, 2**40), st.sampled_from(["batch", "seq"]), st.none())
SPECS = st.builds(
    TensorSpec,
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,8}", fullmatch=True),
    st.sampled_from(DType),
    st.lists(DIMS, max_size=4).map(tuple),
)
SIDES = st.lists(SPECS, max_size=3, unique_by=lambda spec: spec.name).map(tuple)


@given(SIDES, SIDES)
def test_every_signature_of_known_rank_survives_in_a_triton_configuration(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> None:
    config = parsed(configuration("m", BACKEND, Signature(inputs, outputs), 0))
    for specs, tensors in ((inputs, config.input), (outputs, config.output)):
        assert [spec.name for spec in specs] == [tensor.name for tensor in tensors]
        for spec, tensor in zip(specs, tensors, strict=True):
            dims = [dim if isinstance(dim, int) else -1 for dim in spec.shape or ()]
            assert list(tensor.dims) == (dims or [1])
            assert tensor.HasField("reshape") == (not dims)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["x:float32[4]"], ["y:float32[batch]"]),
        (["x:float32[batch,4]"], ["y:float32[4]"]),
        (["x:float32[batch,4]"], ["y:float32[]"]),
        (["x:float32[?,4]"], ["y:float32[?]"]),
        (["x:float32[batch,4]"], ["y:float32[seq,batch]"]),
        (["x:float32[4,batch]"], ["y:float32[batch]"]),
        (["a:float32[batch]", "b:float32[other]"], ["y:float32[batch]"]),
        (["x:float32[8,4]"], ["y:float32[8]"]),
    ],
)
def test_batching_is_refused_without_one_dynamic_first_dimension(
    inputs: list[str], outputs: list[str]
) -> None:
    it = Signature(
        tuple(map(TensorSpec.parse, inputs)),
        tuple(map(TensorSpec.parse, outputs)),
    )
    configuration("m", BACKEND, it, 0)
    with pytest.raises(PackagingError, match="one dynamic batch dimension"):
        configuration("m", BACKEND, it, 8)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_triton_cannot_serve_an_unknown_rank(side: str) -> None:
    it = Signature(**{"inputs": (), "outputs": (), side: (TensorSpec("x", DType.INT8),)})
    with pytest.raises(PackagingError, match="'x' has unknown rank"):
        configuration("m", BACKEND, it, 0)


def test_a_triton_repository_holds_the_model_its_configuration_and_its_evidence(
    package: Package, tmp_path: Path
) -> None:
    files = arranger("triton")(package, LayoutOptions())
    root = laid_out(files, tmp_path / "repository")
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*")) == [
        "iris/3/model.onnx",
        "iris/3/weights.data",
        "iris/config.pbtxt",
        "iris/golden.npz",
        "iris/modelpack.yaml",
    ]
    manifest = read(root / "iris")
    assert [item.path for item in manifest.artifacts] == ["3/model.onnx"]
    verify(manifest, root / "iris")


def test_triton_serves_a_savedmodel_where_there_is_no_onnx(
    package: Package, tmp_path: Path
) -> None:
    files = arranger("triton")(
        without(package, "model.onnx", "model.int8.onnx"), LayoutOptions(max_batch_size=4)
    )
    root = laid_out(files, tmp_path / "repository")
    assert (root / "iris/3/model.savedmodel/saved_model.pb").is_file()
    config = parsed((root / "iris/config.pbtxt").read_text())
    assert (config.platform, config.backend) == ("tensorflow_savedmodel", "")
    assert config.max_batch_size == 4
    verify(read(root / "iris"), root / "iris")


def test_triton_is_told_which_signature_of_a_savedmodel_it_serves(package: Package) -> None:
    name = 'de"code'
    manifest = dataclasses.replace(
        package.manifest,
        signatures=(dataclasses.replace(SIGNATURE, name=name),),
        artifacts=tuple(
            dataclasses.replace(item, signature=name) for item in package.manifest.artifacts
        ),
    )
    named = dataclasses.replace(package, manifest=manifest)
    for artifact, told in (("model.onnx", ""), ("saved_model", name)):
        files = arranger("triton")(named, LayoutOptions(artifact=artifact))
        config = parsed(files["iris/config.pbtxt"].read_text())
        assert config.parameters["TF_SIGNATURE_DEF"].string_value == told


def test_one_of_several_signatures_is_served_by_its_name(package: Package) -> None:
    (saved,) = (item for item in package.manifest.artifacts if item.format == "savedmodel")
    further = dataclasses.replace(SIGNATURE, name="decode")
    several = dataclasses.replace(
        package.manifest,
        signatures=(SIGNATURE, further),
        artifacts=(saved, dataclasses.replace(saved, signature="decode")),
    )
    package = dataclasses.replace(package, manifest=several)
    for artifact, served in (
        ("", SIGNATURE.name),
        (saved.path, SIGNATURE.name),
        (f"{saved.path}:decode", "decode"),
    ):
        chosen = choose(package, ("savedmodel",), LayoutOptions(artifact=artifact))
        assert chosen.signature == served
    with pytest.raises(PackagingError) as caught:
        choose(package, ("savedmodel",), LayoutOptions(artifact="decode"))
    assert f"{saved.path}:decode" in caught.value.hint


def test_triton_gets_the_dims_that_an_artifact_fixed(package: Package) -> None:
    item = dataclasses.replace(package.manifest.artifacts[1], fixed_dims={"batch": 1})
    fixed = dataclasses.replace(
        package, manifest=dataclasses.replace(package.manifest, artifacts=(item,))
    )
    files = arranger("triton")(fixed, LayoutOptions())
    config = parsed(files["iris/config.pbtxt"].read_text())
    assert list(config.input[0].dims) == [1, -1, 4]
    with pytest.raises(PackagingError, match="one dynamic batch dimension"):
        arranger("triton")(fixed, LayoutOptions(max_batch_size=2))


# --- TensorFlow Serving ---------------------------------------------------------------


def test_tensorflow_serving_gets_a_numbered_version_and_a_configuration(
    package: Package, tmp_path: Path
) -> None:
    root = laid_out(arranger("tfserving")(package, LayoutOptions()), tmp_path / "models")
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*")) == [
        "iris/3/saved_model.pb",
        "iris/golden.npz",
        "iris/modelpack.yaml",
        "models.config",
    ]
    manifest = read(root / "iris")
    assert [(item.path, item.format) for item in manifest.artifacts] == [("3", "savedmodel")]
    verify(manifest, root / "iris")
    assert (root / "models.config").read_text().split() == [
        *("model_config_list", "{", "config", "{"),
        *("name:", '"iris"', "base_path:", '"/models/iris"', "model_platform:", '"tensorflow"'),
        *("}", "}"),
    ]


def test_tensorflow_serving_needs_a_savedmodel(package: Package) -> None:
    with pytest.raises(PackagingError, match="needs a savedmodel artifact; 'iris' has onnx") as e:
        arranger("tfserving")(without(package, "saved_model"), LayoutOptions())
    assert e.value.exit_code == 8


# --- archive --------------------------------------------------------------------------


def test_the_archive_holds_everything_the_manifest_lists(package: Package, tmp_path: Path) -> None:
    files = arranger("archive")(package, LayoutOptions())
    assert list(files) == ["iris.tar"]
    with tarfile.open(files["iris.tar"]) as stream:
        assert stream.getnames() == [
            "modelpack.yaml",
            "golden.npz",
            "model.int8.onnx",
            "model.onnx",
            "saved_model/saved_model.pb",
            "weights.data",
        ]
        # Python 3.11 knows filters from 3.11.4 on.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        stream.extractall(tmp_path / "out", **safely)
    verify(read(tmp_path / "out"), tmp_path / "out")
    assert read(tmp_path / "out") == package.manifest


# --- choices and refusals -------------------------------------------------------------


def test_the_float_artifact_is_served_unless_another_is_named(package: Package) -> None:
    assert choose(package, ("onnx",), LayoutOptions()).path == "model.onnx"
    assert choose(package, ("savedmodel", "onnx"), LayoutOptions()).path == "saved_model"
    again = Artifact("another.onnx", "onnx", "sha256:0", 1, signature="further")
    further = dataclasses.replace(SIGNATURE, name="further")
    manifest = dataclasses.replace(package.manifest, signatures=(SIGNATURE, further))
    several = dataclasses.replace(package, manifest=manifest.with_artifacts(again))
    assert choose(several, ("onnx",), LayoutOptions()).path == "model.onnx"
    named = LayoutOptions(artifact="model.int8.onnx")
    assert choose(package, ("onnx",), named).path == "model.int8.onnx"


@pytest.mark.parametrize("path", ["missing.onnx", "saved_model"])
def test_an_artifact_that_cannot_be_served_is_refused(package: Package, path: str) -> None:
    with pytest.raises(PackagingError, match=f"no onnx artifact '{path}'") as caught:
        choose(package, ("onnx",), LayoutOptions(artifact=path))
    assert "model.onnx" in caught.value.hint


def test_a_quantized_artifact_is_never_served_by_surprise(package: Package) -> None:
    with pytest.raises(PackagingError):
        choose(without(package, "model.onnx"), ("onnx",), LayoutOptions())


@pytest.mark.parametrize(
    ("version", "number"), [("1", "1"), ("007", "7"), (str(2**63 - 1), str(2**63 - 1))]
)
def test_a_whole_number_is_a_version(package: Package, version: str, number: str) -> None:
    assert version_number(dataclasses.replace(package.manifest, version=version)) == number


@pytest.mark.parametrize("version", ["", "0", "-1", "1.0", "v1", "²", "٣", str(2**63), " 1"])
@pytest.mark.parametrize("layout", ["triton", "tfserving"])
def test_servers_get_whole_positive_versions_only(
    package: Package, version: str, layout: str
) -> None:
    changed = dataclasses.replace(package.manifest, version=version)
    with pytest.raises(PackagingError):
        arranger(layout)(dataclasses.replace(package, manifest=changed), LayoutOptions())


def test_an_unknown_layout_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown layout 'kserve'") as caught:
        arranger("kserve")
    assert caught.value.hint == "use one of archive, tfserving, triton"


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    layouts.names.cache_clear()
    yield tmp_path
    layouts.names.cache_clear()


def test_other_distributions_add_layouts(plugins: Path) -> None:
    (plugins / "modelpack_toy_layout.py").write_text("def arrange(package, options): return {}\n")
    metadata = plugins / "modelpack_toy_layout-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: x\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[modelpack.layouts]\ntoy = modelpack_toy_layout:arrange\n"
    )
    assert layouts.names() == ("archive", "tfserving", "triton", "toy")
    assert arranger("toy")(None, None) == {}  # type: ignore[arg-type]
