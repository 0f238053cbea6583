"""A scorecard for the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import json

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fedtrade.learning.scorecard import MarketScore, Metrics, Scorecard, Test, Window


def as_json(card: Scorecard) -> str:
    """Every field of the scorecard; `schema` says which. Undefined figures are null."""
    return json.dumps(dataclasses.asdict(card), indent=1, allow_nan=False) + "\n"


def tables(card: Scorecard) -> list[Table | Text]:
    """What, all markets together, windows, each market, the gate, and what there is to say."""
    heading = Text(
        f"model {card.artifact_sha256[:16]}…, trained until {card.trained_until}, "
        f"ε = {card.epsilon:g}\njudged on {len(card.markets)} markets, "
        f"{card.data_from} to {card.data_until} UTC"
    )
    blocks: list[Table | Text] = [heading, _pooled(card), _windows(card), _markets(card)]
    blocks.append(_gate(card))
    lines = [f"not judged: {market} ({why})" for market, why in card.skipped.items()]
    lines += [*card.notes, *(f"stand-in: {what}" for what in card.standins)]
    if lines:
        blocks.append(Text("\n".join(lines)))
    return blocks


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def _pooled(card: Scorecard) -> Table:
    table = _table(
        "The next hour, all markets together",
        *("forecast", "QLIKE", "R²", "MSE", "demand", "beaten", "p QLIKE", "p demand"),
    )
    for name, metrics in card.pooled[0].metrics.items():
        tests = {test.loss: test for test in card.tests.get(name, ())}
        share = card.better.get(name)
        table.add_row(
            name,
            *(_figure(v) for v in (metrics.qlike, metrics.r2, metrics.mse, metrics.demand_r2)),
            "" if share is None else f"{share:.0%}",
            _p(tests.get("qlike")),
            _p(tests.get("demand_squared_error")),
        )
    table.caption = (
        "demand: R² of log demand. beaten: on how many markets the model is better on QLIKE and R².\n"
        "p: Diebold–Mariano, two-sided; “worse” where the rival is the better one.\n"
        "Pooled R² counts differences between markets too: compare it within this table only."
    )
    table.caption_justify = "left"
    return table


def _windows(card: Scorecard) -> Table:
    table = _table("By window", "window", "hours", *_PAIR, "in 90 %", "demand")
    for window in card.pooled:
        table.add_row(escape(window.name), *_window_cells(window))
    return table


def _markets(card: Scorecard) -> Table:
    table = _table("By market", "market", "hours", *_PAIR, "in 90 %", "demand", "missing")
    for score in card.markets:
        table.add_row(_name(score), *_window_cells(score.windows[0]), str(score.missing_hours))
    return table


_PAIR = ("QLIKE", "HAR", "R²", "HAR")


def _window_cells(window: Window) -> list[str]:
    model = window.metrics["model"]
    nothing = Metrics(0, None, None, None, None, None)
    har = window.metrics.get("har", nothing)
    figures = (_figure(v) for v in (model.qlike, har.qlike, model.r2, har.r2))
    coverage = window.coverage
    inside = ("", "") if coverage is None else (coverage.variance, coverage.demand)
    shares = [v if isinstance(v, str) else f"{v:.1%}" for v in inside]
    return [str(model.hours), *figures, *shares]


def _gate(card: Scorecard) -> Table:
    table = _table("Leak gate", "check", "of", "passed", "what failed")
    for check in dict.fromkeys(finding.check for finding in card.gate):
        own = [finding for finding in card.gate if finding.check == check]
        failed = [finding for finding in own if not finding.passed]
        said = f"{failed[0].subject}: {failed[0].detail}" if failed else ""
        table.add_row(check, str(len(own)), str(len(own) - len(failed)), escape(said))
    return table


def _name(score: MarketScore) -> str:
    return escape(f"{score.venue}/{score.symbol}")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _p(test: Test | None) -> str:
    if test is None:
        return ""
    shown = f"{test.p:.3f}" if test.p >= 0.001 else "<0.001"
    return f"{shown} worse" if test.statistic > 0 else shown
