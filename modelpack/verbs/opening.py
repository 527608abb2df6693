"""Opens what is to be converted: one artifact of a directory, one or several signatures."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelpack.artifact import Artifact, Encoding, ModelRef, encoding_of
from modelpack.errors import InputError, NoRouteError
from modelpack.manifest import Manifest, find, read, refuse_failed, verify
from modelpack.routes import find_route, targets
from modelpack.signature import DEFAULT_SIGNATURE, EVERY_SIGNATURE
from modelpack.sources import Opened, Request, locate, open_model
from modelpack.worker import WorkerPool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Located:
    """A file to convert.

    Attributes:
        ref: the file.
        name: the signature that it implements, as a manifest says; empty without one.
        held: all signatures of that manifest.
    """

    ref: ModelRef
    name: str = ""
    held: tuple[str, ...] = ()


def located(request: Request, wanted: Sequence[str]) -> ModelRef:
    """The model to convert: for a modelpack directory, the float artifact nearest to the formats.

    Raises:
        InputError: there is no such model or signature, or it is no single model.
        NoRouteError: nothing in the directory leads to the wanted formats.
    """
    return _located(request, wanted).ref


def opened_as(
    pool: WorkerPool, request: Request, wanted: Sequence[str], asked: Sequence[str]
) -> list[Opened]:
    """The model, opened with each signature that is asked for; ``serving_default`` first.

    Args:
        pool: the workers.
        request: the model; which signature it means is left open.
        wanted: the formats to convert to.
        asked: names of signatures, or `EVERY_SIGNATURE`; the usual one when empty.

    Raises:
        InputError: it has no such signature, or is described as only one of them can be.
        As `open_model` and `located`.
    """
    every = EVERY_SIGNATURE in asked
    usual = EVERY_SIGNATURE if every else "".join(asked[:1])
    first, held = _opened(pool, replace(request, signature_name=usual), wanted)
    chosen = held if every else list(dict.fromkeys(asked)) or held[:1]
    if len(chosen) == 1:
        opened = [first]
    else:
        _refuse_for_several(request, chosen)
        ordered = sorted(chosen, key=lambda name: name != DEFAULT_SIGNATURE)
        requests = [replace(request, signature_name=name) for name in ordered]
        opened = [_opened(pool, item, wanted)[0] for item in requests]
    left = ", ".join(name for name in held if name not in chosen)
    if left:
        log.warning("converting %s; left out: %s (see --signature)", ", ".join(chosen), left)
    return opened


def _refuse_for_several(request: Request, chosen: Sequence[str]) -> None:
    hint = "convert each to a directory of its own: --signature NAME"
    if request.inputs or request.outputs:
        raise InputError(
            f"--input and --output describe one signature, but {len(chosen)} are converted: "
            + ", ".join(chosen),
            hint=hint,
        )
    if locate(request).encoding is Encoding.MODELPACK:
        raise InputError(
            f"signatures of '{request.model}' may be files of their own, and the manifest of what "
            "is made of them would have to name one source",
            hint=hint,
        )


def _opened(pool: WorkerPool, request: Request, wanted: Sequence[str]) -> tuple[Opened, list[str]]:
    """The model with the signature that is meant, and the names of all it has, that one first."""
    found = _located(request, wanted)
    opened = open_model(pool, found.ref)
    signature = opened.ref.signature
    assert signature is not None
    if len(found.held) < 2:
        others = (item.name for item in opened.description.other_signatures)
        return opened, [signature.name, *others]
    # A file need not know what the manifest calls its signature.
    named = replace(signature, name=found.name)
    opened = Opened(
        replace(opened.ref, signature=named), replace(opened.description, signature=named)
    )
    return opened, list(dict.fromkeys((found.name, *found.held)))


def _located(request: Request, wanted: Sequence[str]) -> _Located:
    ref = locate(request)
    if ref.encoding is not Encoding.MODELPACK:
        known = find(ref.path) if ref.format in targets() else None
        for artifact in known[1] if known is not None else ():
            refuse_failed(artifact)
        return _Located(ref)
    manifest = read(ref.path)
    verify(manifest, ref.path)
    name = manifest.named_signature(request.signature_name).name
    chosen = _nearest(manifest, name, ref, wanted)
    refuse_failed(chosen)
    signature = manifest.signature_of(chosen)
    file = replace(
        ref,
        format=chosen.format,
        encoding=encoding_of(chosen.format),
        location=str(ref.path / chosen.path),
        inputs=request.inputs or signature.channel_last(chosen.channel_last).inputs,
        channel_last=chosen.channel_last,
        signature_name=manifest.name_in_file(chosen),
    )
    return _Located(file, name, tuple(item.name for item in manifest.signatures))


def _nearest(manifest: Manifest, name: str, ref: ModelRef, wanted: Sequence[str]) -> Artifact:
    """The float artifact of a signature from which the fewest steps lead to the formats."""
    held = [item for item in manifest.artifacts if item.signature == name]
    routes: dict[str, int] = {}
    for artifact in held:
        if artifact.quantization is None:
            with contextlib.suppress(NoRouteError):
                steps = sum(len(find_route(artifact.format, form).steps) for form in wanted)
                routes[artifact.path] = steps
    if not routes:
        listed = ", ".join(item.path for item in manifest.artifacts)
        raise NoRouteError(
            f"nothing in '{ref.path.name}' ({listed}) leads to {' and '.join(wanted)}",
            hint="convert the original model",
        )
    nearest = min(routes, key=lambda path: routes[path])
    return next(item for item in held if item.path == nearest)
