"""Bugs in the scales of 8-bit artifacts, and what is said and true of them.

A share of the sound 8-bit artifact's own error stands for the noise floor: a bug matters that
moves an answer some times as far as the sound artifact does, or changes a safe decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planted.conversion import Made
from benchmarks.planted.trial import SOUND_8_BITS, held_out, judged
from modelpack.errors import ModelpackError, QuantizationError
from modelpack.golden import Evidence
from modelpack.judging.compare import judgement_for
from modelpack.routes import formats
from modelpack.samples import Case, write_cases
from modelpack.sources import Opened, run_cases, run_step, worker_key
from modelpack.steps import QuantizeRequest
from modelpack.worker import WorkerPool

SCHEME = "static-int8"
_CALIBRATION = 200


def planted(
    pool: WorkerPool, floating: Made, form: str, rows: Path, scratch: Path
) -> Iterator[dict[str, Any]]:
    """Quantize a float artifact, plant bugs in its scales and judge them."""
    if floating.fixed:
        return
    hidden = held_out(pool, floating.opened, rows)
    calibration = _batches(hidden)
    try:
        sound = _quantized(pool, floating.opened, form, calibration, scratch)
        hidden = replace(hidden, noise=_own_error(pool, sound, hidden))
    except ModelpackError as error:
        print(f"  no 8-bit {form}: {str(error)[:100]}")
        return
    answers = run_cases(pool, floating.ref, calibration)[0]
    seen = Evidence(calibration, answers, "data", "float artifact")
    judgement = judgement_for("float32", SCHEME)
    for kind, made in [(SOUND_8_BITS, Made(sound)), *_bugs(Made(sound), form, scratch)]:
        yield judged(pool, made, kind, seen, hidden, judgement)


def _batches(hidden: Evidence) -> list[Case]:
    """Real rows to calibrate with: the largest batch, cut in two."""
    case = max(hidden.cases, key=lambda item: len(next(iter(item.values()))))
    half = _CALIBRATION // 2
    return [
        {name: array[part] for name, array in case.items()}
        for part in (slice(half), slice(half, 2 * half))
    ]


def _quantized(
    pool: WorkerPool, source: Opened, form: str, calibration: Sequence[Case], scratch: Path
) -> Opened:
    cases = scratch / "calibration.npz"
    write_cases(cases, calibration)
    suffix = formats()[form].suffixes[0]
    return run_step(
        pool,
        formats()[form].quantizer,
        source.ref,
        scratch / f"eight{suffix}",
        QuantizeRequest(SCHEME, str(cases)),
        form=formats()[form],
        extra=worker_key(formats()[form]),
        failure=QuantizationError,
    )[1]


def _own_error(pool: WorkerPool, sound: Opened, hidden: Evidence) -> list[Case]:
    """The noise floor: the usual error of the sound artifact, or a quarter of its largest."""
    answers = run_cases(pool, sound.ref, hidden.cases)[0]
    floors: dict[str, float] = {}
    for name, first in hidden.outputs[0].items():
        if first.dtype.kind == "f":
            errors = [
                (have[name] - want[name]).ravel().astype(np.float64)
                for have, want in zip(answers, hidden.outputs, strict=True)
            ]
            every = np.concatenate(errors)
            usual, largest = np.sqrt(np.mean(every**2)), np.abs(every).max()
            floors[name] = max(float(usual), float(largest) / 4, 1e-12)
    return [
        {
            name: np.full(array.shape, floors.get(name, 0.0))
            if name in floors
            else np.where(array == have[name], 0.0, np.inf)
            for name, array in want.items()
        }
        for want, have in zip(hidden.outputs, answers, strict=True)
    ]


# --- bugs ----------------------------------------------------------------------------------


def _bugs(sound: Made, form: str, scratch: Path) -> Iterator[tuple[str, Made]]:
    rng = np.random.default_rng(0)
    make, suffix = (_of_onnx, ".onnx") if form == "onnx" else (_of_tflite, ".tflite")
    content = sound.ref.path.read_bytes()
    for number, (kind, factor, shift) in enumerate(_CHANGES):
        changed = make(content, factor, shift, rng)
        if changed is not None:
            path = scratch / f"scale_{number}{suffix}"
            path.write_bytes(changed)
            yield kind, sound.at(path)


# The kind, what a scale is multiplied by, and what is added to a zero point.
_CHANGES = (
    ("quantization scale off by one bit", 2.0, 0),
    ("quantization scale off by one bit", 0.5, 0),
    ("zero point off by one", 1.0, 1),
    ("zero point off by one", 1.0, -1),
)


def _of_onnx(content: bytes, factor: float, shift: int, rng: np.random.Generator) -> bytes | None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(content)
    known = {item.name: item for item in model.graph.initializer}
    position = 2 if shift else 1
    nodes = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and len(node.input) > position
        and node.input[position] in known
        and (not shift or known[node.input[position]].data_type != onnx.TensorProto.INT32)
    ]
    if not nodes:
        return None
    node = nodes[int(rng.integers(len(nodes)))]
    array = numpy_helper.to_array(known[node.input[position]])
    limits = np.iinfo(array.dtype) if shift else None
    changed = (
        np.clip(array.astype(np.int64) + shift, limits.min, limits.max).astype(array.dtype)
        if limits
        else (array * factor).astype(array.dtype)
    )
    name = f"{node.input[position]}__bug"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(changed), name))
    node.input[position] = name
    return bytes(model.SerializeToString())


def _of_tflite(content: bytes, factor: float, shift: int, rng: np.random.Generator) -> bytes | None:
    from ai_edge_litert import schema_py_generated as schema

    copy = bytearray(content)
    model = schema.Model.GetRootAs(copy, 0)
    graph = model.Subgraphs(0)
    found = []
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        kept = tensor.Quantization()
        if tensor.Type() != schema.TensorType.INT8 or kept is None or not kept.ScaleLength():
            continue
        constant = not model.Buffers(tensor.Buffer()).DataIsNone()
        if shift and (constant or not kept.ZeroPointLength()):
            continue  # weights are symmetric
        found.append(kept)
    if not found:
        return None
    chosen = found[int(rng.integers(len(found)))]
    if shift:
        points = chosen.ZeroPointAsNumpy()
        points[:] = np.clip(points + shift, -128, 127)
    else:
        chosen.ScaleAsNumpy()[:] *= np.float32(factor)
    return bytes(copy)
