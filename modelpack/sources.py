"""Opens models for the verbs: finds out what a path or reference is, and describes it safely."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelpack import reference
from modelpack.artifact import (
    FORMAT_OF_ENCODING,
    MANIFEST_NAME,
    Artifact,
    Encoding,
    ModelRef,
    Step,
    contradicts,
    detect,
    encoding_of,
    measure,
)
from modelpack.dependencies import versions
from modelpack.errors import ContractError, InputError, ModelpackError, UntrustedSourceError
from modelpack.manifest import Source
from modelpack.output import scratch
from modelpack.routes import Converter, Format, formats
from modelpack.samples import (
    Case,
    channel_first,
    channel_last,
    read_cases,
    write_cases,
)
from modelpack.signature import EVERY_SIGNATURE, TensorSpec, differences
from modelpack.steps import (
    Description,
    QuantizeRequest,
    RunOptions,
    RunResult,
    StepOptions,
    StepResult,
)
from modelpack.worker import Limits, WorkerPool

log = logging.getLogger(__name__)

INPUT_FORMS = ("", "columns", "tensor")
"""How a table is taken: an input per column, or one; empty for what suits the model."""

WITH_NAMES = ("savedmodel", "tflite")
"""Formats whose files may have several signatures."""

# The worker of a Python reference before it is known which framework it belongs to.
_UNRESOLVED = "python"


@dataclass(frozen=True, slots=True)
class Request:
    """What the user said about a model.

    Attributes:
        model: a path, or a Python reference ``module:attribute`` or ``file.py:attribute``.
        weights: state dict for a Python reference.
        trust: whether loading may run code that the file contains.
        inputs: input specs.
        outputs: output names, in order.
        runtime: what is to run it, by a name of its format; empty for the usual one.
        factory_args: what a Python reference is called with, as JSON; empty for nothing.
        imports: modules (names, or paths of files) to import before it is loaded.
        allow_version_drift: whether a file may be loaded that another version of its
            framework saved.
        input_form: one of `INPUT_FORMS`.
        signature_name: which signature of a SavedModel or TFLite file is meant; empty for the
            usual one.
    """

    model: str
    weights: Path | None = None
    trust: bool = False
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[str, ...] = ()
    runtime: str = ""
    factory_args: str = ""
    imports: tuple[str, ...] = ()
    allow_version_drift: bool = False
    input_form: str = ""
    signature_name: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that is known to be loadable, with its signature settled in ``ref``."""

    ref: ModelRef
    description: Description


@contextlib.contextmanager
def workspace(limits: Limits) -> Iterator[WorkerPool]:
    """Workers and a scratch directory for one command; both are gone at its end."""
    with scratch() as directory, WorkerPool(directory, limits) as pool:
        yield pool


def locate(request: Request) -> ModelRef:
    """Tell what the request means, from the file system alone; nothing is loaded.

    Raises:
        InputError: there is no such file, it is no model, or weights do not belong here.
    """
    if request.input_form not in INPUT_FORMS:
        raise InputError(
            f"unknown form of inputs '{request.input_form}'", hint="use columns or tensor"
        )
    weights = request.weights
    parts = reference.split(request.model)
    if "://" in request.model:
        location, encoding = _address(request.model), Encoding.SERVER
    elif parts is not None and not Path(request.model).exists():
        module, attribute = parts
        if module.endswith(".py"):
            module = str(Path(module).absolute())
        if weights is not None and not weights.is_file():
            raise InputError(f"there is no weights file '{weights}'")
        location, encoding = f"{module}:{attribute}", Encoding.PYTHON
    else:
        path = Path(request.model).absolute()
        if path.name == MANIFEST_NAME and path.is_file():
            path = path.parent
        location, encoding = str(path), detect(path)
        if contradicts(path, encoding):
            log.warning("%s is called %s, but is %s", path.name, path.suffix, encoding.value)
    if weights is not None and encoding is not Encoding.PYTHON:
        raise InputError(
            "--weights belongs to a Python reference, not to a model file",
            hint="give the model as module:attribute or file.py:attribute",
        )
    factory_args = reference.canonical_arguments(request.factory_args)
    if factory_args and encoding is not Encoding.PYTHON:
        raise InputError(
            "--factory-args belongs to a Python reference, not to a model file",
            hint="give the model as module:attribute or file.py:attribute",
        )
    if encoding is Encoding.SAFETENSORS:
        raise InputError(
            f"'{request.model}' holds only weights, not the model",
            hint=f"give the model as file.py:attribute with --weights {request.model}",
        )
    return ModelRef(
        format=FORMAT_OF_ENCODING.get(encoding, ""),
        encoding=encoding,
        location=location,
        weights=str(weights.absolute()) if weights else "",
        trusted=request.trust,
        inputs=request.inputs,
        outputs=request.outputs,
        runtime=request.runtime,
        factory_args=factory_args,
        imports=tuple(reference.located_module(name) for name in request.imports),
        allow_version_drift=request.allow_version_drift,
        input_form=request.input_form,
        signature_name=request.signature_name,
    )


def _address(model: str) -> str:
    if not model.startswith(("http://", "https://")):
        raise InputError(
            f"'{model}' is no address that can be spoken to", hint="use http:// or https://"
        )
    return model


def adapter_of(ref: ModelRef) -> Format:
    """The format entry, with its adapter, of a model.

    Raises:
        InputError: it is a directory or archive of several artifacts, not one model.
    """
    if ref.encoding in {Encoding.MODELPACK, Encoding.ARCHIVE}:
        raise InputError(f"'{ref.display}' is not a single model", hint="name one artifact in it")
    if ref.format not in formats():
        raise InputError(
            f"'{ref.display}' has the format '{ref.format}', which nothing installed here reads",
            hint="install the plug-in that brings this format",
        )
    return formats()[ref.format]


def worker_key(form: Format) -> str:
    """The worker a format's adapter runs in: formats that share libraries share a worker."""
    return form.extra or form.name


def open_model(pool: WorkerPool, ref: ModelRef) -> Opened:
    """Resolve, scan and describe a model.

    Raises:
        UntrustedSourceError: loading it would run code it contains, and it is not trusted.
        InputError: it cannot be read or is no usable model.
    """
    if ref.encoding is Encoding.PYTHON and not ref.format:
        framework = pool.call(
            _UNRESOLVED, "modelpack.reference:resolve", str, ref, failure=InputError
        )
        ref = replace(ref, format=framework)
        pool.rename(_UNRESOLVED, worker_key(adapter_of(ref)))
    ref = replace(ref, runtime=_runtime(adapter_of(ref), ref.runtime))
    if ref.input_form and ref.format != "sklearn":
        raise InputError(
            f"'{ref.display}' takes no table: --inputs is for scikit-learn models and boosters"
        )
    if ref.format not in WITH_NAMES and ref.signature_name not in {"", EVERY_SIGNATURE}:
        raise InputError(
            f"'{ref.display}' has no named signatures: only SavedModels and TFLite files do"
        )
    if not ref.trusted:
        refuse_unsafe(ref, scan(pool, ref))
    form = adapter_of(ref)
    description = pool.call(
        worker_key(form), f"{form.adapter}:describe", Description, ref.exchanged, failure=InputError
    )
    return _opened(ref, description)


def _runtime(form: Format, name: str) -> str:
    """The runtime's name as adapters know it: empty for the usual one."""
    if not name or (form.runtimes and name == form.runtimes[0]):
        return ""
    if name not in form.runtimes:
        raise InputError(
            f"no runtime called '{name}' runs {form.name} models",
            hint=f"use one of {', '.join(form.runtimes)}"
            if form.runtimes
            else "they run in one way only: leave the runtime out",
        )
    return name


def _opened(ref: ModelRef, found: Description) -> Opened:
    """The model with the signature that was found, in the order of axes that the ref means."""
    signature = found.signature.channel_first(ref.channel_last)
    return Opened(replace(ref, signature=signature), replace(found, signature=signature))


def scan(pool: WorkerPool, ref: ModelRef) -> list[str]:
    """List what in a file would run code when it is loaded; nothing is loaded."""
    form = adapter_of(ref)
    if not form.can_run_code or ref.encoding is Encoding.PYTHON:
        return []
    return pool.call(worker_key(form), f"{form.adapter}:scan", list[str], ref, failure=InputError)


def refuse_unsafe(ref: ModelRef, findings: Sequence[str]) -> None:
    """Refuse a file in which something was found.

    Raises:
        UntrustedSourceError: there are findings.
    """
    if findings:
        listing = "\n".join(f"  - {finding}" for finding in findings)
        raise UntrustedSourceError(
            f"loading '{ref.display}' can run code that it contains; it was not loaded. "
            f"Found in it:\n{listing}",
            hint="if you trust where it came from, repeat with --trust",
        )


def run_step(
    pool: WorkerPool,
    entry: str,
    source: ModelRef,
    target: Path,
    options: StepOptions | QuantizeRequest,
    *,
    form: Format,
    extra: str,
    failure: type[ModelpackError],
) -> tuple[StepResult, Opened]:
    """Run a conversion or quantization step and check what it wrote.

    The result must have the names, dtypes, ranks and dynamic dimensions of the source's
    signature, but for the dimensions that the step says it fixed.

    Args:
        pool: the workers.
        entry: ``module:function`` of the step.
        source: what it reads; its signature is settled.
        target: what it writes.
        options: handed to it.
        form: the format it writes.
        extra: the extra that brings what it imports.
        failure: the error that stands for an unexpected exception of the step.

    Raises:
        ContractError: it wrote nothing, or did not keep the signature.
    """
    result = pool.call(
        extra or form.name,
        entry,
        StepResult,
        source.exchanged,
        str(target),
        options,
        failure=failure,
    )
    for note in result.notes:
        log.warning("%s", note)
    # Quantizing keeps all signatures of a file; converting takes one.
    name = source.signature_name if isinstance(options, QuantizeRequest) else ""
    product = _product(source, result, target, form)
    return result, opened_result(pool, replace(product, signature_name=name), entry)


def _product(source: ModelRef, result: StepResult, target: Path, form: Format) -> ModelRef:
    assert source.signature is not None
    return ModelRef(
        form.name,
        encoding_of(form.name),
        str(target),
        signature=source.signature.with_dims(result.fixed_dims),
        channel_last=(*source.channel_last, *result.channel_last),
    )


def run_joint_step(
    pool: WorkerPool,
    step: Converter,
    sources: Sequence[ModelRef],
    target: Path,
    options: StepOptions,
) -> list[tuple[StepResult, Opened]]:
    """Run a conversion step that writes one artifact of several signatures.

    Args:
        pool: the workers.
        step: has a joint entry.
        sources: what it reads; their signatures are settled, and have different names.
        target: what it writes.
        options: handed to it.

    Returns:
        for each source what was done, and the artifact, opened with its signature.

    Raises:
        ContractError: it wrote nothing, or did not keep a signature.
    """
    form = formats()[step.target]
    results = pool.call(
        step.extra or form.name,
        step.joint,
        list[StepResult],
        [source.exchanged for source in sources],
        str(target),
        options,
    )
    for note in dict.fromkeys(note for result in results for note in result.notes):
        log.warning("%s", note)
    found = []
    for source, result in zip(sources, results, strict=True):
        product = _product(source, result, target, form)
        assert product.signature is not None
        named = replace(product, signature_name=product.signature.name)
        found.append((result, opened_result(pool, named, step.joint)))
    return found


def joined(
    pool: WorkerPool, form: Format, parts: Sequence[ModelRef], target: Path
) -> tuple[StepResult, list[Opened]]:
    """Put files of one signature each into one, and check that it has each of them.

    Args:
        pool: the workers.
        form: the format of all files, which has a joiner.
        parts: the files; their signatures are settled, and have different names.
        target: the file that is written.

    Returns:
        The step, and the file, opened with the signature of each part.

    Raises:
        ContractError: it wrote nothing, or did not keep a signature.
        ConversionError: the parts cannot be one file.
    """
    result = pool.call(
        worker_key(form), form.joiner, StepResult, [part.exchanged for part in parts], str(target)
    )
    opened = []
    for part in parts:
        assert part.signature is not None
        whole = replace(part, location=str(target), signature_name=part.signature.name)
        opened.append(opened_result(pool, whole, form.joiner))
    return result, opened


def opened_result(pool: WorkerPool, product: ModelRef, entry: str) -> Opened:
    """Open what a step wrote, and check that it has the signature that is in force.

    Args:
        pool: the workers.
        product: the file; its signature is what it must have.
        entry: of the step.

    Raises:
        ContractError: there is nothing, or it does not have the signature.
    """
    if not product.path.exists():
        raise ContractError(f"{entry} reported success but wrote nothing")
    form, expected = adapter_of(product), product.exchanged
    found = pool.call(
        worker_key(form), f"{form.adapter}:describe", Description, expected, failure=ContractError
    )
    assert expected.signature is not None
    broken = differences(expected.signature, found.signature)
    if broken:
        raise ContractError(
            f"{entry} did not keep the signature: " + "; ".join(broken),
            hint="this is a defect of the converter; try another format or name",
        )
    return replace(_opened(product, found), ref=product)


def run_cases(
    pool: WorkerPool,
    ref: ModelRef,
    cases: Sequence[Case],
    *,
    options: RunOptions | None = None,
    failure: type[ModelpackError] = InputError,
    worker: str = "",
) -> tuple[list[Case], RunResult]:
    """Run a model on cases in its worker and return its outputs, by signature names.

    Args:
        pool: the workers.
        ref: the model, its signature settled.
        cases: feeds by signature names.
        options: how to run it; as usual by default.
        failure: the error that stands for an unexpected exception.
        worker: a worker of its own, by any key; that of the format by default.
    """
    own = ref.exchanged
    assert own.signature is not None
    feeds, results = pool.scratch / "feeds.npz", pool.scratch / "results.npz"
    write_cases(feeds, [channel_last(case, ref.channel_last) for case in cases])
    form = adapter_of(ref)
    options = options or RunOptions()
    result = pool.call(
        worker or worker_key(form),
        f"{form.adapter}:run",
        RunResult,
        own,
        str(feeds),
        str(results),
        replace(options, runtime=options.runtime or ref.runtime),
        failure=failure,
    )
    outputs = read_cases(results, own.signature.outputs)
    return [channel_first(case, ref.channel_last) for case in outputs], result


def recorded(made: Opened, steps: tuple[Step, ...], fixed_dims: Mapping[str, int]) -> Artifact:
    """The manifest's entry of a file that was made, before it is compared with anything."""
    ref, found = made.ref, made.description
    digest, size = measure(ref.path, found.sidecars)
    assert ref.signature is not None
    return Artifact(
        path=ref.path.name,
        format=ref.format,
        digest=digest,
        size=size,
        precision=found.precision,
        signature=ref.signature.name,
        opset=found.opset,
        steps=steps,
        bindings=found.bindings,
        fixed_dims=dict(fixed_dims),
        channel_last=ref.channel_last,
        sidecars=found.sidecars,
    )


def provenance(opened: Opened) -> Source:
    """Say what the model is, for the manifest: names and digests, no directories."""
    ref = opened.ref
    digest, file = "", ref.display
    if ref.encoding is Encoding.PYTHON:
        module = ref.location.rpartition(":")[0]
        # Code alone does not say which weights it loads: the same code may load others later.
        code = measure(Path(module))[0] if module.endswith(".py") else ""
        identity = f"{code}\n{opened.description.fingerprint}\n{ref.factory_args}"
        digest = "sha256:" + hashlib.sha256(identity.encode()).hexdigest()
    else:
        digest = measure(ref.path, opened.description.sidecars)[0]
    weights = {}
    if ref.weights:
        path = Path(ref.weights)
        weights = {"file": path.name, "digest": measure(path)[0]}
    return Source(
        framework=opened.description.framework or ref.format,
        file=file,
        digest=digest,
        weights=weights,
        factory_args=json.loads(ref.factory_args or "{}"),
        saved_by=opened.description.saved_by,
        versions=opened.description.versions | versions("numpy"),
    )


def default_name(ref: ModelRef) -> str:
    """A name for the model: of the file without its suffix, or of the reference's attribute."""
    if ref.encoding is Encoding.PYTHON:
        module, _, attribute = ref.location.rpartition(":")
        stem = Path(module).stem if module.endswith(".py") else module.rpartition(".")[2]
        return stem if attribute in {"build", "model", "create", "main"} else attribute
    return ref.path.name.removesuffix(ref.path.suffix) or "model"
