"""RNN, GRU and LSTM: directions, layouts, lengths, activations, sizes, old op sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelpack.errors import UnsupportedOpsError
from tests.lowering.nodes import check, node_model

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
HIDDEN, FEATURES = 3, 2


def _model(
    op: str,
    steps: int = 5,
    batch: int = 4,
    *,
    directions: int = 1,
    lengths: Any = None,
    peepholes: bool = False,
    bias: bool = True,
    state: bool = False,
    opset: int = 21,
    dynamic: bool = True,
    **attributes: Any,
) -> tuple[Any, list[Any]]:
    """A model with constant weights, and the arrays for its remaining inputs."""
    rng = np.random.default_rng(7)
    rows = GATES[op] * HIDDEN

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    batch_first = attributes.get("layout", 0)
    x = normal(batch, steps, FEATURES) if batch_first else normal(steps, batch, FEATURES)
    initial = (
        normal(batch, directions, HIDDEN) if batch_first else normal(directions, batch, HIDDEN)
    )
    constants = {1: normal(directions, rows, FEATURES), 2: normal(directions, rows, HIDDEN)}
    if bias:
        constants[3] = normal(directions, 2 * rows)
    inputs = [x, None, None, None, lengths, initial if state else None]
    if op == "LSTM":
        inputs += [initial * 2 if state else None, None]
        if peepholes:
            constants[7] = normal(directions, 3 * HIDDEN)
    model = node_model(
        op,
        inputs,
        constants=constants,
        outputs=3 if op == "LSTM" else 2,
        opset=opset,
        dynamic=dynamic,
        hidden_size=HIDDEN,
        **attributes,
    )
    return model, [value for value in inputs if value is not None]


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_dynamic_steps_and_batch(op: str, direction: str) -> None:
    directions = 2 if direction == "bidirectional" else 1
    model, (x, h, *c) = _model(op, directions=directions, direction=direction, state=True)
    shorter = [x[:1, :2], *(value[:, :2] for value in (h, *c))]
    longer = [np.tile(x, (9, 1, 1)), h, *c]
    check(model, [x, h, *c], shorter, longer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("dynamic", [True, False])
def test_lengths(op: str, dynamic: bool) -> None:
    lengths = np.array([5, 1, 3, 2], np.int32)
    model, inputs = _model(
        op, directions=2, direction="bidirectional", lengths=lengths, dynamic=dynamic
    )
    check(model, inputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [32, 33])
def test_static_steps_unrolled_and_looped(steps: int) -> None:
    model, inputs = _model("LSTM", steps, 2, dynamic=False, peepholes=True)
    check(model, inputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("opset", [7, 22])
def test_opsets_without_bias(op: str, opset: int) -> None:
    model, inputs = _model(op, opset=opset, bias=False)
    check(model, inputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
def test_clip(op: str) -> None:
    model, inputs = _model(op, clip=0.3)
    check(model, inputs, rtol=1e-4, atol=1e-5)


def test_coupled_forget_gate_with_peepholes() -> None:
    model, inputs = _model("LSTM", input_forget=1, peepholes=True)
    check(model, inputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_before_reset(bias: bool) -> None:
    model, inputs = _model("GRU", linear_before_reset=1, bias=bias)
    check(model, inputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "scales"),
    [
        (["Relu", "Affine"], {"activation_alpha": [0.5], "activation_beta": [0.25]}),
        (["LeakyRelu", "ThresholdedRelu"], {"activation_alpha": [0.2, 0.5]}),
        (["ScaledTanh", "Elu"], {"activation_alpha": [1.5], "activation_beta": [0.5]}),
        (["HardSigmoid", "Softsign"], {}),
        (["Softplus", "Sigmoid"], {}),
    ],
)
def test_activations(names: list[str], scales: dict[str, Any]) -> None:
    model, inputs = _model(
        "RNN", directions=2, direction="bidirectional", activations=names, **scales
    )
    check(model, inputs, rtol=1e-4, atol=1e-5)


def test_scales_go_to_the_activations_that_have_them() -> None:
    model, inputs = _model(
        "GRU",
        directions=2,
        direction="bidirectional",
        activations=["HardSigmoid", "Tanh", "Sigmoid", "LeakyRelu"],
        activation_alpha=[0.3, 0.05],
        activation_beta=[0.4],
    )
    check(model, inputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [{"direction": "sideways"}, {"activations": ["Swish"]}, {"activations": ["Tanh", "Tanh"]}],
)
def test_refused(attributes: dict[str, Any]) -> None:
    model, _ = _model("LSTM", **attributes)
    with pytest.raises(UnsupportedOpsError):
        check(model, targets=("savedmodel",), rtol=1e-4, atol=1e-5)
