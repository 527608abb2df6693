"""The verb inspect: what a file, directory, package or Python reference holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from modelpack import archive
from modelpack.artifact import Encoding, ModelRef, measure
from modelpack.manifest import Manifest, find, read
from modelpack.sources import Request, locate, open_model, scan, workspace
from modelpack.steps import Description
from modelpack.worker import Limits, WorkerPool


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a model.

    Attributes:
        model: file name or Python reference.
        encoding: how it is written.
        format: its node in the conversion graph; empty for directories and archives.
        size: bytes; 0 for a Python reference.
        digest: see `modelpack.artifact.Artifact.digest`; empty for a Python reference.
        manifest: of a modelpack directory, an archive, or the one beside an artifact.
        description: of a single model that could be loaded.
        findings: what loading would run, when it was not loaded for that reason.
    """

    model: str
    encoding: Encoding
    format: str = ""
    size: int = 0
    digest: str = ""
    manifest: Manifest | None = None
    description: Description | None = None
    findings: tuple[str, ...] = field(default=())


def inspect(request: Request, limits: Limits | None = None) -> Inspection:
    """Describe a model. A file that would run code is described without loading it.

    Raises:
        InputError: it cannot be read or is no model.
        ManifestError: its manifest cannot be read.
    """
    ref = locate(request)
    if ref.encoding in {Encoding.PYTHON, Encoding.SERVER}:
        with workspace(limits or Limits()) as pool:
            opened = open_model(pool, ref)
        return Inspection(
            ref.display if ref.encoding is Encoding.SERVER else ref.location.rpartition("/")[2],
            ref.encoding,
            opened.ref.format,
            description=opened.description,
        )
    if ref.encoding is Encoding.MODELPACK:
        digest, size = measure(ref.path)
        return Inspection(ref.path.name, ref.encoding, "", size, digest, read(ref.path))
    with workspace(limits or Limits()) as pool:
        if ref.encoding is Encoding.ARCHIVE:
            return _archive(pool, ref)
        return _model(pool, ref)


def _archive(pool: WorkerPool, ref: ModelRef) -> Inspection:
    root = pool.scratch / "package"
    archive.extract(ref.path, root)
    digest, size = measure(ref.path)
    return Inspection(ref.path.name, ref.encoding, "", size, digest, read(root))


def _model(pool: WorkerPool, ref: ModelRef) -> Inspection:
    digest, size = measure(ref.path)
    known = find(ref.path)
    manifest = None
    if known:
        own = tuple(known[0].signature(item.signature) for item in known[1])
        manifest = replace(known[0], signatures=own, artifacts=known[1])
    findings = () if ref.trusted else tuple(scan(pool, ref))
    description = None if findings else open_model(pool, ref).description
    return Inspection(
        Path(ref.location).name,
        ref.encoding,
        ref.format,
        size,
        digest,
        manifest,
        description,
        findings,
    )
