"""What a restart takes over from the journal: nothing is forgiven, forgotten or done twice.

The journal alone decides: the breaker level that its receipts reached, the high-water mark, the
number of actions (ids go on), an action whose end was never told, and the bars that were made from
blocks, so that the features need not warm up for a week.

A rule that speaks of one model does not bind another: a level that only "model superseded" or the
like reached is not carried to a new artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from clients.settings import HistorySettings
from fedtrade.errors import BadInput, Stale
from fedtrade.journal import Record
from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.encoding import decode
from fedtrade.market.events import ActionSettled, BarClosed, Head
from fedtrade.market.instruments import PoolKey
from fedtrade.market.world import World
from fedtrade.risk.breakers import RULES, Level
from fedtrade.trading.mandate import Carried

_CANDLES: Final = ("start_s", "width_s", "open", "high", "low", "close", "notional_usd")
HISTORY_S: Final = 15 * 86_400
"""How far back bars are given: features look back a week, and intervals start from 100 hours more."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What stood in the journal at a start."""

    carried: Carried
    unsettled: Action | None
    """The last action, if nobody told its end; it may or may not have been promised to the chain."""
    last_block: int | None
    bars: tuple[BarClosed, ...]


def recover(
    records: Sequence[Record], artifact_sha256: str, key: PoolKey, feed: str, new_run: str
) -> Recovered:
    """Read the journal's records; `new_run` names the journal where it is new."""
    run, actions, level, high_water, was_live = new_run, 0, Level.NORMAL, 0.0, False
    sha256 = ""
    unsettled: Action | None = None
    last_block: int | None = None
    bars: list[BarClosed] = []
    rules = {rule.name: rule for rule in RULES}
    world = World(key, feed)
    for record in records:
        body = record.body
        match record.kind:
            case "start":
                run, sha256 = body["carried"]["run"], body["artifact_sha256"]
                world = World(key, feed)
            case "receipt":
                high_water = max(high_water, float(body["high_water_quote"]))
                was_live = bool(body["was_live"]) and sha256 == artifact_sha256
                for name in body["trips"]:
                    rule = rules.get(name)
                    if rule is None:
                        level = max(level, Level.HALT)  # a rule of other code: assume the worse
                    elif not rule.of_model or sha256 == artifact_sha256:
                        level = max(level, rule.level)
            case "action":
                actions += 1
                action = decode(body)
                if isinstance(action, ProvideLiquidity | WithdrawLiquidity | SwapExactInput):
                    unsettled = action
            case "event":
                event = decode(body)
                if isinstance(event, ProvideLiquidity | WithdrawLiquidity | SwapExactInput):
                    continue
                if isinstance(event, ActionSettled) and unsettled is not None:
                    if event.action_id == unsettled.action_id:
                        unsettled = None
                elif isinstance(event, Head):
                    last_block = event.number
                elif isinstance(event, BarClosed):
                    bars.append(event)
                try:
                    world.apply(event)
                except Stale:
                    continue  # as it was then; bars are made all the same
                bars += world.take_bars()
    in_flight = unsettled.action_id if unsettled is not None else ""
    carried = Carried(run, actions, level, high_water, in_flight, was_live)
    return Recovered(carried, unsettled, last_block, contiguous((), bars))


def read_history(history: HistorySettings) -> tuple[BarClosed, ...]:
    """Candles of a Parquet file as bars, their notional scaled to the pool's share of it."""
    try:
        frame = pl.read_parquet(history.candles)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadInput(
            str(history.candles), f"not a Parquet file ({type(error).__name__})", "Check the path."
        ) from error
    if missing := [name for name in _CANDLES if name not in frame.columns]:
        raise BadInput(
            str(history.candles),
            f"no column {missing[0]!r}",
            f"Columns are {', '.join(_CANDLES)}.",
        )
    try:
        frame = frame.select(
            pl.col(name).cast(pl.Int64 if name.endswith("_s") else pl.Float64) for name in _CANDLES
        ).sort("start_s")
    except pl.exceptions.PolarsError as error:
        raise BadInput(
            str(history.candles), "a column is not numeric", "Write whole seconds and floats."
        ) from error
    scale = history.notional_scale
    return tuple(BarClosed(s, w, o, h, lo, c, n * scale) for s, w, o, h, lo, c, n in frame.rows())


def contiguous(
    first: Sequence[BarClosed], then: Sequence[BarClosed], until_s: int | None = None
) -> tuple[BarClosed, ...]:
    """Bars of `first` and, after its end, those of `then`, in order, known by `until_s`."""
    bars: list[BarClosed] = []
    for bar in (*first, *sorted(then, key=lambda bar: bar.start_s)):
        if bars and bar.start_s < bars[-1].start_s + bars[-1].width_s:
            continue
        if until_s is None or until_s - HISTORY_S <= bar.start_s <= until_s - bar.width_s:
            bars.append(bar)
    return tuple(bars)
