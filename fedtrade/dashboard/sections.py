"""The six sections of the report, each a function of the report alone."""

from __future__ import annotations

from html import escape

from fedtrade.dashboard import findings
from fedtrade.dashboard import formats as f
from fedtrade.dashboard.chain_figures import chain_figure, timeline_figure
from fedtrade.dashboard.figures import forecast_figure, score_figure, training_figure
from fedtrade.dashboard.markup import Plots, Row, element, paragraph, section, table
from fedtrade.dashboard.report import (
    QUOTE,
    ChainReport,
    Governance,
    MirrorReport,
    Report,
    SafeReport,
)


def training(report: Report, plots: Plots) -> str:
    """Section 1: what the rounds cost and brought."""
    e = report.epsilon
    lede = paragraph(
        "Every round is one aggregated step: members send masked sums of clipped gradients, the "
        "committee adds the noise while unmasking. ε is what the whole release may reveal about one "
        f"{e.unit} ({e.adjacency})."
    )
    if not report.training:
        return section(1, "Training and privacy", lede, paragraph("No round was run.", "empty"))
    plot = plots.place(
        training_figure(report), "Training by round", findings.training_caption(report)
    )
    return section(1, "Training and privacy", lede, plot)


def forecasts(report: Report, plots: Plots) -> str:
    """Section 2: who forecasts best, said before it is shown."""
    verdict = findings.har_verdict(report)
    css = "callout warn" if verdict.startswith("HAR wins") else "callout"
    parts = [paragraph(verdict, css)]
    others = [s for s in findings.forecast_findings(report) if s != verdict]
    parts.append(paragraph(" ".join(others)))
    shown = {s: v for s, v in report.forecasts.items() if v.times_s}
    if shown:
        caption = " ".join(findings.forecast_caption(s, v) for s, v in shown.items())
        name = "Forecast against realised variance in the crash window"
        parts.append(plots.place(forecast_figure(report), name, caption))
    else:
        parts.append(paragraph("No forecast was made in the crash window.", "empty"))
    if not report.metrics:
        parts.append(paragraph("No forecaster was scored.", "empty"))
        return section(2, "Forecasts against what happened", *parts)
    caption = (
        "One row a forecaster, the best on top; out of sample. The dotted line is the federated "
        "model. The same figures stand in the tables."
    )
    dots = plots.place(score_figure(report), "QLIKE of every forecaster", caption)
    scores = _score_table(report) + paragraph(
        "QLIKE is Patton's (2011) loss of a variance forecast, R² is of log variance; both on hours "
        "that no model was trained on. Pooling is shown as the bound that privacy gives up.",
        "foot",
    )
    parts.append(f'<div class="pair"><div>{scores}</div>{dots}</div>')
    parts.append(_solo_table(report))
    return section(2, "Forecasts against what happened", *parts)


def _score_table(report: Report) -> str:
    har = report.metrics.get("har")
    ranked = sorted(report.metrics.items(), key=lambda item: item[1].qlike)
    rows = []
    for key, score in ranked:
        gap = score.qlike / har.qlike - 1 if har is not None and har.qlike else float("nan")
        against = "" if key == "har" else f"{f.signed(100 * gap, 1)} %"
        name = escape(findings.NAMES.get(key, key))
        cells = [name, f.number(score.qlike), against, f.number(score.r2, 3)]
        rows.append([element("b", c) for c in cells] if key == "federated" else cells)
    return table(["Forecaster", "QLIKE", "against HAR", "R²"], rows)


def _solo_table(report: Report) -> str:
    if not report.solo:
        return paragraph("No member was trained alone for comparison.", "empty")
    rows = [
        [
            escape(s.name),
            escape(s.venue),
            escape(s.style),
            f.number(s.positions, 0),
            f.number(s.qlike),
            f.number(s.r2, 3),
        ]
        for s in sorted(report.solo, key=lambda s: s.qlike)
    ]
    heads = ["Member", "Venue", "Style", "Positions", "QLIKE alone", "R² alone"]
    return element("h3", "Members alone") + table(heads, rows, words=3)


def chains(report: Report, plots: Plots) -> str:
    """Section 3: every agent against both benchmarks."""
    if not report.chains:
        return section(3, "Trading through the crash", paragraph("No agent ran.", "empty"))
    lede = paragraph(
        "Each agent provided liquidity on a Uniswap v3 pool while arbitrageurs moved it along the "
        "recorded price. P&L is the change of what the account is worth, less gas, beside a static "
        "full-range LP and holding. LVR is loss versus rebalancing: what arbitrage took "
        "from the agent's liquidity, before fees. Drag in a plot to zoom, double-click to go back."
    )
    parts = [_chain(chain, plots) for chain in report.chains]
    return section(3, "Trading through the crash", lede, _comparison(report), *parts)


def _comparison(report: Report) -> str:
    def cells(chain: ChainReport) -> Row:
        start = chain.equity[0] if chain.equity else 0.0
        share = f"{f.signed(100 * chain.pnl / start, 2)} %" if start else f.MISSING
        amounts = (
            chain.pnl,
            chain.pnl_static_lp,
            chain.pnl_hold,
            chain.fees,
            -chain.lvr,
            -chain.gas,
            chain.pnl - chain.fees + chain.lvr + chain.gas,
        )
        worth = [f.signed(a, f.money_digits(a)) for a in amounts]
        label = f"<b>{escape(chain.name)}</b> {escape(chain.symbol)} {f.fee(chain.fee_pips)}"
        return [label, worth[0], share, *worth[1:], f.number(chain.transactions, 0)]

    heads = [
        "Chain and pool",
        "Agent P&L",
        "of capital",
        "Static LP",
        "Holding",
        "Fees earned",
        "LVR",
        "Gas",
        "The rest",
        "Transactions",
    ]
    note = paragraph(
        f"All amounts in {QUOTE}. The rest is what the price did to the volatile asset that the agent "
        "held, and the cost of its swaps. Fees rest on the noise flow, which is a stand-in.",
        "foot",
    )
    return table(heads, [cells(c) for c in report.chains]) + note


def _chain(chain: ChainReport, plots: Plots) -> str:
    title = f"{chain.name}: {chain.symbol}, {f.fee(chain.fee_pips)} (chain {chain.chain_id})"
    parts = [element("h3", escape(title))]
    if not chain.times_s:
        parts.append(paragraph("Nothing was recorded on this chain.", "empty"))
        return "".join(parts)
    name = f"{chain.name}: price, ranges, actions and P&L"
    parts.append(plots.place(chain_figure(chain), name, findings.chain_findings(chain)))
    small = table(
        ["Fees earned", "LVR", "Gas", "P&L"],
        [
            [
                f.money(chain.fees),
                f.money(-chain.lvr),
                f.money(-chain.gas),
                f.money(chain.pnl),
            ]
        ],
        words=0,
        css="narrow",
    )
    parts.append(small)
    if not chain.actions:
        parts.append(paragraph("No action was taken on this chain.", "empty"))
    return "".join(parts)


def timeline(report: Report, plots: Plots) -> str:
    """Section 4: all actions and breaker transitions, drawn and listed."""
    caption = findings.timeline_caption(report)
    title = "Every action and every breaker"
    rows = _event_rows(report)
    if not any(c.times_s for c in report.chains):
        return section(4, title, paragraph(caption, "empty"))
    plot = plots.place(timeline_figure(report), "Timeline of all chains", caption)
    if not rows:
        return section(4, title, plot, paragraph("There is nothing to list.", "empty"))
    events = table(["Time (UTC)", "Chain", "What", "Detail", "Outcome", "Risk"], rows, words=6)
    listed = f"<summary>{f.count(len(rows), 'entry', 'entries')} as a table</summary>"
    return section(4, title, plot, f'<details>{listed}<div class="scroll">{events}</div></details>')


def _event_rows(report: Report) -> list[Row]:
    """All actions and transitions in order of time."""
    rows: list[tuple[int, Row]] = []
    for chain in report.chains:
        for a in chain.actions:
            risk = "adds" if a.adds_risk else "does not add"
            cells = [
                f.moment(a.time_s, to_second=True),
                chain.name,
                a.kind,
                a.detail,
                a.outcome,
                risk,
            ]
            rows.append((a.time_s, [escape(c) for c in cells]))
        for p in chain.levels:
            stays = "" if p.level == "NORMAL" else "latched"
            when = f.moment(p.time_s, to_second=True)
            cells = [when, chain.name, f"breaker: {p.level}", p.reason, stays, ""]
            rows.append((p.time_s, [element("b", escape(c)) if c else "" for c in cells]))
    return [row for _, row in sorted(rows, key=lambda item: item[0])]


def governance(report: Report) -> str:
    """Section 5: what was decided, how the other chains heard of it, and what bounds the agents."""
    title, g = "Governance and mirrors", report.governance
    if g is None:
        return section(5, title, paragraph("Nothing was governed in this run.", "empty"))
    lede = paragraph(
        "The consortium decides on one chain. Its members' validators sign each message of that "
        "chain, a relayer carries it, and the mirror on every other chain checks the signatures "
        "itself. Each agent's money lies in a Safe: its key sends orders, and the breaker before "
        "the Safe holds it to the limits in force."
    )
    return section(5, title, lede, _proposal(g), _mirrors(report, g), _safes(g))


def _proposal(g: Governance) -> str:
    p = g.proposal
    changes = "".join(element("li", escape(line)) for line in p.changes)
    asked = f"{element('p', f'<b>{escape(p.why)}</b>')}<ul>{changes}</ul>"
    steps = [
        [
            "proposed",
            f.moment(p.proposed_s, to_second=True),
            f"by <code>{escape(p.proposer)}</code>",
        ],
        [
            "passed and queued",
            f.moment(p.queued_s, to_second=True),
            f"{p.in_favour} for, {p.against} against, of {f.count(p.seats, 'member')}; "
            f"{p.needed} needed",
        ],
        [
            "executed by the timelock",
            f.moment(p.executed_s, to_second=True),
            f"<code>{escape(p.transaction)}</code>",
        ],
    ]
    steps += [
        [f"in force on {escape(m.chain)}", f"{f.seconds(m.parameters_seconds)} later", ""]
        for m in g.mirrors
    ]
    return (
        element("h3", f"Proposal <code>{escape(p.id[:10])}</code>")
        + f'<div class="callout">{asked}</div>'
        + table(["Step", "Time (UTC)", ""], steps, words=3)
    )


def _mirrors(report: Report, g: Governance) -> str:
    hashes = {chain.name: chain.registry_hash for chain in report.chains}

    def cells(m: MirrorReport) -> Row:
        last = m.messages[-1] if m.messages else None
        return [
            f"<b>{escape(m.chain)}</b>",
            f"<code>{escape(m.address)}</code>",
            f"<code>{escape(f.short_hash(hashes.get(m.chain, '')))}</code>",
            f"{last.sequence}: <code>{escape(f.short_hash(last.id))}</code>" if last else f.MISSING,
            f.number(len(m.messages), 0),
            f.seconds(m.model_seconds),
            f.seconds(m.oldest_s),
        ]

    heads = ["Mirror", "Address", "Live hash", "Newest message", "Taken", "Hash after", "Oldest"]
    rows = [
        [
            escape(m.chain),
            f.number(taken.sequence, 0),
            f"<code>{escape(taken.id)}</code>",
            f.moment(taken.sent_s, to_second=True),
            f.moment(taken.taken_s, to_second=True),
        ]
        for m in g.mirrors
        for taken in m.messages
    ]
    every = table(["Mirror", "Number", "Message id", "Sent (UTC)", "Taken (UTC)"], rows, words=5)
    listed = f"<summary>{f.count(len(rows), 'message')} as a table</summary>"
    note = paragraph(
        "Seconds are of this machine, where a block is final at once and nobody waits for the next "
        "poll; elsewhere the home chain's finality and the polls come on top.",
        "foot",
    )
    return (
        element("h3", "Mirrors")
        + paragraph(findings.mirrors_sentence(g))
        + table(heads, [cells(m) for m in g.mirrors], words=4)
        + note
        + f'<details>{listed}<div class="scroll">{every}</div></details>'
    )


def _safes(g: Governance) -> str:
    days = sorted({day for safe in g.safes for day in safe.spent})

    def cells(safe: SafeReport) -> Row:
        spent = [safe.spent.get(day, 0.0) for day in days]
        shares = [
            f"{f.number(amount, 0)} ({f.percent(amount / safe.epoch_cap)})"
            if safe.epoch_cap
            else f.number(amount, 0)
            for amount in spent
        ]
        where = "<br>".join(
            f"{name} <code>{escape(address)}</code>"
            for name, address in (
                ("Safe", safe.safe),
                ("breaker", safe.breaker),
                ("agent's key", safe.key),
            )
        )
        return [
            f"<b>{escape(safe.chain)}</b>",
            where,
            f"{safe.owners_needed} of {safe.owners}",
            f.number(safe.action_cap, 0),
            f.number(safe.epoch_cap, 0),
            f.number(safe.orders, 0),
            *shares,
        ]

    heads = ["Chain", "Addresses", "Owners", "Cap of an order", "Cap of a day", "Orders"]
    note = paragraph(
        f"All amounts in {QUOTE}, at the feed's price. Sent out is counted gross, call by call, as "
        "the breaker counts it; what comes back is not set off.",
        "foot",
    )
    spent_heads = [f"Sent out {day}" for day in days]
    return (
        element("h3", "Custody")
        + paragraph(findings.safes_sentence(g))
        + table([*heads, *spent_heads], [cells(s) for s in g.safes], words=3)
        + note
    )


def provenance(report: Report) -> str:
    """Section 6: which bytes were live where, where the time went, and what was not real."""

    def hash_cells(chain: ChainReport) -> Row:
        same = report.live_on(chain)
        mark = '<span class="ok">✓ equal</span>' if same else '<span class="no">✗ different</span>'
        return [
            f"<b>{escape(chain.name)}</b> ({chain.chain_id})",
            f"{chain.model_version}",
            f"<code>{escape(chain.registry_hash) or 'none'}</code>",
            mark,
            f"<code>{escape(f.short_hash(chain.journal_head))}</code>",
        ]

    heads = ["Chain", "Version", "Live hash there", "Artifact", "Journal head"]
    parts = [
        element("p", f"Artifact sha256 <code>{escape(report.artifact_sha256)}</code>"),
        paragraph(findings.provenance_sentence(report)),
    ]
    if report.chains:
        parts.append(table(heads, [hash_cells(c) for c in report.chains], words=5))
    parts.append(element("h3", "Where the time went") + _stages(report.seconds))
    parts.append('<h3 id="standins">Stand-ins</h3>')
    if report.standins:
        items = "".join(element("li", escape(s)) for s in report.standins)
        intro = "These parts of the run stood in for the real thing; read every figure with them:"
        parts.append(f'<div class="callout warn"><p>{intro}</p><ul>{items}</ul></div>')
    else:
        parts.append(paragraph("None was declared.", "empty"))
    return section(6, "Provenance", *parts)


def _stages(seconds: dict[str, float]) -> str:
    if not seconds:
        return paragraph("No stage was timed.", "empty")
    longest = max(max(seconds.values()), 1e-9)

    def bar(value: float) -> str:
        return f'<div class="bar" style="width:{100 * max(value, 0) / longest:.1f}%"></div>'

    rows: list[Row] = [
        [escape(stage), bar(value), f.seconds(value)] for stage, value in seconds.items()
    ]
    rows.append(["<b>total</b>", "", f"<b>{f.seconds(sum(seconds.values()))}</b>"])
    return table(["Stage", "", "Time"], rows, words=2, css="stages")
