"""The plots of training and forecasts, and the look that all plots share.

Colours are Okabe and Ito's (2008), which stay apart for the colour-blind, and no series is told from
another by colour alone: dashes and symbols differ too. Whatever text comes from outside is escaped,
since plotly reads a part of HTML in labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fedtrade.dashboard import formats as f
from fedtrade.dashboard.findings import NAMES
from fedtrade.dashboard.report import Report, RoundPoint

INK, GREY, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, SKY, GREEN = "#0072b2", "#56b4e9", "#009e73"
ORANGE, VERMILLION, PURPLE = "#e69f00", "#d55e00", "#cc79a7"
FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial"

SYMBOLS = {"federated": "diamond", "pooled": "square", "har": "triangle-up", "persistence": "x"}
COLOURS = {"federated": BLUE, "pooled": GREEN, "har": ORANGE, "persistence": GREY}

LEGEND = {
    "orientation": "h",
    "xanchor": "left",
    "x": 0,
    "yanchor": "bottom",
    "bgcolor": "rgba(255,255,255,0)",
    "font": {"size": 12},
    "itemclick": False,
    "itemdoubleclick": False,
}


def label(text: str) -> str:
    """Text as plotly shows it literally."""
    return escape(text, quote=False)


def times(stamps: Sequence[int]) -> Any:
    """Unix seconds as plotly's dates (UTC)."""
    return np.asarray(stamps, np.int64).astype("datetime64[s]")


def styled(figure: Any, height: int, top: int = 34, **layout: Any) -> Any:
    """The common look: white, thin grid, ink text, room for the legend above the plots."""
    figure.update_layout(
        height=height,
        autosize=True,
        margin={"l": 64, "r": 16, "t": top, "b": 36},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        font={"family": FONT, "size": 12, "color": INK},
        hoverlabel={"bgcolor": "#ffffff", "font": {"color": INK}, "align": "left"},
        template="none",
        **layout,
    )
    axis = {
        "gridcolor": GRID,
        "linecolor": "#9aa5b1",
        "showline": True,
        "ticks": "outside",
        "tickcolor": "#9aa5b1",
        "ticklen": 4,
        "zeroline": False,
        "automargin": True,
        "title_standoff": 8,
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


HEADS = ((1, 2, 5), (1, 3), (1,))
"""Leading digits of a log axis's ticks, from dense to sparse."""


def log_ticks(values: Sequence[float], ticks_max: int = 8) -> dict[str, Any]:
    """A log axis over positive values, with as many readable ticks as there is room for."""
    positive = [v for v in values if v > 0 and math.isfinite(v)]
    if not positive:
        return {"type": "log"}
    low, high = math.log10(min(positive)), math.log10(max(positive))
    pad = 0.06 * max(high - low, 0.3)
    exponents = range(math.floor(low) - 1, math.ceil(high) + 2)
    for heads in HEADS:
        ticks = [head * 10.0**e for e in exponents for head in heads]
        shown = [t for t in ticks if low - pad <= math.log10(t) <= high + pad]
        if len(shown) <= ticks_max:
            break
    return {
        "type": "log",
        "range": [low - pad, high + pad],
        "tickvals": shown,
        "ticktext": [f.power(t, 0) if not 0.01 <= t < 1000 else f"{t:g}" for t in shown],
    }


def _line(colour: str, dash: str = "solid", width: float = 2) -> dict[str, Any]:
    return {"color": colour, "dash": dash, "width": width}


def training_figure(report: Report) -> Any:
    """ε, public QLIKE and attendance, by round: three panels side by side."""
    rounds = report.training
    figure = make_subplots(
        rows=1,
        cols=3,
        horizontal_spacing=0.075,
        subplot_titles=("ε spent", "QLIKE on public candles", "Who took part"),
    )
    number = [p.number for p in rounds]
    figure.add_trace(
        go.Scatter(
            x=number,
            y=[p.epsilon_rdp for p in rounds],
            mode="lines",
            line=_line(BLUE),
            name="by RDP",
            hovertemplate="round %{x}: ε %{y:.3f} (RDP)<extra></extra>",
        ),
        1,
        1,
    )
    figure.add_trace(
        go.Scatter(
            x=number[-1:],
            y=[report.epsilon.pld],
            mode="markers",
            marker={
                "color": VERMILLION,
                "symbol": "diamond-open",
                "size": 10,
                "line": {"width": 2},
            },
            name="whole release by PLD",
            hovertemplate="whole release: ε %{y:.3f} (PLD)<extra></extra>",
        ),
        1,
        1,
    )
    _qlike_panel(figure, rounds)
    _attendance_panel(figure, rounds)
    for i in (1, 2, 3):
        figure.update_xaxes(title_text="round", row=1, col=i)
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=3, tickformat="d")
    legends = {
        "legend": {**LEGEND, "y": -0.22, "yanchor": "top"},
        "legend2": {**LEGEND, "x": 1, "xanchor": "right", "y": -0.22, "yanchor": "top"},
    }
    styled(figure, 330, top=36, **legends)
    for i, note in enumerate(figure.layout.annotations[:3]):
        axis = figure.layout["xaxis" if i == 0 else f"xaxis{i + 1}"]
        note.update(x=axis.domain[0], xanchor="left", font={"size": 13})
    figure.update_layout(margin_b=84)
    return figure


def _qlike_panel(figure: Any, rounds: Sequence[RoundPoint]) -> None:
    scored = [p for p in rounds if p.qlike is not None]
    if not scored:
        figure.add_annotation(
            text="not measured", showarrow=False, xref="x2 domain", yref="y2 domain", x=0.5, y=0.5
        )
    figure.add_trace(
        go.Scatter(
            x=[p.number for p in scored],
            y=[p.qlike for p in scored],
            mode="lines+markers" if len(scored) < 40 else "lines",
            line=_line(BLUE),
            marker={"size": 5},
            showlegend=False,
            hovertemplate="round %{x}: QLIKE %{y:.4f}<extra></extra>",
        ),
        1,
        2,
    )


def _attendance_panel(figure: Any, rounds: Sequence[RoundPoint]) -> None:
    for name, values, colour, dash, symbol in (
        ("members in the cohort", [p.cohort for p in rounds], BLUE, "solid", "circle"),
        ("helpers that answered", [p.responders for p in rounds], GREEN, "dash", "square"),
        ("left out", [p.left_out for p in rounds], VERMILLION, "dot", "x"),
    ):
        figure.add_trace(
            go.Scatter(
                x=[p.number for p in rounds],
                y=values,
                mode="lines+markers" if len(rounds) < 40 else "lines",
                line={**_line(colour, dash), "shape": "hv"},
                marker={"size": 4, "symbol": symbol},
                name=name,
                legend="legend2",
                hovertemplate=f"round %{{x}}: %{{y}} {name}<extra></extra>",
            ),
            1,
            3,
        )


def forecast_figure(report: Report) -> Any:
    """Forecast and realised variance by hour, log axis, one row a symbol."""
    shown = {s: v for s, v in report.forecasts.items() if v.times_s}
    rows = len(shown)
    height = 130 + 190 * rows
    figure = make_subplots(
        rows=rows,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=30 / (height - 90),
        subplot_titles=[label(symbol) for symbol in shown],
    )
    for row, series in enumerate(shown.values(), start=1):
        for name, values, line, symbol in (
            ("realised", series.realised, _line(INK, width=2.5), "circle"),
            ("federated model", series.model, _line(BLUE), "diamond"),
            ("HAR", series.har, _line(ORANGE, "dash"), "triangle-up"),
        ):
            figure.add_trace(
                go.Scatter(
                    x=times(series.times_s),
                    y=[v if v > 0 else None for v in values],
                    mode="lines+markers" if len(values) < 60 else "lines",
                    line=line,
                    marker={"size": 6, "symbol": symbol},
                    name=name,
                    showlegend=row == 1,
                    hovertemplate=f"%{{y:.2e}} {name}<extra></extra>",
                ),
                row,
                1,
            )
        values = [*series.realised, *series.model, *series.har]
        figure.update_yaxes(title_text="variance / h", row=row, col=1, **log_ticks(values))
    styled(
        figure,
        height,
        top=58,
        hovermode="x unified",
        legend={**LEGEND, "y": 1 + 30 / (height - 94)},
    )
    for note in figure.layout.annotations:
        note.update(x=0, xanchor="left", font={"size": 13})
    figure.update_xaxes(hoverformat="%d %b %H:%M UTC")
    figure.update_xaxes(title_text="end of the hour that is forecast (UTC)", row=rows, col=1)
    return figure


def score_figure(report: Report) -> Any:
    """Dot plot of QLIKE: every forecaster a row, best on top; members in a row each."""
    rows: list[tuple[float, str, str, str]] = [
        (score.qlike, NAMES.get(key, key), COLOURS.get(key, PURPLE), SYMBOLS.get(key, "circle"))
        for key, score in report.metrics.items()
        if key != "solo_mean"
    ]
    rows += [(s.qlike, f"solo: {s.name}", SKY, "circle-open") for s in report.solo]
    if (mean := report.metrics.get("solo_mean")) is not None:
        rows.append((mean.qlike, NAMES["solo_mean"], SKY, "circle"))
    rows = sorted((r for r in rows if math.isfinite(r[0])), key=lambda r: -r[0])
    figure = go.Figure(
        go.Scatter(
            x=[r[0] for r in rows],
            y=list(range(len(rows))),
            mode="markers+text",
            text=[f"  {f.number(r[0])}" for r in rows],
            textposition="middle right",
            textfont={"size": 11},
            cliponaxis=False,
            marker={
                "size": 11,
                "color": [r[2] for r in rows],
                "symbol": [r[3] for r in rows],
                "line": {"width": 2, "color": [r[2] for r in rows]},
            },
            hovertext=[label(r[1]) for r in rows],
            hovertemplate="%{hovertext}: QLIKE %{x:.4f}<extra></extra>",
            showlegend=False,
        )
    )
    ours = report.metrics.get("federated")
    if ours is not None and math.isfinite(ours.qlike):
        figure.add_vline(x=ours.qlike, line={"color": BLUE, "width": 1, "dash": "dot"})
    styled(figure, 70 + 25 * max(len(rows), 3), top=10)
    bold = {NAMES["federated"]}
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[f"<b>{label(r[1])}</b>" if r[1] in bold else label(r[1]) for r in rows],
        range=[-0.7, len(rows) - 0.3],
    )
    values = [r[0] for r in rows]
    if values and min(values) > 0 and max(values) > 3 * min(values):
        ticks = log_ticks(values)
        low, high = ticks["range"]
        ticks["range"] = [low, high + 0.12 * (high - low)]
        figure.update_xaxes(title_text="QLIKE, log axis (lower is better)", **ticks)
    elif values:
        width = (max(values) - min(values)) or abs(values[0]) or 1.0
        reach = [min(values) - 0.06 * width, max(values) + 0.2 * width]
        figure.update_xaxes(title_text="QLIKE (lower is better)", range=reach)
    return figure
