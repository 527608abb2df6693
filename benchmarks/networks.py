"""Whole PyTorch networks through ONNX to SavedModel and TFLite, compared with PyTorch.

python benchmarks/networks.py make  WORK [NAME ...]    build and export, with PyTorch's answers
python benchmarks/networks.py check WORK [NAME ...]    convert and compare, each in its process
python benchmarks/networks.py table WORK               what came out, as Markdown

``make`` needs PyTorch, torchvision, timm and transformers; ``check`` TensorFlow, LiteRT and
modelpack. Both may be run again for single networks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-5
SMALLEST_SENSITIVITY = 1e-3
TARGETS = ("savedmodel", "tflite")

# Dynamic sizes that the artifacts are compared at; lengths differ from each other and from
# those of the export.
SIZES: tuple[Mapping[str, int], ...] = (
    {"batch": 1, "length": 9, "target_length": 5},
    {"batch": 2, "length": 16, "target_length": 3},
    {"batch": 5, "length": 21, "target_length": 12},
)
_EXPORT_SIZES = {"batch": 3, "length": 13, "target_length": 7}

_SECONDS = 600
_MOST_MEMORY = 6 << 30


def main() -> int:
    """Run one of the three parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("make", "check", "table", "make-one", "check-one"))
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    work, names = given.work.resolve(), given.names
    if given.part == "table":
        print(table(work))
        return 0
    if given.part == "make-one":
        make_one(work, *names)
        return 0
    if given.part == "check-one":
        check_one(work, *names)
        return 0
    return make(work, names) if given.part == "make" else check(work, names)


# --- make ----------------------------------------------------------------------------------


def make(work: Path, names: list[str]) -> int:
    """Export networks, all of them by default."""
    from architectures import TABLE

    failed = 0
    for name in names or list(TABLE):
        said = _in_process("make-one", work, name)
        print(f"{name:22}{said or 'exported'}", flush=True)
        failed += bool(said)
    return failed


def make_one(work: Path, name: str) -> None:
    """Export one network and record what PyTorch answers."""
    import torch
    from architectures import create, feed

    torch.set_num_threads(1)
    model = create(name)
    cases: dict[str, Any] = {}
    for number, sizes in enumerate(SIZES):
        inputs = feed(name, sizes, seed=number)
        cases.update({f"{number}_in_{i}": x.numpy() for i, x in enumerate(inputs)})
        answer = _answer(model, inputs)
        cases.update({f"{number}_out_{i}": array for i, array in enumerate(answer)})
    folder = work / "onnx"
    folder.mkdir(parents=True, exist_ok=True)
    export(name, model, folder / f"{name}.onnx")
    np.savez(folder / f"{name}.npz", sensitivity=sensitivity(name, model), **cases)


def _answer(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
    result = model(*inputs)
    results = result if isinstance(result, tuple | list) else (result,)
    return [tensor.numpy() for tensor in results]


def sensitivity(name: str, model: Any) -> float:
    """How much the outputs change when an input does, relative to their size: the least of all."""
    from architectures import feed

    one, other = (feed(name, SIZES[1], seed) for seed in (11, 12))
    before = _answer(model, one)
    changes = []
    for position in range(len(one)):
        changed = tuple(other[i] if i == position else tensor for i, tensor in enumerate(one))
        after = _answer(model, changed)
        changes.append(max(difference(a, b) for a, b in zip(after, before, strict=True)))
    return min(changes)


def export(name: str, model: Any, path: Path) -> None:
    import torch
    from architectures import TABLE, feed
    from torch.nn.attention import SDPBackend, sdpa_kernel

    inputs = TABLE[name].inputs
    dynamic = tuple(
        {axis: dim for axis, dim in enumerate(item.dims) if isinstance(dim, str)} for item in inputs
    )

    def write() -> None:
        program = torch.onnx.export(
            model,
            feed(name, _EXPORT_SIZES, seed=0),
            dynamo=True,
            dynamic_shapes=(dynamic,) if is_variadic(model) else dynamic,
            input_names=[item.name for item in inputs],
            verbose=False,
        )
        program.save(path)

    try:
        write()
    except torch.onnx.errors.OnnxExporterError:
        # PyTorch cannot decompose some fused attention kernels.
        with sdpa_kernel(SDPBackend.MATH):
            write()


def is_variadic(model: Any) -> bool:
    return bool(model.forward.__code__.co_flags & 0x04)


# --- check ---------------------------------------------------------------------------------


def check(work: Path, names: list[str]) -> int:
    """Convert networks and compare, all that were exported by default."""
    failed = 0
    for name in names or sorted(path.stem for path in (work / "onnx").glob("*.onnx")):
        for target in TARGETS:
            result = work / "results" / f"{name}.{target}.json"
            result.unlink(missing_ok=True)
            said = _in_process("check-one", work, name, target)
            found = json.loads(result.read_text()) if result.exists() else {"failure": said}
            result.parent.mkdir(exist_ok=True)
            result.write_text(json.dumps(found))
            failed += not passed(found)
            print(f"{name:22}{target:12}{_verdict(found)}", flush=True)
    return failed


def check_one(work: Path, name: str, target: str) -> None:
    """Convert a network, run the artifact, write down what came out."""
    import onnx

    source = work / "onnx" / f"{name}.onnx"
    model = onnx.load(source)
    outputs = len(model.graph.output)
    nodes = len(model.graph.node)
    folder = work / target
    folder.mkdir(exist_ok=True)
    begin = time.perf_counter()
    artifact = convert(model, target, folder / name)
    seconds = time.perf_counter() - begin
    cases = np.load(work / "onnx" / f"{name}.npz")
    runner = run_savedmodel(artifact) if target == "savedmodel" else run_tflite(artifact)
    errors = [_error(runner, cases, number, outputs) for number in range(len(SIZES))]
    result = {
        "nodes": nodes,
        "errors": errors,
        "onnxruntime": max(_error(run_onnx(source), cases, i, outputs) for i in range(len(SIZES))),
        "sensitivity": float(cases["sensitivity"]),
        "seconds": round(seconds, 1),
        "mib": round(_bytes(artifact) / 2**20, 2),
        "transposes": transposes(artifact) if target == "tflite" else None,
    }
    results = work / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.{target}.json").write_text(json.dumps(result))


def convert(model: Any, target: str, path: Path) -> Path:
    """Write the artifact; its inputs are called ``in_<i>`` and its outputs ``out_<i>``."""
    import tensorflow as tf

    from modelpack.adapters import savedmodel_filters
    from modelpack.lowering.context import Target
    from modelpack.lowering.filters import Filters
    from modelpack.lowering.model import Lowered, graph_inputs, prepare

    kind = Target(target)
    prepared = prepare(model, kind)
    specs = [_spec(info, f"in_{i}") for i, info in enumerate(graph_inputs(prepared))]
    filters = Filters(savedmodel_filters.ROOM) if kind is Target.SAVEDMODEL else None
    module = Lowered(prepared, kind, filters=filters)

    def serve(*flat: Any) -> dict[str, Any]:
        return {f"out_{i}": tensor for i, tensor in enumerate(module(*flat))}

    serving = tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()
    saved = path if target == "savedmodel" else path.with_suffix(".saved")
    tf.saved_model.save(module, str(saved), signatures={"serving_default": serving})
    if filters is not None:
        savedmodel_filters.put_in(saved, filters)
        return saved
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    result = path.with_suffix(".tflite")
    result.write_bytes(converter.convert())
    shutil.rmtree(saved)
    return result


def _spec(info: Any, name: str) -> Any:
    import onnx
    import tensorflow as tf

    tensor = info.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    return tf.TensorSpec(shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), name)


def run_onnx(path: Path) -> Any:
    """Load an ONNX file and return a function of inputs ``in_<i>``."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        results = session.run(None, {name: feed[f"in_{i}"] for i, name in enumerate(names)})
        return {f"out_{i}": result for i, result in enumerate(results)}

    return run


def run_savedmodel(path: Path) -> Any:
    """Load a SavedModel and return a function of named inputs."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    function = loaded.signatures["serving_default"]

    def run(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        result = function(**{name: tf.constant(array) for name, array in feed.items()})
        return {name: tensor.numpy() for name, tensor in result.items()}

    run.owner = loaded  # type: ignore[attr-defined]  # the function does not own its variables
    return run


def run_tflite(path: Path) -> Any:
    """Load a TFLite file and return a function of named inputs."""
    from ai_edge_litert.interpreter import Interpreter

    signature = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
    return lambda feed: signature(**feed)


def _error(run: Any, cases: Mapping[str, Any], number: int, outputs: int) -> float:
    prefix = f"{number}_"
    feed = {key.removeprefix(prefix): cases[key] for key in cases if key.startswith(f"{prefix}in_")}
    result = run(feed)
    return max(difference(result[f"out_{i}"], cases[f"{prefix}out_{i}"]) for i in range(outputs))


def difference(actual: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected value."""
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return float("inf")
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def transposes(path: Path) -> int:
    """Count the transposes of a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    plain = Interpreter(str(path), experimental_op_resolver_type=_without_delegates())
    return sum(op["op_name"] == "TRANSPOSE" for op in plain._get_ops_details())


def _without_delegates() -> Any:
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


# --- processes -----------------------------------------------------------------------------


def _in_process(part: str, work: Path, *words: str) -> str:
    """Run a part in a process of its own; return why it failed, or nothing."""
    import psutil

    log = work / "logs" / f"{part}.{'.'.join(words)}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).resolve()
    paths = os.pathsep.join([str(here.parent.parent), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    with log.open("w") as sink:
        process = psutil.Popen(
            [sys.executable, "-W", "ignore", str(here), part, str(work), *words],
            stdout=sink,
            stderr=sink,
            env={**os.environ, **settings},
        )
        stopped = _watched(process)
    return stopped or (_reason(log.read_text(errors="replace")) if process.returncode else "")


def _watched(process: Any) -> str:
    """Wait for a process, or end it at its limits; return which."""
    import psutil

    begin = time.monotonic()
    while True:
        try:
            process.wait(0.5)
            return ""
        except psutil.TimeoutExpired:
            used = process.memory_info().rss
        if used > _MOST_MEMORY:
            process.kill()
            return f"more than {_MOST_MEMORY >> 30} GiB of memory"
        if time.monotonic() - begin > _SECONDS:
            process.kill()
            return f"more than {_SECONDS} s"


def _reason(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    interesting = [line for line in lines if re.search(r"\w(Error|Exception)\b|error:", line)]
    return (interesting or lines or ["it ended without a word"])[-1]


# --- what came out -------------------------------------------------------------------------


def passed(result: Mapping[str, Any]) -> bool:
    """Whether an artifact is right at every size, and its network says something about that."""
    return (
        not result.get("failure")
        and max(result["errors"]) <= TOLERANCE
        and result["sensitivity"] >= SMALLEST_SENSITIVITY
    )


def _verdict(result: Mapping[str, Any]) -> str:
    if result.get("failure"):
        return f"FAILED {result['failure'][:200]}"
    errors = " ".join(f"{error:.1e}" for error in result["errors"])
    left = "" if result["transposes"] is None else f", {result['transposes']} transposes"
    return f"{'' if passed(result) else 'WRONG '}{errors}{left}, {result['seconds']} s"


def table(work: Path) -> str:
    """A Markdown table of all results."""
    from architectures import TABLE

    head = ["network", "kind", "nodes", "ONNX Runtime", "SavedModel", "TFLite", "transposes"]
    head += ["SavedModel MiB", "TFLite MiB"]
    rows = [head, ["---"] * len(head), *_rows(work, TABLE)]
    counts = [
        f"{target}: {sum(passed(_result(work, name, target)) for name in TABLE)} of {len(TABLE)}"
        for target in TARGETS
    ]
    return (
        "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
        + "\n\n"
        + "; ".join(counts)
    )


def _rows(work: Path, architectures: Mapping[str, Any]) -> Iterator[list[Any]]:
    for name, architecture in architectures.items():
        saved, lite = (_result(work, name, target) for target in TARGETS)
        any_of = {**lite, **saved}
        floor = f"{any_of['onnxruntime']:.1e}" if "onnxruntime" in any_of else ""
        cells = [name, architecture.kind, any_of.get("nodes", ""), floor, _cell(saved)]
        cells += [
            _cell(lite),
            lite.get("transposes", ""),
            saved.get("mib", ""),
            lite.get("mib", ""),
        ]
        yield cells


def _result(work: Path, name: str, target: str) -> Mapping[str, Any]:
    path = work / "results" / f"{name}.{target}.json"
    return json.loads(path.read_text()) if path.exists() else {"failure": "not tried"}


def _cell(result: Mapping[str, Any]) -> str:
    if result.get("failure"):
        return "failed"
    worst = f"{max(result['errors']):.1e}"
    return worst if passed(result) else f"**{worst}**"


if __name__ == "__main__":
    sys.exit(main())
