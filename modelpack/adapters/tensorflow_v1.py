"""SavedModels of TensorFlow 1, for what knows the variables and tables of TensorFlow 2 alone.

TensorFlow 2 runs them. But their variables may be references, and no object owns their lookup
tables, so it can neither freeze their functions nor save them anew. Here variables and tables of
TensorFlow 2 take the places of theirs, with what they hold once the model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpack.adapters.tensorflow_alone import tf
from modelpack.adapters.tensorflow_changes import REFERENCES, TABLES, drop_unread_changes
from modelpack.errors import ConversionError, first_line

_CONVERTED = {"HashTable", "MutableHashTable"}

_LOOKUPS = {"LookupTableFind", "LookupTableSize"}


@dataclass(frozen=True, eq=False)
class Modern:
    """A signature in terms of TensorFlow 2.

    Attributes:
        function: as that of the signature.
        owner: has its variables and tables, which are saved with whatever calls it.
    """

    function: Any
    owner: Any


def is_old(meta: Any) -> bool:
    """Whether TensorFlow 1 wrote a ``MetaGraphDef``: then it tells of no objects."""
    return not meta.HasField("object_graph_def")


def modern(model: Any, function: Any) -> Modern:
    """Put variables and tables of TensorFlow 2 into a signature.

    Args:
        model: what ``tf.saved_model.load`` gives.
        function: one of its signatures.

    Raises:
        ConversionError: its answers depend on variables that it changes, or it looks into a
            table of another kind.
    """
    graph = function.graph.as_graph_def()
    drop_unread_changes(graph, [tensor.op.name for tensor in function.outputs])
    owner = tf.Module()
    owner.references = _references(model, graph)
    owner.tables = _tables(model, graph)
    owner.resources = list(function.graph.variables)
    read = {item.partition(":")[0] for node in graph.node for item in node.input}
    handles = {
        inner.name: outer for outer, inner in function.graph.captures if inner.op.name in read
    }
    handles |= {name: table.resource_handle for name, table in owner.tables.items()}
    _drop(graph, {*handles, *owner.references})

    def placed() -> dict[str, Any]:
        capture = tf.compat.v1.get_default_graph().capture
        for variable in owner.resources:
            variable.read_value()  # lets TensorFlow know whose handle it captured
        reads = {name: item.read_value() for name, item in owner.references.items()}
        return {name: capture(handle) for name, handle in handles.items()} | reads

    try:
        return Modern(_with(placed, graph, function), owner)
    except ValueError as error:  # of an op that takes a reference
        raise ConversionError(
            f"the model does more with a variable than to read it: {first_line(error)}",
            hint="save it again with TensorFlow 2",
        ) from error


def _with(placed: Callable[[], dict[str, Any]], graph: Any, like: Any) -> Any:
    """A function of a graph in which tensors take the places of others.

    Args:
        placed: makes the tensors, by the names of those.
        graph: the ``GraphDef``.
        like: the function that it was of, whose inputs and outputs this one has.
    """
    keys = sorted(like.structured_input_signature[1])
    inputs = [tensor.name for tensor in like.inputs[: len(keys)]]
    outputs = {key: tensor.name for key, tensor in like.structured_outputs.items()}

    def imported() -> Any:
        # By elements: what was made before may have names of the graph.
        return tf.import_graph_def(graph, placed(), [*inputs, *outputs.values()], name="")

    wrapped = tf.compat.v1.wrap_function(imported, [])
    feeds, fetches = wrapped.outputs[: len(inputs)], wrapped.outputs[len(inputs) :]
    function = wrapped.prune(
        feeds,
        dict(zip(outputs, fetches, strict=True)),
        input_signature=like.structured_input_signature,
    )
    function._arg_keywords, function._num_positional_args = keys, 0  # as TensorFlow's loader does
    return function


def _references(model: Any, graph: Any) -> dict[str, Any]:
    """A variable for each that is a reference, by the name of its tensor."""
    names = [f"{node.name}:0" for node in graph.node if node.op in REFERENCES]
    values = _values(model, dict.fromkeys(names, tf.identity))
    return {name: tf.Variable(value, trainable=False) for name, value in values.items()}


def _tables(model: Any, graph: Any) -> dict[str, Any]:
    """A table for each that is looked into, by the name of the tensor that is its handle.

    The graph's lookups then take such handles.

    Raises:
        ConversionError: one is of another kind.
    """
    found = {}
    for node in graph.node:
        if node.op in _LOOKUPS:
            node.op += "V2"
        if node.op.removesuffix("V2") in TABLES:
            found[f"{node.name}:0"] = _table(model, node)
    return found


def _table(model: Any, node: Any) -> Any:
    if node.op.removesuffix("V2") not in _CONVERTED:
        raise ConversionError(
            f"the table '{node.name}' is a {node.op}, and of TensorFlow's tables those are "
            f"converted that give one value for one key: {', '.join(sorted(_CONVERTED))}"
        )
    keys, values = _contents(model, node)
    order = np.argsort(keys.numpy())  # tables have an order that differs between processes
    content = tf.lookup.KeyValueTensorInitializer(
        *(tf.gather(all_, order) for all_ in (keys, values))
    )
    return tf.lookup.StaticHashTable(content, tf.zeros((), values.dtype))


def keys(model: Any, function: Any) -> Iterator[Any]:
    """The keys of each table that a signature may look into."""
    for node in function.graph.as_graph_def().node:
        if node.op.removesuffix("V2") in TABLES:
            yield _contents(model, node)[0]


def _contents(model: Any, node: Any) -> Any:
    """Keys and values of a table."""
    types = node.attr["key_dtype"].type, node.attr["value_dtype"].type
    export = tf.raw_ops.LookupTableExportV2
    if not node.op.endswith("V2"):
        export = tf.raw_ops.LookupTableExport

    def contents(handle: Any) -> Any:
        return tuple(export(table_handle=handle, Tkeys=types[0], Tvalues=types[1]))

    return _values(model, {f"{node.name}:0": contents})[f"{node.name}:0"]


def _values(model: Any, wanted: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """What is computed from tensors of the loaded model, by their names."""
    if not wanted:
        return {}
    with model.graph.as_default():
        fetches = {
            name: compute(model.graph.get_tensor_by_name(name)) for name, compute in wanted.items()
        }
    return dict(model.prune([], fetches)())


def _drop(graph: Any, tensors: Set[str]) -> None:
    """Drop the nodes of tensors that others take the places of."""
    names = {name.partition(":")[0] for name in tensors}
    kept = [
        type(node).FromString(node.SerializeToString())
        for node in graph.node
        if node.name not in names
    ]
    del graph.node[:]
    graph.node.extend(kept)
