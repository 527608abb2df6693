"""Recurrent networks: RNN, GRU and LSTM.

What does not depend on the state - the input times its weights, and the biases - is one
matrix product for all steps; the steps do the rest. Symbols are those of the ONNX spec.

TFLite's fused LSTM kernel is not used: the converter makes one only for a fixed batch, it
limits the cell state to ±10, and it does not give the last cell state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.errors import ConversionError
from modelpack.lowering import loops, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value

# Up to this many steps are laid out one after the other: faster than a loop, and still small.
_LONGEST_UNROLLED = 32

_Unary = Callable[[Any], Any]


# --- ops -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Inputs that all recurrent ops have; ``initial`` is the state, h before c."""

    x: Value
    w: Value
    r: Value
    b: Value | None
    lengths: Value | None
    initial: tuple[Value | None, ...]
    peepholes: Value | None = None

    @property
    def hidden(self) -> int:
        size = self.r.shape[2]
        if size is None:
            raise ConversionError("the hidden size of a recurrent network is not static")
        return size


@dataclass(frozen=True, slots=True)
class _Settings:
    """Attributes that all recurrent ops have."""

    activations: Sequence[str] | None
    alpha: Sequence[float] | None
    beta: Sequence[float] | None
    clip: float | None
    direction: str
    layout: int


@lowers("RNN", 7)
def rnn_7(
    ctx: Context,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
) -> Any:
    settings = _Settings(activations, activation_alpha, activation_beta, clip, direction, 0)
    return _recurrent(ctx, _Inputs(x, w, r, b, sequence_lens, (initial_h,)), settings, _rnn_cell)


@lowers("RNN", 14, 22)
def rnn_14(
    ctx: Context,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> Any:
    settings = _Settings(activations, activation_alpha, activation_beta, clip, direction, layout)
    return _recurrent(ctx, _Inputs(x, w, r, b, sequence_lens, (initial_h,)), settings, _rnn_cell)


@lowers("GRU", 7)
def gru_7(
    ctx: Context,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    *,
    linear_before_reset: int = 0,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
) -> Any:
    settings = _Settings(activations, activation_alpha, activation_beta, clip, direction, 0)
    cell = _gru_linear_before_reset if linear_before_reset else _gru_cell
    return _recurrent(ctx, _Inputs(x, w, r, b, sequence_lens, (initial_h,)), settings, cell)


@lowers("GRU", 14, 22)
def gru_14(
    ctx: Context,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    *,
    linear_before_reset: int = 0,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> Any:
    settings = _Settings(activations, activation_alpha, activation_beta, clip, direction, layout)
    cell = _gru_linear_before_reset if linear_before_reset else _gru_cell
    return _recurrent(ctx, _Inputs(x, w, r, b, sequence_lens, (initial_h,)), settings, cell)


@lowers("LSTM", 7)
def lstm_7(
    ctx: Context,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    initial_c: Value | None = None,
    p: Value | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
) -> Any:
    settings = _Settings(activations, activation_alpha, activation_beta, clip, direction, 0)
    inputs = _Inputs(x, w, r, b, sequence_lens, (initial_h, initial_c), p)
    return _recurrent(ctx, inputs, settings, _lstm_coupled if input_forget else _lstm_cell)


@lowers("LSTM", 14, 22)
def lstm_14(
    ctx: Context,
    x: Value,
    w: Value,
    r: Value,
    b: Value | None = None,
    sequence_lens: Value | None = None,
    initial_h: Value | None = None,
    initial_c: Value | None = None,
    p: Value | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> Any:
    settings = _Settings(activations, activation_alpha, activation_beta, clip, direction, layout)
    inputs = _Inputs(x, w, r, b, sequence_lens, (initial_h, initial_c), p)
    return _recurrent(ctx, inputs, settings, _lstm_coupled if input_forget else _lstm_cell)


# --- cells ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell of one direction.

    Attributes:
        input_bias: added to the product of the input and its weights; None for none.
        step: takes that sum at one step and the state, returns the next state, h first.
    """

    input_bias: Any
    step: Callable[[Any, list[Any]], list[Any]]


@dataclass(frozen=True, slots=True)
class _Weights:
    """Weights of one direction as tensors, gates side by side: ``x @ w``, ``h @ r``."""

    w: Any
    r: Any
    wb: Any
    rb: Any
    p: Any
    hidden: int


_MakeCell = Callable[[_Weights, list[_Unary]], _Cell]


def _rnn_cell(weights: _Weights, functions: list[_Unary]) -> _Cell:
    (f,) = functions

    def step(x: Any, state: list[Any]) -> list[Any]:
        return [f(x + tf.matmul(state[0], weights.r))]

    return _Cell(_sum(weights.wb, weights.rb), step)


def _gru_cell(weights: _Weights, functions: list[_Unary]) -> _Cell:
    f, g = functions
    split = 2 * weights.hidden
    gates, candidate = weights.r[:, :split], weights.r[:, split:]

    def step(x: Any, state: list[Any]) -> list[Any]:
        h = state[0]
        z, r = tf.split(f(x[:, :split] + tf.matmul(h, gates)), 2, 1)
        n = g(x[:, split:] + tf.matmul(r * h, candidate))
        return [n + z * (h - n)]

    return _Cell(_sum(weights.wb, weights.rb), step)


def _gru_linear_before_reset(weights: _Weights, functions: list[_Unary]) -> _Cell:
    f, g = functions
    split = 2 * weights.hidden

    def step(x: Any, state: list[Any]) -> list[Any]:
        h = state[0]
        recurrent = tf.matmul(h, weights.r)
        if weights.rb is not None:
            recurrent += weights.rb
        z, r = tf.split(f(x[:, :split] + recurrent[:, :split]), 2, 1)
        n = g(x[:, split:] + r * recurrent[:, split:])
        return [n + z * (h - n)]

    return _Cell(weights.wb, step)


def _lstm_cell(weights: _Weights, functions: list[_Unary]) -> _Cell:
    return _lstm(weights, functions, coupled=False)


def _lstm_coupled(weights: _Weights, functions: list[_Unary]) -> _Cell:
    """The forget gate is 1 - the input gate (``input_forget``)."""
    return _lstm(weights, functions, coupled=True)


def _lstm(weights: _Weights, functions: list[_Unary], coupled: bool) -> _Cell:
    f, g, h = functions
    peep_i, peep_o, peep_f = (None, None, None) if weights.p is None else tf.split(weights.p, 3, 0)

    def step(x: Any, state: list[Any]) -> list[Any]:
        before = state[1]
        i, o, forget, c = tf.split(x + tf.matmul(state[0], weights.r), 4, 1)
        i = f(_seen(i, peep_i, before))
        forget = 1.0 - i if coupled else f(_seen(forget, peep_f, before))
        after = forget * before + i * g(c)
        return [f(_seen(o, peep_o, after)) * h(after), after]

    return _Cell(_sum(weights.wb, weights.rb), step)


def _seen(gate: Any, peephole: Any, cell: Any) -> Any:
    return gate if peephole is None else gate + peephole * cell


def _sum(a: Any, b: Any) -> Any:
    return None if a is None else a + b


# --- directions and time ---------------------------------------------------------------------


def _recurrent(ctx: Context, inputs: _Inputs, settings: _Settings, make: _MakeCell) -> Any:
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    if settings.direction not in backwards:
        raise ctx.refuse(f"direction '{settings.direction}' is none of {', '.join(backwards)}")
    x = inputs.x.tensor
    if settings.layout:
        x = tf.transpose(x, [1, 0, 2])
    functions = _functions(ctx, settings, make, len(backwards[settings.direction]))
    sequences, states = [], []
    for d, reverse in enumerate(backwards[settings.direction]):
        cell, projected = _cell(ctx, inputs, d, x, make, functions[d])
        initial = _initial(inputs, settings.layout, d, projected)
        run = _Run(ctx, cell, None if inputs.lengths is None else inputs.lengths.tensor, reverse)
        sequence, state = run(projected, initial)
        sequences.append(sequence)
        states.append(state)
    y = tf.stack(sequences, 1) if settings.layout == 0 else _batch_first(sequences)
    finals = [tf.stack(parts, 1 if settings.layout else 0) for parts in zip(*states, strict=True)]
    return (y, *finals)


def _batch_first(sequences: list[Any]) -> Any:
    return tf.transpose(tf.stack(sequences, 2), [1, 0, 2, 3])


def _cell(
    ctx: Context, inputs: _Inputs, d: int, x: Any, make: _MakeCell, functions: list[_Unary]
) -> tuple[_Cell, Any]:
    """The cell of a direction, and the input times its weights and with its biases."""
    bias = inputs.b
    w, r = _direction(ctx, inputs.w, d, True), _direction(ctx, inputs.r, d, True)
    wb, rb = (None, None) if bias is None else tf.split(_direction(ctx, bias, d), 2, 0)
    p = None if inputs.peepholes is None else _direction(ctx, inputs.peepholes, d)
    cell = make(_Weights(w, r, wb, rb, p, inputs.hidden), functions)
    steps, batch, features = Value(x).dims()
    projected = tf.matmul(sizes.reshape(x, [-1, features]), w)
    if cell.input_bias is not None:
        projected += cell.input_bias
    return cell, sizes.reshape(projected, [steps, batch, w.shape[1]])


def _direction(ctx: Context, value: Value, d: int, transposed: bool = False) -> Any:
    """The weights of one direction; transposed at once if they are constant."""
    if value.const is not None:
        part = value.const[d]
        return ctx.constant(np.ascontiguousarray(part.T if transposed else part)).tensor
    part = value.tensor[d]
    return tf.transpose(part) if transposed else part


def _initial(inputs: _Inputs, layout: int, d: int, projected: Any) -> list[Any]:
    hidden, batch = inputs.hidden, Value(projected).dims()[1]
    given = []
    for value in inputs.initial:
        if value is None:
            zeros = tf.zeros(sizes.pack([batch, hidden]), projected.dtype)
            zeros.set_shape(sizes.static([batch, hidden]))
            given.append(zeros)
        else:
            given.append(value.tensor[:, d] if layout else value.tensor[d])
    return given


@dataclass(frozen=True, slots=True)
class _Run:
    """Runs a cell over time, in one direction.

    Attributes:
        lengths: of each sequence, int32; None if all are as long as the tensor. Past its
            length a sequence keeps its state, and its output is zero.
    """

    ctx: Context
    cell: _Cell
    lengths: Any
    reverse: bool

    def __call__(self, x: Any, initial: list[Any]) -> tuple[Any, list[Any]]:
        """Outputs of all steps, stacked, and the last state."""
        x = self._turned(x)
        steps = Value(x).dims()[0]
        if isinstance(steps, int) and steps <= _LONGEST_UNROLLED:
            outputs, state = [], initial
            for t, part in enumerate(tf.unstack(x, axis=0)):
                output, state = self._step(t, part, state)
                outputs.append(output)
            return self._turned(tf.stack(outputs)), state

        def body(t: Any, state: list[Any]) -> loops.Step:
            output, state = self._step(t, tf.gather(x, t), state)
            return loops.Step(state, [output])

        state, (stacked,) = loops.iterate(self.ctx.target, body, initial, steps=steps)
        return self._turned(stacked), state

    def _step(self, t: Any, x: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        following = self.cell.step(x, state)
        if self.lengths is None:
            return following[0], following
        running = tf.expand_dims(tf.less(t, self.lengths), 1)
        output = tf.where(running, following[0], tf.zeros_like(following[0]))
        return output, [
            tf.where(running, new, old) for new, old in zip(following, state, strict=True)
        ]

    def _turned(self, x: Any) -> Any:
        """Time the other way round if the direction is; each sequence within its length."""
        if not self.reverse:
            return x
        if self.lengths is None:
            return tf.reverse(x, [0])
        return tf.reverse_sequence(x, self.lengths, seq_axis=0, batch_axis=1)


# --- activations -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Activation:
    """A function of x, alpha and beta, with defaults; None for a scale that it has not."""

    function: Callable[[Any, float, float], Any]
    alpha: float | None = None
    beta: float | None = None


_ACTIVATIONS = {
    "relu": _Activation(lambda x, a, b: tf.nn.relu(x)),
    "tanh": _Activation(lambda x, a, b: tf.tanh(x)),
    "sigmoid": _Activation(lambda x, a, b: tf.sigmoid(x)),
    "softsign": _Activation(lambda x, a, b: x / (1.0 + tf.abs(x))),
    "softplus": _Activation(lambda x, a, b: tf.nn.relu(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x)))),
    "affine": _Activation(lambda x, a, b: a * x + b, 1.0, 0.0),
    "leakyrelu": _Activation(lambda x, a, b: tf.where(x >= 0.0, x, a * x), 0.01),
    "thresholdedrelu": _Activation(lambda x, a, b: tf.where(x > a, x, tf.zeros_like(x)), 1.0),
    "scaledtanh": _Activation(lambda x, a, b: a * tf.tanh(b * x), 1.0, 1.0),
    "hardsigmoid": _Activation(lambda x, a, b: tf.clip_by_value(a * x + b, 0.0, 1.0), 0.2, 0.5),
    "elu": _Activation(lambda x, a, b: tf.where(x >= 0.0, x, a * (tf.exp(x) - 1.0)), 1.0),
}

_LSTM_H = 2
"""Where an LSTM's function of the cell state is among its activations."""

_DEFAULTS: dict[Any, tuple[str, ...]] = {
    _rnn_cell: ("Tanh",),
    _gru_cell: ("Sigmoid", "Tanh"),
    _gru_linear_before_reset: ("Sigmoid", "Tanh"),
    _lstm_cell: ("Sigmoid", "Tanh", "Tanh"),
    _lstm_coupled: ("Sigmoid", "Tanh", "Tanh"),
}


def _functions(
    ctx: Context, settings: _Settings, make: _MakeCell, directions: int
) -> list[list[_Unary]]:
    """Activation functions by direction. Each takes from alpha and beta what it has.

    ``clip`` bounds what goes into them, save for the h of an LSTM: so does ONNX Runtime.
    """
    defaults = _DEFAULTS[make]
    names = list(settings.activations or defaults * directions)[: len(defaults) * directions]
    if len(names) != len(defaults) * directions:
        raise ctx.refuse(f"{len(names)} activations for {len(defaults) * directions} functions")
    alphas, betas = list(settings.alpha or ()), list(settings.beta or ())
    functions = []
    for position, name in enumerate(names):
        found = _ACTIVATIONS.get(name.lower())
        if found is None:
            raise ctx.refuse(f"activation '{name}' is unknown")
        alpha = alphas.pop(0) if found.alpha is not None and alphas else found.alpha
        beta = betas.pop(0) if found.beta is not None and betas else found.beta
        clip = settings.clip if position % len(defaults) < _LSTM_H else None
        functions.append(_clipped(found.function, alpha, beta, clip))
    bounds = range(0, len(functions) + 1, len(defaults))
    return [functions[start:end] for start, end in pairwise(bounds)]


def _clipped(function: Any, alpha: Any, beta: Any, clip: float | None) -> _Unary:
    if not clip:
        return lambda x: function(x, alpha, beta)
    return lambda x: function(tf.clip_by_value(x, -clip, clip), alpha, beta)
