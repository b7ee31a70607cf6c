"""Line plots as SVG, with logarithmic scales on both axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 720
HEIGHT: Final = 420
LEFT: Final = 90
RIGHT: Final = 190
TOP: Final = 50
BOTTOM: Final = 60
# Told apart without colours too: each line has dashes of its own.
STYLES: Final = (
    ("#1f6f8b", ""),
    ("#c8553d", "7 4"),
    ("#588157", "2 3"),
    ("#6d597a", "9 3 2 3"),
    ("#bc6c25", "4 2"),
)


def line_plot(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
) -> str:
    """An SVG document; every x and y is above zero."""
    points = [point for line in lines.values() for point in line]
    x_low, x_high = _bounds([x for x, _ in points])
    y_low, y_high = _bounds([y for _, y in points])

    def x_at(x: float) -> float:
        share = (math.log10(x) - x_low) / (x_high - x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y_at(y: float) -> float:
        share = (math.log10(y) - y_low) / (y_high - y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            f' font-family="sans-serif" font-size="12">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="26" font-size="15">{escape(title)}</text>',
        (
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 16}" text-anchor="middle">'
            f"{escape(x_label)}</text>"
        ),
        (
            f'<text x="18" y="{HEIGHT / 2}" text-anchor="middle"'
            f' transform="rotate(-90 18 {HEIGHT / 2})">{escape(y_label)}</text>'
        ),
    ]
    for power in range(math.ceil(x_low - 1e-9), math.floor(x_high + 1e-9) + 1):
        x = x_at(10.0**power)
        parts.append(_rule(x, TOP, x, HEIGHT - BOTTOM))
        parts.append(_tick(x, HEIGHT - BOTTOM + 18, "middle", power))
    for power in range(math.ceil(y_low - 1e-9), math.floor(y_high + 1e-9) + 1):
        y = y_at(10.0**power)
        parts.append(_rule(LEFT, y, WIDTH - RIGHT, y))
        parts.append(_tick(LEFT - 8, y + 4, "end", power))
    for row, (name, line) in enumerate(lines.items()):
        colour, dashes = STYLES[row % len(STYLES)]
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line)
        style = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
        parts.append(f'<polyline points="{path}" fill="none" {style}/>')
        y = TOP + 10 + 22 * row
        x = WIDTH - RIGHT + 14
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x + 28}" y2="{y}" {style}/>')
        parts.append(f'<text x="{x + 34}" y="{y + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """Whole powers of ten around the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return float(low), float(max(high, low + 1))


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _tick(x: float, y: float, anchor: str, power: int) -> str:
    label = f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>'
