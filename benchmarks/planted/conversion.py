"""Sound artifacts of the benchmark's models, and those of changed ONNX models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelpack.artifact import ModelRef
from modelpack.errors import ConversionError, ModelpackError
from modelpack.routes import Converter, converters, find_route, formats
from modelpack.sources import Opened, Request, locate, open_model, run_step
from modelpack.steps import RunOptions, StepOptions
from modelpack.worker import WorkerPool

TARGETS = ("onnx", "savedmodel", "tflite")

_SOURCES = {"keras": "model.keras", "torch": "model.pt2", "sklearn": "model.skops"}


class Threads(WorkerPool):
    """Runs artifacts, or sources, with other threads than `trials` asks for.

    Attributes:
        count: threads of runs that ask for one, where the runtime can be told.
    """

    count = 1

    def call(self, key, entry, returns, *args, **others):  # type: ignore[no-untyped-def]
        if self.count != 1 and entry.rpartition(".")[2] in _CAN_THREAD:
            args = tuple(
                replace(arg, threads=self.count)
                if isinstance(arg, RunOptions) and arg.threads == 1
                else arg
                for arg in args
            )
        return super().call(key, entry, returns, *args, **others)


_CAN_THREAD = {"onnx:run", "tflite:run", "torch:run"}


def opened(pool: WorkerPool, folder: Path, stem: str = "model") -> Opened:
    """A trained model of the benchmark."""
    framework = folder.name.partition("_")[0]
    path = folder / _SOURCES[framework].replace("model", stem)
    names = folder / "outputs.json"
    outputs = tuple(json.loads(names.read_text())) if names.exists() else ()
    ref = locate(Request(str(path), trust=True, outputs=outputs))
    return open_model(pool, ref)


@dataclass(frozen=True)
class Made:
    """An artifact, and the dynamic dims that had to be given one size in it."""

    opened: Opened
    fixed: Mapping[str, int] = field(default_factory=dict)

    @property
    def ref(self) -> ModelRef:
        return self.opened.ref

    def at(self, path: Path) -> Made:
        """Another file in its place, taken to have its signature."""
        return replace(self, opened=replace(self.opened, ref=replace(self.ref, location=str(path))))

    def remove(self) -> None:
        """Delete the file, or the directory."""
        if self.ref.path.is_dir():
            shutil.rmtree(self.ref.path)
        else:
            self.ref.path.unlink(missing_ok=True)


def converted(pool: WorkerPool, source: Opened, folder: Path) -> dict[str, Made]:
    """Convert a source to all formats that it can be converted to, as `convert` does."""
    folder.mkdir()
    found = {}
    for target in TARGETS:
        made = Made(source)
        try:
            for step in find_route(source.ref.format, target).steps:
                made = _run(pool, step, made, folder / target)
        except ModelpackError as error:
            print(f"  no {target}: {str(error)[:150]}", flush=True)
            continue
        found[target] = made
    return found


def lowered(pool: WorkerPool, changed: Made, target: str) -> Made:
    """A changed ONNX model in another format."""
    wanted = ("onnx", target)
    step = next(item for item in converters() if (item.source, item.target) == wanted)
    return _run(pool, step, changed, changed.ref.path.with_suffix(""))


def _run(pool: WorkerPool, step: Converter, source: Made, stem: Path) -> Made:
    suffix = next(iter(formats()[step.target].suffixes), ".saved")
    result, made = run_step(
        pool,
        step.entry,
        source.ref,
        stem.with_name(stem.name + suffix),
        StepOptions(),
        form=formats()[step.target],
        extra=step.extra,
        failure=ConversionError,
    )
    return Made(made, {**source.fixed, **result.fixed_dims})
