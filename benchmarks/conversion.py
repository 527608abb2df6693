"""Conversion as a whole command, next to the converter's own command line.

python benchmarks/conversion.py MODELS                       the SavedModel of the Keras CNN
python benchmarks/conversion.py MODELS --applications NAME ...   and of these architectures

Both read the same SavedModel and write ONNX. Ours loads the result again, runs it and
compares it with the source; theirs does not. Of whole architectures, conversion alone is
compared too, and how fast ONNX Runtime is on either file.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import compare

MODELPACK = str(Path(sys.executable).with_name("modelpack"))
OPSET = "17"

# Of latency: as many rounds, each of one run of either file.
_ROUNDS = 40
_THREADS = 2


def main() -> None:
    """Print the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--applications", nargs="*", default=[], metavar="NAME")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        saved = saved_model(given.models / "keras_cnn.keras", work / "keras_cnn")
        print("keras_cnn:", against_tf2onnx(saved, work, runs=5))
        for architecture in given.applications:
            folder = work / architecture
            folder.mkdir()
            part = [
                sys.executable,
                "-W",
                "ignore",
                str(Path(__file__).with_name("applications.py")),
            ]
            words = ["make-one", str(work), architecture, str(folder)]
            subprocess.run([*part, *words], check=True, capture_output=True)
            saved = saved_model(folder / "model.keras", folder / "made")
            print(f"{architecture}, compared:", against_tf2onnx(saved, folder, runs=3))
            alone = against_tf2onnx(saved, folder, "--no-validate", runs=3)
            print(f"{architecture}, conversion alone:", alone)
            print(f"{architecture}:", latencies(folder / "ours.onnx", folder / "theirs.onnx"))


def saved_model(source: Path, folder: Path) -> Path:
    """Convert a Keras file to a SavedModel."""
    words = ["--quiet", "--no-validate", "-o", str(folder), "--to", "savedmodel"]
    subprocess.run([MODELPACK, "convert", str(source), *words], check=True)
    return folder / "saved_model"


def against_tf2onnx(saved: Path, work: Path, *words: str, runs: int) -> str:
    """Convert a SavedModel with either tool, in turns."""
    ours, theirs = work / "ours.onnx", work / "theirs.onnx"
    command = [MODELPACK, "convert", "--quiet", str(saved), "-o", str(ours), "--opset", OPSET]
    other = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(saved)]
    pair = compare([*command, *words], [*other, "--output", str(theirs), "--opset", OPSET], runs)
    return f"{pair}, {ours.stat().st_size} bytes against {theirs.stat().st_size}"


def latencies(ours: Path, theirs: Path) -> str:
    """Run both files in turns; one image."""
    import numpy as np

    sessions = [_session(path) for path in (ours, theirs)]
    shape = [dim if isinstance(dim, int) else 1 for dim in sessions[0].get_inputs()[0].shape]
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    feeds = [{session.get_inputs()[0].name: image} for session in sessions]
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for session, feed, found in zip(sessions, feeds, seconds, strict=True):
            begin = time.perf_counter()
            session.run(None, feed)
            found.append(time.perf_counter() - begin)
    one, other = (1000 * statistics.median(found) for found in seconds)
    ratio = statistics.median(a / b for a, b in zip(*seconds, strict=True))
    return f"latency ratio {ratio:.3f} ({one:.2f} ms against {other:.2f} ms)"


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
