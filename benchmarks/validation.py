"""What validation costs: beside the conversion it follows, and for a large model.

python benchmarks/validation.py resnet WORK   ResNet-50, PyTorch to ONNX
python benchmarks/validation.py pipeline WORK a small scikit-learn pipeline to ONNX
python benchmarks/validation.py large WORK    an ONNX model of 2 GB against a copy

``resnet`` needs torchvision in the interpreter that runs it. Commands take turns, and
conversion without validation is subtracted from conversion with it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Of validation, against conversion; and against nothing, for the pipeline.
RATIO = 1.0
SECONDS = 0.5
PEAK = 6 << 30

_TURNS = 3
_LAYERS, _WIDTH = 32, 4096


def main(part: str, work: Path) -> int:
    """Print one line; return 1 if it is above its limit."""
    work.mkdir(parents=True, exist_ok=True)
    return {"resnet": resnet, "pipeline": pipeline, "large": large}[part](work)


def resnet(work: Path) -> int:
    """Validation of a ResNet-50 takes no longer than its conversion."""
    source = work / "resnet50.pt2"
    if not source.exists():
        _export_resnet(source)
    plain, checked = _conversion(work, source)
    ratios = [(b - a) / a for a, b in zip(plain, checked, strict=True)]
    print(
        f"ResNet-50, PyTorch to ONNX: conversion {plain}, with validation {checked}: "
        f"validation is {ratios[0]:.2f} of the conversion (limit {RATIO:g}), "
        f"{ratios[1]:.2f} in processor time"
    )
    return int(ratios[0] > RATIO)


def _export_resnet(path: Path) -> None:
    import torch
    from architectures import create

    model = create("resnet50").eval()
    sample = (torch.randn(2, 3, 224, 224),)
    shapes = {"x": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(model, sample, dynamic_shapes=shapes), path)


def pipeline(work: Path) -> int:
    """Validation of a small pipeline takes half a second."""
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(*load_iris(return_X_y=True))
    source = work / "pipeline.skops"
    skops.io.dump(model, source)
    plain, checked = _conversion(work, source)
    more = checked.wall - plain.wall
    print(
        f"pipeline to ONNX: conversion {plain}, with validation {checked}: {more:.2f} s more "
        f"(limit {SECONDS:g} s), {checked.processor - plain.processor:.2f} s of processor time"
    )
    return int(more > SECONDS)


class Seconds(NamedTuple):
    """What a command takes: by the clock, and on processors, its children included."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.processor:.2f} s of processor time)"


def _conversion(work: Path, source: Path) -> tuple[Seconds, Seconds]:
    """Median of a conversion without and with validation."""
    command = [_modelpack(), "convert", str(source), "--quiet", "-o", str(work / "made.onnx")]
    times: tuple[list[Seconds], list[Seconds]] = ([], [])
    for _ in range(_TURNS):
        for taken, more in zip(times, (["--no-validate"], []), strict=True):
            for old in work.glob("made.onnx*"):
                old.unlink()
            taken.append(_seconds([*command, *more]))
    plain, checked = (Seconds(*map(statistics.median, zip(*taken, strict=True))) for taken in times)
    return plain, checked


def _seconds(command: Sequence[str]) -> Seconds:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return Seconds(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime)


def large(work: Path) -> int:
    """A model of 2 GB is validated in less than 6 GB, over all processes."""
    model, copy = work / "large" / "model.onnx", work / "copy" / "model.onnx"
    if not copy.exists():
        model.parent.mkdir(exist_ok=True)
        _write_large(model)
        shutil.copytree(model.parent, copy.parent, dirs_exist_ok=True)
    command = [_modelpack(), "validate", str(model), "--reference", str(copy), "--quiet"]
    begin = time.perf_counter()
    peak = _peak(command)
    print(
        f"ONNX, {_LAYERS * _WIDTH**2 * 4 / 1e9:.1f} GB against a copy: peak of all processes "
        f"{peak / 1e9:.2f} GB (limit {PEAK / 1e9:.1f}), {time.perf_counter() - begin:.0f} s"
    )
    return int(peak > PEAK)


def _write_large(path: Path) -> None:
    """Write a chain of matrix products and ReLUs, one weight at a time."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    with path.with_name("weights.bin").open("wb") as stream:
        for layer in range(_LAYERS):
            scale = np.float32((2 / _WIDTH) ** 0.5)  # keeps the variance through a ReLU
            array = rng.standard_normal((_WIDTH, _WIDTH), np.float32) * scale
            weights.append(_external(f"w{layer}", array.shape, stream.tell(), array.nbytes))
            stream.write(array.tobytes())
            nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"m{layer}"]))
            value = f"y{layer}"
            nodes.append(helper.make_node("Relu", [f"m{layer}"], [value]))
    nodes[-1].output[0] = "y"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", _WIDTH]) for name in "xy"
    ]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def _external(name: str, shape: tuple[int, ...], offset: int, length: int) -> Any:
    from onnx import TensorProto

    tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _peak(command: Sequence[str]) -> int:
    """Run a command; the largest resident memory of it and its children together, in bytes.

    Raises:
        RuntimeError: it failed.
    """
    import psutil

    process = psutil.Popen(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(process))
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return peak


def _resident(process: Any) -> int:
    """Resident bytes of a process and its children; those that have just ended count nothing."""
    import psutil

    total = 0
    try:
        for item in (process, *process.children(recursive=True)):
            total += item.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def _modelpack() -> str:
    return str(Path(sys.executable).with_name("modelpack"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve()))
