"""Einstein summation, as products of matrices."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from modelpack.lowering import dtypes, sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import permuted
from modelpack.lowering.ops.matmul import product
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

_ELLIPSIS = "..."
# Stand for the axes of an ellipsis, the last axis first.
_BROADCAST = string.digits


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation with a character per axis: a letter, or a digit for an axis of an ellipsis."""

    terms: tuple[str, ...]
    result: str


@lowers("Einsum", 12, 28)
def einsum(ctx: Context, *inputs: Value, equation: str) -> Any:
    parsed = parse(equation, [x.rank for x in inputs])
    terms = [
        _Term(x, axes).with_distinct_axes() for x, axes in zip(inputs, parsed.terms, strict=True)
    ]
    longer = {axis for term in terms for axis in term.axes if term.static_size(axis) != 1}
    terms = [term.without_repeated(longer) for term in terms]
    total = terms[0]
    for position, term in enumerate(terms[1:], 1):
        later = {*parsed.result, *"".join(other.axes for other in terms[position + 1 :])}
        total = total.summed_over_others(ctx, {*later, *term.axes})
        total = _contracted(ctx, total, term.summed_over_others(ctx, {*later, *total.axes}), later)
    total = total.summed_over_others(ctx, parsed.result)
    return permuted(total.value, [total.axes.index(axis) for axis in parsed.result])


def parse(equation: str, ranks: Sequence[int]) -> Equation:
    """Read an equation for inputs of these ranks.

    Raises:
        ValueError: it does not fit them.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = tuple(
        _with_digits(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)
    )
    longest = max(ranks[i] - len(t.replace(_ELLIPSIS, "")) for i, t in enumerate(left.split(",")))
    ellipsis = _BROADCAST[:longest][::-1] if _ELLIPSIS in left else ""
    if arrow:
        return Equation(terms, right.replace(_ELLIPSIS, ellipsis))
    counts = Counter(re.sub(r"[.,]", "", left))
    once = sorted(axis for axis, count in counts.items() if count == 1)
    return Equation(terms, ellipsis + "".join(once))


def _with_digits(term: str, rank: int) -> str:
    count = rank - len(term.replace(_ELLIPSIS, ""))
    if count < 0 or (count and _ELLIPSIS not in term):
        raise ValueError(f"'{term}' does not fit an input of rank {rank}")
    return term.replace(_ELLIPSIS, _BROADCAST[:count][::-1])


@dataclass(frozen=True, slots=True)
class _Term:
    """A value, and the character of each of its axes."""

    value: Value
    axes: str

    def with_distinct_axes(self) -> _Term:
        """The diagonal of axes that have the same character."""
        term = self
        while repeated := next((a for a, n in Counter(term.axes).items() if n > 1), ""):
            term = term._diagonal(repeated)
        return term

    def _diagonal(self, axis: str) -> _Term:
        first = self.axes.index(axis)
        second = self.axes.index(axis, first + 1)
        rest = [i for i in range(self.value.rank) if i not in {first, second}]
        dims = self.value.dims()
        flat = sizes.reshape(
            self.value.transposed([*rest, first, second]),
            [*(dims[i] for i in rest), dims[first] * dims[second]],
        )
        indices = tf.range(dims[first]) * (dims[first] + 1)
        return _Term(Value(tf.gather(flat, indices, axis=-1)), self._named(rest) + axis)

    def static_size(self, axis: str) -> int | None:
        """The size of an axis, None if it is dynamic."""
        return self.value.shape[self.axes.index(axis)]

    def without_repeated(self, longer: Collection[str]) -> _Term:
        """Without axes of size 1 that another term has more of: each element meets all of those.

        Those of an ellipsis stay, as products of matrices broadcast them.
        """
        gone = [
            i
            for i, axis in enumerate(self.axes)
            if axis in longer and axis not in _BROADCAST and self.static_size(axis) == 1
        ]
        if not gone:
            return self
        kept = [i for i in range(len(self.axes)) if i not in gone]
        return _Term(self.value.mapped(lambda x: tf.squeeze(x, gone)), self._named(kept))

    def _named(self, positions: Sequence[int]) -> str:
        return "".join(self.axes[i] for i in positions)

    def summed_over_others(self, ctx: Context, kept: Collection[str]) -> _Term:
        """The sum over all axes but those that are kept."""
        gone = [i for i, axis in enumerate(self.axes) if axis not in kept]
        if not gone:
            return self

        def total(x: Any) -> Any:
            return tf.reduce_sum(x, gone)

        kernels = dtypes.TFLITE if ctx.builtin_only else (*dtypes.TFLITE, tf.float64)
        summed = dtypes.computed_in(kernels, total, self.value.tensor)
        return _Term(
            Value(summed), self._named([i for i in range(self.value.rank) if i not in gone])
        )

    def matrix(self, batch: str, rows: str, columns: str) -> tuple[Any, bool]:
        """As matrices, and whether those are transposed, which may be cheaper."""
        flip = bool(rows and columns) and self.axes.endswith(rows) and columns in self.axes
        order = batch + (columns + rows if flip else rows + columns)
        tensor = self.value.transposed([self.axes.index(axis) for axis in order])
        dims = self.sizes(order)
        lead = _merged(batch, dims)
        groups = (columns, rows) if flip else (rows, columns)
        shape = [*lead, *(sizes.product([dims[a] for a in group]) for group in groups)]
        return (
            tensor if len(shape) == len(order) and all(groups) else sizes.reshape(tensor, shape)
        ), flip

    def sizes(self, axes: str) -> dict[str, Size]:
        """Size by character."""
        dims = self.value.dims()
        return {axis: dims[self.axes.index(axis)] for axis in axes}


def _merged(batch: str, dims: dict[str, Size]) -> list[Size]:
    """Axes of an ellipsis broadcast and stay apart; the others become one."""
    apart = [dims[axis] for axis in batch if axis in _BROADCAST]
    named = [dims[axis] for axis in batch if axis not in _BROADCAST]
    return apart + ([sizes.product(named)] if named else [])


def _contracted(ctx: Context, a: _Term, b: _Term, later: set[str]) -> _Term:
    """The product of two terms, summed over the axes that both have and nothing reads later."""
    ellipsis = "".join(sorted({*a.axes, *b.axes} & {*_BROADCAST}, reverse=True))
    shared = [axis for axis in a.axes if axis in b.axes and axis not in _BROADCAST]
    named = "".join(axis for axis in shared if axis in later)
    inner = "".join(axis for axis in shared if axis not in later)
    rows = "".join(axis for axis in a.axes if axis not in b.axes and axis not in _BROADCAST)
    columns = "".join(axis for axis in b.axes if axis not in a.axes and axis not in _BROADCAST)
    left, flip_left = a.matrix(_of(ellipsis, a) + named, rows, inner)
    right, flip_right = b.matrix(_of(ellipsis, b) + named, inner, columns)
    result = product(ctx, left, right, flip_left, flip_right)
    known = {**b.sizes(_of(columns, b)), **a.sizes(_of(named + rows, a))}
    lead = Value(result).dims()[: len(ellipsis)]
    shape = lead + [known[axis] for axis in named + rows + columns]
    return _Term(Value(sizes.reshape(result, shape)), ellipsis + named + rows + columns)


def _of(axes: str, term: _Term) -> str:
    return "".join(axis for axis in axes if axis in term.axes)
