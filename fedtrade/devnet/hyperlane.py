"""Hyperlane on local chains: the real contracts, set up so that beacon and mirrors can talk.

Of each chain: the Mailbox; the MerkleTreeHook as required hook, so that every message is in the tree
that validators sign; an InterchainGasPaymaster with a price for every other chain as default hook,
so that posting costs something, as it does elsewhere; ValidatorAnnounce. Contracts are initialised
directly, not behind proxies. Validators and relayer are ours (`clients/validator.py`,
`server/relay.py`), and no one else's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from fedtrade.chain.contracts import ModelRegistry
from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import Deployment, MessagesAt
from fedtrade.chain.mirrors import RegistryBeacon
from fedtrade.chain.rpc import Rpc
from fedtrade.devnet.accounts import GOVERNOR
from fedtrade.devnet.artifacts import HYPERLANE, Artifacts, fetch
from fedtrade.devnet.deploy import GAS, Reverted, send
from fedtrade.devnet.net import Devnet
from fedtrade.venues.codec import Call, Function
from fedtrade.venues.hyperlane import word_of

INITIALIZE_MAILBOX: Final = Function("initialize(address,address,address,address)")
INITIALIZE_PAYMASTER: Final = Function("initialize(address,address)")
SET_REMOTE_GAS: Final = Function("setRemoteGasDataConfigs((uint32,uint128,uint128)[])")
SET_DESTINATION_GAS: Final = Function("setDestinationGasConfigs((uint32,(address,uint96))[])")
MODULE_OF: Final = Function("getAddress(address[],uint8)", "(address)")
DEPLOY_MODULE: Final = Function("deploy(address[],uint8)", "(address)")
EXCHANGE_RATE: Final = 10**10
"""Of the other chain's money in ours, in ten-thousand-millionths: one to one."""
GAS_PRICE_WEI: Final = 10**9
GAS_OVERHEAD: Final = 300_000
"""What taking a snapshot costs on the other side, about."""


def deploy_hyperlane(
    rpc: Rpc, artifacts: Artifacts, domain: int, others: Sequence[int], module: str
) -> MessagesAt:
    """Deploy everything but beacon and mirror, with `module` as the mailbox's default module.

    The answer names no beacon and no mirror yet: `deploy_beacon` and `deploy_mirror` do.
    """
    mailbox = _deploy(rpc, artifacts, "Mailbox", encode(["uint32"], [domain]))
    client = encode(["address"], [mailbox])
    hook = _deploy(rpc, artifacts, "hooks/MerkleTreeHook", client)
    paymaster = _deploy(rpc, artifacts, "hooks/igp/InterchainGasPaymaster")
    oracle = _deploy(rpc, artifacts, "hooks/igp/StorageGasOracle")
    announce = _deploy(rpc, artifacts, "isms/multisig/ValidatorAnnounce", client)
    prices = [(other, EXCHANGE_RATE, GAS_PRICE_WEI) for other in others]
    limits = [(other, (oracle, GAS_OVERHEAD)) for other in others]
    for to, data in (
        (paymaster, INITIALIZE_PAYMASTER.encode(GOVERNOR, GOVERNOR)),
        (oracle, SET_REMOTE_GAS.encode(prices)),
        (paymaster, SET_DESTINATION_GAS.encode(limits)),
        (mailbox, INITIALIZE_MAILBOX.encode(GOVERNOR, module, paymaster, hook)),
    ):
        send(rpc, GOVERNOR, Call(to, data))
    return MessagesAt.model_construct(
        domain=domain,
        mailbox=mailbox,
        merkle_tree_hook=hook,
        validator_announce=announce,
        beacon=None,
        mirror=None,
    )


def deploy_module(rpc: Rpc, artifacts: Artifacts, validators: Sequence[str], threshold: int) -> str:
    """A StaticMessageIdMultisigIsm: so many of these validators must have signed. It has no owner."""
    factory = _deploy(
        rpc, artifacts, "isms/multisig/StaticMultisigIsm.sol/StaticMessageIdMultisigIsmFactory"
    )
    ordered = sorted(validators, key=lambda address: int(address, 16))
    send(rpc, GOVERNOR, Call(factory, DEPLOY_MODULE.encode(ordered, threshold)))
    (module,) = MODULE_OF.decode(rpc.eth_call(factory, MODULE_OF.encode(ordered, threshold)))
    return to_checksum_address(module)


def deploy_beacon(rpc: Rpc, at: MessagesAt, registry: str, store: str, owner: str) -> MessagesAt:
    """The home chain's end."""
    arguments = encode(["address"] * 4, [at.mailbox, registry, store, owner])
    return _ended(at, beacon=ours(rpc, "RegistryBeacon", arguments))


def deploy_mirror(rpc: Rpc, at: MessagesAt, home: MessagesAt, module: str) -> MessagesAt:
    """Another chain's end; the beacon's owner has still to name it there."""
    assert home.beacon is not None
    arguments = encode(
        ["address", "uint32", "bytes32", "address"],
        [at.mailbox, home.domain, word_of(home.beacon), module],
    )
    return _ended(at, mirror=ours(rpc, "RegistryMirror", arguments))


def link(net: Devnet, validators: Sequence[str], threshold: int) -> Deployment:
    """Connect running local chains: a beacon on the home chain, a mirror on every other.

    The chains' own deployments stay as they are. Chain ids serve as domains, and mirrors believe
    what `threshold` of the validators have signed.
    """
    artifacts = fetch()
    known = net.deployment
    home = known.chain(known.home)
    rpcs = {chain.name: net.rpc(chain.name) for chain in known.chains}
    modules = {
        name: deploy_module(rpc, artifacts, validators, threshold) for name, rpc in rpcs.items()
    }
    core = {
        chain.name: deploy_hyperlane(
            rpcs[chain.name],
            artifacts,
            chain.chain_id,
            [other.chain_id for other in known.chains if other is not chain],
            modules[chain.name],
        )
        for chain in known.chains
    }
    store = ask(rpcs[home.name], ModelRegistry(home.model_registry).parameter_store())
    at = {
        home.name: deploy_beacon(
            rpcs[home.name], core[home.name], home.model_registry, store, home.decided_here.timelock
        )
    }
    beacon = RegistryBeacon(str(at[home.name].beacon))
    for name, rpc in rpcs.items():
        if name == home.name:
            continue
        at[name] = deploy_mirror(rpc, core[name], at[home.name], modules[name])
        net.govern(home.name, beacon.set_mirror(at[name].domain, str(at[name].mirror)))
    chains = tuple(chain.model_copy(update={"messages": at[chain.name]}) for chain in known.chains)
    return known.model_copy(update={"chains": chains})


def ours(rpc: Rpc, name: str, arguments: bytes) -> str:
    """Deploy one of our own contracts as shipped; gives its address."""
    shipped = json.loads((files("fedtrade.chain") / "abi" / f"{name}.json").read_text())
    return _create(rpc, name, bytes.fromhex(shipped["bytecode"].removeprefix("0x")) + arguments)


def _ended(at: MessagesAt, **end: str) -> MessagesAt:
    return MessagesAt.model_validate({**dict(at), **end})


def _deploy(rpc: Rpc, artifacts: Artifacts, member: str, arguments: bytes = b"") -> str:
    code = artifacts.factory(HYPERLANE, member).code
    return _create(rpc, member, code + arguments)


def _create(rpc: Rpc, name: str, code: bytes) -> str:
    body = {"from": GOVERNOR, "data": "0x" + code.hex(), "gas": hex(GAS)}
    receipt = rpc.call("eth_sendTransactionSync", body)
    if receipt["status"] != "0x1":
        raise Reverted(f"Deploying {name}", "it created nothing")
    return to_checksum_address(receipt["contractAddress"])
