"""Models trained once a session, and the command line as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the models and data that `fixtures/train.py` makes.

    ``MODELPACK_TEST_MODELS`` names a directory of earlier training, for repeated runs.
    """
    given = os.environ.get("MODELPACK_TEST_MODELS")
    if given:
        return Path(given)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    shared = tmp_path_factory.getbasetemp()
    out = (shared.parent if worker else shared) / "models"
    # The processes that share the tests share the training too.
    with FileLock(f"{out}.lock"):
        if not out.exists():
            subprocess.run(
                [sys.executable, ROOT / "fixtures" / "train.py", f"{out}.new"],
                check=True,
                timeout=280,
                cwd=ROOT,
            )
            Path(f"{out}.new").rename(out)
    return out


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class CommandLine:
    """Runs modelpack in a process of its own, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "NO_COLOR": "1"}

    def __call__(self, *arguments: object, timeout: float = 240) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "modelpack", *map(str, arguments)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: object, timeout: float = 240) -> Outcome:
        """Run a command that must succeed."""
        outcome = self(*arguments, timeout=timeout)
        assert outcome.code == 0, outcome.stderr
        return outcome


@pytest.fixture
def modelpack(tmp_path: Path) -> CommandLine:
    """The command line, run in ``tmp_path``."""
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def session_modelpack(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command line, run in a directory that lasts the session."""
    return CommandLine(tmp_path_factory.mktemp("session"))


@pytest.fixture(scope="session")
def converted(models: Path, session_modelpack: CommandLine) -> dict[str, Path]:
    """Every trained model, converted once to all formats."""
    files = (
        "keras_cnn.keras",
        "keras_lstm.keras",
        "torch_cnn.pt2",
        "torch_encoder.pt2",
        "sklearn_forest.skops",
        "sklearn_mlp.skops",
    )
    found = {}
    for file in files:
        out = session_modelpack.directory / file.partition(".")[0]
        options = ["--to", "onnx", "--to", "tflite", "--to", "savedmodel"]
        if file.startswith("torch"):  # a .pt2 file has no names for its outputs
            options += ["--output", "logits"]
        session_modelpack.ok("convert", models / file, "-o", out, *options)
        found[out.name] = out
    return found
