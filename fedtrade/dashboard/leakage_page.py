"""The leakage report as one HTML file that needs nothing else, in the look of the run's report.

Like that page it forbids itself every load (`default-src 'none'`), and every text from outside is
escaped. The same report gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template
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
    VERMILLION,
    label,
    styled,
)
from fedtrade.dashboard.leakage import (
    CONFIDENCE,
    OBSERVED,
    AuditRow,
    InversionRow,
    LeakageReport,
    noise_shown,
)
from fedtrade.dashboard.markup import (
    PAGE,
    SCRIPT,
    STYLE,
    Plots,
    element,
    paragraph,
    section,
    table,
)

LOOKS = {
    "ratio": (ORANGE, "triangle-up"),
    "public data": (VERMILLION, "diamond"),
    "matching": (BLUE, "circle"),
}
"""Colour and symbol of each attack."""
WAYS = {
    "ratio": "gradient ratio (one row)",
    "public data": "public data and linear algebra",
    "matching": "gradient matching",
}


def render(report: LeakageReport) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs  # here, so that a report can be made without plotly

    plots = Plots()
    body = "\n".join(
        [
            _header(report),
            _promise(report),
            _audits(report, plots),
            _inversions(report, plots),
            _limits(report),
        ]
    )
    library: str = get_plotlyjs()
    return Template(PAGE).substitute(
        title=escape(report.title),
        style=STYLE,
        body=body,
        plotly=library,
        figures=plots.script(),
        script=SCRIPT,
    )


def _header(report: LeakageReport) -> str:
    sentences = "".join(element("li", escape(text)) for text in report.conclusions)
    links = " · ".join(
        f'<a href="#s{i}">{i} {name}</a>'
        for i, name in enumerate(("Promise", "Audit", "Red team", "Not shown"), start=1)
    )
    return (
        f"<header><h1>{escape(report.title)}</h1>{paragraph(report.subtitle, 'subtitle')}"
        f'<ul class="verdict">{sentences}</ul><div class="tiles">{_tiles(report)}</div>'
        f'<nav aria-label="Sections">{links}</nav></header>'
    )


def _tiles(report: LeakageReport) -> str:
    p = report.promise
    tiles = [
        _tile(
            "Promised for a release",
            f"ε = {f.number(p.pld, 2)}",
            [f"by PLD; {f.number(p.rdp, 2)} by RDP; δ = {f.power(p.delta, 0)}", f"unit: {p.unit}"],
        )
    ]
    for row in report.audits:
        good = (row.verdict == "FAIL") == row.fault
        lines = [
            f"ε: {f.number(row.bound, 2)} shown, {f.number(row.claimed, 2)} claimed",
            f"z: {f.number(row.noise, 2)} found, {f.number(row.noise_multiplier, 2)} promised",
            "control: must FAIL" if row.fault else "must PASS",
        ]
        tiles.append(_tile(row.name.capitalize(), row.verdict, lines, "" if good else "bad"))
    return "".join(tiles)


def _tile(name: str, figure: str, lines: Sequence[str], css: str = "") -> str:
    small = "".join(element("div", escape(line), "small") for line in lines)
    return (
        f'<div class="tile {css}"><div class="name">{escape(name)}</div>'
        f'<div class="figure">{escape(figure)}</div>{small}</div>'
    )


def _promise(report: LeakageReport) -> str:
    p = report.promise
    rows = [
        ("noise multiplier z", f.number(p.noise_multiplier, 2)),
        ("sampling rate q", f.number(p.sampling_rate, 3)),
        ("rounds", f.number(p.rounds, 0)),
        ("δ", f.power(p.delta, 0)),
        ("ε by PLD", f.number(p.pld, 3)),
        ("ε by RDP", f.number(p.rdp, 3)),
    ]
    lede = paragraph(
        "Whatever an attacker knows and however it computes, seeing a whole release changes what it "
        f"can say about one {p.unit} by at most a factor of e to the power ε, but for a chance of δ. "
        f"Adjacency: {p.adjacency}."
    )
    return section(1, "What is promised", lede, table(("term", "value"), rows, css="narrow"))


def _audits(report: LeakageReport, plots: Plots) -> str:
    lede = paragraph(
        "Canary positions with known gradients went through real rounds: members clipped, added up, "
        "quantised, masked and signed, helpers unmasked with their noise, and the auditor saw what "
        "the coordinator sees. In the controls the helpers added less noise than the terms promise; "
        "an audit that cannot tell them from the real run could not see a fault."
    )
    if not report.audits:
        return section(2, "The audit", lede)
    return section(2, "The audit", lede, _noise(report.audits), _guesses(report.audits, plots))


def _verdict(verdict: str) -> str:
    return element("span", verdict, "no" if verdict == "FAIL" else "ok")


def _noise(audits: Sequence[AuditRow]) -> str:
    """What the auditor found when it took the gradients that it knows off the sums."""
    lede = paragraph(
        "The auditor took the gradients that it knows off the sums. What is left is the noise: is it "
        "as strong as promised, Gaussian, and new in each round?"
    )
    heads = ("run", "verdict", "z promised", "z found", "p, Gaussian", "p, new", "values", "time")
    rows = [
        (
            escape(row.name),
            _verdict(row.noise_verdict),
            f.number(row.noise_multiplier, 2),
            noise_shown(row),
            _p_value(row.shape),
            "–" if row.repeats is None else _p_value(row.repeats),
            f.number(row.noise_samples, 0),
            f.seconds(row.seconds),
        )
        for row in audits
    ]
    foot = paragraph(
        "z found is what one bad helper that stays silent would leave: all helpers of the audit are "
        "honest, and their noise is stronger by half its variance. The interval is that of the "
        "chi-squared distribution and holds with 99.9 % confidence; a run fails where it lies below "
        "the promise. p, Gaussian: Kolmogorov and Smirnov's test; p, new: the sum of the products of "
        "every two rounds' noise. Noise that is right gives p below 0.001 once in a thousand runs, "
        "and then fails. Time: of the whole run, for this table and the next.",
        "foot",
    )
    return element("h3", "What the noise is") + lede + table(heads, rows, words=2) + foot


def _p_value(p: float) -> str:
    return "&lt; 0.001" if p < 0.001 else f.number(p, 3)


def _guesses(audits: Sequence[AuditRow], plots: Plots) -> str:
    """What the auditor showed of ε by guessing which canaries took part."""
    lede = paragraph(
        "The auditor guessed which canaries had taken part. More right guesses than the claim allows "
        "disprove the claim, whatever was wrong."
    )
    heads = ("run", "verdict", "rounds", "right", "ε, Steinke", "ε, f-DP", "ε claimed")
    rows = [
        (
            escape(row.name),
            _verdict(row.guesses_verdict),
            f.number(row.rounds, 0),
            f"{f.number(row.right, 0)} / {f.number(row.guesses, 0)}",
            f.number(row.one_run, 2),
            f.number(row.f_dp, 2),
            f.number(row.claimed, 2),
        )
        for row in audits
    ]
    first = audits[0]
    foot = paragraph(
        f"{f.number(first.canaries, 0)} canaries, {f.number(first.dimension, 0)} parameters. The "
        f"claim is for positions that take part in each of the {first.rounds} rounds and for a "
        "coordinator without helpers of its own, so it is another figure than the promise above. "
        f"All that a run shows, here and of its noise, holds together with {CONFIDENCE} confidence. "
        "Steinke et al., arXiv 2305.08846; f-DP: Mahloujifar et al., arXiv 2410.22235.",
        "foot",
    )
    name = "What each run shows, against what is claimed"
    caption = "A bound to the right of the line disproves the claim. Controls lie there on purpose."
    plot = plots.place(audit_figure(audits), name, caption)
    return element("h3", "What it gives away") + lede + table(heads, rows, words=2) + foot + plot


def audit_figure(rows: Sequence[AuditRow]) -> Any:
    """Both lower bounds of each run as dots, and the claim as a tick."""
    names = [label(row.name) for row in rows]
    figure = go.Figure()
    for name, values, colour, symbol in (
        ("lower bound, f-DP", [r.f_dp for r in rows], BLUE, "diamond"),
        ("lower bound, Steinke et al.", [r.one_run for r in rows], GREEN, "circle"),
        ("claimed", [r.claimed for r in rows], INK, "line-ns-open"),
    ):
        thick = {"width": 3 if symbol.startswith("line") else 1, "color": colour}
        figure.add_trace(
            go.Scatter(
                x=values,
                y=names,
                mode="markers",
                name=name,
                marker={"color": colour, "symbol": symbol, "size": 13, "line": thick},
                hovertemplate=f"%{{y}}: ε %{{x:.2f}} ({name})<extra></extra>",
            )
        )
    styled(figure, 130 + 40 * len(rows), top=44, legend={**LEGEND, "y": 1.02})
    figure.update_xaxes(title_text="ε", rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    return figure


def _inversions(report: LeakageReport, plots: Plots) -> str:
    lede = paragraph(
        "The attacker knows the model, how many positions an update holds, and the distribution of "
        "positions, and tries to read the private features of each: side, leverage, distance to "
        "liquidation, age, unrealised return, size. Errors are in deviations of the prior: 0 is "
        "exact, and about 1 is what anyone reaches by guessing the mean."
    )
    if not report.inversions:
        return section(3, "The red team", lede, paragraph("No attack was run.", "empty"))
    caption = (
        "One row an observation, from no protection to the protocol. Lines are "
        f"{CONFIDENCE} intervals over scenes; the grey mark is the prior in the same scenes. "
        "Left is worse for the member."
    )
    plot = plots.place(inversion_figure(report.inversions), "Error of every attack", caption)
    kinds = "".join(
        element("li", f"<b>{escape(key)}</b>: {escape(text)}.")
        for key, text in OBSERVED.items()
        if any(row.observed == key for row in report.inversions)
    )
    heads = (
        *("observed", "attack", "positions", "error", "prior", "control"),
        *("values right", "prior", "better"),
    )
    rows = [
        (
            escape(row.observed),
            escape(WAYS.get(row.attack, row.attack)),
            f.number(row.positions, 0),
            f"{f.number(row.error, 2)} ({_span(row.error_low, row.error_high, 2)})",
            f.number(row.prior_error, 2),
            f.number(row.control_error, 2),
            f.percent(row.recovered, 0),
            f.percent(row.prior_recovered, 0),
            element("span", "yes", "no") if row.better else "no",
        )
        for row in report.inversions
    ]
    scenes = report.inversions[0].scenes
    foot = paragraph(
        f"{scenes} scenes a row, {f.seconds(report.inversions_seconds)} for all of them; a value is "
        "right within a tenth of a deviation. Control: the same attack's rows compared with other "
        "updates. “Better” means an error smaller by at least a twentieth of a deviation than the "
        "prior's and the control's, with "
        f"{CONFIDENCE} confidence for all rows together.",
        "foot",
    )
    details = f"<details><summary>All attacks in figures</summary>{table(heads, rows, words=2)}"
    return section(
        3, "The red team", lede, element("ul", kinds), plot, details + foot + "</details>"
    )


def _span(low: float, high: float, digits: int) -> str:
    return f"{f.number(low, digits)} to {f.number(high, digits)}"


def inversion_figure(rows: Sequence[InversionRow]) -> Any:
    """Error with interval by observation, a panel for each number of positions."""
    counts = sorted({row.positions for row in rows})
    kinds = [key for key in OBSERVED if any(row.observed == key for row in rows)]
    titles = [f.count(n, "position") for n in counts]
    figure = make_subplots(
        rows=1, cols=len(counts), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=titles
    )
    ways = [way for way in LOOKS if any(row.attack == way for row in rows)]
    for column, count in enumerate(counts, start=1):
        for place, way in enumerate(ways):
            own = [r for r in rows if r.positions == count and r.attack == way]
            if not own and column > 1:
                continue
            offset = 0.22 * (place - (len(ways) - 1) / 2)
            colour, symbol = LOOKS[way]
            figure.add_trace(
                go.Scatter(
                    x=[r.error for r in own],
                    y=[kinds.index(r.observed) + offset for r in own],
                    error_x={
                        "type": "data",
                        "symmetric": False,
                        "array": [r.error_high - r.error for r in own],
                        "arrayminus": [r.error - r.error_low for r in own],
                        "thickness": 1.5,
                        "width": 3,
                    },
                    mode="markers",
                    name=WAYS[way],
                    showlegend=column == 1,
                    legendgroup=way,
                    marker={"color": colour, "symbol": symbol, "size": 9},
                    hovertemplate=f"error %{{x:.3f}} ({WAYS[way]})<extra></extra>",
                ),
                1,
                column,
            )
        priors = [(r.prior_error, kinds.index(r.observed)) for r in rows if r.positions == count]
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in priors],
                y=[y for _, y in priors],
                mode="markers",
                name="prior alone",
                showlegend=column == 1,
                legendgroup="prior",
                marker={
                    "color": GREY,
                    "symbol": "line-ns-open",
                    "size": 26,
                    "line": {"width": 2, "color": GREY},
                },
                hovertemplate="prior alone: error %{x:.3f}<extra></extra>",
            ),
            1,
            column,
        )
        figure.update_xaxes(title_text="error", rangemode="tozero", row=1, col=column)
    styled(figure, 150 + 58 * len(kinds), top=70, legend={**LEGEND, "y": 1.09})
    figure.update_yaxes(
        tickvals=list(range(len(kinds))),
        ticktext=[label(kind) for kind in kinds],
        range=[len(kinds) - 0.4, -0.6],
    )
    return figure


def _limits(report: LeakageReport) -> str:
    items = "".join(element("li", escape(text)) for text in report.limits)
    standins = "".join(element("li", escape(text)) for text in report.standins)
    return section(
        4,
        "What this does not show",
        element("ul", items),
        element("h3", "Stand-ins"),
        element("ul", standins),
    )
