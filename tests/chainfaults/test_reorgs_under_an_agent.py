"""Blocks are replaced under an agent, 1 to 12 deep: each action is mined once, and its end is true.

`FEDTRADE_REORG_STEPS=80` makes the campaign longer.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any, Final

import pytest
from trader import Trader

pytestmark = [pytest.mark.chain, pytest.mark.timeout(1800)]

STEPS: Final = int(os.environ.get("FEDTRADE_REORG_STEPS", "8"))
DEEP: Final = 13


class Undoing:
    """The newest blocks are replaced by empty ones, as soon as there are so many, and again later."""

    def __init__(self, chain: Any, depth: int) -> None:
        self.chain, self.depth = chain, depth
        for _ in range(16):
            chain.anvil.mine()  # a chain that was loaded has no states of before
        self.before = self.count = 0

    def __call__(self, dice: random.Random, more: bool) -> None:
        self.before += 1
        if more and self.before > self.depth + 1 and dice.random() < 0.8:
            self.before = 0
            self.count += 1
            self.chain.anvil.reorg(self.depth)


@pytest.mark.parametrize(
    ("depth", "three"),
    [*((depth, False) for depth in range(1, DEEP)), (1, True), (5, True), (12, True)],
)
def test_every_action_is_mined_once(
    chain: Any, seen_by_three: Any, tmp_path: Path, depth: int, three: bool
) -> None:
    undoing = Undoing(chain, depth)
    seen = seen_by_three if three else chain.deployment
    trader = Trader(chain, seen, tmp_path, undoing, DEEP)
    found = asyncio.run(trader.run(STEPS + 2 * depth))
    assert undoing.count > 0
    assert found.unsafe == []
    assert (found.halts, found.unfinished) == (0, 0)
    assert [s.last for s in trader.standings if s.last] == []


def test_control_a_first_receipt_is_not_the_end(chain: Any, tmp_path: Path) -> None:
    undoing = Undoing(chain, 3)
    found = asyncio.run(Trader(chain, chain.deployment, tmp_path, undoing, 1).run(20))
    assert undoing.count > 0
    assert found.unsafe
