"""The plot of docs/members.md as a small SVG, from the tables of `benchmarks.members` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

WIDTH, HEIGHT = 340, 340
"""Of one panel."""
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 44, 52
INK, GREY, BLUE, GREEN, ORANGE, SKY = (
    "#1f2933", "#e4e7eb", "#0072b2", "#009e73", "#e69f00", "#56b4e9",
)  # fmt: skip
LEVELS = (("HAR", ORANGE, "6 4"), ("solo (mean)", SKY, "2 3"), ("pooled", GREEN, ""))
"""Models without an ε: name, colour, dashes of their line."""


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line with its 95 % interval over seeds."""

    name: str
    values: Sequence[float]
    colour: str
    dashes: str


def draw(seeds: Sequence[Mapping[str, Any]]) -> str:
    """Three panels: QLIKE against ε, the gain kept against positions, what newcomers gain."""
    models = [seed["models"] for seed in seeds]
    names = [name for name in models[0] if name.split()[-2:-1] == ["="]]
    losses = {n.split()[-1]: [m[n]["qlike"] for m in models] for n in names}
    levels = [Level(n, [m[n]["qlike"] for m in models], c, d) for n, c, d in LEVELS]
    parts = _panel(0, "QLIKE (lower is better)", "ε of a position", losses, levels)
    shares = sorted(
        seeds[0]["fewer"], key=lambda share: float(seeds[0]["fewer"][share]["positions"])
    )
    kept = {
        f"{np.mean([s['fewer'][k]['positions'] for s in seeds]) / 1000:.0f}k": [
            100 * s["fewer"][k]["federated"] for s in seeds
        ]
        for k in shares
    }
    bar = [Level("95 %", [95.0] * len(seeds), GREEN, "6 4")]
    parts += _panel(1, "% of the pooled gain kept, ε = 4", "positions in all", kept, bar)
    counts = [c for c in seeds[0]["newcomers"] if c != "members"]
    gains = {c: [s["newcomers"][c]["gain"] for s in seeds] for c in counts}
    old = [Level("members", [s["newcomers"]["members"]["gain"] for s in seeds], ORANGE, "6 4")]
    parts += _panel(2, "QLIKE of solo less federated", "positions of a newcomer", gains, old)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * WIDTH} {HEIGHT}" '
            'role="img" font-family="sans-serif" font-size="12" '
            'aria-label="Federated against solo and pooled">',
            f'<rect width="{3 * WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(
    place: int,
    title: str,
    below: str,
    points: Mapping[str, Sequence[float]],
    levels: Sequence[Level],
) -> list[str]:
    """Points with intervals over seeds at even distances, and horizontal lines beside them."""
    drawn = {name: _interval(values) for name, values in points.items()}
    lines = [(level, *_interval(level.values)) for level in levels]
    everything = [m + sign * h for m, h in drawn.values() for sign in (-1, 1)]
    everything += [m + sign * h for _, m, h in lines for sign in (-1, 1)]
    low, high = min(everything), max(everything)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    left, right = place * WIDTH + LEFT, (place + 1) * WIDTH - RIGHT

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    ticks, digits = _ticks(low, high)
    for tick in ticks:
        parts.append(_line(left, y(tick), right, y(tick), GREY))
        parts.append(_text(left - 6, y(tick) + 4, f"{tick:.{digits}f}", "end"))
    for level, mean, half in lines:
        parts.append(
            f'<rect x="{left}" y="{y(mean + half):.1f}" width="{right - left}" '
            f'height="{y(mean - half) - y(mean + half):.1f}" fill="{level.colour}" opacity="0.15"/>'
        )
        parts.append(_line(left, y(mean), right, y(mean), level.colour, 2, level.dashes))
        parts.append(_text(right - 2, y(mean) - 5, level.name, "end", level.colour))
    for i, (name, (mean, half)) in enumerate(drawn.items()):
        x = left + (i + 0.5) / len(drawn) * (right - left)
        parts.append(_line(x, y(mean - half), x, y(mean + half), BLUE, 2))
        parts.append(f'<circle cx="{x:.1f}" cy="{y(mean):.1f}" r="4" fill="{BLUE}"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 18, name, "middle"))
    parts.append(_text((left + right) / 2, HEIGHT - 14, below, "middle"))
    parts.append(_text(left, 22, title, "start", INK))
    return parts


def _interval(values: Sequence[float]) -> tuple[float, float]:
    array = np.array(values, np.float64)
    if len(array) < 2:
        return float(array.mean()), 0.0
    half = student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5
    return float(array.mean()), float(half)


def _ticks(low: float, high: float) -> tuple[list[float], int]:
    """Four to ten round values between low and high, and the decimals they need."""
    rough = (high - low) / 5
    unit = 10.0 ** np.floor(np.log10(rough))
    step = float(unit * max(s for s in (1, 2, 5) if s * unit <= rough))
    ticks = [float(t) for t in np.arange(np.ceil(low / step), high / step) * step]
    return ticks, max(0, -int(np.floor(np.log10(step) + 1e-9)))


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dashes: str = ""
) -> str:
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dash}/>'
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
