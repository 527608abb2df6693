"""Gives the nodes and tensors of an ONNX model an order and names that follow its structure.

Converters name things after counters, memory addresses and whichever of two equal nodes
they happened to keep. Here nodes are ordered by a walk from the outputs, and named after
their op and their place in that order, so that equal graphs become equal bytes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any


def canonicalize(model: Any) -> None:
    """Reorder and rename in place; names of the model's inputs and outputs stay.

    Nodes and initializers that no output depends on are dropped, and so is value_info,
    which would go by the old names.
    """
    graph = model.graph
    _normalize_identities(graph)
    kept = [value.name for value in (*graph.input, *graph.output)]
    _Naming(set(kept)).rename(graph, {name: name for name in kept})


class _Naming:
    """Hands out names that are unique over the model and its subgraphs."""

    def __init__(self, reserved: set[str]) -> None:
        self._used = set(reserved)
        self._count: Counter[str] = Counter()

    def fresh(self, base: str) -> str:
        """Return the next unused ``<base>_<number>``."""
        while True:
            name = f"{base}_{self._count[base]}"
            self._count[base] += 1
            if name not in self._used:
                self._used.add(name)
                return name

    def rename(self, graph: Any, names: dict[str, str]) -> None:
        """Rename a graph whose free, input and output names are all in ``names``."""
        constants = {item.name: item for item in graph.initializer}
        nodes = _ordered(graph)
        used: dict[str, Any] = {}
        for node in nodes:
            node.name = self.fresh(node.op_type)
            for position, tensor in enumerate(_needs(node)):
                if tensor in constants and tensor not in used:
                    used[tensor] = constants[tensor]
                    if tensor not in names:
                        names[tensor] = self._constant_name(node, position)
            for position, tensor in enumerate(node.output):
                if tensor and tensor not in names:
                    names[tensor] = f"{node.name}:{position}"
            self._rename_node(node, names)
        for value in graph.output:
            if value.name in constants:
                used.setdefault(value.name, constants[value.name])
        copies = [_copy(item, names[old]) for old, item in used.items()]
        _replace(graph.node, [_copy(node, node.name) for node in nodes])
        _replace(graph.initializer, copies)
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            value.name = names[value.name]

    def _constant_name(self, node: Any, position: int) -> str:
        name = f"{node.name}.{position}"
        return self.fresh(name) if name in self._used else name

    def _rename_node(self, node: Any, names: dict[str, str]) -> None:
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for body in bodies:
                body.name = self.fresh(f"{node.name}.{attribute.name}")
                inner = dict(names)
                produced = {tensor for item in body.node for tensor in item.output}
                for tensor in produced | {item.name for item in body.initializer}:
                    inner.pop(tensor, None)
                for value in body.input:
                    inner[value.name] = self.fresh(f"{body.name}.in")
                for value in body.output:
                    if value.name in produced and value.name not in inner:
                        inner[value.name] = self.fresh(f"{body.name}.out")
                    elif value.name not in inner:
                        inner[value.name] = self.fresh(f"{body.name}.const")
                self.rename(body, inner)
        node.input[:] = [names[tensor] if tensor else "" for tensor in node.input]
        node.output[:] = [names[tensor] if tensor else "" for tensor in node.output]


def _normalize_identities(graph: Any, is_body: bool = False) -> None:
    """Keep an Identity only where two outputs are one tensor, or an output is no node's.

    Which of two equal outputs the node itself gives, and which the Identity, is up to the
    converter's mood; here it is the first one.
    """
    for node in graph.node:
        for body in _bodies(node):
            _normalize_identities(body, is_body=True)
    through = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and not node.domain
    }
    nodes = [node for node in graph.node if not (node.output and node.output[0] in through)]
    produced = {tensor for node in nodes for tensor in node.output if tensor}
    names = {tensor: _source(tensor, through) for tensor in through}
    first: dict[str, str] = {}
    copies = []
    seen: set[str] = set()
    given = {value.name for value in graph.input} if is_body else set()
    for position, value in enumerate(graph.output):
        source = _source(value.name, through)
        if source in given:
            # What a loop hands on unchanged needs no copy in every round.
            value.name = source
            continue
        if source == value.name and source not in produced:
            seen.add(source)
            continue  # an output that is a weight
        if value.name in seen:
            # The body of a loop may list one tensor as two outputs.
            value.name = f"{value.name} as output {position}"
        seen.add(value.name)
        if source in produced and source not in first:
            first[source] = value.name
        else:
            copies.append((first.get(source, source), value.name))
    # A tensor keeps its name unless another output comes first.
    names = {tensor: first.get(source, source) for tensor, source in names.items()} | first
    kept = [_copy(node, node.name) for node in nodes]
    for node in kept:
        _substitute(node, names)
        node.output[:] = [first.get(tensor, tensor) for tensor in node.output]
    for source, output in copies:
        identity = type(graph.node[0])(op_type="Identity", name=f"copy {output}")
        identity.input.append(source)
        identity.output.append(output)
        kept.append(identity)
    _replace(graph.node, kept)


def _source(tensor: str, through: dict[str, str]) -> str:
    while tensor in through:
        tensor = through[tensor]
    return tensor


def _substitute(node: Any, names: dict[str, str]) -> None:
    """Rename what a node reads, in its subgraphs too."""
    node.input[:] = [names.get(tensor, tensor) for tensor in node.input]
    for body in _bodies(node):
        for inner in body.node:
            _substitute(inner, names)


def _bodies(node: Any) -> list[Any]:
    return [
        body
        for attribute in node.attribute
        for body in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]


def _ordered(graph: Any) -> list[Any]:
    """Nodes that the outputs need, each after those it needs, inputs visited in order."""
    producers = {tensor: node for node in graph.node for tensor in node.output if tensor}
    done: dict[int, Any] = {}
    open_: set[int] = set()
    stack = [producers[value.name] for value in reversed(graph.output) if value.name in producers]
    while stack:
        node = stack[-1]
        key = id(node)
        if key in done:
            stack.pop()
            continue
        if key in open_:
            done[key] = stack.pop()
            continue
        open_.add(key)
        needed = [producers[tensor] for tensor in _needs(node) if tensor in producers]
        stack.extend(item for item in reversed(needed) if id(item) not in done)
    return list(done.values())


def _needs(node: Any) -> list[str]:
    """Tensors a node reads: its inputs, then what its subgraphs take from outside."""
    found = [tensor for tensor in node.input if tensor]
    for body in _bodies(node):
        found.extend(_free(body))
    return found


def _free(graph: Any) -> list[str]:
    own = {value.name for value in graph.input} | {item.name for item in graph.initializer}
    own |= {tensor for node in graph.node for tensor in node.output}
    read = [tensor for node in _ordered(graph) for tensor in _needs(node)]
    read += [value.name for value in graph.output]
    return list(dict.fromkeys(tensor for tensor in read if tensor not in own))


def _copy(message: Any, name: str) -> Any:
    copied = type(message)()
    copied.CopyFrom(message)
    copied.name = name
    return copied


def _replace(field: Any, items: list[Any]) -> None:
    del field[:]
    field.extend(items)
