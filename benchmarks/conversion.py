"""Conversion as a whole command, next to the converter's own command line.

python benchmarks/conversion.py MODELS

Both read the same SavedModel and write ONNX. Ours loads the result again, runs it and
compares it with the source; theirs does not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from timing import compare


def main(models: Path) -> None:
    """Print the comparison for the SavedModel of the Keras CNN."""
    modelpack = str(Path(sys.executable).with_name("modelpack"))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = models / "keras_cnn.keras"
        words = ["--quiet", "-o", str(work / "made"), "--to", "savedmodel"]
        subprocess.run([modelpack, "convert", str(source), *words], check=True)
        saved = str(work / "made" / "saved_model")
        ours = [modelpack, "convert", "--quiet", saved, "-o", str(work / "ours.onnx")]
        theirs = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", saved]
        theirs += ["--output", str(work / "theirs.onnx"), "--opset", "18"]
        print(f"SavedModel to ONNX against tf2onnx.convert: {compare(ours, theirs, runs=5)}")
        sizes = [(work / file).stat().st_size for file in ("ours.onnx", "theirs.onnx")]
        print(f"size of the result: {sizes[0]} bytes against {sizes[1]} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
