"""SavedModel directories: described, run, and converted to ONNX."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.adapters import checking
from modelpack.adapters.savedmodel_file import (
    HINT,
    bindings,
    checkpoint,
    chosen_name,
    coarse_arithmetic,
    definitions,
    meta_graph,
    native_signature,
    op_counts,
    producer,
    scan,
    signature_of,
    stamp,
    tensors_of,
    weights,
)
from modelpack.adapters.tensorflow_alone import tf
from modelpack.adapters.tensorflow_freezing import Unfrozen, captured
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import InputError, first_line, lines_of
from modelpack.judging.noise import flip_last_bits
from modelpack.samples import Case, numpy_dtype, read_cases, write_cases
from modelpack.signature import (
    DType,
    Signature,
    TensorSpec,
    bound_names,
    in_order_of,
    refuse_swapped,
    requested,
)
from modelpack.steps import (
    CheckRequest,
    Description,
    Finding,
    Range,
    RunOptions,
    RunResult,
    StepOptions,
    StepResult,
    timed,
)

__all__ = ["check", "describe", "run", "scan", "to_onnx"]

_TOOLS = ("tensorflow-cpu",)

_NODE = re.compile(r"\[\[\{\{node ([^}]+)\}\}\]\]")


def describe(ref: ModelRef) -> Description:
    """Describe ``serving_default``, or the only signature, from the file; it is not loaded.

    Raises:
        InputError: the directory is damaged, has no signature, or does not fit the
            description that the user gave.
    """
    native, definition = native_signature(ref)
    signature = in_order_of(native, ref.signature)
    if ref.signature is None:
        refuse_swapped(native, ref.outputs)
        signature = requested(native, ref.inputs, ref.outputs)
    by_dtype: Counter[str] = Counter()
    for dtype, count in weights(ref):
        # The tables of a forest hold more indices than numbers.
        if not dtype.startswith(("int64", "int32", "bool", "string")):
            by_dtype[dtype] += count
    return Description(
        signature=signature,
        framework="tensorflow",
        versions=versions(*_TOOLS),
        ops=op_counts(ref),
        parameters=sum(by_dtype.values()) or None,
        precision=by_dtype.most_common(1)[0][0] if by_dtype else "float32",
        bindings=bindings(definition, native, signature),
        computes_in=coarse_arithmetic(ref),
        producer=producer(ref),
        ranges=_ranges(ref, signature),
        other_signatures=tuple(
            signature_of(other, name)
            for name, other in definitions(ref).items()
            if other is not definition
        ),
    )


def _ranges(ref: ModelRef, signature: Signature) -> dict[str, Range]:
    """Texts that the model looks up, for its inputs of text: for them alone it is loaded."""
    from modelpack.adapters.savedmodel_ranges import ranges

    if not any(spec.dtype is DType.STRING for spec in signature.inputs):
        return {}
    loaded = load(ref)
    function = loaded.signatures[loaded.chosen]
    return ranges(loaded.model, function, meta_graph(ref), signature)


def run(ref: ModelRef, cases: str, outputs: str, options: RunOptions) -> RunResult:
    """Call the signature on each case, by names.

    Raises:
        InputError: the cases do not fit the model.
    """
    options.refuse("threads", "runtime")
    function, names = callable_of(ref)
    if options.nudge or options.wide:
        function, names, _ = convertible(ref)
    signature = ref.signature or describe(ref).signature
    feeds = read_cases(Path(cases), signature.inputs)
    with _nudged(function, options.nudge):
        chosen = _in_float64(ref, function, names, signature) if options.wide else function
        write_cases(Path(outputs), [_answer(chosen, names, signature, feed) for feed in feeds])
        latency = timed(lambda: _answer(chosen, names, signature, feeds[0]), options.repeat)
    version = next(iter(versions(*_TOOLS).values()), "")
    return RunResult(f"tensorflow {version}", latency)


def check(ref: ModelRef, request: CheckRequest) -> list[Finding]:
    """Load the directory with its signature, and call that repeatedly, from threads too."""
    function, names = callable_of(ref)
    signature = ref.signature or describe(ref).signature

    def call(feed: Case) -> Case:
        return _answer(function, names, signature, feed)

    loaded = Finding("checker", True, f"TensorFlow loads it with the signature {load(ref).chosen}")
    return [loaded, *checking.called(signature, request, call, lambda: call)]


def _in_float64(
    ref: ModelRef, function: Any, names: Names, signature: Signature
) -> Callable[..., dict[str, Any]]:
    """The function that computes in float64; it takes and gives the dtypes of the signature."""
    from modelpack.adapters.tensorflow_wide import widened

    wide = widened(traced(function, names, signature), sum(count for _, count in weights(ref)))

    def call(**feed: Any) -> dict[str, Any]:
        given = [feed[names.inputs[spec.name]] for spec in signature.inputs]
        answers = wide(
            *(tf.cast(item, tf.float64) if item.dtype.is_floating else item for item in given)
        )
        return dict(
            zip((names.outputs[spec.name] for spec in signature.outputs), answers, strict=True)
        )

    return call


@contextlib.contextmanager
def _nudged(function: Any, seed: int) -> Iterator[None]:
    """The function with the last bits of its variables changed, for a while."""
    _flip(function, seed)
    try:
        yield
    finally:
        _flip(function, seed)


def _flip(function: Any, seed: int) -> None:
    handles = [tensor for tensor in function.captured_inputs if tensor.dtype is tf.resource]
    for index, handle in enumerate(handles if seed else ()):
        shaped = handle._handle_data  # no table has one
        if not shaped or not shaped.shape_and_type:
            continue
        dtype = tf.as_dtype(shaped.shape_and_type[0].dtype)
        array = np.array(tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype), order="C")
        flip_last_bits(array, seed, index)
        tf.raw_ops.AssignVariableOp(resource=handle, value=tf.constant(array, dtype))


def to_onnx(source: ModelRef, target: str, options: StepOptions) -> StepResult:
    """Write an ONNX model with the names and dims of the signature.

    Raises:
        UnsupportedOpsError: ops have no ONNX form; the message lists every one.
        ConversionError: the opset cannot be written, or the conversion failed.
    """
    from modelpack.adapters import tensorflow_onnx

    _take_one_thread()
    signature = source.signature or describe(source).signature
    unfrozen = _stored(source, signature) or _captured(source, signature)
    return tensorflow_onnx.write(unfrozen, signature, Path(target), options)


def _stored(source: ModelRef, signature: Signature) -> Unfrozen | None:
    """The graph of the signature from the file alone; None where it has to be loaded."""
    from modelpack.adapters.savedmodel_graph import Ends, stored

    native, definition = native_signature(source)

    def ends(specs: tuple[TensorSpec, ...], own: tuple[TensorSpec, ...], infos: Any) -> Ends:
        tensors = tensors_of(specs, own, infos)
        return Ends(specs, [tensors[spec.name] for spec in specs])

    return stored(
        meta_graph(source),
        checkpoint(source),
        ends(signature.inputs, native.inputs, definition.inputs),
        ends(signature.outputs, native.outputs, definition.outputs),
    )


def _captured(source: ModelRef, signature: Signature) -> Unfrozen:
    function, names, _ = convertible(source)
    return captured(traced(function, names, signature))


# --- shared with the converters ------------------------------------------------------------


@dataclass(frozen=True)
class Names:
    """The file's own input and output names for each name of a signature."""

    inputs: dict[str, str]
    outputs: dict[str, str]


def callable_of(ref: ModelRef) -> tuple[Any, Names]:
    """Return the signature's function and how the names of ``ref.signature`` bind to it."""
    loaded = load(ref)
    function = loaded.signatures[loaded.chosen]
    native, _ = native_signature(ref)
    signature = ref.signature or native
    return function, Names(
        bound_names(signature.inputs, native.inputs), bound_names(signature.outputs, native.outputs)
    )


def convertible(ref: ModelRef) -> tuple[Any, Names, Any]:
    """As `callable_of`, of variables and tables that can be frozen and saved, with their owner."""
    from modelpack.adapters import tensorflow_v1

    function, names = callable_of(ref)
    model = load(ref).model
    if not tensorflow_v1.is_old(meta_graph(ref)):
        return function, names, model
    made = tensorflow_v1.modern(model, function)
    return made.function, names, made.owner


def traced(function: Any, names: Names, signature: Signature) -> Any:
    """Trace the function anew with flat arguments of the signature's shapes.

    Returns:
        a ``tf.function``. Argument ``i`` is called ``arg_<i>``: TensorFlow allows fewer
        characters in names than signatures do. Results are a list, in signature order.
    """

    def serve(*flat: Any) -> list[Any]:
        feed = {
            names.inputs[spec.name]: tensor
            for spec, tensor in zip(signature.inputs, flat, strict=True)
        }
        answer = function(**feed)
        return [tf.identity(answer[names.outputs[spec.name]]) for spec in signature.outputs]

    specs = [tensor_spec(spec, f"arg_{i}") for i, spec in enumerate(signature.inputs)]
    return tf.function(serve, input_signature=specs, autograph=False)


def tensor_spec(spec: TensorSpec, name: str) -> Any:
    """The ``tf.TensorSpec`` of a spec, with every dynamic dimension unknown."""
    shape = None
    if spec.shape is not None:
        shape = [dim if isinstance(dim, int) else None for dim in spec.shape]
    return tf.TensorSpec(shape, tf.as_dtype(spec.dtype.value), name=name)


# --- loading ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Loaded:
    """A SavedModel in memory.

    Attributes:
        model: what TensorFlow loaded.
        signatures: its functions, by name.
        chosen: name of the one that is meant.
    """

    model: Any
    signatures: dict[str, Any]
    chosen: str


def load(ref: ModelRef) -> Loaded:
    """The SavedModel; loaded once for all calls about the same directory.

    Raises:
        InputError: it is damaged, or has no signature.
    """
    chosen = chosen_name(ref)
    return Loaded(*_load_at(*stamp(ref)), chosen)


def _take_one_thread() -> None:
    # TensorFlow refuses once it has started, which it can only have done with these values.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


@lru_cache(maxsize=1)
def _load_at(ref: ModelRef, changed: int) -> tuple[Any, dict[str, Any]]:
    """What TensorFlow loads, and its signatures by name."""
    meta = meta_graph(ref)
    _take_one_thread()
    try:
        model = tf.saved_model.load(ref.location, tags=list(meta.meta_info_def.tags))
    except Exception as error:
        raise InputError(
            f"TensorFlow cannot load '{ref.display}': {first_line(error)}",
            hint=HINT,
        ) from error
    # Keras writes a signature for its own use beside the one that is served.
    return model, {name: model.signatures[name] for name in model.signatures}


def _cannot_run(error: Exception) -> InputError:
    """TensorFlow says first where an op was defined, then what is wrong, then in which node."""
    lines = lines_of(error)
    last = next((index for index, line in enumerate(lines) if _NODE.search(line)), 0)
    where = _NODE.search(lines[last])
    why = lines[max(last - 1, 0)] if where else lines[0]
    node = f" (node '{where[1]}')" if where else ""
    return InputError(
        f"TensorFlow cannot run the model on these inputs: {why}{node}",
        hint="it takes serialized tf.Example records, which TensorFlow alone parses: choose a "
        "signature that takes the features themselves (--signature), or export one"
        if "ParseExample" in node or "ParseSingleExample" in node
        else "give inputs that it takes with --data",
    )


def _answer(function: Any, names: Names, signature: Signature, feed: Case) -> Case:
    missing = [spec.name for spec in signature.inputs if spec.name not in feed]
    if missing:
        raise InputError(f"the samples have no input '{missing[0]}'")
    tensors = {
        names.inputs[spec.name]: tf.constant(feed[spec.name], tf.as_dtype(spec.dtype.value))
        for spec in signature.inputs
    }
    try:
        answer = function(**tensors)
    except tf.errors.OpError as error:
        raise _cannot_run(error) from error
    return {
        spec.name: np.asarray(answer[names.outputs[spec.name]].numpy(), numpy_dtype(spec.dtype))
        for spec in signature.outputs
    }
