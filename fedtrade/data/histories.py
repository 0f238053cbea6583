"""Candles and settled funding as the venues' public REST interfaces serve them; opens no socket.

A `Question` is what to ask for one window of time, sized so that its whole answer fits one page of
the venue; `read` makes rows of the answer. Windows make paging indifferent to the order in which a
venue serves (Bybit and OKX: newest first) and to rows that it serves twice.

Sources: Binance USD-M `klines`, `fundingRate`; Bybit v5 `market/kline`, `market/funding/history`;
OKX v5 `market/history-candles`, `public/funding-rate-history`; Hyperliquid `info` with
`candleSnapshot` (the newest 5,000 of each width only) and `fundingHistory`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fedtrade.errors import BadInput, Stale

Kind = Literal["candles", "funding"]
Row = tuple[int, ...] | tuple[float, ...]
"""Candles: (start_ms, open, high, low, close, volume in base coin). Funding: (at_ms, rate)."""
HOUR_S: Final = 3600


class AnswerOdd(Stale):
    """A venue's answer is not what it documents; asked again it may be."""

    def __init__(self, venue: str, problem: str) -> None:
        super().__init__(f"{venue} answered with {problem}. Ask again.")
        self.venue = venue
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Question:
    """One request: a GET with `params`, or a POST of `body` where there is one."""

    path: str
    params: Mapping[str, str]
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class History:
    """One venue's public history."""

    venue: str
    file_stem: str
    url: str
    pause_s: float
    """Between two requests, so that its limit for one address is never met."""
    page: Mapping[Kind, int]
    """The most rows of one answer."""
    symbol: Callable[[str], str]
    """What the venue calls a coin's perpetual."""
    ask: Callable[[Kind, str, int, int, int], Question]
    """From (kind, symbol, width_s, from_ms, until_ms): rows that start in [from, until)."""
    rows: Callable[[Kind, Any], Iterable[Row]]
    """Raises KeyError, IndexError, TypeError or ValueError on what is not documented."""

    def windows(self, kind: Kind, width_s: int, from_s: int, until_s: int) -> list[tuple[int, int]]:
        """[from, until) in Unix seconds of the questions that cover a time. Funding: hourly."""
        step_s = self.page[kind] * (width_s if kind == "candles" else HOUR_S)
        return [(at, min(at + step_s, until_s)) for at in range(from_s, until_s, step_s)]

    def read(self, kind: Kind, answer: Any, from_s: int, until_s: int) -> dict[int, Row]:
        """Rows of one answer by their time in ms; what lies outside the window is left out.

        Raises AnswerOdd for an answer that is not as documented, and for two different rows of one
        time.
        """
        found: dict[int, Row] = {}
        try:
            for row in self.rows(kind, answer):
                if not all(map(math.isfinite, row)):
                    raise AnswerOdd(self.venue, "a value that is no number")
                if (
                    from_s * 1000 <= row[0] < until_s * 1000
                    and found.setdefault(int(row[0]), row) != row
                ):
                    raise AnswerOdd(self.venue, "two different rows of one time")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise AnswerOdd(self.venue, f"what it does not document ({error!r:.80})") from error
        return found


def history(venue: str) -> History:
    """The history of a venue; BadInput names those there are."""
    if venue not in HISTORIES:
        known = ", ".join(sorted(HISTORIES))
        raise BadInput(venue, "no history of it can be fetched", f"Use one of: {known}.")
    return HISTORIES[venue]


def _usdt(coin: str) -> str:
    return f"1000{coin[1:]}USDT" if coin.startswith("k") else f"{coin}USDT"


def _candle(values: Any, volume: int) -> Row:
    return (int(values[0]), *(float(values[i]) for i in (1, 2, 3, 4, volume)))


def _name(width_s: int, hour: str = "h", minute: str = "m") -> str:
    return f"{width_s // HOUR_S}{hour}" if width_s % HOUR_S == 0 else f"{width_s // 60}{minute}"


def _binance_ask(kind: Kind, symbol: str, width_s: int, from_ms: int, until_ms: int) -> Question:
    span = {"symbol": symbol, "startTime": str(from_ms), "endTime": str(until_ms - 1)}
    if kind == "candles":
        return Question("/fapi/v1/klines", span | {"interval": _name(width_s), "limit": "1500"})
    return Question("/fapi/v1/fundingRate", span | {"limit": "1000"})


def _binance_rows(kind: Kind, answer: Any) -> Iterable[Row]:
    if kind == "candles":
        return [_candle(k, 5) for k in answer]
    return [(int(f["fundingTime"]), float(f["fundingRate"])) for f in answer]


def _bybit_ask(kind: Kind, symbol: str, width_s: int, from_ms: int, until_ms: int) -> Question:
    own = {"category": "linear", "symbol": symbol}
    if kind == "candles":
        span = {"interval": str(width_s // 60), "start": str(from_ms), "end": str(until_ms - 1)}
        return Question("/v5/market/kline", own | span | {"limit": "1000"})
    span = {"startTime": str(from_ms), "endTime": str(until_ms - 1), "limit": "200"}
    return Question("/v5/market/funding/history", own | span)


def _bybit_rows(kind: Kind, answer: Any) -> Iterable[Row]:
    if answer["retCode"] != 0:
        raise ValueError(answer["retMsg"])
    rows = answer["result"]["list"]
    if kind == "candles":
        return [_candle(k, 5) for k in rows]
    return [(int(f["fundingRateTimestamp"]), float(f["fundingRate"])) for f in rows]


def _okx_ask(kind: Kind, symbol: str, width_s: int, from_ms: int, until_ms: int) -> Question:
    span = {"instId": symbol, "before": str(from_ms - 1), "after": str(until_ms), "limit": "100"}
    if kind == "candles":
        return Question("/api/v5/market/history-candles", span | {"bar": _name(width_s, "H")})
    return Question("/api/v5/public/funding-rate-history", span)


def _okx_rows(kind: Kind, answer: Any) -> Iterable[Row]:
    if answer["code"] != "0":
        raise ValueError(answer["msg"])
    if kind == "candles":  # volume: 5 in contracts, 6 in base coin; 8 says whether it is complete
        return [_candle(k, 6) for k in answer["data"] if k[8] == "1"]
    return [(int(f["fundingTime"]), float(f["realizedRate"])) for f in answer["data"]]


def _hyperliquid_ask(
    kind: Kind, symbol: str, width_s: int, from_ms: int, until_ms: int
) -> Question:
    span = {"coin": symbol, "startTime": from_ms, "endTime": until_ms - 1}
    if kind == "candles":
        req = span | {"interval": _name(width_s)}
        return Question("/info", {}, {"type": "candleSnapshot", "req": req})
    return Question("/info", {}, {"type": "fundingHistory", **span})


def _hyperliquid_rows(kind: Kind, answer: Any) -> Iterable[Row]:
    if kind == "candles":
        return [(int(c["t"]), *(float(c[k]) for k in "ohlcv")) for c in answer]
    return [(int(f["time"]), float(f["fundingRate"])) for f in answer]


HISTORIES: Final = {
    "binance": History(
        *("binance", "binance_usdm", "https://fapi.binance.com", 0.25),
        {"candles": 1500, "funding": 1000},
        *(_usdt, _binance_ask, _binance_rows),
    ),
    "bybit": History(
        *("bybit", "bybit", "https://api.bybit.com", 0.2),
        {"candles": 1000, "funding": 200},
        *(_usdt, _bybit_ask, _bybit_rows),
    ),
    "okx": History(
        *("okx", "okx", "https://www.okx.com", 0.25),
        {"candles": 100, "funding": 100},
        *(lambda coin: f"{coin}-USDT-SWAP", _okx_ask, _okx_rows),
    ),
    "hyperliquid": History(
        *("hyperliquid", "hyperliquid", "https://api.hyperliquid.xyz", 1.0),
        {"candles": 5000, "funding": 500},
        *(lambda coin: coin, _hyperliquid_ask, _hyperliquid_rows),
    ),
}
