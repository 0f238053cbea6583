"""What a run has to say of itself, as one frozen value: the only input of page and table.

Times are Unix seconds, prices are quote per base, money is in the quote token (USDC on all local
chains), variances are per hour of log price. Series of one chain, and of one forecast, share their
times; a report in which they do not is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

QUOTE = "USDC"
"""The quote token of every pool that a report speaks of."""

LEVELS = ("NORMAL", "REDUCE_ONLY", "HALT", "UNWIND")
"""Breaker levels, from the least to the most severe."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RoundPoint(_Frozen):
    """One round of the release."""

    number: int
    cohort: int
    responders: int
    left_out: int
    epsilon_rdp: float
    """Spent up to and including this round."""
    seconds: float
    qlike: float | None
    """On public validation candles; None where it was not measured."""


class Score(_Frozen):
    """Out-of-sample scores of one forecaster."""

    qlike: float
    """Lower is better."""
    r2: float
    """Of log variance; higher is better."""


class SoloScore(_Frozen):
    """What one member reaches with its own positions alone."""

    name: str
    venue: str
    style: str
    positions: int
    qlike: float
    r2: float


class Epsilon(_Frozen):
    """Privacy spent by the release, by two accountants, and what it is a promise about."""

    rdp: float
    pld: float
    delta: float
    unit: str
    adjacency: str


class Forecasts(_Frozen):
    """Hourly variance of one symbol over the crash window, one entry an hour."""

    times_s: list[int]
    realised: list[float]
    model: list[float]
    har: list[float]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        _need_equal(len(self.times_s), realised=self.realised, model=self.model, har=self.har)
        return self


class RangeSpan(_Frozen):
    """An LP range, from its mint to its burn."""

    start_s: int
    end_s: int
    lower_price: float
    upper_price: float


class ActionPoint(_Frozen):
    """An action of an agent and what became of it."""

    time_s: int
    """When it was decided."""
    kind: str
    detail: str
    outcome: str
    """"confirmed", "reverted", "dropped" or "refused" (never sent), or what else became of it."""
    adds_risk: bool


class LevelPoint(_Frozen):
    """A breaker transition: the level reached, and why."""

    time_s: int
    level: str
    reason: str


class ChainReport(_Frozen):
    """One agent on one chain over the replay."""

    name: str
    chain_id: int
    symbol: str
    fee_pips: int
    """The pool's fee in 1e-6."""
    registry_hash: str
    """The live hash that the chain's registry, or its mirror there, gave, as hex."""
    model_version: int
    times_s: list[int]
    true_price: list[float]
    pool_price: list[float]
    forecast_variance: list[float | None]
    """Per hour; None before the agent is warm."""
    forecast_interval: list[tuple[float, float] | None]
    """90 % interval of the hour's variance; None before enough forecasts have met their hours."""
    equity: list[float]
    equity_static: list[float]
    equity_hold: list[float]
    ranges: list[RangeSpan]
    actions: list[ActionPoint]
    levels: list[LevelPoint]
    pnl: float
    pnl_static_lp: float
    pnl_hold: float
    fees: float
    lvr: float
    """What arbitrage took from the agent's liquidity before fees; a loss is positive."""
    gas: float
    """What the agent paid for gas, in the quote token; positive."""
    transactions: int
    journal_head: str

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        _need_equal(
            len(self.times_s),
            true_price=self.true_price,
            pool_price=self.pool_price,
            forecast_variance=self.forecast_variance,
            forecast_interval=self.forecast_interval,
            equity=self.equity,
            equity_static=self.equity_static,
            equity_hold=self.equity_hold,
        )
        return self

    def severest(self) -> LevelPoint | None:
        """The first transition to the most severe level reached; None if none but NORMAL was."""
        tripped = [p for p in self.levels if p.level != "NORMAL"]
        return max(tripped, key=lambda p: (severity(p.level), -p.time_s), default=None)


class Proposal(_Frozen):
    """A proposal that members passed and that was carried out. Times are of the home chain."""

    id: str
    why: str
    changes: list[str]
    """What it does, in words."""
    proposer: str
    in_favour: int
    against: int
    seats: int
    needed: int
    """Votes for or abstaining that make the quorum."""
    proposed_s: int
    queued_s: int
    executed_s: int
    transaction: str


class MessageTaken(_Frozen):
    """A message from the home chain that a mirror took."""

    sequence: int
    id: str
    """Hyperlane's."""
    sent_s: int
    """Time of the home chain."""
    taken_s: int
    """Time of the mirror's chain."""


class MirrorReport(_Frozen):
    """A chain's mirror of registry and parameters."""

    chain: str
    address: str
    messages: list[MessageTaken]
    """In order."""
    model_seconds: float
    """From the publication at home until the mirror listed it, by this machine's clock."""
    parameters_seconds: float
    """From the proposal's execution until the mirror showed it."""
    oldest_s: int
    """The most that it was behind the home chain, between its messages and at the end."""


class SafeReport(_Frozen):
    """An agent's Safe and the breaker before it. Amounts are in the quote token."""

    chain: str
    safe: str
    breaker: str
    key: str
    """Address of the agent's key."""
    owners: int
    owners_needed: int
    action_cap: int
    """In force at the end, on one order."""
    epoch_cap: int
    """In force at the end, on the orders of a day (UTC)."""
    orders: int
    spent: dict[str, float]
    """Day -> what its orders sent out, as the breaker counts it."""


class Governance(_Frozen):
    """What the consortium decided, how it reached the other chains, and what holds the money."""

    validators: int
    signatures_needed: int
    """Of the validators, for a mirror to believe a message."""
    proposal: Proposal
    mirrors: list[MirrorReport]
    safes: list[SafeReport]


class Report(_Frozen):
    """A whole run."""

    title: str
    subtitle: str
    artifact_sha256: str
    release: int
    rounds: int
    standins: list[str]
    seconds: dict[str, float]
    """Stage -> how long it took."""
    training: list[RoundPoint]
    epsilon: Epsilon
    metrics: dict[str, Score]
    """Keys: federated, solo_mean, pooled, har, persistence."""
    solo: list[SoloScore]
    forecasts: dict[str, Forecasts]
    """Symbol -> forecasts."""
    chains: list[ChainReport]
    governance: Governance | None
    """None where nothing was governed: a report of agents alone."""
    verdict: list[str]
    """Plain sentences: what beat what."""

    def live_on(self, chain: ChainReport) -> bool:
        """Whether the chain's registry or mirror holds exactly the published artifact's hash."""
        wanted = _plain_hash(self.artifact_sha256)
        return len(wanted) == 64 and _plain_hash(chain.registry_hash) == wanted


def severity(level: str) -> int:
    """Rank of a breaker level; a level that we do not know counts as the most severe."""
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def _plain_hash(text: str) -> str:
    return text.lower().removeprefix("0x")


def _need_equal(length: int, **series: Sequence[object]) -> None:
    for name, values in series.items():
        if len(values) != length:
            raise ValueError(f"{name} has {len(values)} entries for {length} times")
