"""Outputs appear whole or not at all, whatever interrupts the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 kB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting needs privileges: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_ends_with_2_and_leaves_the_output_as_it_was(
    converted, small_disk: Path, modelpack
) -> None:
    out = small_disk / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    source = converted["keras_lstm"] / "model.onnx"
    outcome = modelpack("convert", source, "-o", out, "--to", "onnx")
    assert outcome.code == 2, outcome.stderr
    assert "No space left" in outcome.stderr
    assert files(small_disk) == {"out/mine.txt": b"precious"}
    assert [item.name for item in out.iterdir()] == ["mine.txt"]


def test_a_full_temporary_directory_ends_with_2(converted, small_disk: Path, modelpack) -> None:
    modelpack.environment["TMPDIR"] = str(small_disk)
    outcome = modelpack("convert", converted["keras_lstm"] / "model.onnx", "-o", "m.onnx")
    assert outcome.code == 2, outcome.stderr
    assert "space" in outcome.stderr
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_nothing_and_no_process(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    started = tmp_path / "started"
    (tmp_path / "mine.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(100)\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "modelpack", "convert", "mine.py:m", "-o", "out.onnx"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int(started.read_text())
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out.onnx").exists()
    assert list(scratch.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_worker_dies_with_a_killed_command(tmp_path: Path) -> None:
    started = tmp_path / "started"
    (tmp_path / "mine.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(100)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "modelpack", "convert", "mine.py:m", "-o", "out.onnx"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int(started.read_text())
    process.kill()
    process.wait(timeout=60)
    while time.monotonic() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").read_text().split(")")[1].split()[0] == "Z":
            return  # ended, and waiting for an init process that does not reap here
        time.sleep(0.05)
    pytest.fail("the worker outlived its command")


def test_a_second_format_is_added_to_a_directory(models, tmp_path, modelpack) -> None:
    import yaml

    modelpack.ok("convert", models / "keras_cnn.keras", "-o", "out", "--to", "onnx")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    modelpack.ok("convert", models / "keras_cnn.keras", "-o", "out", "--to", "tflite")
    manifest = yaml.safe_load((tmp_path / "out" / "modelpack.yaml").read_text())
    assert [item["path"] for item in manifest["artifacts"]] == ["model.onnx", "model.tflite"]
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    modelpack.ok("validate", "out")


def test_two_commands_at_once_both_arrive_in_the_manifest(converted, tmp_path) -> None:
    import yaml

    (tmp_path / "m.onnx").write_bytes((converted["keras_cnn"] / "model.onnx").read_bytes())
    command = [sys.executable, "-P", "-m", "modelpack"]
    subprocess.run(
        [*command, "convert", "m.onnx", "-o", "out", "--to", "onnx"],
        check=True,
        cwd=tmp_path,
        timeout=60,
    )
    running = [
        subprocess.Popen(
            [*command, "quantize", "out", "-o", "out", "--scheme", scheme], cwd=tmp_path
        )
        for scheme in ("float16", "dynamic-int8")
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    manifest = yaml.safe_load((tmp_path / "out" / "modelpack.yaml").read_text())
    assert [item["path"] for item in manifest["artifacts"]] == [
        "model.dynamic-int8.onnx",
        "model.float16.onnx",
        "model.onnx",
    ]


def test_one_file_has_its_manifest_beside_it(converted, tmp_path, modelpack) -> None:
    modelpack.ok("convert", converted["keras_cnn"] / "model.onnx", "-o", "build/m.onnx")
    assert sorted(files(tmp_path)) == [
        "build/m.onnx",
        "build/m.onnx.golden.npz",
        "build/m.onnx.modelpack.yaml",
    ]
    modelpack.ok("validate", "build/m.onnx")


def test_a_broken_pipe_is_no_error(converted, modelpack) -> None:
    done = subprocess.run(
        f"{sys.executable} -P -m modelpack inspect {converted['keras_cnn']} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("keras_cnn")


def test_output_that_cannot_be_written_ends_with_2(converted) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-P", "-m", "modelpack", "inspect", converted["keras_cnn"]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert "cannot write to standard output" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_files(tmp_path: Path, modelpack) -> None:
    """Let an ONNX file count as too large for one file from 10 kB on, instead of 1.9 GB."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "from modelpack import onnx_graph\nonnx_graph.LARGEST_FILE = 10_000\n"
    )
    modelpack.environment["PYTHONPATH"] = str(site)


@pytest.mark.usefixtures("small_files")
def test_weights_beside_an_onnx_file_stay_with_it_everywhere(converted, tmp_path, modelpack):
    import numpy as np
    import onnxruntime

    whole = converted["keras_cnn"] / "model.onnx"
    for name in ("a.onnx", "b.onnx"):  # two in one directory must not share their weights
        modelpack.ok("convert", whole, "-o", name)
        assert (tmp_path / f"{name}.data").stat().st_size > 10_000
        modelpack.ok("validate", name)
    image = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    expected, found = (
        onnxruntime.InferenceSession(path).run(None, {"image": image})[0]
        for path in (whole, tmp_path / "a.onnx")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    modelpack.ok("convert", whole, "-o", "d", "--to", "onnx")
    modelpack.ok("quantize", "d", "-o", "d", "--scheme", "float16")
    modelpack.ok("validate", "d")
    modelpack.ok("package", "d", "-o", "d.tar", "--layout", "archive")
    modelpack.ok("validate", "d.tar")
    modelpack.ok("package", "d", "-o", "repository", "--layout", "triton")
    modelpack.ok("validate", "repository/model")


def test_a_directory_keeps_its_name_and_version_when_it_is_added_to(
    converted, tmp_path, modelpack
) -> None:
    import yaml

    source = converted["keras_cnn"] / "saved_model"
    named = ("--name", "digits", "--model-version", "3")
    modelpack.ok("convert", source, "-o", "out", "--to", "onnx", *named)
    modelpack.ok("convert", source, "-o", "out", "--to", "tflite")
    manifest = yaml.safe_load((tmp_path / "out" / "modelpack.yaml").read_text())
    assert (manifest["name"], manifest["version"]) == ("digits", "3")


def test_a_second_model_joins_a_tensorflow_serving_repository(
    converted, tmp_path, modelpack
) -> None:
    for name in ("one", "two"):
        words = ("--layout", "tfserving", "--name", name)
        modelpack.ok("package", converted["keras_cnn"], "-o", "repository", *words)
    config = (tmp_path / "repository" / "models.config").read_text()
    assert 'name: "one"' in config
    assert 'name: "two"' in config
    (tmp_path / "repository" / "models.config").write_text(config + "# mine\n")
    words = ("--layout", "tfserving", "--name", "three")
    outcome = modelpack.ok("package", converted["keras_cnn"], "-o", "repository", *words)
    assert "was edited" in outcome.stderr
    assert (tmp_path / "repository" / "models.config").read_text().endswith("# mine\n")


def test_a_name_that_the_terminal_cannot_write_is_escaped(converted, tmp_path, modelpack) -> None:
    (tmp_path / "mé.onnx").write_bytes((converted["keras_cnn"] / "model.onnx").read_bytes())
    modelpack.environment["PYTHONIOENCODING"] = "ascii"
    assert "m\\xe9.onnx" in modelpack.ok("inspect", "mé.onnx").stdout
