"""Groups of nodes that exporters write for one op, put back together.

Before opset 20 ONNX had no Gelu, so models hold what it is made of. A kernel for the whole
is several times as fast as the parts in TFLite.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import onnx
from onnx import helper, numpy_helper

from modelpack.lowering.graph import reads

_MICROSOFT = "com.microsoft"
# Exporters write the constants with the digits of float16 at least.
_CLOSE = 1e-3
_REAL = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}


def with_gelu(model: onnx.ModelProto, initializers: Iterable[onnx.TensorProto]) -> onnx.ModelProto:
    """Replace ``x * 0.5 * (1 + erf(x / sqrt(2)))``, in any order of its factors, by Gelu.

    Args:
        model: is changed. Only its main graph is looked through.
        initializers: of that graph.
    """
    graph = _Graph(model.graph, initializers)
    replaced: dict[str, onnx.NodeProto] = {}
    gone: set[str] = set()
    for node in model.graph.node:
        found = graph.gelu_at(node) if node.op_type == "Erf" else None
        if found is not None:
            source, parts = found
            result = parts[-1].output[0]
            replaced[result] = helper.make_node(
                "Gelu", [source], [result], name=node.name, domain=_MICROSOFT
            )
            gone.update(part.output[0] for part in parts)
    if replaced:
        kept = [
            replaced.get(node.output[0], node)
            for node in model.graph.node
            if node.output[0] not in gone or node.output[0] in replaced
        ]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        if all(entry.domain != _MICROSOFT for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    return model


class _Graph:
    """Who makes and who reads each tensor of a graph."""

    def __init__(self, graph: onnx.GraphProto, initializers: Iterable[onnx.TensorProto]) -> None:
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        self._reads = Counter(value.name for value in graph.output)
        for node in graph.node:
            for name in reads(node):
                self._readers.setdefault(name, []).append(node)
                self._reads[name] += 1
        constants = {tensor.name: tensor for tensor in initializers}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                constants[node.output[0]] = node.attribute[0].t
        self._scalars = {
            name: float(numpy_helper.to_array(tensor).item())
            for name, tensor in constants.items()
            if math.prod(tensor.dims) == 1 and tensor.data_type in _REAL
        }

    def gelu_at(self, erf: onnx.NodeProto) -> tuple[str, list[onnx.NodeProto]] | None:
        """The argument of the Gelu that an Erf is part of, and its nodes in order."""
        scaled = self._makers.get(erf.input[0])
        source = self._scaled(scaled, math.sqrt(0.5))
        shifted = self._only_reader(erf)
        if scaled is None or source is None or self._other(shifted, erf, "Add", 1.0) is None:
            return None
        assert shifted is not None
        product = self._only_reader(shifted)
        if product is None or product.op_type != "Mul":
            return None
        parts = [scaled, erf, shifted, product]
        factor = next((name for name in product.input if name != shifted.output[0]), "")
        if self._scaled(self._makers.get(factor), 0.5) == source:
            return source, self._unshared(source, parts)
        last = self._only_reader(product)
        if factor == source and last is not None and self._scaled(last, 0.5) == product.output[0]:
            return source, self._unshared(source, [*parts, last])
        return None

    def _unshared(self, source: str, parts: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Without a first node that others read too: it stays."""
        return parts if self._reads[parts[0].output[0]] == 1 else parts[1:]

    def _scaled(self, node: onnx.NodeProto | None, scale: float) -> str | None:
        """What a node multiplies by a scale, or divides by its inverse."""
        if node is None or node.op_type not in {"Mul", "Div"}:
            return None
        left, right = node.input
        if node.op_type == "Div":
            return left if self._is(right, 1 / scale) else None
        return left if self._is(right, scale) else right if self._is(left, scale) else None

    def _other(
        self, node: onnx.NodeProto | None, maker: onnx.NodeProto, op_type: str, value: float
    ) -> onnx.NodeProto | None:
        """The node, if it is of this type and its other input is a constant of this value."""
        if node is None or node.op_type != op_type:
            return None
        others = [name for name in node.input if name != maker.output[0]]
        return node if len(others) == 1 and self._is(others[0], value) else None

    def _only_reader(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        readers = self._readers.get(node.output[0], [])
        return readers[0] if self._reads[node.output[0]] == 1 and readers else None

    def _is(self, name: str, value: float) -> bool:
        return math.isclose(self._scalars.get(name, math.nan), value, rel_tol=_CLOSE)
