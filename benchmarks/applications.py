"""Every architecture of ``keras.applications`` to ONNX, SavedModel and TFLite, as whole commands.

python benchmarks/applications.py check WORK [NAME ...]   build, convert and compare
python benchmarks/applications.py table WORK              what came out, as Markdown

Weights are random; norms are calibrated on images, and logits are compared, since a softmax of
random weights is nearly constant. The images are smooth noise. Each command runs in processes
of its own; the memory is that of the largest. Memory is limited for the conversion to ONNX alone;
the comparison holds what Keras keeps of each layer's answers beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from timing import measure

TARGETS = ("onnx", "savedmodel", "tflite")

# Of conversion to ONNX: MiB beside a multiple of the weights.
_BESIDE, _TIMES_WEIGHTS = 1.2 * 1024, 4.0

_IMAGES = 4
_SIZE = 224  # of images where the architecture takes any
_SECONDS = 1200


def main() -> int:
    """Run one of the parts; return how many architectures failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("check", "table", "make-one", "list"))
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    work, names = given.work.resolve(), given.names
    work.mkdir(parents=True, exist_ok=True)
    if given.part == "table":
        print(table(work))
        return 0
    if given.part == "list":
        print(" ".join(architectures()))
        return 0
    if given.part == "make-one":
        make(work, names[0], Path(names[1]))
        return 0
    return check(work, names)


def architectures() -> list[str]:
    """Names of all architectures, as Keras lists them."""
    import keras

    return sorted(
        name
        for name, item in vars(keras.applications).items()
        if callable(item) and not name.startswith("_")
    )


def make(work: Path, name: str, folder: Path) -> None:
    """Build one model and its images; write down its size and how far answers differ."""
    import keras

    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    model = build(weights=None, classifier_activation=None)
    rng = np.random.default_rng(0)
    height, width = (size or _SIZE for size in model.input_shape[1:3])
    coarse = rng.standard_normal((_IMAGES, 8, 8, 3)).astype(np.float32)
    smooth = np.asarray(keras.ops.image.resize(coarse, (height, width)))
    images = 110 + 60 * smooth + 5 * rng.standard_normal(smooth.shape).astype(np.float32)
    if not any(type(layer).__name__ in {"Rescaling", "Normalization"} for layer in model.layers):
        images = images / 127.5 - 1
    _calibrate(model, images)
    answers = np.concatenate([model(image[None], training=False) for image in images])
    model.save(folder / "model.keras")
    np.savez(folder / "images.npz", **{model.inputs[0].name: images.astype(np.float32)})
    facts = {
        "mib": sum(np.asarray(weight).nbytes for weight in model.weights) / 2**20,
        "sensitivity": float(answers.std(0).max() / np.abs(answers).max()),
    }
    (work / f"{name}.json").write_text(json.dumps(facts))


def _calibrate(model: Any, images: Any) -> None:
    """Set the statistics of norms to those of the images."""
    import tensorflow as tf

    norms = [
        layer for layer in model._flatten_layers() if type(layer).__name__ == "BatchNormalization"
    ]
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        # As a graph: called layer by layer, Keras keeps every answer.
        tf.function(model)(images, training=True)


def check(work: Path, names: list[str]) -> int:
    """Convert architectures, all of them by default."""
    if not names:
        command = [sys.executable, "-W", "ignore", __file__, "list", str(work)]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            found = check_one(work, name, Path(folder))
        (work / f"{name}.json").write_text(json.dumps(found))
        failed += not passed(found)
        print(f"{name:22}{'' if passed(found) else 'FAILED '}{found}", flush=True)
    return failed


def check_one(work: Path, name: str, folder: Path) -> dict[str, Any]:
    """Build an architecture, convert it, and return what came out."""
    words = [sys.executable, "-W", "ignore", __file__, "make-one", str(work), name, str(folder)]
    made = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS)
    if made.returncode:
        return {"failure": made.stderr.strip()[-300:]}
    found: dict[str, Any] = json.loads((work / f"{name}.json").read_text())
    alone = measure(_command(folder, folder / "alone", "onnx", "--no-validate"))
    found["peak_mib"] = round(alone.peak_mib)
    for target in TARGETS:
        found[target] = _converted(folder, target)
    return found


def _command(folder: Path, out: Path, target: str, *words: str) -> list[str]:
    modelpack = str(Path(sys.executable).with_name("modelpack"))
    return [
        modelpack,
        "convert",
        str(folder / "model.keras"),
        "-o",
        str(out),
        "--to",
        target,
        *words,
    ]


def _converted(folder: Path, target: str) -> dict[str, Any]:
    out = folder / target
    command = _command(folder, out, target, "--data", str(folder / "images.npz"))
    try:
        run = measure(command)
    except RuntimeError:
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        return {"failure": told.stderr.strip()[-300:]}
    artifact = yaml.safe_load((out / "modelpack.yaml").read_text())["artifacts"][0]
    parity = artifact["parity"]
    return {
        "verdict": parity["verdict"],
        "error": max(item["max_rel"] for item in parity["outputs"]),
        "noise": max(item["max_noise"] or 0.0 for item in parity["outputs"]),
        "seconds": round(run.seconds, 1),
        "peak_mib": round(run.peak_mib),
    }


# --- what came out -------------------------------------------------------------------------


def passed(found: Mapping[str, Any]) -> bool:
    """Whether all formats are right and the way to ONNX stays within its memory."""
    if "failure" in found:
        return False
    right = all(found[target].get("verdict") == "passed" for target in TARGETS)
    return right and found["peak_mib"] <= _BESIDE + _TIMES_WEIGHTS * found["mib"]


def table(work: Path) -> str:
    """A Markdown table of all results."""
    head = ["architecture", "weights MiB", "varies by", "to ONNX unchecked: peak MiB"]
    head += [f"{target}: error, peak MiB, s" for target in TARGETS]
    rows = [head, ["---"] * len(head)]
    results = {path.stem: json.loads(path.read_text()) for path in sorted(work.glob("*.json"))}
    # An architecture that is being worked on has its facts alone.
    results = {name: found for name, found in results.items() if len(found) != 2}
    for name, found in results.items():
        if "failure" in found:
            rows.append([name, "", "", "", found["failure"].replace("\n", " "), "", ""])
            continue
        rows.append(
            [name, f"{found['mib']:.0f}", f"{found['sensitivity']:.2g}", str(found["peak_mib"])]
            + [_cell(found[target]) for target in TARGETS]
        )
    count = sum(passed(found) for found in results.values())
    lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{lines}\n\n{count} of {len(results)} right in all formats, within their memory"


def _cell(found: Mapping[str, Any]) -> str:
    if "failure" in found:
        return "failed: " + found["failure"].replace("\n", " ")[-80:]
    right = "" if found["verdict"] == "passed" else f"{found['verdict']}: "
    return f"{right}{found['error']:.1e}, {found['peak_mib']}, {found['seconds']}"


if __name__ == "__main__":
    sys.exit(min(main(), 1))
