"""The plots of trading: one for each chain, and one timeline for all.

Breaker levels are the background, LP ranges are bands, actions are markers on the pool's price. The
axes follow prices, not ranges, so that a full-range position does not flatten the path.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fedtrade.dashboard import formats as f
from fedtrade.dashboard.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LEGEND,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    label,
    log_ticks,
    styled,
    times,
)
from fedtrade.dashboard.report import (
    QUOTE,
    ActionPoint,
    ChainReport,
    LevelPoint,
    RangeSpan,
    Report,
)

LEVEL_INK = {"NORMAL": GREEN, "REDUCE_ONLY": "#8a5f00", "HALT": "#a34700", "UNWIND": "#8f3d68"}
LEVEL_FILL = {
    "NORMAL": "rgba(0,158,115,{})",
    "REDUCE_ONLY": "rgba(230,159,0,{})",
    "HALT": "rgba(213,94,0,{})",
    "UNWIND": "rgba(204,121,167,{})",
}

KINDS = (
    ("provide", "triangle-up", GREEN),
    ("withdraw", "triangle-down", VERMILLION),
    ("swap", "diamond", PURPLE),
)
"""How kinds of action look: by a word in their name, then symbol and colour; others are squares."""

FAILED = {"refused", "reverted", "dropped"}
"""Outcomes without effect: their markers are hollow."""


def kind_look(kind: str) -> tuple[str, str]:
    """Symbol and colour of a kind of action."""
    for word, symbol, colour in KINDS:
        if word in kind.lower():
            return symbol, colour
    return "square", ORANGE


def level_fill(level: str, opacity: float) -> str:
    return LEVEL_FILL.get(level, LEVEL_FILL["UNWIND"]).format(opacity)


def level_spans(
    levels: Sequence[LevelPoint], start_s: int, end_s: int
) -> list[tuple[int, int, str, str]]:
    """(from, to, level, reason) over the whole window, beginning with NORMAL."""
    cuts = [LevelPoint(time_s=start_s, level="NORMAL", reason="start")]
    cuts += sorted(levels, key=lambda p: p.time_s)
    spans = []
    for here, after in zip(cuts, [*cuts[1:], None], strict=True):
        until_s = after.time_s if after else end_s
        if max(until_s, start_s) > max(here.time_s, start_s):
            spans.append((max(here.time_s, start_s), until_s, here.level, here.reason))
    return spans


def hover_of(action: ActionPoint) -> str:
    risk = "adds risk" if action.adds_risk else "reduces or keeps risk"
    return (
        f"<b>{label(action.kind)}</b>, {f.moment(action.time_s, to_second=True)} UTC<br>"
        f"{label(action.detail)}<br>{label(action.outcome)}; {risk}"
    )


def _markers(
    actions: Sequence[ActionPoint], heights: Sequence[float], **more: Any
) -> Iterable[Any]:
    """One trace of markers for each kind of action."""
    for kind in sorted({a.kind for a in actions}):
        chosen = [(a, y) for a, y in zip(actions, heights, strict=True) if a.kind == kind]
        symbol, colour = kind_look(kind)
        yield go.Scatter(
            x=times([a.time_s for a, _ in chosen]),
            y=[y for _, y in chosen],
            mode="markers",
            name=label(kind),
            marker={
                "size": 11,
                "symbol": [f"{symbol}-open" if a.outcome in FAILED else symbol for a, _ in chosen],
                "color": colour,
                "line": {
                    "width": [2 if a.outcome in FAILED else 1 for a, _ in chosen],
                    "color": [colour if a.outcome in FAILED else "#ffffff" for a, _ in chosen],
                },
            },
            hovertext=[hover_of(a) for a, _ in chosen],
            hovertemplate="%{hovertext}<extra></extra>",
            **more,
        )


def _price_limits(chain: ChainReport) -> list[float]:
    """Axis limits: all prices, and range bounds that lie near them."""
    prices = [p for p in (*chain.true_price, *chain.pool_price) if math.isfinite(p) and p > 0]
    if not prices:
        return [0.0, 1.0]
    low, high = min(prices), max(prices)
    reach = max(high - low, 0.002 * high)
    near = [b for r in chain.ranges for b in (r.lower_price, r.upper_price)]
    near = [b for b in near if low - 0.6 * reach <= b <= high + 0.6 * reach]
    low, high = min([low, *near]), max([high, *near])
    return [low - 0.05 * reach, high + 0.05 * reach]


def _bands(ranges: Sequence[RangeSpan], limits: Sequence[float]) -> Any:
    """All LP ranges as one filled trace, cut at the axis limits."""
    stamps: list[int | None] = []
    heights: list[float | None] = []
    for r in ranges:
        low, high = (min(max(b, limits[0]), limits[1]) for b in (r.lower_price, r.upper_price))
        stamps += [r.start_s, r.start_s, r.end_s, r.end_s, r.start_s, None]
        heights += [low, high, high, low, low, None]
    return go.Scatter(
        x=[None if s is None else f.moment(s, to_second=True) for s in stamps],
        y=heights,
        mode="lines",
        fill="toself",
        fillcolor="rgba(86,180,233,0.30)",
        line={"color": SKY, "width": 1},
        name="LP range of the agent",
        hoverinfo="skip",
    )


def _shade(figure: Any, chain: ChainReport, start_s: int, end_s: int) -> None:
    """Breaker levels behind every row, named at the top."""
    lifted = 0
    for begin_s, until_s, level, reason in level_spans(chain.levels, start_s, end_s):
        if level == "NORMAL":
            continue
        begin, until = times([begin_s, until_s])
        figure.add_shape(
            type="rect",
            xref="x",
            yref="paper",
            x0=begin,
            x1=until,
            y0=0,
            y1=1,
            fillcolor=level_fill(level, 0.15),
            line={"width": 0},
            layer="below",
        )
        late = (begin_s - start_s) > 0.7 * (end_s - start_s)
        figure.add_annotation(
            x=begin if not late else until,
            y=1,
            xref="x",
            yref="paper",
            xanchor="right" if late else "left",
            yanchor="top",
            yshift=-2 - 17 * lifted,
            showarrow=False,
            text=f"<b>{label(level)}</b> {label(reason)}",
            font={"size": 11, "color": LEVEL_INK.get(level, INK)},
            bgcolor="rgba(255,255,255,0.75)",
        )
        lifted += 1


def chain_figure(chain: ChainReport) -> Any:
    """Price with ranges, levels and actions; the variance forecast; P&L against both benchmarks."""
    warm = any(v is not None and v > 0 for v in chain.forecast_variance)
    shares = [0.54, 0.14, 0.32] if warm else [0.6, 0.4]
    height, top, bottom, gap = (700 if warm else 600), 46, 44, 46
    inner = height - top - bottom
    figure = make_subplots(
        rows=len(shares),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=gap / inner,
        row_heights=shares,
    )
    limits = _price_limits(chain)
    if chain.ranges:
        figure.add_trace(_bands(chain.ranges, limits), 1, 1)
    stamps = times(chain.times_s)
    for name, prices, colour, dash, width in (
        ("true price", chain.true_price, INK, "solid", 1.4),
        ("pool price", chain.pool_price, BLUE, "solid", 2.0),
    ):
        figure.add_trace(
            go.Scatter(
                x=stamps,
                y=prices,
                mode="lines",
                line={"color": colour, "dash": dash, "width": width},
                name=name,
                hovertemplate=f"%{{x|%H:%M}} {name} %{{y:,.2f}}<extra></extra>",
            ),
            1,
            1,
        )
    for marker in _markers(chain.actions, _beside_price(chain, limits)):
        figure.add_trace(marker, 1, 1)
    if warm:
        _variance_row(figure, chain)
    _pnl_row(figure, chain, len(shares))
    start_s, end_s = chain.times_s[0], chain.times_s[-1]
    _shade(figure, chain, start_s, end_s)
    last = figure.layout[f"yaxis{len(shares)}"].domain[1]
    styled(
        figure,
        height,
        top=top,
        hovermode="closest",
        legend={**LEGEND, "y": 1 + 4 / inner},
        legend2={**LEGEND, "y": last + 2 / inner},
    )
    figure.update_yaxes(title_text=f"{QUOTE} per {label(_base_of(chain.symbol))}", row=1, col=1)
    figure.update_yaxes(range=limits, tickformat=",.6~g", row=1, col=1)
    figure.update_xaxes(range=_padded(start_s, end_s))
    figure.update_xaxes(title_text="UTC", row=len(shares), col=1)
    return figure


def _padded(start_s: int, end_s: int) -> list[Any]:
    """Limits of a time axis with room for markers at both ends."""
    pad = max((end_s - start_s) // 100, 1)
    return list(times([start_s - pad, end_s + pad]))


def _base_of(symbol: str) -> str:
    return symbol.replace("-", "/").split("/")[0]


def _beside_price(chain: ChainReport, limits: Sequence[float]) -> list[float]:
    """Where each action's marker stands: at the pool's price, a mint below it, a burn above it."""
    step = 0.035 * (limits[1] - limits[0])
    heights = []
    for action in chain.actions:
        i = bisect_right(chain.times_s, action.time_s) - 1
        side = {"triangle-up": -1, "triangle-down": 1}.get(kind_look(action.kind)[0], 0)
        heights.append(chain.pool_price[max(i, 0)] + side * step)
    return heights


def _variance_row(figure: Any, chain: ChainReport) -> None:
    values = [v if v is not None and v > 0 else None for v in chain.forecast_variance]
    known = [(t, *v) for t, v in zip(chain.times_s, chain.forecast_interval, strict=True) if v]
    for side, name in ((1, "lower"), (2, "upper")):
        figure.add_trace(
            go.Scatter(
                x=times([row[0] for row in known]),
                y=[row[side] for row in known],
                mode="lines",
                line={"color": GREY, "width": 0.8},
                fill="tonexty" if side == 2 else None,
                fillcolor="rgba(123,135,148,0.18)",
                showlegend=False,
                hovertemplate=f"%{{x|%H:%M}} {name} bound (90 %) %{{y:.2e}}<extra></extra>",
            ),
            2,
            1,
        )
    figure.add_trace(
        go.Scatter(
            x=times(chain.times_s),
            y=values,
            mode="lines",
            line={"color": BLUE, "width": 1.5},
            showlegend=False,
            hovertemplate="%{x|%H:%M} forecast %{y:.2e} per hour<extra></extra>",
        ),
        2,
        1,
    )
    shown = [v for v in values if v is not None] + [v for row in known for v in row[1:]]
    ticks = log_ticks(shown, ticks_max=4)
    figure.update_yaxes(title_text="forecast<br>variance / h", row=2, col=1, **ticks)


def _pnl_row(figure: Any, chain: ChainReport, row: int) -> None:
    for name, path, colour, dash, width in (
        ("holding", chain.equity_hold, GREY, "dot", 1.8),
        ("static full-range LP", chain.equity_static, ORANGE, "dash", 1.8),
        ("agent", chain.equity, BLUE, "solid", 2.4),
    ):
        figure.add_trace(
            go.Scatter(
                x=times(chain.times_s),
                y=[value - path[0] for value in path],
                mode="lines",
                line={"color": colour, "dash": dash, "width": width},
                name=name,
                legend="legend2",
                hovertemplate=f"%{{x|%H:%M}} {name} %{{y:+,.2f}} {QUOTE}<extra></extra>",
            ),
            row,
            1,
        )
    figure.update_yaxes(
        title_text=f"P&L ({QUOTE})", tickformat=",.5~g", row=row, col=1, zeroline=True
    )
    figure.add_hline(y=0, line={"color": "#9aa5b1", "width": 1}, row=row, col=1)


def timeline_figure(report: Report) -> Any:
    """One lane a chain: the level as a bar, actions as markers above it."""
    chains = [c for c in report.chains if c.times_s]
    figure = go.Figure()
    start_s = min(c.times_s[0] for c in chains)
    end_s = max(c.times_s[-1] for c in chains)
    kinds = sorted({a.kind for c in chains for a in c.actions})
    steps = {kind: 0.04 + 0.4 * i / max(len(kinds) - 1, 1) for i, kind in enumerate(kinds)}
    seen: set[str] = set()
    for lane, chain in enumerate(reversed(chains)):
        for begin_s, until_s, level, reason in level_spans(chain.levels, start_s, end_s):
            begin, until = times([begin_s, until_s])
            figure.add_trace(
                go.Scatter(
                    x=[begin, until, until, begin, begin],
                    y=[lane - 0.36, lane - 0.36, lane - 0.14, lane - 0.14, lane - 0.36],
                    mode="lines",
                    fill="toself",
                    hoveron="fills",
                    fillcolor=level_fill(level, 0.35),
                    line={"width": 1, "color": LEVEL_INK.get(level, INK)},
                    name=label(level),
                    legendgroup=level,
                    showlegend=level not in seen,
                    text=f"{label(level)} from {f.moment(begin_s)} UTC: {label(reason)}",
                    hoverinfo="text",
                )
            )
            seen.add(level)
        heights = [lane + steps[a.kind] for a in chain.actions]
        for marker in _markers(chain.actions, heights):
            marker.update(legendgroup=marker.name, showlegend=marker.name not in seen)
            seen.add(marker.name)
            figure.add_trace(marker)
    height = 110 + 96 * len(chains)
    styled(figure, height, top=46, legend={**LEGEND, "y": 1 + 4 / (height - 90)})
    figure.update_yaxes(
        tickvals=list(range(len(chains))),
        ticktext=[f"<b>{label(c.name)}</b><br>{label(c.symbol)}" for c in reversed(chains)],
        range=[-0.5, len(chains) - 0.42],
        showgrid=False,
    )
    figure.update_xaxes(range=_padded(start_s, end_s), title_text="UTC")
    return figure
