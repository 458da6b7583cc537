"""Small pictures inside the report's table: inline SVG, drawn here, so that a table of many columns costs no chart."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 96, 24
_COLORS = {"stable": "#c9d3e3", "moved": "#f5a524", "shifted": "#e5484d"}


def line(values: Sequence[float | None], *, title: str = "") -> str:
    """A line over days from 0 to 1; a gap where there is no value."""
    step = WIDTH / max(len(values) - 1, 1)
    paths: list[str] = []
    pen = "M"
    for number, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        y = HEIGHT - 2 - min(value, 1.0) * (HEIGHT - 4)
        paths.append(f"{pen}{number * step:.1f} {y:.1f}")
        pen = "L"
    known = [value for value in values if value is not None]
    dot = ""
    if len(known) == 1:
        dot = f'<circle cx="{WIDTH / 2}" cy="{HEIGHT - 2 - min(known[0], 1.0) * (HEIGHT - 4):.1f}" r="2"/>'
        paths = []
    drawn = f'<path d="{" ".join(paths)}" fill="none"/>' if paths else ""
    return _svg(
        f'<line x1="0" x2="{WIDTH}" y1="{HEIGHT - 2}" y2="{HEIGHT - 2}" class="base"/>{drawn}{dot}',
        "spark line",
        title,
    )


def bars(shares: Sequence[float], labels: Sequence[str], *, title: str = "") -> str:
    """One bar per bin, scaled to the largest; each says what it is."""
    if not shares or not max(shares):
        return ""
    width = WIDTH / len(shares)
    drawn = []
    for number, (share, label) in enumerate(zip(shares, labels, strict=True)):
        height = max(share / max(shares) * (HEIGHT - 2), 0.75 if share else 0)
        tone = ' class="null"' if label == "NULL" else ""
        drawn.append(
            f'<rect x="{number * width:.2f}" y="{HEIGHT - height:.1f}" width="{width - min(1, width * 0.25):.2f}" '
            f'height="{height:.1f}"{tone}><title>{escape(label)}: {share:.1%}</title></rect>'
        )
    return _svg("".join(drawn), "spark bars", title)


def levels(values: Sequence[tuple[float, str] | None], *, title: str = "") -> str:
    """One bar per day, coloured by its level (`stable`, `moved`, `shifted`), from 0 to 0.5."""
    width = WIDTH / max(len(values), 1)
    drawn = []
    for number, one in enumerate(values):
        if one is None:
            continue
        value, level = one
        height = max(min(value / 0.5, 1.0) * (HEIGHT - 2), 1.5)
        drawn.append(
            f'<rect x="{number * width:.2f}" y="{HEIGHT - height:.1f}" width="{width - min(1, width * 0.25):.2f}" '
            f'height="{height:.1f}" fill="{_COLORS[level]}"/>'
        )
    return _svg("".join(drawn), "spark levels", title) if drawn else ""


def _svg(inner: str, kind: str, title: str) -> str:
    label = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<svg class="{kind}" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{label}{inner}</svg>'
    )
