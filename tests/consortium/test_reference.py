"""The reference model: a folder in, a verified, endorsed, judged artifact out; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import fedtrade.data
from consortium import reference
from consortium.reference import main, parameters_for, read_public
from fedtrade.artifact import load, sha256_of
from fedtrade.errors import BadInput, Fault
from fedtrade.learning import pretraining
from fedtrade.learning.folder import DataFolder
from fedtrade.learning.scorecard import day_s
from fedtrade.privacy import accounting
from fedtrade.privacy.accounting import Spend
from fedtrade.privacy.transcript import verify_file

CUT = "2025-08-15"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Packaged candles of two coins on two venues, in the layout of a data folder."""
    folder = tmp_path_factory.mktemp("pack")
    (folder / "perp_ohlcv").mkdir()
    packaged = Path(fedtrade.data.__file__).parent / "candles_1h.parquet"
    some = pl.read_parquet(packaged).filter(
        pl.col("venue").is_in(["binance", "bybit"]), pl.col("symbol").is_in(["BTC", "ETH"])
    )
    some.write_parquet(folder / "perp_ohlcv" / "cross_venue_1h.parquet")
    return folder


@pytest.fixture(scope="module")
def small() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("LEAST_HOURS", 2_000), ("MEMBERS", 6), ("ROUNDS", 3)):
            patch.setattr(reference, name, value)
        for name in ("TEACHER_ROUNDS", "STUDENT_ROUNDS"):
            patch.setattr(pretraining, name, 60)
        patch.setattr(pretraining, "TEACHERS", 1)
        patch.setattr(reference, "HIDDEN", (8,))
        patch.setattr(reference, "VALIDATION_DAYS", 20)
        yield


@pytest.fixture(scope="module")
def made(data, small, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("model")
    main(["--data", str(data), "--out", str(out), "--until", CUT, "--no-rivals"])
    return out


def test_leaves_a_model_that_its_transcript_proves(made):
    content = (made / "artifact.safetensors").read_bytes()
    proved = verify_file(made / "transcript.bin", sha256_of(content))
    assert proved.steps == 3
    assert proved.artifact == content


def test_manifest_says_what_it_is(made):
    content = (made / "artifact.safetensors").read_bytes()
    manifest = load(content, sha256_of(content)).manifest
    card = manifest.card
    assert card is not None
    assert 0 < manifest.epsilon_micro <= 4_001_000
    assert manifest.trained_until_s == day_s(CUT, 0)
    assert {f.what for f in card.figures} >= {"twin, QLIKE of variance", "HAR, QLIKE of variance"}
    assert len(card.data) == 2  # one market a coin
    assert all("to 2025-08-15" in line for line in card.data)
    assert any("simulated" in what for what in manifest.standins)
    shown = json.loads((made / "manifest.json").read_text())
    assert shown["sha256"] == sha256_of(content)
    assert shown["card"]["intended_use"] == card.intended_use


def test_metrics_are_of_hours_after_the_cut(made):
    card = json.loads((made / "metrics.json").read_text())
    assert card["data_from"].startswith(CUT)
    assert card["notes"] == [] or not any("not out of sample" in note for note in card["notes"])
    assert {"model", "har"} <= set(card["pooled"][0]["metrics"])


def test_private_files_are_for_their_owner_alone(made):
    books = sorted((made / "members").glob("*/positions.csv"))
    assert len(books) == 6
    assert {book.stat().st_mode & 0o077 for book in books} == {0}


def test_a_second_run_takes_up_the_base(made, data, small, monkeypatch):
    def never(*_):
        raise AssertionError("fitted again")

    base = (made / "base.safetensors").read_bytes()
    public = read_public(DataFolder(data), day_s(CUT, 0), lambda *_: None)
    monkeypatch.setattr(reference, "fit_base", never)
    again = reference._base(public, made, day_s(CUT, 0), reference.SEED, lambda *_: None)
    assert again == base
    with pytest.raises(AssertionError, match="fitted again"):  # of other settings it is no base
        reference._base(public, made, day_s(CUT, 0), 1, lambda *_: None)


def test_nothing_after_the_cut_is_read(data, small):
    cut_s = day_s(CUT, 0)
    public = read_public(DataFolder(data), cut_s, lambda *_: None)
    assert len({symbol for _, symbol in public.tables}) == len(public.tables)
    assert all(int(c.end_s[-1]) <= cut_s for c in public.candles.values())
    assert all(int(t.end_s[-1]) < cut_s for t in public.tables.values())


def test_members_differ_in_venue_and_style(made):
    books = [pl.read_csv(path) for path in sorted((made / "members").glob("*/positions.csv"))]
    venues = [set(book["venue"]) for book in books]
    assert venues[0] == {"binance"}
    assert venues[-1] == {"bybit"}
    assert all(len(of_one) == 1 for of_one in venues)
    leverage = [float(book["leverage"].median()) for book in books]
    assert max(leverage) > 3 * min(leverage)  # a momentum trader's and a hedger's


def test_noise_is_the_least_that_keeps_the_promise():
    p = parameters_for(6_000, 4.0)
    z = p.effective_noise_multiplier(6_000)
    assert accounting.epsilon_rdp([Spend(p.sampling_rate, z, p.rounds)], p.delta) <= 4.0
    less = Spend(p.sampling_rate, z - 2e-3, p.rounds)
    assert accounting.epsilon_rdp([less], p.delta) > 4.0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--until", "2019-01-01"], "no market has"),
        (["--until", "yesterday"], "not a date"),
        (["--epsilon", "50"], "out of range"),
    ],
)
def test_bad_input_is_one_sentence(data, tmp_path, arguments, named):
    with pytest.raises(BadInput, match=named):
        main(["--data", str(data), "--out", str(tmp_path), *arguments])


def test_no_folder(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")])


def test_a_folder_of_somebody_elses_members_is_left_alone(data, tmp_path):
    (tmp_path / "members").mkdir()
    (tmp_path / "members" / "keys").write_text("mine")
    with pytest.raises(BadInput, match="Choose another --out"):
        main(["--data", str(data), "--out", str(tmp_path)])
    assert (tmp_path / "members" / "keys").read_text() == "mine"


def test_a_model_that_somebody_does_not_sign_is_not_left_behind(data, small, tmp_path, monkeypatch):
    asked = reference.endorsements

    def one_less(*question):
        signed = dict(asked(*question))
        signed.popitem()
        return signed

    monkeypatch.setattr(reference, "endorsements", one_less)
    with pytest.raises(Fault, match="1 of 6 members did not sign"):
        main(["--data", str(data), "--out", str(tmp_path), "--until", CUT, "--no-rivals"])
    assert not (tmp_path / "artifact.safetensors").exists()
