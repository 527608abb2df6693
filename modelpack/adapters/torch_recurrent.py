"""Export LSTM and GRU layers with a dynamic sequence length.

PyTorch finds the shapes of a recurrent layer by unrolling it over the example's time steps,
which fixes their number. The layer itself stays one op of the exported graph, so only its
shapes are needed: they are computed here without unrolling.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch._decomp import decompositions
from torch.export import ExportedProgram

from modelpack.errors import ConversionError

_KEPT = {torch.ops.aten.lstm.input, torch.ops.aten.gru.input}
_UNROLLED = {torch.ops.aten.rnn_tanh.input, torch.ops.aten.rnn_relu.input}


def is_recurrent(model: torch.nn.Module) -> bool:
    """Whether a module has LSTM or GRU layers, and no plain RNN, which is not kept as an op."""
    layers = list(model.modules())
    return any(isinstance(layer, torch.nn.LSTM | torch.nn.GRU) for layer in layers) and not any(
        isinstance(layer, torch.nn.RNN) for layer in layers
    )


def export_recurrent(
    model: torch.nn.Module,
    tensors: tuple[torch.Tensor, ...],
    shapes: Any,
    to_onnx: Callable[[ExportedProgram], Any],
) -> Any:
    """Export a module with recurrent layers, and hand the program to ``to_onnx``.

    Returns:
        What ``to_onnx`` returns: a `torch.onnx.ONNXProgram`; None when a layer was unrolled
        by the export, so that the ordinary way has to be taken.

    Raises:
        ConversionError: a layer did not become an LSTM or GRU op.
        Exception: whatever `torch.export.export` or ``to_onnx`` raise.
    """
    with _shapes_only():
        program = torch.export.export(model, tensors, dynamic_shapes=shapes, strict=False)
        targets = [node.target for node in program.graph.nodes]
        layers = sum(target in _KEPT for target in targets)
        if not layers or any(target in _UNROLLED for target in targets):
            return None
        result = to_onnx(program)
    # The stand-ins compute no values: a layer that was unrolled with them is worthless.
    written = sum(node.op_type in {"LSTM", "GRU"} for node in result.model_proto.graph.node)
    if written < layers:
        raise ConversionError(
            f"PyTorch wrote {written} of {layers} recurrent layers as LSTM or GRU ops"
        )
    return result


@contextlib.contextmanager
def _shapes_only() -> Iterator[None]:
    with (
        mock.patch.object(decompositions, "one_layer_lstm", _lstm_shapes),
        mock.patch.object(decompositions, "one_layer_rnn", _gru_shapes),
    ):
        yield


def _lstm_shapes(
    inputs: Any, hidden: Any, params: Any, has_biases: bool, reverse: bool = False
) -> Any:
    """Shapes of one LSTM layer: inputs [time, batch, features], hidden and cell [batch, size].

    A projected LSTM's hidden state is narrower than its cell state; results are as wide as
    the hidden state.
    """
    state, cell = hidden
    out = inputs.new_zeros((inputs.shape[0], inputs.shape[1], state.shape[-1]))
    return out, (torch.zeros_like(state), torch.zeros_like(cell))


def _gru_shapes(
    inputs: Any, hidden: Any, params: Any, has_biases: bool, hidden_fn: Any, reverse: bool = False
) -> Any:
    """Shapes of one GRU layer: inputs [time, batch, features], hidden [batch, size]."""
    out = inputs.new_zeros((inputs.shape[0], inputs.shape[1], hidden.shape[-1]))
    return out, torch.zeros_like(hidden)
