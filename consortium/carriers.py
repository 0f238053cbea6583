"""Who carries the home chain's word to the mirrors: the members' validators, and one relayer.

The objects are those of `fedtrade-member validate` and `fedtrade-coordinator relay`, with keys,
ledgers and storages in folders of their own. What is rehearsed is only that this process lets each
of them look in turn, in place of nine processes that poll.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from clients.keys import MemberKeys
from clients.settings import HomeChainAt, ValidatorAt
from clients.validator import Validator
from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.mirrors import RegistryBeacon, RegistryMirror
from fedtrade.chain.rpc import Rpc
from fedtrade.devnet.net import Devnet
from fedtrade.errors import Fault
from server.keys import CoordinatorKeys
from server.relay import Relay
from server.relay_settings import RelaySettings

HEARTBEAT_S: Final = 7_200
"""Chain time after which a mirror hears from home even if nothing has changed."""
WAIT_S: Final = 60.0
RELAYER_WEI: Final = 10**20


@dataclass(frozen=True, slots=True)
class Vouching:
    """A member that validates: its keys, and the folder that is its own."""

    keys: MemberKeys
    folder: Path


class Carriers:
    """Validators and relayer. Use as a context manager."""

    def __init__(self, folder: Path, devnet: Devnet, members: Sequence[Vouching]) -> None:
        """`folder`: of the run; the relayer's key lies in `relayer/` of it."""
        deployment = devnet.deployment
        self._devnet = devnet
        self._home = deployment.chain(deployment.home)
        self._others = [chain for chain in deployment.chains if chain.name != deployment.home]
        keys = CoordinatorKeys.create(folder / "relayer")
        for chain in deployment.chains:
            devnet.fund(chain.name, keys.address, native_wei=RELAYER_WEI)
        path = folder / "relayer" / "deployment.json"
        deployment.save(path)
        self._stack = ExitStack()
        self._validators = [self._validator(member) for member in members]
        settings = RelaySettings(
            keys=folder / "relayer",
            deployment=path,
            storages=tuple(_location(member.folder) for member in members),
            final_block="latest",
            heartbeat_s=HEARTBEAT_S,
            poll_s=0.01,
        )
        self._relay = self._stack.enter_context(Relay(settings, keys))

    def _validator(self, member: Vouching) -> Validator:
        home = self._home
        assert home.messages is not None
        at = ValidatorAt(
            merkle_tree_hook=home.messages.merkle_tree_hook.lower(),
            from_block=home.from_block,
            storage=member.folder / "checkpoints",
            location=_location(member.folder),
        )
        node = HomeChainAt(
            rpc_url=home.rpc_url,
            chain_id=home.chain_id,
            final_block="latest",
            membership=home.membership.lower(),
            registry=home.model_registry.lower(),
        )
        rpc = self._stack.enter_context(Rpc(home.rpc_url))
        ledger = member.folder / "validator.jsonl"
        validator = self._stack.enter_context(Validator(node, at, ledger, member.keys, rpc))
        validator.announce()
        return validator

    def look(self) -> bool:
        """Let everybody look once; whether something of the relayer's is on its way to a block."""
        for validator in self._validators:
            validator.look()
        self._relay.look()
        places = (self._relay.home, *self._relay.mirrors)
        return any(place.sender.busy for place in places)

    def carry(self) -> dict[str, float]:
        """Look until every mirror shows what the home chain says now; needs automine.

        Gives the seconds that each took. Raises Fault where one does not in time.
        """
        begun, took = time.monotonic(), dict[str, float]()
        while len(took) < len(self._others):
            self._in_time(begun)
            self.look()
            said = self._said_at_home()
            for chain in self._others:
                if chain.name not in took and self._shown(chain) == said:
                    took[chain.name] = time.monotonic() - begun
        while self.look():  # nothing stays on its way: who makes blocks may change now
            self._in_time(begun)
        return took

    def _in_time(self, begun: float) -> None:
        if time.monotonic() - begun > WAIT_S:
            raise Fault(f"a mirror does not follow in {WAIT_S:.0f} s: {self._relay.status_line()}")

    def _said_at_home(self) -> object:
        """The versions that are live or wait, and the parameters in force."""
        assert self._home.messages is not None
        rpc, beacon = self._devnet.rpc(self._home.name), str(self._home.messages.beacon)
        models = ask(rpc, RegistryBeacon(beacon).snapshot()).models
        values = ask(rpc, RegistryMirror(self._home.parameters).parameters()).values
        return [model.version for model in models], values

    def _shown(self, chain: ChainDeployment) -> object:
        """The same, as a mirror shows it; None before its first message."""
        rpc, mirror = self._devnet.rpc(chain.name), RegistryMirror(chain.registry)
        if not ask(rpc, mirror.state()).sequence:
            return None
        models = ask(rpc, mirror.listed())
        return [model.version for model in models], ask(rpc, mirror.parameters()).values

    def close(self) -> None:
        """Let go of ledgers and nodes."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _location(folder: Path) -> str:
    return f"file://{(folder / 'checkpoints').resolve()}"
