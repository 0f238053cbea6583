"""The plot of docs/epsilon.md as a small SVG, from the figures of `benchmarks.epsilon` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 24, 60
INK, GREY, BLUE, GREEN, ORANGE, SKY = (
    "#1f2933", "#e4e7eb", "#0072b2", "#009e73", "#e69f00", "#56b4e9",
)  # fmt: skip
LEVELS = (("HAR", ORANGE, "6 4"), ("solo (mean)", SKY, "2 3"), ("pooled", GREEN, ""))
"""Models without an ε: name, colour, dashes of their line."""


def _interval(values: Sequence[float]) -> tuple[float, float]:
    array = np.array(values)
    half = student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5
    return float(array.mean()), float(half)


def draw(found: Mapping[str, Any]) -> str:
    """QLIKE against ε with 95 % intervals over seeds; lines for HAR, solo and pooled."""
    names = list(found["noise_multipliers"])
    points = [_interval([s[name]["qlike"] for s in found["seeds"]]) for name in names]
    levels = {n: _interval([s[n]["qlike"] for s in found["seeds"]]) for n, _, _ in LEVELS}
    everything = [m + sign * h for m, h in [*points, *levels.values()] for sign in (-1, 1)]
    low, high = min(everything), max(everything)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    exponents = np.log2(np.array(found["epsilons"], float))

    def x(exponent: float) -> float:
        span = exponents[-1] - exponents[0] + 1.0
        return float(LEFT + (exponent - exponents[0] + 0.5) / span * (WIDTH - LEFT - RIGHT))

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="13" aria-label="QLIKE against ε">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for tick in _ticks(low, high):
        parts.append(_line(LEFT, y(tick), WIDTH - RIGHT, y(tick), GREY))
        parts.append(_text(LEFT - 8, y(tick) + 4, f"{tick:.3f}", "end"))
    for name, colour, dashes in LEVELS:
        mean, half = levels[name]
        top, height = y(mean + half), y(mean - half) - y(mean + half)
        parts.append(
            f'<rect x="{LEFT}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT}" '
            f'height="{height:.1f}" fill="{colour}" opacity="0.15"/>'
        )
        parts.append(_line(LEFT, y(mean), WIDTH - RIGHT, y(mean), colour, 2, dashes))
        parts.append(_text(WIDTH - RIGHT - 4, y(mean) - 5, name, "end", colour))
    for exponent, (mean, half), epsilon in zip(exponents, points, found["epsilons"], strict=True):
        parts.append(_line(x(exponent), y(mean - half), x(exponent), y(mean + half), BLUE, 2))
        parts.append(f'<circle cx="{x(exponent):.1f}" cy="{y(mean):.1f}" r="5" fill="{BLUE}"/>')
        parts.append(_text(x(exponent), HEIGHT - BOTTOM + 20, f"{epsilon:g}", "middle"))
    parts.append(
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, "ε of a position (log axis)", "middle")
    )
    parts.append(_text(LEFT, 14, "QLIKE, lower is better; dots: federated", "start", BLUE))
    return "\n".join([*parts, "</svg>\n"])


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round values between low and high."""
    rough = (high - low) / 5
    unit = 10.0 ** np.floor(np.log10(rough))
    step = float(unit * max(s for s in (1, 2, 5) if s * unit <= rough))
    return [float(t) for t in np.arange(np.ceil(low / step), high / step) * step]


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
