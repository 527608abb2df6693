"""Speed and cost of artifacts next to what other tools make of the same networks.

python benchmarks/artifacts.py litert WORK   files of litert-torch, in an environment with it
python benchmarks/artifacts.py speed WORK    latencies at batch 1, on 2 threads
python benchmarks/artifacts.py cost WORK --torch PYTHON --litert PYTHON

WORK is that of networks.py, whose ``make`` and ``check`` come first. ``cost`` is the time and
memory of conversions; it needs the environments with PyTorch and with litert-torch. Every
measurement is a process of its own, and contenders take turns, so that a drifting machine
hits all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
from timing import compare

NETWORKS = ("resnet50", "mobilenet_v3", "efficientnet_b0", "vit_tiny", "bert_small")
THREADS = 2
LENGTH = 128

_ROUNDS = 3
_SECONDS = 2.0
_HERE = Path(__file__).resolve()


def main() -> int:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("litert", "speed", "cost", "measure", "convert"))
    parser.add_argument("work", type=Path)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--torch", default=sys.executable)
    parser.add_argument("--litert", default=sys.executable)
    given = parser.parse_args()
    work = given.work.resolve()
    if given.part == "measure":
        print(*measure(work, *given.words))
    elif given.part == "convert":
        CONVERSIONS[given.words[0]](work)
    elif given.part == "litert":
        for name in given.words or NETWORKS:
            litert(work, name)
    elif given.part == "speed":
        speed(work, given.words or list(NETWORKS))
    else:
        cost(work, given.torch, given.litert)
    return 0


# --- speed ---------------------------------------------------------------------------------


def speed(work: Path, names: list[str]) -> None:
    """Print medians and ratios of each network: wall time, and CPU time in brackets.

    CPU time says what is left of a ratio on a busy machine, but also counts threads that spin.
    """
    print("| network | TFLite | litert-torch | ratio | SavedModel | ONNX Runtime | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        rounds = np.array(
            [[_run(work, kind, name) for kind in CONTENDERS] for _ in range(_ROUNDS)]
        )  # by round, contender, and wall or CPU time
        medians = np.median(rounds, axis=0)
        cells = [name]
        for ours, theirs in ((0, 1), (2, 3)):
            ratios = np.median(rounds[:, ours] / rounds[:, theirs], axis=0)
            cells += [f"{medians[kind, 0]:.2f} ms" for kind in (ours, theirs)]
            cells.append(f"{ratios[0]:.2f} ({ratios[1]:.2f})")
        print("| " + " | ".join(cells) + " |", flush=True)


def _run(work: Path, kind: str, name: str) -> list[float]:
    command = [sys.executable, str(_HERE), "measure", str(work), kind, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def _environment() -> dict[str, str]:
    paths = os.pathsep.join([str(_HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}


def measure(work: Path, kind: str, name: str) -> tuple[float, float]:
    """Milliseconds per run: the median of wall time, and the mean of CPU time."""
    cases = np.load(work / "onnx" / f"{name}.npz")
    arrays = [cases[key] for key in sorted(cases) if key.startswith("0_in_")]
    if name == "bert_small":
        arrays = [np.resize(array, (1, LENGTH)) for array in arrays]
    once = CONTENDERS[kind](work, name, arrays)
    _timed(once, 1.0)
    begin = time.process_time()
    times = _timed(once, _SECONDS)
    cpu = (time.process_time() - begin) / len(times)
    return statistics.median(times) * 1000, cpu * 1000


def _timed(once: Callable[[], Any], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        once()
        times.append(time.perf_counter() - begin)
    return times


def _tflite(path: Path, arrays: list[Any]) -> Callable[[], Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=THREADS)
    # Files of litert-torch call their inputs args_<i>, ours in_<i>; neither keeps their order.
    details = {item["name"]: item for item in interpreter.get_input_details()}
    ordered = [details[name] for name in sorted(details)]
    for item, array in zip(ordered, arrays, strict=True):
        interpreter.resize_tensor_input(item["index"], array.shape)
    interpreter.allocate_tensors()
    for item, array in zip(ordered, arrays, strict=True):
        interpreter.set_tensor(item["index"], array.astype(item["dtype"]))
    return interpreter.invoke


def _our_tflite(work: Path, name: str, arrays: list[Any]) -> Callable[[], Any]:
    return _tflite(work / "tflite" / f"{name}.tflite", arrays)


def _litert_torch(work: Path, name: str, arrays: list[Any]) -> Callable[[], Any]:
    return _tflite(work / "litert" / f"{name}.tflite", arrays)


def _savedmodel(work: Path, name: str, arrays: list[Any]) -> Callable[[], Any]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(str(work / "savedmodel" / name))
    function = loaded.signatures["serving_default"]
    feed = {f"in_{i}": tf.constant(array) for i, array in enumerate(arrays)}

    def once(owner: Any = loaded) -> Any:
        return function(**feed)["out_0"].numpy()

    return once


def _onnxruntime(work: Path, name: str, arrays: list[Any]) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    path = work / "onnx" / f"{name}.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {item.name: array for item, array in zip(session.get_inputs(), arrays, strict=True)}
    return lambda: session.run(None, feed)


CONTENDERS: dict[str, Callable[[Path, str, list[Any]], Callable[[], Any]]] = {
    "tflite": _our_tflite,
    "litert-torch": _litert_torch,
    "savedmodel": _savedmodel,
    "onnxruntime": _onnxruntime,
}


# --- cost ----------------------------------------------------------------------------------


def cost(work: Path, torch_python: str, litert_python: str) -> None:
    """Print what conversions of ResNet-50 cost as whole processes."""
    os.environ.update(_environment())

    def command(python: str, what: str) -> list[str]:
        return [python, str(_HERE), "convert", str(work), what]

    pairs = {
        "ONNX to SavedModel against Keras's own export": (
            command(sys.executable, "savedmodel"),
            command(sys.executable, "keras"),
        ),
        "ONNX to TFLite against litert-torch": (
            command(sys.executable, "tflite"),
            command(litert_python, "litert"),
        ),
        "PyTorch to ONNX against litert-torch": (
            command(torch_python, "onnx"),
            command(litert_python, "litert"),
        ),
    }
    for what, (ours, theirs) in pairs.items():
        pair = compare(ours, theirs, runs=3)
        memory = pair.ours.peak_mib / pair.theirs.peak_mib
        print(f"{what}: {pair}; memory ratio {memory:.2f}", flush=True)


def litert(work: Path, name: str) -> None:
    """Convert a network with litert-torch, for batch 1."""
    import litert_torch
    import torch
    from architectures import create, feed

    (work / "litert").mkdir(exist_ok=True)
    inputs = feed(name, {"batch": 1, "length": LENGTH}, seed=0)
    with torch.no_grad():
        edge = litert_torch.convert(create(name), inputs)
    edge.export(str(work / "litert" / f"{name}.tflite"))


def _convert(target: str) -> Callable[[Path], None]:
    def convert(work: Path) -> None:
        import onnx

        (work / "cost").mkdir(exist_ok=True)
        model = onnx.load(work / "onnx" / "resnet50.onnx")
        networks.convert(model, target, work / "cost" / "resnet50")

    return convert


def _export_onnx(work: Path) -> None:
    from architectures import create

    (work / "cost").mkdir(exist_ok=True)
    networks.export("resnet50", create("resnet50"), work / "cost" / "resnet50.onnx")


def _export_keras(work: Path) -> None:
    import keras

    (work / "cost").mkdir(exist_ok=True)
    model = keras.applications.ResNet50(weights=None)
    model.export(str(work / "cost" / "keras"), verbose=False)


CONVERSIONS: dict[str, Callable[[Path], None]] = {
    "savedmodel": _convert("savedmodel"),
    "tflite": _convert("tflite"),
    "keras": _export_keras,
    "onnx": _export_onnx,
    "litert": lambda work: litert(work, "resnet50"),
}


if __name__ == "__main__":
    sys.exit(main())
