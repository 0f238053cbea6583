"""The relayer's settings, `relay.toml`: TOML, read strictly (`fedtrade.settings`).

`fedtrade-coordinator relay init` writes the file with a comment on every field. Nothing here is
about what a mirror believes: that is fixed in the mirror. A relayer with wrong settings can spend its
own money and be late.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field

from fedtrade.settings import Beside, Strict, read_settings
from server.sending import Fees

RELAY_FILE: Final = "relay.toml"
GWEI: Final = 10**9

Location = Annotated[str, Field(pattern=r"^(file:///|https?://)\S+$", max_length=512)]


class RelayFees(Strict):
    """The most that the relayer pays. The same on every chain."""

    gas_price_max_gwei: Annotated[float, Field(gt=0.0, le=100_000.0)] = 200.0
    tip_gwei: Annotated[float, Field(ge=0.0, le=1_000.0)] = 1.0
    post_max_wei: Annotated[int, Field(ge=0, le=10**20)] = 10**17
    """The most that one post may cost beside its gas: what the mailbox's hooks ask for."""
    replace_after_s: Annotated[float, Field(ge=0.1, le=86_400.0)] = 60.0
    """A transaction that is not mined by then is sent again with a higher fee."""
    attempts_max: Annotated[int, Field(ge=1, le=20)] = 5
    """How often a transaction is sent, and a delivery tried, before it is given up."""

    def limits(self) -> Fees:
        return Fees(
            round(self.gas_price_max_gwei * GWEI),
            round(self.tip_gwei * GWEI),
            self.replace_after_s,
            self.attempts_max,
        )


class RelaySettings(Strict):
    """`relay.toml`: everything that a relayer is told by its operator."""

    keys: Beside
    """Folder of the relayer's own key (`coordinator.key`): no other program may use its account."""
    deployment: Beside
    """Chains and contracts (JSON). Every chain with a mirror is served."""
    storages: Annotated[tuple[Location, ...], Field(min_length=1, max_length=64)]
    """Where validators publish. Nothing else is read, whatever a chain says."""
    final_block: Literal["finalized", "safe", "latest"] = "finalized"
    """Up to where the home chain counts as unchangeable; "latest" only for local chains."""
    heartbeat_s: Annotated[float, Field(ge=1.0, le=604_800.0)] = 21_600.0
    """A post is made when something has changed, and after this time in any case: a mirror that
    hears nothing for mirrorAgeMaxS is not acted upon."""
    poll_s: Annotated[float, Field(ge=0.01, le=3_600.0)] = 5.0
    fees: RelayFees = RelayFees()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `relay.toml`; every path in it becomes absolute. Raises BadInput."""
        return read_settings(cls, path)


RELAY_TEMPLATE: Final = """\
# The settings of a relayer. Paths are relative to this file. An unknown field is an error.
# A relayer is trusted with nothing but its own money: mirrors believe validators, not it.

keys = "."                      # folder of coordinator.key; no other program may use this account
deployment = "deployment.json"  # chains and contracts; every chain with a mirror is served
# Where validators publish their checkpoints: file:///FOLDER or https://HOST/PATH, as they announced.
storages = [
    "https://<host>/checkpoints",
]
# final_block = "finalized"     # where the home chain is unchangeable; "latest" for local chains only
heartbeat_s = 21600.0           # post after so long even if nothing has changed
poll_s = 5.0                    # how often the chains are looked at

[fees]                          # the most that is paid, on each chain
gas_price_max_gwei = 200.0      # above it nothing is sent; mirrors age until gas is cheaper
tip_gwei = 1.0
post_max_wei = 100000000000000000  # the most that the mailbox's hooks may ask for one post
replace_after_s = 60.0          # then a transaction is sent again with a higher fee
attempts_max = 5                # so often, then it is given up and a newer message goes first
"""
