"""Metrics of artifacts on labelled data, beside those of what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from modelpack.artifact import Artifact
from modelpack.errors import InputError
from modelpack.intervals import difference_interval
from modelpack.metrics import Measured, measured, suited
from modelpack.samples import Array, Case
from modelpack.signature import Signature
from modelpack.validation import Score

Key: TypeAlias = tuple[str, str]
"""Path and signature of an artifact: what tells it from the others of its manifest."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's outputs on labelled samples.

    Attributes:
        name: the model, in words.
        measures: its metrics, by name.
        samples: how many there were.
    """

    name: str
    measures: dict[str, Measured]
    samples: int


def answers(
    name: str, signature: Signature, outputs: Sequence[Case], labels: Array, metric: str = ""
) -> Answers:
    """Measure outputs by one metric, or by all that suit them.

    Raises:
        InputError: the metric, or none at all, suits outputs and labels.
    """
    measures: dict[str, Measured] = {}
    refused: InputError | None = None
    for candidate in [metric] if metric else suited(signature, labels):
        try:
            measures[candidate] = measured(candidate, signature, outputs, labels)
        except InputError as error:
            refused = refused or error
    if refused is not None and not measures:
        raise refused
    return Answers(name, measures, len(labels))


def scores(candidate: Answers, reference: Answers | None, seed: int = 0) -> tuple[Score, ...]:
    """The candidate's metrics, with what is known of the difference from the reference.

    Args:
        candidate: what is scored.
        reference: what it is compared with, on the same samples; None for nothing.
        seed: of the resamples behind confidence intervals.
    """
    return tuple(_score(metric, candidate, reference, seed) for metric in candidate.measures)


def _score(metric: str, candidate: Answers, reference: Answers | None, seed: int) -> Score:
    own = candidate.measures[metric]
    plain = Score(metric, rounded(own.value), candidate.samples)
    other = reference.measures.get(metric) if reference is not None else None
    if reference is None or other is None or reference.samples != candidate.samples:
        return plain
    low, high = difference_interval(own, other, candidate.samples, seed)
    return Score(
        metric,
        plain.value,
        plain.samples,
        compared_with=reference.name,
        reference=rounded(other.value),
        low=rounded(low),
        high=rounded(high),
    )


def rounded(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")


def baseline(artifacts: Sequence[Artifact]) -> dict[Key, Key]:
    """What each artifact of a manifest is compared with where there is no other reference.

    A quantized artifact is compared with the float one it was made from, if that is there;
    float ones with the first of them that has the same signature.

    Returns:
        The key of the reference by the artifact's key; those without one are left out.
    """
    floats = [item for item in artifacts if item.quantization is None]
    firsts = {item.signature: item.path for item in reversed(floats)}
    found = {key(item): (firsts[item.signature], item.signature) for item in floats}
    known = set(found)
    for item in artifacts:
        if item.quantization is not None:
            other = (item.quantization.of, item.signature)
            found |= {key(item): other} if other in known else {}
    return {one: other for one, other in found.items() if other != one}


def key(artifact: Artifact) -> Key:
    """The key of an artifact."""
    return artifact.path, artifact.signature
