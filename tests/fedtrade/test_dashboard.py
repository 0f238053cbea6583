"""The report: every figure present, everything escaped, nothing loaded, drawn by a real browser."""

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from fedtrade.dashboard import (
    ActionPoint,
    ChainReport,
    Epsilon,
    Forecasts,
    Governance,
    LevelPoint,
    MessageTaken,
    MirrorReport,
    Proposal,
    RangeSpan,
    Report,
    RoundPoint,
    SafeReport,
    Score,
    SoloScore,
    findings,
    render,
    summary_table,
)
from fedtrade.dashboard import formats as f
from fedtrade.dashboard.chain_figures import level_spans
from fedtrade.dashboard.figures import log_ticks
from fedtrade.dashboard.findings import chain_findings, har_verdict, risk_after_halt
from fedtrade.dashboard.sections import provenance

START_S = 1_749_751_200  # 2025-06-12 18:00 UTC
HASH = "9f2c" * 16


def synthetic_chain(
    seed, name, chain_id, symbol, start_price, fee_pips, depth, halts, registry_hash=HASH
):
    """A seeded random walk with a fall at two thirds of the window: no real market."""
    rng = np.random.default_rng(seed)
    n = 720
    step = rng.normal(0, 4e-4, n)
    step[430:455] -= depth / 25
    step[430:520] += rng.normal(0, 1.2e-3, 90)
    true = start_price * np.exp(np.cumsum(step))
    pool = true * (1 + np.clip(rng.normal(0, fee_pips / 2e6, n), -fee_pips / 1e6, fee_pips / 1e6))
    times = [START_S + 60 * i for i in range(n)]
    variance = 6e-6 + np.where(np.arange(n) > 420, 4e-4 * np.exp(-(np.arange(n) - 430) / 130), 0)
    out = 442 if halts else n - 1
    held = 100_000 * (0.5 + 0.5 * true / true[0])
    static = 100_000 * np.sqrt(true / true[0]) + np.linspace(0, 60, n)
    agent = static.copy() + np.cumsum(rng.normal(0.12, 1.0, n))
    agent[out:] = agent[out]
    edges = [0, 120, 300, out]
    ranges = [
        RangeSpan(
            start_s=times[a],
            end_s=times[b],
            lower_price=true[a] * (1 - w),
            upper_price=true[a] * (1 + w),
        )
        for a, b, w in zip(edges[:-1], edges[1:], (0.012, 0.015, 0.02), strict=True)
    ]
    actions = []
    for a in edges[:-1]:
        if a:
            actions.append(_act(times[a], "withdraw", "burn position 7, collect fees"))
        actions.append(_act(times[a] + 12, "provide", "mint ±1.5 % round the price", adds=True))
    actions.append(_act(times[200], "provide", "mint a second range", "refused", adds=True))
    levels = []
    if halts:
        levels = [
            LevelPoint(time_s=times[436], level="REDUCE_ONLY", reason="drawdown"),
            LevelPoint(time_s=times[out], level="HALT", reason="oracle deviation, wide"),
        ]
        actions.append(_act(times[out] + 12, "withdraw", "burn position 9 after HALT"))
        actions.append(_act(times[out] + 24, "swap", "sell 3.1 of the base for USDC"))
    return ChainReport(
        name=name,
        chain_id=chain_id,
        symbol=symbol,
        fee_pips=fee_pips,
        registry_hash=registry_hash,
        model_version=1,
        times_s=times,
        true_price=true.tolist(),
        pool_price=pool.tolist(),
        forecast_variance=[None] * 10 + variance[10:].tolist(),
        forecast_interval=[None] * 60 + [(v / 5, v * 5) for v in variance[60:].tolist()],
        equity=agent.tolist(),
        equity_static=static.tolist(),
        equity_hold=held.tolist(),
        ranges=ranges,
        actions=actions,
        levels=levels,
        pnl=agent[-1] - agent[0],
        pnl_static_lp=static[-1] - static[0],
        pnl_hold=held[-1] - held[0],
        fees=412.31,
        lvr=655.02,
        gas=3.07,
        transactions=len(actions) - 1,
        journal_head="ab12" * 16,
    )


def _act(time_s, kind, detail, outcome="confirmed", adds=False):
    return ActionPoint(time_s=time_s, kind=kind, detail=detail, outcome=outcome, adds_risk=adds)


def synthetic_report(**changes):
    """A report of invented figures, shaped like a real one; `changes` replaces fields."""
    rng = np.random.default_rng(7)
    hours = 12
    forecasts = {}
    for symbol, level in (("ETH", 2e-5), ("BTC", 6e-6), ("SOL", 4e-5)):
        realised = level * np.exp(
            rng.normal(0, 0.5, hours) + np.array([0] * 6 + [1, 3, 2.5, 2, 1, 1])
        )
        forecasts[symbol] = Forecasts(
            times_s=[START_S + 3600 * (i + 1) for i in range(hours)],
            realised=realised.tolist(),
            model=(np.roll(realised, 1) * 0.9 + level).tolist(),
            har=(np.roll(realised, 1) * 0.6 + level).tolist(),
        )
    members = zip(
        ("atlas", "borea", "cygna", "doria", "elara", "fauna", "gaia", "helia"),
        ("binance", "bybit", "hyperliquid", "lighter") * 2,
        ("momentum", "carry", "hedger", "market maker") * 2,
        range(300, 2000, 210),
        strict=False,
    )
    values = {
        "title": "From private positions to guarded transactions",
        "subtitle": "A synthetic report: every figure is invented to test the page",
        "artifact_sha256": HASH,
        "release": 1,
        "rounds": 60,
        "standins": [
            "positions simulated over real prices",
            "local price feed in place of an oracle committee",
        ],
        "seconds": {"chains": 2.31, "training": 71.4, "publication": 0.8, "replay": 88.0},
        "training": [
            RoundPoint(
                number=i,
                cohort=8 - (i % 17 == 0),
                responders=5 - (i % 23 == 0),
                left_out=int(i % 17 == 0) + int(i % 23 == 0),
                epsilon_rdp=0.6 * math.sqrt(i),
                seconds=0.4 + 0.01 * (i % 5),
                qlike=None if i % 4 else 0.31 + 0.15 * math.exp(-i / 15),
            )
            for i in range(1, 61)
        ],
        "epsilon": Epsilon(
            rdp=4.648,
            pld=4.213,
            delta=1e-6,
            unit="position lifecycle",
            adjacency="zero-out of one position (counts public)",
        ),
        "metrics": {
            "federated": Score(qlike=0.3127, r2=0.571),
            "solo_mean": Score(qlike=0.3391, r2=0.502),
            "pooled": Score(qlike=0.3098, r2=0.580),
            "har": Score(qlike=0.3244, r2=0.541),
            "persistence": Score(qlike=0.9511, r2=-0.12),
        },
        "solo": [
            SoloScore(
                name=name,
                venue=venue,
                style=style,
                positions=positions,
                qlike=0.315 + 0.006 * i,
                r2=0.55 - 0.01 * i,
            )
            for i, (name, venue, style, positions) in enumerate(members)
        ],
        "forecasts": forecasts,
        "chains": [
            synthetic_chain(1, "aster", 31101, "WETH/USDC", 2680.0, 500, 0.085, True),
            synthetic_chain(2, "birch", 31102, "WBTC/USDC", 106_400.0, 500, 0.03, False),
            synthetic_chain(3, "cedar", 31103, "SOL/USDC", 158.0, 3000, 0.09, True),
        ],
        "governance": synthetic_governance(),
        "verdict": [
            "The federated model forecasts variance better than members alone and than HAR.",
            "On two of three chains the agent left the pool in time and lost less than the "
            "static LP; on birch it did not.",
        ],
    }
    return Report(**(values | changes))


def synthetic_governance():
    """A proposal, two mirrors and three Safes."""
    names = ("aster", "birch", "cedar")
    return Governance(
        validators=8,
        signatures_needed=6,
        proposal=Proposal(
            id="0x" + "5b" * 32,
            why="No Safe sends out more than two million a day",
            changes=["epochNotionalMax: 5,000,000 → 2,000,000 quote (tighter)"],
            proposer="0x" + "3e" * 20,
            in_favour=7,
            against=1,
            seats=8,
            needed=4,
            proposed_s=START_S - 3_000,
            queued_s=START_S - 2_600,
            executed_s=START_S - 2_500,
            transaction="0x" + "7a" * 32,
        ),
        mirrors=[
            MirrorReport(
                chain=name,
                address="0x" + f"{i:02x}" * 20,
                messages=[
                    MessageTaken(
                        sequence=k, id="0x" + f"{k:01x}{i:01x}" * 32, sent_s=START_S + 60 * k,
                        taken_s=START_S + 60 * k + 5,
                    )
                    for k in range(1, 4)
                ],
                model_seconds=0.25,
                parameters_seconds=0.4,
                oldest_s=7_260,
            )
            for i, name in enumerate(names[1:], start=1)
        ],
        safes=[
            SafeReport(
                chain=name,
                safe="0x" + f"a{i}" * 20,
                breaker="0x" + f"b{i}" * 20,
                key="0x" + f"c{i}" * 20,
                owners=3,
                owners_needed=2,
                action_cap=300_000,
                epoch_cap=2_000_000,
                orders=4 + i,
                spent={"2025-06-12": 500_000.0 + i, "2025-06-13": 90_000.0},
            )
            for i, name in enumerate(names)
        ],
    )  # fmt: skip


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text outside scripts and styles."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.words, self._hidden = [], [], 0
        self.feed(html)
        self.text = re.sub(r"[ \n]+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def figures_of(html):
    """The figures' JSON, as the page's script gets it."""
    return json.loads(re.search(r"const FIGURES = (\[.*?\n\]);\n", html, re.S)[1])


def names_of(figure):
    return {trace.get("name") for trace in figure["data"]}


@pytest.fixture(scope="module")
def html():
    return render(synthetic_report())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_loads_nothing(html, page):
    for tag, attrs in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}, tag
        for attribute in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(attribute, "#").startswith("#"), (tag, attrs)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = page.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert len(page.all("script")) == 2
    assert html.count("* plotly.js v") == 1
    assert len(html.encode()) < 6_000_000


def test_every_section_figure_and_number_is_there(html, page):
    report = synthetic_report()
    text = page.text
    for i in range(1, 7):
        assert any(a.get("id") == f"s{i}" for a in page.all("h2"))
    assert len(figures_of(html)) == len(page.all("figure")) == len(page.all("figcaption")) == 7
    assert all(a["aria-label"] for a in page.all("div") if a.get("class") == "plot")
    for sentence in report.verdict + report.standins:
        assert sentence in text
    assert "ε = 4.21" in text
    assert "4.65 by RDP; δ = 10⁻⁶" in text
    assert report.epsilon.unit in text
    assert report.epsilon.adjacency in text
    for score in (*report.metrics.values(), *report.solo):
        assert f"{score.qlike:.4f}" in text
    for member in report.solo:
        assert member.name in text
    for chain in report.chains:
        for amount in (chain.pnl, chain.pnl_static_lp, chain.pnl_hold, chain.fees, -chain.lvr):
            assert f.money(amount) in text
        assert chain.registry_hash in text
        for action in chain.actions:
            assert action.detail in text
        for point in chain.levels:
            assert f"breaker: {point.level}" in text
    for stage, seconds in report.seconds.items():
        assert f"{stage} {f.seconds(seconds)}" in text


def test_what_was_governed_is_told_with_every_id_and_address(page):
    g = synthetic_governance()
    for told in (g.proposal.why, *g.proposal.changes, g.proposal.proposer, g.proposal.transaction):
        assert told in page.text
    assert "7 for, 1 against, of 8 members; 4 needed" in page.text
    assert "believes what 6 of 8 members have signed" in page.text
    for mirror in g.mirrors:
        assert mirror.address in page.text
        for message in mirror.messages:
            assert message.id in page.text
    for safe in g.safes:
        assert {a for a in (safe.safe, safe.breaker, safe.key) if a not in page.text} == set()
        assert f.number(safe.spent["2025-06-12"], 0) in page.text
    assert "sent out was 25.0 % of that day's cap (cedar, 2025-06-12)" in page.text
    assert "never more than 121 min 0 s behind" in page.text


def test_a_report_without_governance_says_so():
    text = Page(render(synthetic_report(governance=None))).text
    assert "Nothing was governed in this run." in text


def test_a_cap_of_nothing_is_no_division():
    g = synthetic_governance()
    safe = g.safes[0].model_copy(update={"epoch_cap": 0})
    assert Page(render(synthetic_report(governance=g.model_copy(update={"safes": [safe]})))).text
    assert "n/a of that day's cap" in findings.safes_sentence(
        g.model_copy(update={"safes": [safe]})
    )
    idle = g.model_copy(update={"safes": []})
    assert findings.safes_sentence(idle) == "No order sent anything out of a Safe."


def test_every_plot_shows_its_series(html):
    training, forecast, scores, aster, birch, _cedar, timeline = figures_of(html)
    assert {"by RDP", "whole release by PLD", "members in the cohort", "left out"} <= names_of(
        training
    )
    assert {"realised", "federated model", "HAR"} <= names_of(forecast)
    assert [forecast["layout"][f"yaxis{i}"]["type"] for i in ("", 2, 3)] == ["log"] * 3
    assert len(scores["data"][0]["x"]) == 4 + 8 + 1
    everything = {"true price", "pool price", "LP range of the agent", "agent", "holding"}
    assert everything | {"static full-range LP", "provide", "withdraw", "swap"} <= names_of(aster)
    shades = [s for s in aster["layout"]["shapes"] if s.get("yref") == "paper"]
    assert len(shades) == 2  # REDUCE_ONLY, then HALT to the end
    assert [s for s in birch["layout"]["shapes"] if s.get("yref") == "paper"] == []
    assert {"NORMAL", "REDUCE_ONLY", "HALT", "provide", "withdraw"} <= names_of(timeline)
    refused = [
        m for t in aster["data"] if t.get("name") == "provide" for m in t["marker"]["symbol"]
    ]
    assert sorted(set(refused)) == ["triangle-up", "triangle-up-open"]


EVIL = '<b>x</b></script><script>document.title="owned"</script><img src=x onerror="owned()">'


def evil_report():
    evil = synthetic_chain(1, EVIL, 31101, f"{EVIL}/USDC", 2680.0, 500, 0.085, True)
    first = evil.actions[0].model_copy(update={"kind": EVIL, "detail": EVIL, "outcome": EVIL})
    level = evil.levels[-1].model_copy(update={"reason": EVIL})
    evil = evil.model_copy(
        update={"actions": [first], "levels": [level], "journal_head": EVIL, "registry_hash": EVIL}
    )
    good = synthetic_report()
    return synthetic_report(
        title=EVIL,
        subtitle=EVIL,
        artifact_sha256=EVIL,
        standins=[EVIL],
        seconds={EVIL: 1.0},
        epsilon=good.epsilon.model_copy(update={"unit": EVIL, "adjacency": EVIL}),
        metrics=good.metrics | {EVIL: good.metrics["har"]},
        solo=[s.model_copy(update={"name": EVIL, "venue": EVIL, "style": EVIL}) for s in good.solo],
        forecasts={EVIL: good.forecasts["ETH"]},
        chains=[evil],
        verdict=[EVIL],
    )


def test_everything_from_outside_is_escaped():
    html = render(evil_report())
    page = Page(html)
    assert len(page.all("script")) == 2
    assert page.all("img") == []
    assert page.text.count(EVIL) > 15
    figures = json.dumps(figures_of(html))
    assert "&lt;img" in figures  # plotly reads a part of HTML in labels, so they are escaped twice
    assert "<img" not in figures


def test_where_har_wins_the_page_says_so_plainly(page):
    metrics = synthetic_report().metrics
    lost = synthetic_report(metrics=metrics | {"har": Score(qlike=0.2900, r2=0.6)})
    sentence = har_verdict(lost)
    assert sentence.startswith("HAR wins")
    assert "0.3127 against 0.2900" in sentence
    text = Page(render(lost)).text
    assert sentence in text
    assert "HAR 0.2900, which is better" in text
    assert "The federated model beats HAR" in page.text
    assert "HAR wins" not in page.text
    even = synthetic_report(metrics=metrics | {"har": Score(qlike=0.3128, r2=0.6)})
    assert "level" in har_verdict(even)
    assert "cannot" in har_verdict(
        synthetic_report(metrics=metrics | {"har": Score(qlike=math.nan, r2=0.6)})
    )


def test_where_the_federated_model_loses_to_training_alone_the_page_says_so():
    metrics = synthetic_report().metrics | {"federated": Score(qlike=0.36, r2=0.4)}
    text = Page(render(synthetic_report(metrics=metrics))).text
    assert "does not beat the mean member" in text
    assert "better than 0 of 8 members' own models" in text


@pytest.mark.parametrize("registry_hash", ["", HASH[:-1] + "0", "0" * 64, HASH[:-2], HASH + "00"])
def test_a_check_mark_stands_only_where_the_hashes_are_equal(registry_hash):
    good = synthetic_report()
    assert Page(provenance(good)).text.count("✓ equal") == 3
    other = good.chains[1].model_copy(update={"registry_hash": registry_hash})
    report = synthetic_report(chains=[good.chains[0], other, good.chains[2]])
    text = Page(provenance(report)).text
    assert text.count("✓ equal") == 2
    assert text.count("✗ different") == 1
    assert "The hash on birch is NOT the artifact's." in text


def test_the_header_counts_the_registries_that_hold_the_artifact(page):
    assert "live on 3 of 3 chains ✓" in page.text
    good = synthetic_report()
    other = good.chains[1].model_copy(update={"registry_hash": "0" * 64})
    text = Page(render(synthetic_report(chains=[good.chains[0], other]))).text
    assert "live on 1 of 2 chains" in text
    assert "chains ✓" not in text


def test_an_empty_artifact_hash_equals_nothing():
    good = synthetic_report()
    chains = [c.model_copy(update={"registry_hash": "0x"}) for c in good.chains]
    assert "✓" not in Page(render(synthetic_report(artifact_sha256="", chains=chains))).text


def test_risk_added_after_halt_is_shouted():
    chain = synthetic_report().chains[0]
    assert risk_after_halt(chain) == []
    halted_s = chain.levels[-1].time_s
    refused = _act(halted_s + 60, "provide", "mint", "refused", adds=True)
    held = chain.model_copy(update={"actions": [*chain.actions, refused]})
    assert risk_after_halt(held) == []
    sent = _act(halted_s + 60, "provide", "mint", "dropped", adds=True)
    broken = chain.model_copy(update={"actions": [*chain.actions, sent]})
    assert len(risk_after_halt(broken)) == 1
    text = Page(render(synthetic_report(chains=[broken]))).text
    assert "THE LATCH DID NOT HOLD" in text
    assert "RISK WAS ADDED AFTER HALT" in text


def test_a_report_of_nothing_is_a_page_that_says_so():
    chain = synthetic_report().chains[1]
    still = chain.model_copy(
        update={
            "actions": [],
            "ranges": [],
            "levels": [LevelPoint(time_s=START_S, level="NORMAL", reason="start")],
            "forecast_variance": [None] * 720,
            "forecast_interval": [None] * 720,
        }
    )
    text = Page(render(synthetic_report(chains=[still]))).text
    assert "No action was taken on this chain." in text
    assert "90 % interval" not in text
    assert "90 % interval" in Page(render(synthetic_report())).text
    assert "No action was taken and no breaker tripped on any chain." in text
    assert "all agents stayed NORMAL" in text
    series = {name for name, value in chain.model_dump().items() if isinstance(value, list)}
    gone = chain.model_copy(update={name: [] for name in series} | {"registry_hash": ""})
    empty = synthetic_report(
        training=[], metrics={}, solo=[], forecasts={}, chains=[gone], verdict=[], standins=[]
    )
    text = Page(render(empty)).text
    for sentence in ("No round was run.", "No forecast was made", "No forecaster was scored."):
        assert sentence in text
    assert "Nothing was recorded on this chain." in text
    text = Page(render(empty.model_copy(update={"chains": [], "seconds": {}}))).text
    for sentence in ("No agent ran.", "No agent was started.", "No registry was read."):
        assert sentence in text


def test_figures_that_are_not_numbers_are_shown_as_missing():
    chain = synthetic_report().chains[0]
    torn = chain.model_copy(update={"pnl": math.nan, "fees": math.inf})
    metrics = {"federated": Score(qlike=math.nan, r2=math.nan)}
    page = Page(render(synthetic_report(chains=[torn], metrics=metrics)))
    assert "nan" not in page.text.lower().split()
    assert "n/a" in page.text


def test_the_captions_tell_the_result():
    aster = synthetic_report().chains[0]
    said = chain_findings(aster)
    assert "better than the static full-range LP and holding" in said
    assert "HALT at 2025-06-13 01:22 UTC (oracle deviation, wide)" in said
    assert "no action that adds risk was sent" in said
    poor = aster.model_copy(update={"pnl": -9e9})
    assert "worse than both" in chain_findings(poor)
    half = aster.model_copy(update={"pnl_hold": 9e9})
    assert "better than the static full-range LP only" in chain_findings(half)


def test_levels_cover_the_window_once():
    points = [
        LevelPoint(time_s=30, level="HALT", reason="b"),
        LevelPoint(time_s=10, level="REDUCE_ONLY", reason="a"),
    ]
    assert level_spans(points, 0, 100) == [
        (0, 10, "NORMAL", "start"),
        (10, 30, "REDUCE_ONLY", "a"),
        (30, 100, "HALT", "b"),
    ]
    assert level_spans(points[1:], 20, 100) == [(20, 100, "REDUCE_ONLY", "a")]
    assert level_spans([], 0, 100) == [(0, 100, "NORMAL", "start")]


def test_the_severest_level_counts_and_an_unknown_one_is_worst():
    chain = synthetic_report().chains[0]
    assert chain.severest().level == "HALT"
    odd = chain.model_copy(
        update={"levels": [*chain.levels, LevelPoint(time_s=START_S, level="MELT", reason="?")]}
    )
    assert odd.severest().level == "MELT"
    calm = chain.model_copy(
        update={"levels": [LevelPoint(time_s=START_S, level="NORMAL", reason="start")]}
    )
    assert calm.severest() is None


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (f.number(1234567.891, 2), "1\u202f234\u202f567.89"),
        (f.number(-0.00001, 2), "0.00"),
        (f.number(None), "n/a"),
        (f.signed(0.001), "0.00"),
        (f.signed(-3.5), "−3.50"),
        (f.money(12345.6), "+12\u202f346 USDC"),
        (f.money(-1.005), "−1.00 USDC"),
        (f.percent(0.0361), "3.6 %"),
        (f.power(7.85e-4), "7.85 × 10⁻⁴"),
        (f.power(1e-6, 0), "10⁻⁶"),
        (f.power(9.999e-5), "1.00 × 10⁻⁴"),
        (f.power(0.0), "0"),
        (f.seconds(0.42), "420 ms"),
        (f.seconds(71.4), "71.4 s"),
        (f.seconds(187.6), "3 min 8 s"),
        (f.moment(START_S), "2025-06-12 18:00"),
        (f.fee(500), "0.05 %"),
        (f.fee(3000), "0.3 %"),
        (f.short_hash("0x" + HASH), "9f2c9f2c…2c9f2c"),
        (f.short_hash(""), "none"),
        (f.count(0, "action"), "no actions"),
        (f.count(1, "registry", "registries"), "1 registry"),
        (f.listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_formats(shown, wanted):
    assert shown == wanted


def test_log_ticks_are_few_and_inside_the_axis():
    for values in ([1e-6, 3e-4], [2e-5, 3e-5], [0.3, 0.95], [5.0], [1e-9, 1e3]):
        axis = log_ticks(values)
        low, high = axis["range"]
        assert low < math.log10(min(values)) <= math.log10(max(values)) < high
        assert all(low <= math.log10(t) <= high for t in axis["tickvals"])
        assert len(axis["tickvals"]) == len(axis["ticktext"]) <= 13
    assert log_ticks([0.0, math.nan]) == {"type": "log"}


def test_a_torn_report_is_refused():
    chain = synthetic_report().chains[0].model_dump()
    with pytest.raises(ValidationError, match="pool_price has 719"):
        ChainReport(**{**chain, "pool_price": chain["pool_price"][1:]})
    with pytest.raises(ValidationError, match="extra"):
        ChainReport(**chain, bypass=True)
    forecasts = synthetic_report().forecasts["ETH"].model_dump()
    with pytest.raises(ValidationError, match="har has 11"):
        Forecasts(**{**forecasts, "har": forecasts["har"][1:]})
    with pytest.raises(ValidationError, match="frozen"):
        synthetic_report().title = "x"


def test_the_terminal_table_says_the_same():
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table(synthetic_report(title="[red]run[/red]")))
    console.file.close()
    text = re.sub(r"[ \n│]+", " ", console.export_text())
    for words in (
        "[red]run[/red]",
        "ε 4.21 by PLD, 4.65 by RDP",
        "zero-out of one position",
        "The federated model beats HAR",
        f.money(synthetic_report().chains[1].pnl),
        "HALT at 2025-06-13 01:22",
        "positions simulated over real prices",
        "training 71.4 s",
    ):
        assert words in text


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def in_browser(folder, html, *arguments):
    """Open the page in a headless browser that has no network; gives what it prints."""
    file = folder / "report.html"
    file.write_text(html, encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=20000",
            "--window-size=1280,7200",
            *arguments,
            file.as_uri(),
        ],
        capture_output=True,
        timeout=110,
        check=True,
    )
    return done.stdout.decode()


PROBE = """<script>
addEventListener('load', () => setTimeout(() => {
  const root = document.documentElement;
  root.dataset.wide = root.scrollWidth + ' of ' + root.clientWidth;
  const meet = (a, b) =>
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const overlaps = [];
  let legends = 0;
  document.querySelectorAll('.plot').forEach(plot => {
    const at = plot.getBoundingClientRect();
    const full = plot._fullLayout;
    const boxes = [...plot.querySelectorAll('.legend > .bg, .legend2 > .bg')]
      .map(e => e.getBoundingClientRect());
    legends += boxes.length;
    const areas = full._subplots.cartesian.map(id => {
      const x = full._plots[id].xaxis, y = full._plots[id].yaxis;
      return {left: at.left + x._offset, right: at.left + x._offset + x._length,
              top: at.top + y._offset, bottom: at.top + y._offset + y._length};
    });
    boxes.forEach((box, i) => {
      if (box.left < at.left - 1 || box.right > at.right + 1) overlaps.push(plot.id + ' outside');
      [...areas, ...boxes.slice(i + 1)].forEach(other => {
        if (meet(box, other)) overlaps.push(plot.id);
      });
    });
  });
  root.dataset.legends = legends + ' legends, overlaps: ' + overlaps.join(' ');
}, 3000));</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the page in")
def test_a_real_browser_draws_every_plot_without_network(html, tmp_path):
    dom = in_browser(tmp_path, html.replace("</body>", PROBE), "--dump-dom")
    assert len(re.findall(r'class="plot[^"]* drawn"', dom)) == 7
    assert len(re.findall(r'class="main-svg"', dom)) >= 2 * 7
    wide, of = re.search(r'data-wide="(\d+) of (\d+)"', dom).groups()
    assert int(wide) <= int(of), "the page scrolls sideways"
    assert int(of) >= 1200
    legends = re.search(r'data-legends="(.*?)"', dom)[1]
    assert legends == "10 legends, overlaps: "


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the page in")
def test_a_real_browser_runs_nothing_from_the_data(tmp_path):
    dom = in_browser(tmp_path, render(evil_report()), "--dump-dom")
    assert "&lt;b&gt;x" in re.search(r"<title>(.*?)</title>", dom)[1]
    assert len(re.findall(r'class="main-svg"', dom)) >= 2 * 5
    assert "<img" not in dom
