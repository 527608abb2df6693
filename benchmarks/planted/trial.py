"""What modelpack, and rules with constants, say of a candidate; and what is true of it.

The truth is found on rows of real data that the judges do not see, in batches of several
sizes. A bug *matters* if it changes a decision, moves an answer by more than ten times the
noise floor (and twice as far as the sound artifact is), changes a shape, or keeps the model from
running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planted.conversion import Made
from modelpack.artifact import ModelRef
from modelpack.errors import ModelpackError
from modelpack.golden import Evidence
from modelpack.judging.compare import Judgement, judgement_for
from modelpack.judging.evidence import edge_evidence, evidence_of, generated
from modelpack.judging.figures import Elements, decisions
from modelpack.judging.noise import SAFETY
from modelpack.judging.trials import tried
from modelpack.samples import Case, batch_dim
from modelpack.signature import Meaning
from modelpack.sources import Opened, run_cases
from modelpack.worker import WorkerPool

# What artifacts without a bug are called beside the kinds of bugs.
SOUND, SOUND_8_BITS = "sound", "sound, 8 bits"

# A bug that moves answers further than this, in units of the noise floor, matters.
MATTERS = 10.0

# Batches in which the truth is looked for.
_BATCHES = (1, 2, 3, 7, 33, 128, 300)

# Rows of those that are asked of artifacts with a fixed batch, one at a time.
_ROWS_OF_FIXED = 120

# Constant rules that other tools compare with: relative and absolute tolerance.
PEERS: Mapping[str, tuple[float, float]] = {
    "rtol 1e-3, atol 1e-5": (1e-3, 1e-5),
    "atol 1e-5": (0.0, 1e-5),
    "atol 1e-4": (0.0, 1e-4),
}


@dataclass(frozen=True)
class Truth:
    """What is true of a candidate: its error over noise, changed decisions, why it fails."""

    ratio: float = 0.0
    flips: int = 0
    failure: str = ""

    def matters(self, sound: Truth) -> bool:
        """Whether there is a bug that one would want to know of, beside the sound artifact."""
        limit = max(MATTERS, 2 * sound.ratio)
        return bool(self.failure) or self.flips > sound.flips or self.ratio > limit


@dataclass(frozen=True)
class Said:
    """What the judges say of a candidate: modelpack's verdict, and the rules that object."""

    verdict: str
    ratio: float
    reason: str
    peers: tuple[str, ...]


def shown(pool: WorkerPool, source: Opened, seed: int) -> Evidence:
    """What `convert` compares artifacts on."""
    return generated(pool, source, seed) + edge_evidence(pool, source, seed)


def held_out(pool: WorkerPool, source: Opened, rows: Path) -> Evidence:
    """Real rows that no judge sees, in batches, with the source's answers."""
    with np.load(rows) as archive:
        arrays = [archive[name] for name in archive.files]
    signature = source.ref.signature
    assert signature is not None
    cases = []
    start = 0
    for number, size in enumerate(_BATCHES):
        chosen = np.arange(start, start + size) % len(arrays[0])
        start += size
        case = {
            spec.name: _as_fed(array[chosen], spec.dtype.value)
            for spec, array in zip(signature.inputs, arrays, strict=True)
        }
        cases.append(_shortened(source, case, number))
    return evidence_of(pool, source, cases, "data")


def _as_fed(array: Any, dtype: str) -> Any:
    return array.astype(object) if dtype == "string" else array


def _shortened(source: Opened, case: Case, number: int) -> Case:
    """The feed with another length, if the model has a dynamic one."""
    signature = source.ref.signature
    assert signature is not None
    dims = [dim for dim in signature.dynamic_dims if dim != batch_dim(signature)]
    if not dims:
        return case
    return {name: array[:, : array.shape[1] - number] for name, array in case.items()}


def judged(
    pool: WorkerPool,
    made: Made,
    kind: str,
    seen: Evidence,
    hidden: Evidence,
    judgement: Judgement,
) -> dict[str, Any]:
    """What is said and true of an artifact, by what is shown to the judges and what is not."""
    signature = made.ref.signature
    assert signature is not None
    if made.fixed:
        seen = seen.fitted_to(signature, made.fixed)
        hidden = hidden.head(_ROWS_OF_FIXED).fitted_to(signature, made.fixed)
    found = truth(pool, made.ref, hidden)
    words = said(pool, made.opened, seen, judgement)
    return {
        "format": made.ref.format,
        "kind": kind,
        "truth": asdict(found),
        "said": asdict(words),
    }


def judgement_of(source: Opened, candidate: Opened) -> Judgement:
    """How `convert` judges a candidate at its default settings."""
    return judgement_for(candidate.description.precision, reference=source.description.precision)


def said(pool: WorkerPool, candidate: Opened, evidence: Evidence, judgement: Judgement) -> Said:
    """What all judges say; of a candidate that does not run, all say the same."""
    objecting: set[str] = set()

    def witness(fed: Evidence, outputs: Sequence[Case], _judgement: Judgement) -> None:
        objecting.update(objections(fed, outputs))

    try:
        report = tried(pool, candidate, evidence, judgement, witness=witness)
    except ModelpackError as error:
        return Said("failed", 0.0, f"does not run: {error}"[:300], tuple(PEERS))
    except Exception as error:  # a defect of the judge, not of the candidate
        return Said("broken", 0.0, repr(error)[:300], tuple(PEERS))
    rules = PEERS if "refuses inputs" in report.reason else objecting
    return Said(str(report.verdict), report.max_noise or 0.0, report.reason[:300], tuple(rules))


def objections(evidence: Evidence, outputs: Sequence[Case]) -> set[str]:
    """The constant rules by which a candidate's answers are wrong, on the same feeds."""
    return {
        rule
        for rule, (rtol, atol) in PEERS.items()
        for answer, output in zip(evidence.outputs, outputs, strict=True)
        if not _all_close(answer, output, rtol, atol)
    }


def _all_close(want: Case, have: Case, rtol: float, atol: float) -> bool:
    for name, expected in want.items():
        actual = have[name]
        if actual.shape != expected.shape:
            return False
        if expected.dtype.kind == "f":
            with np.errstate(invalid="ignore", over="ignore"):
                if not np.allclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True):
                    return False
        elif not np.array_equal(actual, expected):
            return False
    return True


# --- the truth -----------------------------------------------------------------------------


def truth(pool: WorkerPool, ref: ModelRef, evidence: Evidence) -> Truth:
    """Compare a candidate with its source on held-out rows."""
    try:
        outputs = run_cases(pool, ref, evidence.cases)[0]
    except ModelpackError as error:
        return Truth(failure=f"does not run: {error}"[:200])
    ratio, flips = 0.0, 0
    for want, have, noise in zip(evidence.outputs, outputs, evidence.noise, strict=True):
        for name, expected in want.items():
            if have[name].shape != expected.shape:
                return Truth(failure=f"shape {have[name].shape}, not {expected.shape}")
        flips += _flips(ref, want, have, noise)
        ratio = max(ratio, _ratio(want, have, noise))
    return Truth(ratio, flips)


def _ratio(want: Case, have: Case, noise: Case) -> float:
    real = [name for name, array in want.items() if array.dtype.kind == "f"]
    ratios = [Elements(want[name], have[name], noise[name]).over_noise() for name in real]
    return max(ratios, default=0.0)


def _flips(ref: ModelRef, want: Case, have: Case, noise: Case) -> int:
    """Changed decisions of rows whose own decision stands out from the noise."""
    assert ref.signature is not None
    labels = [spec.name for spec in ref.signature.outputs if not spec.dtype.is_float]
    scores = [spec for spec in ref.signature.outputs if spec.dtype.is_float]
    count = 0
    open_rows = np.zeros(_rows(want), bool)
    for spec in scores:
        name = spec.name
        item = Elements(want[name], have[name], noise[name])
        if item.want.ndim == 2:
            count += decisions(item, SAFETY * noise[name]).flips
            if spec.meaning in {Meaning.PROBABILITIES, Meaning.SCORES}:
                open_rows |= _open(item.want, SAFETY * noise[name])
    for name in labels:
        differs = np.asarray(want[name] != have[name], bool).reshape(_rows(want), -1).any(1)
        moved = ~np.isfinite(noise[name]).reshape(_rows(want), -1).all(1)
        count += int(np.count_nonzero(differs & ~moved & ~open_rows))
    return count


def _open(scores: Any, gap: Any) -> Any:
    """Rows whose decision is closer than the gap."""
    if scores.shape[1] == 1:
        return np.abs(scores[:, 0]) <= gap[:, 0]
    best = np.sort(scores, axis=1)
    return best[:, -1] - best[:, -2] <= 2 * gap.max(1)


def _rows(case: Case) -> int:
    return len(next(iter(case.values())))
