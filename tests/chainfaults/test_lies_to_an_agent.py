"""One of three nodes lies to an agent, in twelve ways: nothing unsafe is signed, and it goes on.

`FEDTRADE_LIE_STEPS=200` runs the campaign at full length. A node that was left rests for 50 ms here
and not for a minute, so that it lies in nearly every step. The failing control is the same agent with
the lying node alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from lying import LIES, Proxy
from trader import Campaign, Trader

from clients import nodes as lines
from fedtrade.chain import agreement

pytestmark = [pytest.mark.chain, pytest.mark.timeout(3600)]

STEPS: Final = int(os.environ.get("FEDTRADE_LIE_STEPS", "6"))


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "REST_S", 0.05)
    monkeypatch.setattr(agreement, "REST_MAX_S", 0.05)
    monkeypatch.setattr(lines, "LOOK_S", 0.05)


def telling(liar: Proxy, lie: str) -> Callable[[random.Random, bool], None]:
    """Lies in four steps of five, from the first connection on; in the end it is honest."""
    liar.lie = lie

    def between(dice: random.Random, more: bool) -> None:
        liar.lie = lie if more and dice.random() < 0.8 else None

    return between


def tell(found: Campaign, lie: str, who: str, told: int) -> None:
    """A line for whoever runs the campaign with `-s`."""
    print(json.dumps({
        "lie": lie, "nodes": who, "told": told, "steps": found.steps, "unsafe": len(found.unsafe),
        "halts": found.halts, "unfinished": found.unfinished,
        "slowest_s": round(found.slowest_s, 3), "over_s": round(found.over_s, 3),
        "reasons": sorted(found.reasons)[:4], "first": found.unsafe[:1],
    }, ensure_ascii=False))  # fmt: skip


@pytest.mark.parametrize("lie", [*LIES, "corrupt"])
def test_one_lying_node_of_three_costs_nothing(
    chain: Any, nodes: list[Proxy], seen_by_three: Any, tmp_path: Path, lie: str
) -> None:
    trader = Trader(chain, seen_by_three, tmp_path, telling(nodes[0], lie))
    found = asyncio.run(trader.run(STEPS))
    tell(found, lie, "3", nodes[0].told)
    assert found.steps == STEPS
    assert nodes[0].told > 0
    assert found.unsafe == []
    assert (found.halts, found.unfinished) == (0, 0)
    others = [s for s in trader.standings[1:] if s.last]
    assert others == []  # no honest node was named


@pytest.mark.parametrize("lie", ["fake receipt", "nonce", "huge gas"])
def test_control_a_lying_node_that_is_alone_is_believed(
    chain: Any, nodes: list[Proxy], tmp_path: Path, lie: str
) -> None:
    alone = chain.deployment.model_copy(update={"ws_url": nodes[0].ws_url})
    trader = Trader(chain, alone, tmp_path, telling(nodes[0], lie))
    found = asyncio.run(trader.run(max(STEPS, 12)))
    tell(found, lie, "1", nodes[0].told)
    assert found.unsafe
