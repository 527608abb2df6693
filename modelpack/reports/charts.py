"""The figures of a report, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelpack.reports import svg
from modelpack.reports.words import counted
from modelpack.validation import Histogram, KindError, Score

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LEFT, _RIGHT = 52.0, 16.0
_ROW = 38.0
_GAP = 0.5  # of a histogram's bars
_LARGEST_PLAIN = 12  # powers of two beyond 4096 are written as powers


def power(exponent: int) -> str:
    """A power of two for an axis: 1/8, 1, 64, 2²⁰."""
    if abs(exponent) > _LARGEST_PLAIN:
        return "2" + str(exponent).translate(_SUPERSCRIPTS)
    return str(2**exponent) if exponent >= 0 else f"1/{2**-exponent}"


# --- errors of elements --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Slot:
    """One bar of a histogram: ``exponent`` is None for errors of zero and infinity."""

    name: str
    count: int
    kind: str
    exponent: int | None = None


def histogram(found: Histogram, output: str) -> str:
    """Elements by error, both axes logarithmic, with the limit marked."""
    slots = _slots(found)
    top, base = 30.0, 196.0
    step = (svg.WIDTH - _LEFT - _RIGHT) / (len(slots) + 2 * _GAP)
    most = max(slot.count for slot in slots)
    parts = _counts_axis(most, top, base)
    for index, slot in enumerate(slots):
        x = _LEFT + (index + _gaps(slots, index)) * step
        height = (base - top) * _share(slot.count, most)
        if slot.count:
            hint = f"{slot.name}: {slot.count} elements"
            parts.append(svg.bar(x + 1, base - height, step - 2, height, slot.kind, hint))
        parts += _slot_label(slot, x, step, base)
    first = next(index for index, slot in enumerate(slots) if slot.exponent is not None)
    exponent = slots[first].exponent
    assert exponent is not None
    mark = _LEFT + (first + _GAP + math.log2(found.limit) - exponent) * step
    over_rms = found.unit == "standard deviation"
    words = "limit of the root mean square" if over_rms else "limit"
    parts += _limit(mark, top, base, f"{words} {found.limit:g}")
    parts.append(svg.text(svg.WIDTH / 2, base + 38, f"error / {found.unit}", "muted", "middle"))
    return svg.figure(base + 46, f"Errors of output {output} over its {found.unit}", *parts)


def _gaps(slots: Sequence[_Slot], index: int) -> float:
    """Room before a bar: zero and infinity stand apart from the scale."""
    apart = index > 0 and slots[index].exponent is None
    return _GAP * ((index > 0) + apart)


def _slots(found: Histogram) -> list[_Slot]:
    at_limit = math.ceil(math.log2(found.limit))
    by_element = found.unit != "standard deviation"
    first = min(found.first, at_limit - 4) if found.counts else at_limit - 6
    last = max(found.first + len(found.counts), at_limit + 2)
    slots = [_Slot("0", found.exact, "good")]
    for exponent in range(first, last):
        position = exponent - found.first
        count = found.counts[position] if 0 <= position < len(found.counts) else 0
        beyond = by_element and 2.0**exponent >= found.limit
        name = f"{power(exponent)} to {power(exponent + 1)}"
        slots.append(_Slot(name, count, "bad" if beyond else "plain", exponent))
    if found.infinite:
        slots.append(_Slot("∞", found.infinite, "bad"))
    return slots


def _slot_label(slot: _Slot, x: float, step: float, base: float) -> list[str]:
    if slot.exponent is None:
        return [svg.text(x + step / 2, base + 18, slot.name, "muted", "middle")]
    every = 1 if step > 34 else 3 if step > 12 else 6
    if slot.exponent % every:
        return []
    return [
        svg.line(x, base, x, base + 4, "axis"),
        svg.text(x, base + 18, power(slot.exponent), "muted", "middle"),
    ]


def _share(count: int, most: int) -> float:
    """The height of a bar, of 1: logarithmic, and a single element can be seen."""
    return (math.log10(count) + 0.3) / (math.log10(most) + 0.3) if count else 0.0


def _counts_axis(most: int, top: float, base: float) -> list[str]:
    parts = [svg.line(_LEFT, base, svg.WIDTH - _RIGHT, base, "axis")]
    digits = int(math.log10(most)) if most else 0
    for exponent in range(digits + 1):
        if digits > 5 and exponent % 2:
            continue
        y = base - (base - top) * _share(10**exponent, max(most, 1))
        parts.append(svg.line(_LEFT, y, svg.WIDTH - _RIGHT, y, "grid"))
        parts.append(svg.text(_LEFT - 6, y + 4, f"{10**exponent:,}", "muted", "end"))
    return parts


def _limit(x: float, top: float, base: float, words: str) -> list[str]:
    return [svg.line(x, top - 14, x, base, "limit"), _limit_name(x, top, words)]


def _limit_name(x: float, top: float, words: str) -> str:
    at_end = x > svg.WIDTH * 0.7
    beside = -5 if at_end else 5
    return svg.text(x + beside, top - 6, words, "limit-text", "end" if at_end else "start")


# --- rows of bars --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One bar of a chart of bars.

    Attributes:
        name: what it is of.
        value: how long it is, in the chart's unit.
        words: the value as it is written.
        end: of the thin line that goes on behind the bar, such as a 95th percentile.
        kind: class of its colour.
    """

    name: str
    value: float
    words: str
    end: float = 0.0
    kind: str = "plain"


def bars(rows: Sequence[Row], label: str) -> str:
    """Horizontal bars from zero, each below its name."""
    longest = max((max(row.value, row.end) for row in rows), default=0.0) or 1.0
    parts = []
    for index, row in enumerate(rows):
        y = index * _ROW
        width = max(svg.WIDTH * row.value / longest, 1.0)
        parts.append(svg.text(0, y + 14, row.name))
        parts.append(svg.text(svg.WIDTH, y + 14, row.words, "muted", "end"))
        parts.append(svg.bar(0, y + 20, width, 10, row.kind, f"{row.name}: {row.words}"))
        if row.end > row.value:
            end = svg.WIDTH * row.end / longest - 1
            parts.append(svg.line(width, y + 25, end, y + 25, "whisker"))
            parts.append(svg.line(end, y + 20, end, y + 30, "whisker"))
    return svg.figure(len(rows) * _ROW, label, *parts)


def kinds(found: Sequence[KindError], limit: float, unit: str) -> str:
    """The largest error by kind of case, on a logarithmic scale with the limit marked."""
    finite = [item.worst for item in found if 0 < item.worst < math.inf]
    low = math.floor(math.log2(min([*finite, limit]))) - 1
    high = math.ceil(math.log2(max([*finite, limit]))) + 1
    top = 22.0
    mark = _position(limit, low, high)
    parts = [_limit_name(mark, top, f"limit {limit:g}")]
    for index, item in enumerate(found):
        y = top + index * _ROW
        reach = _position(item.worst, low, high)
        cases = counted(item.cases, "case")
        words = f"{item.worst:.3g} times the {unit}" if item.worst else "no error"
        kind = "bad" if item.worst > limit else "plain"
        parts.append(svg.text(0, y + 14, f"{item.kind or 'typical'} ({cases})"))
        parts.append(svg.text(svg.WIDTH, y + 14, words, "muted", "end"))
        parts.append(svg.bar(0, y + 20, max(reach, 1.0), 10, kind, words))
        parts.append(svg.line(mark, y + 18, mark, y + 32, "limit"))
    height = top + len(found) * _ROW
    return svg.figure(height, "Largest error by kind of case", *parts)


def _position(value: float, low: float, high: float) -> float:
    if value <= 0:
        return 0.0
    if math.isinf(value):
        return float(svg.WIDTH)
    return svg.WIDTH * min(max((math.log2(value) - low) / (high - low), 0.0), 1.0)


# --- intervals -----------------------------------------------------------------------


def differences(rows: Sequence[tuple[str, Score, str]]) -> str:
    """Differences of one metric from the reference's, with their confidence intervals.

    Args:
        rows: name, score, and the difference in words.
    """
    ends = [abs(end) for _, score, _ in rows for end in (score.low, score.high) if end is not None]
    reach = max([end for end in ends if math.isfinite(end)], default=0.0) or 1.0
    middle, half = svg.WIDTH / 2, svg.WIDTH / 2 - 8
    height = len(rows) * _ROW
    parts = [svg.line(middle, 0, middle, height, "axis")]
    for index, (name, score, words) in enumerate(rows):
        y = index * _ROW
        parts.append(svg.text(0, y + 12, name))
        parts.append(svg.text(svg.WIDTH, y + 12, words, "muted", "end"))
        known = [score.low, score.high, score.reference]
        if any(value is None or not math.isfinite(value) for value in known):
            continue
        assert score.low is not None
        assert score.high is not None
        assert score.reference is not None
        low, high = (middle + half * end / reach for end in (score.low, score.high))
        parts.append(svg.line(low, y + 24, high, y + 24, "interval"))
        at = middle + half * (score.value - score.reference) / reach
        parts.append(svg.dot(at, y + 24, "plain", words))
    metric = rows[0][1].metric
    return svg.figure(height, f"Differences of {metric} from the reference's", *parts)


# --- curves --------------------------------------------------------------------------


def curve(points: Sequence[tuple[str, float]], marked: str) -> str:
    """Errors along a model, layer by layer in the order of computation, logarithmic.

    Args:
        points: names of tensors with their errors; those not above zero are drawn at the foot.
        marked: name of the tensor to point at.
    """
    top, base = 30.0, 196.0
    known = [error for _, error in points if 0 < error < math.inf]
    low = math.floor(math.log10(min(known, default=0.1)))
    high = max(math.ceil(math.log10(max(known, default=1.0))), low + 1)
    places = [
        (_along(index, len(points)), _height(error, low, high, top, base))
        for index, (_, error) in enumerate(points)
    ]
    parts = [svg.line(_LEFT, base, svg.WIDTH - _RIGHT, base, "axis")]
    for exponent in range(low, high + 1, max((high - low) // 6, 1)):
        y = _height(10.0**exponent, low, high, top, base)
        parts.append(svg.line(_LEFT, y, svg.WIDTH - _RIGHT, y, "grid"))
        parts.append(svg.text(_LEFT - 6, y + 4, f"{10.0**exponent:.0e}", "muted", "end"))
    parts.append(svg.polyline(places, "curve"))
    for (x, y), (name, error) in zip(places, points, strict=True):
        kind = "bad" if name == marked else "plain"
        parts.append(svg.dot(x, y, kind, f"{name}: {error:.3g}"))
        if name == marked:
            parts += _limit(x, top, base, name)
    parts.append(svg.text(_LEFT, base + 20, points[0][0], "muted"))
    parts.append(svg.text(svg.WIDTH - _RIGHT, base + 20, points[-1][0], "muted", "end"))
    return svg.figure(base + 28, "Errors layer by layer", *parts)


def _along(index: int, count: int) -> float:
    room = svg.WIDTH - _LEFT - _RIGHT - 16
    return _LEFT + 8 + room * (index / (count - 1) if count > 1 else 0.5)


def _height(error: float, low: int, high: int, top: float, base: float) -> float:
    if not error > 0:  # NaN too
        return base if error <= 0 else top
    share = 1.0 if math.isinf(error) else (math.log10(error) - low) / (high - low)
    return base - (base - top) * share
