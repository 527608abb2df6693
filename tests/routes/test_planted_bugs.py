"""A few planted bugs and the sound models: validate tells them apart.

`benchmarks/mutants.py` has many more, of every framework and format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.planted.conversion import Made
from benchmarks.planted.mutations import MUTATIONS, mutated
from benchmarks.planted.trial import judgement_of, said, shown
from fixtures.inline import InlinePool
from modelpack.golden import Evidence
from modelpack.routes import find_route, formats
from modelpack.sources import Opened, Request, locate, open_model, run_step
from modelpack.steps import StepOptions

SEED = 0
BY_KIND = {mutation.kind: mutation for mutation in MUTATIONS}

FILES = {
    "torch_cnn": ("torch_cnn.pt2", ("logits",)),
    "torch_encoder": ("torch_encoder.pt2", ("logits",)),
    "sklearn_mlp": ("sklearn_mlp.skops", ()),
}

# Those that other tools' constant tolerances let pass are among them.
BUGS = [
    ("torch_cnn", "one weight, 0.001"),
    ("torch_cnn", "one tensor through float16"),
    ("torch_cnn", "wrong pad side"),
    ("torch_cnn", "baked batch"),
    ("torch_encoder", "swapped axis"),
    ("torch_encoder", "wrong epsilon"),
    ("torch_encoder", "transposed square matrix"),
    ("torch_encoder", "a tensor scaled by 1 + 1e-4"),
    ("torch_encoder", "missing bias"),
    ("sklearn_mlp", "class order"),
    ("sklearn_mlp", "weights through bfloat16"),
    ("sklearn_mlp", "a tensor scaled by 1 + 1e-4"),
]


@dataclass(frozen=True)
class Subject:
    """A source, its ONNX artifact, and what artifacts of it are compared on."""

    pool: InlinePool
    source: Opened
    sound: Made
    evidence: Evidence


@pytest.fixture(scope="module")
def subjects(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Subject]]:
    pool = InlinePool(tmp_path_factory.mktemp("planted"))
    found: dict[str, Subject] = {}
    for name, (file, outputs) in FILES.items():
        ref = locate(Request(str(models / file), trust=True, outputs=outputs))
        source = open_model(pool, ref)
        (step,) = find_route(source.ref.format, "onnx").steps
        sound = run_step(
            pool,
            step.entry,
            source.ref,
            pool.scratch / f"{name}.onnx",
            StepOptions(),
            form=formats()["onnx"],
            extra=step.extra,
            failure=AssertionError,
        )[1]
        found[name] = Subject(pool, source, Made(sound), shown(pool, source, SEED))
    yield found


@pytest.mark.parametrize("name", FILES)
def test_a_sound_artifact_passes(subjects: dict[str, Subject], name: str) -> None:
    subject = subjects[name]
    judgement = judgement_of(subject.source, subject.sound.opened)
    words = said(subject.pool, subject.sound.opened, subject.evidence, judgement)
    assert words.verdict == "passed", words.reason


@pytest.mark.parametrize(("name", "kind"), BUGS)
def test_a_planted_bug_is_found(subjects: dict[str, Subject], name: str, kind: str) -> None:
    subject = subjects[name]
    model = onnx.load(subject.sound.ref.path)
    changed = mutated(model, BY_KIND[kind], np.random.default_rng(SEED))
    assert changed is not None, "the bug cannot be planted in this model"
    path = subject.pool.scratch / f"{name}_{BUGS.index((name, kind))}.onnx"
    onnx.save(changed, path)
    judgement = judgement_of(subject.source, subject.sound.opened)
    words = said(subject.pool, subject.sound.at(path).opened, subject.evidence, judgement)
    assert words.verdict == "failed", f"{words.verdict} at {words.ratio:.3g} times the noise"
