"""What stands behind the figures of a comparison: distributions, for people to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from modelpack.golden import Evidence
from modelpack.judging.compare import Judgement, allowance
from modelpack.judging.figures import Elements, rounded, spread
from modelpack.metrics import class_name
from modelpack.samples import Array, Case
from modelpack.signature import Meaning, Signature, TensorSpec
from modelpack.validation import Change, Histogram, KindError, OutputDetails

# Errors below 2**-10 units are counted with the first bar: far from any limit, they all look
# the same. Errors beyond 2**40 are counted with the last.
_FIRST, _LAST = -10, 40

_MOST_CHANGES = 100


def details_of(
    signature: Signature, evidence: Evidence, candidate: Sequence[Case], judgement: Judgement
) -> tuple[OutputDetails, ...]:
    """Distributions of the differences that `modelpack.judging.compare.compare` judges.

    Args:
        signature: its outputs are looked at.
        evidence: the reference's outputs, with their noise floor.
        candidate: the candidate's, one case per feed.
        judgement: how they were judged.
    """
    return tuple(
        _details(spec, evidence, candidate, judgement)
        for spec in signature.outputs
        if _comparable(spec, evidence, candidate)
    )


def _comparable(spec: TensorSpec, evidence: Evidence, candidate: Sequence[Case]) -> bool:
    """Whether both sides have the output in one shape and kind: else there is no distance."""
    pairs = [
        (want.get(spec.name), have.get(spec.name))
        for want, have in zip(evidence.outputs, candidate, strict=True)
    ]
    return bool(pairs) and all(
        want is not None
        and have is not None
        and want.shape == have.shape
        and (want.dtype.kind in "fV") == (have.dtype.kind in "fV")
        for want, have in pairs
    )


def _details(
    spec: TensorSpec, evidence: Evidence, candidate: Sequence[Case], judgement: Judgement
) -> OutputDetails:
    noise = evidence.noise or [{}] * len(evidence.cases)
    items = [
        Elements(want[spec.name], have[spec.name], floor.get(spec.name))
        for want, have, floor in zip(evidence.outputs, candidate, noise, strict=True)
    ]
    changes = Counter(pair for item in items for pair in _changes(spec, item))
    ranked = sorted(changes.items(), key=lambda entry: (-entry[1], entry[0]))
    found = OutputDetails(
        spec.name,
        changes=tuple(Change(*pair, count) for pair, count in ranked[:_MOST_CHANGES]),
        changed=changes.total(),
    )
    if not spec.dtype.is_float:
        return found
    unit, limit, errors = _in_units(items, judgement)
    return OutputDetails(
        found.name,
        _histogram(unit, limit, errors),
        _by_kind(errors, evidence.kinds_of_cases),
        found.changes,
        found.changed,
    )


def _in_units(items: Sequence[Elements], judgement: Judgement) -> tuple[str, float, list[Array]]:
    """What errors are judged in, the limit in it, and all errors of each case in it."""
    scale = max((item.scale for item in items), default=0.0)
    if judgement.quantized:
        deviation = spread(items, scale) or scale
        units = [np.full(item.error.shape, deviation) for item in items]
        return "standard deviation", judgement.rms_limit, _over(items, units)
    by_noise = not judgement.explicit and all(item.noise is not None for item in items)
    limit = judgement.noise_limit if by_noise else 1.0
    units = [allowance(item, scale, judgement) / limit for item in items]
    return "noise floor" if by_noise else "tolerance", limit, _over(items, units)


def _over(items: Sequence[Elements], units: Sequence[Array]) -> list[Array]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return [
            np.where(item.error > 0, np.nan_to_num(item.error / unit, nan=0.0, posinf=np.inf), 0.0)
            for item, unit in zip(items, units, strict=True)
        ]


def _histogram(unit: str, limit: float, errors: Sequence[Array]) -> Histogram:
    every = np.concatenate([item.ravel() for item in errors])
    finite = every[(every > 0) & np.isfinite(every)]
    exact = int(np.count_nonzero(every == 0))
    infinite = int(np.count_nonzero(~np.isfinite(every)))
    if not finite.size:
        return Histogram(unit, limit, exact=exact, infinite=infinite)
    exponents = np.clip(np.floor(np.log2(finite)), _FIRST, _LAST).astype(np.int64)
    first = int(exponents.min())
    counts = np.bincount(exponents - first)
    return Histogram(unit, limit, exact, first, tuple(map(int, counts)), infinite)


def _by_kind(errors: Sequence[Array], kinds: Sequence[str]) -> tuple[KindError, ...]:
    groups: dict[str, list[float]] = {}
    for error, kind in zip(errors, kinds, strict=True):
        groups.setdefault(kind, []).append(float(error.max(initial=0.0)))
    return tuple(KindError(kind, len(found), rounded(max(found))) for kind, found in groups.items())


def _changes(spec: TensorSpec, item: Elements) -> list[tuple[str, str]]:
    """The class before and after, of every decision that changed."""
    if spec.meaning is Meaning.LABEL:
        sides = [side.ravel() for side in (item.want, item.have)]
        names = [[class_name(value) for value in side.tolist()] for side in sides]
    elif spec.dtype.is_float and item.want.ndim > 1 and item.want.shape[-1] > 1 and item.want.size:
        best = [np.nan_to_num(side).argmax(-1).ravel() for side in (item.want, item.have)]
        positions = range(item.want.shape[-1])
        known = spec.classes if len(spec.classes) == len(positions) else positions
        classes = [class_name(value) for value in known]
        names = [[classes[position] for position in side.tolist()] for side in best]
    else:
        return []
    return [(one, other) for one, other in zip(*names, strict=True) if one != other]
