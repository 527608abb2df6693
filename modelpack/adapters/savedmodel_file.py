"""What the files of a SavedModel say, without loading it: signatures, ops and weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from modelpack.adapters.tensorflow_alone import tf
from modelpack.artifact import ModelRef
from modelpack.errors import InputError, first_line
from modelpack.judging.noise import COARSER
from modelpack.signature import (
    DEFAULT_SIGNATURE,
    EVERY_SIGNATURE,
    Dim,
    DType,
    Signature,
    TensorSpec,
    bound_names,
    unknown_signature,
)

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


def meta_graph(ref: ModelRef) -> Any:
    """The ``MetaGraphDef`` that is served; read once for all calls about the same directory.

    Raises:
        InputError: ``saved_model.pb`` is missing or damaged.
    """
    return _meta_graph_at(*stamp(ref))


def stamp(ref: ModelRef) -> tuple[ModelRef, int]:
    """The directory, and what changes when it is written anew.

    Raises:
        InputError: ``saved_model.pb`` is missing.
    """
    try:
        changed = (ref.path / "saved_model.pb").stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"cannot read '{ref.display}/saved_model.pb': {error.strerror}") from None
    return ModelRef(ref.format, ref.encoding, ref.location), changed


@lru_cache(maxsize=1)
def _meta_graph_at(ref: ModelRef, _changed: int) -> Any:
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
    # TensorFlow 1 wrote others beside it, to train or evaluate the model.
    served = [meta for meta in saved.meta_graphs if _SERVING in meta.meta_info_def.tags]
    return min(served or saved.meta_graphs[:1], key=lambda meta: len(meta.meta_info_def.tags))


INITIALIZER = "__saved_model_init_op"
"""Signature of what TensorFlow runs when it has loaded the file."""

# Signatures that TensorFlow writes for itself.
_INTERNAL = {INITIALIZER, "__saved_model_train_op"}


def definitions(ref: ModelRef) -> dict[str, Any]:
    """The ``SignatureDef`` of each signature, by name.

    Raises:
        InputError: there is none.
    """
    found = meta_graph(ref).signature_def
    served = {name: found[name] for name in sorted(found) if name not in _INTERNAL}
    if not served:
        raise InputError(
            f"'{ref.display}' has no signature, so nothing names its inputs and outputs",
            hint="save it with tf.saved_model.save(..., signatures=...) or model.export(...)",
        )
    return served


def native_signature(ref: ModelRef) -> tuple[Signature, Any]:
    """The signature that is meant in the file's own names, and its ``SignatureDef``.

    Raises:
        InputError: the file is damaged or has no such signature, or a tensor of it is of a dtype
            that is not supported, sparse or ragged.
    """
    chosen = chosen_name(ref)
    definition = definitions(ref)[chosen]
    return signature_of(definition, chosen), definition


def signature_of(definition: Any, name: str) -> Signature:
    """What a ``SignatureDef`` says, sorted by name, since the file keeps no order.

    Raises:
        InputError: a tensor is of a dtype that is not supported, sparse or ragged.
    """
    inputs = tuple(_spec(key, info, key) for key, info in sorted(definition.inputs.items()))
    has_batch = any(spec.shape and spec.shape[0] == "batch" for spec in inputs)
    outputs = tuple(
        _spec(key, info, "", has_batch) for key, info in sorted(definition.outputs.items())
    )
    return Signature(inputs, outputs, DEFAULT_SIGNATURE if name == DEFAULT_SIGNATURE else name)


def _spec(name: str, info: Any, dim_prefix: str, has_batch: bool = True) -> TensorSpec:
    """A spec of a ``TensorInfo``; unknown axes are named by ``dim_prefix`` when it is given."""
    if info.WhichOneof("encoding") not in {"name", None}:
        raise InputError(f"tensor '{name}' is sparse or ragged, which is not supported")
    stored = tf.as_dtype(info.dtype).name
    try:
        dtype = DType(stored)
    except ValueError:
        raise InputError(f"tensor '{name}' has dtype {stored}, which is not supported") from None
    shape = tf.TensorShape(info.tensor_shape)
    if shape.rank is None:
        return TensorSpec(name, dtype, None)
    dims: list[Dim] = []
    prefix = "".join(char if char.isalnum() else "_" for char in dim_prefix)
    for axis, size in enumerate(shape.as_list()):
        unknown: Dim = f"{prefix}_d{axis}" if prefix else None
        if axis == 0 and has_batch:
            unknown = "batch"
        dims.append(unknown if size is None else size)
    return TensorSpec(name, dtype, tuple(dims))


def chosen_name(ref: ModelRef) -> str:
    """The name of the signature that is meant: the user's, the usual one, or the only one.

    Raises:
        InputError: there is none, or none of the name that the user gave.
    """
    names = sorted(definitions(ref))
    every = ref.signature_name == EVERY_SIGNATURE and EVERY_SIGNATURE not in names
    wanted = DEFAULT_SIGNATURE if every else ref.signature_name or DEFAULT_SIGNATURE
    if wanted in names:
        return wanted
    if every or (not ref.signature_name and len(names) == 1):
        return names[0]
    raise unknown_signature(ref.display, wanted, names)


def scan(ref: ModelRef) -> list[str]:
    """List the ops of the file that reach outside the model, without loading it.

    Saving and restoring in the functions that only serve checkpoints is not listed.

    Raises:
        InputError: ``saved_model.pb`` is missing or damaged.
    """
    found = []
    for node in _serving_nodes(meta_graph(ref)):
        if node.op in _OUTSIDE_OPS:
            found.append(f"op '{node.name}' is a {node.op}, which reaches outside the model")
    return sorted(set(found))


HINT = "the directory needs saved_model.pb and the files under variables/"


def checkpoint(ref: ModelRef) -> Any:
    """What reads the files with the variables; None where the model has none.

    Raises:
        InputError: they are missing or damaged.
    """
    prefix = ref.path / "variables" / "variables"
    if not prefix.with_suffix(".index").exists():
        if any(node.op in _VARIABLES for node in meta_graph(ref).graph_def.node):
            raise InputError(
                f"'{ref.display}' has variables, but no '{prefix.name}.index'", hint=HINT
            )
        return None
    try:
        return tf.train.load_checkpoint(str(prefix))
    except Exception as error:  # TensorFlow makes any of its codes a Python exception
        raise InputError(f"cannot read '{ref.display}': {first_line(error)}", hint=HINT) from error


_VARIABLES = {"VarHandleOp", "Variable", "VariableV2"}

# What a checkpoint of TensorFlow 2 has beside its variables.
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"


def weights(ref: ModelRef) -> list[tuple[str, int]]:
    """Dtype and size of each weight of the checkpoint."""
    reader = checkpoint(ref)
    if reader is None:
        return []
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


def op_counts(ref: ModelRef) -> dict[str, int]:
    """How often each op is in what serving runs; calls and ends of functions are left out."""
    plumbing = {"Placeholder", "NoOp", "StatefulPartitionedCall", "PartitionedCall", "Identity"}
    nodes = _serving_nodes(meta_graph(ref))
    counts = Counter(node.op for node in nodes if node.op not in plumbing)
    return dict(sorted(counts.items()))


# Ops that multiply and add; casts and constants of a coarse dtype are no arithmetic.
_ARITHMETIC = ("MatMul", "BatchMatMul", "Conv", "DepthwiseConv", "Einsum", "Mul", "AddV2")


def coarse_arithmetic(ref: ModelRef) -> str:
    """The coarsest dtype that the graph computes in; empty for float32 and finer."""
    types = {
        tf.as_dtype(node.attr[name].type).name
        for node in _serving_nodes(meta_graph(ref))
        if node.op.startswith(_ARITHMETIC)
        for name in ("T", "Ta", "Tb")  # products of batches have one for each side
        if name in node.attr
    }
    return max(types & COARSER.keys(), key=COARSER.__getitem__, default="")


def producer(ref: ModelRef) -> str:
    """Which version of TensorFlow wrote it; empty where it does not say."""
    version = meta_graph(ref).meta_info_def.tensorflow_version
    return f"tensorflow {version}" if version else ""


def bindings(definition: Any, native: Signature, signature: Signature) -> dict[str, str]:
    """Which tensor of the graph each input and output of a signature is.

    Args:
        definition: the ``SignatureDef``.
        native: the signature in its own names.
        signature: in those of the user.
    """
    inputs = tensors_of(signature.inputs, native.inputs, definition.inputs)
    outputs = tensors_of(signature.outputs, native.outputs, definition.outputs)
    return dict(sorted(inputs.items())) | dict(sorted(outputs.items()))


def tensors_of(
    specs: tuple[TensorSpec, ...], native: tuple[TensorSpec, ...], infos: Mapping[str, Any]
) -> dict[str, str]:
    """Which tensor of the graph each of these inputs or outputs is, by name.

    Args:
        specs: in the user's names.
        native: in the file's own names.
        infos: the ``TensorInfo`` of each, by the file's own names.
    """
    return {name: infos[own].name for name, own in bound_names(specs, native).items()}


def _serving_nodes(meta: Any) -> list[Any]:
    """Nodes that loading or serving can run: not those that only save and restore."""
    reached = upstream(meta, _signature_tensors(meta))
    # Initializers of tables run when the model is loaded.
    names = set(meta.object_graph_def.concrete_functions) | called(reached)
    return [*reached, *(node for item in functions(meta, names) for node in item.node_def)]


def _signature_tensors(meta: Any) -> list[str]:
    tensors = []
    for name in sorted(meta.signature_def):
        definition = meta.signature_def[name]
        for key in sorted(definition.outputs):
            tensors.append(definition.outputs[key].name)
    return tensors


def upstream(meta: Any, tensors: Iterable[str]) -> list[Any]:
    """The nodes that tensors are made from, or wait for, in the order of the file."""
    nodes = {node.name: node for node in meta.graph_def.node}
    pending = list(tensors)
    seen: set[str] = set()
    while pending:
        name = node_of(pending.pop())
        if name not in seen and name in nodes:
            seen.add(name)
            pending += nodes[name].input
    return [node for name, node in nodes.items() if name in seen]


def node_of(tensor: str) -> str:
    """The name of the node that a tensor, or an input of a node, is of."""
    return tensor.removeprefix("^").partition(":")[0]


def functions(meta: Any, names: Iterable[str]) -> list[Any]:
    """The functions of these names, and those that they call, in the order of the file."""
    known = {item.signature.name: item for item in meta.graph_def.library.function}
    pending = list(names)
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in seen and name in known:
            seen.add(name)
            pending += called(known[name].node_def)
    return [function for name, function in known.items() if name in seen]


def called(nodes: Iterable[Any]) -> set[str]:
    """Names of the functions that nodes call, among those of their ops."""
    found = set()
    for node in nodes:
        found.add(node.op)
        for attribute in node.attr.values():
            if attribute.HasField("func"):
                found.add(attribute.func.name)
            found.update(item.name for item in attribute.list.func)
    return found
