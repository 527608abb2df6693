"""Programs of `torch.export` in which some nodes are written otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TypeVar

from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

_Found = TypeVar("_Found")


def rewritten(
    program: ExportedProgram,
    find: Callable[[Node], _Found | None],
    change: Callable[[Graph, Node, _Found], None],
) -> ExportedProgram:
    """The program with some of its nodes changed; itself where there are none.

    Args:
        program: stays as it is.
        find: what is to be known of a node to change it; None where it stays.
        change: changes a node of a graph; others may read it, and be found after it.

    Returns:
        a program that shares all but its graphs with the given one.
    """
    if not any(find(node) is not None for _, node in _nodes(program.graph_module)):
        return program
    made = copy.copy(program)
    made._graph_module = copy.deepcopy(program.graph_module)
    for graph, node in list(_nodes(made.graph_module)):
        # Asked only now: a node may read one that was changed before it.
        found = find(node)
        if found is not None:
            change(graph, node, found)
    made.graph_module.recompile()
    return made


def _nodes(module: GraphModule) -> Iterator[tuple[Graph, Node]]:
    """Each node, and the graph that it is of: the module's own, or one of a branch or a loop."""
    for part in module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                yield part.graph, node
