from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import h5py
import joblib
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from modelpack.artifact import (
    FORMAT_OF_ENCODING,
    Encoding,
    ModelRef,
    contradicts,
    detect,
    digest_file,
    encoding_of,
    files_of,
    measure,
)
from modelpack.errors import InputError


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    return path


def onnx_model() -> onnx.ModelProto:
    def info(name: str) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"])

    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [info("x")], [info("y")]))


def make(encoding: str, path: Path) -> Path:
    """Write a tiny file of an encoding, by the library that usually writes it where it is light."""
    if encoding in ZIPS:
        return zipped(path, *ZIPS[encoding])
    WRITERS[encoding](path)
    return path


ZIPS = {
    "keras": ["metadata.json", "config.json", "model.weights.h5"],
    "pt2": ["m/archive_format", "m/models/model.json", "m/data/weights/weight_0"],
    "pt2-old": ["serialized_exported_program.json", "version"],
    "torch-save": ["archive/data.pkl", "archive/version", "archive/data/0"],
    "torchscript": ["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"],
    "skops": ["schema.json", "1.npy"],
}


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3"


def _savedmodel(path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"\x08\x01")


def _modelpack(path: Path) -> None:
    _savedmodel(path)
    (path / "modelpack.yaml").write_text("modelpack: 1\n")


def _archive(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as stream:
        member = tarfile.TarInfo("modelpack.yaml")
        member.size = 3
        stream.addfile(member, io.BytesIO(b"a:\n"))


def _transformers(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')


WRITERS = {
    "transformers": _transformers,
    "torch-save-old": lambda path: torch.save(
        {"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=False
    ),
    "h5": _hdf5,
    "onnx": lambda path: path.write_bytes(onnx_model().SerializeToString()),
    "tflite": lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(20)),
    "safetensors": lambda path: save_file({"w": np.zeros(3, np.float32)}, path),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"a": [1, 2]})),
    "joblib": lambda path: joblib.dump({"a": [1, 2]}, path),
    "xgboost": lambda path: path.write_bytes(b'{"learner":{"attributes":{},"feature_names":[]}}'),
    "xgboost-ubj": lambda path: path.write_bytes(b"{L\0\0\0\0\0\0\0\x07learner{L\0\0\0\0\0\0\0\n"),
    "lightgbm": lambda path: path.write_bytes(b"tree\nversion=v4\nnum_class=1\n"),
    "catboost": lambda path: path.write_bytes(b"CBM1\xa0$\0\0\x10\0\0\0"),
    "catboost-json": lambda path: path.write_bytes(b'{\n  "features_info":\n    {}}'),
    "savedmodel": _savedmodel,
    "modelpack": _modelpack,
    "archive": _archive,
}
EXPECTED = {
    "keras": Encoding.KERAS_ZIP,
    "h5": Encoding.HDF5,
    "pt2": Encoding.TORCH_EXPORT,
    "pt2-old": Encoding.TORCH_EXPORT,
    "torch-save": Encoding.TORCH_SAVE,
    "torchscript": Encoding.TORCHSCRIPT,
    "skops": Encoding.SKOPS,
    "pickle": Encoding.PICKLE,
    "joblib": Encoding.PICKLE,
    "onnx": Encoding.ONNX,
    "tflite": Encoding.TFLITE,
    "safetensors": Encoding.SAFETENSORS,
    "savedmodel": Encoding.SAVEDMODEL,
    "modelpack": Encoding.MODELPACK,
    "archive": Encoding.ARCHIVE,
    "torch-save-old": Encoding.TORCH_SAVE,
    "transformers": Encoding.TRANSFORMERS,
    "xgboost": Encoding.XGBOOST,
    "xgboost-ubj": Encoding.XGBOOST,
    "lightgbm": Encoding.LIGHTGBM,
    "catboost": Encoding.CATBOOST,
    "catboost-json": Encoding.CATBOOST,
}


@pytest.mark.parametrize("suffix", ["", ".keras", ".onnx", ".bin", ".pkl"])
@pytest.mark.parametrize("encoding", EXPECTED)
def test_content_and_not_the_suffix_tells_the_encoding(
    tmp_path: Path, encoding: str, suffix: str
) -> None:
    assert detect(make(encoding, tmp_path / f"file{suffix}")) is EXPECTED[encoding]


def test_every_encoding_of_a_file_is_covered_here() -> None:
    assert set(EXPECTED.values()) == set(Encoding) - {
        Encoding.PYTHON,
        Encoding.SERVER,
        Encoding.OTHER,
    }


def test_every_encoding_of_a_single_model_has_a_format() -> None:
    assert set(Encoding) - set(FORMAT_OF_ENCODING) == {
        Encoding.SAFETENSORS,
        Encoding.MODELPACK,
        Encoding.ARCHIVE,
        Encoding.OTHER,
    }


def test_the_encoding_of_an_artifact_follows_from_its_format() -> None:
    assert encoding_of("onnx") is Encoding.ONNX
    assert encoding_of("savedmodel") is Encoding.SAVEDMODEL
    assert encoding_of("format-of-a-plugin") is Encoding.OTHER


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickles_of_every_protocol_are_known_by_a_pickle_suffix(
    tmp_path: Path, protocol: int
) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps({"a": (1, "b")}, protocol))
    assert detect(file) is Encoding.PICKLE


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_compressed_joblib_files_are_pickles(tmp_path: Path, method: str) -> None:
    file = tmp_path / "model.joblib"
    joblib.dump({"a": np.zeros(10)}, file, compress=(method, 3))
    assert detect(file) is Encoding.PICKLE


@pytest.mark.parametrize("change", ["producer", "functions", "no producer", "doc", "old ir"])
def test_onnx_models_of_any_writer_are_known(tmp_path: Path, change: str) -> None:
    model = onnx_model()
    if change == "producer":
        model.producer_name, model.producer_version = "toy", "1"
    elif change == "functions":
        model.functions.add().name = "f"
    elif change == "doc":
        model.doc_string = "text"
    elif change == "old ir":
        model.ir_version = 3
    file = tmp_path / "model"
    file.write_bytes(model.SerializeToString())
    assert detect(file) is Encoding.ONNX


@pytest.mark.parametrize("encoding", ["keras", "pt2", "torch-save", "skops"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_zip_is_called_truncated(tmp_path: Path, encoding: str, share: float) -> None:
    file = make(encoding, tmp_path / "model.keras")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="truncated or damaged"):
        detect(file)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a zip file, but none of"):
        detect(zipped(tmp_path / "model.keras", "word/document.xml"))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (["a.npy", "b.npy"], "arrays of NumPy"),
        (["MAR-INF/MANIFEST.json", "model.pt"], "TorchServe"),
        (["m/saved_model.pb"], "unpack it"),
        (["a", "b", "c", "d"], "it holds a, b, c and 1 more"),
    ],
)
def test_a_zip_of_something_else_says_what_it_holds(
    tmp_path: Path, members: list[str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        detect(zipped(tmp_path / "model.pt", *members))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x93NUMPY\x01\0", "an array of NumPy"),
        (b"....PTMF....", "PyTorch Mobile"),
        (b"....ET12....", "ExecuTorch"),
        (b"GGUF\x03\0\0\0", "llama.cpp"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    ],
)
def test_files_of_other_tools_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match=says):
        detect(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("file", "content", "says", "hint"),
    [
        ("config.json", "{}", "neither 'architectures' nor 'model_type'", ""),
        ("config.json", "{", "cannot be read", ""),
        (
            "config.json",
            '{"architecture": "resnet18", "num_classes": 7}',
            "timm",
            '"num_classes": 7',
        ),
        ("model_index.json", "{}", "diffusers", "Python reference"),
    ],
)
def test_directories_of_other_libraries_are_named(
    tmp_path: Path, file: str, content: str, says: str, hint: str
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        detect(tmp_path)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "encoding", "odd"),
    [
        ("m.pt", Encoding.ONNX, True),
        ("m.pt", Encoding.TORCHSCRIPT, False),
        ("m.PTH", Encoding.HDF5, True),
        ("m.onnx", Encoding.ONNX, False),
        ("m.bin", Encoding.ONNX, False),
        ("m", Encoding.ONNX, False),
    ],
)
def test_a_name_that_promises_another_content_is_noticed(
    tmp_path: Path, name: str, encoding: Encoding, odd: bool
) -> None:
    (tmp_path / name).touch()
    assert contradicts(tmp_path / name, encoding) is odd


def test_an_empty_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fits no supported format"):
        detect(zipped(tmp_path / "model.keras"))


@pytest.mark.parametrize("suffix", ["", ".onnx", ".keras", ".pkl", ".tflite"])
def test_an_empty_file_is_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"model{suffix}"
    file.touch()
    with pytest.raises(InputError, match="is empty"):
        detect(file)


def test_a_path_without_anything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file or directory"):
        detect(tmp_path / "model.onnx")


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError):
        detect(tmp_path / "file" / "model.onnx")


@pytest.mark.parametrize("content", [[], ["model.onnx"], ["variables/variables.index"]])
def test_a_directory_that_is_no_model_is_refused(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match="neither a SavedModel"):
        detect(tmp_path)


def test_a_directory_called_saved_model_pb_makes_no_savedmodel(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").mkdir()
    with pytest.raises(InputError):
        detect(tmp_path)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".h5", ".keras", ".pt2", ".pkl"])
@pytest.mark.parametrize("content", [b"hello world\n", b"\0" * 600, b"%PDF-1.4", b"<html>"])
def test_the_suffix_alone_makes_no_model(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"although it is called '{suffix}'"):
        detect(file)


MAGIC = [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"....TFL3", b"\x08\x08", b"\x80\x04", b"\x80"]


@given(st.sampled_from(MAGIC), st.binary(min_size=1, max_size=600))
def test_any_content_is_told_or_refused_with_a_typed_error(
    tmp_path: Path, magic: bytes, content: bytes
) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(magic + content)
    try:
        assert detect(file) in Encoding
    except InputError as error:
        assert str(file) in error.message


# --- references -----------------------------------------------------------------------


def test_a_reference_is_shown_by_its_file_name_or_as_it_was_given() -> None:
    assert ModelRef("onnx", Encoding.ONNX, "/a/b/model.onnx").display == "model.onnx"
    assert ModelRef("", Encoding.PYTHON, "/a/b.py:model").display == "b.py:model"


# --- digests --------------------------------------------------------------------------


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_file(file) == digest
    assert measure(file) == (digest, 3)


def test_the_digest_of_a_directory_is_that_of_its_sorted_listing(tmp_path: Path) -> None:
    root = tmp_path / "model"
    (root / "b").mkdir(parents=True)
    (root / "b" / "inner").write_bytes(b"2")
    (root / "a").write_bytes(b"11")
    (root / "b.txt").write_bytes(b"3")
    listing = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in [("a", b"11"), ("b.txt", b"3"), ("b/inner", b"2")]
    )
    expected = "sha256:" + hashlib.sha256(listing.encode()).hexdigest()
    assert measure(root) == (expected, 4)


def test_the_digest_of_a_file_with_sidecars_covers_them(tmp_path: Path) -> None:
    for name, content in (("m.onnx", b"1"), ("m.data", b"22")):
        (tmp_path / name).write_bytes(content)
    listing = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in [("m.onnx", b"1"), ("m.data", b"22")]
    )
    expected = "sha256:" + hashlib.sha256(listing.encode()).hexdigest()
    assert measure(tmp_path / "m.onnx", ("m.data",)) == (expected, 3)


def test_the_digest_does_not_depend_on_where_a_directory_is(tmp_path: Path) -> None:
    for place in ("one", "another/place"):
        (tmp_path / place / "sub").mkdir(parents=True)
        (tmp_path / place / "sub" / "x").write_bytes(b"x")
    assert measure(tmp_path / "one") == measure(tmp_path / "another/place")


def test_names_count_in_the_digest_of_a_directory(tmp_path: Path) -> None:
    for place, name in (("one", "x"), ("two", "y")):
        (tmp_path / place).mkdir()
        (tmp_path / place / name).write_bytes(b"same")
    assert measure(tmp_path / "one")[0] != measure(tmp_path / "two")[0]


def test_files_are_listed_by_their_relative_names(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    for name in ("z/b", "z/a", "y"):
        (tmp_path / name).write_bytes(b"")
    assert [name for name, _ in files_of(tmp_path)] == ["y", "z/a", "z/b"]
    assert list(files_of(tmp_path / "y", ("z/a",))) == [
        ("y", tmp_path / "y"),
        ("z/a", tmp_path / "z/a"),
    ]
