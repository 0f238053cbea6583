"""Three local chains as one object: up, time, money, down.

One of them is the consortium's home; on the others stands a mirror of it, behind Hyperlane.

The chains end with the process that started them, whatever ends it. After `up` each transaction is
mined at once and chain time goes on from `Genesis.start_s` at the pace of the wall clock; a rehearsal
that owns the time switches mining off (`Anvil.automine`) and calls `mine` with its own times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from fedtrade.chain.contracts import explain
from fedtrade.chain.deployment import Deployment
from fedtrade.chain.mirrors import RegistryBeacon
from fedtrade.chain.plan import SeatPlan
from fedtrade.chain.rpc import NodeRefused, Rpc, eth_call
from fedtrade.devnet.anvil import Anvil
from fedtrade.devnet.artifacts import fetch
from fedtrade.devnet.cache import cache_folder
from fedtrade.devnet.deploy import (
    MARKETS,
    ChainPlan,
    Genesis,
    found,
    mint_tokens,
    send,
)
from fedtrade.devnet.hyperlane import deploy_mirror
from fedtrade.devnet.states import deployed_states, sites_of
from fedtrade.errors import BadInput
from fedtrade.venues.codec import Call, quantity


class Devnet:
    """Running local chains and where everything on them stands."""

    def __init__(self, chains: Mapping[str, Anvil], deployment: Deployment) -> None:
        self._chains = dict(chains)
        self.deployment = deployment

    @classmethod
    def up(
        cls,
        cache: Path | None = None,
        ports: Sequence[int] | None = None,
        plans: Sequence[ChainPlan] = MARKETS,
        genesis: Genesis = Genesis(),  # noqa: B008 - frozen
        seats: Sequence[SeatPlan] = (),
    ) -> Devnet:
        """Start one chain per plan; all of them, or none and an error.

        `ports`: one per plan, in order; free ports otherwise. `seats`: of the consortium, from its
        founding on; what two thirds of its members sign is believed on the other chains.
        """
        if ports is not None and len(ports) != len(plans):
            raise BadInput("ports", f"{len(ports)} for {len(plans)} chains", "Give one per chain.")
        root = cache or cache_folder()
        artifacts = fetch(root)
        states = deployed_states(root, artifacts, plans, genesis)
        chains: dict[str, Anvil] = {}
        try:
            for number, plan in enumerate(plans):
                chains[plan.name] = Anvil.start(
                    artifacts.anvil,
                    plan.chain_id,
                    timestamp_s=genesis.start_s,
                    port=ports[number] if ports is not None else None,
                    state=states / f"{plan.name}.json",
                )
            for chain in chains.values():
                # A loaded chain's clock is unset until a block is made at a given time.
                chain.mine(chain.latest().timestamp_s + 1)
            sites = [
                site.model_copy(
                    update={"rpc_url": chains[site.name].url, "ws_url": chains[site.name].ws_url}
                )
                for site in sites_of(states)
            ]
            deployment = found(chains, sites, genesis, seats)
        except BaseException:
            for chain in chains.values():
                chain.stop()
            raise
        return cls(chains, deployment)

    def link(self, validators: Sequence[str], threshold: int) -> Deployment:
        """Put mirrors that believe `threshold` of these validators in the place of those there are.

        Gives the deployment as it is then; needs automine.
        """
        known = self.deployment
        home = known.chain(known.home)
        assert home.messages is not None
        beacon, chains = RegistryBeacon(str(home.messages.beacon)), []
        for chain in known.chains:
            if chain.messages is not None and chain.messages.mirror is not None:
                end = deploy_mirror(
                    self.rpc(chain.name), chain.messages, home.messages, validators, threshold
                )
                self.govern(home.name, beacon.set_mirror(end.domain, str(end.mirror)))
                new = {"messages": end, "registry": end.mirror, "parameters": end.mirror}
                chain = chain.model_copy(update=new)
            chains.append(chain)
        self.deployment = known.model_copy(update={"chains": tuple(chains)})
        return self.deployment

    def anvil(self, chain: str) -> Anvil:
        """One chain's process, with control over its blocks and its time."""
        self.deployment.chain(chain)  # says which names there are
        return self._chains[chain]

    def rpc(self, chain: str) -> Rpc:
        """The connection to one chain."""
        return self.anvil(chain).rpc

    def mine(self, chain: str, timestamp_s: int | None = None) -> None:
        """Make one block."""
        self.anvil(chain).mine(timestamp_s)

    def automine(self, on: bool) -> None:
        """On all chains: mine each transaction at once, or only when `mine` is called."""
        for chain in self._chains.values():
            chain.automine(on)

    def fund(
        self, chain: str, account: str, *, native_wei: int = 0, base: float = 0, quote: float = 0
    ) -> None:
        """Give an account native token (set to this amount) and stand-in tokens (added)."""
        known, rpc = self.deployment.chain(chain), self.rpc(chain)
        if native_wei:
            self.anvil(chain).set_balance(account, native_wei)
        for token, units in ((known.base, base), (known.quote, quote)):
            if units:
                mint_tokens(rpc, token, account, units)

    def transact(self, chain: str, sender: str, call: Call) -> dict[str, Any]:
        """Send a call of an unlocked account and give its receipt; needs automine.

        It is tried first without effect, so that a revert is a Refusal that says why.
        """
        try:
            self.rpc(chain).call(*eth_call(call.to, call.data, sender=sender))
        except NodeRefused as error:
            raise explain(error) from error
        return send(self.rpc(chain), sender, call)

    def govern(self, chain: str, call: Call) -> dict[str, Any]:
        """Have the chain's timelock make a call, as if members had passed it; needs automine.

        A stand-in for proposal, votes and delay (`fedtrade.chain.governing` has the real way), and
        possible on local chains only. A revert is a Refusal that says why.
        """
        timelock = self.deployment.chain(chain).decided_here.timelock
        anvil = self.anvil(chain)
        anvil.impersonate(timelock)
        if not quantity(anvil.rpc.call("eth_getBalance", timelock, "latest")):
            anvil.set_balance(timelock, 10**20)
        return self.transact(chain, timelock, call)

    @property
    def running(self) -> bool:
        """Whether every chain's process is alive."""
        return all(chain.running for chain in self._chains.values())

    def stop(self) -> None:
        """End all chains."""
        for chain in self._chains.values():
            chain.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
