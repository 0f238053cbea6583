"""Histories from a local server that answers as each venue documents, and that misbehaves."""

import asyncio
import json
import math
import random

import aiohttp
import polars as pl
import pytest
from aiohttp import web

from fedtrade.data.fetching import TRIES, fetch
from fedtrade.data.histories import HISTORIES, history
from fedtrade.errors import BadInput, Unavailable
from fedtrade.learning.folder import DataFolder

HOUR_S, FROM_S = 3600, 1_709_251_200  # 2024-03-01
NAMES = {"binance": "1000PEPEUSDT", "bybit": "1000PEPEUSDT", "okx": "PEPE-USDT-SWAP"}
GAP = range(FROM_S + 40 * HOUR_S, FROM_S + 43 * HOUR_S, HOUR_S)
"""Hours that no venue here has."""


def bar(at_s):
    opening = 100 + 10 * math.sin(at_s / 1e4)
    return opening, opening + 2.0, opening - 1.0, opening + 1.0, 5.0 + at_s % 7


class Venue:
    """A venue's public interface, with faults drawn from a seed."""

    def __init__(self, name, faults=(), seed=0, settled_h=8, first_s=FROM_S - 10**7):
        self.name, self.faults, self.seed = name, list(faults), random.Random(seed)
        self.settled_s, self.first_s, self.asked = settled_h * HOUR_S, first_s, []

    async def answer(self, request):
        body = await request.json() if request.can_read_body else {}
        query = dict(request.query) | body.get("req", {}) | body
        kind = "funding" if "und" in (request.path + str(body.get("type"))) else "candles"
        self.asked.append((kind, query))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            return web.Response(status=fault, headers={"Retry-After": "7"}, text="slow down")
        rows = self.rows(kind, query)
        if fault == "short":
            rows = [r for i, r in enumerate(rows) if i % 3]
        if fault == "twice":
            rows += rows[: len(rows) // 2]
        if fault == "shuffled":
            self.seed.shuffle(rows)
        if fault == "contradicts" and rows:
            rows.append((rows[0][0], *(2 * v for v in rows[0][1:])))
        text = json.dumps(self.spelled(kind, rows))
        if fault == "cut":
            text = text[: len(text) // 2]
        if fault == "torn":
            answer = web.StreamResponse(headers={"Content-Length": str(len(text))})
            await answer.prepare(request)
            await answer.write(text[: len(text) // 2].encode())
            request.transport.close()
            return answer
        return web.Response(text=text, content_type="application/json")

    def rows(self, kind, query):
        first, last = {
            "binance": ("startTime", "endTime"),
            "bybit": ("start", "end") if kind == "candles" else ("startTime", "endTime"),
            "okx": ("before", "after"),
            "hyperliquid": ("startTime", "endTime"),
        }[self.name]
        low, high = int(query[first]), int(query[last])
        if self.name == "okx":  # both ends excluded
            low, high = low + 1, high - 1
        step = 1000 * (HOUR_S if kind == "candles" else self.settled_s)
        times = [
            t for t in range(-(-low // step) * step, high + 1, step) if t >= self.first_s * 1000
        ]
        limit = HISTORIES[self.name].page[kind]
        if self.name in ("bybit", "okx"):
            times = times[::-1]
        times = times[:limit]
        if kind == "funding":
            return [(t, 1e-4 * math.cos(t / 1e8)) for t in times]
        return [(t, *bar(t // 1000)) for t in times if t // 1000 not in GAP]

    def spelled(self, kind, rows):
        """As the venue documents it."""
        if self.name == "binance":
            if kind == "candles":
                return [[t, *map(repr, v), t + 3_599_999, "1", 9, "1", "1", "0"] for t, *v in rows]
            return [{"symbol": "X", "fundingRate": repr(r), "fundingTime": t} for t, r in rows]
        if self.name == "bybit":
            listed = [[str(t), *map(repr, v), "1"] for t, *v in rows] if kind == "candles" else [
                {"symbol": "X", "fundingRate": repr(r), "fundingRateTimestamp": str(t)}
                for t, r in rows
            ]  # fmt: skip
            return {"retCode": 0, "retMsg": "OK", "result": {"category": "linear", "list": listed}}
        if self.name == "okx":
            data = [
                [str(t), *map(repr, v[:4]), "999", repr(v[4]), "1", "1"] for t, *v in rows
            ] if kind == "candles" else [
                {"instId": "X", "fundingRate": "9", "realizedRate": repr(r), "fundingTime": str(t)}
                for t, r in rows
            ]  # fmt: skip
            return {"code": "0", "msg": "", "data": data}
        if kind == "candles":
            return [
                {"t": t, "T": t + 3_599_999, "s": "X", "i": "1h", "n": 3}
                | dict(zip("ohlcv", map(repr, v), strict=True))
                for t, *v in rows
            ]
        return [{"coin": "X", "fundingRate": repr(r), "premium": "0", "time": t} for t, r in rows]


def taken(venue, folder, kind="candles", hours=130, waits=None, symbol="kPEPE", width="1h"):
    """Fetch from a venue on loopback, without waiting."""

    async def sleep(seconds):
        if waits is not None:
            waits.append(seconds)

    async def run():
        served = web.Application()
        served.router.add_route("*", "/{path:.*}", venue.answer)
        runner = web.AppRunner(served)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        try:
            async with aiohttp.ClientSession() as session:
                return await fetch(
                    *(history(venue.name), kind, symbol, width),
                    (FROM_S, FROM_S + hours * HOUR_S),
                    *(folder, session, f"http://127.0.0.1:{port}", sleep),
                )
        finally:
            await runner.cleanup()

    return asyncio.run(run())


@pytest.mark.parametrize("name", sorted(HISTORIES))
def test_each_venues_history_becomes_a_folder_that_reads(tmp_path, name):
    symbol = "PEPE" if name == "okx" else "kPEPE"
    venue = Venue(name, settled_h=1 if name == "hyperliquid" else 8)
    made = taken(venue, tmp_path, symbol=symbol)
    assert (made.rows, made.missing) == (127, 3)
    taken(venue, tmp_path, "funding", symbol=symbol)
    folder = DataFolder(tmp_path)
    candles = folder.candles(name, symbol)
    expected = [FROM_S + i * HOUR_S for i in range(130) if FROM_S + i * HOUR_S not in GAP]
    assert candles.start_s.tolist() == expected
    o, h, low, c, volume = zip(*map(bar, expected), strict=True)
    assert candles.open.tolist() == list(o)
    assert candles.high.tolist() == list(h)
    assert candles.low.tolist() == list(low)
    assert candles.close.tolist() == list(c)
    assert candles.notional_usd[5] == pytest.approx(volume[5] * (o[5] + h[5] + low[5] + c[5]) / 4)
    rates = folder.funding(name, symbol)
    assert rates.known_s.tolist() == list(range(FROM_S, FROM_S + 130 * HOUR_S, venue.settled_s))
    factor = 8 if name == "hyperliquid" else 1
    assert rates.value[3] == pytest.approx(factor * 1e-4 * math.cos(rates.known_s[3] * 1000 / 1e8))
    assert {q.get("symbol", q.get("instId", q.get("coin"))) for _, q in venue.asked} == {
        NAMES.get(name, symbol)
    }


@pytest.mark.parametrize("name", sorted(HISTORIES))
@pytest.mark.parametrize("kind", ["candles", "funding"])
def test_faults_of_every_sort_change_nothing(tmp_path, name, kind):
    faults = [429, "cut", "shuffled", 503, "torn", "twice", "contradicts", None, 418, "shuffled"]
    if kind == "candles":  # a page of funding that is cut short cannot be told
        faults[2:2] = ["short"]
    waits, hours = [], 1200
    clean = taken(Venue(name), tmp_path / "clean", kind, hours)
    made = taken(Venue(name, faults), tmp_path / "faulty", kind, hours, waits)
    assert pl.read_parquet(made.path).equals(pl.read_parquet(clean.path))
    assert made.rows == (1197 if kind == "candles" else 150)
    assert 7.0 in waits, "it waits as long as it is told to"


def test_a_fetch_that_was_cut_off_goes_on_behind_its_last_whole_page(tmp_path):
    clean_venue = Venue("okx")
    clean = taken(clean_venue, tmp_path / "clean", hours=500)
    with pytest.raises(Unavailable, match="status 500"):
        taken(Venue("okx", [None, None, *[500] * 99]), tmp_path / "cut", hours=500)
    pages = tmp_path / "cut" / "perp_ohlcv" / "okx_1h_kPEPE.pages"
    with pages.open("ab") as file:
        file.write(b"[1709971200, [[17099712")
    with pytest.raises(Unavailable):  # the torn line must not spoil the next one
        taken(Venue("okx", [None, None, *[500] * 99]), tmp_path / "cut", hours=500)
    again = Venue("okx")
    made = taken(again, tmp_path / "cut", hours=500)
    assert pl.read_parquet(made.path).equals(pl.read_parquet(clean.path))
    assert not pages.exists()
    assert len(again.asked) < len(clean_venue.asked) - 2, "what was kept is not asked for again"


def test_pages_of_another_fetch_and_a_finished_file_are_refused(tmp_path):
    with pytest.raises(Unavailable):
        taken(Venue("okx", [None, None, *[500] * 99]), tmp_path, hours=500)
    with pytest.raises(BadInput, match="pages of another fetch"):
        taken(Venue("okx"), tmp_path, hours=400)
    pages = tmp_path / "perp_ohlcv" / "okx_1h_kPEPE.pages"
    whole = pages.read_bytes()
    pages.write_bytes(whole.replace(b"]]]", b"\n", 1))
    with pytest.raises(BadInput, match="it is damaged"):
        taken(Venue("okx"), tmp_path, hours=500)
    pages.write_bytes(whole)
    taken(Venue("okx"), tmp_path, hours=500)
    with pytest.raises(BadInput, match=r"okx_1h_kPEPE\.parquet exists"):
        taken(Venue("okx"), tmp_path, hours=500)


def test_it_gives_up_within_limits_and_says_why(tmp_path):
    venue, waits = Venue("bybit", [503] * 99), []
    with pytest.raises(Unavailable, match=r"bybit: it answered with status 503\. Repeat later"):
        taken(venue, tmp_path, waits=waits)
    assert len(venue.asked) == TRIES
    assert max(waits) <= 60 < sum(waits)
    refused = Venue("bybit", [403] * 99)
    with pytest.raises(Unavailable, match="status 403"):
        taken(refused, tmp_path)
    assert len(refused.asked) == 1, "it will say the same again"
    contradicting = Venue("bybit", ["contradicts"] * 99)
    with pytest.raises(Unavailable, match="two different rows of one time"):
        taken(contradicting, tmp_path)


def test_a_refusal_inside_an_answer_and_a_market_without_history_are_said(tmp_path):
    class Refusing(Venue):
        def spelled(self, kind, rows):
            return {"retCode": 10001, "retMsg": "params error: symbol invalid", "result": {}}

    with pytest.raises(Unavailable, match="symbol invalid"):
        taken(Refusing("bybit"), tmp_path)
    with pytest.raises(BadInput, match="has no candles of 1000PEPEUSDT in that time"):
        taken(Venue("bybit", first_s=2**40), tmp_path)
    with pytest.raises(BadInput, match="Use one of: binance, bybit, hyperliquid, okx"):
        history("mtgox")
    with pytest.raises(BadInput, match="none that all venues serve"):
        taken(Venue("bybit"), tmp_path, width="7m")


def test_an_unclosed_bar_of_okx_is_not_taken():
    rows = [
        ["1709254800000", *"1234", "9", "5", "1", "0"],
        ["1709251200000", *"1234", "9", "5", "1", "1"],
    ]
    read = HISTORIES["okx"].read("candles", {"code": "0", "msg": "", "data": rows}, FROM_S, 2**40)
    assert read == {1709251200000: (1709251200000, 1.0, 2.0, 3.0, 4.0, 5.0)}
