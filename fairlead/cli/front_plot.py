"""The Pareto front as an SVG picture: cost against latency and cost against carbon, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _MARGIN = 420, 320, 56
_INK, _FRAME, _DOT = "#222222", "#999999", "#1f6fb2"
_TICKS = 4


def draw_front(points: Sequence[dict[str, Any]]) -> str:
    """The points of a front as SVG; each dot names its regions when it is pointed at."""
    panels = (("mean_ms", "mean latency, ms"), ("carbon_g", "carbon, gCO2e/h"))
    box = f"0 0 {2 * _WIDTH} {_HEIGHT}"
    font = f'font-family="sans-serif" font-size="11" fill="{_INK}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" {font}>',
        f'<rect width="{2 * _WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for number, (name, title) in enumerate(panels):
        parts.append(f'<g transform="translate({number * _WIDTH} 0)">')
        parts += _panel(points, name, title)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(points: Sequence[dict[str, Any]], name: str, title: str) -> list[str]:
    across = _Scale([point["cost_usd"] for point in points], _MARGIN, _WIDTH - 20)
    up = _Scale([point[name] for point in points], _HEIGHT - _MARGIN, 20)
    parts = [
        f'<path d="M {_MARGIN} 20 V {_HEIGHT - _MARGIN} H {_WIDTH - 20}" fill="none" stroke="{_FRAME}"/>',
        f'<text x="{(_WIDTH + _MARGIN) / 2:g}" y="{_HEIGHT - 14}" text-anchor="middle">cost, USD/h</text>',
        f'<text transform="translate(14 {_HEIGHT / 2:g}) rotate(-90)" text-anchor="middle">{title}</text>',
    ]
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _MARGIN + 16}" text-anchor="middle">{value:.3g}</text>')
    parts += [
        f'<text x="{_MARGIN - 6}" y="{up.at(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        for value in up.ticks()
    ]
    for point in points:
        x, y = across.at(point["cost_usd"]), up.at(point[name])
        says = escape(f"{', '.join(point['regions'])}: {point['cost_usd']:g} USD/h, {point[name]:g}")
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_DOT}"><title>{says}</title></circle>')
    return parts


class _Scale:
    """Values on a line from one pixel to another, with a little room at both ends."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        least, most = min(values), max(values)
        room = 0.05 * (most - least) or abs(most) or 1.0
        self._least, self._span = least - room, most - least + 2 * room
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self._begin + (value - self._least) / self._span * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """Some values along the line."""
        return [self._least + self._span * number / _TICKS for number in range(_TICKS + 1)]
