"""Judges plain lists of outputs."""

from __future__ import annotations

from collections.abc import Sequence

from modelpack.golden import Evidence
from modelpack.judging import compare as judge
from modelpack.parity import ParityReport
from modelpack.samples import Case
from modelpack.signature import Signature


def compare(
    signature: Signature,
    reference: Sequence[Case],
    candidate: Sequence[Case],
    judgement: judge.Judgement,
    noise: Sequence[Case] = (),
    kinds: Sequence[str] = (),
) -> ParityReport:
    """`modelpack.judging.compare.compare` of outputs without feeds."""
    feeds: list[Case] = [{} for _ in reference]
    evidence = Evidence(feeds, reference, "generated", "source", noise, kinds)
    return judge.compare(signature, evidence, candidate, judgement)
