"""The end of the demo: what happened, out of the journals and the chains, and whether it may be so.

Series and actions come from the agents' journals, values of the baselines from the chains. Before
anything is told, it is checked: each registry's live hash is the artifact's, each journal replays to
the same actions and head hash, and after HALT neither a journal nor a chain holds an action that
adds risk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from consortium.learn import Judged
from consortium.trade import NATIVE_PRICE_QUOTE, Sampled
from fedtrade.artifact import load, sha256_of
from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.mirrors import RegistryMirror
from fedtrade.chain.rpc import Rpc, from_hex
from fedtrade.dashboard import (
    ActionPoint,
    ChainReport,
    Forecasts,
    LevelPoint,
    RangeSpan,
)
from fedtrade.devnet.net import Devnet
from fedtrade.errors import Fault
from fedtrade.journal import Reader, Record, Replay
from fedtrade.learning import baseline
from fedtrade.learning.features import neutral_rows
from fedtrade.learning.tables import HOUR_S, candles
from fedtrade.learning.windows import market_table
from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.encoding import decode
from fedtrade.market.events import ActionSettled
from fedtrade.market.instruments import PoolKey
from fedtrade.replay import replay_journal
from fedtrade.risk.breakers import Level
from fedtrade.venues.safe import EXECUTE
from fedtrade.venues.uniswap_v3 import PROVIDE, SWAP_EXACT_INPUT

SYMBOL: Final = "ETH"
VENUE: Final = "binance"


@dataclass(frozen=True, slots=True)
class Told:
    """One agent's journal, read once."""

    records: tuple[Record, ...]
    receipts: tuple[Mapping[str, Any], ...]
    actions: tuple[tuple[int, Action], ...]
    """(time of the head that led to it, action)."""
    settled: Mapping[str, ActionSettled]
    proved: Replay


def read_journal(folder: Path) -> Told:
    """Read and replay one agent's journal. Raises JournalAltered or JournalDiffers."""
    path = folder / "journal.jsonl"
    records = tuple(Reader(path))
    receipts, actions, settled, now_s = [], [], {}, 0
    for record in records:
        if record.kind == "receipt":
            receipts.append(record.body)
            now_s = int(record.body["timestamp_s"])
        elif record.kind == "action":
            action = decode(record.body)
            if isinstance(action, ProvideLiquidity | WithdrawLiquidity | SwapExactInput):
                actions.append((now_s, action))
        elif record.kind == "event":
            event = decode(record.body)
            if isinstance(event, ActionSettled):
                settled[event.action_id] = event
    return Told(records, tuple(receipts), tuple(actions), settled, replay_journal(path))


def check_hashes(devnet: Devnet, artifact_sha256: str) -> dict[str, tuple[int, str]]:
    """(version, live hash) of registry and mirrors. Raises Fault where one is not the artifact's."""
    found = {}
    for chain in devnet.deployment.chains:
        live = ask(devnet.rpc(chain.name), RegistryMirror(chain.registry).live())
        if live.sha256 != artifact_sha256:
            raise Fault(
                f"{chain.name}: the live hash there is {live.sha256}, the artifact's "
                f"{artifact_sha256}. Do not trade on it"
            )
        found[chain.name] = (live.version, live.sha256)
    return found


def check_halt(told: Told, chain: ChainDeployment, rpc: Rpc, key: str) -> None:
    """No action that adds risk after HALT: in the journal, and in the chain's own blocks.

    On the chain every transaction of the agent's key in a block after the one that led to HALT is
    looked at, orders to a breaker call by call: a mint, or a swap that sells the quote, is a fault.
    (What was sent before HALT is mined at the latest in that very block.)
    """
    halted = next((r for r in told.receipts if r["level"] >= Level.HALT), None)
    if halted is None:
        return
    for at_s, action in told.actions:
        if at_s >= halted["timestamp_s"] and action.adds_risk:
            raise Fault(f"{chain.name}: {action.action_id} adds risk after HALT")
    pool, quote = chain.pool_key().address, chain.quote.address.lower()[2:]
    first, last = int(halted["block"]) + 1, int(rpc.call("eth_blockNumber"), 16)
    for number in range(first, last + 1):
        block = rpc.call("eth_getBlockByNumber", hex(number), True)
        for transaction in block["transactions"]:
            if transaction["from"].lower() != key.lower():
                continue
            for data in _calls_of(from_hex(transaction["input"])):
                mints = data.startswith(PROVIDE.selector)
                swaps = data.startswith(SWAP_EXACT_INPUT.selector)
                # the first argument of exactInputSingle is the token that is sold
                if mints or (swaps and data[16:36].hex() == quote):
                    raise Fault(
                        f"{chain.name}: block {number} after HALT holds {transaction['hash']}, "
                        f"which adds risk to pool {pool}"
                    )


def _calls_of(data: bytes) -> list[bytes]:
    """The calls that a transaction makes of venues: those of an order, or itself."""
    if not data.startswith(EXECUTE.selector):
        return [data]
    ((_, _, _, calls),) = EXECUTE.decode_input(data)
    return [call for _, call in calls]


def tell_chain(
    chain: ChainDeployment, series: Sampled, told: Told, registry: tuple[int, str]
) -> ChainReport:
    """One chain's part of the report."""
    times = [int(r["timestamp_s"]) for r in told.receipts]
    aligned = [told.receipts[max(0, bisect_right(times, t) - 1)] for t in series.times_s]
    first, last = told.receipts[0], told.receipts[-1]
    gas = int(last["gas_wei"]) / 1e18 * NATIVE_PRICE_QUOTE
    key = chain.pool_key()
    return ChainReport(
        name=chain.name,
        chain_id=chain.chain_id,
        symbol=chain.base.symbol,
        fee_pips=chain.fee_pips,
        registry_hash=registry[1],
        model_version=registry[0],
        times_s=series.times_s,
        true_price=series.true_price,
        pool_price=series.pool_price,
        forecast_variance=[r["variance_per_hour"] for r in aligned],
        forecast_interval=[r["variance_interval"] for r in aligned],
        equity=[r["equity_quote"] for r in aligned],
        equity_static=series.static_quote,
        equity_hold=series.hold_quote,
        ranges=_ranges(key, told),
        actions=[_point(key, at_s, action, told) for at_s, action in told.actions],
        levels=_levels(told),
        pnl=last["equity_quote"] - first["equity_quote"] - gas,
        pnl_static_lp=series.static_quote[-1] - series.static_quote[0],
        pnl_hold=series.hold_quote[-1] - series.hold_quote[0],
        fees=last["fees_quote"],
        lvr=last["lvr_quote"],
        gas=gas,
        transactions=sum(s.outcome in ("confirmed", "reverted") for s in told.settled.values()),
        journal_head=told.proved.head_hash,
    )


def _price(key: PoolKey, tick: int) -> float:
    raw = 1.0001**tick
    if key.base_is_token0:
        return float(raw * 10 ** (key.base.decimals - key.quote.decimals))
    return float(10 ** (key.base.decimals - key.quote.decimals) / raw)


def _ranges(key: PoolKey, told: Told) -> list[RangeSpan]:
    """Each position from the head that asked for it to the head that asked for its end."""
    spans, opened = [], None
    end_s = int(told.receipts[-1]["timestamp_s"])
    for at_s, action in told.actions:
        outcome = told.settled.get(action.action_id)
        if outcome is None or outcome.outcome != "confirmed":
            continue
        if isinstance(action, ProvideLiquidity):
            opened = (at_s, action.tick_lower, action.tick_upper)
        elif isinstance(action, WithdrawLiquidity) and opened is not None:
            spans.append((*opened, at_s))
            opened = None
    if opened is not None:
        spans.append((*opened, end_s))
    return [
        RangeSpan(
            start_s=start_s,
            end_s=until_s,
            lower_price=min(_price(key, lower), _price(key, upper)),
            upper_price=max(_price(key, lower), _price(key, upper)),
        )
        for start_s, lower, upper, until_s in spans
    ]


def _point(key: PoolKey, at_s: int, action: Action, told: Told) -> ActionPoint:
    settled = told.settled.get(action.action_id)
    match action:
        case ProvideLiquidity():
            low, high = sorted((_price(key, action.tick_lower), _price(key, action.tick_upper)))
            kind, detail = "provide", f"range {low:,.1f} to {high:,.1f}"
        case WithdrawLiquidity():
            kind, detail = "withdraw", f"position {action.token_id}"
        case SwapExactInput():
            sold = key.token0 if action.sell_token0 else key.token1
            amount = action.amount_in / 10**sold.decimals
            kind, detail = "swap", f"sell {amount:,.4f} {sold.symbol}"
    return ActionPoint(
        time_s=at_s,
        kind=kind,
        detail=detail,
        outcome=settled.outcome if settled else "unsettled at the end",
        adds_risk=action.adds_risk,
    )


def _levels(told: Told) -> list[LevelPoint]:
    points, before = [], -1
    for receipt in told.receipts:
        level = int(receipt["level"])
        if level != before:
            why = ", ".join(receipt["trips"]) or "start"
            points.append(
                LevelPoint(time_s=int(receipt["timestamp_s"]), level=Level(level).name, reason=why)
            )
            before = level
    return points


def forecasts(artifact: bytes, from_s: int, until_s: int) -> Forecasts:
    """The model's and HAR's hourly forecasts over the crash, beside what came."""
    from fedtrade.learning.perceptron import log_to_mean, predict

    arrays = load(artifact, sha256_of(artifact)).arrays
    table = market_table(candles(VENUE, SYMBOL), until_s + HOUR_S)
    chosen = (table.end_s >= from_s) & (table.end_s <= until_s)
    public = table.features[chosen]
    rows = neutral_rows(public).astype(np.float32)
    model = predict(arrays, rows)[:, 0] + log_to_mean(arrays, rows)[:, 0]
    har = baseline.fit_linear(baseline.public_tables(), "log_variance", baseline.HAR_FEATURES)
    return Forecasts(
        times_s=[int(t) + HOUR_S for t in table.end_s[chosen]],
        realised=[float(v) for v in np.exp(table.targets[chosen, 0])],
        model=[float(v) for v in np.exp(model)],
        har=[float(v) for v in np.exp(har.predict(public) + har.log_to_mean)],
    )


def verdict(judged: Judged, chains: Sequence[ChainReport]) -> list[str]:
    """Plain sentences: what beat what, in which direction it may have gone."""
    m = judged.metrics
    better = sum(s.qlike > m["federated"].qlike for s in judged.solo)
    sentences = [
        f"The federated model's out-of-sample QLIKE is {m['federated'].qlike:.4f}; members alone "
        f"reach {m['solo_mean'].qlike:.4f} on average, all positions pooled without privacy "
        f"{m['pooled'].qlike:.4f}. It is better than {better} of {len(judged.solo)} solo models.",
    ]
    har_wins = m["har"].qlike < m["federated"].qlike
    sentences.append(
        f"{'HAR wins' if har_wins else 'It beats HAR'}: {m['har'].qlike:.4f} for HAR, "
        f"Diebold–Mariano p = {judged.p_value:.3f}."
    )
    public = judged.linear_public.qlike
    sentences.append(
        f"A linear model on all public features alone reaches {public:.4f}"
        f"{', and is the best of all' if public < m['federated'].qlike else ''}: the members' "
        "positions here are simulated over public prices and hold no private knowledge, so what is "
        "shown is the gain from pooling markets and hours under privacy, not what positions reveal."
    )
    for chain in chains:
        best = max(
            ("the agent", chain.pnl),
            ("the static full-range LP", chain.pnl_static_lp),
            ("holding", chain.pnl_hold),
            key=lambda pair: pair[1],
        )
        halted = next((p for p in chain.levels if p.level in ("HALT", "UNWIND")), None)
        sentences.append(
            f"On {chain.name} the agent's result is {chain.pnl:,.0f} USDC, the static LP's "
            f"{chain.pnl_static_lp:,.0f}, holding {chain.pnl_hold:,.0f}: {best[0]} did best. "
            + (f"Its breakers halted it ({halted.reason})." if halted else "No breaker halted it.")
        )
    return sentences
