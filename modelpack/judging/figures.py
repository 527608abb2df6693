"""Figures of how the outputs of a candidate differ from those of a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelpack.samples import Array

_TOP = 5
_SIGNIFICANT = 3

# Of an output's scale: what an answer moves by at least, where it jumps.
_JUMP = 1e-4


class Elements:
    """The elements of one output in one case."""

    def __init__(self, want: Array, have: Array, noise: Array | None) -> None:
        self.want, self.have = want, have
        self.noise = None if noise is None else noise.astype(np.float64)
        self.scale, self.finite, self.error = 0.0, np.zeros(()), np.zeros(())
        if want.dtype.kind not in "fV":
            return
        self.want, self.have = want.astype(np.float64), have.astype(np.float64)
        same = (self.want == self.have) | (np.isnan(self.want) & np.isnan(self.have))
        finite = np.isfinite(self.want) & np.isfinite(self.have)
        with np.errstate(invalid="ignore"):  # inf - inf, which the next line leaves out
            difference = np.abs(self.want - self.have)
        self.error = np.where(same, 0.0, np.where(finite, difference, np.inf))
        self.finite = np.where(np.isfinite(self.want), self.want, 0.0)
        self.scale = float(np.abs(self.finite).max(initial=0.0))

    def over_noise(self) -> float:
        assert self.noise is not None
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = np.where(self.error > 0, self.error / self.noise, 0.0)
        return float(np.nan_to_num(ratios, nan=0.0, posinf=np.inf).max(initial=0.0))

    def ulp(self) -> float:
        spacing = np.maximum(np.abs(self.finite), np.finfo(np.float32).tiny) * 2.0**-23
        ulps = self.error / 2.0 ** np.floor(np.log2(spacing))
        return float(ulps[np.isfinite(ulps)].max(initial=0.0))

    def on_thresholds(self, allowed: Array, usual: float) -> int:
        """Rows that differ by more than is usual, where the reference's last bits jump too.

        Args:
            allowed: how far each element may be, of the output's shape.
            usual: how far one may be where nothing jumps.
        """
        least = max(usual, _JUMP * self.scale)
        jumped = (self.error > least) & (self.error <= allowed)
        return int(np.count_nonzero(jumped.any(tuple(range(1, jumped.ndim))))) if jumped.ndim else 0

    def sign_flips(self, gap: Array) -> int:
        changed = np.sign(self.finite) * np.sign(np.nan_to_num(self.have)) < 0
        return int(np.count_nonzero(changed & (np.abs(self.finite) > gap)))


@dataclass(frozen=True, slots=True)
class Decisions:
    """Choices of the largest element along the last axis.

    Attributes:
        rows: how many there are.
        flips: changed although the reference's was decided.
        ties: changed where it was open.
        top_flips: rows whose set of the five largest changed, although that was decided.
    """

    rows: int = 0
    flips: int = 0
    ties: int = 0
    top_flips: int = 0


def decisions(item: Elements, gap: Array) -> Decisions:
    """Changes of the largest elements along the last axis.

    Args:
        item: both sides.
        gap: how close to another an element must be to be open to exchange, of its shape.
    """
    want, have = np.nan_to_num(item.want), np.nan_to_num(item.have)
    if want.ndim < 2 or want.shape[-1] < 2 or not want.size:
        return Decisions()
    width = want.shape[-1]
    sides = want.reshape(-1, width), have.reshape(-1, width), gap.reshape(-1, width)
    first, top = (_changed(*sides, count) for count in (1, min(_TOP, width - 1)))
    return Decisions(
        rows=len(sides[0]),
        flips=int(np.count_nonzero(first)),
        ties=len(first) - int(np.count_nonzero(first)),
        top_flips=int(np.count_nonzero(top)),
    )


def _changed(want: Array, have: Array, gap: Array, count: int) -> Array:
    """Of each row whose ``count`` largest are not the same: whether they stood out by the gap."""
    best = [np.sort(np.argpartition(-side, count - 1, -1)[:, :count], -1) for side in (want, have)]
    moved = (best[0] != best[1]).any(-1)
    want, gap = want[moved], gap[moved]
    order = np.argsort(-want, -1, kind="stable")
    inside, outside = order[:, count - 1 : count], order[:, count : count + 1]
    distance = np.take_along_axis(want, inside, -1) - np.take_along_axis(want, outside, -1)
    needed = np.take_along_axis(gap, inside, -1) + np.take_along_axis(gap, outside, -1)
    result: Array = (distance > needed)[:, 0]
    return result


def rms(values: Array) -> float:
    finite = np.abs(values[np.isfinite(values)])
    scale = float(finite.max(initial=0.0))
    return scale * float(np.sqrt(np.mean((finite / scale) ** 2))) if scale else 0.0


def spread(items: Sequence[Elements], scale: float) -> float:
    """The standard deviation of the finite values, in units of the scale against overflow."""
    values = joined([item.want[np.isfinite(item.want)] for item in items])
    return float(np.std(values / scale)) * scale if scale else 0.0


def cosine(items: Sequence[Elements], scale: float) -> float:
    """Cosine similarity of the finite elements; 1 where both are zero."""
    if not scale:
        return 1.0
    want, have = (
        joined([np.where(np.isfinite(side), side, 0.0) for side in sides]) / scale
        for sides in ([i.want for i in items], [i.have for i in items])
    )
    norms = float(np.linalg.norm(want) * np.linalg.norm(have))
    return round(float(want @ have) / norms, 9) if norms else 0.0


def joined(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0)


def ratio(error: float, unit: float) -> float:
    """The error in units of the output; any error is infinite where the output is all zero."""
    if unit:
        return error / unit
    return float("inf") if error else 0.0


def rounded(value: float) -> float:
    """Three significant digits: figures are for reading, and the rest is noise."""
    return float(f"{value:.{_SIGNIFICANT - 1}e}")
