"""A small line chart as SVG, with a logarithmic x axis: no library, no network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 360, 60
COLOURS = ("#1f5fa8", "#b5471b", "#3b7d3b")


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


def save(path: Path, title: str, unit: str, lines: Sequence[Line]) -> None:
    path.write_text(svg(title, unit, lines))


def svg(title: str, unit: str, lines: Sequence[Line]) -> str:
    xs = [math.log10(x) for line in lines for x, _ in line.points]
    top = max(y for line in lines for _, y in line.points) * 1.15
    left, span = min(xs), (max(xs) - min(xs)) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = MARGIN + (math.log10(x) - left) / span * (WIDTH - 2 * MARGIN)
        return across, HEIGHT - MARGIN - y / top * (HEIGHT - 2 * MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="30" font-size="15">{escape(title)} ({escape(unit)})</text>',
    ]
    for x in sorted({x for line in lines for x, _ in line.points}):
        across, down = place(x, 0)
        parts.append(f'<text x="{across}" y="{down + 20}" text-anchor="middle">{x:,.0f}</text>')
    for line, colour in zip(lines, COLOURS, strict=False):
        dots = [place(x, y) for x, y in line.points]
        path = " ".join(f"{a:.1f},{d:.1f}" for a, d in dots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (a, d), (_, y) in zip(dots, line.points, strict=True):
            label = f"{line.name} {y:.0f}" if (a, d) == dots[0] else f"{y:.0f}"
            parts.append(f'<circle cx="{a:.1f}" cy="{d:.1f}" r="3" fill="{colour}"/>')
            parts.append(f'<text x="{a:.1f}" y="{d - 8:.1f}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])
