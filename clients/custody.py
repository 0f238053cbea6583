"""Custody from the operator's side: set up a Safe for an agent, check it, halt its breaker.

`custody.toml` says what is wanted (`TEMPLATE` has a comment on every field). The key that pays is
this machine's own (`keys.json`), as a rule the agent's: it may not be an owner, and once the Safe
is configured it has no power but to send orders. Owners need nothing of this: they sign with their
own wallets, and withdraw whatever is halted or paused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field

from clients.keys import MemberKeys
from fedtrade.chain.contracts import explain
from fedtrade.chain.deployment import Address, ChainDeployment, Custody, Deployment
from fedtrade.chain.rpc import NodeRefused, Rpc
from fedtrade.devnet.artifacts import CUSTODY, fetch_packages
from fedtrade.devnet.custody import CustodyPlan, set_up, shared_code, verify
from fedtrade.errors import BadInput, Fault, Stale
from fedtrade.settings import Beside, Strict, read_settings
from fedtrade.venues.codec import Call, field, quantity
from fedtrade.venues.safe import HALT, NOBODY, BreakerLimits

RECEIPT_WAIT_S: Final = 300.0
RECEIPT_POLL_S: Final = 0.2
TIP_WEI: Final = 10**9

TEMPLATE: Final = """\
# A Safe for one agent on one chain. Paths are relative to this file. An unknown field is an error.

deployment = "deployment.json"  # where everything stands on the chain
chain = "aster"
keys = "keys"                   # folder of keys.json: pays for the set-up, and is the agent
out = "custody.json"            # the deployment with this Safe in it: for the agent's settings

owners = ["0x<40 hex digits>", "0x<40 hex digits>"]  # whom the Safe belongs to; not the agent's key
threshold = 2                   # so many of them sign together
# agent = "0x<40 hex digits>"   # leave out for the key in `keys`; a co-owner or guardian names it
guardian = "0x<40 hex digits>"  # may halt the agent and nothing else; leave out for nobody
parameters = "0x<40 hex digits>"  # ParameterStore of the home chain, RegistryMirror elsewhere
# models = "0x<40 hex digits>"  # leave out for the registry of the deployment file

[limits]                        # yours; in force is the tighter of each and the consortium's
action_notional_max = 100000    # most that one order sends out, in whole units of the quote
epoch_notional_max = 500000     # most that the orders of a day (UTC) send out, counted gross
slippage_max_bps = 100          # a swap's worst price against the feed's
oracle_deviation_max_bps = 200  # how far the pool may be from the feed when something is added;
                                # a stolen key takes at most the larger of these two shares of
                                # epoch_notional_max in a day
oracle_age_max_s = 3600
model_age_max_s = 604800
mirror_age_max_s = 86400
"""


class _Limits(Strict):
    action_notional_max: Annotated[int, Field(ge=0, le=10**9)]
    epoch_notional_max: Annotated[int, Field(ge=0, le=10**10)]
    slippage_max_bps: Annotated[int, Field(ge=1, le=500)]
    oracle_deviation_max_bps: Annotated[int, Field(ge=1, le=5_000)]
    oracle_age_max_s: Annotated[int, Field(ge=10, le=86_400)]
    model_age_max_s: Annotated[int, Field(ge=600, le=90 * 86_400)]
    mirror_age_max_s: Annotated[int, Field(ge=60, le=7 * 86_400)]


class CustodySettings(Strict):
    """`custody.toml`."""

    deployment: Beside
    chain: str
    keys: Beside
    out: Beside
    owners: Annotated[tuple[Address, ...], Field(min_length=1)]
    threshold: Annotated[int, Field(ge=1)]
    agent: Address | None = None
    guardian: Address = NOBODY
    parameters: Address
    models: Address | None = None
    limits: _Limits

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a settings file; every path in it becomes absolute. Raises BadInput."""
        return read_settings(cls, path)

    def chain_deployment(self) -> ChainDeployment:
        return Deployment.load(self.deployment).chain(self.chain)

    def plan(self, key: str) -> CustodyPlan:
        """What is wanted; `key`: address of the key that is here. Raises BadInput."""
        return CustodyPlan(
            owners=self.owners,
            threshold=self.threshold,
            agent=self.agent or key,
            guardian=self.guardian,
            parameters=self.parameters,
            models=self.models or self.chain_deployment().registry,
            limits=BreakerLimits(**self.limits.model_dump()),
        )


class NotMined(Stale):
    """A transaction of the set-up is not mined yet."""

    def __init__(self, transaction: str) -> None:
        super().__init__(
            f"Transaction {transaction} is not mined after {RECEIPT_WAIT_S:.0f} s. Look whether the "
            "chain makes blocks, then run this again: it goes on where it was."
        )
        self.transaction = transaction


class SetUpReverted(Fault):
    """A transaction of the set-up passed its trial and reverted when mined."""

    def __init__(self, transaction: str) -> None:
        super().__init__(
            f"Transaction {transaction} reverted although its trial passed. Run this again; if it "
            "stays so, look at the transaction."
        )
        self.transaction = transaction


class Wallet:
    """Sends transactions of this machine's key, one after the other, and waits for each."""

    def __init__(self, rpc: Rpc, keys: MemberKeys, chain_id: int) -> None:
        self._rpc = rpc
        self._keys = keys
        self._chain_id = chain_id

    def send(self, call: Call) -> dict[str, Any]:
        """Try a call without effect, then send it; gives its receipt.

        Raises NodeRefused or ContractRefused where it would revert, NotMined, SetUpReverted.
        """
        address, data = self._keys.address, "0x" + call.data.hex()
        try:
            gas = quantity(
                self._rpc.call("eth_estimateGas", {"from": address, "to": call.to, "data": data})
            )
        except NodeRefused as refused:
            raise explain(refused) from refused
        nonce, head = self._rpc.batch(
            [
                ("eth_getTransactionCount", [address, "pending"]),
                ("eth_getBlockByNumber", ["latest", False]),
            ]
        )
        raw, transaction = self._keys.sign_transaction(
            {
                "chainId": self._chain_id,
                "nonce": quantity(nonce),
                "maxPriorityFeePerGas": TIP_WEI,
                "maxFeePerGas": 2 * quantity(field(head, "baseFeePerGas")) + TIP_WEI,
                "gas": gas * 5 // 4,
                "to": call.to,
                "value": 0,
                "data": data,
            }
        )
        self._rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        return self._await(transaction)

    def _await(self, transaction: str) -> dict[str, Any]:
        until = time.monotonic() + RECEIPT_WAIT_S
        while time.monotonic() < until:
            receipt: dict[str, Any] | None = self._rpc.call(
                "eth_getTransactionReceipt", transaction
            )
            if receipt is not None:
                if quantity(field(receipt, "status")) != 1:
                    raise SetUpReverted(transaction)
                return receipt
            time.sleep(RECEIPT_POLL_S)
        raise NotMined(transaction)


def set_up_custody(settings: CustodySettings, tell: Callable[[str], None]) -> Custody:
    """Bring the Safe about, or as much as is missing; writes `out`. Raises NotAsPlanned."""
    chain, keys = settings.chain_deployment(), MemberKeys.load(settings.keys)
    plan = settings.plan(keys.address)
    shared = shared_code(fetch_packages(CUSTODY))
    with _rpc_of(chain) as rpc:
        wallet = Wallet(rpc, keys, chain.chain_id)
        found = set_up(rpc, wallet.send, keys.address, chain, plan, shared, tell)
    deployment = Deployment.load(settings.deployment)
    chains = tuple(
        known.model_copy(update={"custody": found}) if known.name == chain.name else known
        for known in deployment.chains
    )
    deployment.model_copy(update={"chains": chains}).save(settings.out)
    return found


def check_custody(settings: CustodySettings) -> Custody:
    """Compare what stands on the chain with the settings. Sends nothing. Raises NotAsPlanned."""
    keys, chain = MemberKeys.load(settings.keys), settings.chain_deployment()
    found = _found(settings)
    with _rpc_of(chain) as rpc:
        shared = shared_code(fetch_packages(CUSTODY))
        verify(rpc, chain, settings.plan(keys.address), found, shared)
    return found


def halt_custody(settings: CustodySettings) -> Custody:
    """Halt the breaker with this machine's key, which must be the guardian's."""
    keys, chain = MemberKeys.load(settings.keys), settings.chain_deployment()
    found = _found(settings)
    with _rpc_of(chain) as rpc:
        Wallet(rpc, keys, chain.chain_id).send(Call(found.breaker, HALT.encode()))
    return found


def _found(settings: CustodySettings) -> Custody:
    custody = Deployment.load(settings.out).chain(settings.chain).custody
    if custody is None:
        raise BadInput(str(settings.out), "it names no custody", "Set one up first.")
    return custody


def _rpc_of(chain: ChainDeployment) -> Rpc:
    rpc = Rpc(chain.rpc_url)
    if (got := quantity(rpc.call("eth_chainId"))) != chain.chain_id:
        rpc.close()
        raise BadInput(chain.rpc_url, f"it is on chain {got}, not {chain.chain_id}", "Correct it.")
    return rpc
