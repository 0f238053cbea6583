"""A member's positions can be counted and sampled, and nothing else leaves the object."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from clients.positions import PrivatePositions
from fedtrade.errors import BadInput
from fedtrade.learning.tables import TRAIN_UNTIL_S, candles
from fedtrade.simulation.positions import SimulatedMember, csv_text, simulate_positions

MARKET = ("bybit", "ETH")
TABLES = {MARKET: candles(*MARKET)}
MEMBER = SimulatedMember("oak", "bybit", "market_maker", ("ETH",))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("member") / "positions.csv"
    file.write_text(csv_text(simulate_positions(MEMBER, TABLES, 3)))
    return file


@pytest.fixture(scope="module")
def private(path: Path) -> PrivatePositions:
    return PrivatePositions.load(path, TABLES, TRAIN_UNTIL_S)


def test_a_file_becomes_batches(private: PrivatePositions, path: Path) -> None:
    assert private.count == len(path.read_text().splitlines()) - 1
    include = np.zeros(private.count, np.bool_)
    include[[3, 5, 8]] = True
    batch = private.sample(include)
    assert batch.count == 3
    assert np.array_equal(batch.features, private.everything().features[[3, 5, 8]])


def test_nothing_but_the_count_shows(private: PrivatePositions) -> None:
    assert repr(private) == str(private) == f"PrivatePositions({private.count} positions)"
    for copier in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            copier(private)  # type: ignore[operator]
    assert not hasattr(private, "__dict__")


@pytest.mark.parametrize("include", [np.ones(3, np.bool_), np.ones(1, np.float64)])
def test_a_sample_needs_a_flag_for_each(private: PrivatePositions, include: np.ndarray) -> None:
    with pytest.raises(ValueError, match="booleans"):
        private.sample(include)


def test_a_market_without_candles_is_refused(path: Path) -> None:
    with pytest.raises(BadInput, match="not a known market"):
        PrivatePositions.load(path, {("bybit", "BTC"): candles("bybit", "BTC")}, TRAIN_UNTIL_S)


def test_positions_that_no_candle_covers_are_refused(path: Path) -> None:
    early = {MARKET: TABLES[MARKET].between(0, int(TABLES[MARKET].end_s[180]))}
    lines = path.read_text().splitlines()
    late = path.with_name("late.csv")
    late.write_text("\n".join([lines[0], *lines[-5:]]) + "\n")
    with pytest.raises(BadInput, match="168 h of candles"):
        PrivatePositions.load(late, early, TRAIN_UNTIL_S)


def test_nothing_after_now_is_used(path: Path) -> None:
    now_s = int(TABLES[MARKET].end_s[1000])
    lines = path.read_text().splitlines()
    known = [line for line in lines[1:] if line.split(",")[5] and line.split(",")[5] < "2025-04-16"]
    early = path.with_name("early.csv")
    early.write_text("\n".join([lines[0], *known]) + "\n")
    cut = {MARKET: TABLES[MARKET].between(0, now_s)}
    with_future = PrivatePositions.load(early, TABLES, now_s).everything()
    without = PrivatePositions.load(early, cut, now_s).everything()
    assert np.array_equal(with_future.features, without.features)
    assert np.array_equal(with_future.targets, without.targets)
    assert np.array_equal(with_future.weights, without.weights)
