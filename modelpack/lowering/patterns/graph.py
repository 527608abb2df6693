"""Who makes and who reads each tensor of a graph, and what its constants are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx

from modelpack.lowering.graph import attribute, reads
from modelpack.lowering.value import Array

# Exporters write constants with the digits of float16 at least.
_CLOSE = 1e-3
# Bounds of a slice beyond any rank stand for its ends.
_FAR = 1 << 30


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that one node can stand for.

    Attributes:
        node: takes the place of the last of them, whose output it has.
        others: those before. They go unless something else reads them.
    """

    node: onnx.NodeProto
    others: tuple[onnx.NodeProto, ...]


class Sizes(NamedTuple):
    """``shape(source)[start:stop]``."""

    source: str
    start: int = 0
    stop: int | None = None


class Graph:
    """A graph to find patterns in.

    Args:
        graph: its subgraphs count as readers only.
        constants: reads an initializer, by name.
    """

    def __init__(
        self, graph: onnx.GraphProto, constants: Mapping[str, Callable[[], Array]]
    ) -> None:
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        self._uses = Counter(value.name for value in graph.output)
        for node in graph.node:
            for name in reads(node):
                self._readers.setdefault(name, []).append(node)
                self._uses[name] += 1
        self._constants = constants

    def maker(self, name: str, *op_types: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None if there is none, or one of another type."""
        return _of_type(self._makers.get(name), op_types)

    def only_reader(self, node: onnx.NodeProto, *op_types: str) -> onnx.NodeProto | None:
        """The node that alone reads the first output of a node; None as for `maker`."""
        name = node.output[0]
        readers = self._readers.get(name)
        return _of_type(readers[0], op_types) if readers and self._uses[name] == 1 else None

    def constant(self, name: str) -> Array | None:
        """The constant of this name, or None."""
        if name in self._constants:
            return self._constants[name]()
        node = self.maker(name, "Constant")
        if node is None or not node.attribute[0].name.startswith("value"):
            return None
        return np.asarray(attribute(node.attribute[0]))

    def integers(self, name: str) -> list[int] | None:
        """The elements of a constant vector of integers, or None."""
        array = self.constant(name)
        if array is None or array.ndim != 1 or array.dtype.kind != "i":
            return None
        return [int(element) for element in array]

    def is_filled(self, name: str, value: float) -> bool:
        """Whether a tensor is a constant of real numbers, each of them close to this one."""
        array = self.constant(name)
        if array is None or array.size == 0 or array.dtype.kind != "f":
            return False
        return bool(np.allclose(array.astype(np.float64), value, rtol=_CLOSE, atol=0))

    def is_scalar(self, name: str, value: float) -> bool:
        """Like `is_filled`, for a single element."""
        array = self.constant(name)
        return array is not None and array.size == 1 and self.is_filled(name, value)

    def sizes(self, name: str) -> Sizes | None:
        """The sizes of another tensor that a tensor is made of, or None."""
        node = self.maker(name, "Shape", "Slice")
        if node is None:
            return None
        if node.op_type == "Shape":
            given = {item.name: item.i for item in node.attribute}
            return _sizes(node.input[0], given.get("start", 0), given.get("end", _FAR))
        whole = self.sizes(node.input[0])
        bounds = [self.integers(item) for item in node.input[1:]]
        if whole is None or whole != Sizes(whole.source) or len(bounds) < 2:
            return None
        starts, ends, *axes_and_steps = bounds
        if not starts or not ends or axes_and_steps != [[0], [1]][: len(axes_and_steps)]:
            return None
        return _sizes(whole.source, starts[0], ends[0])


def _sizes(source: str, start: int, stop: int) -> Sizes:
    return Sizes(source, 0 if start <= -_FAR else start, None if stop >= _FAR else stop)


def _of_type(node: onnx.NodeProto | None, op_types: tuple[str, ...]) -> onnx.NodeProto | None:
    if node is None or not op_types:
        return node
    return node if node.op_type in op_types and node.domain in {"", "ai.onnx"} else None
