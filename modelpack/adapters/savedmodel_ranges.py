"""The texts that the lookup tables of a SavedModel know, for samples of its inputs of text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from modelpack.adapters import tensorflow_v1
from modelpack.adapters.tensorflow_alone import tf
from modelpack.samples import of_words
from modelpack.signature import DType, Signature
from modelpack.steps import Range


def ranges(model: Any, function: Any, meta: Any, signature: Signature) -> dict[str, Range]:
    """Texts for each input of text, of which there are some, if it looks into tables of texts.

    Args:
        model: what ``tf.saved_model.load`` gives.
        function: the signature's.
        meta: the ``MetaGraphDef``.
        signature: names the inputs.
    """
    names = [spec.name for spec in signature.inputs if spec.dtype is DType.STRING]
    is_old = tensorflow_v1.is_old(meta)
    tables = tensorflow_v1.keys(model, function) if is_old else _captured(function)
    words = [word for keys in tables for word in _texts(keys)]
    return dict.fromkeys(names, of_words(words)) if words else {}


def _captured(function: Any) -> Iterator[Any]:
    """The keys of each table that a function of TensorFlow 2 captures and looks into."""
    graph = function.graph.as_graph_def()
    called = {item.signature.name: item for item in graph.library.function}
    for handle, inner in function.graph.captures:
        types = _types(inner.op.name, graph.node, called)
        if types:  # of others TensorFlow ends the process
            yield tf.raw_ops.LookupTableExportV2(
                table_handle=handle, Tkeys=types[0], Tvalues=types[1]
            ).keys


def _types(name: str, nodes: Iterable[Any], called: Mapping[str, Any]) -> tuple[int, int] | None:
    """Types of keys and values of the table that a tensor is the handle of; None if of none."""
    for node in nodes:
        for place, item in enumerate(node.input):
            if item.partition(":")[0] != name:
                continue
            inner = called.get(node.attr["f"].func.name) if "f" in node.attr else None
            found = None
            if node.op == "LookupTableFindV2" and place == 0:
                return node.attr["Tin"].type, node.attr["Tout"].type
            if inner is not None:
                found = _types(inner.signature.input_arg[place].name, inner.node_def, called)
            if found:
                return found
    return None


def _texts(keys: Any) -> Iterator[str]:
    if keys.dtype is not tf.string or keys.shape.rank != 1:
        return
    for word in keys.numpy():
        with contextlib.suppress(UnicodeDecodeError):  # no text that can be exchanged is it
            yield word.decode()
