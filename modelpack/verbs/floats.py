"""What is quantized: float files, each by its signatures, with what a manifest says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from modelpack.artifact import Artifact, Encoding, Golden, ModelRef, encoding_of, measure
from modelpack.errors import InputError, QuantizationError
from modelpack.manifest import Manifest, find, read, refuse_failed, verify
from modelpack.routes import formats
from modelpack.sources import Opened, Request, locate, open_model
from modelpack.worker import WorkerPool


@dataclass(frozen=True, slots=True)
class Subject:
    """A float artifact to quantize, with the manifest that speaks of it, if any."""

    opened: Opened
    artifact: Artifact | None
    manifest: Manifest | None
    root: Path

    @property
    def golden(self) -> Golden | None:
        """The golden samples of the artifact."""
        if self.manifest is None or self.artifact is None:
            return None
        return self.manifest.golden_of(self.artifact)


FloatFile: TypeAlias = list[Subject]
"""The signatures of a float file, of which there is mostly one."""


def quantizable() -> tuple[str, ...]:
    """Names of the formats that can be quantized."""
    return tuple(form.name for form in formats().values() if form.quantizer)


def float_files(pool: WorkerPool, model: str, asked: tuple[str, ...]) -> list[FloatFile]:
    """The files to quantize, each by its signatures: one, or those of a directory.

    Args:
        pool: the workers.
        model: an ``.onnx`` or ``.tflite`` file, or a modelpack directory of them.
        asked: formats to take from a directory; all that can be quantized when empty.

    Raises:
        InputError: there is nothing that can be quantized.
        QuantizationError: it is quantized already.
        ParityError: it disagrees with its source.
        ManifestError: it is not what the manifest recorded.
    """
    ref = locate(Request(model))
    if ref.encoding is Encoding.MODELPACK:
        return _files_in(pool, ref.path, asked)
    if ref.format not in quantizable():
        raise InputError(
            f"'{ref.display}' is {ref.format or ref.encoding}; only ONNX and TFLite artifacts "
            "can be quantized",
            hint="first modelpack convert it to onnx or tflite",
        )
    known = find(ref.path)
    if known is None:
        return [[Subject(item, None, None, ref.path.parent) for item in _each(pool, ref)]]
    manifest, artifacts = known
    return [[_subject(pool, manifest, item, ref.path.parent) for item in artifacts]]


def _each(pool: WorkerPool, ref: ModelRef) -> list[Opened]:
    """A file that no manifest describes, opened with each of its signatures."""
    first = open_model(pool, ref)
    others = first.description.other_signatures
    if not others:
        return [first]
    names = [first.description.signature.name, *(item.name for item in others)]
    return [open_model(pool, replace(ref, signature_name=name)) for name in names]


def _files_in(pool: WorkerPool, root: Path, asked: tuple[str, ...]) -> list[FloatFile]:
    manifest = read(root)
    verify(manifest, root)
    wanted = asked or quantizable()
    chosen = [
        item
        for item in manifest.artifacts
        if item.format in wanted and item.format in quantizable() and item.quantization is None
    ]
    if not chosen:
        raise InputError(
            f"'{root.name}' has no float {' or '.join(wanted)} artifact to quantize",
            hint=f"it has {', '.join(item.path for item in manifest.artifacts)}",
        )
    files: dict[str, list[Subject]] = {}
    for item in chosen:
        files.setdefault(item.path, []).append(_subject(pool, manifest, item, root))
    return list(files.values())


def _subject(pool: WorkerPool, manifest: Manifest, artifact: Artifact, root: Path) -> Subject:
    signature = manifest.signature_of(artifact)
    path = root / artifact.path
    refuse_failed(artifact)
    if artifact.quantization is not None:
        raise QuantizationError(f"{artifact.path} is already quantized")
    if measure(path, artifact.sidecars)[0] != artifact.digest:
        verify(replace(manifest, artifacts=(artifact,), golden=None), root)
    ref = ModelRef(
        artifact.format,
        encoding_of(artifact.format),
        str(path),
        signature=signature,
        channel_last=artifact.channel_last,
        signature_name=manifest.name_in_file(artifact),
    )
    opened = open_model(pool, ref)
    return Subject(replace(opened, ref=ref), artifact, manifest, root)
