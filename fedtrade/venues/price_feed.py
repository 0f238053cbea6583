"""A price feed with Chainlink's AggregatorV3 interface, sans-I/O: its log to an event.

On local chains the feed is `LocalPriceFeed`, written by one operator in place of an oracle
committee; the interface and the log are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fedtrade.market.events import OracleUpdated
from fedtrade.venues.codec import Call, Function, LogShape, place_of

ANSWER_UPDATED: Final = LogShape(
    "AnswerUpdated(int256,uint256,uint256)", "(int256,uint256)", "(uint256)"
)
TOPICS: Final = (ANSWER_UPDATED.topic,)

LATEST_ROUND: Final = Function("latestRoundData()", "(uint80,int256,uint256,uint256,uint80)")
GET_ROUND: Final = Function("getRoundData(uint80)", "(uint80,int256,uint256,uint256,uint80)")
PUSH: Final = Function("push(int256)")


def decode(log: Mapping[str, Any], decimals: int) -> OracleUpdated | None:
    """The event of a feed's log; None for any other log."""
    if not ANSWER_UPDATED.matches(log):
        return None
    (answer, _), (updated_at_s,) = ANSWER_UPDATED.decode(log)
    return OracleUpdated(*place_of(log), answer, decimals, updated_at_s)


def encode_push(feed: str, answer: int) -> Call:
    """The operator's next answer (local feed only)."""
    return Call(feed, PUSH.encode(answer))
