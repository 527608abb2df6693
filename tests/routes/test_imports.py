"""Custom classes of Keras files, in modules that are imported first."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import modelpack as mp
from modelpack.errors import InputError, UntrustedSourceError
from modelpack.parity import Verdict

pytest.importorskip("keras")

MODULE = """
import keras


@keras.saving.register_keras_serializable(package="own")
class Scale(keras.layers.Layer):
    def build(self, shape):
        self.factors = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    def call(self, rows):
        return rows * self.factors


@keras.saving.register_keras_serializable(package="own")
def bend(rows):
    return keras.ops.tanh(rows) * 2


if __name__ == "__main__":
    import own_layers

    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(8, activation=own_layers.bend)
    keras.Sequential([keras.Input((6,)), dense, own_layers.Scale()]).save("m.keras")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its module beside it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_layers.py").write_text(MODULE)
    subprocess.run(
        [sys.executable, "own_layers.py"], cwd=folder, check=True, capture_output=True, timeout=120
    )
    return folder


def test_a_model_of_own_classes_is_converted_when_they_are_imported(
    folder: Path, tmp_path: Path
) -> None:
    made = mp.convert(
        folder / "m.keras", tmp_path / "m.onnx", imports=[str(folder / "own_layers.py")]
    )
    assert made.artifacts[0].parity.verdict is Verdict.PASSED


def test_without_the_import_it_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UntrustedSourceError, match="Scale of the module 'own_layers'"):
        mp.convert(folder / "m.keras", tmp_path / "m.onnx")


def test_a_class_that_its_module_does_not_register_is_named(folder: Path, tmp_path: Path) -> None:
    plain = [line for line in MODULE.splitlines() if not line.startswith("@keras")]
    module = tmp_path / "own_layers.py"
    module.write_text("\n".join(plain))
    with pytest.raises(InputError, match="Could not locate"):
        mp.convert(folder / "m.keras", tmp_path / "m.onnx", imports=[str(module)])


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("nowhere.py", "no file 'nowhere.py'"),
        ("no such", "no module"),
        ("nowhere", "cannot import"),
    ],
)
def test_a_module_that_is_not_there_is_named(
    folder: Path, tmp_path: Path, module: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        mp.convert(folder / "m.keras", tmp_path / "m.onnx", imports=[module])


def test_a_registered_name_makes_no_other_class_harmless(folder: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.keras"
    with zipfile.ZipFile(folder / "m.keras") as source, zipfile.ZipFile(hostile, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                content = json.dumps(_with_lambda(json.loads(content))).encode()
            target.writestr(name, content)
    with pytest.raises(UntrustedSourceError, match="bytecode"):
        mp.convert(hostile, tmp_path / "m.onnx", imports=[str(folder / "own_layers.py")])


def _with_lambda(config: dict[str, Any]) -> dict[str, Any]:
    """The model with a lambda that claims a registered name in the place of the last layer."""
    layer = config["config"]["layers"][-1]
    layer["class_name"] = "__lambda__"
    assert layer["registered_name"] == "own>Scale"
    return config


def test_a_scikit_learn_reference_takes_its_arguments(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    (tmp_path / "fitted.py").write_text(
        "from sklearn.datasets import load_iris\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "def make(classes=3):\n"
        "    x, y = load_iris(return_X_y=True)\n"
        "    return LogisticRegression(max_iter=500).fit(x[y < classes], y[y < classes])\n"
    )
    reference = f"{tmp_path / 'fitted.py'}:make"
    found = mp.inspect(reference, factory_args={"classes": 2})
    outputs = {spec.name: spec for spec in found.description.signature.outputs}
    assert outputs["probabilities"].shape == ("batch", 2)
