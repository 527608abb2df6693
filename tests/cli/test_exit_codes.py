"""Exit codes 1, 4, 6, 7 and 10 from real causes (2, 3, 5, 8 and 9 are in the bad inputs)."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

DISTRIBUTION = """\
Metadata-Version: 2.1
Name: {name}
Version: 1.0
"""


@pytest.fixture
def plugin(tmp_path: Path, modelpack):
    """Install a distribution with entry points, as pip would, and put it on the path."""

    def install(module: str, entry_points: str) -> None:
        site = tmp_path / "site"
        info = site / "planted-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(DISTRIBUTION.format(name="planted"))
        (info / "entry_points.txt").write_text(entry_points)
        (site / "planted.py").write_text(module)
        modelpack.environment["PYTHONPATH"] = str(site)

    return install


def test_a_defect_ends_with_1_and_asks_for_a_report(converted, plugin, modelpack) -> None:
    plugin(
        "def arrange(package, options):\n    return {}[0]\n",
        "[modelpack.layouts]\nbroken = planted:arrange\n",
    )
    outcome = modelpack("package", converted["keras_cnn"], "-o", "out", "--layout", "broken")
    assert outcome.code == 1
    assert "internal error: KeyError" in outcome.stderr
    assert "report" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_debug_shows_the_traceback_of_a_defect(converted, plugin, modelpack) -> None:
    plugin(
        "def arrange(package, options):\n    return {}[0]\n",
        "[modelpack.layouts]\nbroken = planted:arrange\n",
    )
    words = ("package", converted["keras_cnn"], "-o", "out", "--layout", "broken", "--debug")
    outcome = modelpack(*words)
    assert outcome.code == 1
    assert "KeyError: 0" in outcome.stderr
    assert "Traceback" in outcome.stderr


def test_a_missing_framework_ends_with_4_and_names_the_extra(models, tmp_path, modelpack) -> None:
    """An environment made of this one's packages, less Keras and TensorFlow."""
    environment = tmp_path / "environment"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=60
    )
    packages = next(environment.glob("lib/python*/site-packages"))
    for item in Path(sysconfig.get_path("purelib")).iterdir():
        if not item.name.startswith(("keras", "tensorflow", "tf2onnx", "_distutils", "__pyc")):
            (packages / item.name).symlink_to(item)
    root = Path(__file__).resolve().parents[2]
    (packages / "modelpack_here.pth").write_text(f"{root}\n")
    done = subprocess.run(
        [
            environment / "bin" / "python",
            *("-P", "-m", "modelpack", "convert", models / "keras_cnn.keras", "-o", "m.onnx"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 4, done.stderr
    assert "pip install 'modelpack-cli[keras]'" in done.stderr
    assert not (tmp_path / "m.onnx").exists()
    doctor = subprocess.run(
        [environment / "bin" / "python", "-P", "-m", "modelpack", "doctor"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert doctor.returncode == 0
    assert "keras missing" in doctor.stdout
    assert "pip install 'modelpack-cli[keras]'" in doctor.stdout


def test_a_gate_on_accuracy_ends_with_6_and_writes_nothing(
    models, converted, tmp_path, modelpack
) -> None:
    """Calibrated on almost black images, the ranges fit no real digit."""
    import numpy as np

    images = np.load(models / "digits_nhwc.npz")["image"][:50]
    np.savez(tmp_path / "dark.npz", image=images * 0.01)
    words = [
        *("quantize", converted["keras_cnn"] / "model.onnx", "-o", "q.onnx"),
        *("--scheme", "static-int8", "--calibration", "dark.npz"),
        *("--data", models / "digits_nhwc.npz", "--max-drop", "0.01"),
    ]
    outcome = modelpack(*words)
    assert outcome.code == 6, outcome.stderr
    assert "lost too much" in outcome.stderr or "a loss of" in outcome.stderr
    assert not list(tmp_path.glob("q.onnx*"))
    kept = modelpack(*words, "--keep-failed")
    assert kept.code == 6
    assert (tmp_path / "q.onnx").exists()


def test_a_loss_beyond_max_drop_ends_with_6_though_the_signal_is_there(
    models, converted, tmp_path, modelpack
) -> None:
    """A gate that asks for half a point more accuracy than before can only close."""
    outcome = modelpack(
        *("quantize", converted["keras_cnn"] / "model.onnx", "-o", "q.onnx"),
        *("--scheme", "static-int8", "--calibration", models / "digits_nhwc_calibration.npz"),
        *("--data", models / "digits_nhwc.npz", "--max-drop", "-0.5"),
    )
    assert outcome.code == 6, outcome.stderr
    assert re.search(r"accuracy went from 0\.9\d+ to 0\.9\d+, a loss of", outcome.stderr)
    assert not list(tmp_path.glob("q.onnx*"))


def test_a_small_loss_passes_its_gate(models, converted, tmp_path, modelpack) -> None:
    outcome = modelpack.ok(
        *("quantize", converted["keras_cnn"] / "model.onnx", "-o", "q.onnx", "--json"),
        *("--scheme", "static-int8", "--calibration", models / "digits_nhwc_calibration.npz"),
        *("--data", models / "digits_nhwc.npz", "--max-drop", "0.01"),
    )
    figures = outcome.json["artifacts"][0]["quantization"]
    assert figures["metric"] == "accuracy"
    assert figures["reference_metric"] >= 0.97
    assert figures["candidate_metric"] >= figures["reference_metric"] - 0.01
    assert figures["size_ratio"] < 0.8


def test_a_disagreement_ends_with_7_and_writes_nothing(models, tmp_path, modelpack) -> None:
    """No converter keeps the last bit: with a tolerance of zero, parity must fail."""
    words = ["convert", models / "keras_cnn.keras", "-o", "out", "--to", "onnx", "--rtol", "0"]
    outcome = modelpack(*words, "--atol", "0")
    assert outcome.code == 7, outcome.stderr
    assert "elements differ" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_converter_that_is_slightly_wrong_is_caught(
    converted, tmp_path, plugin, modelpack
) -> None:
    """A planted converter scales all biases by 1 %; it is reached by its own format."""
    plugin(
        "import onnx\n"
        "from modelpack.artifact import ModelRef\n"
        "from modelpack.routes import Converter, Format\n"
        "from modelpack.steps import StepOptions, StepResult\n\n"
        'FORMAT = Format("scaled", "modelpack.adapters.onnx", artifact="scaled.onnx")\n'
        'EDGE = Converter("onnx", "scaled", "planted:scale")\n\n\n'
        "def scale(source: ModelRef, target: str, options: StepOptions) -> StepResult:\n"
        "    model = onnx.load(source.location)\n"
        "    for tensor in model.graph.initializer:\n"
        "        values = onnx.numpy_helper.to_array(tensor)\n"
        '        if values.ndim == 1 and values.dtype == "float32":\n'
        "            tensor.CopyFrom(onnx.numpy_helper.from_array(values * values.dtype.type(1.01),"
        " tensor.name))\n"
        "    onnx.save(model, target)\n"
        "    return StepResult()\n",
        "[modelpack.formats]\nscaled = planted:FORMAT\n"
        "[modelpack.converters]\nscaled = planted:EDGE\n",
    )
    model = converted["keras_cnn"] / "model.onnx"
    outcome = modelpack("convert", model, "-o", "out", "--to", "scaled")
    assert outcome.code == 7, outcome.stderr
    assert not (tmp_path / "out").exists()
    kept = modelpack("convert", model, "-o", "out", "--to", "scaled", "--keep-failed")
    assert kept.code == 7
    assert "verdict: failed" in (tmp_path / "out" / "modelpack.yaml").read_text()


def test_validate_ends_with_7_when_the_reference_disagrees(models, converted, modelpack) -> None:
    """Two models of one signature, trained otherwise."""
    outcome = modelpack(
        *("validate", converted["sklearn_mlp"] / "model.onnx"),
        *("--reference", models / "sklearn_forest.skops", "--data", models / "breast_cancer.csv"),
    )
    assert outcome.code == 7, outcome.stderr
    assert "failed" in outcome.stdout


def test_nothing_is_made_from_an_artifact_that_failed(models, tmp_path, modelpack) -> None:
    words = ["convert", models / "keras_cnn.keras", "-o", "out", "--to", "onnx", "--keep-failed"]
    assert modelpack(*words, "--rtol", "0", "--atol", "0").code == 7
    for verb in (
        ("quantize", "out", "-o", "q", "--scheme", "float16"),
        ("quantize", "out/model.onnx", "-o", "q.onnx", "--scheme", "float16"),
        ("convert", "out", "-o", "again", "--to", "onnx"),
        ("convert", "out/model.onnx", "-o", "again.onnx"),
    ):
        outcome = modelpack(*verb)
        assert outcome.code == 7, outcome.stderr
        assert "failed its comparison with the source" in outcome.stderr
    packaged = modelpack("package", "out", "-o", "p.tar", "--layout", "archive")
    assert packaged.code == 8
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out"]


def test_digits_that_float32_does_not_have_are_missed(tmp_path, modelpack) -> None:
    """scikit-learn scales 1e9 + x in float64; an artifact that takes float32 sees 1e9."""
    import joblib
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = 1e9 + rng.standard_normal((200, 3))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, x[:, 0] > 1e9)
    joblib.dump(model, tmp_path / "m.joblib")
    np.savez(tmp_path / "d.npz", X=x)
    for words in ((), ("--data", "d.npz")):
        outcome = modelpack("convert", "m.joblib", "-o", "m.onnx", "--trust", *words)
        assert outcome.code == 7, outcome.stderr
        assert not (tmp_path / "m.onnx").exists()


def test_an_error_that_only_large_values_show_is_caught(tmp_path, modelpack) -> None:
    """TFLite composes softplus from exp and log, which overflow at 100."""
    import keras

    x = keras.Input((4,), name="x")
    keras.Model(x, keras.layers.Activation("softplus")(x)).save(tmp_path / "m.keras")
    outcome = modelpack("convert", "m.keras", "-o", "m.tflite")
    assert outcome.code == 7, outcome.stderr


MISBEHAVIOUR = {
    "aborts in C": ("import os\nos.abort()\n", [], "SIGABRT"),
    "is killed": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", [], "SIGKILL"),
    "segfaults": ("import ctypes\nctypes.string_at(0)\n", [], "SIGSEGV"),
    "leaves": ("import os\nos._exit(0)\n", [], "exited with status 0"),
    "eats memory": (
        "hoard = [bytearray(10_000_000) for _ in range(200)]\nimport time\ntime.sleep(60)\n",
        ["--memory-limit", "500M"],
        "the limit is 500 MiB",
    ),
    "hangs": ("import time\ntime.sleep(60)\n", ["--timeout", "2"], "still running after 2 s"),
}


@pytest.mark.parametrize("what", MISBEHAVIOUR)
def test_a_worker_that_misbehaves_ends_with_10_and_leaves_nothing(
    tmp_path: Path, modelpack, what: str
) -> None:
    code, options, says = MISBEHAVIOUR[what]
    text = 'print("the last words")\n' + code
    (tmp_path / "mine.py").write_text(text)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    modelpack.environment["TMPDIR"] = str(scratch)
    outcome = modelpack("convert", "mine.py:model", "-o", "out", "--to", "onnx", *options)
    assert outcome.code == 10, outcome.stderr
    assert says in outcome.stderr
    assert "the last words" in outcome.stderr  # the captured log is shown
    assert outcome.stdout == ""
    assert not (tmp_path / "out").exists()
    assert list(scratch.iterdir()) == []


def test_no_validate_marks_the_artifact_unverified(models, tmp_path, modelpack) -> None:
    words = ("convert", models / "keras_cnn.keras", "-o", "out", "--to", "onnx", "--no-validate")
    modelpack.ok(*words)
    text = (tmp_path / "out" / "modelpack.yaml").read_text()
    assert "verdict: unverified" in text
    assert "--no-validate" in text
    validated = modelpack("validate", "out")
    assert validated.code == 0
    assert "unverified" in validated.stdout
