"""Golden samples: feeds and the source's own outputs, kept beside the manifest."""

from __future__ import annotations

from collections.abc import Sequence
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

    def accepted_by(self, signature: Signature) -> Evidence:
        """The part whose feeds fit the static dimensions of a signature; may be empty."""
        chosen = [index for index, case in enumerate(self.cases) if _fits(signature, case)]
        return replace(
            self,
            cases=[self.cases[index] for index in chosen],
            outputs=[self.outputs[index] for index in chosen],
        )


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
