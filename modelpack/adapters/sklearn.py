"""scikit-learn: fitted estimators and pipelines, and their way to ONNX."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import onnx
import sklearn

from modelpack import onnx_graph
from modelpack.adapters.boosters import library_of
from modelpack.adapters.sklearn_columns import Columns, columns_of, input_specs
from modelpack.adapters.sklearn_converters.writer import attach_ensembles, attach_few_trees
from modelpack.adapters.sklearn_loading import load, saved_by, scan, walk
from modelpack.adapters.sklearn_onnx import (
    OPSET,
    bind,
    convert,
    settle_opset,
)
from modelpack.adapters.sklearn_ranges import (
    input_ranges,
    rare_rows,
    takes_negatives,
    without_negatives,
)
from modelpack.adapters.sklearn_refusals import caveats, outline, refuse_boosters
from modelpack.adapters.sklearn_signature import (
    accepts_missing,
    answers,
    roles_of,
    sample,
    signature_of,
)
from modelpack.adapters.sklearn_tables import arranged, is_split, joined, split_input
from modelpack.adapters.sklearn_trees import correct_trees
from modelpack.adapters.sklearn_wide import widened
from modelpack.artifact import Encoding, ModelRef
from modelpack.dependencies import versions
from modelpack.errors import ConversionError, InputError, UnsupportedOpsError
from modelpack.samples import Case, numpy_dtype, read_cases, write_cases
from modelpack.signature import Signature, for_inputs, own_names, requested
from modelpack.steps import (
    Description,
    Range,
    RunOptions,
    RunResult,
    StepOptions,
    StepResult,
    timed,
)

__all__ = ["describe", "run", "scan", "to_onnx"]

_CHECK_ROWS = 64  # rows on which the outputs of a converted model are identified


# --- describing ----------------------------------------------------------------------


def describe(ref: ModelRef) -> Description:
    """Describe a fitted estimator; it is called on a few made-up rows to learn its outputs.

    Raises:
        InputError: the file holds no fitted estimator, or its inputs cannot be told.
        ConversionError: the estimator answers nothing that a signature can express.
        UntrustedSourceError: loading would run code of the file, and it is not trusted.
    """
    model = load(ref)
    columns, native, ranges = _native(_key(ref))
    signature = requested(native, ref.inputs, ref.outputs)
    return Description(
        signature,
        framework="sklearn",
        versions=versions("scikit-learn", "numpy", *_boosters(model)),
        saved_by=saved_by(ref),
        ops=dict(sorted(Counter(type(item).__name__ for _, item in walk(model)).items())),
        bindings=own_names(signature, native),
        ranges=for_inputs(ranges, native, signature),
        rare_rows=for_inputs(_rare_rows(model, columns, native, ranges), native, signature),
        accepts_nan=accepts_missing(model, columns, native.inputs, ranges),
        computes_in_float64=True,
        fingerprint=joblib.hash(model) if ref.encoding is Encoding.PYTHON else "",
    )


def _rare_rows(
    model: Any, columns: Columns, native: Signature, ranges: dict[str, Range]
) -> dict[str, tuple[tuple[float, ...], ...]]:
    if not is_split(columns):
        return rare_rows(model, native.inputs, ranges)
    whole = input_specs(joined(columns))
    found = rare_rows(model, whole, input_ranges(model, joined(columns), whole))
    rows = next(iter(found.values()), ())
    return {
        spec.name: tuple((row[index],) for row in rows)
        for index, spec in enumerate(native.inputs)
        if rows
    }


def _boosters(model: Any) -> list[str]:
    """Distributions of the boosters in an estimator."""
    used = {library_of(item) for _, item in walk(model)} - {""}
    return sorted("xgboost-cpu" if name == "xgboost" else name for name in used)


def _key(ref: ModelRef) -> ModelRef:
    """The part of a reference that decides on the native signature."""
    return ref.loading


@lru_cache
def _native(ref: ModelRef) -> tuple[Columns, Signature, dict[str, Range]]:
    model = load(ref)
    columns = arranged(columns_of(model), ref.input_form)
    specs = input_specs(columns)
    ranges = input_ranges(model, columns, specs)
    if not takes_negatives(model, columns, specs, ranges):
        ranges = without_negatives(specs, ranges)
    try:
        return columns, signature_of(model, columns, specs, ranges), ranges
    except InputError:
        refuse_boosters(model)
        raise


# --- running -------------------------------------------------------------------------


def run(ref: ModelRef, cases: str, outputs: str, options: RunOptions) -> RunResult:
    """Call the estimator itself; see `modelpack.adapters`.

    Raises:
        InputError: a feed does not fit the model.
    """
    options.refuse("threads", "nudge", "runtime")
    signature = ref.signature or describe(ref).signature
    model = widened(load(ref)) if options.wide else load(ref)
    feeds = read_cases(Path(cases), signature.inputs)
    results = [_answer(ref, model, signature, feed) for feed in feeds]
    latency = timed(lambda: _answer(ref, model, signature, feeds[0]), options.repeat)
    write_cases(Path(outputs), results)
    return RunResult(f"scikit-learn {sklearn.__version__}", latency)


def answer(ref: ModelRef, signature: Signature, feed: Case) -> Case:
    """Call the estimator.

    Raises:
        InputError: the feed does not fit the model.
    """
    return _answer(ref, load(ref), signature, feed)


def _answer(ref: ModelRef, model: Any, signature: Signature, feed: Case) -> Case:
    columns, native, _ = _native(_key(ref))
    arrays = []
    for spec in signature.inputs:
        array = feed[spec.name]
        if spec.shape is not None and array.ndim != len(spec.shape):
            raise InputError(f"input '{spec.name}' is {spec}, but was fed {array.shape}")
        # float64 is kept: artifacts take float32, and must not be compared with a source
        # that was given rounded values too.
        wide = array.dtype.name == "float64"
        arrays.append(array if wide else array.astype(numpy_dtype(spec.dtype), copy=False))
    # By position: the user may have renamed outputs.
    named = dict(zip((item.name for item in native.outputs), signature.outputs, strict=True))
    results = answers(model, columns, arrays)
    return {
        named[role.name].name: result for role, result in zip(roles_of(model), results, strict=True)
    }


def _as_fitted(columns: Columns, signature: Signature) -> tuple[Columns, Signature]:
    """Columns and signature before one tensor was split into columns."""
    if not is_split(columns):
        return columns, signature
    whole = joined(columns)
    return whole, replace(signature, inputs=input_specs(whole))


# --- exporting -----------------------------------------------------------------------


def to_onnx(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Convert to ONNX with skl2onnx, and put right what it gets wrong.

    Raises:
        UnsupportedOpsError: steps cannot be converted faithfully; all are listed.
        ConversionError: skl2onnx fails, or its result answers something else.
    """
    estimator = load(source)
    columns, native, ranges = _native(_key(source))
    signature = source.signature or requested(native, source.inputs, source.outputs)
    arrays = sample(native.inputs, ranges, _CHECK_ROWS)
    # In float64, as artifacts answer: near a threshold scikit-learn says something else in float32.
    wide = [array.astype(float) if array.dtype == "float32" else array for array in arrays]
    expected = answers(estimator, columns, wide)
    try:
        model = convert(estimator, *_as_fitted(columns, signature), options.opset)
        if is_split(columns):
            split_input(model, signature)
        correct_trees(model, estimator)
        onnx_graph.scrub(model)
        attach_few_trees(model)
        bind(model, signature, arrays, expected)
    except UnsupportedOpsError:  # names the steps itself
        raise
    except ConversionError as error:
        raise ConversionError(f"{outline(estimator)}: {error.message}", hint=error.hint) from error
    settle_opset(model, options.opset or OPSET)
    model.graph.name = options.name
    opset = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    if options.opset is not None and opset.get("ai.onnx", options.opset) != options.opset:
        raise ConversionError(
            f"skl2onnx wrote opset {opset['ai.onnx']}, not {options.opset}",
            hint=f"leave --opset away for its default, {OPSET}",
        )
    onnx.checker.check_model(model, full_check=True)
    attach_ensembles(model)
    onnx_graph.write(model, Path(target))
    return StepResult(
        versions("skl2onnx", "scikit-learn", "onnx"),
        {f"opset.{domain}": version for domain, version in sorted(opset.items())},
        notes=caveats(estimator),
    )
