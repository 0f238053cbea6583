"""The rehearsal's market on real pools: it follows the path, in order, and gives nothing away."""

from dataclasses import replace

import numpy as np
import pytest

from consortium.crash import (
    BLOCK_OFFSET_S,
    TIP_WEI,
    Amounts,
    Market,
    MarketSettings,
)
from fedtrade.chain.conversation import ask
from fedtrade.chain.pools import oracle_answer
from fedtrade.devnet.accounts import ARBITRAGEUR, NOISE_TRADER, OPERATOR
from fedtrade.devnet.deploy import MARKETS
from fedtrade.errors import BadInput
from fedtrade.learning.tables import Candles
from fedtrade.venues.uniswap_v3 import SWAP, decode

START_S = 1_749_754_800
QUIET = MarketSettings(volume_scale=0.0, noise_swaps=0.0)
PRICES = {plan.name: plan.price for plan in MARKETS}


def candles(chain, path, notional=1e7):
    """Minutes from rows of (open, high, low, close), each relative to the chain's first price."""
    rows = np.array(path, dtype=float) * PRICES[chain]
    start_s = START_S + 60 * np.arange(len(rows))
    return Candles("test", chain, 60, start_s, *rows.T, np.full(len(rows), notional))


def everywhere(path, notional=1e7):
    return {chain: candles(chain, path, notional) for chain in PRICES}


CRASH = [(1.0, 1.004, 0.98, 0.985), (0.985, 0.99, 0.94, 0.95), (0.95, 0.97, 0.945, 0.968)]


def test_amounts_are_worth_their_price():
    assert Amounts(2.0, 100.0).value(30.0) == 160.0


@pytest.mark.parametrize(
    "broken",
    [
        lambda data: replace(data, start_s=data.start_s + 60),
        lambda data: replace(data, close=data.close * np.nan),
        lambda data: replace(data, low=data.high * 1.1),
        lambda data: replace(data, notional_usd=-data.notional_usd),
        lambda data: replace(data, start_s=data.start_s * 2),
    ],
)
@pytest.mark.chain
def test_impossible_minutes_are_refused(devnet, broken):
    minutes = everywhere(CRASH)
    with pytest.raises(BadInput, match="minutes of birch"):
        Market(devnet.deployment, minutes | {"birch": broken(minutes["birch"])}, 1)


@pytest.mark.chain
class TestOnChain:
    def logs(self, devnet, chain, block):
        """(sender, event) of the swaps of a block, in order."""
        pool, rpc = devnet.deployment.chain(chain).pool, devnet.rpc(chain)
        asked = {"fromBlock": hex(block), "toBlock": hex(block), "address": pool}
        found = rpc.call("eth_getLogs", asked | {"topics": [SWAP.topic]})
        senders = {
            entry["transactionHash"]: entry["from"]
            for entry in rpc.call("eth_getBlockReceipts", hex(block))
        }
        return [(senders[log["transactionHash"]], decode(log)) for log in found]

    def test_every_chain_needs_its_minutes(self, devnet):
        minutes = everywhere(CRASH)
        del minutes["cedar"]
        with pytest.raises(BadInput, match="Give "):
            Market(devnet.deployment, minutes, 1)

    def test_minutes_of_the_past_are_refused(self, chains):
        past = {
            name: replace(data, start_s=data.start_s - 10**7)
            for name, data in everywhere(CRASH).items()
        }
        with (
            pytest.raises(BadInput, match="Start the chains anew"),
            Market(chains.deployment, past, 1),
        ):
            pass

    def test_the_pool_passes_the_recorded_extremes_within_the_fee(self, chains):
        with Market(chains.deployment, everywhere(CRASH), 1, QUIET) as market:
            played = [market.step() for _ in CRASH]
        for chain in chains.deployment.chains:
            key, fee = chain.pool_key(), chain.fee_pips / 1e6
            before = 1.0
            for row, minute in zip(CRASH, played, strict=True):
                done = minute[chain.name]
                prices = [before] + [
                    key.price(event.sqrt_price_x96) / PRICES[chain.name]
                    for _, event in self.logs(chains, chain.name, done.block)
                ]
                _, high, low, close = row
                assert low <= min(prices) <= low / (1 - fee) * (1 + 1e-9)
                assert high * (1 - fee) * (1 - 1e-9) <= max(prices) <= high * (1 + fee)
                assert done.pool_price / done.true_price == pytest.approx(1, abs=1.01 * fee)
                assert done.true_price == close * PRICES[chain.name]
                falling = prices.index(min(prices)) > prices.index(max(prices))
                assert falling is (close < row[0])
                before = prices[-1]

    def test_one_block_a_minute_in_its_last_second(self, chains):
        with Market(chains.deployment, everywhere(CRASH), 1) as market:
            first = market.step()["aster"].block
            assert market.now_s == START_S + 60
            second = market.step()["aster"].block
        assert second == first + 1
        stamps = [
            int(chains.rpc("aster").call("eth_getBlockByNumber", hex(b), False)["timestamp"], 16)
            for b in (first, second)
        ]
        assert stamps == [START_S + BLOCK_OFFSET_S, START_S + 60 + BLOCK_OFFSET_S]

    def test_noise_trades_its_share_and_nothing_reverts(self, chains):
        settings = MarketSettings(volume_scale=0.002, noise_swaps=6.0)
        with Market(chains.deployment, everywhere(CRASH * 4), 5, settings) as market:
            played = [market.step() for _ in range(3)]
        for minute in played:
            for name, done in minute.items():
                receipts = chains.rpc(name).call("eth_getBlockReceipts", hex(done.block))
                assert {receipt["status"] for receipt in receipts} == {"0x1"}
                paid = [int(receipt["effectiveGasPrice"], 16) for receipt in receipts]
                assert paid == sorted(paid, reverse=True)
                senders = [receipt["from"] for receipt in receipts]
                assert not done.feed_pushed or senders[-1] == OPERATOR.lower()
                swappers = [sender for sender, _ in self.logs(chains, name, done.block)]
                if done.arbitrage_swaps and swappers[-1] == ARBITRAGEUR.lower():
                    fee = chains.deployment.chain(name).fee_pips / 1e6
                    assert done.pool_price / done.true_price == pytest.approx(1, abs=1.01 * fee)
                assert senders.count(NOISE_TRADER.lower()) == done.noise_swaps
                assert senders.count(ARBITRAGEUR.lower()) == done.arbitrage_swaps
                expected = 20_000.0 if done.noise_swaps else 0.0
                assert done.noise_quote == pytest.approx(expected)
        assert sum(done.noise_swaps for minute in played for done in minute.values()) > 20

    def test_the_same_seed_gives_the_same_chain(self, chains):
        def play(seed):
            before = {c.name: chains.anvil(c.name).snapshot() for c in chains.deployment.chains}
            with Market(chains.deployment, everywhere(CRASH), seed) as market:
                blocks = [market.step()["birch"].block for _ in CRASH]
            events = [self.logs(chains, "birch", block) for block in blocks]
            for name, snapshot in before.items():
                chains.anvil(name).revert(snapshot)
            return events

        assert play(3) == play(3)
        assert play(3) != play(4)

    def test_the_feed_is_pushed_when_it_is_off_or_old(self, chains):
        flat = [(1.0, 1.0, 1.0, 1.0)] * 11
        moves = [(1.0, 1.002, 1.0, 1.002)]
        with Market(chains.deployment, everywhere(flat + moves), 1, QUIET) as market:
            pushed = [market.step()["aster"].feed_pushed for _ in range(12)]
            block = chains.anvil("aster").latest().number
        assert pushed == [True] + [False] * 9 + [True, True]
        known = chains.deployment.chain("aster")
        answer = ask(chains.rpc("aster"), oracle_answer(known.price_feed, 8, block))
        assert answer.answer == round(1.002 * PRICES["aster"] * 10**8)

    def test_others_come_behind_the_market_or_in_a_block_of_their_own(self, chains):
        rpc = chains.rpc("aster")
        account = rpc.call("eth_accounts")[9]
        transfer = {
            "from": account,
            "to": OPERATOR,
            "value": "0x1",
            "gas": hex(21_000),
            "maxFeePerGas": hex(10**12),
            "maxPriorityFeePerGas": hex(TIP_WEI // 2),
        }
        with Market(chains.deployment, everywhere(CRASH), 1) as market:
            rpc.call("eth_sendTransaction", transfer)
            done = market.step()["aster"]
            receipts = rpc.call("eth_getBlockReceipts", hex(done.block))
            assert receipts[-1]["from"] == account
            assert len(receipts) > 1
            rpc.call("eth_sendTransaction", transfer)
            market.include(12)
            alone = rpc.call("eth_getBlockByNumber", "latest", True)
            assert [entry["from"] for entry in alone["transactions"]] == [account]
            assert int(alone["timestamp"], 16) == START_S + 60 + 12
            assert int(alone["baseFeePerGas"], 16) == MarketSettings().base_fee_wei
            assert market.step()["aster"].block == int(alone["number"], 16) + 1

    def test_the_static_position_is_valued_by_the_chain(self, chains):
        path = [(1.0, 1.0, 0.8, 0.8), (0.8, 1.0, 0.8, 1.0)]
        with Market(chains.deployment, everywhere(path), 1, QUIET) as market:
            held = market.open_static(1_000_000.0)
            for name, price in PRICES.items():
                assert held[name].value(price) == pytest.approx(1_000_000, rel=1e-5)
            market.step()
            for name, price in PRICES.items():
                # Full range: value goes with the square root of the price, and fees come on top.
                worth, kept = market.static(name).value(0.8 * price), held[name].value(0.8 * price)
                ideal = 1_000_000 * 0.8**0.5
                assert ideal * 0.999 < worth < ideal * 1.002
                assert kept == pytest.approx(900_000, rel=1e-5)
            market.step()
            for name, price in PRICES.items():
                assert market.static(name).value(price) > held[name].value(price)

    def test_after_it_the_chain_mines_by_itself_and_the_market_is_over(self, chains):
        with Market(chains.deployment, everywhere(CRASH[:1]), 1, QUIET) as market:
            market.step()
            with pytest.raises(BadInput, match="all its minutes are played"):
                market.step()
        before = chains.anvil("cedar").latest().number
        chains.fund("cedar", "0x" + "ab" * 20, quote=1)
        assert chains.anvil("cedar").latest().number == before + 1
