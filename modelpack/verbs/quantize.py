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
    Step,
    measure,
)
from modelpack.errors import InputError, QuantizationError
from modelpack.golden import GOLDEN_ROWS
from modelpack.manifest import SCHEMA_VERSION, Manifest
from modelpack.output import check_writable
from modelpack.parity import Verdict
from modelpack.routes import formats
from modelpack.samples import Case, channel_last, write_cases
from modelpack.sources import (
    Opened,
    adapter_of,
    default_name,
    opened_result,
    provenance,
    recorded,
    run_step,
    worker_key,
    workspace,
)
from modelpack.steps import Calibration, QuantizeRequest
from modelpack.store import golden_name, labelled, save, single_format
from modelpack.verbs.building import places
from modelpack.verbs.costs import COMMON_SAMPLES, Trial, gated, loss, metric_of, trial_of
from modelpack.verbs.floats import FloatFile, Subject, float_files
from modelpack.worker import Limits, WorkerPool

log = logging.getLogger(__name__)

CALIBRATED = ("static-int8",)
CALIBRATION_ROWS = 1000


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
        trial = trial_of(pool, subject, options)
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
    trial: Trial,
    options: QuantizeOptions,
) -> Artifact:
    """The entry of a quantized signature, with its verdict."""
    ref, before = product.opened.ref, subject.artifact
    report, outputs = loss(pool, ref, trial, options)
    steps = (*(before.steps if before else ()), product.step)
    artifact = recorded(product.opened, steps, before.fixed_dims if before else {})
    figures = replace(
        metric_of(ref, trial, outputs, options),
        scheme=options.scheme,
        of=before.path if before else subject.opened.ref.path.name,
        calibration_samples=product.rows,
        size_ratio=_size_ratio(subject, artifact),
    )
    return gated(replace(artifact, parity=report, quantization=figures), before, options)


def _own_samples(
    subject: Subject, product: _Product, trial: Trial, options: QuantizeOptions
) -> tuple[Golden | None, Path]:
    """Golden samples of a signature's own and their file; None where the common ones suit it."""
    if trial.evidence.origin != COMMON_SAMPLES and trial.evidence.cases:
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
