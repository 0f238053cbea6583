"""No member signs a model that has seen what it forecasts, whoever asks; an honest one is signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clients.judgement import SeesAhead, pass_leak_gate
from clients.keys import MemberKeys
from clients.positions import PrivatePositions
from consortium.rehearsal import SMALL, Board, Consortium, Party, make_terms
from fedtrade.artifact import load, sha256_of
from fedtrade.learning import features, windows
from fedtrade.learning.baseline import base_artifact
from fedtrade.learning.features import PUBLIC_FEATURES
from fedtrade.learning.tables import HOUR_S, TRAIN_UNTIL_S, Candles, candles
from fedtrade.protocol import Endorsement, encode
from fedtrade.simulation.positions import SimulatedMember, simulate_positions
from server.release import endorsements

MARKETS = (("binance", "BTC"), ("binance", "ETH"), ("bybit", "HYPE"))
KNOWN = {market: candles(*market) for market in MARKETS}
ETH = ("binance", "ETH")
WHO = SimulatedMember("oak", "binance", "directional", ("ETH",))
BOOK = simulate_positions(WHO, {ETH: KNOWN[ETH]}, seed=1)
THREE = SMALL.model_copy(update={"helpers": 3, "corrupt": 1, "cohort_min": 4, "rounds": 1})
BASE = base_artifact((4,), seed=1)
SEATS = range(1, 5)

Floats = np.ndarray


def next_hour(known: Candles, end_s: np.ndarray) -> Floats:
    """Log variance of the hour after each of `end_s`, from the candles themselves."""
    log_v = np.log(features.parkinson_variance(known.high, known.low) + 1e-10)
    return log_v[np.minimum(np.searchsorted(known.start_s, end_s), len(log_v) - 1)]


def peek_in_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The features' own code reads one bar too far."""
    honest = features.public_rows

    def peeking(known: Candles, with_context: bool = True) -> tuple[np.ndarray, Floats]:
        end_s, rows = honest(known, with_context)
        rows[:, PUBLIC_FEATURES.index("return_1h")] = next_hour(known, end_s)
        return end_s, rows

    monkeypatch.setattr(windows, "public_rows", peeking)


def peek_in_a_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """A series beside the candles is an hour ahead, for a coin that these members do not hold."""
    honest, own = features.funding_spread, KNOWN["bybit", "HYPE"]

    def peeking(symbol: str, at_s: np.ndarray) -> Floats:
        if symbol != "HYPE":
            return honest(symbol, at_s)
        ahead = next_hour(own, at_s)
        noise = np.random.default_rng(0).standard_normal(len(ahead))
        return np.sinh((ahead - ahead.mean()) / ahead.std() + noise)

    monkeypatch.setattr(features, "funding_spread", peeking)


def released(folder: Path) -> tuple[Consortium, bytes]:
    """Members with positions in ETH and candles of three markets; a release; what they are asked."""
    held = PrivatePositions.of(BOOK, KNOWN, TRAIN_UNTIL_S)
    parties = [
        Party(seat, str(seat), MemberKeys.ephemeral(), held, folder / str(seat)) for seat in SEATS
    ]
    keys = MemberKeys.ephemeral()
    terms = make_terms(parties, THREE, BASE, keys.address)
    consortium = Consortium(parties, terms, BASE, Board(), keys.sign_digest, folder / "shared")
    consortium.release.run_round(consortium.direct())
    asked = Endorsement(
        transcript=consortium.release.finish().transcript,
        version=1,
        uri="",
        registries={terms.chain_id: terms.registry},
    )
    return consortium, encode(asked)


def test_an_honest_release_is_signed_by_every_member(tmp_path: Path) -> None:
    consortium, asked = released(tmp_path)
    assert len(endorsements(consortium.direct(), consortium.terms, asked)) == len(SEATS)
    assert [len(m.budget.judgements) for m in consortium.members()] == [1] * len(SEATS)
    consortium.close()


@pytest.mark.parametrize(
    ("plant", "check", "named"),
    [
        (peek_in_code, "future", "return_1h"),
        (peek_in_a_series, "column", "funding_spread"),
    ],
)
def test_a_planted_leak_is_signed_by_nobody_and_costs_nobody_privacy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    check: str,
    named: str,
) -> None:
    plant(monkeypatch)
    consortium, asked = released(tmp_path)
    for desk in consortium.desks.values():
        with pytest.raises(SeesAhead, match="not signed") as refused:
            desk.act("endorse", asked)
        assert any(f.check == check and named in f.detail for f in refused.value.failed)
    assert [m.budget.judgements for m in consortium.members()] == [()] * len(SEATS)
    consortium.close()


def test_the_check_of_columns_alone_sees_the_peeking_code_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peek_in_code(monkeypatch)
    with pytest.raises(SeesAhead) as refused:
        pass_leak_gate(KNOWN, load(BASE, sha256_of(BASE)))
    assert {f.check for f in refused.value.failed} == {"future", "column"}
    subjects = {f.subject.split(" ")[0] for f in refused.value.failed}
    assert subjects == {"/".join(market) for market in MARKETS}


def test_the_verdict_is_over_all_public_markets_up_to_now() -> None:
    """So it tells nothing of what is held, and later hours decide nothing."""
    held = PrivatePositions.of(BOOK, KNOWN, TRAIN_UNTIL_S)
    assert set(held.candles) == set(MARKETS)
    for market, known in held.candles.items():
        assert TRAIN_UNTIL_S - HOUR_S < known.end_s[-1] <= TRAIN_UNTIL_S, market
        assert len(known.start_s) > 1_000
