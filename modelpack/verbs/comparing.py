"""What the artifacts of a conversion are compared with: samples, and the source's own answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modelpack import datasets
from modelpack.errors import InputError
from modelpack.golden import GOLDEN_ROWS, Evidence
from modelpack.judging.compare import judgement_for
from modelpack.judging.evidence import edge_evidence, evidence_of, generated
from modelpack.judging.trials import tried
from modelpack.parity import ParityReport, Verdict, unverified
from modelpack.signature import Signature
from modelpack.sources import Opened
from modelpack.verbs.building import Product
from modelpack.worker import WorkerPool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trials:
    """What artifacts are compared on: samples that are kept as golden, and some that are not.

    Values at the edges tell kernels apart that agree on usual ones, but they would make a
    calibrated artifact look wrong later: so they are compared here and not kept.
    """

    golden: Evidence
    edges: Evidence


def trials_of(pool: WorkerPool, source: Opened, data: Path | None, seed: int) -> Trials:
    """Samples of a source, the user's or made up, with what it answers to them.

    Raises:
        InputError: it does not take the samples, or answers with nothing but NaN or infinity.
    """
    if data is not None:
        found = _given(pool, source, data)
    else:
        found = Trials(generated(pool, source, seed), edge_evidence(pool, source, seed))
    _refuse_meaningless(source.ref.signature, found.golden)
    return found


def _given(pool: WorkerPool, source: Opened, data: Path) -> Trials:
    signature = source.ref.signature
    assert signature is not None
    samples = datasets.read(data, signature, rows=GOLDEN_ROWS, narrow=False)
    kept = evidence_of(pool, source, samples.uneven_cases(GOLDEN_ROWS), "data")
    return Trials(kept, replace(kept, cases=[], outputs=[], noise=[], kinds=[]))


def _refuse_meaningless(signature: Signature | None, evidence: Evidence) -> None:
    """Refuse a source that answers finite inputs with nothing but NaN or infinity."""
    for spec in signature.outputs if signature is not None else ():
        if not spec.dtype.is_float:
            continue
        for feed, answer in zip(evidence.cases, evidence.outputs, strict=True):
            finite_feed = all(
                np.isfinite(array.astype(np.float64)).all()
                for array in feed.values()
                if array.dtype.kind in "fV"
            )
            values = answer[spec.name].astype(np.float64)
            if finite_feed and values.size and not np.isfinite(values).any():
                raise InputError(
                    f"the source's output '{spec.name}' is NaN or infinite for finite inputs: "
                    "its weights probably hold NaN, so no artifact of it can be checked",
                    hint="repair the model, or give usual inputs with --data",
                )


def compared(
    pool: WorkerPool,
    source: Opened,
    product: Product,
    trials: Trials,
    *,
    rtol: float | None,
    atol: float | None,
) -> ParityReport:
    """Run an artifact on the samples and judge what it answers."""
    if product.opened.description.unrunnable:
        log.warning("not compared: %s", product.opened.description.unrunnable)
        return unverified(product.opened.description.unrunnable)
    promised, signature = source.ref.signature, product.opened.ref.signature
    assert promised is not None
    assert signature is not None
    log.info("comparing %s with the source", product.opened.ref.format)
    usable = (trials.golden + trials.edges).fitted_to(promised, product.fixed_dims)
    if not usable.cases:
        sizes = ", ".join(f"{dim}={size}" for dim, size in product.fixed_dims.items())
        return unverified(f"no sample has the fixed dimensions {sizes}")
    judgement = judgement_for(
        product.opened.description.precision,
        rtol=rtol,
        atol=atol,
        reference=usable.arithmetic,
    )
    report = tried(pool, product.opened, usable, judgement, reference=source)
    if report.verdict is Verdict.INCONCLUSIVE:
        log.warning("inconclusive: %s", report.reason)
    return report
