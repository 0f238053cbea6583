"""A user's own exports: many dialects, one table; bad rows by number."""

import polars as pl
import pytest

from fedtrade.data.exports import read_export, take_export
from fedtrade.errors import BadInput
from fedtrade.learning.folder import DataFolder

ROW = "{},10,12,9,11,5\n"


def csv(tmp_path, times, header="timestamp,open,high,low,close,volume\n"):
    path = tmp_path / "export.csv"
    path.write_text(header + "".join(ROW.format(t) for t in times))
    return path


@pytest.mark.parametrize(
    "times",
    [
        ["2024-03-01T00:00:00", "2024-03-01T01:00:00"],
        ["2024-03-01 00:00:00", "2024-03-01 01:00:00"],
        ["2024-03-01T00:00:00Z", "2024-03-01T01:00:00Z"],
        [1709251200, 1709254800],
        [1709251200000, 1709254800000],
        [1709251200000000, 1709254800000000],
        [1709251200000000000, 1709254800000000000],
    ],
)
def test_every_way_to_write_a_time_is_the_same_time(tmp_path, times):
    take_export(csv(tmp_path, times), tmp_path / "data", "Kraken", "ETHUSDT")
    candles = DataFolder(tmp_path / "data").candles("kraken", "ETH")
    assert candles.start_s.tolist() == [1709251200, 1709254800]
    assert candles.notional_usd.tolist() == [52.5, 52.5]


def test_the_order_of_rows_and_the_case_of_names_do_not_matter(tmp_path):
    path = tmp_path / "export.csv"
    path.write_text(
        "Quote Asset Volume;CLOSE;Low;High;Open;Open Time;Ignored\n"
        "70;11;9;12;10;1709254800;x\n60;11;9;12;10;1709251200;y\n"
    )
    frame = read_export(path, "ETH")
    assert frame.columns == ["ts", "symbol", "open", "high", "low", "close", "volume_usd"]
    assert frame["volume_usd"].to_list() == [60.0, 70.0]


def test_bad_rows_are_named_by_number_and_nothing_is_taken(tmp_path):
    path = tmp_path / "export.csv"
    path.write_text(
        "time,open,high,low,close,volume\n"
        "1709251200,10,12,9,11,5\n"
        "1709254800,13,12,9,11,5\n"
        "1709258400,10,12,9,8,5\n"
        "1709262000,10,12,9,11,-5\n"
        "1709265600,10,oops,9,11,5\n"
        ",10,12,9,11,5\n"
        "1709251200,10,12,9,11,5\n"
    )
    with pytest.raises(BadInput) as refused:
        take_export(path, tmp_path / "data", "kraken", "ETH")
    text = str(refused.value)
    for row, problem in [
        (1, "another row has the same time"),
        (2, "open must lie"),
        (3, "close must lie"),
        (4, "a volume is negative"),
        (5, "a price or volume is no number"),
        (6, "its time is no ISO-8601"),
        (7, "another row has the same time"),
    ]:
        assert f"row {row}: {problem}" in text
    assert not (tmp_path / "data").exists()


def test_what_is_missing_or_odd_is_one_sentence(tmp_path):
    good = csv(tmp_path, [1709251200, 1709254800])
    with pytest.raises(BadInput, match="no column for ts, volume or volume_usd"):
        read_export(csv(tmp_path, [1], "x,open,high,low,close,y\n"), "ETH")
    with pytest.raises(BadInput, match="7 s apart"):
        take_export(csv(tmp_path, [0, 7, 14]), tmp_path / "data", "kraken", "ETH")
    with pytest.raises(BadInput, match="letters and digits only"):
        take_export(good, tmp_path / "data", "../etc", "ETH")
    sheet = tmp_path / "export.xlsx"
    sheet.write_text("x")
    with pytest.raises(BadInput, match=r"must end in \.csv or \.parquet"):
        read_export(sheet, "ETH")
    take_export(csv(tmp_path, [1709251200, 1709254800]), tmp_path / "data", "kraken", "ETH")
    with pytest.raises(BadInput, match=r"kraken_1h_ETH\.parquet exists"):
        take_export(good, tmp_path / "data", "kraken", "ETH")


def test_parquet_with_real_times_is_taken(tmp_path):
    frame = read_export(csv(tmp_path, [1709251200, 1709254800]), "ETH")
    path = tmp_path / "export.parquet"
    frame.drop("symbol").write_parquet(path)
    assert read_export(path, "ETH").equals(frame)
    assert isinstance(frame["ts"].dtype, pl.Datetime)
