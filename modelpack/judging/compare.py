"""Judges the outputs of a candidate by those of a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelpack.golden import Evidence
from modelpack.judging.figures import (
    Elements,
    cosine,
    decisions,
    joined,
    ratio,
    rms,
    rounded,
    spread,
)
from modelpack.judging.noise import SAFETY
from modelpack.parity import ParityReport, TensorDiff, Tolerance, Verdict, unverified
from modelpack.samples import Array, Case
from modelpack.signature import DType, Meaning, Signature, TensorSpec

# Where the reference's noise floor is not known (golden samples of others, say): by the
# precision of the candidate's weights; see `Tolerance` for the units. float32 has 2**-24 = 6e-8
# relative rounding per operation; sound networks stay within 1e-5 of the output's scale.
TOLERANCES = {
    "float64": Tolerance(rtol=1e-4, atol=1e-5),
    "float32": Tolerance(rtol=1e-4, atol=1e-5),
    "float16": Tolerance(rtol=1e-2, atol=1e-2),
    "bfloat16": Tolerance(rtol=5e-2, atol=5e-2),
}

# Unit roundoff, by dtype: half the distance from 1 to the next number.
_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

# A quantized output may differ, by rounding of 8-bit weights, but must still carry the signal: its
# error's root mean square stays below this share of the output's standard deviation (a
# signal-to-noise ratio of 20 dB); where labels tell what is lost, of 10.5 dB. Small networks that
# are quantized well lose 0.01.
QUANTIZED_RMS_LIMIT = 0.1
GATED_RMS_LIMIT = 0.3

# And of its decisions (largest elements along the last axis) that stand out by more than that
# error, so many may change.
QUANTIZED_FLIP_LIMIT = 0.05

# Answers tell right from wrong if, from one input to another, they move this many times as
# far as an error may go unnoticed. Below that an artifact that ignored its input would pass.
_TELLING = 3.0

# Of the largest answer: what answers must differ by to be no constant.
_VARYING = 1e-3

_SCORES = {Meaning.PROBABILITIES, Meaning.SCORES}


def tolerance_for(
    precision: str, rtol: float | None = None, atol: float | None = None
) -> Tolerance:
    """The tolerance for a candidate of this precision, with the user's own figures first."""
    usual = TOLERANCES.get(precision, TOLERANCES["float32"])
    return Tolerance(usual.rtol if rtol is None else rtol, usual.atol if atol is None else atol)


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a comparison is to be judged.

    Attributes:
        tolerance: per element, where the noise floor is not known or not wanted.
        explicit: the tolerance was asked for, and counts although the floor is known.
        noise_limit: how many times the noise floor an error may be.
        quantized: judge by the signal that is left, not element by element.
        rms_limit: then the largest root mean square of the error over the standard deviation.
        reference: the reference in words, for the report.
        runtime: what ran the candidate, for the report.
    """

    tolerance: Tolerance
    explicit: bool = False
    noise_limit: float = SAFETY
    quantized: bool = False
    rms_limit: float = QUANTIZED_RMS_LIMIT
    reference: str = ""
    runtime: str = ""


def judgement_for(
    precision: str,
    scheme: str = "",
    rtol: float | None = None,
    atol: float | None = None,
    *,
    reference: str = "float32",
) -> Judgement:
    """How to judge a candidate.

    Explicit tolerances hold for every element, of an 8-bit candidate too. The noise floor
    grows with the unit roundoff, from the reference's to the candidate's.

    Args:
        precision: dtype of the candidate's weights.
        scheme: how it was quantized, if it was.
        rtol: the user's, or None.
        atol: the user's, or None.
        reference: dtype whose rounding the reference's answers have.
    """
    eight_bit = "int8" in (scheme or precision)
    explicit = rtol is not None or atol is not None
    weights = "float16" if scheme == "float16" else precision
    return Judgement(
        tolerance_for(weights, rtol, atol),
        explicit=explicit,
        noise_limit=SAFETY * max(1.0, _roundoff(weights) / _roundoff(reference)),
        quantized=eight_bit and not explicit,
    )


def _roundoff(precision: str) -> float:
    # Artifacts exchange float32 at best, so that is what the floor is measured in.
    return max(_ROUNDOFF.get(precision, 0.0), _ROUNDOFF["float32"])


def compare(
    signature: Signature, evidence: Evidence, candidate: Sequence[Case], judgement: Judgement
) -> ParityReport:
    """Judge the outputs of a signature case by case.

    Args:
        signature: its outputs say what is compared and what the values mean.
        evidence: the reference's outputs for the same feeds, with their noise floor.
        candidate: outputs of the candidate, one case per feed.
        judgement: how to judge.
    """
    found = [
        _Compared(spec, signature, evidence, candidate, judgement)
        for spec in (signature.outputs if evidence.cases else ())
    ]
    problems = [item.structure or item.problem() or item.lost_digits() for item in found]
    reasons = [problem for problem in problems if problem]
    diffs = [item.diff for item in found if not item.structure]
    if not reasons and not any(diff.elements for diff in diffs):
        return unverified("there was nothing to compare")
    silent = _silent(found, signature)
    if reasons:
        verdict, reason = Verdict.FAILED, "; ".join(reasons)
    elif silent:
        verdict, reason = Verdict.INCONCLUSIVE, _inconclusive(silent)
    else:
        verdict, reason = Verdict.PASSED, ""
    by_noise = bool(evidence.noise) and not judgement.explicit and not judgement.quantized
    fixed = not by_noise and not judgement.quantized
    return ParityReport(
        verdict=verdict,
        reference=judgement.reference,
        runtime=judgement.runtime,
        tolerance=judgement.tolerance if fixed else None,
        noise_limit=judgement.noise_limit if by_noise else None,
        rms_limit=judgement.rms_limit if judgement.quantized else None,
        cases=len(evidence.cases),
        rows=sum(_rows(case) for case in evidence.outputs),
        outputs=tuple(diffs),
        reason=reason,
    )


def _silent(found: Sequence[_Compared], signature: Signature) -> list[str]:
    """Outputs whose answers cannot tell right from wrong.

    A label follows from scores: where those tell, it need not.
    """
    quiet = [item.spec for item in found if not item.structure and not item.tells()]
    scores = [spec.name for spec in signature.outputs if spec.meaning in _SCORES]
    if set(scores) - {spec.name for spec in quiet}:
        quiet = [spec for spec in quiet if spec.meaning is not Meaning.LABEL]
    return [spec.name for spec in quiet]


def _inconclusive(names: Sequence[str]) -> str:
    listing = ", ".join(f"'{name}'" for name in names)
    return (
        f"the reference's output {listing} hardly depends on these inputs (constant or saturated), "
        "so that a wrong artifact would pass too: give typical inputs with --data"
    )


def _rows(case: Mapping[str, Array]) -> int:
    sizes = [array.shape[0] if array.ndim else 1 for array in case.values()]
    return max(sizes, default=0)


class _Compared:
    """One output over all cases.

    Attributes:
        spec: the output.
        structure: what is wrong with its names, dtypes or shapes; then nothing else is known.
        diff: the figures.
    """

    def __init__(
        self,
        spec: TensorSpec,
        signature: Signature,
        evidence: Evidence,
        candidate: Sequence[Case],
        judgement: Judgement,
    ) -> None:
        self.spec = spec
        self._judgement = judgement
        self._kinds = evidence.kinds_of_cases
        self.structure = _structure(spec, evidence.outputs, candidate)
        if self.structure:
            return
        self._elements = [
            Elements(want[spec.name], have[spec.name], noise)
            for want, have, noise in zip(
                evidence.outputs, candidate, _noise_of(spec, evidence), strict=True
            )
        ]
        scale = max((item.scale for item in self._elements), default=0.0)
        self._allowed = [allowance(item, scale, judgement) for item in self._elements]
        self._wrong_in: list[str] = []
        self._choices = 0
        if spec.dtype.is_float:
            self.diff = self._real(scale)
        else:
            self.diff = self._exact(signature, evidence.outputs)

    def _real(self, scale: float) -> TensorDiff:
        items = self._elements
        errors = joined([item.error for item in items])
        deviation = spread(items, scale)
        wrong = [
            int(np.count_nonzero(~(item.error <= allowed)))
            for item, allowed in zip(items, self._allowed, strict=True)
        ]
        self._note_kinds(wrong)
        counted = not self._judgement.quantized  # then single elements are not what is judged
        finite = errors[np.isfinite(errors)]
        typical = rms(finite)
        worst = float(errors.max(initial=0.0))
        mean = float(errors.mean()) if errors.size else 0.0
        choices = [
            decisions(item, self._gap(item, allowed))
            for item, allowed in zip(items, self._allowed, strict=True)
        ]
        self._choices = sum(item.rows for item in choices)
        return TensorDiff(
            name=self.spec.name,
            max_abs=rounded(worst),
            max_rel=rounded(ratio(worst, scale)),
            mean_abs=rounded(mean),
            mean_rel=rounded(ratio(mean, scale)),
            rms_rel=rounded(ratio(typical, deviation or scale)),
            max_noise=self._largest_noise(),
            max_ulp=rounded(max((item.ulp() for item in items), default=0.0)),
            cosine=cosine(items, scale),
            elements=int(errors.size),
            mismatches=sum(wrong) if counted else 0,
            ties=sum(item.ties for item in choices),
            flips=sum(item.flips for item in choices),
            top_flips=sum(item.top_flips for item in choices),
            sign_flips=sum(
                item.sign_flips(self._gap(item, allowed))
                for item, allowed in zip(items, self._allowed, strict=True)
            ),
            thresholds=self._on_thresholds() if counted else 0,
        )

    def _on_thresholds(self) -> int:
        if any(item.noise is None for item in self._elements) or self._judgement.explicit:
            return 0
        every = joined(self._allowed)
        usual = float(np.median(every)) if every.size else 0.0
        pairs = zip(self._elements, self._allowed, strict=True)
        return sum(item.on_thresholds(allowed, usual) for item, allowed in pairs)

    def _gap(self, item: Elements, allowed: Array) -> Array:
        """How close to its alternative a decision is open."""
        if not self._judgement.quantized:
            return allowed
        deviation = spread([item], item.scale) or item.scale
        return np.full(item.want.shape, self._judgement.rms_limit * deviation)

    def _largest_noise(self) -> float | None:
        if not self._elements or any(item.noise is None for item in self._elements):
            return None
        return rounded(max(item.over_noise() for item in self._elements))

    def _exact(self, signature: Signature, outputs: Sequence[Case]) -> TensorDiff:
        wrong, ties, distances = [], 0, []
        for item, answers in zip(self._elements, outputs, strict=True):
            differs = np.asarray(item.want != item.have, bool)
            if self.spec.dtype.is_integer:
                wide = item.want.astype(np.float64), item.have.astype(np.float64)
                distances.append(np.abs(wide[0] - wide[1]).ravel())
            open_to_both = self._undecided(item, signature, answers) if differs.any() else None
            if open_to_both is not None and open_to_both.shape == differs.shape:
                ties += int(np.count_nonzero(differs & open_to_both))
                differs = differs & ~open_to_both
            wrong.append(int(np.count_nonzero(differs)))
        self._note_kinds(wrong)
        elements = sum(item.want.size for item in self._elements)
        distance = joined(distances)
        return TensorDiff(
            name=self.spec.name,
            max_abs=rounded(float(distance.max(initial=0.0))),
            max_rel=rounded(sum(wrong) / elements if elements else 0.0),
            mean_abs=rounded(float(distance.sum()) / elements if elements else 0.0),
            rms_rel=0.0,
            elements=elements,
            mismatches=sum(wrong),
            ties=ties,
            flips=sum(wrong) if self.spec.meaning is Meaning.LABEL else 0,
        )

    def _undecided(self, item: Elements, signature: Signature, answers: Case) -> Array | None:
        """Elements that the reference itself does not decide; None if that cannot be told."""
        moved = None if item.noise is None else ~np.isfinite(item.noise)
        if self._judgement.quantized or self.spec.meaning is not Meaning.LABEL:
            return moved
        tied = _tied_rows(signature, answers, self._judgement.tolerance)
        if tied is None or tied.shape != item.want.shape:
            return moved
        return tied if moved is None else tied | moved

    def _note_kinds(self, wrong: Sequence[int]) -> None:
        kinds = [kind for kind, count in zip(self._kinds, wrong, strict=True) if count]
        self._wrong_in = list(dict.fromkeys(kinds))

    # --- verdicts ---------------------------------------------------------------------

    def problem(self) -> str:
        """What is wrong with the numbers; empty if nothing is."""
        diff, judgement, name = self.diff, self._judgement, self.spec.name
        if judgement.quantized:
            return self._lost_signal()
        if not diff.mismatches:
            return ""
        if not self.spec.dtype.is_float:
            return (
                f"output '{name}': {diff.mismatches} of {diff.elements} elements are not equal"
                + self._where()
            )
        limit = (
            f"{judgement.noise_limit:.3g} times the noise floor (max {diff.max_noise:.3g} times"
            if diff.max_noise is not None and not judgement.explicit
            else f"rtol {judgement.tolerance.rtol:g}, atol {judgement.tolerance.atol:g} of scale ("
        )
        return (
            f"output '{name}': {diff.mismatches} of {diff.elements} elements differ beyond {limit}"
            + (", " if limit[-1] != "(" else "")
            + f"max abs {diff.max_abs:.3g}, max rel {diff.max_rel:.3g})"
            + ("" if np.isfinite(diff.max_abs) else "; NaN or infinity stands on one side only")
            + self._where()
        )

    def _where(self) -> str:
        """The kinds of feeds in which it went wrong, if typical ones are not among them."""
        if not self._wrong_in or "" in self._wrong_in:
            return ""
        return f", only for inputs that are: {', '.join(self._wrong_in)}"

    def _lost_signal(self) -> str:
        diff, spec = self.diff, self.spec
        if spec.dtype.is_float and not diff.rms_rel <= self._judgement.rms_limit:
            return (
                f"output '{spec.name}' has an error of {diff.rms_rel:.2g} of its standard "
                f"deviation (limit {self._judgement.rms_limit})"
            )
        if spec.dtype.is_float and not np.isfinite(diff.max_abs):
            return f"output '{spec.name}' has NaN or infinity where the reference has not"
        if spec.dtype.is_float and diff.flips > QUANTIZED_FLIP_LIMIT * self._choices:
            return (
                f"output '{spec.name}': {diff.flips} of {self._choices} decisions changed that "
                f"were clear (limit {QUANTIZED_FLIP_LIMIT:.0%})"
            )
        return ""

    def lost_digits(self) -> str:
        """Why float32 cannot hold the model: its last bits decide on the answers; else empty."""
        if self._judgement.quantized or self._judgement.explicit or not self._drowned():
            return ""
        return (
            f"output '{self.spec.name}' changes with the last digits of float32 as much as from "
            "one input to another: the model needs more digits than its artifacts are given"
        )

    def _drowned(self) -> bool:
        """Whether the noise floor is as high as the answers differ, and those do differ."""
        typical = [item for item, kind in zip(self._elements, self._kinds, strict=True) if not kind]
        if any(item.noise is None for item in typical):
            return False
        floors = [(item.want, item.noise) for item in typical if item.noise is not None]
        groups = [group for group in _rows_by_shape(floors) if len(group[0]) > 1]
        if self.spec.dtype.is_float:
            return any(
                _VARYING * np.abs(want[np.isfinite(want)]).max(initial=0.0)
                < _spread_of(want)
                < rms(noise)
                for want, noise in groups
            )
        return any(bool((~np.isfinite(noise)).mean() > 0.5) for _, noise in groups)

    def tells(self) -> bool:
        """Whether the reference's answers to typical inputs tell right from wrong."""
        typical = [
            (item.want, self._unnoticed(item, allowed))
            for item, allowed, kind in zip(self._elements, self._allowed, self._kinds, strict=True)
            if not kind
        ]
        # One row has nothing to differ from.
        groups = [group for group in _rows_by_shape(typical) if len(group[0]) > 1]
        if not groups:
            return True
        if not self.spec.dtype.is_float:
            return any((want != want[:1]).any() for want, _ in groups)
        return any(_spread_of(want) > _TELLING * rms(allowed) for want, allowed in groups)

    def _unnoticed(self, item: Elements, allowed: Array) -> Array:
        """How far an element may move unnoticed; of 8 bits, only what is nothing at all."""
        if self._judgement.quantized or not self.spec.dtype.is_float:
            return np.full(item.want.shape, self._judgement.tolerance.atol * item.scale)
        return allowed


def allowance(item: Elements, scale: float, judgement: Judgement) -> Array:
    """How far each element of an output may be from the reference's, in the output's units."""
    if item.noise is not None and not judgement.explicit:
        return item.noise * judgement.noise_limit
    return judgement.tolerance.atol * scale + judgement.tolerance.rtol * np.abs(item.finite)


def _noise_of(spec: TensorSpec, evidence: Evidence) -> Sequence[Array | None]:
    if not evidence.noise:
        return [None] * len(evidence.cases)
    return [case.get(spec.name) for case in evidence.noise]


def _structure(spec: TensorSpec, reference: Sequence[Case], candidate: Sequence[Case]) -> str:
    for index, (want, have) in enumerate(zip(reference, candidate, strict=True)):
        if spec.name not in have:
            return f"output '{spec.name}' is missing"
        if want[spec.name].shape != have[spec.name].shape:
            return (
                f"output '{spec.name}' has shape {list(have[spec.name].shape)} where the "
                f"reference has {list(want[spec.name].shape)} (case {index})"
            )
        if have[spec.name].dtype.kind not in _kinds(spec.dtype):
            return f"output '{spec.name}' is {have[spec.name].dtype}, not {spec.dtype}"
    return ""


def _kinds(dtype: DType) -> str:
    """NumPy's kinds of arrays that hold a dtype; bfloat16 is a "void" to NumPy."""
    if dtype.is_float:
        return "fV"
    if dtype.is_integer:
        return "iu"
    return "b" if dtype is DType.BOOL else "OUST"


def _tied_rows(signature: Signature, want: Case, tolerance: Tolerance) -> Array | None:
    """Rows whose label was decided by less than the tolerance; None if that cannot be told."""
    for other in signature.outputs:
        scores = want.get(other.name)
        if other.meaning not in _SCORES or scores is None:
            continue
        values = scores.astype(np.float64)
        gap = tolerance.atol * float(np.abs(values).max(initial=0.0))
        if values.ndim == 1 or values.shape[-1] == 1:
            tied: Array = np.abs(values.reshape(len(values))) <= gap
            return tied
        best = np.sort(values, axis=-1)
        tied = best[..., -1] - best[..., -2] <= gap
        return tied
    return None


def _rows_by_shape(pairs: Sequence[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    """Rows along the first axis, of all cases in which a row has the same shape."""
    groups: dict[tuple[int, ...], list[tuple[Array, Array]]] = {}
    for want, allowed in pairs:
        if want.ndim:
            groups.setdefault(want.shape[1:], []).append((want, allowed))
    return [
        (np.concatenate([a for a, _ in group]), np.concatenate([b for _, b in group]))
        for group in groups.values()
    ]


def _spread_of(rows: Array) -> float:
    """Root mean square of how far rows are from their mean, or infinite for NaN among them."""
    finite = np.where(np.isfinite(rows), rows, 0.0)
    if not np.array_equal(np.isfinite(rows), np.isfinite(rows[:1]).repeat(len(rows), 0)):
        return float("inf")
    return rms(finite - finite.mean(0))
