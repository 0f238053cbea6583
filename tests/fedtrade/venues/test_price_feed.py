"""The feed's log, and the feed itself."""

import pytest

from fedtrade.chain.conversation import ask
from fedtrade.chain.pools import oracle_answer
from fedtrade.devnet.accounts import GOVERNOR, OPERATOR
from fedtrade.devnet.deploy import Reverted, send
from fedtrade.market.events import OracleUpdated
from fedtrade.venues import price_feed


def test_a_negative_answer_decodes():
    word = (2**256 - 5).to_bytes(32, "big").hex()
    log = {
        "address": "0x" + "11" * 20,
        "blockNumber": "0x7",
        "logIndex": "0x1",
        "topics": [price_feed.ANSWER_UPDATED.topic, "0x" + word, "0x" + "00" * 31 + "02"],
        "data": "0x" + "00" * 31 + "63",
    }
    assert price_feed.decode(log, 8) == OracleUpdated(7, 1, "0x" + "11" * 20, -5, 8, 99)
    assert price_feed.decode({**log, "topics": ["0x" + "00" * 32]}, 8) is None


@pytest.mark.chain
def test_a_pushed_answer_is_the_event_and_the_latest_round(chain):
    feed = chain.deployment.price_feed
    receipt = send(chain.rpc, OPERATOR, price_feed.encode_push(feed, 123_456))
    (log,) = receipt["logs"]
    seen = price_feed.decode(log, 8)
    assert (seen.answer, seen.feed, seen.decimals) == (123_456, feed, 8)
    read = ask(chain.rpc, oracle_answer(feed, 8, seen.block))
    assert (read.answer, read.updated_at_s) == (seen.answer, seen.updated_at_s)


@pytest.mark.chain
def test_only_the_operator_pushes(chain):
    with pytest.raises(Reverted):
        send(chain.rpc, GOVERNOR, price_feed.encode_push(chain.deployment.price_feed, 1))
