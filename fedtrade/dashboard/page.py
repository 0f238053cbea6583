"""The report as one HTML file that needs nothing else: plotly.js is inside, the network is not used.

The page forbids itself every load through its content security policy (`default-src 'none'`), so a
file that opens looks the same everywhere. Every text from outside is escaped on its way in; figures
travel as JSON in which `<` and `&` are escaped, and each has its finding as a caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template

from fedtrade.dashboard import findings
from fedtrade.dashboard import formats as f
from fedtrade.dashboard.markup import PAGE, SCRIPT, STYLE, Plots, element, paragraph
from fedtrade.dashboard.report import ChainReport, Report, severity


def render(report: Report) -> str:
    """The whole page. The same report gives the same text."""
    from plotly.offline import get_plotlyjs  # here, so that a report can be made without plotly

    from fedtrade.dashboard import sections

    plots = Plots()
    body = "\n".join(
        [
            _header(report),
            sections.training(report, plots),
            sections.forecasts(report, plots),
            sections.chains(report, plots),
            sections.timeline(report, plots),
            sections.governance(report),
            sections.provenance(report),
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


# header


def _header(report: Report) -> str:
    verdict = "".join(element("li", escape(sentence)) for sentence in report.verdict)
    links = " · ".join(
        f'<a href="#s{i}">{i} {name}</a>'
        for i, name in enumerate(
            ("Training", "Forecasts", "Chains", "Timeline", "Governance", "Provenance"), start=1
        )
    )
    tiles = "".join(
        [_privacy_tile(report), _score_tile(report), _breaker_tile(report), _model_tile(report)]
    )
    per_chain = "".join(_pnl_tile(report, chain) for chain in report.chains)
    standins = ""
    if report.standins:
        standins = (
            f'<p class="note">Not everything here is real: {f.count(len(report.standins), "part")} '
            'of this run stood in for the real thing. <a href="#standins">Which</a></p>'
        )
    return (
        f"<header><h1>{escape(report.title)}</h1>"
        f"{paragraph(report.subtitle, 'subtitle')}"
        + (f'<ul class="verdict">{verdict}</ul>' if verdict else "")
        + standins
        + f'<div class="tiles">{tiles}</div><div class="tiles">{per_chain}</div>'
        f'<nav aria-label="Sections">{links}</nav></header>'
    )


def _tile(name: str, figure: str, lines: Sequence[str], css: str = "") -> str:
    small = "".join(element("div", escape(line), "small") for line in lines if line)
    return (
        f'<div class="tile {css}"><div class="name">{escape(name)}</div>'
        f'<div class="figure">{escape(figure)}</div>{small}</div>'
    )


def _privacy_tile(report: Report) -> str:
    e = report.epsilon
    return _tile(
        "Privacy spent",
        f"ε = {f.number(e.pld, 2)}",
        [
            f"by PLD; {f.number(e.rdp, 2)} by RDP; δ = {f.power(e.delta, 0)}",
            f"unit: {e.unit}",
            f"adjacency: {e.adjacency}",
        ],
    )


def _score_tile(report: Report) -> str:
    def of(key: str) -> str:
        score = report.metrics.get(key)
        return f.number(score.qlike) if score else f.MISSING

    ours, har = report.metrics.get("federated"), report.metrics.get("har")
    lost = ours is not None and har is not None and har.qlike < ours.qlike
    return _tile(
        "Forecast error, federated (QLIKE)",
        of("federated"),
        [
            f"solo members' mean {of('solo_mean')}",
            f"HAR {of('har')}{', which is better' if lost else ''}",
            "lower is better",
        ],
        "warn" if lost else "",
    )


def _breaker_tile(report: Report) -> str:
    tripped = [(c, worst) for c in report.chains if (worst := c.severest()) is not None]
    broken = any(findings.risk_after_halt(c) for c in report.chains)
    lines = [f"{c.name}: {worst.level} at {f.moment(worst.time_s)}" for c, worst in tripped]
    if broken:
        lines.append("RISK WAS ADDED AFTER HALT")
    elif any(severity(worst.level) >= severity("HALT") for _, worst in tripped):
        lines.append("no risk added after HALT")
    of_all = f"{len(tripped)} of {f.count(len(report.chains), 'chain')}"
    return _tile("Breakers tripped", of_all, lines or ["all agents stayed NORMAL"], "bad" * broken)


def _model_tile(report: Report) -> str:
    live = sum(report.live_on(c) for c in report.chains)
    every = bool(report.chains) and live == len(report.chains)
    return _tile(
        "Model",
        f"{f.count(report.rounds, 'round')}",
        [
            f"release {report.release}",
            f"sha256 {f.short_hash(report.artifact_sha256)}",
            f"live on {live} of {f.count(len(report.chains), 'chain')}" + (" ✓" if every else ""),
        ],
        "" if every or not report.chains else "bad",
    )


def _pnl_tile(report: Report, chain: ChainReport) -> str:
    worst = chain.severest()
    return _tile(
        f"P&L on {chain.name} ({chain.symbol}, {f.fee(chain.fee_pips)})",
        f.money(chain.pnl),
        [
            f"static full-range LP {f.money(chain.pnl_static_lp)}",
            f"holding {f.money(chain.pnl_hold)}",
            f"{f.count(chain.transactions, 'transaction')}; "
            + (f"breaker {worst.level}" if worst else "no breaker"),
        ],
    )
