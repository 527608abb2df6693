"""Golden samples: feeds and the source's own outputs, kept beside the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modelpack.artifact import Golden, digest_file
from modelpack.errors import ManifestError
from modelpack.samples import Case, batch_dim, read_cases, write_cases
from modelpack.signature import Signature

# How many rows of the user's data are kept: enough to tell, small enough to ship.
GOLDEN_ROWS = 32

_INPUTS, _OUTPUTS, _NOISE = "inputs/", "outputs/", "noise/"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What artifacts are compared with: feeds, and the reference's outputs for them.

    Attributes:
        cases: feeds by input name.
        outputs: for each feed, the reference's outputs by output name.
        origin: ``generated`` from the signature, or ``data`` that the user gave.
        reference: what gave the outputs, in words.
        noise: for each feed, the noise floor of each output (see `modelpack.judging.noise`); empty
            where it was not measured.
        kinds: for each feed, what is special about it; empty for typical values.
        arithmetic: dtype whose rounding the outputs have.
    """

    cases: Sequence[Case]
    outputs: Sequence[Case]
    origin: str
    reference: str
    noise: Sequence[Case] = ()
    kinds: Sequence[str] = ()
    arithmetic: str = "float32"

    def __add__(self, other: Evidence) -> Evidence:
        """Both, one after the other, in the name of the first."""
        known = bool(self.noise or not self.cases) and bool(other.noise or not other.cases)
        return replace(
            self,
            cases=[*self.cases, *other.cases],
            outputs=[*self.outputs, *other.outputs],
            noise=[*self.noise, *other.noise] if known else (),
            kinds=[*self.kinds_of_cases, *other.kinds_of_cases],
        )

    @property
    def kinds_of_cases(self) -> Sequence[str]:
        """``kinds``, for every feed."""
        return self.kinds or [""] * len(self.cases)

    def head(self, rows: int) -> Evidence:
        """The first cases with at most this many rows together, the last one cut to fit."""
        pairs: list[_Pair] = []
        left = rows
        for pair in self._pairs():
            if left <= 0:
                break
            pairs.append(pair.rows(slice(left)))
            left -= pair.size
        return self._of(pairs)

    def chosen(self, indices: Sequence[int]) -> Evidence:
        """Some of the cases, in the order given."""
        pairs = self._pairs()
        return self._of([pairs[index] for index in indices])

    def _pairs(self) -> list[_Pair]:
        noise: Sequence[Case | None] = self.noise or [None] * len(self.cases)
        parts = zip(self.cases, self.outputs, noise, self.kinds_of_cases, strict=True)
        return [_Pair(*part) for part in parts]

    def _of(self, pairs: Sequence[_Pair]) -> Evidence:
        return replace(
            self,
            cases=[pair.case for pair in pairs],
            outputs=[pair.answer for pair in pairs],
            noise=[pair.noise for pair in pairs if pair.noise is not None],
            kinds=[pair.kind for pair in pairs],
        )

    def fitted_to(self, signature: Signature, fixed_dims: Mapping[str, int]) -> Evidence:
        """The part that an artifact of this signature with these dims fixed can be fed.

        Where the batch is fixed, feeds are cut into batches of that size; a feed that fits
        no other fixed dimension is left out. What is left may be empty.
        """
        pairs = self._pairs()
        batch = batch_dim(signature)
        if batch in fixed_dims:
            size = fixed_dims[batch]
            pairs = [piece for pair in pairs for piece in pair.pieces(size)]
        bound = signature.with_dims(fixed_dims)
        return self._of([pair for pair in pairs if _fits(bound, pair.case)])


@dataclass(frozen=True, slots=True)
class _Pair:
    """One feed with the answers, and what else is known of it."""

    case: Case
    answer: Case
    noise: Case | None
    kind: str

    @property
    def size(self) -> int:
        """Rows of the feed: of its first array that has any."""
        return next((len(array) for array in self.case.values() if array.ndim), 1)

    def rows(self, part: slice) -> _Pair:
        case, answer = _rows(self.case, part), _rows(self.answer, part)
        noise = None if self.noise is None else _rows(self.noise, part)
        return _Pair(case, answer, noise, self.kind)

    def pieces(self, size: int) -> Iterator[_Pair]:
        for begin in range(0, self.size - size + 1, size):
            yield self.rows(slice(begin, begin + size))


def _rows(case: Case, part: slice) -> Case:
    """Some rows of each array; a scalar has none and stays."""
    return {name: array[part] if array.ndim else array for name, array in case.items()}


def write(file: Path, name: str, evidence: Evidence, seed: int) -> Golden:
    """Write the evidence to ``file`` and return the manifest entry that calls it ``name``."""
    members = [
        {f"{_INPUTS}{key}": array for key, array in feed.items()}
        | {f"{_OUTPUTS}{key}": array for key, array in answer.items()}
        for feed, answer in zip(evidence.cases, evidence.outputs, strict=True)
    ]
    for member, noise in zip(members, evidence.noise, strict=False):
        member |= {f"{_NOISE}{key}": array.astype(np.float32) for key, array in noise.items()}
    write_cases(file, members)
    return Golden(
        path=name,
        digest=digest_file(file),
        cases=len(members),
        origin=evidence.origin,
        seed=seed,
        arithmetic=evidence.arithmetic,
    )


def read(entry: Golden, root: Path, signature: Signature) -> Evidence:
    """Read the golden samples of a manifest in the directory ``root``.

    Raises:
        ManifestError: the file is not the recorded one, or lacks a tensor of the signature.
        InputError: it cannot be read.
    """
    file = root / entry.path
    if not file.is_file() or digest_file(file) != entry.digest:
        raise ManifestError(f"{entry.path} is missing or is not what the manifest recorded")
    specs = [replace(spec, name=_INPUTS + spec.name) for spec in signature.inputs]
    specs += [replace(spec, name=_OUTPUTS + spec.name) for spec in signature.outputs]
    members = read_cases(file, specs)
    for spec in specs:
        if any(spec.name not in member for member in members):
            raise ManifestError(f"{entry.path} has no '{spec.name}'")
    noise = [_part(member, _NOISE) for member in members]
    return Evidence(
        cases=[_part(member, _INPUTS) for member in members],
        outputs=[_part(member, _OUTPUTS) for member in members],
        origin=entry.origin,
        reference="golden samples",
        noise=noise if all(noise) else (),
        arithmetic=entry.arithmetic,
    )


def _part(member: Case, prefix: str) -> Case:
    return {
        name.removeprefix(prefix): array
        for name, array in member.items()
        if name.startswith(prefix)
    }


def _fits(signature: Signature, case: Case) -> bool:
    for spec in signature.inputs:
        shape = case[spec.name].shape
        if spec.shape is not None and any(
            isinstance(dim, int) and dim != size
            for dim, size in zip(spec.shape, shape, strict=False)
        ):
            return False
    return True
