"""ONNX files to SavedModel and TFLite, through the op table of `modelpack.lowering`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from modelpack import onnx_graph
from modelpack.adapters import savedmodel_filters, savedmodel_writing, tensorflow_tflite
from modelpack.adapters.tensorflow import tensor_spec
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import ModelpackError
from modelpack.lowering.context import Target
from modelpack.lowering.filters import Filters
from modelpack.lowering.model import Lowered, graph_inputs, prepare
from modelpack.lowering.value import Weights
from modelpack.signature import DEFAULT_SIGNATURE, Signature
from modelpack.steps import StepOptions, StepResult

_TOOLS = ("tensorflow-cpu", "onnx")

_NARROWED = (
    "the model computes in float64, and TFLite in float32: a value close to a threshold may fall "
    "on its other side, so compare on your own data"
)


def to_savedmodel(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Write a SavedModel of native TensorFlow ops; weights are its variables, some its constants.

    Raises:
        UnsupportedOpsError: ops are not in the table; the message lists every one.
        ConversionError: an op cannot be lowered as it is used, or a name cannot be an
            input's name.
    """
    assert source.signature is not None
    images = _images(source.signature) if options.input_layout else ()
    filters = Filters(savedmodel_filters.ROOM)
    lowered = _lowered(source, Target.SAVEDMODEL, images, Weights(filters))
    function = _served(lowered, source.signature.channel_last(images))
    savedmodel_writing.save(lowered, {source.signature.name: function}, target)
    savedmodel_filters.put_in(Path(target), filters)
    return StepResult(tools=versions(*_TOOLS), channel_last=images)


def to_one_savedmodel(
    sources: list[ModelRef], target: str, options: StepOptions
) -> list[StepResult]:
    """Write a SavedModel with the signature of each source, and each weight once.

    All large weights are variables: a filter that is a constant would be in every function.

    Returns:
        what was done for each source.

    Raises:
        UnsupportedOpsError, ConversionError: as `to_savedmodel`.
    """
    import tensorflow as tf

    pool: dict[bytes, Any] = {}
    functions, results = {}, []
    for source in sources:
        assert source.signature is not None
        images = _images(source.signature) if options.input_layout else ()
        try:
            lowered = _lowered(source, Target.SAVEDMODEL, images, Weights(pool=pool))
            function = _served(lowered, source.signature.channel_last(images))
        except ModelpackError as error:
            error.say_about(f"signature '{source.signature.name}'")
            raise
        functions[source.signature.name] = function
        results.append(StepResult(tools=versions(*_TOOLS), channel_last=images))
    module = tf.Module()
    module.constants = tuple(pool.values())
    savedmodel_writing.save(module, functions, target)
    return results


def _served(lowered: Lowered, signature: Signature) -> Any:
    """The concrete function of a signature.

    Raises:
        ConversionError: a name cannot be an input's name.
    """
    import tensorflow as tf

    savedmodel_writing.check_input_names(signature)

    def serve(*flat: Any) -> dict[str, Any]:
        return dict(zip((spec.name for spec in signature.outputs), lowered(*flat), strict=True))

    specs = [tensor_spec(spec, spec.name) for spec in signature.inputs]
    function = tf.function(serve, input_signature=specs, autograph=False)
    return function.get_concrete_function()


def to_tflite(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Write a TFLite model with the names and dims of the signature.

    It holds built-in ops only, unless ``select_ops`` allows others, which the result lists.

    Raises:
        UnsupportedOpsError: ops have no built-in form; the message lists every one.
        ConversionError: an op cannot be lowered as it is used, or the converter failed.
    """
    assert source.signature is not None
    images = _images(source.signature) if options.input_layout else ()
    target_ops = Target.TFLITE_SELECT if options.select_ops else Target.TFLITE
    lowered = _lowered(source, target_ops, images)

    def traced(signature: Signature) -> Any:
        specs = [tensor_spec(spec, f"arg_{i}") for i, spec in enumerate(signature.inputs)]
        return lowered.function(specs)

    made = tensorflow_tflite.Source("", DEFAULT_SIGNATURE, lowered, traced)
    result = tensorflow_tflite.write(
        made, source.signature.channel_last(images), Path(target), select_ops=options.select_ops
    )
    notes = (*result.notes, _NARROWED) if lowered.narrowed else result.notes
    return replace(result, channel_last=images, notes=notes)


def _images(signature: Signature) -> tuple[str, ...]:
    """Inputs and outputs that may be images or maps of features: those with four axes."""
    specs = (*signature.inputs, *signature.outputs)
    return tuple(spec.name for spec in specs if spec.shape is not None and len(spec.shape) == 4)


def _lowered(
    source: ModelRef,
    target: Target,
    channel_last: tuple[str, ...],
    weights: Weights | None = None,
) -> Lowered:
    """The model's graph; ``channel_last`` are names of the signature."""
    assert source.signature is not None
    model = onnx_graph.load(source.path, weights=False)
    prepared = prepare(model, target, source.path.parent)
    own = [*graph_inputs(prepared), *prepared.graph.output]
    specs = (*source.signature.inputs, *source.signature.outputs)
    names = {info.name for info, spec in zip(own, specs, strict=True) if spec.name in channel_last}
    return Lowered(prepared, target, frozenset(names), weights)
