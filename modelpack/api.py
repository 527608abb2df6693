"""The verbs as functions: the options of the command line as keywords, live models too.

A live model is first saved in its framework's own format, so that what runs is the same
path as for a file. Nothing is printed; progress goes to the logger ``modelpack``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelpack.errors import InputError
from modelpack.manifest import Manifest
from modelpack.output import scratch
from modelpack.reference import framework_of
from modelpack.signature import TensorSpec
from modelpack.sources import Request
from modelpack.validation import ValidationReport
from modelpack.verbs import convert as _convert
from modelpack.verbs import package as _package
from modelpack.verbs import quantize as _quantize
from modelpack.verbs import validate as _validate
from modelpack.verbs.inspect import Inspection
from modelpack.verbs.inspect import inspect as _inspect
from modelpack.worker import Limits

AnyPath = str | os.PathLike[str]
Specs = Iterable[str | TensorSpec]
FactoryArgs = Mapping[str, Any] | Sequence[Any]


def convert(
    model: Any,
    output: AnyPath,
    *,
    to: str | Iterable[str] = (),
    inputs: Specs = (),
    outputs: Iterable[str] = (),
    weights: AnyPath | None = None,
    factory_args: FactoryArgs = (),
    imports: Iterable[str] = (),
    trust: bool = False,
    allow_version_drift: bool = False,
    input_form: str = "",
    signatures: str | Iterable[str] = (),
    data: AnyPath | None = None,
    name: str = "",
    version: str = "",
    opset: int | None = None,
    input_layout: str = "",
    select_ops: bool = False,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    validate: bool = True,
    keep_failed: bool = False,
    limits: Limits | None = None,
) -> Manifest:
    """Convert a model and check each artifact against it.

    Args:
        model: a path, a Python reference, or a live Keras, PyTorch or scikit-learn model.
        output: a directory, or a file such as ``model.onnx``.
        to: formats: onnx, tflite, savedmodel.
        inputs: specs as ``'name:dtype[dim,...]'`` or `TensorSpec`.
        outputs: names of the outputs, in order.
        factory_args: what a Python reference is called with: keywords by name, or a sequence
            of positions; plain values, as JSON has them.
        imports: modules, or files, to import before the model is loaded.
        signatures: names of the signatures of a SavedModel or TFLite file, or "all".

    The other keywords are those of `modelpack.verbs.convert.ConvertOptions`.

    Raises:
        ModelpackError: the typed error of what went wrong; see `modelpack.errors`.
    """
    options = _convert.ConvertOptions(
        to=(to,) if isinstance(to, str) else tuple(to),
        inputs=_specs(inputs),
        outputs=tuple(outputs),
        weights=_path(weights),
        factory_args=_json(factory_args),
        imports=tuple(imports),
        trust=trust,
        allow_version_drift=allow_version_drift,
        input_form=input_form,
        signatures=(signatures,) if isinstance(signatures, str) else tuple(signatures),
        data=_path(data),
        name=name,
        version=version,
        opset=opset,
        input_layout=input_layout,
        select_ops=select_ops,
        rtol=rtol,
        atol=atol,
        seed=seed,
        validate=validate,
        keep_failed=keep_failed,
        limits=limits or Limits(),
    )
    with _located(model, options) as (location, settled):
        return _convert.convert(location, Path(output), settled)


def export(model: Any, output: AnyPath, **options: Any) -> Manifest:
    """Convert a model that is still in its framework; keywords as `convert`.

    Raises:
        InputError: the model is an artifact already.
    """
    if isinstance(model, str | os.PathLike):
        _convert.require_framework(os.fspath(model))
    return convert(model, output, **options)


def quantize(
    model: AnyPath,
    output: AnyPath,
    *,
    scheme: str,
    to: str | Iterable[str] = (),
    calibration: AnyPath | None = None,
    data: AnyPath | None = None,
    metric: str = "",
    max_drop: float | None = None,
    seed: int = 0,
    keep_failed: bool = False,
    limits: Limits | None = None,
) -> Manifest:
    """Quantize artifacts; keywords as `modelpack.verbs.quantize.QuantizeOptions`.

    Raises:
        QuantizationError: the model cannot be quantized so, or lost more than allowed.
    """
    options = _quantize.QuantizeOptions(
        scheme=scheme,
        to=(to,) if isinstance(to, str) else tuple(to),
        calibration=_path(calibration),
        data=_path(data),
        metric=metric,
        max_drop=max_drop,
        seed=seed,
        keep_failed=keep_failed,
        limits=limits or Limits(),
    )
    return _quantize.quantize(os.fspath(model), Path(output), options)


def validate(
    model: AnyPath,
    *,
    reference: AnyPath = "",
    weights: AnyPath | None = None,
    factory_args: FactoryArgs = (),
    imports: Iterable[str] = (),
    runtime: str = "",
    reference_runtime: str = "",
    trust: bool = False,
    allow_version_drift: bool = False,
    input_form: str = "",
    signature_name: str = "",
    inputs: Specs = (),
    data: AnyPath | None = None,
    metric: str = "",
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    bench: bool = False,
    bisect: AnyPath | None = None,
    report: AnyPath | None = None,
    junit: AnyPath | None = None,
    limits: Limits | None = None,
) -> ValidationReport:
    """Check artifacts; keywords as `modelpack.verbs.validate.ValidateOptions`.

    Returns:
        The report, which is truthy only when nothing failed and something was compared.
        A disagreement does not raise.
    """
    options = _validate.ValidateOptions(
        reference=os.fspath(reference),
        weights=_path(weights),
        factory_args=_json(factory_args),
        imports=tuple(imports),
        runtime=runtime,
        reference_runtime=reference_runtime,
        trust=trust,
        allow_version_drift=allow_version_drift,
        input_form=input_form,
        signature_name=signature_name,
        inputs=_specs(inputs),
        data=_path(data),
        metric=metric,
        rtol=rtol,
        atol=atol,
        seed=seed,
        bench=bench,
        bisect=_path(bisect),
        report=_path(report),
        junit=_path(junit),
        limits=limits or Limits(),
    )
    return _validate.validate(os.fspath(model), options)


def package(
    directory: AnyPath,
    output: AnyPath,
    *,
    layout: str | Iterable[str],
    name: str = "",
    version: str = "",
    max_batch_size: int = 0,
    artifact: str = "",
    allow_failed: bool = False,
) -> list[Path]:
    """Lay a modelpack directory out; keywords as `modelpack.verbs.package.PackageOptions`.

    Raises:
        PackagingError: a layout cannot be written from these artifacts.
    """
    options = _package.PackageOptions(
        layouts=(layout,) if isinstance(layout, str) else tuple(layout),
        name=name,
        version=version,
        max_batch_size=max_batch_size,
        artifact=artifact,
        allow_failed=allow_failed,
    )
    return _package.package(Path(directory), Path(output), options)


def inspect(
    model: AnyPath,
    *,
    weights: AnyPath | None = None,
    factory_args: FactoryArgs = (),
    imports: Iterable[str] = (),
    trust: bool = False,
    allow_version_drift: bool = False,
    input_form: str = "",
    signature_name: str = "",
    inputs: Specs = (),
    limits: Limits | None = None,
) -> Inspection:
    """Describe a file, directory, package or Python reference.

    Raises:
        InputError: it cannot be read or is no model.
    """
    request = Request(
        os.fspath(model),
        _path(weights),
        trust,
        _specs(inputs),
        factory_args=_json(factory_args),
        imports=tuple(imports),
        allow_version_drift=allow_version_drift,
        input_form=input_form,
        signature_name=signature_name,
    )
    return _inspect(request, limits)


def _path(value: AnyPath | None) -> Path | None:
    return None if value is None else Path(value)


def _json(arguments: FactoryArgs) -> str:
    """The arguments of a factory as the command line takes them.

    Raises:
        InputError: JSON has no such values.
    """
    if not arguments:
        return ""
    if isinstance(arguments, str):
        return arguments
    plain = dict(arguments) if isinstance(arguments, Mapping) else list(arguments)
    try:
        return json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the arguments of the factory are no plain values: {error}",
            hint="give numbers, text, lists and dicts, or a function that makes the rest",
        ) from None


def _specs(values: Specs) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec.parse(value) if isinstance(value, str) else value for value in values)


@contextlib.contextmanager
def _located(
    model: Any, options: _convert.ConvertOptions
) -> Iterator[tuple[str, _convert.ConvertOptions]]:
    """Give a model as a path or reference; a live one is saved for as long as it is needed."""
    if isinstance(model, str | os.PathLike):
        yield os.fspath(model), options
        return
    framework = framework_of(model)
    savers = {"keras": _save_keras, "torch": _save_torch, "sklearn": _save_sklearn}
    if framework not in savers:
        raise InputError(
            f"a {type(model).__name__} is no Keras, PyTorch or scikit-learn model, nor a path"
        )
    with scratch() as directory:
        from dataclasses import replace

        path = savers[framework](model, directory, options)
        # We wrote the file ourselves, from a model the caller holds: loading it runs
        # nothing that the caller does not already have.
        yield str(path), replace(options, trust=True)


def _save_keras(model: Any, directory: Path, options: _convert.ConvertOptions) -> Path:
    path = directory / f"{options.name or model.name}.keras"
    model.save(path)
    return path


def _save_sklearn(model: Any, directory: Path, options: _convert.ConvertOptions) -> Path:
    import joblib

    path = directory / f"{options.name or type(model).__name__}.joblib"
    joblib.dump(model, path)
    return path


def _save_torch(model: Any, directory: Path, options: _convert.ConvertOptions) -> Path:
    """Export a live module to ``.pt2`` with the dynamic dims of ``options.inputs``."""
    import torch

    path = directory / f"{options.name or type(model).__name__}.pt2"
    if isinstance(model, torch.export.ExportedProgram):
        torch.export.save(model, path)
        return path
    if isinstance(model, torch.jit.ScriptModule):
        torch.jit.save(model, path.with_suffix(".pt"))
        return path.with_suffix(".pt")
    from modelpack.adapters.torch_exporting import save_program

    if not options.inputs:
        raise InputError(
            "a PyTorch module does not say what its inputs are",
            hint="add inputs=['image:float32[batch,3,224,224]']",
        )
    save_program(model, options.inputs, path)
    return path
