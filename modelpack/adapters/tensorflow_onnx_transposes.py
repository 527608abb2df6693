"""The optimizers of tf2onnx, with a search for transposes that takes linear steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tf2onnx.optimizer import _get_optimizers
from tf2onnx.optimizer.transpose_optimizer import (
    TransposeOptimizer,
    is_transpose,
    is_useless_transpose,
)

_TRANSPOSES = "optimize_transpose"


def optimizers() -> Mapping[str, Any]:
    """tf2onnx's optimizers by name, in their order."""
    known = _get_optimizers()
    return {name: Sweeping if name == _TRANSPOSES else kind for name, kind in known.items()}


class Sweeping(TransposeOptimizer):  # type: ignore[misc]
    """Moves every transpose that can move before it looks at the first one again.

    tf2onnx begins again at the first node after each that it moved, which takes a sixth of the
    time of a DenseNet121. It has the last word here too, on what is left, which it alone finds.
    """

    def _optimize_at_current_graph_level(self, graph: Any) -> Any:
        self._g = graph
        self.pre_optimize_action()
        while self._sweep(graph):
            self.graph_been_opt = True
        return super()._optimize_at_current_graph_level(graph)

    def _sweep(self, graph: Any) -> bool:
        """Move each transpose that can move; return whether there was one."""
        moved = False
        for node in [node for node in self.nodes if is_transpose(node)]:
            if graph.get_node_by_name(node.name) is node and self._handle_nhwc_tranpose(node):
                moved = True
            # It may be gone now, or another node have its name.
            if graph.get_node_by_name(node.name) is node and is_useless_transpose(node):
                self._remove_useless_tranpose(node)
                moved = True
        return moved
