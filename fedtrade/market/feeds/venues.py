"""Which venues there are, where they answer, and what keeps their lines open.

Addresses and pings are those of the venues' public documentation; a recording is replayed by the same
table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from fedtrade.errors import BadInput
from fedtrade.market.feeds import bybit, hyperliquid, okx
from fedtrade.market.feeds.binance import Binance
from fedtrade.market.feeds.bitmex import Bitmex
from fedtrade.market.feeds.bybit import Bybit
from fedtrade.market.feeds.bybit_2021 import Bybit2021
from fedtrade.market.feeds.deribit import Deribit
from fedtrade.market.feeds.dydx import Dydx
from fedtrade.market.feeds.events import Fetch, Market, Out, Send
from fedtrade.market.feeds.hyperliquid import Hyperliquid
from fedtrade.market.feeds.kraken_futures import KrakenFutures
from fedtrade.market.feeds.lighter import Lighter
from fedtrade.market.feeds.okx import Okx
from fedtrade.market.feeds.replica import Replica


class Feed(Protocol):
    """One connection to a venue, without its socket: bytes in, events and wishes out."""

    replicas: dict[Market, Replica]

    def connected(self, at_ns: int) -> list[Out]: ...

    def received(self, frame: bytes, at_ns: int) -> list[Out]: ...


@runtime_checkable
class Fetching(Protocol):
    """A feed that also asks the venue's web interface."""

    def fetched(self, fetch: Fetch, body: bytes, at_ns: int) -> list[Out]: ...


@dataclass(frozen=True, slots=True)
class Venue:
    """A venue, or one product of it with a line of its own."""

    name: str
    socket_url: str
    """Empty where it is closed, and only recordings of it are left."""
    feed: Callable[[Sequence[Market]], Feed]
    web_url: str = ""
    ping: Send | None = None
    """What it wants to be told now and then; a websocket's own ping where it wants nothing."""
    ping_every_s: float = 15.0


_DYDX: Final = "wss://indexer.dydx.trade/v4/ws"
_BYBIT: Final = "wss://stream.bybit.com/v5/public"

VENUES: Final[Mapping[str, Venue]] = {
    venue.name: venue
    for venue in (
        Venue(
            "binance-spot", "wss://stream.binance.com:9443/stream",
            lambda markets: Binance("spot", markets), "https://api.binance.com",
        ),
        Venue(
            "binance-usdm", "wss://fstream.binance.com/stream",
            lambda markets: Binance("usdm", markets), "https://fapi.binance.com",
        ),
        Venue(
            "binance-coinm", "wss://dstream.binance.com/stream",
            lambda markets: Binance("coinm", markets), "https://dapi.binance.com",
        ),
        Venue("bybit-linear", f"{_BYBIT}/linear", Bybit, ping=bybit.PING),
        Venue("bybit-inverse", f"{_BYBIT}/inverse", Bybit, ping=bybit.PING),
        Venue(
            "bybit-spot", f"{_BYBIT}/spot", lambda markets: Bybit(markets, spot=True),
            ping=bybit.PING,
        ),
        Venue("bybit-2021", "", Bybit2021),
        Venue("okx", "wss://ws.okx.com:8443/ws/v5/public", Okx, ping=okx.PING),
        Venue("deribit", "wss://www.deribit.com/ws/api/v2", Deribit),
        Venue("dydx", _DYDX, Dydx),
        Venue("dydx-v3", "", lambda markets: Dydx(markets, "v3")),
        Venue("hyperliquid", "wss://api.hyperliquid.xyz/ws", Hyperliquid, ping=hyperliquid.PING),
        Venue("lighter", "wss://mainnet.zklighter.elliot.ai/stream", Lighter),
        Venue("bitmex", "wss://ws.bitmex.com/realtime", Bitmex),
        Venue("kraken-futures", "wss://futures.kraken.com/ws/v1", KrakenFutures),
    )
}  # fmt: skip


def venue_of(name: str) -> Venue:
    """The venue of a name. Raises BadInput."""
    if name not in VENUES:
        raise BadInput(
            f"venue {name}", "it is none that we read", f"Use one of {', '.join(VENUES)}."
        )
    return VENUES[name]


def markets_of(venue: Venue, named: Sequence[str]) -> list[Market]:
    """Markets from texts `SYMBOL[:decimals of price[:decimals of size]]`. Raises BadInput."""
    markets = []
    for text in named:
        symbol, *decimals = text.split(":")
        if not symbol or len(decimals) > 2 or not all(each.isdigit() for each in decimals):
            problem = "it is not SYMBOL, SYMBOL:2 or SYMBOL:2:3"
            raise BadInput(f"market {text}", problem, "State decimals of price, then of size.")
        markets.append(Market(venue.name, symbol, *map(int, decimals)))
    return markets
