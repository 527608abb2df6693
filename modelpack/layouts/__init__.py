"""Layouts: the file trees that servers expect, one module per layout.

A layout module offers ``arrange(package: Package, options: LayoutOptions) -> dict[str, Path]``:
the files and directories to put below the output, by relative name. What it must write
itself goes to ``package.scratch``. Other distributions add layouts through the entry point
group ``modelpack.layouts``, whose names are layout names and whose objects are such functions.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from modelpack import plugins
from modelpack.artifact import MANIFEST_NAME, Artifact
from modelpack.errors import InputError, PackagingError
from modelpack.manifest import Manifest, dump

log = logging.getLogger(__name__)

_GROUP = "modelpack.layouts"

# Each layout's function by name; resolved when used.
LAYOUTS = {
    "archive": "modelpack.layouts.archive:arrange",
    "tfserving": "modelpack.layouts.tfserving:arrange",
    "triton": "modelpack.layouts.triton:arrange",
}


@dataclass(frozen=True, slots=True)
class Package:
    """What is laid out: a manifest, the directory of its files, room to write, the target."""

    manifest: Manifest
    root: Path
    scratch: Path
    output: Path


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """What a layout may be told.

    Attributes:
        max_batch_size: largest batch a server may form; 0 keeps the server from batching.
        artifact: the artifact to serve, where the layout serves one: its path, or ``path:name`` of
            one signature of several; the layout's own preference when empty.
    """

    max_batch_size: int = 0
    artifact: str = ""


Arrange = Callable[[Package, LayoutOptions], dict[str, Path]]


@cache
def names() -> tuple[str, ...]:
    """Names of all layouts, those of other distributions included."""
    return (*LAYOUTS, *plugins.names(_GROUP))


def arranger(name: str) -> Arrange:
    """Return the function of a layout.

    Raises:
        InputError: there is no such layout.
    """
    if name in LAYOUTS:
        module, _, function = LAYOUTS[name].partition(":")
        found: Arrange = getattr(importlib.import_module(module), function)
        return found
    if name in names():
        loaded: Arrange = plugins.load(_GROUP, name)
        return loaded
    raise InputError(f"unknown layout '{name}'", hint=f"use one of {', '.join(names())}")


def choose(
    package: Package, formats: tuple[str, ...], options: LayoutOptions, *, every: bool = False
) -> Artifact:
    """Return the artifact to serve: the one asked for, or the first of the preferred formats.

    A warning names the signatures of the manifest that it does not serve.

    Args:
        package: what is laid out.
        formats: that the server takes, the preferred one first.
        options: of the layout.
        every: whether the server serves every signature of a file, not one.

    Raises:
        PackagingError: there is none, it is of another format, or it failed its parity check.
    """
    chosen = _chosen(package, formats, options)
    held = package.manifest.in_file(chosen.path) if every else (chosen,)
    served = [item.signature for item in held]
    left = [item.name for item in package.manifest.signatures if item.name not in served]
    if left:
        log.warning(
            "%s serves the signature %s, not %s (see --artifact)",
            chosen.path,
            ", ".join(served),
            ", ".join(left),
        )
    return chosen


def _chosen(package: Package, formats: tuple[str, ...], options: LayoutOptions) -> Artifact:
    artifacts = package.manifest.artifacts
    if options.artifact:
        called = {item.path: item for item in reversed(artifacts)}
        called |= {f"{item.path}:{item.signature}": item for item in artifacts}
        found = called.get(options.artifact)
        if found is None or found.format not in formats:
            raise PackagingError(
                f"there is no {' or '.join(formats)} artifact '{options.artifact}'",
                hint=f"there are {', '.join(dict.fromkeys(_addresses(package.manifest)))}",
            )
        return found
    for name in formats:
        for signature in package.manifest.signatures:
            for item in artifacts:
                wanted = item.format == name and item.signature == signature.name
                if wanted and item.quantization is None:
                    return item
    held = ", ".join(sorted({item.format for item in artifacts})) or "nothing"
    raise PackagingError(
        f"the layout needs a {' or '.join(formats)} artifact; '{package.manifest.name}' has {held}",
        hint=f"modelpack convert ... --to {formats[0]}",
    )


def _addresses(manifest: Manifest) -> Iterator[str]:
    """What each artifact is chosen by: its path, with its signature where the file has several."""
    for item in manifest.artifacts:
        several = manifest.name_in_file(item)
        yield f"{item.path}:{item.signature}" if several else item.path


def version_number(manifest: Manifest) -> str:
    """Return the model's version as the positive integer that servers name directories by.

    Raises:
        PackagingError: it is no such integer.
    """
    if not manifest.version.isascii() or not manifest.version.isdigit():
        raise PackagingError(
            f"the layout needs a whole number as version; '{manifest.name}' has version "
            f"'{manifest.version}'",
            hint="add --model-version N",
        )
    number = int(manifest.version)
    if not 0 < number < 1 << 63:
        raise PackagingError(f"version {number} is not a positive 64-bit number")
    return str(number)


def evidence(package: Package, artifact: Artifact, path: str) -> dict[str, Path]:
    """The manifest and golden samples of one file that a layout keeps at ``path``.

    They make the model's directory a modelpack directory, so that `modelpack validate`
    checks what a server loads, in place.
    """
    held = package.manifest.in_file(artifact.path)
    samples = package.manifest.golden_of(replace(held[0], golden=None))
    manifest = replace(
        package.manifest,
        signatures=tuple(package.manifest.signature(item.signature) for item in held),
        artifacts=tuple(replace(item, path=path) for item in held),
        golden=samples,
    )
    written = package.scratch / f"{artifact.format}-{MANIFEST_NAME}"
    written.write_text(dump(manifest), encoding="utf-8")
    files = {MANIFEST_NAME: written}
    return files | {golden.path: package.root / golden.path for golden in manifest.goldens()}
