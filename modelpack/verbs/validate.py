"""The verb validate: integrity, structure and numbers of artifacts, against a reference."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelpack import archive, datasets, golden
from modelpack.artifact import Artifact, Encoding, Golden, ModelRef, encoding_of
from modelpack.compare import compare, judgement_for
from modelpack.errors import ContractError, InputError
from modelpack.golden import Evidence
from modelpack.manifest import Manifest, find, read, verify
from modelpack.metrics import evaluate, metric_for
from modelpack.parity import ParityReport, Verdict, unverified
from modelpack.samples import generate
from modelpack.signature import Signature, TensorSpec, differences, for_inputs
from modelpack.sources import Opened, Request, answers, locate, open_model, run_cases, workspace
from modelpack.worker import Limits, WorkerPool

log = logging.getLogger(__name__)

BENCH_REPEATS = 50


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """Options of `validate`.

    Attributes:
        reference: a model to compare with, instead of the manifest's golden samples.
        weights: state dict, when the reference is a Python reference.
        trust: load model and reference even if that runs code they contain.
        inputs: input specs of the reference, where it has none of its own.
        data: samples to compare on; with labels, also to score.
        metric: ``accuracy`` or ``mae``; chosen from the labels when empty.
        rtol: relative tolerance; by precision when None.
        atol: absolute tolerance in units of the output's scale; likewise.
        seed: of generated samples.
        bench: measure the latency of one call on the first case.
        limits: of each step.
    """

    reference: str = ""
    weights: Path | None = None
    trust: bool = False
    inputs: tuple[TensorSpec, ...] = ()
    data: Path | None = None
    metric: str = ""
    rtol: float | None = None
    atol: float | None = None
    seed: int = 0
    bench: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """What was found of one artifact.

    Attributes:
        path: as in the manifest, or the file's name.
        format: onnx, tflite, savedmodel, or a framework.
        precision: dtype of most weights.
        size: bytes; 0 when it is no file.
        signature_problems: where the file breaks the manifest's signature; empty when it holds.
        parity: the comparison, or why there was none.
        metric: name of the metric; empty without labels.
        metric_value: the artifact's value of it.
        latency_ms: median milliseconds of one call; None unless asked for.
    """

    path: str
    format: str
    precision: str
    size: int
    parity: ParityReport
    signature_problems: tuple[str, ...] = ()
    metric: str = ""
    metric_value: float | None = None
    latency_ms: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Failed when the signature or the numbers do not hold, else the comparison's."""
        return Verdict.FAILED if self.signature_problems else self.parity.verdict


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """The results for every artifact. Truthy when none failed and at least one passed."""

    model: str
    artifacts: tuple[ArtifactResult, ...]

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PASSED

    @property
    def failed(self) -> bool:
        """Whether any artifact failed."""
        return self.verdict is Verdict.FAILED

    @property
    def verdict(self) -> Verdict:
        """Failed if any artifact failed; passed if any passed; else unverified."""
        found = {item.verdict for item in self.artifacts}
        for verdict in (Verdict.FAILED, Verdict.PASSED):
            if verdict in found:
                return verdict
        return Verdict.UNVERIFIED


@dataclass(frozen=True, slots=True)
class _Subject:
    """A model to validate, with what a manifest promises of it, if one does."""

    ref: ModelRef
    root: Path
    manifest: Manifest | None = None
    artifact: Artifact | None = None


def validate(model: str, options: ValidateOptions) -> ValidationReport:
    """Check an artifact, a modelpack directory or a package archive.

    Digests and the schema of the manifest come first, then each file's signature against
    the manifest's, then its numbers: against ``reference`` where given, otherwise against
    the golden samples. Without either, only the structure is checked and the verdict is
    ``unverified``.

    Raises:
        ManifestError: the manifest or a digest does not hold.
        InputError: a file or option cannot be used.
    """
    with workspace(options.limits) as pool:
        subjects = _subjects(pool, model, options)
        reference = _open_reference(pool, options)
        results = [_check(pool, subject, reference, options) for subject in subjects]
    return ValidationReport(Path(model).name, tuple(results))


def _subjects(pool: WorkerPool, model: str, options: ValidateOptions) -> list[_Subject]:
    ref = locate(Request(model, trust=options.trust))
    if ref.encoding is Encoding.ARCHIVE:
        root = pool.scratch / "package"
        archive.extract(ref.path, root)
        return _subjects_in(root)
    if ref.encoding is Encoding.MODELPACK:
        return _subjects_in(ref.path)
    known = find(ref.path) if ref.encoding is not Encoding.PYTHON else None
    if known is None:
        return [_Subject(ref, ref.path.parent)]
    manifest, artifact = known
    verify(replace(manifest, artifacts=(artifact,)), ref.path.parent)
    return [_promised(manifest, artifact, ref.path.parent)]


def _subjects_in(root: Path) -> list[_Subject]:
    manifest = read(root)
    verify(manifest, root)
    if not manifest.artifacts:
        raise InputError(f"the manifest of '{manifest.name}' lists no artifacts")
    return [_promised(manifest, artifact, root) for artifact in manifest.artifacts]


def _promised(manifest: Manifest, artifact: Artifact, root: Path) -> _Subject:
    ref = ModelRef(
        artifact.format,
        encoding_of(artifact.format),
        str((root / artifact.path).absolute()),
        signature=manifest.signature_of(artifact),
        channel_last=artifact.channel_last,
    )
    return _Subject(ref, root, manifest, artifact)


def _open_reference(pool: WorkerPool, options: ValidateOptions) -> Opened | None:
    if not options.reference:
        return None
    request = Request(options.reference, options.weights, options.trust, options.inputs)
    return open_model(pool, locate(request))


def _check(
    pool: WorkerPool,
    subject: _Subject,
    reference: Opened | None,
    options: ValidateOptions,
) -> ArtifactResult:
    log.info("checking %s", subject.ref.display)
    opened, problems = _open_subject(pool, subject, reference)
    signature = opened.ref.signature
    assert signature is not None
    result = ArtifactResult(
        path=subject.artifact.path if subject.artifact else opened.ref.display,
        format=opened.ref.format,
        precision=opened.description.precision,
        size=subject.artifact.size if subject.artifact else _size(opened.ref),
        parity=unverified("no reference and no golden samples: only the structure was checked"),
        signature_problems=tuple(problems),
    )
    if problems:
        return replace(result, parity=unverified("the signature does not hold"))
    if opened.description.unrunnable:
        return replace(result, parity=unverified(opened.description.unrunnable))
    evidence = _evidence(pool, subject, reference, signature, options)
    if evidence is not None and not evidence.cases:
        result = replace(result, parity=unverified("no sample fits the fixed dimensions"))
    elif evidence is not None:
        report = _compare(pool, subject, opened, evidence, options)
        result = replace(result, parity=report)
        if options.bench:
            result = replace(result, latency_ms=_latency(pool, subject, opened, evidence))
    return _scored(pool, opened, result, options)


def _open_subject(
    pool: WorkerPool, subject: _Subject, reference: Opened | None
) -> tuple[Opened, list[str]]:
    """Open the model; under the manifest's signature, or else under the reference's names."""
    ref = subject.ref
    opened = open_model(pool, ref)
    found = opened.ref.signature
    assert found is not None
    if ref.signature is not None:
        problems = differences(ref.signature, found)
        return replace(opened, ref=ref), problems
    if reference is None:
        return opened, []
    wanted = reference.ref.signature
    assert wanted is not None
    if _names(wanted) != _names(found):
        log.warning("%s names its tensors otherwise: binding them by position", ref.display)
        found = _renamed(found, wanted, ref.display)
        opened = replace(opened, ref=replace(opened.ref, signature=found))
    return opened, []


def _under_names(reference: Opened, signature: Signature) -> Opened:
    """The reference under the candidate's names: by position, where it has others."""
    own = reference.ref.signature
    assert own is not None
    if _names(own) == _names(signature):
        return reference
    log.warning("%s names its tensors otherwise: binding by position", reference.ref.display)
    renamed = _renamed(own, signature, reference.ref.display)
    ranges = for_inputs(reference.description.ranges, own, signature)
    description = replace(reference.description, ranges=ranges)
    return Opened(replace(reference.ref, signature=renamed), description)


def _names(signature: Signature) -> list[set[str]]:
    return [{spec.name for spec in side} for side in (signature.inputs, signature.outputs)]


def _renamed(found: Signature, wanted: Signature, what: str) -> Signature:
    sides = []
    for have, want in ((found.inputs, wanted.inputs), (found.outputs, wanted.outputs)):
        if len(have) != len(want):
            raise InputError(f"{what} has another signature, which does not fit: {found}")
        sides.append(
            tuple(
                replace(one, name=other.name, meaning=other.meaning, classes=other.classes)
                for one, other in zip(have, want, strict=True)
            )
        )
    return replace(found, inputs=sides[0], outputs=sides[1])


def _size(ref: ModelRef) -> int:
    if ref.encoding is Encoding.PYTHON:
        return 0
    return sum(file.stat().st_size for file in [ref.path, *ref.path.rglob("*")] if file.is_file())


def _evidence(
    pool: WorkerPool,
    subject: _Subject,
    reference: Opened | None,
    signature: Signature,
    options: ValidateOptions,
) -> Evidence | None:
    if reference is None:
        if subject.manifest is None or subject.artifact is None:
            return None
        return _kept(subject, subject.manifest.golden_of(subject.artifact))
    reference = _under_names(reference, signature)
    if options.data is not None:
        samples = datasets.read(options.data, signature, narrow=False)
        cases, origin = samples.batches(), "data"
    else:
        described = replace(reference.description, signature=signature)
        cases = generate(described, seed=options.seed)
        origin = "generated"
    log.info("running the reference %s on %d cases", reference.ref.display, len(cases))
    narrow, outputs = answers(pool, reference, cases)
    return Evidence(narrow, outputs, origin, f"{reference.ref.display} on {origin} samples")


def _compare(
    pool: WorkerPool,
    subject: _Subject,
    opened: Opened,
    evidence: Evidence,
    options: ValidateOptions,
) -> ParityReport:
    signature = opened.ref.signature
    assert signature is not None
    outputs, result = run_cases(pool, opened.ref, evidence.cases, failure=ContractError)
    quantization = subject.artifact.quantization if subject.artifact else None
    judgement = replace(
        judgement_for(
            opened.description.precision,
            quantization.scheme if quantization else "",
            options.rtol,
            options.atol,
        ),
        reference=evidence.reference,
        runtime=result.runtime,
    )
    return compare(signature, evidence.outputs, outputs, judgement)


def _kept(subject: _Subject, entry: Golden | None) -> Evidence | None:
    """Golden samples of the manifest, cut to what the artifact can be fed."""
    if entry is None or subject.manifest is None or subject.artifact is None:
        return None
    promised = subject.manifest.signature(subject.artifact.signature)
    kept = golden.read(entry, subject.root, promised)
    return kept.fitted_to(promised, subject.artifact.fixed_dims)


def _latency(
    pool: WorkerPool, subject: _Subject, opened: Opened, evidence: Evidence
) -> float | None:
    """Median milliseconds of one call, on a feed that all artifacts of a manifest share."""
    shared = _kept(subject, subject.manifest.golden) if subject.manifest else None
    first = (shared if shared and shared.cases else evidence).cases[0]
    return run_cases(pool, opened.ref, [first], repeat=BENCH_REPEATS)[1].latency_ms


def _scored(
    pool: WorkerPool,
    opened: Opened,
    result: ArtifactResult,
    options: ValidateOptions,
) -> ArtifactResult:
    """Add the metric, when there is labelled data."""
    if options.data is None:
        return result
    signature = opened.ref.signature
    assert signature is not None
    samples = datasets.read(options.data, signature)
    if samples.labels is None:
        return result
    metric = options.metric or metric_for(signature, samples.labels)
    cases = samples.batches()
    outputs, _ = run_cases(pool, opened.ref, cases)
    value = evaluate(metric, signature, outputs, samples.labels)
    return replace(result, metric=metric, metric_value=round(value, 6))
