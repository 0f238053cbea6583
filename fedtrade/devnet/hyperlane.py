"""Hyperlane on local chains: the real contracts, set up so that beacon and mirrors can talk.

Of each chain: the Mailbox; the MerkleTreeHook as required hook, so that every message is in the tree
that validators sign; an InterchainGasPaymaster with a price for every other chain as default hook,
so that posting costs something, as it does elsewhere; ValidatorAnnounce. Contracts are initialised
directly, not behind proxies. Validators and relayer are ours (`clients/validator.py`,
`server/relay.py`), and no one else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from fedtrade.chain.deploying import DEPLOY_MODULE, MODULE_OF, creation_code
from fedtrade.chain.deployment import MessagesAt
from fedtrade.chain.plan import MessagesPlan
from fedtrade.chain.rpc import Rpc
from fedtrade.devnet.accounts import GOVERNOR
from fedtrade.devnet.artifacts import HYPERLANE, Artifacts, fetch
from fedtrade.devnet.deploy import GAS, Reverted, send
from fedtrade.venues.codec import Call, Function
from fedtrade.venues.hyperlane import word_of

INITIALIZE_MAILBOX: Final = Function("initialize(address,address,address,address)")
INITIALIZE_PAYMASTER: Final = Function("initialize(address,address)")
SET_REMOTE_GAS: Final = Function("setRemoteGasDataConfigs((uint32,uint128,uint128)[])")
SET_DESTINATION_GAS: Final = Function("setDestinationGasConfigs((uint32,(address,uint96))[])")
MODULE_FACTORY: Final = "isms/multisig/StaticMultisigIsm.sol/StaticMessageIdMultisigIsmFactory"
EXCHANGE_RATE: Final = 10**10
"""Of the other chain's money in ours, in ten-thousand-millionths: one to one."""
GAS_PRICE_WEI: Final = 10**9
GAS_OVERHEAD: Final = 300_000
"""What taking a snapshot costs on the other side, about."""


def deploy_hyperlane(
    rpc: Rpc, artifacts: Artifacts, domain: int, others: Sequence[int]
) -> MessagesPlan:
    """Deploy Hyperlane as a plan of a deployment names it, with a way to each other domain.

    The mailbox's default security module is a contract that proves nothing, so that a message to a
    recipient without a module of its own is never taken. Mirrors have one.
    """
    mailbox = _deploy(rpc, artifacts, "Mailbox", encode(["uint32"], [domain]))
    client = encode(["address"], [mailbox])
    hook = _deploy(rpc, artifacts, "hooks/MerkleTreeHook", client)
    paymaster = _deploy(rpc, artifacts, "hooks/igp/InterchainGasPaymaster")
    oracle = _deploy(rpc, artifacts, "hooks/igp/StorageGasOracle")
    announce = _deploy(rpc, artifacts, "isms/multisig/ValidatorAnnounce", client)
    factory = _deploy(rpc, artifacts, MODULE_FACTORY)
    prices = [(other, EXCHANGE_RATE, GAS_PRICE_WEI) for other in others]
    limits = [(other, (oracle, GAS_OVERHEAD)) for other in others]
    for to, data in (
        (paymaster, INITIALIZE_PAYMASTER.encode(GOVERNOR, GOVERNOR)),
        (oracle, SET_REMOTE_GAS.encode(prices)),
        (paymaster, SET_DESTINATION_GAS.encode(limits)),
        (mailbox, INITIALIZE_MAILBOX.encode(GOVERNOR, factory, paymaster, hook)),
    ):
        send(rpc, GOVERNOR, Call(to, data))
    return MessagesPlan(
        domain=domain,
        mailbox=mailbox,
        merkle_tree_hook=hook,
        validator_announce=announce,
        multisig_factory=factory,
    )


def deploy_mirror(
    rpc: Rpc, at: MessagesAt, home: MessagesAt, validators: Sequence[str], threshold: int
) -> MessagesAt:
    """Another mirror that believes these validators; the beacon's owner has still to name it."""
    assert home.beacon is not None
    factory = _deploy(rpc, fetch(), MODULE_FACTORY)
    ordered = sorted(validators, key=lambda address: int(address, 16))
    send(rpc, GOVERNOR, Call(factory, DEPLOY_MODULE.encode(ordered, threshold)))
    (module,) = MODULE_OF.decode(rpc.eth_call(factory, MODULE_OF.encode(ordered, threshold)))
    code, types = creation_code("RegistryMirror")
    arguments = encode(types, [at.mailbox, home.domain, word_of(home.beacon), module])
    return at.model_copy(update={"mirror": _create(rpc, "RegistryMirror", code + arguments)})


def _deploy(rpc: Rpc, artifacts: Artifacts, member: str, arguments: bytes = b"") -> str:
    code = artifacts.factory(HYPERLANE, member).code
    return _create(rpc, member, code + arguments)


def _create(rpc: Rpc, name: str, code: bytes) -> str:
    body = {"from": GOVERNOR, "data": "0x" + code.hex(), "gas": hex(GAS)}
    receipt = rpc.call("eth_sendTransactionSync", body)
    if receipt["status"] != "0x1":
        raise Reverted(f"Deploying {name}", "it created nothing")
    return to_checksum_address(receipt["contractAddress"])
