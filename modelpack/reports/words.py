"""How tables and reports write figures."""

from __future__ import annotations

from modelpack.validation import Score


def size(count: int) -> str:
    """Bytes for people: ``812 B``, ``1.4 MB`` (decimal units, as file managers show)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def counted(count: int, thing: str) -> str:
    """A number of things: ``1 case``, ``1,200 cases``."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def milliseconds(value: float) -> str:
    """Three significant digits: ``0.0123 ms``, ``145 ms``."""
    return f"{_plain(value)} ms"


def _plain(value: float) -> str:
    """Three significant digits without an exponent, up to where digits would be made up."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def difference(score: Score) -> str:
    """How far a metric is from the reference's, with its confidence interval; ``-`` if alone."""
    if score.reference is None or score.low is None or score.high is None:
        return "-"
    change = score.value - score.reference
    return f"{_signed(change)} ({_signed(score.low)} to {_signed(score.high)})"


def _signed(value: float) -> str:
    return f"{value:+.2g}" if value else "0"
