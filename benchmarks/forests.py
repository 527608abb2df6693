"""Latency of ensembles of trees in TFLite and TensorFlow, next to ONNX Runtime.

python benchmarks/forests.py

Trained on real data, converted by the command line, run on one thread each. Contenders take
turns, so that a drifting machine hits all of them; ratios are taken within a turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 5.0  # of TFLite against ONNX Runtime, at batch 1

_TURNS = 7
_SECONDS = 0.3


def main() -> int:
    """Print the table; return 1 if TFLite is above its limit."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    within = True
    print("| model | batch | ONNX Runtime | TFLite | SavedModel |")
    print("| --- | --- | --- | --- | --- |")
    for what, model in _models().items():
        with tempfile.TemporaryDirectory() as name:
            rows = _converted(model, Path(name))
            for batch in (1, 100):
                reference, lite, saved = _compared(Path(name, "out"), rows[:batch])
                cells = f"{reference * 1e6:.1f} us | {lite:.1f} x | {saved:.1f} x"
                print(f"| {what} | {batch} | {cells} |", flush=True)
                within = within and (batch > 1 or lite <= LIMIT)
    return int(not within)


def _compared(out: Path, rows: Any) -> tuple[float, ...]:
    """The seconds of ONNX Runtime, and what TFLite and SavedModel take in terms of them."""
    runs = {kind: make(out, rows) for kind, make in KINDS.items()}
    turns = [{kind: _median(run) for kind, run in runs.items()} for _ in range(_TURNS)]
    seconds = statistics.median(turn["onnx"] for turn in turns)
    return seconds, *(
        statistics.median(turn[kind] / turn["onnx"] for turn in turns)
        for kind in ("tflite", "savedmodel")
    )


def _models() -> dict[str, Any]:
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

    return {
        "random forest, 100 trees": RandomForestClassifier(100, random_state=0),
        "gradient boosting, 100 trees": GradientBoostingClassifier(random_state=0),
    }


def _converted(model: Any, work: Path) -> Any:
    """Fit the model and convert it into ``work/out``; return rows of features."""
    import skops.io
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    skops.io.dump(model.fit(rows, labels), work / "model.skops")
    modelpack = str(Path(sys.executable).with_name("modelpack"))
    words = [word for kind in KINDS for word in ("--to", kind)]
    command = [modelpack, "convert", "--quiet", "model.skops", "-o", "out", *words]
    subprocess.run(command, check=True, cwd=work)
    return rows


def _median(run: Callable[[], Any]) -> float:
    run()
    times = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _onnxruntime(out: Path, rows: Any) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = out / "model.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: rows}
    return lambda: session.run(None, feed)


def _tflite(out: Path, rows: Any) -> Callable[[], Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(out / "model.tflite"), num_threads=1)
    position = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(position, rows.shape)
    interpreter.allocate_tensors()
    outputs = [item["index"] for item in interpreter.get_output_details()]

    def run() -> Any:
        interpreter.set_tensor(position, rows)
        interpreter.invoke()
        return [interpreter.get_tensor(output) for output in outputs]

    return run


def _savedmodel(out: Path, rows: Any) -> Callable[[], Any]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(str(out / "saved_model"))
    function = loaded.signatures["serving_default"]
    feed = {next(iter(function.structured_input_signature[1])): tf.constant(rows)}

    def run(owner: Any = loaded) -> Any:  # the function does not keep its variables alive
        return [value.numpy() for value in function(**feed).values()]

    return run


KINDS: dict[str, Callable[[Path, Any], Callable[[], Any]]] = {
    "onnx": _onnxruntime,
    "tflite": _tflite,
    "savedmodel": _savedmodel,
}


if __name__ == "__main__":
    sys.exit(main())
