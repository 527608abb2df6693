"""The verb quantize: smaller artifacts, with what they cost measured and gated."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from modelpack import datasets, golden
from modelpack.artifact import (
    SCHEMES,
    Artifact,
    Golden,
    ModelRef,
    Quantization,
    Step,
    measure,
)
from modelpack.errors import InputError, QuantizationError
from modelpack.golden import GOLDEN_ROWS, Evidence
from modelpack.judging.compare import GATED_RMS_LIMIT, QUANTIZED_RMS_LIMIT, compare, judgement_for
from modelpack.judging.runs import step_of
from modelpack.manifest import SCHEMA_VERSION, Manifest
from modelpack.metrics import chance, drop, evaluate, metric_for
from modelpack.output import check_writable
from modelpack.parity import ParityReport, Verdict, unverified
from modelpack.routes import formats
from modelpack.samples import Array, Case, channel_last, generate, write_cases
from modelpack.sources import (
    Opened,
    adapter_of,
    default_name,
    opened_result,
    provenance,
    recorded,
    run_cases,
    run_step,
    worker_key,
    workspace,
)
from modelpack.steps import Calibration, QuantizeRequest
from modelpack.store import golden_name, labelled, save, single_format
from modelpack.verbs.building import places
from modelpack.verbs.floats import FloatFile, Subject, float_files
from modelpack.worker import Limits, WorkerPool

log = logging.getLogger(__name__)

CALIBRATED = ("static-int8",)
CALIBRATION_ROWS = 1000
_COMMON_SAMPLES = "golden samples"


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """Options of `quantize`.

    Attributes:
        scheme: ``dynamic-int8`` (8-bit weights, activations quantized as the model runs),
            ``static-int8`` (8-bit weights and activations, ranges from calibration) or
            ``float16`` (16-bit weights).
        to: formats to quantize in a directory of several artifacts; all that can be, when empty.
        calibration: typical inputs, for ``static-int8``. At most 1000 rows are used.
        data: inputs, with labels for a metric, to measure the loss on; the golden samples,
            or the calibration data, when None.
        metric: one of `modelpack.metrics.METRICS`; chosen from the labels when empty.
        max_drop: largest accepted loss of the metric, in its own units.
        seed: of generated samples, where there is no data at all.
        keep_failed: write the result even if a gate closed.
        limits: of each step.
    """

    scheme: str
    to: tuple[str, ...] = ()
    calibration: Path | None = None
    data: Path | None = None
    metric: str = ""
    max_drop: float | None = None
    seed: int = 0
    keep_failed: bool = False
    limits: Limits = field(default_factory=Limits)


def quantize(model: str, output: Path, options: QuantizeOptions) -> Manifest:
    """Quantize ONNX and TFLite artifacts.

    Args:
        model: an ``.onnx`` or ``.tflite`` file, or a modelpack directory of them.
        output: a directory (to which the results are added as ``model.<scheme>.onnx``), or
            one file.
        options: see `QuantizeOptions`.

    Returns:
        The manifest as written.

    Raises:
        InputError: the model is in no format that can be quantized, or data is missing.
        QuantizationError: the model cannot be quantized so, or lost more than allowed.
    """
    _check_options(options)
    check_writable(output)
    with workspace(options.limits) as pool:
        floats = float_files(pool, model, options.to)
        if single_format(output) and len(floats) > 1:
            raise InputError(
                f"'{model}' holds {len(floats)} artifacts to quantize; '{output}' is one file",
                hint="choose one with --to, or give a directory",
            )
        results: list[Artifact] = []
        files: dict[str, Path] = {}
        for file in floats:
            artifacts, made = _quantize_one(pool, file, output, options)
            results += artifacts
            files |= made
        problems = _problems(results)
        if problems and not options.keep_failed:
            raise QuantizationError(
                "; ".join(problems) + " (nothing was written)",
                hint="try float16 or dynamic-int8, or more typical --calibration data",
            )
        manifest = _write(pool, output, floats[0], results, files)
    if problems:
        raise QuantizationError("; ".join(problems) + " (written, marked as failed)")
    return manifest


def _problems(results: Sequence[Artifact]) -> list[str]:
    """What each artifact that failed lost, which is one signature of its file."""
    paths = [item.path for item in results]
    return [
        f"{item.path}{of} lost too much: {item.parity.reason}"
        for item in results
        for of in [f" ({item.signature})" if paths.count(item.path) > 1 else ""]
        if item.parity.verdict is Verdict.FAILED
    ]


def _check_options(options: QuantizeOptions) -> None:
    if options.scheme not in SCHEMES:
        raise InputError(
            f"unknown scheme '{options.scheme}'", hint=f"use one of {', '.join(SCHEMES)}"
        )
    if options.scheme in CALIBRATED and options.calibration is None:
        raise InputError(f"{options.scheme} needs typical inputs", hint="add --calibration DATA")
    if options.max_drop is not None and options.data is None:
        raise InputError("--max-drop needs labelled samples", hint="add --data DATA with labels")


# --- one artifact --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Product:
    """A quantized file with one of its signatures.

    Attributes:
        opened: the file.
        step: what made it.
        rows: how many it was calibrated on.
        samples: what a file of golden samples of its own would be called.
    """

    opened: Opened
    step: Step
    rows: int
    samples: str


def _quantize_one(
    pool: WorkerPool, file: FloatFile, output: Path, options: QuantizeOptions
) -> tuple[list[Artifact], dict[str, Path]]:
    """Quantize one file; return an entry for each signature, and all files by their names."""
    ref = file[0].opened.ref
    path = _result_path(ref, output, options.scheme)
    log.info("quantizing %s to %s", ref.display, options.scheme)
    folder = Path(tempfile.mkdtemp(dir=pool.scratch))
    marks = [place.label for place in places(folder, _names(file))]
    samples = [_calibration(pool, item.opened.ref, options) for item in file]
    calibrations = [given for given, _ in samples]
    form = adapter_of(ref)
    result, made = run_step(
        pool,
        form.quantizer,
        ref,
        folder / path,
        QuantizeRequest(options.scheme, calibrations[0].cases, tuple(calibrations[1:])),
        form=form,
        extra=worker_key(form),
        failure=QuantizationError,
    )
    step = Step(form.quantizer, result.tools, result.options)
    artifacts: list[Artifact] = []
    files = {name: folder / name for name in (path, *made.description.sidecars)}
    for subject, (_, rows), mark in zip(file, samples, marks, strict=True):
        opened = made if subject is file[0] else _further(pool, made, subject, step)
        name = f"{labelled(path, mark) if mark else path}.golden.npz"
        product = _Product(opened, step, rows, name)
        trial = _trial(pool, subject, options)
        artifact = _judged(pool, subject, product, trial, options)
        kept, made_of = _own_samples(subject, product, trial, options)
        if kept is not None:
            kept = replace(kept, path=name if single_format(output) else kept.path)
            files[kept.path] = made_of
        artifacts.append(replace(artifact, golden=kept))
    return artifacts, files


def _names(file: FloatFile) -> list[str]:
    signatures = [item.opened.ref.signature for item in file]
    return [item.name for item in signatures if item is not None]


def _further(pool: WorkerPool, made: Opened, subject: Subject, step: Step) -> Opened:
    """A quantized file with another of its signatures, which must be that of the float one."""
    before = subject.opened.ref
    ref = replace(
        made.ref,
        signature=before.signature,
        channel_last=before.channel_last,
        signature_name=before.signature_name,
    )
    return opened_result(pool, ref, step.converter)


def _judged(
    pool: WorkerPool,
    subject: Subject,
    product: _Product,
    trial: _Trial,
    options: QuantizeOptions,
) -> Artifact:
    """The entry of a quantized signature, with its verdict."""
    ref, before = product.opened.ref, subject.artifact
    report, outputs = _loss(pool, ref, trial, options)
    steps = (*(before.steps if before else ()), product.step)
    artifact = recorded(product.opened, steps, before.fixed_dims if before else {})
    figures = replace(
        _metric(ref, trial, outputs, options),
        scheme=options.scheme,
        of=before.path if before else subject.opened.ref.path.name,
        calibration_samples=product.rows,
        size_ratio=_size_ratio(subject, artifact),
    )
    return _gated(replace(artifact, parity=report, quantization=figures), before, options)


def _own_samples(
    subject: Subject, product: _Product, trial: _Trial, options: QuantizeOptions
) -> tuple[Golden | None, Path]:
    """Golden samples of a signature's own and their file; None where the common ones suit it."""
    if trial.evidence.origin != _COMMON_SAMPLES and trial.evidence.cases:
        file = product.opened.ref.path.with_name(f"kept-{product.samples}")
        kept = trial.evidence.head(GOLDEN_ROWS)
        return golden.write(file, product.samples, kept, options.seed), file
    before = subject.artifact
    if before is None or before.golden is None:
        return None, Path()
    return before.golden, subject.root / before.golden.path  # of a further signature


def _size_ratio(subject: Subject, artifact: Artifact) -> float:
    opened = subject.opened
    return round(artifact.size / measure(opened.ref.path, opened.description.sidecars)[1], 3)


def _result_path(ref: ModelRef, output: Path, scheme: str) -> str:
    form = single_format(output)
    if form and form != ref.format:
        raise InputError(f"'{output}' is a {form} file, but the model is {ref.format}")
    if form:
        return output.name
    return f"{ref.path.stem}.{scheme}{formats()[ref.format].suffixes[0]}"


def _calibration(
    pool: WorkerPool, ref: ModelRef, options: QuantizeOptions
) -> tuple[Calibration, int]:
    """What to calibrate a signature with, and the number of rows."""
    assert ref.signature is not None
    own = ref.exchanged.signature
    assert own is not None
    if options.scheme not in CALIBRATED or options.calibration is None:
        return Calibration(own, ""), 0
    samples = datasets.read(options.calibration, ref.signature, rows=CALIBRATION_ROWS)
    _refuse_unusable(options.calibration, samples.inputs)
    file = Path(tempfile.mkdtemp(dir=pool.scratch)) / "calibration.npz"
    write_cases(file, [channel_last(case, ref.channel_last) for case in samples.batches()])
    return Calibration(own, str(file)), len(samples)


def _refuse_unusable(path: Path, inputs: Case) -> None:
    """Refuse calibration data that says nothing of an input's range."""
    for name, array in inputs.items():
        if array.dtype.kind != "f":
            continue
        if not np.isfinite(array).all():
            raise InputError(f"'{path.name}' holds NaN or infinity in '{name}'")
        if array.size > 1 and float(np.ptp(array)) == 0:
            raise InputError(f"all values of '{name}' in '{path.name}' are the same")


# --- what it costs -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trial:
    """What the quantized artifact is tried on: the float artifact's answers, and labels."""

    evidence: Evidence
    labels: Array | None = None


def _trial(pool: WorkerPool, subject: Subject, options: QuantizeOptions) -> _Trial:
    """Run the float artifact on the best inputs at hand: data, golden or generated samples."""
    ref = subject.opened.ref
    signature = ref.signature
    assert signature is not None
    labels = None
    data = options.data or options.calibration
    if data is not None:
        samples = datasets.read(data, signature)
        cases, labels, origin = samples.batches(), samples.labels, "data"
    elif subject.golden is not None:
        cases, origin = list(_golden_cases(subject)), _COMMON_SAMPLES
    else:
        step = step_of(pool, subject.opened, options.seed)
        cases = generate(subject.opened.description, seed=options.seed, step=step)
        origin = "generated"
    if options.max_drop is not None and labels is None:
        raise InputError(
            "the data has no labels, which --max-drop needs",
            hint=f"add an array or column called {datasets.LABEL_NAMES[0]}",
        )
    cases = [*cases, *_real_samples(subject, options)]
    outputs = run_cases(pool, ref, cases)[0] if cases else []
    reference = f"float {ref.format} artifact on {origin}"
    return _Trial(Evidence(cases, outputs, origin, reference), labels)


def _real_samples(subject: Subject, options: QuantizeOptions) -> Sequence[Case]:
    """Golden samples that are the user's data, to judge on more than the calibration data."""
    if options.data is not None or options.calibration is None:
        return []
    if subject.golden is None or subject.golden.origin != "data":
        return []
    return _golden_cases(subject)


def _golden_cases(subject: Subject) -> Sequence[Case]:
    """The golden samples that the float artifact can be fed."""
    manifest, artifact, entry = subject.manifest, subject.artifact, subject.golden
    assert manifest is not None
    assert artifact is not None
    assert entry is not None
    promised = manifest.signature(artifact.signature)
    kept = golden.read(entry, subject.root, promised)
    return kept.fitted_to(promised, artifact.fixed_dims).cases


def _loss(
    pool: WorkerPool, product: ModelRef, trial: _Trial, options: QuantizeOptions
) -> tuple[ParityReport, Sequence[Case]]:
    """Compare the quantized artifact with the float one; return its outputs too."""
    assert product.signature is not None
    evidence = trial.evidence
    if not evidence.cases:
        return unverified("no sample fits the artifact's fixed dimensions"), []
    log.info("comparing the quantized artifact with the float one")
    outputs, result = run_cases(pool, product, evidence.cases, failure=QuantizationError)
    judgement = replace(
        judgement_for("float32", options.scheme),
        rms_limit=QUANTIZED_RMS_LIMIT if options.max_drop is None else GATED_RMS_LIMIT,
        reference=evidence.reference,
        runtime=result.runtime,
    )
    return compare(product.signature, evidence, outputs, judgement), outputs


def _metric(
    product: ModelRef, trial: _Trial, outputs: Sequence[Case], options: QuantizeOptions
) -> Quantization:
    """The metric of both artifacts on labelled data; empty figures without labels."""
    blank = Quantization(options.scheme, "")
    signature = product.signature
    assert signature is not None
    if trial.labels is None or len(trial.labels) != _rows(trial):
        return blank
    metric = options.metric or metric_for(signature, trial.labels)
    before, after = (
        evaluate(metric, signature, answers, trial.labels)
        for answers in (trial.evidence.outputs, outputs)
    )
    _refuse_chance(metric, before, trial.labels, options)
    return replace(
        blank,
        metric=metric,
        reference_metric=round(before, 6),
        candidate_metric=round(after, 6),
    )


def _rows(trial: _Trial) -> int:
    return sum(len(next(iter(case.values()))) for case in trial.evidence.cases)


def _refuse_chance(metric: str, value: float, labels: Array, options: QuantizeOptions) -> None:
    """Refuse a gate on labels that do not belong to the data: it would always be open."""
    guessed = chance(metric, labels)
    if options.max_drop is not None and guessed is not None and value <= guessed:
        raise InputError(
            f"the float artifact's own {metric} is {value:.4f}, no better than guessing "
            f"({guessed:.4f}): --max-drop would say nothing",
            hint="check that the labels belong to the samples",
        )


def _gated(artifact: Artifact, before: Artifact | None, options: QuantizeOptions) -> Artifact:
    """The artifact with its verdict, failed where a gate closed."""
    report = artifact.parity
    if report.verdict is Verdict.FAILED:
        return artifact
    if before is not None and before.parity.verdict is Verdict.UNVERIFIED:
        reason = f"made from {before.path}, which is unverified: {before.parity.reason}"
        report = replace(report, verdict=Verdict.UNVERIFIED, reason=reason)
        artifact = replace(artifact, parity=report)
    lost = _lost(artifact, options)
    if not lost:
        return artifact
    return replace(artifact, parity=replace(report, verdict=Verdict.FAILED, reason=lost))


def _lost(artifact: Artifact, options: QuantizeOptions) -> str:
    """What the gate on the metric has to say; empty when it lets the artifact pass."""
    figures = artifact.quantization
    if figures is None or options.max_drop is None or figures.reference_metric is None:
        return ""
    assert figures.candidate_metric is not None
    lost = drop(figures.metric, figures.reference_metric, figures.candidate_metric)
    if lost <= options.max_drop:
        return ""
    return (
        f"{figures.metric} went from {figures.reference_metric:g} to "
        f"{figures.candidate_metric:g}, a loss of {lost:.4g}; {options.max_drop:g} is allowed"
    )


# --- recording -----------------------------------------------------------------------


def _write(
    pool: WorkerPool,
    output: Path,
    file: FloatFile,
    results: Sequence[Artifact],
    files: dict[str, Path],
) -> Manifest:
    manifest = _based_on(file).with_artifacts(*results)
    entry = manifest.golden
    if single_format(output) and results[0].signature != manifest.signatures[0].name:
        manifest = replace(manifest, golden=None)
    elif single_format(output) and results[0].golden is not None:
        # One file needs one set of samples: its own, which is under the common name already.
        first = replace(results[0], golden=None)
        manifest = replace(manifest, golden=results[0].golden)
        manifest = manifest.with_artifacts(first, *results[1:])
    elif entry is not None:
        name = golden_name(output)
        files = {**files, name: file[0].root / entry.path}
        manifest = replace(manifest, golden=replace(entry, path=name))
    return save(output, manifest, files, pool.scratch)


def _based_on(file: FloatFile) -> Manifest:
    """A manifest without artifacts that says where the float artifact came from."""
    manifest, opened = file[0].manifest, file[0].opened
    if manifest is not None:
        return replace(manifest, artifacts=())
    signatures = (item.opened.ref.signature for item in file)
    return Manifest(
        modelpack=SCHEMA_VERSION,
        name=default_name(opened.ref),
        version="1",
        source=provenance(opened),
        signatures=tuple(item for item in signatures if item is not None),
    )
