"""A corpus of bad inputs: each gives a clear error, its exit code, no traceback, no trace.

Every case starts from a real file and damages it, or is a real file in the wrong place. Each
is run against an output directory that already holds a package, which must stay as it was.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

Make = Callable[[Path, Path, dict[str, Path]], list[object]]
CASES: dict[str, tuple[int, str, Make]] = {}


def case(name: str, code: int, says: str) -> Callable[[Make], Make]:
    """Register a case: its exit code, a pattern its error matches, and how to make it."""

    def register(make: Make) -> Make:
        assert name not in CASES
        CASES[name] = (code, says, make)
        return make

    return register


def truncated(source: Path, target: Path, share: float = 0.5) -> Path:
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def corrupted(source: Path, target: Path) -> Path:
    """Overwrite a stretch in the middle, where the content is, not the headers."""
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = b"\xff" * 64
    target.write_bytes(bytes(content))
    return target


def to_onnx(*words: object) -> list[object]:
    return ["convert", *words, "-o", "out", "--to", "onnx"]


# --- truncated, corrupted, empty -----------------------------------------------------------

SOURCES = ["keras_cnn.keras", "torch_cnn.pt2", "sklearn_forest.skops"]


def damage_cases() -> None:
    for source in SOURCES:
        for how, damage in (("truncated", truncated), ("corrupted", corrupted)):

            @case(f"{how} {source}", 2, r"damaged|truncated|cannot|corrupt|readable")
            def _(here, models, made, source=source, damage=damage):
                return to_onnx(damage(models / source, here / source))

    for form, file in (("onnx", "model.onnx"), ("tflite", "model.tflite")):

        @case(f"truncated {form}", 2, r"damaged|truncated|cannot")
        def _(here, models, made, file=file):
            return to_onnx(truncated(made["keras_cnn"] / file, here / file))

    for suffix in ("keras", "h5", "pt2", "skops", "onnx", "tflite", "pkl"):

        @case(f"empty .{suffix}", 2, "is empty")
        def _(here, models, made, suffix=suffix):
            (here / f"m.{suffix}").write_bytes(b"")
            return to_onnx(f"m.{suffix}")

    for suffix in ("keras", "onnx", "tflite", "pt2"):

        @case(f"text called .{suffix}", 2, "not a model modelpack knows")
        def _(here, models, made, suffix=suffix):
            (here / f"m.{suffix}").write_text("hello, this is no model\n" * 40)
            return to_onnx(f"m.{suffix}")


damage_cases()


@case("truncated h5", 2, r"damaged|truncated|cannot")
def _(here, models, made):
    import h5py

    with h5py.File(here / "full.h5", "w") as file:
        file["x"] = np.zeros(10000)
    return to_onnx(truncated(here / "full.h5", here / "m.h5"))


@case("h5 without a model", 2, r"weights|no model|model_config")
def _(here, models, made):
    import h5py

    with h5py.File(here / "m.h5", "w") as file:
        file["x"] = np.zeros(10)
    return to_onnx("m.h5")


@case("corrupted pickle", 2, r"pickle|cannot|damaged|truncated")
def _(here, models, made):
    return to_onnx(truncated(models / "sklearn_forest.joblib", here / "m.joblib"), "--trust")


@case("truncated saved model", 2, r"damaged|truncated|cannot|corrupt")
def _(here, models, made):
    shutil.copytree(made["keras_cnn"] / "saved_model", here / "m")
    truncated(made["keras_cnn"] / "saved_model" / "saved_model.pb", here / "m" / "saved_model.pb")
    return to_onnx("m")


@case("saved model without variables", 2, r"variables")
def _(here, models, made):
    shutil.copytree(made["keras_cnn"] / "saved_model", here / "m")
    shutil.rmtree(here / "m" / "variables")
    return to_onnx("m")


@case("saved model with truncated variables", 2, r"cannot read .*VARIABLE_VALUE")
def _(here, models, made):
    shutil.copytree(made["keras_cnn"] / "saved_model", here / "m")
    data = Path("m") / "variables" / "variables.data-00000-of-00001"
    truncated(made["keras_cnn"] / "saved_model" / data.relative_to("m"), here / data)
    return to_onnx("m", "--no-validate")


# --- not there, not a model, in the wrong place ----------------------------------------------


@case("missing file", 2, "no file or directory")
def _(here, models, made):
    return to_onnx("nowhere.onnx")


@case("empty directory", 2, "neither a SavedModel")
def _(here, models, made):
    (here / "m").mkdir()
    return to_onnx("m")


@case("directory called .onnx", 2, "neither a SavedModel")
def _(here, models, made):
    (here / "m.onnx").mkdir()
    return to_onnx("m.onnx")


@case("zip of something else", 2, "zip")
def _(here, models, made):
    with zipfile.ZipFile(here / "m.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    return to_onnx("m.keras")


@case("state dict alone", 2, "weights")
def _(here, models, made):
    return to_onnx(models / "torch_cnn.pt")


@case("safetensors alone", 2, "weights")
def _(here, models, made):
    return to_onnx(models / "torch_cnn.safetensors")


@case("reference to a missing module", 2, "cannot import")
def _(here, models, made):
    return to_onnx("no_such_module:model")


@case("reference to a missing file", 2, "no file")
def _(here, models, made):
    return to_onnx("nowhere.py:model")


@case("reference to a missing attribute", 2, "no attribute 'model'")
def _(here, models, made):
    (here / "mine.py").write_text("x = 1\n")
    return to_onnx("mine.py:model")


@case("reference to something else", 2, "gives a int")
def _(here, models, made):
    (here / "mine.py").write_text("model = 1\n")
    return to_onnx("mine.py:model")


@case("factory that fails", 2, "ZeroDivisionError")
def _(here, models, made):
    (here / "mine.py").write_text("def build():\n    return 1 / 0\n")
    return to_onnx("mine.py:build")


@case("module with a syntax error", 2, "SyntaxError")
def _(here, models, made):
    (here / "mine.py").write_text("def build(:\n")
    return to_onnx("mine.py:build")


FACTORY = "import torch\n\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(4, 2))\n"


@case("missing weights file", 2, "no weights file")
def _(here, models, made):
    (here / "mine.py").write_text(FACTORY)
    return to_onnx("mine.py:build", "--weights", "nowhere.pt", "--input", "x:float32[n,4]")


@case("weights of another model", 2, r"0\.weight|missing|unexpected")
def _(here, models, made):
    (here / "mine.py").write_text(FACTORY)
    weights = models / "torch_cnn.pt"
    return to_onnx("mine.py:build", "--weights", weights, "--input", "x:float32[n,4]")


@case("weights beside a file", 2, "Python reference")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--weights", models / "torch_cnn.pt")


@case("module without input specs", 2, "--input")
def _(here, models, made):
    (here / "mine.py").write_text(FACTORY)
    return to_onnx("mine.py:build")


@case("input spec that does not fit the module", 2, r"mat1|shape|cannot")
def _(here, models, made):
    (here / "mine.py").write_text(FACTORY)
    return to_onnx("mine.py:build", "--input", "x:float32[n,5]")


@case("NaN weights", 2, "NaN")
def _(here, models, made):
    model = onnx.load(made["torch_cnn"] / "model.onnx")
    tensor = next(item for item in model.graph.initializer if len(item.dims) > 1)
    values = np.full(list(tensor.dims), np.nan, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, here / "nan.onnx")
    return to_onnx("nan.onnx")


@case("unfitted estimator", 2, "fitted")
def _(here, models, made):
    from sklearn.linear_model import LogisticRegression

    (here / "m.pkl").write_bytes(pickle.dumps(LogisticRegression()))
    return to_onnx("m.pkl", "--trust")


@case("pickle of no estimator", 2, "estimator")
def _(here, models, made):
    (here / "m.pkl").write_bytes(pickle.dumps({"a": 1}))
    return to_onnx("m.pkl", "--trust")


# --- what cannot be converted ---------------------------------------------------------------


def single_op(op: str, domain: str = "") -> onnx.ModelProto:
    node = onnx.helper.make_node(op, ["x"], ["y"], name="the_node", domain=domain)
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy"
    ]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", 18)]
    opsets += [onnx.helper.make_opsetid(domain, 1)] if domain else []
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


@case("onnx without inputs", 2, "no inputs")
def _(here, models, made):
    model = single_op("Relu")
    del model.graph.input[:]
    constant = onnx.numpy_helper.from_array(np.zeros((3, 4), np.float32), "x")
    model.graph.initializer.append(constant)
    onnx.save(model, here / "m.onnx")
    return to_onnx("m.onnx")


@case("unknown op", 5, "my.domain::Foo.*the_node")
def _(here, models, made):
    onnx.save(single_op("Foo", "my.domain"), here / "m.onnx")
    return to_onnx("m.onnx")


@case("op of no op set", 5, "Fooo.*the_node")
def _(here, models, made):
    onnx.save(single_op("Fooo"), here / "m.onnx")
    return to_onnx("m.onnx")


@case("sequence of maps", 2, "sequence_type.*zipmap")
def _(here, models, made):
    labels = {"classlabels_int64s": [0, 1]}
    node = onnx.helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", **labels)
    made_of = onnx.helper.make_map_type_proto(
        onnx.TensorProto.INT64, onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    )
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [onnx.helper.make_value_info("y", onnx.helper.make_sequence_type_proto(made_of))],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets), here / "m.onnx")
    return to_onnx("m.onnx")


@case("unknown input layout", 2, "unknown input layout 'nchw'.*use nhwc")
def _(here, models, made):
    return to_onnx(models / "torch_cnn.pt2", "--input-layout", "nchw")


@case("input layout of a format that keeps its own", 2, "--input-layout nhwc changes nothing")
def _(here, models, made):
    return to_onnx(models / "torch_cnn.pt2", "--input-layout", "nhwc")


@case("opset nobody has", 5, "opset")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--opset", "99")


@case("data-dependent branch", 5, r"data-dependent|torch\.cond")
def _(here, models, made):
    (here / "mine.py").write_text(
        "import torch\n\n\nclass Branch(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x + 1 if x.sum() > 0 else x - 1\n"
    )
    return to_onnx("mine.py:Branch", "--input", "x:float32[n,4]")


@case("branch on a size", 5, "depends on the size of 's'")
def _(here, models, made):
    (here / "mine.py").write_text(
        "import torch\n\n\nclass Branch(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x * 2 if x.shape[1] > 20 else x * 3\n"
    )
    return to_onnx("mine.py:Branch", "--input", "x:float32[n,s]")


@case("random op", 5, "draws random numbers")
def _(here, models, made):
    model = single_op("RandomNormalLike")
    onnx.save(model, here / "m.onnx")
    return to_onnx("m.onnx")


# --- names ---------------------------------------------------------------------------------


@case("two outputs of one name", 2, "two outputs are called 'a'")
def _(here, models, made):
    names = ["--output", "a", "--output", "a"]
    return to_onnx(models / "sklearn_forest.skops", *names)


@case("too many output names", 2, "output names were given")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--output", "a", "--output", "b")


@case("input of another dtype", 2, "float64")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--input", "image:float64[n,8,8,1]")


@case("input of another rank", 2, "described as")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--input", "image:float32[n,8,8]")


@case("malformed input spec", 2, "name:dtype")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--input", "image[8,8]")


@case("unknown dtype", 2, "unknown dtype 'float33'")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--input", "image:float33[n,8,8,1]")


# --- options and outputs ---------------------------------------------------------------------


@case("unknown format", 2, "unknown format 'coreml'")
def _(here, models, made):
    return ["convert", models / "keras_cnn.keras", "-o", "out", "--to", "coreml"]


@case("no format at all", 2, "which format")
def _(here, models, made):
    return ["convert", models / "keras_cnn.keras", "-o", "out"]


@case("suffix and --to disagree", 2, "one onnx file")
def _(here, models, made):
    return ["convert", models / "keras_cnn.keras", "-o", "m.onnx", "--to", "tflite"]


@case("output below a file", 2, "not a directory")
def _(here, models, made):
    (here / "plain").write_text("x")
    return ["convert", models / "keras_cnn.keras", "-o", "plain/m.onnx"]


@case("output that cannot be made", 2, "cannot write")
def _(here, models, made):
    return ["convert", made["torch_cnn"] / "model.onnx", "-o", "/proc/nowhere/m.onnx"]


@case("another model's directory", 2, "different source")
def _(here, models, made):
    return to_onnx(made["torch_cnn"] / "model.onnx")


@case("export of an artifact", 2, "no framework")
def _(here, models, made):
    return ["export", made["keras_cnn"] / "model.onnx", "-o", "m.onnx"]


@case("data of the wrong shape", 2, "shape")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--data", models / "digits_nchw.npz")


@case("data that is missing", 2, "no data file")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--data", "nowhere.npz")


@case("truncated data", 2, "cannot read")
def _(here, models, made):
    return to_onnx(
        models / "keras_cnn.keras", "--data", truncated(models / "digits_nhwc.npz", here / "d.npz")
    )


@case("memory limit that is none", 2, "no memory size")
def _(here, models, made):
    return to_onnx(models / "keras_cnn.keras", "--memory-limit", "lots")


# --- manifests and packages ------------------------------------------------------------------


@case("manifest that is no YAML", 3, "not valid YAML")
def _(here, models, made):
    shutil.copytree(made["keras_cnn"], here / "m")
    (here / "m" / "modelpack.yaml").write_text("a: [unclosed")
    return ["validate", "m"]


@case("manifest of the future", 3, "schema version 99")
def _(here, models, made):
    shutil.copytree(made["keras_cnn"], here / "m")
    file = here / "m" / "modelpack.yaml"
    file.write_text(re.sub(r"^modelpack: 1", "modelpack: 99", file.read_text()))
    return ["validate", "m"]


@case("artifact changed after the fact", 3, "not what the manifest recorded")
def _(here, models, made):
    shutil.copytree(made["keras_cnn"], here / "m")
    corrupted(here / "m" / "model.onnx", here / "m" / "model.onnx")
    return ["validate", "m"]


@case("artifact missing", 3, "missing")
def _(here, models, made):
    shutil.copytree(made["keras_cnn"], here / "m")
    (here / "m" / "model.tflite").unlink()
    return ["validate", "m"]


@case("truncated archive", 2, "truncated")
def _(here, models, made):
    (here / "big.bin").write_bytes(b"x" * 100_000)
    import tarfile

    with tarfile.open(here / "full.tar", "w") as archive:
        archive.add(made["keras_cnn"] / "modelpack.yaml", "modelpack.yaml")
        archive.add(here / "big.bin", "big.bin")
    return ["validate", truncated(here / "full.tar", here / "m.tar")]


@case("archive that climbs out", 2, "leaves the archive")
def _(here, models, made):
    import tarfile

    with tarfile.open(here / "m.tar", "w") as archive:
        archive.add(made["keras_cnn"] / "modelpack.yaml", "../escaped.yaml")
    return ["validate", "m.tar"]


@case("no such layout", 2, "unknown layout")
def _(here, models, made):
    return ["package", made["keras_cnn"], "-o", "p", "--layout", "floppy"]


@case("package of a plain file", 2, "no modelpack directory")
def _(here, models, made):
    return ["package", made["keras_cnn"] / "model.onnx", "-o", "p", "--layout", "triton"]


@case("layout without its artifact", 8, "SavedModel|savedmodel")
def _(here, models, made):
    chosen = ["--layout", "tfserving", "--artifact", "model.onnx"]
    return ["package", made["torch_cnn"], "-o", "p", *chosen]


@case("version that servers cannot number", 8, "whole number")
def _(here, models, made):
    words = ["--layout", "triton", "--model-version", "1.2.3"]
    return ["package", made["keras_cnn"], "-o", "p", *words]


# --- quantization ------------------------------------------------------------------------------


@case("trees have nothing to quantize", 6, "covers none of the ops")
def _(here, models, made):
    model = made["sklearn_forest"] / "model.onnx"
    return ["quantize", model, "-o", "q.onnx", "--scheme", "dynamic-int8"]


@case("calibrating strings in TFLite", 6, "string tensors.*--to onnx")
def _(here, models, made):
    model = made["sklearn_mlp"] / "model.tflite"
    data = ["--calibration", models / "breast_cancer_calibration.csv"]
    return ["quantize", model, "-o", "q.tflite", "--scheme", "static-int8", *data]


@case("unknown scheme", 2, "unknown scheme")
def _(here, models, made):
    model = made["keras_cnn"] / "model.onnx"
    return ["quantize", model, "-o", "q.onnx", "--scheme", "int3"]


@case("static without calibration", 2, "--calibration")
def _(here, models, made):
    model = made["keras_cnn"] / "model.onnx"
    return ["quantize", model, "-o", "q.onnx", "--scheme", "static-int8"]


@case("gate without labels", 2, "labels")
def _(here, models, made):
    model = made["keras_cnn"] / "model.onnx"
    data = models / "digits_nhwc_calibration.npz"
    words = ["--scheme", "float16", "--data", data, "--max-drop", "0.1"]
    return ["quantize", model, "-o", "q.onnx", *words]


@case("quantize a framework's file", 2, "only ONNX and TFLite|convert")
def _(here, models, made):
    return ["quantize", models / "keras_cnn.keras", "-o", "q.onnx", "--scheme", "float16"]


@case("calibration that is all the same", 2, "are the same")
def _(here, models, made):
    np.savez(here / "flat.npz", image=np.zeros((8, 8, 8, 1), np.float32))
    words = ["--scheme", "static-int8", "--calibration", "flat.npz"]
    return ["quantize", made["keras_cnn"] / "model.onnx", "-o", "q.onnx", *words]


@case("calibration with NaN", 2, "NaN")
def _(here, models, made):
    np.savez(here / "nan.npz", image=np.full((8, 8, 8, 1), np.nan, np.float32))
    words = ["--scheme", "static-int8", "--calibration", "nan.npz"]
    return ["quantize", made["keras_cnn"] / "model.onnx", "-o", "q.onnx", *words]


@case("labels of something else", 2, "no better than guessing")
def _(here, models, made):
    data = np.load(models / "digits_nhwc.npz")
    np.savez(here / "d.npz", image=data["image"], labels=(data["labels"] + 1) % 10)
    words = ["--scheme", "float16", "--data", "d.npz", "--max-drop", "0.01"]
    return ["quantize", made["keras_cnn"] / "model.onnx", "-o", "q.onnx", *words]


# --- not trusted ---------------------------------------------------------------------------------


class Payload:
    def __reduce__(self):
        return (print, ("this must never be printed",))


@case("pickle", 9, "RandomForestClassifier|sklearn")
def _(here, models, made):
    return to_onnx(models / "sklearn_forest.joblib")


@case("hostile pickle", 9, "print")
def _(here, models, made):
    (here / "m.pkl").write_bytes(pickle.dumps(Payload()))
    return to_onnx("m.pkl")


@case("hostile pt2", 9, "print|sample_inputs")
def _(here, models, made):
    import io

    import torch

    payload = io.BytesIO()
    torch.save(Payload(), payload)
    with (
        zipfile.ZipFile(models / "torch_cnn.pt2") as good,
        zipfile.ZipFile(here / "m.pt2", "w") as bad,
    ):
        for item in good.infolist():
            hostile = item.filename.endswith("sample_inputs/model.pt")
            bad.writestr(item, payload.getvalue() if hostile else good.read(item))
    return to_onnx("m.pt2")


@case("Keras Lambda", 9, "Lambda|lambda")
def _(here, models, made):
    with zipfile.ZipFile(models / "keras_cnn.keras") as good:
        config = json.loads(good.read("config.json"))
        config["config"]["layers"].insert(
            1,
            {
                "module": "keras.layers",
                "class_name": "Lambda",
                "config": {
                    "name": "evil",
                    "function": {
                        "class_name": "__lambda__",
                        "config": {"code": "4wEAAAA=", "defaults": None, "closure": None},
                    },
                },
                "registered_name": None,
                "name": "evil",
                "inbound_nodes": [],
            },
        )
        with zipfile.ZipFile(here / "m.keras", "w") as bad:
            for item in good.infolist():
                content = good.read(item)
                bad.writestr(
                    item, json.dumps(config) if item.filename == "config.json" else content
                )
    return to_onnx("m.keras")


def digest(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_refused_clearly_and_leaves_the_output_as_it_was(
    name: str,
    models: Path,
    converted: dict[str, Path],
    tmp_path: Path,
    modelpack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, says, make = CASES[name]
    shutil.copytree(converted["keras_cnn"], tmp_path / "out")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    modelpack.environment["TMPDIR"] = str(scratch)
    words = make(tmp_path, models, converted)
    before = digest(tmp_path)
    outcome = modelpack(*words)
    assert outcome.code == code, outcome.stderr
    last = outcome.stderr[outcome.stderr.index("error: ") :]
    assert re.search(says, last, re.DOTALL), last
    assert "Traceback" not in last
    assert "never be printed" not in outcome.stdout
    assert outcome.stdout == ""
    assert digest(tmp_path) == before
    assert list(scratch.iterdir()) == []
