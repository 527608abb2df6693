"""Every route on trained models, compared here with the source framework itself.

The comparison is independent of modelpack's own: sources are loaded with their frameworks
and artifacts with their runtimes, in this process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml

from tests.thinned import thinned

RTOL, ATOL = 1e-4, 1e-5

FILES = {"onnx": "model.onnx", "tflite": "model.tflite", "savedmodel": "saved_model"}

MODELS = (
    "keras_cnn",
    "keras_lstm",
    "torch_cnn",
    "torch_encoder",
    "sklearn_forest",
    "sklearn_mlp",
)

FLOAT_CASES = [(name, form) for name in MODELS for form in FILES]


def manifest_of(directory: Path) -> dict[str, Any]:
    return yaml.safe_load((directory / "modelpack.yaml").read_text())


def artifact_of(directory: Path, form: str) -> dict[str, Any]:
    return next(item for item in manifest_of(directory)["artifacts"] if item["format"] == form)


def test_samples(models: Path, name: str, rows: int, length: int | None = None) -> Any:
    """Real test samples for a model: an array, or a DataFrame for scikit-learn."""
    if name.startswith("sklearn"):
        import pandas

        return (
            pandas.read_csv(models / "breast_cancer.csv")
            .drop(columns="labels")[:rows]
            .astype(np.float32)
        )
    if name == "torch_encoder":
        return np.load(models / "tokens.npz")["tokens"][:rows, :length]
    if name == "keras_lstm":
        return np.load(models / "tokens_int32.npz")["tokens"][:rows, :length]
    layout = "nhwc" if name.startswith("keras") else "nchw"
    return np.load(models / f"digits_{layout}.npz")["image"][:rows]


test_samples.__test__ = False  # type: ignore[attr-defined]


def source_outputs(models: Path, name: str, samples: Any) -> dict[str, Any]:
    """What the framework itself answers."""
    if name.startswith("keras"):
        import keras

        model = keras.saving.load_model(models / f"{name}.keras", compile=False)
        return {"logits": np.asarray(model(samples, training=False))}
    if name.startswith("torch"):
        import torch

        program = torch.export.load(models / f"{name}.pt2").module()
        with torch.no_grad():
            return {"logits": program(torch.from_numpy(samples)).numpy()}
    import skops.io

    file = models / f"{name}.skops"
    model = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
    return {"label": model.predict(samples), "probabilities": model.predict_proba(samples)}


def artifact_outputs(directory: Path, form: str, samples: Any) -> dict[str, Any]:
    """What the artifact answers, run by its own runtime, bound by the manifest's names."""
    signature = manifest_of(directory)["signatures"][0]
    name = signature["inputs"][0]["name"]
    feed = np.asarray(samples)
    path = directory / FILES[form]
    if form == "onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {name: feed}), strict=True))
    if form == "savedmodel":
        import tensorflow as tf

        module = tf.saved_model.load(str(path))
        answer = module.signatures["serving_default"](**{name: tf.constant(feed)})
        return {key: _text(value.numpy()) for key, value in answer.items()}
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    position = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(position, feed.shape)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    return {key: _text(value) for key, value in runner(**{name: feed}).items()}


def _text(array: Any) -> Any:
    """Strings as numpy's, where a runtime gives bytes."""
    return np.array(array, str) if array.dtype == np.object_ else array


@pytest.mark.parametrize(("name", "form"), FLOAT_CASES)
@pytest.mark.parametrize(("rows", "length"), [(1, 64), (7, 56), (64, 64)])
def test_an_artifact_answers_as_its_source_framework_does(
    models: Path, converted: dict[str, Path], name: str, form: str, rows: int, length: int
) -> None:
    fixed = artifact_of(converted[name], form).get("fixed_dims", {})
    rows = fixed.get("batch", rows)
    samples = test_samples(models, name, rows, length)
    expected = source_outputs(models, name, samples)
    found = artifact_outputs(converted[name], form, samples)
    assert set(found) == set(expected)
    for key, value in expected.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[key], value, rtol=RTOL, atol=ATOL * abs(value).max())
        else:
            np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize(("name", "form"), FLOAT_CASES)
def test_the_manifest_records_a_passed_comparison(
    converted: dict[str, Path], name: str, form: str
) -> None:
    artifact = artifact_of(converted[name], form)
    assert artifact["parity"]["verdict"] == "passed"
    assert artifact["parity"]["rows"] >= 1
    assert len(artifact["steps"]) >= 1


def test_named_dims_reach_every_artifact(converted: dict[str, Path], models: Path) -> None:
    encoder = onnx.load(converted["torch_encoder"] / "model.onnx")
    dims = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*encoder.graph.input, *encoder.graph.output)
    ]
    signature = manifest_of(converted["torch_encoder"])["signatures"][0]
    assert dims == [signature["inputs"][0]["shape"], signature["outputs"][0]["shape"]]
    assert dims[0][0] == dims[1][0] == "batch"


def test_a_users_names_and_dims_reach_every_format(models: Path, tmp_path: Path, modelpack) -> None:
    modelpack.ok(
        *("convert", models / "keras_cnn.keras", "-o", "out"),
        *("--to", "onnx", "--to", "tflite", "--to", "savedmodel"),
        *("--input", "pixels:float32[n,8,8,1]", "--output", "scores"),
    )
    signature = manifest_of(tmp_path / "out")["signatures"][0]
    assert signature["inputs"] == [{"name": "pixels", "dtype": "float32", "shape": ["n", 8, 8, 1]}]
    assert signature["outputs"][0]["name"] == "scores"
    assert signature["outputs"][0]["shape"] == ["n", 10]
    samples = test_samples(models, "keras_cnn", 3)
    expected = source_outputs(models, "keras_cnn", samples)["logits"]
    for form in FILES:
        found = artifact_outputs(tmp_path / "out", form, samples)
        np.testing.assert_allclose(
            found["scores"], expected, rtol=RTOL, atol=ATOL * abs(expected).max()
        )
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_a_python_reference_with_weights_gives_the_trained_model(
    models: Path, tmp_path: Path, modelpack
) -> None:
    reference = Path(__file__).resolve().parents[2] / "fixtures" / "torch_cnn.py"
    for suffix in ("pt", "safetensors"):
        modelpack.ok(
            *("export", f"{reference}:build", "--weights", models / f"torch_cnn.{suffix}"),
            *("--input", "image:float32[batch,1,8,8]", "--output", "logits"),
            *("-o", f"{suffix}.onnx"),
        )
        samples = test_samples(models, "torch_cnn", 50)
        expected = next(iter(source_outputs(models, "torch_cnn", samples).values()))
        session = onnxruntime.InferenceSession(tmp_path / f"{suffix}.onnx")
        found = session.run(["logits"], {"image": samples})[0]
        np.testing.assert_allclose(found, expected, rtol=RTOL, atol=ATOL * abs(expected).max())


def test_a_keras_python_reference_and_an_h5_file_convert(
    models: Path, tmp_path: Path, modelpack
) -> None:
    import keras

    model = keras.saving.load_model(models / "keras_cnn.keras", compile=False)
    model.save(tmp_path / "model.h5")
    (tmp_path / "mymodel.py").write_text(
        "import keras\n\n\ndef build():\n"
        f"    return keras.saving.load_model({str(models / 'keras_cnn.keras')!r}, compile=False)\n"
    )
    modelpack.ok("convert", "model.h5", "-o", "h5.onnx")
    modelpack.ok("convert", "mymodel:build", "-o", "module.onnx")
    samples = test_samples(models, "keras_cnn", 5)
    expected = source_outputs(models, "keras_cnn", samples)["logits"]
    for file in ("h5.onnx", "module.onnx"):
        session = onnxruntime.InferenceSession(tmp_path / file)
        found = session.run(None, {session.get_inputs()[0].name: samples})[0]
        np.testing.assert_allclose(found, expected, rtol=RTOL, atol=ATOL * abs(expected).max())


def test_a_saved_model_converts_on_to_onnx_and_tflite(
    models: Path, converted: dict[str, Path], tmp_path: Path, modelpack
) -> None:
    source = converted["keras_cnn"] / "saved_model"
    modelpack.ok("convert", source, "-o", "again", "--to", "onnx", "--to", "tflite")
    samples = test_samples(models, "keras_cnn", 9)
    expected = source_outputs(models, "keras_cnn", samples)["logits"]
    for form in ("onnx", "tflite"):
        found = artifact_outputs(tmp_path / "again", form, samples)["logits"]
        np.testing.assert_allclose(found, expected, rtol=RTOL, atol=ATOL * abs(expected).max())


def test_an_onnx_file_is_cleaned_and_stays_the_same_function(
    models: Path, converted: dict[str, Path], tmp_path: Path, modelpack
) -> None:
    model = onnx.load(converted["torch_cnn"] / "model.onnx")
    model.doc_string = "made in /home/someone"
    for node in model.graph.node:
        node.doc_string = "File /home/someone/train.py"
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/someone/train.py")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(100, "f4"), "unused"))
    onnx.save(model, tmp_path / "dirty.onnx")
    modelpack.ok("convert", "dirty.onnx", "-o", "clean.onnx")
    content = (tmp_path / "clean.onnx").read_bytes()
    assert b"someone" not in content
    assert b"unused" not in content
    samples = test_samples(models, "torch_cnn", 4)
    name = model.graph.input[0].name
    one, other = (
        onnxruntime.InferenceSession(tmp_path / file).run(None, {name: samples})[0]
        for file in ("dirty.onnx", "clean.onnx")
    )
    np.testing.assert_array_equal(one, other)


def test_no_artifact_names_a_path_of_this_machine(converted: dict[str, Path], models: Path) -> None:
    marks = [str(models), str(Path(__file__).resolve().parents[2]), "site-packages"]
    marks += [str(directory) for directory in converted.values()]
    for directory in converted.values():
        for file in directory.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                found = [mark for mark in marks if mark.encode() in content]
                assert not found, f"{file} holds {found}"


def test_classes_and_columns_of_scikit_learn_reach_the_manifest(
    converted: dict[str, Path],
) -> None:
    signature = manifest_of(converted["sklearn_forest"])["signatures"][0]
    assert signature["inputs"][0]["columns"][:2] == ["mean radius", "mean texture"]
    assert len(signature["inputs"][0]["columns"]) == 30
    label, probabilities = signature["outputs"]
    assert label["classes"] == probabilities["classes"] == ["benign", "malignant"]
    assert label["dtype"] == "string"
    assert label["meaning"] == "label"


def test_a_missing_value_goes_where_the_forest_sends_it(
    models: Path, converted: dict[str, Path]
) -> None:
    samples = test_samples(models, "sklearn_forest", 100).copy()
    rng = np.random.default_rng(0)
    samples = samples.mask(rng.random(samples.shape) < 0.2)
    expected = source_outputs(models, "sklearn_forest", samples)["probabilities"]
    for form in FILES:
        found = artifact_outputs(converted["sklearn_forest"], form, samples)["probabilities"]
        np.testing.assert_allclose(found, expected, rtol=RTOL, atol=ATOL)


def test_a_pickled_model_converts_when_it_is_trusted(
    models: Path, tmp_path: Path, modelpack
) -> None:
    modelpack.ok("convert", models / "sklearn_forest.joblib", "-o", "f.onnx", "--trust")
    samples = test_samples(models, "sklearn_forest", 60)
    expected = source_outputs(models, "sklearn_forest", samples)
    session = onnxruntime.InferenceSession(tmp_path / "f.onnx")
    label, probabilities = session.run(
        ["label", "probabilities"], {session.get_inputs()[0].name: samples.to_numpy()}
    )
    np.testing.assert_array_equal(label, expected["label"])
    np.testing.assert_allclose(probabilities, expected["probabilities"], rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize(
    "name", thinned(["sklearn_forest.skops", "torch_encoder.pt2", "keras_cnn.keras"], 2)
)
def test_two_runs_in_different_directories_write_the_same_bytes(
    models: Path, tmp_path: Path, modelpack, name: str
) -> None:
    to = [word for form in FILES for word in ("--to", form)]
    contents = []
    for place in ("one", "a/longer/place"):
        directory = tmp_path / place
        directory.mkdir(parents=True)
        (directory / name).write_bytes((models / name).read_bytes())
        modelpack.directory = directory
        modelpack.ok("convert", name, "-o", "out", *to)
        out = directory / "out"
        contents.append(
            {
                file.relative_to(out).as_posix(): file.read_bytes()
                for file in sorted(out.rglob("*"))
                if file.is_file()
            }
        )
    assert contents[0].keys() == contents[1].keys()
    differing = [file for file in contents[0] if contents[0][file] != contents[1][file]]
    assert differing == []


def test_images_can_be_exchanged_channel_last(models: Path, tmp_path: Path, modelpack) -> None:
    modelpack.ok(
        *("convert", models / "torch_cnn.pt2", "-o", "out", "--output", "logits"),
        *("--to", "tflite", "--to", "savedmodel", "--input-layout", "nhwc"),
    )
    samples = test_samples(models, "torch_cnn", 5)
    expected = source_outputs(models, "torch_cnn", samples)["logits"]
    assert manifest_of(tmp_path / "out")["signatures"][0]["inputs"][0]["shape"][1:] == [1, 8, 8]
    for form in ("tflite", "savedmodel"):
        name = artifact_of(tmp_path / "out", form)["channel_last"][0]
        found = artifact_outputs(tmp_path / "out", form, np.moveaxis(samples, 1, -1))
        np.testing.assert_allclose(
            found["logits"], expected, rtol=RTOL, atol=ATOL * abs(expected).max()
        )
        assert name == manifest_of(tmp_path / "out")["signatures"][0]["inputs"][0]["name"]
    report = modelpack.ok("validate", "out", "--json").json
    assert {item["parity"]["verdict"] for item in report["artifacts"]} == {"passed"}
    against = modelpack.ok(
        *("validate", "out", "--reference", models / "torch_cnn.pt2", "--json"),
        *("--data", models / "digits_nchw.npz"),
    ).json
    assert all(item["scores"][0]["value"] > 0.9 for item in against["artifacts"])
    modelpack.ok("convert", "out/model.tflite", "-o", "back.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "back.onnx")
    answer = session.run(None, {session.get_inputs()[0].name: np.moveaxis(samples, 1, -1)})[0]
    np.testing.assert_allclose(answer, expected, rtol=RTOL, atol=ATOL * abs(expected).max())


def test_a_tflite_file_converts_on_to_onnx_and_savedmodel(
    models: Path, converted: dict[str, Path], tmp_path: Path, modelpack
) -> None:
    source = converted["keras_cnn"] / "model.tflite"
    modelpack.ok("convert", source, "-o", "again", "--to", "onnx", "--to", "savedmodel")
    samples = test_samples(models, "keras_cnn", 9)
    expected = source_outputs(models, "keras_cnn", samples)["logits"]
    for form in ("onnx", "savedmodel"):
        found = artifact_outputs(tmp_path / "again", form, samples)["logits"]
        np.testing.assert_allclose(found, expected, rtol=RTOL, atol=ATOL * abs(expected).max())


def test_json_output_is_one_document_and_nothing_else(
    models: Path, tmp_path: Path, modelpack
) -> None:
    outcome = modelpack.ok("convert", models / "keras_cnn.keras", "-o", "m.tflite", "--json")
    document = json.loads(outcome.stdout)
    assert document["artifacts"][0]["parity"]["verdict"] == "passed"
    assert document["signatures"][0]["outputs"][0]["name"] == "logits"
    assert outcome.stdout.startswith("{")
