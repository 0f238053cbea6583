"""What the figures say, in plain sentences computed from the figures themselves.

Nothing here flatters: where HAR or holding wins, or a risk was added after HALT, the sentence says
so. The same sentences are the text alternative of the plots.
"""

from __future__ import annotations

import math
from statistics import median

from fedtrade.dashboard import formats as f
from fedtrade.dashboard.report import ChainReport, Forecasts, Governance, Report, severity

NAMES = {
    "federated": "Federated",
    "solo_mean": "Solo (mean of members)",
    "pooled": "Pooled, not private",
    "har": "HAR",
    "persistence": "Persistence",
}
"""Forecasters in the order in which they are shown."""

TIE = 0.002
"""Relative difference of QLIKE under which two forecasters are called level."""


def har_verdict(report: Report) -> str:
    """Federated against HAR on QLIKE: who wins, said plainly; empty where one was not scored."""
    ours, har = report.metrics.get("federated"), report.metrics.get("har")
    if ours is None or har is None:
        return ""
    pair = f"(QLIKE {f.number(ours.qlike)} against {f.number(har.qlike)}"
    if not (math.isfinite(ours.qlike) and math.isfinite(har.qlike)):
        return f"The federated model and HAR cannot be compared {pair})."
    gap = (ours.qlike - har.qlike) / har.qlike if har.qlike else 0.0
    if abs(gap) < TIE:
        return f"The federated model and HAR are level {pair})."
    if gap > 0:
        return (
            f"HAR wins: a public linear regression forecasts better than the federated model {pair}, "
            f"{f.percent(gap)} worse)."
        )
    return f"The federated model beats HAR {pair}, {f.percent(-gap)} lower)."


def forecast_findings(report: Report) -> list[str]:
    """Federated against HAR, training alone, and pooling."""
    sentences = [har_verdict(report)]
    ours, solo = report.metrics.get("federated"), report.metrics.get("solo_mean")
    pooled = report.metrics.get("pooled")
    if ours and solo:
        verb = "beats" if ours.qlike < solo.qlike else "does not beat"
        sentences.append(
            f"The federated model {verb} the mean member that trains alone "
            f"({f.number(ours.qlike)} against {f.number(solo.qlike)})."
        )
    if ours and report.solo:
        beaten = sum(member.qlike > ours.qlike for member in report.solo)
        sentences.append(
            f"It is better than {beaten} of {f.count(len(report.solo), 'member')}' own models."
            if len(report.solo) > 1
            else f"It is {'better' if beaten else 'not better'} than the one member's own model."
        )
    if ours and solo and pooled and solo.qlike > pooled.qlike:
        kept = (solo.qlike - ours.qlike) / (solo.qlike - pooled.qlike)
        sentences.append(
            f"It has {f.percent(kept, 0)} of the gain over training alone that pooling all positions "
            "without privacy brings."
        )
    return [s for s in sentences if s]


def training_caption(report: Report) -> str:
    """The text of the training figure."""
    if not report.training:
        return "No round was run."
    last = report.training[-1]
    scored = [p for p in report.training if p.qlike is not None]
    path = (
        f"QLIKE on public validation candles went from {f.number(scored[0].qlike)} (round "
        f"{scored[0].number}) to {f.number(scored[-1].qlike)} (round {scored[-1].number}). "
        if scored
        else "QLIKE was not measured along the way. "
    )
    left = sum(p.left_out for p in report.training)
    return (
        f"{f.count(len(report.training), 'round')}. {path}ε grew to {f.number(last.epsilon_rdp, 3)} "
        f"by RDP; the tighter PLD accountant gives {f.number(report.epsilon.pld, 3)} for the whole "
        f"release. Cohorts had {_span([p.cohort for p in report.training])} members and "
        f"{_span([p.responders for p in report.training])} helpers answered; "
        f"{f.count(left, 'party', 'parties')} left out in all. A round took "
        f"{f.seconds(median(p.seconds for p in report.training))} (median)."
    )


def forecast_caption(symbol: str, forecasts: Forecasts) -> str:
    """The text of one symbol's forecast figure."""
    if not forecasts.times_s:
        return f"{symbol}: no forecast was made."
    top = max(range(len(forecasts.times_s)), key=lambda i: forecasts.realised[i])
    return (
        f"{symbol}: realised variance peaked in the hour at {f.moment(forecasts.times_s[top])} UTC at "
        f"{f.power(forecasts.realised[top])} per hour "
        f"({f.percent(math.sqrt(max(forecasts.realised[top], 0.0)), 2)} a hour as volatility); the "
        f"federated model had forecast {f.power(forecasts.model[top])}, HAR "
        f"{f.power(forecasts.har[top])}."
    )


def chain_findings(chain: ChainReport) -> str:
    """The text of one chain's figure: result against both benchmarks, and how it came about."""
    beaten = [
        name
        for name, other in (
            ("the static full-range LP", chain.pnl_static_lp),
            ("holding", chain.pnl_hold),
        )
        if chain.pnl > other
    ]
    how = f"better than {f.listing(beaten)}" if beaten else "worse than both"
    if len(beaten) == 1:
        how += " only"
    band = " Grey round the forecast: its 90 % interval." if any(chain.forecast_interval) else ""
    return (
        f"The agent ended at {f.money(chain.pnl)}, {how}: static full-range LP "
        f"{f.money(chain.pnl_static_lp)}, holding {f.money(chain.pnl_hold)}. "
        f"It took {f.count(len(chain.actions), 'action')} and provided liquidity in "
        f"{f.count(len(chain.ranges), 'range')}. {breaker_sentence(chain)}{band}"
    )


def risk_after_halt(chain: ChainReport) -> list[str]:
    """Actions that add risk and were not refused, after the first HALT. Must be empty."""
    halts = [p.time_s for p in chain.levels if severity(p.level) >= severity("HALT")]
    if not halts:
        return []
    return [
        f"{a.kind} at {f.moment(a.time_s)}"
        for a in chain.actions
        if a.adds_risk and a.outcome != "refused" and a.time_s > min(halts)
    ]


def breaker_sentence(chain: ChainReport) -> str:
    """Which breaker tripped on a chain, and whether its latch held."""
    worst = chain.severest()
    if worst is None:
        return "No breaker tripped."
    text = f"Its breakers reached {worst.level} at {f.moment(worst.time_s)} UTC ({worst.reason})"
    if severity(worst.level) < severity("HALT"):
        return text + "."
    broken = risk_after_halt(chain)
    if broken:
        return f"{text}. THE LATCH DID NOT HOLD: risk was added by {f.listing(broken)}."
    return f"{text}; after HALT no action that adds risk was sent."


def timeline_caption(report: Report) -> str:
    """The text of the common timeline."""
    if not report.chains:
        return "No agent was started."
    actions = sum(len(c.actions) for c in report.chains)
    if not actions and not any(c.severest() for c in report.chains):
        return "No action was taken and no breaker tripped on any chain."
    parts = [
        f"{c.name}: {f.count(len(c.actions), 'action')}, "
        f"{f.count(sum(p.level != 'NORMAL' for p in c.levels), 'breaker transition')}"
        for c in report.chains
    ]
    return f"{'; '.join(parts)}. Hollow markers are actions without effect (refused, reverted)."


def provenance_sentence(report: Report) -> str:
    """Whether every chain's registry or mirror holds the artifact's hash."""
    live = [c.name for c in report.chains if report.live_on(c)]
    other = [c.name for c in report.chains if not report.live_on(c)]
    if not report.chains:
        return "No registry was read."
    if other:
        return f"The hash on {f.listing(other)} is NOT the artifact's."
    where = f.count(len(live), "chain")
    return f"The live hash on {'all ' * (len(live) > 1)}{where} equals the artifact's sha256."


def proposal_sentence(governance: Governance) -> str:
    """What was decided, by how many, and when it held elsewhere."""
    p = governance.proposal
    waited = ", ".join(f"{m.chain} {f.seconds(m.parameters_seconds)}" for m in governance.mirrors)
    return (
        f"{f.count(p.seats, 'member')}: {p.in_favour} for, {p.against} against ({p.needed} needed). "
        f"{'; '.join(p.changes)}. Executed at {f.moment(p.executed_s, to_second=True)} UTC; "
        f"the mirrors showed it after: {waited}."
    )


def mirrors_sentence(governance: Governance) -> str:
    """Who is believed on the other chains, and how late they ever were."""
    waited = ", ".join(f"{m.chain} {f.seconds(m.model_seconds)}" for m in governance.mirrors)
    oldest = max((m.oldest_s for m in governance.mirrors), default=0)
    return (
        f"A mirror believes what {governance.signatures_needed} of "
        f"{f.count(governance.validators, 'member')} have signed. After the publication the hash "
        f"stood there after: {waited}. Later the mirrors were never more than "
        f"{f.seconds(oldest)} behind the home chain."
    )


def safes_sentence(governance: Governance) -> str:
    """How much of what they might the agents' keys have sent out in a day."""
    shares = [
        (spent / safe.epoch_cap if safe.epoch_cap else math.inf, safe.chain, day)
        for safe in governance.safes
        for day, spent in safe.spent.items()
    ]
    if not shares:
        return "No order sent anything out of a Safe."
    share, chain, day = max(shares)
    return (
        f"The most that the orders of a day sent out was {f.percent(share)} of that day's cap "
        f"({chain}, {day})."
    )


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
