"""How a table goes into an artifact: as one tensor, or as an input for each of its columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx.helper

from modelpack import onnx_graph
from modelpack.adapters.sklearn_columns import Columns
from modelpack.errors import InputError
from modelpack.signature import DType, Signature

_JOINED = "joined_columns"


def arranged(columns: Columns, form: str) -> Columns:
    """The columns of an estimator, arranged as the user wants them.

    Args:
        columns: as they suit the estimator.
        form: ``columns``, ``tensor``, or empty to leave them.

    Raises:
        InputError: they cannot be arranged so.
    """
    if not form or form == {"matrix": "tensor"}.get(columns.kind, columns.kind):
        return columns
    if columns.kind == "text":
        raise InputError(f"the model takes texts, not a table: --inputs {form} means nothing")
    if form == "tensor":
        raise InputError(
            "--inputs tensor needs columns of one type, but the model takes "
            + ", ".join(_described(columns)),
            hint="leave --inputs away: there is an input for each column",
        )
    if not columns.names:
        raise InputError(
            "--inputs columns needs the names of the columns, which the model was not fitted with",
            hint="fit it on a data frame, or leave --inputs away: its input is one tensor",
        )
    return replace(columns, kind="columns")


def _described(columns: Columns) -> list[str]:
    names = [columns.names[i] if columns.names else f"x{i}" for i in columns.positions]
    return [f"{name}: {dtype.value}" for name, dtype in zip(names, columns.dtypes, strict=True)]


def is_split(columns: Columns) -> bool:
    """Whether columns that could be one tensor are an input each."""
    text = DType.STRING in columns.dtypes  # which TensorFlow Lite cannot join
    return columns.kind == "columns" and len(set(columns.dtypes)) == 1 and not text


def joined(columns: Columns) -> Columns:
    """The same columns as one tensor."""
    return replace(columns, kind="matrix") if is_split(columns) else columns


def split_input(model: Any, signature: Signature) -> None:
    """Give a model of one matrix an input for each of its columns, ``[batch, 1]``."""
    graph = model.graph
    element = graph.input[0].type.tensor_type.elem_type
    whole = graph.input[0].name
    for inner in onnx_graph.graphs(graph):
        for node in inner.node:
            node.input[:] = [_JOINED if name == whole else name for name in node.input]
    names = [f"column_{index}" for index in range(len(signature.inputs))]
    del graph.input[:]
    graph.input.extend(
        onnx.helper.make_tensor_value_info(name, element, [None, 1]) for name in names
    )
    graph.node.insert(0, onnx.helper.make_node("Concat", names, [_JOINED], axis=1))
