"""The verbs export and convert: run a route step by step, check each step, record it all.

`convert` opens the source and plans a route to each wanted format. For each signature that is
converted, it makes samples, asks the source for its own answers, and runs the routes. After each
step one checker compares names, dtypes, ranks and dynamic dimensions with the signature; each
artifact is then run on the samples and compared with the source. Only when all of it agrees are
the artifacts, the golden samples and the manifest put in place, together.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelpack import golden
from modelpack.artifact import Artifact, Golden, ModelRef
from modelpack.errors import InputError, ModelpackError, ParityError
from modelpack.golden import Evidence
from modelpack.manifest import (
    DEFAULT_VERSION,
    SCHEMA_VERSION,
    Manifest,
    by_path,
)
from modelpack.output import check_writable
from modelpack.parity import ParityReport, Verdict, unverified
from modelpack.routes import Route, find_route, format_named, formats, targets
from modelpack.signature import Signature, TensorSpec
from modelpack.sources import (
    Opened,
    Request,
    adapter_of,
    default_name,
    locate,
    open_model,
    provenance,
    recorded,
    workspace,
)
from modelpack.steps import StepOptions
from modelpack.store import save, single_format
from modelpack.verbs.building import (
    Builder,
    Place,
    Product,
    in_one_file,
    in_one_step,
    places,
)
from modelpack.verbs.comparing import Trials, compared, trials_of
from modelpack.verbs.opening import located, opened_as
from modelpack.worker import Limits, WorkerPool

log = logging.getLogger(__name__)

LAYOUTS = ("", "nhwc")
"""Orders of axes that ``input_layout`` may ask for; empty is the source's own."""


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """Options of `convert` and `export`.

    Attributes:
        to: names of the wanted formats; empty when the output's suffix says it.
        inputs: specs of the inputs, for names, dynamic dims, or where the source has none.
        outputs: names of the outputs, in order.
        weights: state dict for a Python reference.
        factory_args: what a Python reference is called with, as JSON.
        imports: modules to import before a model is loaded.
        trust: load a source even if that runs code it contains.
        allow_version_drift: load a source that another version of its framework saved.
        input_form: ``columns`` or ``tensor``, how a table is taken; empty for what suits it.
        signatures: which of the signatures of a SavedModel, TFLite file or modelpack directory
            are converted, or ``all``; when empty its ``serving_default``, or its only one.
        data: samples to compare on; generated from the signature when None.
        name: the model's name; the source's by default.
        version: the model's version, as the user counts; by default "1", or what the
            directory that is added to has.
        opset: ONNX opset; the converter's usual one when None.
        input_layout: ``nhwc`` for artifacts that exchange images channel-last, where the
            source has channels second.
        select_ops: allow TFLite artifacts that need TensorFlow's own kernels.
        rtol: relative tolerance; by precision when None (see `modelpack.judging.compare`).
        atol: absolute tolerance in units of the output's scale; likewise.
        seed: of the generated samples.
        validate: compare each artifact with the source.
        keep_failed: write artifacts that failed the comparison too.
        limits: of each step.
    """

    to: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[str, ...] = ()
    weights: Path | None = None
    factory_args: str = ""
    imports: tuple[str, ...] = ()
    trust: bool = False
    allow_version_drift: bool = False
    input_form: str = ""
    signatures: tuple[str, ...] = ()
    data: Path | None = None
    name: str = ""
    version: str = ""
    opset: int | None = None
    input_layout: str = ""
    select_ops: bool = False
    rtol: float | None = None
    atol: float | None = None
    seed: int = 0
    validate: bool = True
    keep_failed: bool = False
    limits: Limits = field(default_factory=Limits)


def export(model: str, output: Path, options: ConvertOptions) -> Manifest:
    """Convert a model that is still in its framework; see `convert`.

    Raises:
        InputError: the source is already an artifact.
    """
    require_framework(model)
    return convert(model, output, options)


def convert(model: str, output: Path, options: ConvertOptions) -> Manifest:
    """Convert a model and write the artifacts with their manifest.

    Args:
        model: a path or a Python reference.
        output: a directory, or a file whose suffix names the one format.
        options: see `ConvertOptions`.

    Returns:
        The manifest as written (for a directory that had one: with what it held before).

    Raises:
        InputError: the source or an option cannot be used.
        ConversionError: no route, unsupported ops, or a converter broke its contract.
        ParityError: an artifact disagrees with the source; nothing was written, unless
            ``keep_failed``.
        UntrustedSourceError, MissingDependencyError, WorkerError: see their classes.
    """
    wanted = _targets(output, options.to)
    if options.input_layout not in LAYOUTS:
        raise InputError(f"unknown input layout '{options.input_layout}'", hint="use nhwc")
    check_writable(output)
    with workspace(options.limits) as pool:
        log.info("opening %s", model)
        sources = opened_as(pool, _request(model, options), wanted, options.signatures)
        room = places(output, [_name(source) for source in sources])
        routes = [find_route(sources[0].ref.format, name) for name in wanted]
        parts = _parts(pool, sources, room, routes, options)
        artifacts = [artifact for part in parts for artifact in part.artifacts]
        failed = [item for item in artifacts if item.parity.verdict is Verdict.FAILED]
        if failed and not options.keep_failed:
            raise _parity_error(failed, len(parts), kept=False)
        manifest = _write(pool, output, parts, options)
    if failed:
        raise _parity_error(failed, len(parts), kept=True)
    return manifest


@dataclass(frozen=True, slots=True)
class _Part:
    """What was made of one signature.

    Attributes:
        source: the model, opened with that signature.
        place: where it goes to.
        artifacts: one for each format.
        files: their files, by the names that they get.
        evidence: what is kept as golden samples; None if nothing was compared.
    """

    source: Opened
    place: Place
    artifacts: tuple[Artifact, ...]
    files: dict[str, Path]
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class _Draft:
    """A signature that is being converted.

    Attributes:
        source: the model, opened with that signature.
        place: where it goes to.
        trials: what artifacts are compared on; None if they are not.
        builder: makes them.
    """

    source: Opened
    place: Place
    trials: Trials | None
    builder: Builder


def _parts(
    pool: WorkerPool,
    sources: Sequence[Opened],
    room: Sequence[Place],
    routes: Sequence[Route],
    options: ConvertOptions,
) -> list[_Part]:
    """Convert each signature to each format, and compare what comes out."""
    drafts = []
    for source, place in zip(sources, room, strict=True):
        with _about(source, len(sources)):
            drafts.append(_draft(pool, source, place, options))
    made = [_made(pool, drafts, route, options) for route in routes]
    parts = []
    for index, draft in enumerate(drafts):
        artifacts: list[Artifact] = []
        files: dict[str, Path] = {}
        for artifact, path in (of_route[index] for of_route in made):
            artifacts.append(artifact)
            files |= {name: path.with_name(name) for name in (path.name, *artifact.sidecars)}
        kept = draft.trials.golden if draft.trials is not None else None
        parts.append(_Part(draft.source, draft.place, tuple(artifacts), files, kept))
    return parts


def _draft(pool: WorkerPool, source: Opened, place: Place, options: ConvertOptions) -> _Draft:
    if source.ref.signature is not None and not source.ref.signature.inputs:
        raise InputError(f"'{source.ref.display}' has no inputs: its outputs are constants")
    trials = trials_of(pool, source, options.data, options.seed) if options.validate else None
    return _Draft(source, place, trials, Builder(pool, source, place, _steps(source, options)))


def _steps(source: Opened, options: ConvertOptions) -> StepOptions:
    return StepOptions(
        opset=options.opset,
        name=options.name or default_name(source.ref),
        input_layout=options.input_layout,
        select_ops=options.select_ops,
    )


def _made(
    pool: WorkerPool, drafts: Sequence[_Draft], route: Route, options: ConvertOptions
) -> list[tuple[Artifact, Path]]:
    """Run a route for each signature and compare what is delivered: one file, where it can be."""
    found = []
    for draft, product in zip(drafts, _products(pool, drafts, route, options), strict=True):
        with _about(draft.source, len(drafts)):
            _check_layout(product.opened.ref, options)
            report = _report(pool, draft, product, options)
        artifact = recorded(product.opened, product.steps, product.fixed_dims)
        found.append((replace(artifact, parity=report), product.opened.ref.path))
    return found


def _products(
    pool: WorkerPool, drafts: Sequence[_Draft], route: Route, options: ConvertOptions
) -> list[Product]:
    """What a route makes of each signature; one artifact of all, where it can be."""
    last, several = route.steps[-1], len(drafts) > 1
    jointly = several and bool(last.joint)
    products = []
    for draft in drafts:
        with _about(draft.source, len(drafts)):
            products.append(draft.builder.build(Route(route.steps[:-1]) if jointly else route))
    name = drafts[0].place.file_name(last.target)
    if jointly:
        return in_one_step(pool, products, last, name, _steps(drafts[0].source, options))
    if several and formats()[last.target].joiner:
        return in_one_file(pool, products, name)
    return products


def _report(
    pool: WorkerPool, draft: _Draft, product: Product, options: ConvertOptions
) -> ParityReport:
    if draft.trials is None:
        return unverified("--no-validate")
    tolerance = {"rtol": options.rtol, "atol": options.atol}
    return compared(pool, draft.source, product, draft.trials, **tolerance)


@contextlib.contextmanager
def _about(source: Opened, count: int) -> Iterator[None]:
    """Let errors say which of several signatures they are about."""
    if count > 1:
        log.info("signature %s", _name(source))
    try:
        yield
    except ModelpackError as error:
        if count > 1:
            error.say_about(f"signature '{_name(source)}'")
        raise


def _name(source: Opened) -> str:
    assert source.ref.signature is not None
    return source.ref.signature.name


def require_framework(model: str) -> None:
    """Refuse a model that has left its framework already.

    Raises:
        InputError: it is an artifact.
    """
    ref = locate(Request(model))
    if ref.format in targets():
        raise InputError(
            f"'{ref.display}' is {ref.format}, which is no framework's own format",
            hint="use modelpack convert",
        )


def plan(model: str, output: Path, options: ConvertOptions) -> list[Route]:
    """Return the routes that `convert` would run, running none of them.

    Raises:
        InputError, NoRouteError: as `convert`.
    """
    wanted = _targets(output, options.to)
    request = _request(model, options)
    ref = located(replace(request, signature_name="".join(options.signatures[:1])), wanted)
    if not ref.format:
        with workspace(options.limits) as pool:
            ref = open_model(pool, ref).ref
    return [find_route(adapter_of(ref).name, name) for name in wanted]


def _check_layout(ref: ModelRef, options: ConvertOptions) -> None:
    if options.input_layout and not ref.channel_last:
        raise InputError(
            f"--input-layout {options.input_layout} changes nothing in the {ref.format} artifact",
            hint="it is for SavedModel and TFLite from PyTorch or ONNX models with 4-D inputs",
        )


# --- planning ------------------------------------------------------------------------


def _request(model: str, options: ConvertOptions) -> Request:
    return Request(
        model,
        options.weights,
        options.trust,
        options.inputs,
        options.outputs,
        factory_args=options.factory_args,
        imports=options.imports,
        allow_version_drift=options.allow_version_drift,
        input_form=options.input_form,
    )


def _targets(output: Path, to: tuple[str, ...]) -> tuple[str, ...]:
    by_suffix = single_format(output)
    if not to and not by_suffix:
        raise InputError(
            f"it is not said which format to write to '{output}'",
            hint="add --to onnx, --to tflite or --to savedmodel, or name a file: -o model.onnx",
        )
    names = tuple(dict.fromkeys(to)) or (by_suffix,)
    for name in names:
        format_named(name)
    if by_suffix and names != (by_suffix,):
        raise InputError(
            f"'{output}' is one {by_suffix} file, but --to says {', '.join(names)}",
            hint="give a directory to write several artifacts",
        )
    if by_suffix and output.is_dir():
        raise InputError(f"'{output}' is a directory, not a file")
    if not by_suffix and output.exists() and not output.is_dir():
        raise InputError(f"'{output}' is a file; a directory is needed for --to {names[0]}")
    return names


# --- recording -----------------------------------------------------------------------


def _write(
    pool: WorkerPool, output: Path, parts: Sequence[_Part], options: ConvertOptions
) -> Manifest:
    first = parts[0].source
    artifacts: list[Artifact] = []
    files: dict[str, Path] = {}
    common: Golden | None = None
    for part in parts:
        files |= part.files
        samples, made = _kept(pool, part, options)
        files |= made
        if part is parts[0]:
            common, samples = samples, None
        artifacts += [replace(artifact, golden=samples) for artifact in part.artifacts]
    manifest = Manifest(
        modelpack=SCHEMA_VERSION,
        name=options.name or default_name(first.ref),
        version=options.version or DEFAULT_VERSION,
        source=provenance(first),
        signatures=tuple(map(_signature, parts)),
        artifacts=by_path(artifacts),
        golden=common,
    )
    given = {"name": options.name, "version": options.version}
    return save(output, manifest, files, pool.scratch, given)


def _signature(part: _Part) -> Signature:
    assert part.source.ref.signature is not None
    return part.source.ref.signature


def _kept(
    pool: WorkerPool, part: _Part, options: ConvertOptions
) -> tuple[Golden | None, dict[str, Path]]:
    """The golden samples of a signature, and their file by its name."""
    if part.evidence is None:
        return None, {}
    name = part.place.golden_name
    file = pool.scratch / f"kept-{name}"
    return golden.write(file, name, part.evidence, options.seed), {name: file}


def _parity_error(failed: Sequence[Artifact], signatures: int, *, kept: bool) -> ParityError:
    lines = "; ".join(
        f"{item.path}{f' ({item.signature})' if signatures > 1 else ''}: {item.parity.reason}"
        for item in failed
    )
    what = "written, marked as failed" if kept else "nothing was written"
    return ParityError(
        f"artifacts disagree with the source ({what}): {lines}",
        hint="" if kept else "--keep-failed writes them for inspection",
    )
