"""Federated against solo and pooled: nothing after the cut is trained on, and the tables' shares.

In processes of their own: the test's own path may find the `benchmarks` that Opacus installs.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


FOLDER = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import polars as pl
import benchmarks.members as members
from fedtrade.learning import baseline, tables
from fedtrade.artifact import NetworkShape
from fedtrade.simulation.positions import SimulatedMember

CUT_S = 1_749_686_400
members.SCENES = {"test": ("2025-06-12", "2025-07-01")}
members.SOLO_RATES, members.SOLO_ROUNDS = (1e-2,), (2, 4)
WHO = SimulatedMember("ash", "bybit", "momentum", ("ETH", "SOL"))

def folder(path, after):
    frames = []
    for venue, symbol in (("bybit", "ETH"), ("bybit", "SOL")):
        c = tables.candles(venue, symbol)
        factor = np.where(c.start_s >= CUT_S, after, 1.0)
        mean = (c.open + c.high + c.low + c.close) / 4.0
        frames.append(pl.DataFrame({
            "ts": pl.Series(c.start_s * 1000).cast(pl.Datetime("ms", "UTC")),
            "venue": venue, "symbol": symbol, "open": c.open, "high": c.high * factor,
            "low": c.low, "close": c.close, "volume": c.notional_usd / mean * factor,
        }))
    (path / "perp_ohlcv").mkdir(parents=True)
    pl.concat(frames).write_parquet(path / "perp_ohlcv" / "cross_venue_1h.parquet")
    return path

def fitted(path):
    scene = members.open_scene(path, "test", [WHO])
    book = members.book_of(WHO, scene, 3)
    fixed = baseline.fixed_arrays(tuple(scene.before.values()))
    shape = NetworkShape(inputs=len(members.FEATURES), hidden=(4,), outputs=2)
    start = baseline.initial_arrays(shape, 1, fixed)
    model, chosen = members.solo(start, book, scene, 1)
    return scene, book, start, model, chosen
"""


def test_nothing_after_the_cut_is_trained_on(tmp_path):
    code = """
out = Path(sys.argv[1])
scene, book, start, model, chosen = fitted(folder(out / "as it was", 1.0))
other, _, _, again, same = fitted(folder(out / "wilder", 1.01))
assert chosen == same and chosen[1] > 0, (chosen, same)
for name in model:
    assert np.array_equal(model[name], again[name]), name
assert any((model[name] != start[name]).any() for name in model)
told, wild = (members.Judge(s).figures(model) for s in (scene, other))
assert told["qlike"] != wild["qlike"]
assert all(t.end_s.max() + 3600 <= CUT_S <= scene.late[m].end_s.min()
           for m, t in scene.before.items())
assert 0 < book.early.count < book.whole.count
few = members._few(book, 30, np.random.Generator(np.random.PCG64(1)))
assert (few.whole.count, few.early.count) == (30, 24)
assert members.thinned(book, 4).count == -(-book.whole.count // 4)
"""
    run(FOLDER + code, str(tmp_path))


def test_the_shares_of_the_table():
    code = """
from benchmarks.members import TOLD, fewer, newcomer_gains, summary
def figures(*losses):
    return {"qlike": list(losses), "frozen": list(losses), "r2": [1 - x for x in losses]}
told = f"federated, ε = {TOLD:g}"
seed = {
    "markets": ["a/X", "b/X", "b/Y"],
    "members": {"one": ["a", "hedger", "X"], "two": ["b", "hedger", "X", "Y"]},
    "positions": {"one": 50, "two": 50},
    "models": {"HAR": figures(0.6, 0.6, 0.6), told: figures(0.3, 0.5, 0.4),
               "twin": figures(0.3, 0.3, 0.3), "pooled": figures(0.2, 0.2, 0.2)},
    "solo": {"one": figures(0.31, 0.9, 0.9), "two": figures(0.9, 0.4, 0.4)},
    "with own head": {"one": figures(0.3, 0.5, 0.4), "two": figures(0.9, 0.3, 0.3)},
    "fewer": {"25": {"federated": figures(0.6, 0.6, 0.6), "twin": figures(0.4, 0.4, 0.4)}},
    "newcomers": {"new": {"federated": {"qlike": 0.4, "frozen": 0.4, "r2": 0.5},
                          "solo": {"30": {"qlike": 0.5, "frozen": 0.5, "r2": 0.6}}}},
}
found = summary(seed)
row = found[told]
for kind in ("qlike", "frozen", "r2"):
    assert row[f"{kind} better, own"] == 0.5, row  # two's own model is better on its own markets
    assert row[f"{kind} better, all"] == 1.0
    assert abs(row[f"{kind} kept of pooled, from HAR"] - 0.5) < 1e-9
    assert abs(row[f"{kind} kept of twin, from HAR"] - 2 / 3) < 1e-9
    assert found[f"{told}, with own head"][f"{kind} better, own"] == 1.0
solo = (0.31 + 0.9 + 0.9 + 0.9 + 0.4 + 0.4) / 6
assert abs(row["qlike kept of pooled, from solo"] - (solo - 0.4) / (solo - 0.2)) < 1e-9
assert abs(row["r2 kept of pooled, from solo"] - (solo - 0.4) / (solo - 0.2)) < 1e-9
gains = newcomer_gains(seed)
assert abs(gains["30"]["gain"] - 0.1) < 1e-9 and gains["30"]["share"] == 1.0
assert abs(gains["members"]["gain"] - ((0.31 - 0.3) + (0.4 - 0.45)) / 2) < 1e-9
assert newcomer_gains(seed, "r2")["30"]["share"] == 0.0
curve = fewer(seed)
assert curve["1/4"]["federated"] == 0 and abs(curve["1/1"]["federated"] - 0.5) < 1e-9
"""
    run(code)
