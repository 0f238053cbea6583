"""Recovery: what a restart takes over from a journal, and candles of before the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from clients.recovery import HISTORY_S, contiguous, read_history, recover
from clients.settings import HistorySettings
from fedtrade.errors import BadInput
from fedtrade.journal import Record
from fedtrade.market.actions import SwapExactInput
from fedtrade.market.encoding import encode
from fedtrade.market.events import ActionSettled, BarClosed, Head, PoolSnapshot, Swapped
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.market.pool import Pool, sqrt_ratio_at_tick
from fedtrade.risk.breakers import RULES, Level

KEY = PoolKey("0xP", Token("0xA", "WETH", 18), Token("0xB", "USDC", 6), 500, 10, True)
SHA, OTHER = "a" * 64, "b" * 64
ACTION = SwapExactInput("j-000000", "0xP", True, 10**18, 1, 99, False)


def records(*bodies: tuple[str, Any]) -> list[Record]:
    return [Record(n, kind, body, "") for n, (kind, body) in enumerate(bodies)]  # type: ignore[arg-type]


def start(sha: str = SHA) -> tuple[str, Any]:
    return "start", {"artifact_sha256": sha, "carried": {"run": "j"}}


def receipt(high: float = 1.0, trips: tuple[str, ...] = (), live: bool = True) -> tuple[str, Any]:
    return "receipt", {"high_water_quote": high, "trips": list(trips), "was_live": live}


def event(value: Any) -> tuple[str, Any]:
    return "event", encode(value)


def test_a_new_journal_begins_with_nothing() -> None:
    found = recover([], SHA, KEY, "0xF", "new")
    assert (found.carried.run, found.carried.level, found.carried.in_flight) == ("new", 0, "")
    assert (found.unsettled, found.last_block, found.bars) == (None, None, ())


def test_counts_marks_and_names_go_on() -> None:
    found = recover(
        records(
            start(), receipt(9.0), ("action", encode(ACTION)), receipt(7.0),
            event(ActionSettled(1, "other", "confirmed", 0)), event(Head(8, "0x8", "0x7", 1, 1)),
        ),
        SHA, KEY, "0xF", "new",
    )  # fmt: skip
    carried = found.carried
    assert (carried.run, carried.next_action, carried.high_water_quote) == ("j", 1, 9.0)
    assert carried.was_live
    assert carried.in_flight == "j-000000"
    assert found.unsettled == ACTION
    assert found.last_block == 8


def test_a_settled_action_is_not_in_flight() -> None:
    settled = event(ActionSettled(1, "j-000000", "dropped", 0))
    found = recover(records(start(), ("action", encode(ACTION)), settled), SHA, KEY, "0xF", "n")
    assert found.unsettled is None
    assert found.carried.in_flight == ""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_levels_are_carried_and_those_of_a_model_only_to_that_model(rule: Any) -> None:
    tripped = records(start(), receipt(trips=(rule.name,)))
    assert recover(tripped, SHA, KEY, "0xF", "n").carried.level is rule.level
    other = recover(tripped, OTHER, KEY, "0xF", "n").carried
    assert other.level is (Level.NORMAL if rule.of_model else rule.level)
    assert not other.was_live


def test_an_unknown_rule_counts_as_a_halt() -> None:
    found = recover(records(start(), receipt(trips=("of tomorrow",))), SHA, KEY, "0xF", "n")
    assert found.carried.level is Level.HALT


def test_bars_are_made_again_from_the_recorded_blocks() -> None:
    depth = 10**18
    ticks = ((-887_270, depth, depth, 0, 0), (887_270, depth, -depth, 0, 0))
    snapshot = PoolSnapshot(1, "0xP", sqrt_ratio_at_tick(-197_100), -197_100, depth, 0, 0, ticks)
    done = Pool(KEY, snapshot).swap(True, 10**18)
    swap = Swapped(2, 0, "0xP", done.amount0, done.amount1, done.sqrt_price_x96, done.liquidity,
                   done.tick)  # fmt: skip
    bar = BarClosed(0, 3600, 1.0, 2.0, 0.5, 1.5, 3.0)
    found = recover(
        records(
            start(), event(bar), event(snapshot), event(Head(1, "0x1", "0x0", 3600, 1)),
            event(swap), event(Head(2, "0x2", "0x1", 3660, 1)),
            event(Head(3, "0x3", "0x2", 3720, 1)),
        ),
        SHA, KEY, "0xF", "n",
    )  # fmt: skip
    assert [b.start_s for b in found.bars] == [0, 3600, 3660]
    assert found.bars[2].notional_usd == pytest.approx(-done.amount1 / 1e6)


def bar(start_s: int, width_s: int = 60, close: float = 1.0) -> BarClosed:
    return BarClosed(start_s, width_s, close, close, close, close, 1.0)


def test_bars_are_joined_without_overlap_and_end_with_what_is_known() -> None:
    first, then = [bar(0, 3600)], [bar(3600), bar(1800), bar(3660), bar(3600, close=2.0), bar(3720)]
    joined = contiguous(first, then, until_s=3770)
    assert [b.start_s for b in joined] == [0, 3600, 3660]
    assert joined[1].close == 1.0
    assert contiguous([bar(0), bar(HISTORY_S)], (), until_s=HISTORY_S + 61) == (bar(HISTORY_S),)


def parquet(path: Path, **columns: Any) -> HistorySettings:
    table = {"start_s": [3600, 0], "width_s": [3600, 3600], "open": [2.0, 1.0], "high": [2.0, 1.0],
             "low": [2.0, 1.0], "close": [2.0, 1.0], "notional_usd": [10.0, 20.0]}  # fmt: skip
    table |= columns
    pl.DataFrame({k: v for k, v in table.items() if v is not None}).write_parquet(path)
    return HistorySettings(candles=path, notional_scale=0.5)


def test_history_is_read_in_order_and_scaled(tmp_path: Path) -> None:
    bars = read_history(parquet(tmp_path / "h"))
    assert [(b.start_s, b.close, b.notional_usd) for b in bars] == [
        (0, 1.0, 10.0),
        (3600, 2.0, 5.0),
    ]


def test_bad_history_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no column 'close'"):
        read_history(parquet(tmp_path / "h", close=None))
    with pytest.raises(BadInput, match="not numeric"):
        read_history(parquet(tmp_path / "h", close=["x", "y"]))
    (tmp_path / "h").write_text("start_s,close")
    for path in (tmp_path / "h", tmp_path / "none"):
        with pytest.raises(BadInput, match="not a Parquet file"):
            read_history(HistorySettings(candles=path))
