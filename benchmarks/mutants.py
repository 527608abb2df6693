"""Planted bugs: how many of them validate finds, and how often it objects to sound models.

python -m benchmarks.mutants make   WORK [FRAMEWORK ...]   train the models
python -m benchmarks.mutants plant  WORK [NAME ...]   convert them, plant bugs and judge them
python -m benchmarks.mutants alarms WORK [NAME ...] [--seeds N]   judge the sound ones
python -m benchmarks.mutants table  WORK              what came out, as Markdown

Models are worked on in a process each, and a part can be repeated for some of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planted import quantized
from benchmarks.planted.conversion import Made, Threads, converted, lowered, opened
from benchmarks.planted.table import table
from benchmarks.planted.trial import SOUND, held_out, judged, judgement_of, said, shown
from modelpack.errors import ModelpackError
from modelpack.golden import Evidence
from modelpack.sources import Opened
from modelpack.worker import Limits

FRAMEWORKS = ("keras", "torch", "sklearn")
SEED = 0

# How often a kind of bug is tried on a model, at another place each time.
_PLACES = 1


def main() -> int:
    """Run one of the parts; return 1 if it broke for a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=(*PARTS, *(f"{part}-one" for part in PARTS), "table"))
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    work = given.work.resolve()
    if given.part == "table":
        print(table(work))
        return 0
    part, _, one = given.part.partition("-")
    if one:
        PARTS[part](work / given.names[0], given.seeds)
        return 0
    failed = 0
    for name in given.names or _names(work, part):
        begin = time.perf_counter()
        failed += _in_process(part, work, name, given.seeds)
        print(f"{name:20}{part:8}{time.perf_counter() - begin:6.1f} s", flush=True)
    return int(failed > 0)


def _names(work: Path, part: str) -> list[str]:
    if part == "make":
        return list(FRAMEWORKS)
    return sorted(path.parent.name for path in work.glob("*/rows.npz"))


def _in_process(part: str, work: Path, name: str, seeds: int) -> bool:
    """Run a part for one name in a process of its own; return whether it failed."""
    words = [f"{part}-one", str(work), name, "--seeds", str(seeds)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.mutants", *words],
        check=False,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        print(f"{name}: {done.stderr.strip()[-2000:]}", flush=True)
    return done.returncode != 0


def make(path: Path, _seeds: int) -> None:
    """Train the models of the framework that ``path`` ends in."""
    module = importlib.import_module(f"benchmarks.planted.{path.name}_models")
    for name in module.MODELS:
        folder = path.with_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        module.make(name, folder)


@contextmanager
def _workers(folder: Path) -> Iterator[tuple[Threads, Path]]:
    """Workers, and a directory beside the model for the time being."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        with Threads(scratch, Limits()) as pool:
            yield pool, scratch


# --- plant ---------------------------------------------------------------------------------


def plant(folder: Path, _seeds: int) -> None:
    """Plant bugs in one model's artifacts and write down what is said of each."""
    with _workers(folder) as (pool, scratch):
        source, rows = opened(pool, folder), folder / "rows.npz"
        sound = converted(pool, source, scratch / "sound")
        seen, hidden = shown(pool, source, SEED), held_out(pool, source, rows)
        results = []
        for kind, made in _candidates(pool, folder, sound, scratch):
            judgement = judgement_of(source, made.opened)
            results.append(judged(pool, made, kind, seen, hidden, judgement))
            if kind != SOUND:
                made.remove()
        for form in ("onnx", "tflite"):
            if form in sound and source.ref.format != "sklearn":
                results += quantized.planted(pool, sound[form], form, rows, scratch)
    (folder / "planted.json").write_text(json.dumps(results, indent=1))


def _candidates(
    pool: Threads, folder: Path, sound: Mapping[str, Made], scratch: Path
) -> Iterator[tuple[str, Made]]:
    """The sound artifacts, and others with one bug each, with the kind of bug."""
    for made in sound.values():
        yield SOUND, made
    earlier = opened(pool, folder, "stale")
    for made in converted(pool, earlier, scratch / "stale").values():
        yield "stale weights", made
    if "onnx" in sound:
        yield from _of_onnx(pool, folder.name, sound, scratch)
    if "tflite" in sound:
        yield from _of_buffers(sound["tflite"], scratch)


def _of_onnx(
    pool: Threads, name: str, sound: Mapping[str, Made], scratch: Path
) -> Iterator[tuple[str, Made]]:
    """Changed ONNX models, each also as one of the other formats, in turns."""
    import onnx

    from benchmarks.planted.mutations import MUTATIONS, mutated

    model = onnx.load(sound["onnx"].ref.path)
    others = [form for form in ("savedmodel", "tflite") if form in sound]
    for number, mutation in enumerate(MUTATIONS):
        rng = np.random.default_rng([SEED, number, zlib.crc32(name.encode())])
        seen: set[bytes] = set()
        for place in range(_PLACES):
            changed = mutated(model, mutation, rng)
            content = b"" if changed is None else changed.SerializeToString()
            if not content or content in seen:
                continue
            seen.add(content)
            path = scratch / f"bug_{number}_{place}.onnx"
            path.write_bytes(content)
            made = sound["onnx"].at(path)
            if others:
                yield from _lowered(
                    pool, made, others[(number + place) % len(others)], mutation.kind
                )
            yield mutation.kind, made


def _lowered(pool: Threads, made: Made, form: str, kind: str) -> Iterator[tuple[str, Made]]:
    try:
        yield kind, lowered(pool, made, form)
    except ModelpackError as error:  # conversion notices it
        print(f"  {kind}: not to {form}: {str(error)[:150]}")


def _of_buffers(sound: Made, scratch: Path) -> Iterator[tuple[str, Made]]:
    from benchmarks.planted.buffers import EDITS, edited

    content = sound.ref.path.read_bytes()
    for number, (kind, edit) in enumerate(EDITS.items()):
        changed = edited(content, edit, np.random.default_rng([SEED, 100 + number]))
        if changed is not None:
            path = scratch / f"buffer_{number}.tflite"
            path.write_bytes(changed)
            yield kind, sound.at(path)


# --- alarms --------------------------------------------------------------------------------


def alarms(folder: Path, seeds: int) -> None:
    """Judge one model's sound artifacts on many seeds and with other threads."""
    results: list[dict[str, Any]] = []
    with _workers(folder) as (pool, scratch):
        source = opened(pool, folder)
        sound = converted(pool, source, scratch / "sound")
        for seed in range(seeds):
            for threads in (1, 2) if source.ref.format == "torch" else (1,):
                pool.count = threads
                evidence = shown(pool, source, seed)
                for made in sound.values():
                    found = _alarms(pool, source, made, evidence)
                    results += [
                        {
                            "format": made.ref.format,
                            "seed": seed,
                            "threads": [threads, own],
                            **words,
                        }
                        for own, words in found
                    ]
            (folder / "alarms.json").write_text(json.dumps(results, indent=1))


def _alarms(
    pool: Threads, source: Opened, made: Made, evidence: Evidence
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What is said of a sound artifact by the threads that it runs on."""
    signature = made.ref.signature
    assert signature is not None
    judgement = judgement_of(source, made.opened)
    fitting = evidence.fitted_to(signature, made.fixed) if made.fixed else evidence
    for threads in (1,) if made.ref.format == "savedmodel" else (1, 2):
        pool.count = threads
        yield threads, {"said": asdict(said(pool, made.opened, fitting, judgement))}
        pool.count = 1


PARTS = {"make": make, "plant": plant, "alarms": alarms}


if __name__ == "__main__":
    sys.exit(main())
