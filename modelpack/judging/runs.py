"""Runs of a model on feeds: of which sizes, with last bits changed, and without elements."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from modelpack.errors import InputError
from modelpack.judging import noise
from modelpack.samples import WIDE_STEP, Case, free_dims, generate, narrowed
from modelpack.signature import Signature
from modelpack.sources import Opened, run_cases
from modelpack.steps import RunOptions
from modelpack.worker import WorkerPool

# LiteRT has no tensors without elements, and ONNX Runtime's recurrent kernels end the process.
_NEVER_EMPTY = {"tflite", "onnx"}


# Formats whose models are computed in float64 only when an artifact differs: it takes as long as
# converting them.
_WIDE_ON_DEMAND = {"savedmodel"}


def takes_empty(model: Opened) -> bool:
    """Whether a batch without rows is within what the model's runtime takes."""
    return model.ref.format not in _NEVER_EMPTY


def is_wide_on_demand(source: Opened) -> bool:
    """Whether a reference's float64 answers are asked for only where an artifact differs."""
    return source.ref.format in _WIDE_ON_DEMAND


def signature_of(source: Opened) -> Signature:
    """The signature of an opened model."""
    assert source.ref.signature is not None
    return source.ref.signature


def answers_of(
    pool: WorkerPool, source: Opened, cases: Sequence[Case], options: RunOptions
) -> list[Case]:
    """Run a reference; one that computes in float64 is given every digit of the feeds."""
    if not source.description.computes_in_float64:
        cases = [narrowed(case, signature_of(source)) for case in cases]
    return run_cases(pool, source.ref, cases, options=options)[0]


def step_of(pool: WorkerPool, model: Opened, seed: int) -> int:
    """The unit of dynamic sizes that a model takes: one where it can be one."""
    for step in (1, WIDE_STEP) if free_dims(model.description) else ():
        for cautious in (False, True):
            cases = generate(model.description, seed=seed, cautious=cautious, step=step)
            with contextlib.suppress(InputError):
                answers_of(pool, model, cases[:2], RunOptions())
                return step
    return 1


def nudged_answers(pool: WorkerPool, model: Opened, cases: Sequence[Case], seed: int) -> list[Case]:
    """Answers with the last bits of the inputs changed, and of the weights where they can be."""
    cases = [noise.nudged(case, seed, model.description.computes_in) for case in cases]
    try:
        return answers_of(pool, model, cases, RunOptions(nudge=seed))
    except InputError:
        return answers_of(pool, model, cases, RunOptions())
