"""The only reader of private positions on a member's machine.

A file and public candles go in; batches for `clipped_gradient_sum` come out, and stay on this
machine. There is no serialiser: pickling is refused, and what can be printed is the number of
positions, which is public (adjacent data sets differ in a whole position set to nothing, so the
count is the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from fedtrade.errors import BadInput
from fedtrade.learning.positions import Positions, read_positions
from fedtrade.learning.tables import Candles
from fedtrade.learning.windows import PositionBatch, market_table, position_windows

Market = tuple[str, str]
"""(venue, symbol)."""


class PrivatePositions:
    """A member's positions, ready to be sampled. `count` is public, and so are `candles`: those of
    all markets that were given, held or not. Everything else is private."""

    __slots__ = ("_all", "candles")

    def __init__(self, windows: PositionBatch, candles: Mapping[Market, Candles]) -> None:
        self._all = windows
        self.candles = candles

    @classmethod
    def load(cls, path: Path, candles: Mapping[Market, Candles], now_s: int) -> PrivatePositions:
        """Read a CSV or Parquet file (schema: `fedtrade.learning.positions`).

        `candles` are hourly, by (venue, symbol); a position elsewhere is refused. Nothing after
        `now_s` is used: a window counts once the hour after it has ended.
        """
        return cls.of(read_positions(path, now_s, candles.keys()), candles, now_s, path.name)

    @classmethod
    def of(
        cls,
        positions: Positions,
        candles: Mapping[Market, Candles],
        now_s: int,
        where: str = "positions",
    ) -> PrivatePositions:
        """The same from positions that are already in memory."""
        held = set(zip(positions.venue, positions.symbol, strict=True))
        tables = {market: market_table(candles[market], now_s) for market in sorted(held)}
        windows = position_windows(positions, tables, now_s)
        if not windows.weights.any():
            raise BadInput(
                where,
                "no position overlaps an hour with 168 h of candles before it and one after it",
                "Give candles that cover the positions, or positions that the candles cover.",
            )
        return cls(windows, {name: one.between(0, now_s) for name, one in candles.items()})

    @property
    def count(self) -> int:
        """How many positions there are, with or without windows."""
        return self._all.count

    def sample(self, include: NDArray[np.bool_]) -> PositionBatch:
        """The positions for which `include` (one flag a position, in file order) is set."""
        if include.shape != (self.count,) or include.dtype != np.bool_:
            raise ValueError(f"include must be {self.count} booleans")
        return self._all.take(include)

    def everything(self) -> PositionBatch:
        """All positions, for local evaluation only."""
        return self._all

    def __repr__(self) -> str:
        return f"PrivatePositions({self.count} positions)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("private positions have no serialiser")
