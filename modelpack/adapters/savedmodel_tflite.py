"""SavedModels to TFLite: by TensorFlow's converter, or, for its loops, by way of ONNX."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from modelpack.adapters import tensorflow_lowering, tensorflow_tflite
from modelpack.adapters.savedmodel_file import native_signature
from modelpack.adapters.tensorflow import (
    convertible,
    describe,
    load,
    to_onnx,
    traced,
)
from modelpack.adapters.tensorflow_freezing import refuse_changes
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError, UnsupportedOpsError
from modelpack.signature import Signature
from modelpack.steps import StepOptions, StepResult

log = logging.getLogger(__name__)


def to_tflite(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Write a TFLite model of built-in ops with the names and dims of the signature.

    The converter does not take a recurrent layer whose batch dimension is dynamic, and has
    no form for some ops. Such a model is taken by way of ONNX, which the result says; where
    that cannot take it either, loops get a batch of 1, which the result says too.

    Raises:
        UnsupportedOpsError: ops have no built-in form; the message lists every one.
        ConversionError: the conversion failed.
    """
    loaded = load(source)
    function, names, owner = convertible(source)
    signature = source.signature or describe(source).signature
    same = _static_dims(native_signature(source)[0]) == _static_dims(signature)
    as_it_is = same and owner is loaded.model
    made = tensorflow_tflite.Source(
        path=source.location if as_it_is else "",
        key=loaded.chosen,
        model=owner,
        trace=lambda wanted: traced(function, names, wanted),
    )
    refuse_changes(made.trace(signature))
    select_ops = options.select_ops
    unsupported: UnsupportedOpsError | None = None
    try:
        return tensorflow_tflite.write_dynamic(made, signature, Path(target), select_ops=select_ops)
    except UnsupportedOpsError as error:
        unsupported = error
    except tensorflow_tflite.DynamicLoopError:
        pass
    try:
        return _through_onnx(replace(source, signature=signature), target, options)
    except ConversionError as error:
        log.info("it cannot be taken to TFLite by way of ONNX either: %s", error)
    if unsupported is not None:
        raise unsupported
    return tensorflow_tflite.write_fixed(made, signature, Path(target), select_ops=select_ops)


def _through_onnx(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Write a TFLite model from the ONNX form of a SavedModel."""
    with tempfile.TemporaryDirectory() as scratch:
        between = ModelRef(
            "onnx", Encoding.ONNX, str(Path(scratch) / "model.onnx"), signature=source.signature
        )
        first = to_onnx(source, between.location, StepOptions(name=options.name))
        plain = replace(options, input_layout="")
        result = tensorflow_lowering.to_tflite(between, target, plain)
    return replace(
        result,
        tools={**first.tools, **result.tools},
        options={"through": "onnx", **first.options, **result.options},
    )


def _static_dims(signature: Signature) -> dict[tuple[str, str], tuple[int | None, ...] | None]:
    """Names and static sizes of a signature: what a converter can see of it."""
    return {
        (side, spec.name): None
        if spec.shape is None or side == "output"
        else tuple(dim if isinstance(dim, int) else None for dim in spec.shape)
        for side, specs in (("input", signature.inputs), ("output", signature.outputs))
        for spec in specs
    }
