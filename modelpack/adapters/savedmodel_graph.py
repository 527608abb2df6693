"""A signature of a SavedModel as a graph, its variables left in the checkpoint.

`tf.saved_model.load` makes a Python function of each function of the file and a tensor of each
variable, which takes up to a third of the time of a conversion that needs neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from modelpack.adapters.savedmodel_file import (
    HINT,
    INITIALIZER,
    called,
    functions,
    node_of,
    upstream,
)
from modelpack.adapters.tensorflow_alone import tf
from modelpack.adapters.tensorflow_freezing import Unfrozen, rename
from modelpack.adapters.tensorflow_v1 import is_old
from modelpack.errors import InputError, first_line
from modelpack.signature import TensorSpec

# What TensorFlow 2 writes around the function of a signature.
_AROUND = {"Placeholder", "VarHandleOp", "StatefulPartitionedCall", "PartitionedCall", "Identity"}
_AROUND |= {"Const", "NoOp"}

# Of names that are not the file's own.
_PREFIX = "modelpack/"


@dataclass(frozen=True)
class _Stored:
    """A variable as it is in a checkpoint."""

    reader: Any
    key: str
    dtype: Any
    shape: Any

    def numpy(self) -> npt.NDArray[Any]:
        try:
            return self.reader.get_tensor(self.key)
        except Exception as error:  # TensorFlow makes any of its codes a Python exception
            raise InputError(
                f"cannot read '{self.key}' of the SavedModel: {first_line(error)}", hint=HINT
            ) from error


@dataclass(frozen=True)
class Ends:
    """The inputs or outputs of a graph: specs, and the tensor that each is in the file."""

    specs: Sequence[TensorSpec]
    tensors: Sequence[str]


def stored(meta: Any, reader: Any, inputs: Ends, outputs: Ends) -> Unfrozen | None:
    """The graph between inputs and outputs, if it is of functions and variables alone.

    Args:
        meta: the ``MetaGraphDef``.
        reader: of the checkpoint; None where there are no variables.
        inputs: to be fed, of the shapes of their specs.
        outputs: to be fetched.

    Returns:
        None where the file has more around its functions (tables, assets, initializers, a graph
        of TensorFlow 1), or a checkpoint of something else: `tf.saved_model.load` sees to that.
    """
    around = upstream(meta, [*inputs.tensors, *outputs.tensors])
    is_plain = all(node.op in _AROUND and not node.name.startswith(_PREFIX) for node in around)
    if is_old(meta) or not is_plain or meta.asset_file_def or _is_initialized(meta):
        return None
    handles = [node for node in around if node.op == "VarHandleOp"]
    variables = _variables(reader, _keys(meta), handles) if handles else {}
    if variables is None:
        return None
    graph = tf.compat.v1.GraphDef()
    graph.node.extend(around)
    graph.versions.CopyFrom(meta.graph_def.versions)
    graph.library.function.extend(functions(meta, called(around)))
    _forget_shapes(graph)
    fetched = _fetch(graph, outputs)
    return Unfrozen(graph, _feed(graph, inputs), fetched, variables)


def _is_initialized(meta: Any) -> bool:
    """Whether anything runs when the model is loaded, which may change what variables hold."""
    definitions = meta.signature_def
    ends = definitions[INITIALIZER].outputs.values() if INITIALIZER in definitions else ()
    if any(node.op != "NoOp" for node in upstream(meta, [item.name for item in ends])):
        return True
    return any(node.WhichOneof("kind") == "resource" for node in meta.object_graph_def.nodes)


def _variables(
    reader: Any, keys: Mapping[str, str], handles: Iterable[Any]
) -> dict[str, _Stored] | None:
    """Each variable by its node's name; None unless the checkpoint has all, as the nodes say."""
    dtypes, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    found = {}
    for node in handles:
        key = keys.get(node.name, "")
        if key not in dtypes:
            return None
        shape = tf.TensorShape(shapes[key])
        told = tf.TensorShape(node.attr["shape"].shape)
        if dtypes[key] != node.attr["dtype"].type or not shape.is_compatible_with(told):
            return None
        found[node.name] = _Stored(reader, key, dtypes[key], shape)
    return found


def _keys(meta: Any) -> dict[str, str]:
    """What each variable is called in the checkpoint, by the name of its node.

    It is in the function that restores them: that is what servers run.
    """
    wanted = meta.saver_def.restore_op_name
    call = next((node for node in meta.graph_def.node if node.name == wanted), None)
    name = call.attr["f"].func.name if call is not None else ""
    restore = next((item for item in functions(meta, [name]) if item.signature.name == name), None)
    if call is None or restore is None:
        return {}
    given = dict(zip((item.name for item in restore.signature.input_arg), call.input, strict=False))
    restored = _restored(restore.node_def)
    sources = {node.name: node.input[0] for node in restore.node_def if node.op == "Identity"}
    found = {}
    for node in restore.node_def:
        if node.op == "AssignVariableOp" and node.input[0] in given:
            tensor = node.input[1]
            while node_of(tensor) in sources:
                tensor = sources[node_of(tensor)]
            found[node_of(given[node.input[0]])] = restored.get(tensor, "")
    return {name: key for name, key in found.items() if key}


def _restored(nodes: Iterable[Any]) -> dict[str, str]:
    """What each tensor that is read from the checkpoint whole is called there."""
    texts = {
        f"{node.name}:output:0": tf.make_ndarray(node.attr["value"].tensor).ravel()
        for node in nodes
        if node.op == "Const" and node.attr["dtype"].type == tf.string.as_datatype_enum
    }
    found = {}
    for node in nodes:
        if node.op == "RestoreV2" and set(node.input[1:3]) <= texts.keys():
            keys, slices = (texts[item] for item in node.input[1:3])
            for index, (key, part) in enumerate(zip(keys, slices, strict=True)):
                if not part:
                    found[f"{node.name}:tensors:{index}"] = key.decode()
    return found


def _forget_shapes(graph: Any) -> None:
    """Drop the shapes that were noted of results: those of loops change with their variables."""
    for nodes in (graph.node, *(item.node_def for item in graph.library.function)):
        for node in nodes:
            node.attr.pop("_output_shapes", None)


def _feed(graph: Any, inputs: Ends) -> list[str]:
    """Give the placeholders their names and shapes; return the names of their tensors."""
    names = {node_of(tensor): f"{_PREFIX}fed_{rank}" for rank, tensor in enumerate(inputs.tensors)}
    rename(graph, names)
    placeholders = {node.name: node for node in graph.node}
    for name, spec in zip(names.values(), inputs.specs, strict=True):
        shape = spec.shape and [dim if isinstance(dim, int) else None for dim in spec.shape]
        placeholders[name].attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return [f"{name}:0" for name in names.values()]


def _fetch(graph: Any, outputs: Ends) -> list[str]:
    """Add a node for each output, since one tensor may be several."""
    names = [f"{_PREFIX}fetched_{rank}" for rank in range(len(outputs.specs))]
    for name, spec, tensor in zip(names, outputs.specs, outputs.tensors, strict=True):
        node = graph.node.add(name=name, op="Identity", input=[tensor])
        node.attr["T"].type = tf.as_dtype(spec.dtype.value).as_datatype_enum
    return [f"{name}:0" for name in names]
