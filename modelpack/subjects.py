"""What is validated and what it is compared with: files, packages, sources and servers, opened."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modelpack import archive
from modelpack.artifact import Artifact, Encoding, ModelRef, encoding_of
from modelpack.errors import InputError
from modelpack.golden import Evidence
from modelpack.manifest import Manifest, find, read, verify
from modelpack.parity import Verdict
from modelpack.samples import Case
from modelpack.signature import (
    DEFAULT_SIGNATURE,
    EVERY_SIGNATURE,
    Signature,
    TensorSpec,
    differences,
    for_inputs,
    unknown_signature,
)
from modelpack.sources import WITH_NAMES, Opened, Request, locate, open_model
from modelpack.worker import WorkerPool

log = logging.getLogger(__name__)

_WITHOUT_FILE = {Encoding.PYTHON, Encoding.SERVER}

# Sources that do not say what their inputs are; a reference beside them does.
_WITHOUT_SIGNATURE = {Encoding.PYTHON, Encoding.TORCH_SAVE, Encoding.TORCHSCRIPT}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to validate, with what a manifest promises of it, if one does."""

    ref: ModelRef
    root: Path
    manifest: Manifest | None = None
    artifact: Artifact | None = None


def subjects(pool: WorkerPool, request: Request, only: str = "") -> list[Subject]:
    """The models that a request means: one, or the artifacts of a package.

    Of a package those of the signature that the request names, or all. ``only`` names one too,
    but for what was made of a model without names.

    Raises:
        ManifestError: the manifest or a digest does not hold.
        InputError: there is no such model, or it has no such signature.
    """
    ref = locate(request)
    if ref.encoding is Encoding.ARCHIVE:
        return _packed(_unpacked(pool, ref, "package"), request, only)
    if ref.encoding is Encoding.MODELPACK:
        return _packed(ref.path, request, only)
    return _of_file(ref, request, only)


def references(pool: WorkerPool, request: Request, found: Sequence[Subject]) -> list[Opened]:
    """Open what to compare each model with: with the signature that the model implements.

    Raises:
        As `reference`.
    """
    names = [request.signature_name or _implemented(item) for item in found]
    if len(set(names)) == 1 and not request.signature_name:
        names = [_name_in(pool, request, found[0])] * len(names)
    opened = {
        name: reference(pool, replace(request, signature_name=name))
        for name in dict.fromkeys(names)
    }
    return [opened[name] for name in names]


def _implemented(subject: Subject) -> str:
    """The signature that a model implements by its manifest; empty where that has no name."""
    manifest, artifact = subject.manifest, subject.artifact
    if manifest is None or artifact is None or _is_nameless(manifest):
        return ""
    return artifact.signature


def _is_nameless(manifest: Manifest) -> bool:
    """Whether all it has is ``serving_default``, as what models without names have is called."""
    return [signature.name for signature in manifest.signatures] == [DEFAULT_SIGNATURE]


def _name_in(pool: WorkerPool, request: Request, subject: Subject) -> str:
    """What a model's signature is called in its reference; empty for the usual one there.

    It is asked for where the reference has several, if they include it: the signature of a
    model that was converted alone may have another name there.
    """
    name, manifest = _implemented(subject), subject.manifest
    held = _held(pool, request) if name else []
    one_of_several = manifest is not None and len(manifest.signatures) > 1
    return name if len(held) > 1 and (name in held or one_of_several) else ""


def _held(pool: WorkerPool, request: Request) -> list[str]:
    """The names of a reference's signatures; none where its format has no names."""
    ref = locate(request)
    if ref.encoding is Encoding.ARCHIVE:
        manifest = read(_unpacked(pool, ref, "reference"))
    elif ref.encoding is Encoding.MODELPACK:
        manifest = read(ref.path)
    elif ref.encoding not in _WITHOUT_FILE and (known := find(ref.path)) is not None:
        manifest = known[0]
    elif ref.format in WITH_NAMES:
        every = open_model(pool, replace(ref, signature_name=EVERY_SIGNATURE)).description
        return [item.name for item in (every.signature, *every.other_signatures)]
    else:
        return []
    return [item.name for item in manifest.signatures]


def reference(pool: WorkerPool, request: Request) -> Opened:
    """Open what to compare with; of a package, the float artifact nearest to its source.

    Raises:
        ManifestError: its manifest or a digest does not hold.
        InputError: it cannot be used, or has no such signature or artifact.
    """
    ref = locate(request)
    if ref.encoding is Encoding.ARCHIVE:
        subject = _nearest(_packed(_unpacked(pool, ref, "reference"), request), ref)
    elif ref.encoding is Encoding.MODELPACK:
        subject = _nearest(_packed(ref.path, request), ref)
    else:
        subject = _of_file(ref, request)[0]
    opened, problems = opened_subject(pool, subject)
    if problems:
        raise InputError(f"the signature of the reference does not hold: {'; '.join(problems)}")
    return opened


def float_beside(subject: Subject) -> Subject | None:
    """Another artifact of the same manifest, not quantized, that agreed with its source.

    It can tell where an artifact went wrong that has no other reference: of the same format
    if there is one, or else the one nearest to the source.

    Raises:
        ManifestError: it is not the recorded one.
    """
    manifest, own = subject.manifest, subject.artifact
    if manifest is None or own is None:
        return None
    others = [
        item
        for item in manifest.artifacts
        if item.path != own.path
        and item.signature == own.signature
        and item.quantization is None
        and item.parity.verdict is Verdict.PASSED
    ]
    if not others:
        return None
    chosen = min(others, key=lambda i: (i.format != own.format, len(i.steps), i.path))
    verify(replace(manifest, artifacts=(chosen,)), subject.root)
    return _promised(manifest, chosen, subject.root, Request(chosen.path))


def is_code(model: str) -> bool:
    """Whether a model is a Python reference, which weights can be given to."""
    return bool(model) and locate(Request(model)).encoding is Encoding.PYTHON


def opened_subject(
    pool: WorkerPool, subject: Subject, against: Opened | None = None
) -> tuple[Opened, list[str]]:
    """Open a model, under the manifest's signature or else under the reference's names.

    Returns:
        The model, and where it breaks what the manifest promises.
    """
    ref = subject.ref
    if against is not None and ref.encoding in _WITHOUT_SIGNATURE and not ref.inputs:
        ref = replace(ref, inputs=_signature(against).inputs)
    opened = _opened_like(pool, ref, against)
    found = _signature(opened)
    if ref.signature is not None:
        settled = replace(opened.ref, signature=ref.signature)
        return replace(opened, ref=settled), differences(ref.signature, found)
    if against is None:
        return opened, []
    wanted = _signature(against)
    if _names(wanted) != _names(found):
        log.warning("%s names its tensors otherwise: binding them by position", ref.display)
        found = _renamed(found, wanted, ref.display)
    else:
        found = _in_the_words_of(found, wanted)
    return replace(opened, ref=replace(opened.ref, signature=found)), []


def _opened_like(pool: WorkerPool, ref: ModelRef, against: Opened | None) -> Opened:
    """A model; one of several signatures with that of the reference's name, if it has it."""
    if against is None or ref.signature is not None or ref.format not in WITH_NAMES:
        return open_model(pool, ref)
    usual = open_model(pool, replace(ref, signature_name=EVERY_SIGNATURE))
    wanted = _signature(against).name
    if wanted not in {item.name for item in usual.description.other_signatures}:
        return usual
    return open_model(pool, replace(ref, signature_name=wanted))


def in_terms_of(other: Opened, signature: Signature) -> Opened:
    """A reference under the names of a candidate, described by what both of them take.

    Names are bound by position where they differ.
    """
    own = _signature(other)
    ref, ranges, rows = other.ref, other.description.ranges, other.description.rare_rows
    if _names(own) != _names(signature):
        log.warning("%s names its tensors otherwise: binding by position", ref.display)
        ranges, rows = for_inputs(ranges, own, signature), for_inputs(rows, own, signature)
        own = _renamed(own, signature, ref.display)
        ref = replace(ref, signature=own)
    common = signature.with_dims(_fixed(signature, own))
    return Opened(ref, replace(other.description, ranges=ranges, rare_rows=rows, signature=common))


def exchangeable(opened: Opened, evidence: Evidence) -> Evidence:
    """The part of the evidence whose numbers can be exchanged with the model."""
    if not opened.description.finite_only:
        return evidence
    pairs = zip(evidence.cases, evidence.outputs, strict=True)
    kept = [
        index for index, (case, answer) in enumerate(pairs) if _finite(case) and _finite(answer)
    ]
    if len(kept) < len(evidence.cases):
        left = len(evidence.cases) - len(kept)
        log.warning(
            "JSON has no NaN and no infinity: %d of %d cases are left out",
            left,
            len(evidence.cases),
        )
    return evidence.chosen(kept)


def _finite(case: Case) -> bool:
    arrays = (array for array in case.values() if array.dtype.kind in "fV")
    return all(np.isfinite(array.astype(np.float64)).all() for array in arrays)


def size_of(ref: ModelRef) -> int:
    """Bytes of a model's files; 0 where it has none."""
    if ref.encoding in _WITHOUT_FILE:
        return 0
    return sum(file.stat().st_size for file in [ref.path, *ref.path.rglob("*")] if file.is_file())


# --- packages ----------------------------------------------------------------------------


def _unpacked(pool: WorkerPool, ref: ModelRef, name: str) -> Path:
    root = pool.scratch / name
    if not root.exists():
        archive.extract(ref.path, root)
    return root


def _packed(root: Path, request: Request, only: str = "") -> list[Subject]:
    manifest = read(root)
    verify(manifest, root)
    if not manifest.artifacts:
        raise InputError(f"the manifest of '{manifest.name}' lists no artifacts")
    name = _asked(manifest, request, only)
    wanted = manifest.named_signature(name).name
    chosen = [item for item in manifest.artifacts if not name or item.signature == wanted]
    if not chosen:
        raise InputError(f"no artifact of '{manifest.name}' implements the signature '{wanted}'")
    return [_promised(manifest, artifact, root, request) for artifact in chosen]


def _asked(manifest: Manifest, request: Request, only: str) -> str:
    """The name that the user says; not ``only``, the reference's, where there are no names."""
    return request.signature_name or ("" if _is_nameless(manifest) else only)


def _of_file(ref: ModelRef, request: Request, only: str = "") -> list[Subject]:
    """The models in a file: one for each signature that a manifest lists, or the one asked for."""
    if ref.encoding in _WITHOUT_FILE:
        return [Subject(ref, Path())]
    known = find(ref.path)
    if known is None:
        return [Subject(ref, ref.path.parent)]
    manifest, artifacts = known
    name = _asked(manifest, request, only)
    chosen = [item for item in artifacts if name in {"", item.signature}]
    if not chosen:
        raise _without(ref, [item.signature for item in artifacts], name)
    verify(replace(manifest, artifacts=artifacts), ref.path.parent)
    return [_promised(manifest, item, ref.path.parent, request) for item in chosen]


def _without(ref: ModelRef, held: list[str], name: str) -> InputError:
    """What is wrong with a file that has other signatures than the one that is asked for."""
    if len(held) > 1:
        return unknown_signature(ref.display, name, held)
    return InputError(f"'{ref.display}' implements the signature '{held[0]}', not '{name}'")


def _promised(manifest: Manifest, artifact: Artifact, root: Path, request: Request) -> Subject:
    ref = ModelRef(
        artifact.format,
        encoding_of(artifact.format),
        str((root / artifact.path).absolute()),
        trusted=request.trust,
        signature=manifest.signature_of(artifact),
        channel_last=artifact.channel_last,
        runtime=request.runtime,
        signature_name=manifest.name_in_file(artifact),
    )
    return Subject(ref, root, manifest, artifact)


def _nearest(found: list[Subject], ref: ModelRef) -> Subject:
    """The artifact that the fewest steps have made, of the first signature among those found."""
    steps = {
        (len(item.artifact.steps), item.artifact.path): item
        for item in found
        if item.artifact is not None
        and item.manifest is not None
        and item.artifact.signature == _first_signature(item.manifest, found)
        and item.artifact.quantization is None
        and item.artifact.parity.verdict is not Verdict.FAILED
    }
    if not steps:
        raise InputError(
            f"'{ref.display}' holds no float artifact that agrees with its source",
            hint="name one of its artifacts as the reference",
        )
    return steps[min(steps)]


def _first_signature(manifest: Manifest, found: list[Subject]) -> str:
    held = {item.artifact.signature for item in found if item.artifact is not None}
    return next(item.name for item in manifest.signatures if item.name in held)


# --- signatures --------------------------------------------------------------------------


def _signature(opened: Opened) -> Signature:
    assert opened.ref.signature is not None
    return opened.ref.signature


def _names(signature: Signature) -> list[set[str]]:
    return [{spec.name for spec in side} for side in (signature.inputs, signature.outputs)]


def _renamed(found: Signature, wanted: Signature, what: str) -> Signature:
    sides = []
    for have, want in ((found.inputs, wanted.inputs), (found.outputs, wanted.outputs)):
        if len(have) != len(want):
            raise InputError(f"{what} has another signature, which does not fit: {found}")
        sides.append(tuple(map(_named_like, have, want)))
    return replace(found, inputs=sides[0], outputs=sides[1])


def _in_the_words_of(found: Signature, wanted: Signature) -> Signature:
    """The signature with what another of the same names says of its values."""
    inputs, outputs = (
        tuple(_named_like(spec, known[spec.name]) for spec in side)
        for side, known in (
            (found.inputs, {spec.name: spec for spec in wanted.inputs}),
            (found.outputs, {spec.name: spec for spec in wanted.outputs}),
        )
    )
    return replace(found, inputs=inputs, outputs=outputs)


def _named_like(one: TensorSpec, other: TensorSpec) -> TensorSpec:
    return replace(one, name=other.name, meaning=other.meaning, classes=other.classes)


def _fixed(signature: Signature, own: Signature) -> dict[str, int]:
    """The dynamic dims of a signature that are fixed in another one of the same names."""
    others = {spec.name: spec.shape or () for spec in own.inputs}
    return {
        dim: size
        for spec in signature.inputs
        for dim, size in zip(spec.shape or (), others[spec.name], strict=False)
        if isinstance(dim, str) and isinstance(size, int)
    }
