"""The verbs as functions: values returned, typed errors raised, nothing printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import modelpack
from modelpack.errors import InputError, PackagingError, QuantizationError, UntrustedSourceError
from modelpack.manifest import read


def test_each_verb_returns_a_value_and_prints_nothing(models: Path, tmp_path: Path, capfd) -> None:
    out = tmp_path / "out"
    manifest = modelpack.convert(models / "sklearn_mlp.skops", out, to="onnx")
    assert isinstance(manifest, modelpack.Manifest)
    assert manifest.artifacts[0].parity
    assert (
        modelpack.quantize(out, out, scheme="dynamic-int8", data=models / "breast_cancer.csv")
        .artifacts[0]
        .quantization
    )
    report = modelpack.validate(out, data=models / "breast_cancer.csv")
    assert report
    assert {item.scores[0].metric for item in report.artifacts} == {"accuracy"}
    written = modelpack.package(out, tmp_path / "repository", layout="triton")
    assert [path.name for path in written] == ["sklearn_mlp"]
    assert modelpack.inspect(out).manifest == read(out)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_errors_are_typed(models: Path, tmp_path: Path, converted: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="no file or directory"):
        modelpack.convert("nowhere.onnx", tmp_path / "m.onnx")
    with pytest.raises(InputError, match="no framework"):
        modelpack.export(converted["keras_cnn"] / "model.onnx", tmp_path / "m.onnx")
    with pytest.raises(UntrustedSourceError, match="can run code"):
        modelpack.convert(models / "sklearn_forest.joblib", tmp_path / "m.onnx")
    with pytest.raises(QuantizationError, match="covers none"):
        forest = converted["sklearn_forest"] / "model.onnx"
        modelpack.quantize(forest, tmp_path / "q.onnx", scheme="dynamic-int8")
    with pytest.raises(PackagingError, match="savedmodel"):
        wrong = {"layout": "tfserving", "artifact": "model.onnx"}
        modelpack.package(converted["torch_cnn"], tmp_path / "p", **wrong)
    assert list(tmp_path.iterdir()) == []


LIVE = """
import sys
import modelpack
sys.path.insert(0, {fixtures!r})
{make}
manifest = modelpack.convert(model, {target!r}, {options})
print(manifest.artifacts[0].parity.verdict)
"""


@pytest.mark.parametrize(
    ("framework", "make", "options"),
    [
        (
            "keras",
            "import keras\nmodel = keras.saving.load_model({models!r} + '/keras_cnn.keras')",
            "outputs=['logits']",
        ),
        (
            "torch",
            "import torch, torch_cnn\nmodel = torch_cnn.build()\n"
            "model.load_state_dict(torch.load({models!r} + '/torch_cnn.pt'))",
            "inputs=['image:float32[batch,1,8,8]'], outputs=['logits']",
        ),
        (
            "sklearn",
            "import joblib\nmodel = joblib.load({models!r} + '/sklearn_forest.joblib')",
            "",
        ),
    ],
)
def test_a_live_model_converts(
    models: Path, tmp_path: Path, framework: str, make: str, options: str
) -> None:
    """In a process of its own, as TensorFlow and PyTorch should not share one."""
    root = Path(__file__).resolve().parents[1]
    script = LIVE.format(
        fixtures=str(root / "fixtures"),
        make=make.format(models=str(models)),
        target=str(tmp_path / "m.onnx"),
        options=options,
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "passed"
    assert (tmp_path / "m.onnx.modelpack.yaml").exists()


def test_a_reference_with_other_names_is_bound_by_position(
    models: Path, converted: dict[str, Path]
) -> None:
    artifact = converted["torch_cnn"] / "model.onnx"  # its output was named by the user
    assert modelpack.validate(
        artifact, reference=models / "torch_cnn.pt2", data=models / "digits_nchw.npz"
    )
    with pytest.raises(InputError, match="does not fit"):
        modelpack.validate(artifact, reference=models / "sklearn_mlp.skops")
