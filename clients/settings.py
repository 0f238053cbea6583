"""The settings of one execution agent: a TOML file, read strictly.

    deployment = "deployment.json"       where everything stands (`fedtrade devnet up` writes one)
    chain = "aster"
    keys = "keys"                        folder of the member's keys
    artifact = "model.safetensors"
    folder = "aster"                     journal, transactions, status; one agent, one folder

    [agent]
    capital_quote = 100000.0             most that may stand in the pool
    native_price_quote = 2700.0          a stated price of the gas token, for costs
                                         optional: range_gas, horizon_h, cooldown_s,
                                         slippage_bps, deadline_s
    [history]                            optional: candles up to the start, so that it need not wait
    candles = "history.parquet"          start_s, width_s, open, high, low, close, notional_usd
    notional_scale = 0.001               share of that volume which this pool can expect

    [limits]                             optional: may only lie within the hard bounds
    drawdown_halt_bps = 300
    [fees]                               optional: tip_wei, confirmations, bump_after_blocks,
    confirmations = 1                    attempts_max; the cap is limits.gas_price_max_wei

Paths are relative to the file. An unknown field is an error, never ignored.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clients.submit import Fees
from fedtrade.chain.deployment import ChainDeployment, Deployment
from fedtrade.errors import BadInput
from fedtrade.risk.limits import Limits
from fedtrade.trading.mandate import AgentSettings

SETTINGS_MAX_BYTES: Final = 65_536


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Agent(_Strict):
    capital_quote: float
    native_price_quote: float
    range_gas: int | None = None
    horizon_h: float | None = None
    cooldown_s: int | None = None
    slippage_bps: int | None = None
    deadline_s: int | None = None


class HistorySettings(_Strict):
    """Candles of before the start."""

    candles: Path
    notional_scale: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0


class _Fees(_Strict):
    tip_wei: int | None = None
    confirmations: int | None = None
    bump_after_blocks: int | None = None
    attempts_max: int | None = None


class ExecutionSettings(_Strict):
    """The file as it stands."""

    deployment: Path
    chain: str
    keys: Path
    artifact: Path
    folder: Path
    agent: _Agent
    history: HistorySettings | None = None
    limits: dict[str, int] = {}
    fees: _Fees = _Fees()

    @classmethod
    def load(cls, path: Path) -> ExecutionSettings:
        """Read a settings file; every path in it becomes absolute."""
        try:
            with path.open("rb") as file:
                content = file.read(SETTINGS_MAX_BYTES)
            raw = tomllib.loads(content.decode())
            settings = cls.model_validate(raw)
        except OSError as error:
            raise BadInput(
                str(path), f"cannot read the settings ({error.strerror})", "Check the path."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(str(path), f"not TOML ({error})", "Correct the file.") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "file"
            raise BadInput(
                str(path), f"{place}: {first['msg']}", "Correct the settings."
            ) from error
        here = path.resolve().parent
        update: dict[str, object] = {
            name: here / getattr(settings, name)
            for name in ("deployment", "keys", "artifact", "folder")
        }
        if settings.history is not None:
            candles = here / settings.history.candles
            update["history"] = settings.history.model_copy(update={"candles": candles})
        return settings.model_copy(update=update)

    def chain_deployment(self) -> ChainDeployment:
        """This agent's chain out of the deployment file."""
        return Deployment.load(self.deployment).chain(self.chain)

    def agent_settings(self) -> AgentSettings:
        """What the agent is told; limits are checked against their hard bounds here."""
        chain = self.chain_deployment()
        return AgentSettings(
            chain=chain.name,
            key=chain.pool_key(),
            feed=chain.price_feed,
            limits=self._limits(),
            **self.agent.model_dump(exclude_none=True),
        )

    def fee_settings(self) -> Fees:
        """How transactions pay; the gas ceiling of the breakers is the cap here, too."""
        return Fees(
            cap_wei=self._limits().gas_price_max_wei, **self.fees.model_dump(exclude_none=True)
        )

    def _limits(self) -> Limits:
        known = {field.name for field in fields(Limits)}
        if unknown := self.limits.keys() - known:
            raise BadInput(
                f"limits.{min(unknown)}",
                "no such limit",
                f"Use one of: {', '.join(sorted(known))}.",
            )
        return Limits(**self.limits)
