"""The importer takes a file whole or refuses it whole, and says which rows are at fault."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.errors import BadInput
from fedtrade.learning import positions as module
from fedtrade.learning.positions import COLUMNS, STILL_OPEN, Positions, read_positions

NOW_S = 1_749_686_400
GOOD = {
    "position_id": "p1",
    "venue": "binance",
    "symbol": "ETH",
    "side": "long",
    "opened_at": "2025-04-01T10:30:00Z",
    "closed_at": "2025-04-02T08:00:00Z",
    "entry_price": "1850.5",
    "quantity_base": "2.25",
    "leverage": "3",
}


def write(path: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> Path:
    lines = [",".join(columns), *(",".join(row[c] for c in columns) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def rows(*changes: dict[str, str]) -> list[dict[str, str]]:
    return [{**GOOD, "position_id": f"p{i}", **change} for i, change in enumerate(changes, 1)]


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_positions(path, NOW_S)
    assert caught.value.where == path.name
    assert caught.value.remedy
    return caught.value.problem


def test_a_good_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path / "book.csv",
        rows(
            {},
            {"closed_at": "", "side": "short"},
            {"opened_at": "1743503400", "closed_at": "2025-04-02T10:00:00+02:00"},
            {"opened_at": "2025-04-01 10:30:00"},
        ),
    )
    book = read_positions(path, NOW_S)
    opened = int(datetime(2025, 4, 1, 10, 30, tzinfo=UTC).timestamp())
    closed = int(datetime(2025, 4, 2, 8, tzinfo=UTC).timestamp())
    assert len(book) == 4
    assert book.side.tolist() == [1, -1, 1, 1]
    assert book.opened_s.tolist() == [opened] * 4
    assert book.closed_s.tolist() == [closed, STILL_OPEN, closed, closed]
    assert book.entry_price.tolist() == [1850.5] * 4
    assert book.leverage.tolist() == [3.0] * 4


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path / "book.csv", rows({}), tuple(reversed(COLUMNS)))
    assert read_positions(path, NOW_S).symbol == ("ETH",)


def test_parquet_with_its_own_types(tmp_path: Path) -> None:
    path = tmp_path / "book.parquet"
    pl.DataFrame(
        {
            **{n: [GOOD[n]] * 2 for n in ("venue", "symbol", "side")},
            "position_id": ["a", "b"],
            "opened_at": [datetime(2025, 4, 1, 10, 30), datetime(2025, 4, 1, 11)],
            "closed_at": [None, datetime(2025, 4, 2, 8)],
            "entry_price": [1850.5, 1],
            "quantity_base": [1, 2],
            "leverage": [1.5, 1000.0],
        }
    ).write_parquet(path)
    book = read_positions(path, NOW_S)
    assert book.opened_s[0] == int(datetime(2025, 4, 1, 10, 30, tzinfo=UTC).timestamp())
    assert book.closed_s[0] == STILL_OPEN
    assert book.quantity_base.tolist() == [1.0, 2.0]


def test_unknown_and_missing_columns(tmp_path: Path) -> None:
    extra = tmp_path / "extra.csv"
    extra.write_text(",".join([*COLUMNS, "note"]) + "\n" + ",".join([*GOOD.values(), "x"]) + "\n")
    assert refused(extra) == "unknown columns note"
    fewer = write(tmp_path / "fewer.csv", rows({}), tuple(c for c in COLUMNS if c != "leverage"))
    assert refused(fewer) == "missing columns leverage"
    twice = tmp_path / "twice.csv"
    twice.write_text(",".join([*COLUMNS, "side"]) + "\n" + ",".join([*GOOD.values(), "x"]) + "\n")
    assert "unknown columns" in refused(twice)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"quantity_base": "-2"}, "quantity_base must be a positive number"),
        ({"quantity_base": "0"}, "quantity_base must be a positive number"),
        ({"quantity_base": "NaN"}, "quantity_base must be a positive number"),
        ({"quantity_base": ""}, "quantity_base must be a positive number"),
        ({"entry_price": "inf"}, "entry_price must be a positive number"),
        ({"entry_price": "12,5".replace(",", ";")}, "entry_price must be a positive number"),
        ({"leverage": "0.5"}, "leverage must be from 1 to 1000"),
        ({"leverage": "1001"}, "leverage must be from 1 to 1000"),
        ({"leverage": "ten"}, "leverage must be a positive number"),
        ({"side": "buy"}, "side must be long or short"),
        ({"venue": "mtgox"}, "venue and symbol are not a known market"),
        ({"symbol": "DOGE"}, "venue and symbol are not a known market"),
        ({"venue": "lighter", "symbol": "ETHX"}, "venue and symbol are not a known market"),
        ({"opened_at": "yesterday"}, "opened_at is not a time"),
        ({"opened_at": ""}, "opened_at is not a time"),
        ({"opened_at": "-5"}, "opened_at is not a time"),
        ({"opened_at": "nan"}, "opened_at is not a time"),
        ({"opened_at": "1743503400000"}, "opened_at is not a time"),
        ({"closed_at": "later"}, "closed_at is not a time"),
        ({"opened_at": "2025-04-03T00:00:00Z"}, "closed_at is before opened_at"),
        ({"closed_at": "2025-07-01T00:00:00Z"}, "opened_at or closed_at lies in the future"),
        (
            {"opened_at": "2025-07-01T00:00:00Z", "closed_at": ""},
            "opened_at or closed_at lies in the future",
        ),
        ({"position_id": "p1"}, "position_id repeats that of row 1"),
        ({"position_id": ""}, "position_id must have 1 to 64 printable characters"),
        ({"position_id": "x" * 65}, "position_id must have 1 to 64 printable characters"),
    ],
)
def test_each_fault_names_its_row(tmp_path: Path, change: dict[str, str], problem: str) -> None:
    path = write(tmp_path / "book.csv", rows({}, change, {}))
    assert refused(path) == f"row 2: {problem}"


def test_all_bad_rows_are_found_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "book.csv", rows({"side": "x"}, {}, {"quantity_base": "-1"}))
    problem = refused(path)
    assert problem.startswith("row 1: side must be long or short; row 3: quantity_base")
    assert "row 2" not in problem


def test_twenty_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "book.csv", rows(*({"quantity_base": "-1"} for _ in range(33))))
    problem = refused(path)
    assert problem.count("row ") == 20
    assert "row 20:" in problem
    assert problem.endswith("; and 13 more bad rows")


def test_no_value_of_a_position_is_repeated_in_the_error(tmp_path: Path) -> None:
    """The sentence may end up in a log: it names rows and rules only."""
    secret = {"position_id": "p1", "quantity_base": "-918273", "entry_price": "bad645372"}
    path = write(tmp_path / "book.csv", rows({}, secret, {**secret, "opened_at": "when555"}))
    problem = refused(path)
    assert not [value for value in ("918273", "645372", "555", "p1") if value in problem]


@pytest.mark.parametrize("name", ["book.csv", "book.parquet"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "the file is empty"), (b"\x00\xff\xfe" * 40, ""), (b"PAR1PAR1PAR1", "")],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert problem in refused(path)


def test_a_parquet_file_with_a_torn_middle(tmp_path: Path) -> None:
    path = tmp_path / "book.parquet"
    pl.DataFrame({name: [GOOD[name]] * 50 for name in COLUMNS}).write_parquet(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : -4] = bytes(len(data) - 4 - len(data) // 2)
    path.write_bytes(data)
    assert "cannot be read" in refused(path)


def test_other_ways_of_not_being_a_file(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.csv")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert "cannot be read" in refused(folder)
    other = tmp_path / "book.xlsx"
    other.write_text("x")
    assert "must end in .csv or .parquet" in refused(other)
    ragged = write(tmp_path / "ragged.csv", rows({}))
    ragged.write_text(ragged.read_text() + "a,b,c,d,e,f,g,h,i,j,k,l\n")
    assert "cannot be read" in refused(ragged)
    header = tmp_path / "header.csv"
    header.write_text(",".join(COLUMNS) + "\n")
    assert refused(header) == "it holds no positions"


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "book.csv", rows({}, {}, {}))
    monkeypatch.setattr(module, "MAX_ROWS", 2)
    assert "more than 2 rows" in refused(path)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    assert "larger than 10 bytes" in refused(path)


def test_markets_may_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "book.csv", rows({"venue": "uniswap", "symbol": "WETH"}))
    assert len(read_positions(path, NOW_S, {("uniswap", "WETH")})) == 1
    assert "known market" in refused(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    return lambda: folder / "book.csv"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=9, max_size=9),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_the_cells_hold_it_is_positions_or_bad_input(
    scratch: Callable[[], Path], cells: list[list[str]]
) -> None:
    path = scratch()
    text = "\n".join(",".join(row) for row in cells)
    path.write_text(",".join(COLUMNS) + "\n" + text, encoding="utf-8")
    with contextlib.suppress(BadInput):
        assert isinstance(read_positions(path, NOW_S), Positions)


def test_positions_show_only_their_number(tmp_path: Path) -> None:
    book = read_positions(write(tmp_path / "book.csv", rows({}, {})), NOW_S)
    assert repr(book) == "Positions(2 positions)"
