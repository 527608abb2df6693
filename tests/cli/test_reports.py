"""Reports of `validate`: files for people, build servers and programs."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

SCHEMA = json.loads(
    resources.files("modelpack").joinpath("validation.schema.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def made(models: Path, session_modelpack) -> Path:
    """ONNX and TFLite of the trained network, with their manifest."""
    forms = ("--to", "onnx", "--to", "tflite")
    session_modelpack.ok("convert", models / "keras_cnn.keras", "-o", "reported", *forms)
    return session_modelpack.directory / "reported"


@pytest.fixture
def digits(made: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return shutil.copytree(made, tmp_path / "digits")


def test_reports_of_a_sound_model(digits: Path, models: Path, tmp_path, modelpack) -> None:
    words = ("--data", models / "digits_nhwc.npz", "--bench")
    files = ("--report", "out/report.html", "--junit", "out/junit.xml")
    found = modelpack.ok("validate", digits, *words, *files, "--json").json
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    assert found["source"]["framework"] == "keras"
    first, *others = found["artifacts"]
    assert first["path"] == "model.onnx"
    assert {item["verdict"] for item in found["artifacts"]} == {"passed"}
    assert [score["metric"] for score in first["scores"]] == ["accuracy", "f1", "auc"]
    assert first["scores"][0]["value"] > 0.9
    assert first["scores"][0]["reference"] is None
    for item in others:
        score = item["scores"][0]
        assert score["compared_with"] == "model.onnx"
        assert score["low"] < score["value"] - score["reference"] < score["high"]
    for item in found["artifacts"]:
        bench = item["bench"]
        assert 0 < bench["p50"] <= bench["p95"]
        assert bench["peak_memory"] > 10_000_000
        assert item["details"][0]["histogram"]["limit"] == 8
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("<svg") >= 6
    assert str(tmp_path) not in page
    suite = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()[0]
    assert suite.attrib["failures"] == "0"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "junit.xml",
        "report.html",
    ]


def test_reports_of_a_failed_model(digits: Path, models: Path, tmp_path, modelpack) -> None:
    (tmp_path / "wrong.onnx").write_bytes((digits / "model.onnx").read_bytes())
    spoil(tmp_path / "wrong.onnx")
    words = ("--reference", models / "keras_cnn.keras", "--data", models / "digits_nhwc.npz")
    for turn in ("1", "2"):
        files = ("--report", f"{turn}.html", "--junit", f"{turn}.xml")
        outcome = modelpack("validate", "wrong.onnx", *words, *files)
        assert outcome.code == 7, outcome.stderr
    one, two = (tmp_path / f"{turn}.html" for turn in ("1", "2"))
    assert one.read_bytes() == two.read_bytes()
    assert "Changed decisions of output logits" in one.read_text("utf-8")
    assert "accuracy" in outcome.stdout
    root = ElementTree.parse(tmp_path / "1.xml").getroot()
    assert root.find("testsuite/testcase/failure") is not None


def spoil(path: Path) -> None:
    """Let a model answer with one class: by the bias that it ends in."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    (bias,) = [item for item in model.graph.initializer if list(item.dims) == [10]]
    values = numpy_helper.to_array(bias).copy()
    values[0] += 20 * np.abs(values).max() + 20
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, path)


def test_a_report_that_cannot_be_written_ends_before_anything_is_run(
    digits: Path, tmp_path, modelpack
) -> None:
    (tmp_path / "file").write_text("mine")
    outcome = modelpack("validate", digits, "--report", "file/report.html")
    assert outcome.code == 2
    assert "is not a directory" in outcome.stderr
    assert "checking" not in outcome.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_tables_fit_a_terminal_of_80_columns(digits: Path, models: Path, modelpack) -> None:
    words = ("--data", models / "digits_nhwc.npz", "--bench")
    shown = modelpack.ok("validate", digits, *words).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("x noise", "ties", "difference (95 % CI)", "p95", "peak memory"):
        assert word in shown
