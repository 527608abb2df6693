"""SavedModels whose variables are references, as TensorFlow 1 kept them.

TensorFlow 2 runs them, but has no way to replace their variables by constants. TensorFlow 1 has,
in a session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from modelpack.artifact import ModelRef
from modelpack.errors import ConversionError

_REFERENCES = {"Variable", "VariableV2"}
_TABLES = {"HashTable", "HashTableV2", "MutableHashTable", "MutableHashTableV2"}


def is_old(nodes: Iterable[Any]) -> bool:
    """Whether a graph has variables that are references."""
    return any(node.op in _REFERENCES for node in nodes)


def with_constants(ref: ModelRef, meta: Any, name: str) -> Callable[..., dict[str, Any]]:
    """A signature's function, its variables replaced by constants.

    Args:
        ref: the SavedModel.
        meta: its ``MetaGraphDef``.
        name: of the signature.

    Returns:
        it takes the signature's inputs and returns its outputs, by the file's own names.

    Raises:
        ConversionError: it looks something up in a table, which only a session fills.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    definition = meta.signature_def[name]
    inputs = {key: item.name for key, item in sorted(definition.inputs.items())}
    outputs = {key: item.name for key, item in sorted(definition.outputs.items())}
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.saved_model.load(session, list(meta.meta_info_def.tags), ref.location)
        ends = sorted({tensor.partition(":")[0] for tensor in outputs.values()})
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ends)
    _demand_no_tables(frozen)
    wrapped = v1.wrap_function(lambda: tf.import_graph_def(frozen, name=""), [])
    pruned = wrapped.prune(list(inputs.values()), list(outputs.values()))

    def call(**feed: Any) -> dict[str, Any]:
        answers = pruned(*(feed[key] for key in inputs))
        return dict(zip(outputs, answers, strict=True))

    return call


def _demand_no_tables(graph: Any) -> None:
    tables = sorted(node.name for node in graph.node if node.op in _TABLES)
    if tables:
        raise ConversionError(
            f"the model looks texts or numbers up in tables of TensorFlow 1 ({', '.join(tables)}), "
            "which an operation of its own fills when it is loaded; ONNX has no such operation",
            hint="save it again with TensorFlow 2 and tf.lookup.StaticHashTable, or look up "
            "before the model",
        )
