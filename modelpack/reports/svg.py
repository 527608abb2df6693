"""Small functions that write SVG elements; colours come from the page's style sheet by class."""

from __future__ import annotations

from html import escape

WIDTH = 640  # of every figure, in its own units: figures shrink with the page


def element(name: str, content: str = "", **attributes: str | float) -> str:
    """One element; ``class_`` and ``text_anchor`` become ``class`` and ``text-anchor``."""
    words = [
        f'{key.rstrip("_").replace("_", "-")}="{escape(_written(value))}"'
        for key, value in attributes.items()
    ]
    start = " ".join([name, *words])
    return f"<{start}>{content}</{name}>" if content else f"<{start}/>"


def figure(height: float, label: str, *parts: str) -> str:
    """A picture of `WIDTH` by ``height``, with what it shows in words for who cannot see it."""
    return element(
        "svg",
        "\n".join(parts),
        viewBox=f"0 0 {WIDTH} {_written(height)}",
        role="img",
        aria_label=label,
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Text at its baseline; ``anchor`` is start, middle or end."""
    return element("text", escape(content), x=x, y=y, class_=kind or "ink", text_anchor=anchor)


def bar(x: float, y: float, width: float, height: float, kind: str, hint: str = "") -> str:
    """A filled rectangle, with a hint for the pointer."""
    content = element("title", escape(hint)) if hint else ""
    return element("rect", content, x=x, y=y, width=width, height=height, rx=2, class_=kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def dot(x: float, y: float, kind: str, hint: str) -> str:
    """A point of a curve, with a hint for the pointer."""
    return element("circle", element("title", escape(hint)), cx=x, cy=y, r=3.5, class_=kind)


def polyline(points: list[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    path = " ".join(f"{_written(x)},{_written(y)}" for x, y in points)
    return element("polyline", points=path, class_=kind)


def _written(value: str | float) -> str:
    """Coordinates to a tenth: the same on every machine, and fine enough to see."""
    return value if isinstance(value, str) else f"{round(value, 1):g}"
