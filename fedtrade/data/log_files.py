"""Files of chain logs, and the settings that say how to read positions out of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from fedtrade.data import onchain
from fedtrade.errors import BadInput
from fedtrade.learning.folder import DataFolder
from fedtrade.learning.series import Series
from fedtrade.market.instruments import PoolKey, Token
from fedtrade.parameters import Parsed

MAX_FILE_BYTES = 2**30
PRICE_AGE_S = 2 * 3600
Market = tuple[str, str]


class TokenSettings(Parsed):
    """A token of a pool."""

    address: str
    symbol: str
    decimals: Annotated[int, Field(ge=0, le=36)]

    def token(self) -> Token:
        return Token(self.address, self.symbol, self.decimals)


class UniswapV3Settings(Parsed):
    """Positions of one pool; `market` is whose public candles they are read against."""

    protocol: Literal["uniswap_v3"]
    pool: str
    token0: TokenSettings
    token1: TokenSettings
    fee_pips: Annotated[int, Field(ge=0, lt=1_000_000)]
    tick_spacing: Annotated[int, Field(gt=0)]
    base_is_token0: bool
    market: Market
    owners: tuple[str, ...] | None = None
    """`token-<id>` of the position manager, or addresses; all of the file where absent."""


class PerpV2Settings(Parsed):
    """Positions of one trader: base tokens' markets, collateral tokens' decimals."""

    protocol: Literal["perp_v2"]
    trader: str
    markets: Mapping[str, Market]
    collateral_decimals: Mapping[str, int]


class ReserveSettings(Parsed):
    """A reserve of Aave; without a market it counts as a dollar."""

    decimals: Annotated[int, Field(ge=0, le=36)]
    market: Market | None


class AaveV3Settings(Parsed):
    """Borrowing of one account."""

    protocol: Literal["aave_v3"]
    account: str
    reserves: Mapping[str, ReserveSettings]


LogSettings = UniswapV3Settings | PerpV2Settings | AaveV3Settings
_SETTINGS: TypeAdapter[LogSettings] = TypeAdapter(
    Annotated[LogSettings, Field(discriminator="protocol")]
)


def read_settings(path: Path) -> LogSettings:
    """Settings from a JSON file; BadInput names what is wrong."""
    try:
        return _SETTINGS.validate_json(path.read_bytes())
    except OSError as error:
        problem = f"it cannot be read ({type(error).__name__})"
        raise BadInput(path.name, problem, "Give a file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        raise BadInput(path.name, problem, "See `fedtrade data positions --help`.") from error


def read_logs(path: Path) -> list[Mapping[str, Any]]:
    """Logs, one JSON object a line or all in one array; BadInput names the first bad line."""
    remedy = "Give logs as eth_getLogs gives them."
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInput(path.name, f"larger than {MAX_FILE_BYTES} bytes", "Split the file.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"it cannot be read ({type(error).__name__})"
        raise BadInput(path.name, problem, remedy) from error
    whole = text.lstrip().startswith("[")
    logs: list[Mapping[str, Any]] = []
    for number, line in enumerate([text] if whole else text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise BadInput(path.name, f"line {number} is not JSON", remedy) from error
        logs += found if whole else [found]
    if not logs or not all(isinstance(log, dict) for log in logs):
        raise BadInput(path.name, "it holds no logs, or something else", remedy)
    return logs


def lifecycles(
    logs: list[Mapping[str, Any]], settings: LogSettings, folder: DataFolder | None
) -> list[onchain.Lifecycle]:
    """The positions of a file of logs. Aave needs a data folder for its prices."""
    match settings:
        case UniswapV3Settings():
            key = PoolKey(
                settings.pool,
                settings.token0.token(),
                settings.token1.token(),
                settings.fee_pips,
                settings.tick_spacing,
                settings.base_is_token0,
            )
            return onchain.uniswap_v3_positions(logs, key, settings.market, settings.owners)
        case PerpV2Settings():
            return onchain.perp_v2_positions(
                logs, settings.trader, settings.markets, settings.collateral_decimals
            )
        case AaveV3Settings():
            if folder is None:
                raise BadInput("--data", "Aave's logs carry no prices", "Name a data folder.")
            assets = {
                address: onchain.AaveAsset(r.decimals, r.market)
                for address, r in settings.reserves.items()
            }
            return onchain.aave_positions(logs, settings.account, assets, closing_prices(folder))


def closing_prices(folder: DataFolder) -> Callable[[Market, int], float]:
    """The last hourly close that was known at a time; BadInput where none is 2 hours old or less."""
    closes: dict[Market, Series] = {}

    def price(market: Market, at_s: int) -> float:
        if market not in closes:
            candles = folder.candles(*market)
            closes[market] = Series(candles.end_s, candles.close, PRICE_AGE_S)
        found = float(closes[market].at(np.array([at_s]))[0])
        if math.isnan(found):
            problem = f"no price of {'/'.join(market)} at {at_s}"
            raise BadInput(str(folder.path), problem, "Use a folder that covers the logs.")
        return found

    return price
