"""The verb validate: integrity, structure and numbers of artifacts, against a reference."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelpack import datasets, golden, scoring
from modelpack.artifact import Golden
from modelpack.bench import benched
from modelpack.bisection.search import Failure, bisect
from modelpack.dependencies import DISTRIBUTION, installed
from modelpack.errors import InputError, ModelpackError
from modelpack.golden import Evidence
from modelpack.judging.compare import Judgement, judgement_for
from modelpack.judging.details import details_of
from modelpack.judging.evidence import edge_evidence, evidence_of, generated
from modelpack.judging.structure import structure_of
from modelpack.judging.trials import tried
from modelpack.output import check_writable, write_text
from modelpack.parity import ParityReport, Verdict, unverified
from modelpack.reports import html, junit
from modelpack.samples import Case, generate
from modelpack.signature import EVERY_SIGNATURE, Signature, TensorSpec
from modelpack.sources import Opened, Request, run_cases, workspace
from modelpack.steps import Finding
from modelpack.store import label, labelled
from modelpack.subjects import (
    Subject,
    exchangeable,
    float_beside,
    in_terms_of,
    is_code,
    opened_subject,
    references,
    size_of,
    subjects,
)
from modelpack.validation import ArtifactResult, ValidationReport
from modelpack.worker import Limits, WorkerPool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """Options of `validate`.

    Attributes:
        reference: a model to compare with, instead of the manifest's golden samples.
        weights: state dict, when the reference is a Python reference.
        factory_args: what the Python reference is called with, as JSON.
        imports: modules to import before a model is loaded.
        trust: load model and reference even if that runs code they contain.
        allow_version_drift: load a file that another version of its framework saved.
        signature_name: which signature is meant, of a SavedModel, a TFLite file or a manifest;
            by default each artifact is compared with the one that it implements.
        input_form: ``columns`` or ``tensor``, how the reference takes a table.
        inputs: input specs of the reference, where it has none of its own.
        data: samples to compare on; with labels, also to score.
        runtime: what runs the model, by a name of its format; the usual one when empty.
        reference_runtime: likewise of the reference.
        metric: one of `modelpack.metrics.METRICS`; all that suit the labels when empty.
        rtol: relative tolerance; by precision when None.
        atol: absolute tolerance in units of the output's scale; likewise.
        seed: of generated samples.
        bench: measure latency and memory of one call.
        bisect: directory for a reproduction of what departs first in an artifact that
            failed, one below it for each where several are validated; None to not look for it.
        report: HTML file to write, with figures; none when None.
        junit: JUnit XML file to write; none when None.
        limits: of each step.
    """

    reference: str = ""
    weights: Path | None = None
    factory_args: str = ""
    imports: tuple[str, ...] = ()
    trust: bool = False
    allow_version_drift: bool = False
    input_form: str = ""
    signature_name: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    data: Path | None = None
    runtime: str = ""
    reference_runtime: str = ""
    metric: str = ""
    rtol: float | None = None
    atol: float | None = None
    seed: int = 0
    bench: bool = False
    bisect: Path | None = None
    report: Path | None = None
    junit: Path | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A model after its checks.

    Attributes:
        subject: what it is.
        opened: as it was opened.
        result: what was found.
        feed: of a call to be timed; None if it cannot be run.
        answers: its metrics on labelled data, if there is any.
        reference: those of the reference, if it was run on that data.
    """

    subject: Subject
    opened: Opened
    result: ArtifactResult
    feed: Case | None = None
    answers: scoring.Answers | None = None
    reference: scoring.Answers | None = None

    def given(self, report: ParityReport) -> _Checked:
        """The same with the verdict of a comparison."""
        return replace(self, result=replace(self.result, parity=report))


class _Witness:
    """Keeps what a verdict was given on."""

    evidence: Evidence
    outputs: Sequence[Case]
    judgement: Judgement

    def __call__(self, evidence: Evidence, outputs: Sequence[Case], judgement: Judgement) -> None:
        self.evidence, self.outputs, self.judgement = evidence, outputs, judgement


def validate(model: str, options: ValidateOptions) -> ValidationReport:
    """Check an artifact, a modelpack directory, a package archive, a source or a server.

    Digests and the schema of the manifest come first, then each file's structure (its
    signature against the manifest's, its format's own rules, calls that must not differ),
    then its numbers: against ``reference`` where given, otherwise against the golden samples.
    Without either, only the structure is checked and the verdict is ``unverified``.

    Raises:
        ManifestError: the manifest or a digest does not hold.
        InputError: a file or option cannot be used.
    """
    for file in filter(None, (options.report, options.junit, options.bisect)):
        check_writable(file)
    with workspace(options.limits) as pool:
        own, other = _requests(model, options)
        found_in = subjects(pool, own, only=options.signature_name)
        opened = references(pool, other, found_in) if other else [None] * len(found_in)
        if options.bisect is not None:
            _check_bisectable(found_in, opened[0])
        found = [
            _check(pool, subject, against, _apart(options, subject, found_in))
            for subject, against in zip(found_in, opened, strict=True)
        ]
        results = _scored(found, options)
        if options.bench:
            results = _benched(found, results, options)
    report = ValidationReport(
        model if "://" in model else Path(model).name,
        tuple(results),
        modelpack=installed(DISTRIBUTION),
        source=found_in[0].manifest.source if found_in[0].manifest else None,
    )
    if options.report is not None:
        write_text(options.report, html.page(report))
    if options.junit is not None:
        write_text(options.junit, junit.junit(report))
    return report


def _requests(model: str, options: ValidateOptions) -> tuple[Request, Request | None]:
    """What was said of the model, and of the reference if there is one.

    Inputs belong to the reference, and so does the name of a signature. So do weights and the
    arguments of a factory, unless only the model can have them.

    Raises:
        InputError: something was said that is about neither.
    """
    if options.signature_name == EVERY_SIGNATURE:
        raise InputError(
            "one signature is meant, by its name",
            hint="without --signature, all artifacts of a directory are checked",
        )
    own = Request(
        model,
        trust=options.trust,
        runtime=options.runtime,
        imports=options.imports,
        allow_version_drift=options.allow_version_drift,
    )
    if not options.reference:
        if options.reference_runtime:
            raise InputError("a runtime of the reference needs one", hint="add --reference MODEL")
        alone = replace(own, inputs=options.inputs, signature_name=options.signature_name)
        return _of_code(alone, options), None
    other = Request(
        options.reference,
        trust=options.trust,
        inputs=options.inputs,
        runtime=options.reference_runtime,
        imports=options.imports,
        allow_version_drift=options.allow_version_drift,
        input_form=options.input_form,
        signature_name=options.signature_name,
    )
    if options.weights is None and not options.factory_args:
        return own, other
    if is_code(model) and not is_code(options.reference):
        return _of_code(own, options), other
    return own, _of_code(other, options)


def _of_code(request: Request, options: ValidateOptions) -> Request:
    return replace(request, weights=options.weights, factory_args=options.factory_args)


def _check_bisectable(found_in: Sequence[Subject], reference: Opened | None) -> None:
    if reference is None and not any(map(float_beside, found_in)):
        raise InputError(
            "golden samples hold outputs only: to say where an artifact departs, its source or "
            "another artifact is needed",
            hint="add --reference MODEL",
        )


def _apart(
    options: ValidateOptions, subject: Subject, found_in: Sequence[Subject]
) -> ValidateOptions:
    """The options for one of several subjects: with a directory of its own."""
    if options.bisect is None or subject.artifact is None or len(found_in) == 1:
        return options
    path = subject.artifact.path
    if subject.ref.signature_name:
        path = labelled(path, label(subject.ref.signature_name))
    return replace(options, bisect=options.bisect / path)


def _check(
    pool: WorkerPool,
    subject: Subject,
    reference: Opened | None,
    options: ValidateOptions,
) -> _Checked:
    log.info("checking %s", subject.ref.display)
    opened, problems = opened_subject(pool, subject, reference)
    signature = opened.ref.signature
    assert signature is not None
    result = ArtifactResult(
        path=subject.artifact.path if subject.artifact else opened.ref.display,
        format=opened.ref.format,
        precision=opened.description.precision,
        size=subject.artifact.size if subject.artifact else size_of(opened.ref),
        parity=unverified("no reference and no golden samples: only the structure was checked"),
        structure=(Finding("signature", not problems, "; ".join(problems) or str(signature)),),
        digest=subject.artifact.digest if subject.artifact else "",
        signature=opened.ref.exchanged.signature,
    )
    checked = _Checked(subject, opened, result)
    if problems:
        return checked.given(unverified("the signature does not hold"))
    if opened.description.unrunnable:
        return checked.given(unverified(opened.description.unrunnable))
    evidence = _evidence(pool, subject, reference, signature, options)
    evidence = exchangeable(opened, evidence) if evidence is not None else None
    structure = structure_of(pool, opened, evidence, options.seed)
    result = replace(result, structure=(*result.structure, *structure))
    checked = replace(checked, result=result)
    if not result.sound:
        return checked.given(unverified("the structure does not hold"))
    checked = replace(checked, feed=_feed(subject, opened, evidence, options))
    if evidence is not None and not evidence.cases:
        checked = checked.given(unverified("no sample fits the fixed dimensions"))
    elif evidence is not None:
        checked = _compare(pool, checked, reference, evidence, options)
    return _answered(pool, checked, options)


def _evidence(
    pool: WorkerPool,
    subject: Subject,
    reference: Opened | None,
    signature: Signature,
    options: ValidateOptions,
) -> Evidence | None:
    if reference is None:
        if subject.manifest is None or subject.artifact is None:
            return None
        return _kept(subject, subject.manifest.golden_of(subject.artifact))
    reference = in_terms_of(reference, signature)
    described = reference.description
    runtime = f" in {reference.ref.runtime}" if reference.ref.runtime else ""
    words = f"{reference.ref.display}{runtime} on %s samples"
    if options.data is not None:
        samples = datasets.read(options.data, described.signature, narrow=False)
        return evidence_of(pool, reference, samples.batches(), "data", words % "data")
    found = generated(pool, reference, options.seed, words % "generated")
    return found + edge_evidence(pool, reference, options.seed)


def _compare(
    pool: WorkerPool,
    checked: _Checked,
    reference: Opened | None,
    evidence: Evidence,
    options: ValidateOptions,
) -> _Checked:
    subject, opened = checked.subject, checked.opened
    quantization = subject.artifact.quantization if subject.artifact else None
    judgement = judgement_for(
        opened.description.precision,
        quantization.scheme if quantization else "",
        options.rtol,
        options.atol,
        reference=evidence.arithmetic,
    )
    recorded = subject.artifact.parity.rms_limit if subject.artifact else None
    judgement = replace(judgement, rms_limit=recorded or judgement.rms_limit)
    seen = _Witness()
    report = tried(pool, opened, evidence, judgement, reference=reference, witness=seen)
    checked = checked.given(report)
    signature = opened.ref.signature
    assert signature is not None
    if options.bisect is not None and checked.result.verdict is Verdict.FAILED:
        failure = Failure(opened, seen.evidence, seen.outputs, seen.judgement)
        checked = _bisected(pool, checked, reference, failure, options.bisect)
    if options.report is not None:
        details = details_of(signature, seen.evidence, seen.outputs, seen.judgement)
        checked = replace(checked, result=replace(checked.result, details=details))
    if reference is None or options.data is None:
        return checked
    # Both have answered all of the data already.
    labels = datasets.read(options.data, signature).labels
    if labels is None:
        return checked
    own, other = (
        scoring.answers(name, signature, outputs, labels, options.metric)
        for name, outputs in (
            (checked.result.path, seen.outputs),
            (reference.ref.display, seen.evidence.outputs),
        )
    )
    return replace(checked, answers=own, reference=other)


def _bisected(
    pool: WorkerPool,
    checked: _Checked,
    reference: Opened | None,
    failure: Failure,
    target: Path,
) -> _Checked:
    """Add where a failed artifact departs. The verdict stands, whatever comes of it."""
    try:
        if reference is None:
            beside = float_beside(checked.subject)
            if beside is None:
                log.warning("%s has no other artifact to be held against", checked.result.path)
                return checked
            reference = opened_subject(pool, beside)[0]
        signature = failure.candidate.ref.signature
        assert signature is not None
        found = bisect(pool, in_terms_of(reference, signature), failure, target)
    except ModelpackError as error:
        log.warning("where %s departs is not known: %s", checked.result.path, error.message)
        return checked
    return replace(checked, result=replace(checked.result, departure=found))


def _kept(subject: Subject, entry: Golden | None) -> Evidence | None:
    """Golden samples of the manifest, cut to what the artifact can be fed."""
    if entry is None or subject.manifest is None or subject.artifact is None:
        return None
    promised = subject.manifest.signature(subject.artifact.signature)
    kept = golden.read(entry, subject.root, promised)
    return kept.fitted_to(promised, subject.artifact.fixed_dims)


def _common(subject: Subject) -> Evidence | None:
    """The samples that all artifacts of a signature share, if there are any."""
    manifest, artifact = subject.manifest, subject.artifact
    if manifest is None or artifact is None:
        return None
    return _kept(subject, manifest.golden_of(replace(artifact, golden=None)))


def _feed(
    subject: Subject, opened: Opened, evidence: Evidence | None, options: ValidateOptions
) -> Case | None:
    """What a timed call is fed: if possible, the same for all artifacts of a manifest."""
    if not options.bench:
        return None
    shared = _common(subject)
    for known in (shared, evidence):
        if known is not None and known.cases:
            return known.cases[0]
    return generate(opened.description, seed=options.seed, cautious=True)[0]


def _benched(
    found: Sequence[_Checked], results: Sequence[ArtifactResult], options: ValidateOptions
) -> list[ArtifactResult]:
    timed = [item for item in found if item.feed is not None]
    measures = benched(
        [(item.opened.ref, item.feed) for item in timed if item.feed is not None], options.limits
    )
    benches = iter(measures)
    return [
        replace(result, bench=None if item.feed is None else next(benches))
        for item, result in zip(found, results, strict=True)
    ]


def _answered(pool: WorkerPool, checked: _Checked, options: ValidateOptions) -> _Checked:
    """Run an artifact on labelled data, unless it was already."""
    if options.data is None or checked.answers is not None:
        return checked
    signature = checked.opened.ref.signature
    assert signature is not None
    samples = datasets.read(options.data, signature)
    if samples.labels is None:
        return checked
    outputs, _ = run_cases(pool, checked.opened.ref, samples.batches())
    path = checked.result.path
    return replace(
        checked,
        answers=scoring.answers(path, signature, outputs, samples.labels, options.metric),
    )


def _scored(found: Sequence[_Checked], options: ValidateOptions) -> list[ArtifactResult]:
    """The results with metrics: beside the reference's, or else those of another artifact."""
    recorded = [(item, item.subject.artifact) for item in found if item.subject.artifact]
    answers = {scoring.key(artifact): item.answers for item, artifact in recorded}
    others = scoring.baseline([artifact for _, artifact in recorded])
    results = []
    for item in found:
        if item.answers is None:
            results.append(item.result)
            continue
        own = scoring.key(item.subject.artifact) if item.subject.artifact else ("", "")
        other = item.reference or answers.get(others.get(own, ("", "")))
        scores = scoring.scores(item.answers, other, options.seed)
        results.append(replace(item.result, scores=scores))
    return results
