"""The quote benchmark: its rows, and that a difference of one unit fails it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fedtrade.errors import Fault
from fedtrade.market.ladder import Ladder

pytestmark = pytest.mark.chain

# By path: an installed package also calls itself `benchmarks`.
FILE = Path(__file__).parents[2] / "benchmarks" / "quote.py"


@pytest.fixture
def quote(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("quote_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for name, value in (("POSITIONS", 4), ("QUESTIONS", 24), ("ASKED_OF_QUOTER", 12)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "PASSES", 1)
    return module


def test_rows(quote: ModuleType) -> None:
    rows = quote.rows()
    assert [row["name"] for row in rows][:1] == ["v3_quote"]
    for row in rows:
        assert set(row) == {"name", "counterpart", "ours", "theirs", "unit", "ratio"}
        assert row["unit"] == "/s"
        assert row["ratio"] == row["ours"] / row["theirs"] > 0


def test_a_unit_of_difference_fails(quote: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Ladder.exact_input

    def off_by_one(self: Ladder, *question: int):  # type: ignore[no-untyped-def]
        result = exact(self, *question)
        return result._replace(amount0=result.amount0 - 1, amount1=result.amount1 - 1)

    monkeypatch.setattr(Ladder, "exact_input", off_by_one)
    with pytest.raises(quote.Mismatch) as caught:
        quote.rows()
    assert isinstance(caught.value, Fault)
    assert caught.value.ours == caught.value.theirs + 1
