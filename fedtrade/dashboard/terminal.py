"""The report's figures for the terminal: one table."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from fedtrade.dashboard import findings
from fedtrade.dashboard import formats as f
from fedtrade.dashboard.report import ChainReport, Report


def summary_table(report: Report) -> Table:
    """Privacy, scores, and a row a chain."""
    table = Table(
        title=escape(report.title), show_header=False, title_justify="left", pad_edge=False
    )
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("figure", overflow="fold")
    e = report.epsilon
    rows = [
        (
            "privacy",
            f"ε {f.number(e.pld, 2)} by PLD, {f.number(e.rdp, 2)} by RDP; δ {f.power(e.delta, 0)}; "
            f"unit: {e.unit}; adjacency: {e.adjacency}",
        ),
        (
            "model",
            f"release {report.release}, {f.count(report.rounds, 'round')}, "
            f"sha256 {f.short_hash(report.artifact_sha256)}. {findings.provenance_sentence(report)}",
        ),
        (
            "QLIKE",
            ", ".join(
                f"{findings.NAMES.get(key, key)} {f.number(score.qlike)}"
                for key, score in report.metrics.items()
            )
            or "nothing was scored",
        ),
    ]
    rows += [("forecast", sentence) for sentence in findings.forecast_findings(report)[:1]]
    rows += [(f"{chain.name} {chain.symbol}", _chain(chain)) for chain in report.chains]
    if report.governance is not None:
        rows += [
            ("governance", findings.proposal_sentence(report.governance)),
            ("mirrors", findings.mirrors_sentence(report.governance)),
            ("custody", findings.safes_sentence(report.governance)),
        ]
    rows += [("stand-in", text) for text in report.standins]
    rows.append(
        ("time", ", ".join(f"{k} {f.seconds(v)}" for k, v in report.seconds.items()) or "not taken")
    )
    for what, text in rows:
        table.add_row(escape(what), escape(text))
    return table


def _chain(chain: ChainReport) -> str:
    return (
        f"P&L {f.money(chain.pnl)}; static full-range LP {f.money(chain.pnl_static_lp)}, holding "
        f"{f.money(chain.pnl_hold)}; {f.count(chain.transactions, 'transaction')}. "
        f"{findings.breaker_sentence(chain)}"
    )
