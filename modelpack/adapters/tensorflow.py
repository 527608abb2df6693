"""SavedModel directories: described, run, and converted to ONNX."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.adapters import checking
from modelpack.adapters.tensorflow_alone import tf
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import InputError, first_line
from modelpack.judging.noise import COARSER, flip_last_bits
from modelpack.samples import Case, numpy_dtype, read_cases, write_cases
from modelpack.signature import (
    DEFAULT_SIGNATURE,
    EVERY_SIGNATURE,
    Dim,
    DType,
    Signature,
    TensorSpec,
    bound_names,
    in_order_of,
    refuse_swapped,
    requested,
    unknown_signature,
)
from modelpack.steps import (
    CheckRequest,
    Description,
    Finding,
    RunOptions,
    RunResult,
    StepOptions,
    StepResult,
    timed,
)

_TOOLS = ("tensorflow-cpu",)

# Tag of the graph that is served.
_SERVING = "serve"

# Ops that touch files, other processes or the Python interpreter when the graph runs.
_OUTSIDE_OPS = {
    "CreateSummaryFileWriter",
    "EagerPyFunc",
    "FixedLengthRecordDataset",
    "FixedLengthRecordDatasetV2",
    "FixedLengthRecordReaderV2",
    "ImmutableConst",
    "MatchingFiles",
    "MergeV2Checkpoints",
    "PyFunc",
    "PyFuncStateless",
    "ReadFile",
    "Restore",
    "RestoreSlice",
    "RestoreV2",
    "Save",
    "SaveSlices",
    "SaveV2",
    "TFRecordDataset",
    "TFRecordDatasetV2",
    "TFRecordReaderV2",
    "TextLineDataset",
    "TextLineReaderV2",
    "WholeFileReaderV2",
    "WriteFile",
}


def scan(ref: ModelRef) -> list[str]:
    """List the ops of the file that reach outside the model, without loading it.

    Saving and restoring in the functions that only serve checkpoints is not listed.

    Raises:
        InputError: ``saved_model.pb`` is missing or damaged.
    """
    found = []
    for meta in _read_proto(ref).meta_graphs:
        for node in _serving_nodes(meta):
            if node.op in _OUTSIDE_OPS:
                found.append(f"op '{node.name}' is a {node.op}, which reaches outside the model")
    return sorted(set(found))


def describe(ref: ModelRef) -> Description:
    """Load the SavedModel and describe its ``serving_default``, or its only signature.

    Raises:
        InputError: the directory is damaged, has no signature, or does not fit the
            description that the user gave.
    """
    from modelpack.adapters.savedmodel_ranges import ranges

    loaded = load(ref)
    function = loaded.signatures[loaded.chosen]
    native = native_signature(function, loaded.chosen)
    signature = in_order_of(native, ref.signature)
    if ref.signature is None:
        refuse_swapped(native, ref.outputs)
        signature = requested(native, ref.inputs, ref.outputs)
    weights = _weights(ref)
    by_dtype: Counter[str] = Counter()
    for dtype, count in weights:
        # The tables of a forest hold more indices than numbers.
        if not dtype.startswith(("int64", "int32", "bool", "string")):
            by_dtype[dtype] += count
    return Description(
        signature=signature,
        framework="tensorflow",
        versions=versions(*_TOOLS),
        ops=_op_counts(ref),
        parameters=sum(by_dtype.values()) or None,
        precision=by_dtype.most_common(1)[0][0] if by_dtype else "float32",
        bindings=_bindings(ref, loaded.chosen, native, signature),
        computes_in=_coarse_arithmetic(ref),
        producer=_producer(ref),
        ranges=ranges(loaded.model, function, _read_proto(ref).meta_graphs[0], signature),
        other_signatures=tuple(
            native_signature(function, name)
            for name, function in sorted(loaded.signatures.items())
            if name != loaded.chosen
        ),
    )


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

    wide = widened(traced(function, names, signature), sum(count for _, count in _weights(ref)))

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

    function, names, _ = convertible(source)
    signature = source.signature or describe(source).signature
    return tensorflow_onnx.write(
        traced(function, names, signature), signature, Path(target), options
    )


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
    native = native_signature(function, loaded.chosen)
    signature = ref.signature or native
    return function, Names(
        bound_names(signature.inputs, native.inputs), bound_names(signature.outputs, native.outputs)
    )


def convertible(ref: ModelRef) -> tuple[Any, Names, Any]:
    """As `callable_of`, of variables and tables that can be frozen and saved, with their owner."""
    from modelpack.adapters import tensorflow_v1

    function, names = callable_of(ref)
    model = load(ref).model
    if not tensorflow_v1.is_old(_read_proto(ref).meta_graphs[0]):
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
    model, signatures = _load_at(*_stamp(ref))
    return Loaded(model, signatures, _chosen(ref, signatures))


def _read_proto(ref: ModelRef) -> Any:
    return _read_proto_at(*_stamp(ref))


def _stamp(ref: ModelRef) -> tuple[ModelRef, int]:
    """The directory and what changes when it is written anew."""
    try:
        changed = (ref.path / "saved_model.pb").stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"cannot read '{ref.display}/saved_model.pb': {error.strerror}") from None
    return ModelRef(ref.format, ref.encoding, ref.location), changed


@lru_cache(maxsize=1)
def _load_at(ref: ModelRef, changed: int) -> tuple[Any, dict[str, Any]]:
    """What TensorFlow loads, and its signatures by name."""
    meta = _read_proto_at(ref, changed).meta_graphs[0]
    # TensorFlow refuses once it has started, which it can only have done with these values.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    try:
        model = tf.saved_model.load(ref.location, tags=list(meta.meta_info_def.tags))
    except Exception as error:
        raise InputError(
            f"TensorFlow cannot load '{ref.display}': {first_line(error)}",
            hint="the directory needs saved_model.pb and the files under variables/",
        ) from error
    # Keras writes a signature for its own use beside the one that is served.
    signatures = {name: model.signatures[name] for name in model.signatures}
    if not signatures:
        raise InputError(
            f"'{ref.display}' has no signature, so nothing names its inputs and outputs",
            hint="save it with tf.saved_model.save(..., signatures=...) or model.export(...)",
        )
    return model, signatures


def _chosen(ref: ModelRef, signatures: Iterable[str]) -> str:
    """The name of the signature that is meant: the user's, the usual one, or the only one."""
    names = sorted(signatures)
    every = ref.signature_name == EVERY_SIGNATURE
    wanted = DEFAULT_SIGNATURE if every else ref.signature_name or DEFAULT_SIGNATURE
    if wanted in names:
        return wanted
    if every or (not ref.signature_name and len(names) == 1):
        return names[0]
    raise unknown_signature(ref.display, wanted, names)


@lru_cache(maxsize=1)
def _read_proto_at(ref: ModelRef, _changed: int) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = ref.path / "saved_model.pb"
    try:
        saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read '{ref.display}/saved_model.pb': {error.strerror}") from None
    except DecodeError:
        raise InputError(f"'{ref.display}/saved_model.pb' is truncated or damaged") from None
    if not saved.meta_graphs:
        raise InputError(f"'{ref.display}/saved_model.pb' holds no graph")
    _keep_serving_graph(saved)
    return saved


def _keep_serving_graph(saved: Any) -> None:
    """Keep one graph: TensorFlow 1 wrote others beside it, to train or evaluate the model."""
    if len(saved.meta_graphs) == 1:
        return
    served = [meta for meta in saved.meta_graphs if _SERVING in meta.meta_info_def.tags]
    chosen = min(
        served or saved.meta_graphs[:1], key=lambda meta: len(meta.meta_info_def.tags)
    ).SerializeToString()
    del saved.meta_graphs[:]
    saved.meta_graphs.add().ParseFromString(chosen)


# --- the signature -----------------------------------------------------------------------------


def native_signature(function: Any, name: str) -> Signature:
    """The signature in the file's own names, sorted, since the file keeps no order."""
    inputs = tuple(
        _spec(key, spec, key)
        for key, spec in sorted(function.structured_input_signature[1].items())
    )
    has_batch = any(spec.shape and spec.shape[0] == "batch" for spec in inputs)
    outputs = tuple(
        _spec(key, spec, "", has_batch) for key, spec in sorted(function.structured_outputs.items())
    )
    return Signature(inputs, outputs, DEFAULT_SIGNATURE if name == DEFAULT_SIGNATURE else name)


def _spec(name: str, spec: Any, dim_prefix: str, has_batch: bool = True) -> TensorSpec:
    """A spec from TensorFlow's; unknown axes are named after ``dim_prefix`` when it is given."""
    try:
        dtype = DType(spec.dtype.name)
    except ValueError:
        raise InputError(
            f"tensor '{name}' has dtype {spec.dtype.name}, which is not supported"
        ) from None
    if spec.shape.rank is None:
        return TensorSpec(name, dtype, None)
    dims: list[Dim] = []
    prefix = "".join(char if char.isalnum() else "_" for char in dim_prefix)
    for axis, size in enumerate(spec.shape.as_list()):
        unknown: Dim = f"{prefix}_d{axis}" if prefix else None
        if axis == 0 and has_batch:
            unknown = "batch"
        dims.append(unknown if size is None else size)
    return TensorSpec(name, dtype, tuple(dims))


# --- facts -------------------------------------------------------------------------------------


# What a checkpoint of TensorFlow 2 has beside its variables.
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"


def _weights(ref: ModelRef) -> list[tuple[str, int]]:
    """Dtype and size of each weight of the checkpoint."""
    path = ref.path / "variables" / "variables"
    if not path.with_suffix(".index").exists():
        return []
    reader = tf.train.load_checkpoint(str(path))
    dtypes = reader.get_variable_to_dtype_map()
    shapes = reader.get_variable_to_shape_map()
    names = sorted(dtypes)
    if _OBJECTS in dtypes:  # TensorFlow 1 had names alone
        names = [name for name in names if name.endswith("/.ATTRIBUTES/VARIABLE_VALUE")]
    not_weights = {"save_counter", "global_step"}
    return [
        (dtypes[name].name, int(np.prod(shapes[name])))
        for name in names
        if name.split("/")[0] not in not_weights
    ]


def _op_counts(ref: ModelRef) -> dict[str, int]:
    plumbing = {"Placeholder", "NoOp", "StatefulPartitionedCall", "PartitionedCall", "Identity"}
    nodes = _serving_nodes(_read_proto(ref).meta_graphs[0])
    counts = Counter(node.op for node in nodes if node.op not in plumbing)
    return dict(sorted(counts.items()))


# Ops that multiply and add; casts and constants of a coarse dtype are no arithmetic.
_ARITHMETIC = ("MatMul", "BatchMatMul", "Conv", "DepthwiseConv", "Einsum", "Mul", "AddV2")


def _coarse_arithmetic(ref: ModelRef) -> str:
    """The coarsest dtype that the graph computes in; empty for float32 and finer."""
    types = {
        tf.as_dtype(node.attr[name].type).name
        for node in _serving_nodes(_read_proto(ref).meta_graphs[0])
        if node.op.startswith(_ARITHMETIC)
        for name in ("T", "Ta", "Tb")  # products of batches have one for each side
        if name in node.attr
    }
    return max(types & COARSER.keys(), key=COARSER.__getitem__, default="")


def _producer(ref: ModelRef) -> str:
    version = _read_proto(ref).meta_graphs[0].meta_info_def.tensorflow_version
    return f"tensorflow {version}" if version else ""


def _bindings(
    ref: ModelRef, chosen: str, native: Signature, signature: Signature
) -> dict[str, str]:
    definition = _read_proto(ref).meta_graphs[0].signature_def[chosen]
    found = {}
    for given, own, tensors in (
        (signature.inputs, native.inputs, definition.inputs),
        (signature.outputs, native.outputs, definition.outputs),
    ):
        for name, own_name in sorted(bound_names(given, own).items()):
            found[name] = tensors[own_name].name
    return found


def _serving_nodes(meta: Any) -> list[Any]:
    """Nodes that loading or serving can run: not those that only save and restore."""
    functions = {function.signature.name: function for function in meta.graph_def.library.function}
    nodes = {node.name: node for node in meta.graph_def.node}
    # Initializers of tables run when the model is loaded.
    names = set(meta.object_graph_def.concrete_functions)
    reached = _upstream(nodes, _signature_tensors(meta))
    result = list(reached)
    pending = sorted(names | _called(reached))
    seen = set(pending)
    while pending:
        function = functions.get(pending.pop())
        if function is None:
            continue
        result.extend(function.node_def)
        fresh = sorted(_called(function.node_def) - seen)
        seen.update(fresh)
        pending.extend(fresh)
    return result


def _signature_tensors(meta: Any) -> list[str]:
    tensors = []
    for name in sorted(meta.signature_def):
        definition = meta.signature_def[name]
        for key in sorted(definition.outputs):
            tensors.append(definition.outputs[key].name)
    return tensors


def _upstream(nodes: dict[str, Any], tensors: list[str]) -> list[Any]:
    pending = [name.lstrip("^").split(":")[0] for name in tensors]
    seen: dict[str, Any] = {}
    while pending:
        name = pending.pop()
        if name in seen or name not in nodes:
            continue
        seen[name] = nodes[name]
        pending.extend(item.lstrip("^").split(":")[0] for item in nodes[name].input)
    return list(seen.values())


def _called(nodes: Iterable[Any]) -> set[str]:
    found = set()
    for node in nodes:
        found.add(node.op)
        for attribute in node.attr.values():
            if attribute.HasField("func"):
                found.add(attribute.func.name)
            found.update(item.name for item in attribute.list.func)
    return found


def _answer(function: Any, names: Names, signature: Signature, feed: Case) -> Case:
    missing = [spec.name for spec in signature.inputs if spec.name not in feed]
    if missing:
        raise InputError(f"the samples have no input '{missing[0]}'")
    tensors = {
        names.inputs[spec.name]: tf.constant(feed[spec.name], tf.as_dtype(spec.dtype.value))
        for spec in signature.inputs
    }
    answer = function(**tensors)
    return {
        spec.name: np.asarray(answer[names.outputs[spec.name]].numpy(), numpy_dtype(spec.dtype))
        for spec in signature.outputs
    }
