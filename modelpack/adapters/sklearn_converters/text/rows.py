"""Nodes that are applied to each row on its own: texts have different lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import onnx.helper
from onnx import TensorProto

from modelpack.adapters.sklearn_converters.writer import Writer

ML_DOMAIN = "ai.onnx.ml"
RUNTIME_DOMAIN = "com.microsoft"  # ops that ONNX Runtime adds to those of ONNX
_VERSIONS = {ML_DOMAIN: 3, RUNTIME_DOMAIN: 1}

# Elements of what ONNX Runtime's ops answer, of which ONNX knows nothing.
_ELEMENTS = {"MurmurHash3": TensorProto.INT32, "Tokenizer": TensorProto.STRING}


class _Body:
    """Takes the nodes and constants of a subgraph, as skl2onnx's container takes a graph's."""

    def __init__(self, target_opset: int) -> None:
        self.target_opset = target_opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.values: list[onnx.ValueInfoProto] = []
        self.domains: set[str] = set()

    def add_node(
        self,
        kind: str,
        inputs: Sequence[str] | str,
        outputs: Sequence[str] | str,
        op_domain: str = "",
        name: str = "",
        **attributes: Any,
    ) -> None:
        """Append a node."""
        self.domains.add(op_domain)
        into, out = ([each] if isinstance(each, str) else each for each in (inputs, outputs))
        self.nodes.append(
            onnx.helper.make_node(kind, into, out, name=name, domain=op_domain, **attributes)
        )
        if kind in _ELEMENTS:
            self.values.append(onnx.helper.make_tensor_value_info(out[0], _ELEMENTS[kind], None))

    def add_initializer(self, name: str, element: int, shape: Any, values: Any) -> None:
        """Keep a constant."""
        self.constants.append(onnx.helper.make_tensor(name, element, list(shape), list(values)))


def of_each_row(writer: Writer, rows: str, width: int, answer: Callable[[Writer, str], str]) -> str:
    """Write what answers a single text, and let it answer one after the other.

    Args:
        writer: of the graph around.
        rows: the texts, ``[rows]``.
        width: how many numbers are answered.
        answer: is given a writer of the inner graph and the text there, ``[1]``; returns the
            name of the numbers, float32 ``[width]``.

    Returns:
        name of the numbers of all texts, float32 ``[rows, width]``.
    """
    body = _Body(writer.target_opset)
    inner = writer.into(body)
    place, go_on, still, numbers = map(inner.name, ("place", "go_on", "still", "numbers"))
    text = inner.op("Gather", rows, inner.op("Reshape", place, inner.integers(1)))
    found = answer(inner, text)
    body.add_node("Identity", [go_on], still, name=inner.name("Identity"))
    body.add_node("Reshape", [found, inner.integers(width)], numbers, name=inner.name("Reshape"))
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        body.nodes,
        "each_text",
        [value(place, TensorProto.INT64, []), value(go_on, TensorProto.BOOL, [])],
        [value(still, TensorProto.BOOL, []), value(numbers, TensorProto.FLOAT, [width])],
        body.constants,
        value_info=body.values,
    )
    writer.require({domain: _VERSIONS[domain] for domain in body.domains if domain})
    # Not a Scan, which ONNX Runtime refuses for no rows.
    count = writer.op("Size", rows)
    return writer.op("Loop", count, writer.constant(True, "bool"), body=graph)
