"""Puts artifacts, golden samples and the manifest where the user asked, together.

An output is a directory with a `modelpack.yaml`, or one artifact file with its manifest
beside it as ``<file>.modelpack.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelpack.artifact import MANIFEST_NAME, Artifact, Golden
from modelpack.errors import InputError
from modelpack.manifest import Manifest, dump, read, side_path
from modelpack.output import locked, publish
from modelpack.routes import formats

_GOLDEN_NAME = "golden.npz"


def single_format(output: Path) -> str:
    """The format that an output path names by its suffix; empty for a directory."""
    for form in formats().values():
        if output.suffix and output.suffix.lower() in form.suffixes:
            return form.name
    return ""


def golden_name(output: Path) -> str:
    """The file name of the golden samples of an output."""
    return f"{output.name}.{_GOLDEN_NAME}" if single_format(output) else _GOLDEN_NAME


def label(signature: str) -> str:
    """What stands for a signature in the names of files."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", signature)


def labelled(name: str, mark: str) -> str:
    """A file name with a mark before its suffixes: ``model.decode.tflite``."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}.{mark}{dot}{suffix}"


def save(
    output: Path,
    manifest: Manifest,
    files: Mapping[str, Path],
    scratch: Path,
    given: Mapping[str, str] | None = None,
) -> Manifest:
    """Write files and their manifest to an output; a directory that has a manifest is added to.

    Args:
        output: the directory or file that the user named.
        manifest: lists the new artifacts, and golden samples if there are any.
        files: the new files and directories by their names beside the manifest.
        scratch: where the manifest is prepared.
        given: name and version as the user gave them, empty where not: then those of the
            directory that is added to stay.

    Returns:
        The manifest as written.

    Raises:
        InputError: the output cannot be written, or holds another model.
    """
    single = bool(single_format(output))
    root = output.parent if single else output
    with locked(root):
        if not single and (root / MANIFEST_NAME).exists():
            manifest = _merged(read(root), manifest, given or {})
        prepared = scratch / MANIFEST_NAME
        prepared.write_text(dump(manifest), encoding="utf-8")
        name = side_path(output).name if single else MANIFEST_NAME
        publish(root, {**files, name: prepared})
    return manifest


def _merged(existing: Manifest, new: Manifest, given: Mapping[str, str]) -> Manifest:
    """The existing manifest with the new artifacts, which must be of the same model."""
    if _identity(existing) != _identity(new):
        raise InputError(
            f"the output directory holds '{existing.name}' made from {existing.source.file}, "
            "a different source or signature",
            hint="use another directory, or remove this one",
        )
    merged = existing.with_artifacts(*new.artifacts)
    written = {golden.path: golden for golden in new.goldens()}
    return replace(
        new,
        name=given.get("name") or existing.name,
        version=given.get("version") or existing.version,
        artifacts=tuple(_with_samples(item, written) for item in merged.artifacts),
        golden=new.golden or existing.golden,
    )


def _with_samples(artifact: Artifact, written: Mapping[str, Golden]) -> Artifact:
    """The artifact with the samples that are now in the file of its own ones."""
    if artifact.golden is None or artifact.golden.path not in written:
        return artifact
    return replace(artifact, golden=written[artifact.golden.path])


def _identity(manifest: Manifest) -> tuple[object, ...]:
    source = manifest.source
    return source.file, source.digest, source.weights, manifest.signatures
