"""Golden samples: feeds and the source's own outputs, kept beside the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelpack.artifact import Golden, digest_file
from modelpack.errors import ManifestError
from modelpack.samples import Case, read_cases, write_cases
from modelpack.signature import Signature

# How many rows of the user's data are kept: enough to tell, small enough to ship.
GOLDEN_ROWS = 32

_INPUTS, _OUTPUTS = "inputs/", "outputs/"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What artifacts are compared with: feeds, and the reference's outputs for them.

    Attributes:
        cases: feeds by input name.
        outputs: for each feed, the reference's outputs by output name.
        origin: ``generated`` from the signature, or ``data`` that the user gave.
        reference: what gave the outputs, in words.
    """

    cases: Sequence[Case]
    outputs: Sequence[Case]
    origin: str
    reference: str

    def __add__(self, other: Evidence) -> Evidence:
        """Both, one after the other, in the name of the first."""
        return replace(
            self,
            cases=[*self.cases, *other.cases],
            outputs=[*self.outputs, *other.outputs],
        )

    def head(self, rows: int) -> Evidence:
        """The first cases with at most this many rows together, the last one cut to fit."""
        cases: list[Case] = []
        outputs: list[Case] = []
        left = rows
        for case, answer in zip(self.cases, self.outputs, strict=True):
            size = len(next(iter(case.values())))
            if left <= 0:
                break
            cases.append({name: array[:left] for name, array in case.items()})
            outputs.append({name: array[:left] for name, array in answer.items()})
            left -= size
        return replace(self, cases=cases, outputs=outputs)

    def fitted_to(self, signature: Signature, fixed_dims: Mapping[str, int]) -> Evidence:
        """The part that an artifact of this signature with these dims fixed can be fed.

        Where the batch is fixed, feeds are cut into batches of that size; a feed that fits
        no other fixed dimension is left out. What is left may be empty.
        """
        pairs = list(zip(self.cases, self.outputs, strict=True))
        batch = _batch_dim(signature)
        if batch in fixed_dims:
            size = fixed_dims[batch]
            pairs = [piece for pair in pairs for piece in _pieces(pair, size)]
        bound = signature.with_dims(fixed_dims)
        chosen = [pair for pair in pairs if _fits(bound, pair[0])]
        return replace(
            self, cases=[case for case, _ in chosen], outputs=[answer for _, answer in chosen]
        )


def _batch_dim(signature: Signature) -> str:
    """The dynamic dimension that is first in every input and output; empty if there is none."""
    specs = (*signature.inputs, *signature.outputs)
    first = {spec.shape[0] if spec.shape else None for spec in specs}
    only = first.pop() if len(first) == 1 else None
    return only if isinstance(only, str) else ""


def _pieces(pair: tuple[Case, Case], size: int) -> Iterator[tuple[Case, Case]]:
    rows = len(next(iter(pair[0].values())))
    for begin in range(0, rows - size + 1, size):
        case, answer = (
            {name: array[begin : begin + size] for name, array in side.items()} for side in pair
        )
        yield case, answer


def write(file: Path, name: str, evidence: Evidence, seed: int) -> Golden:
    """Write the evidence to ``file`` and return the manifest entry that calls it ``name``."""
    members = [
        {f"{_INPUTS}{key}": array for key, array in feed.items()}
        | {f"{_OUTPUTS}{key}": array for key, array in answer.items()}
        for feed, answer in zip(evidence.cases, evidence.outputs, strict=True)
    ]
    write_cases(file, members)
    return Golden(name, digest_file(file), len(members), evidence.origin, seed)


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
    return Evidence(
        cases=[_part(member, _INPUTS) for member in members],
        outputs=[_part(member, _OUTPUTS) for member in members],
        origin=entry.origin,
        reference="golden samples",
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
