"""Set up custody on any EVM chain: a Safe, Zodiac Roles before it, and our breaker before both.

Everything gets an address that follows from its code and its plan: shared code through the CREATE2
deployer that stands on most chains (and on anvil), the Safe and its Roles through their own
factories. So what is found at an address is what was pinned, whoever put it there, and a set-up
that broke off goes on when it is run again with the same plan by the same sender.

    1. shared code, once a chain: SafeL2, its factory and handler, MultiSendCallOnly, Roles v1 with
       its library, the module factory
    2. a Safe with the sender as its only owner, empty
    3. Roles, which from birth belongs to that Safe; the breaker
    4. one transaction of the Safe: approvals, Roles as its module, what Roles allows, the breaker
       as Roles' module, and the real owners in the sender's place
    5. all of it read back and compared with the plan

Up to step 4 the Safe has no module and no money; after it the sender has no power. Send money only
to a Safe that `verify` has passed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from fedtrade.chain.conversation import Conversation, ask, read
from fedtrade.chain.deployment import ChainDeployment, Custody
from fedtrade.chain.rpc import Rpc, from_hex
from fedtrade.devnet.artifacts import SAFE, ZODIAC, package_folder
from fedtrade.errors import BadInput, Fault, Unavailable
from fedtrade.venues import safe as venue
from fedtrade.venues.codec import Call, Function
from fedtrade.venues.safe import BreakerLimits
from fedtrade.venues.uniswap_v3 import ALLOWANCE, UINT256_MAX

CREATE2_DEPLOYER: Final = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
"""Takes salt ‖ creation code from anybody. Its own address is the same on every chain."""
ERC2470_DEPLOYER: Final = "0xce0042B868300000d44A59004Da54A005ffdcf9f"
"""Where Zodiac's published code expects its library to come from."""
OWNERS_MAX: Final = 16

_SAFE_FILES: Final = {
    "singleton": "SafeL2.sol/SafeL2",
    "factory": "proxies/SafeProxyFactory.sol/SafeProxyFactory",
    "handler": "handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler",
    "multi_send": "libraries/MultiSendCallOnly.sol/MultiSendCallOnly",
}
_GUARD_SLOT: Final = int.from_bytes(keccak(text="guard_manager.guard.address"))
_SET_UP_TYPE: Final = "(" + ",".join(["address"] * 9) + ")"
_LIMITS_TYPE: Final = "(" + ",".join(["uint64"] * 7) + ")"

Send = Callable[[Call], Mapping[str, Any]]
"""Sends a transaction of the sender and gives its receipt; raises where it reverts."""


class NotAsPlanned(Fault):
    """What stands on the chain is not what the plan says."""

    def __init__(self, what: str, expected: object, got: object) -> None:
        super().__init__(
            f"Custody: {what} is {got}, the plan says {expected}. Send no money to this Safe; set up "
            "another one, or have its owners correct this."
        )
        self.what = what
        self.expected = expected
        self.got = got


@dataclass(frozen=True, slots=True)
class CustodyPlan:
    """One Safe before it exists."""

    owners: tuple[str, ...]
    """Who the Safe belongs to; `threshold` of them sign together."""
    threshold: int
    agent: str
    """Address of the agent's key: sends orders, and is no owner."""
    guardian: str
    """May halt; the zero address for nobody but the owners."""
    parameters: str
    """Contract that says the governed parameters on this chain (store or mirror)."""
    models: str
    """Contract that says the live model on this chain (registry or mirror)."""
    limits: BreakerLimits

    def __post_init__(self) -> None:
        lower = [owner.lower() for owner in self.owners]
        if not 1 <= len(lower) <= OWNERS_MAX or len(set(lower)) < len(lower):
            raise BadInput("owners", f"not 1 to {OWNERS_MAX} different ones", "Correct them.")
        if not 1 <= self.threshold <= len(lower):
            raise BadInput("threshold", f"not in 1..{len(lower)}", "Ask for no more than owners.")
        if self.agent.lower() in lower:
            raise BadInput(
                "owners",
                "the agent's key is one of them",
                "An owner's key can sign for everything; give the agent a key of its own.",
            )
        if self.agent.lower() == self.guardian.lower():
            raise BadInput("guardian", "it is the agent's key", "Give it to somebody who watches.")


@dataclass(frozen=True, slots=True)
class SharedCode:
    """Creation code that a chain needs once, and the addresses that follow from it."""

    code: Mapping[str, bytes]

    def address(self, name: str) -> str:
        return create2_address(CREATE2_DEPLOYER, bytes(32), self.code[name])


def shared_code(store: Path) -> SharedCode:
    """Read the pinned packages (`artifacts.fetch_packages(CUSTODY)`); link Roles to its library."""
    folder = package_folder(store, SAFE) / "build/artifacts/contracts"
    code = {
        name: from_hex(json.loads((folder / f"{member}.json").read_bytes())["bytecode"])
        for name, member in _SAFE_FILES.items()
    }
    _, code["modules"] = _init_data(store, "ModuleProxyFactory")
    salt, code["permissions"] = _init_data(store, "Permissions")
    published = create2_address(ERC2470_DEPLOYER, salt, code["permissions"])
    ours = create2_address(CREATE2_DEPLOYER, bytes(32), code["permissions"])
    _, roles = _init_data(store, "RolesV1")
    linked = roles.replace(bytes.fromhex(published[2:]), bytes.fromhex(ours[2:]))
    if linked == roles:
        raise Fault(f"{ZODIAC}: Roles is not linked to its library. Correct artifacts.lock.json.")
    code["roles"] = linked
    return SharedCode(code)


def create2_address(deployer: str, salt: bytes, init_code: bytes) -> str:
    """EIP-1014."""
    packed = b"\xff" + bytes.fromhex(deployer[2:]) + salt + keccak(init_code)
    return to_checksum_address(keccak(packed)[12:])


def set_up(
    rpc: Rpc,
    send: Send,
    sender: str,
    chain: ChainDeployment,
    plan: CustodyPlan,
    shared: SharedCode,
    tell: Callable[[str], None] = lambda line: None,
) -> Custody:
    """Bring about what the plan says, as far as it is not there yet; verified when it returns.

    `sender` pays, and has no power afterwards; it may not be an owner. Raises NotAsPlanned.
    """
    if sender.lower() in (owner.lower() for owner in plan.owners):
        raise BadInput("sender", "it is one of the owners", "Pay with another key.")
    if not _has_code(rpc, CREATE2_DEPLOYER):
        raise Unavailable(
            "CREATE2 deployer",
            f"there is none at {CREATE2_DEPLOYER} on this chain",
            "Put it there first (one published transaction, the same on every chain).",
        )

    def put(name: str, address: str, call: Call) -> None:
        if _has_code(rpc, address):
            tell(f"{name}: {address}, already there")
            return
        receipt = send(call)
        if not _has_code(rpc, address):
            raise NotAsPlanned(name, address, "nowhere")
        tell(f"{name}: {address}, {int(receipt['gasUsed'], 16)} gas")

    for name, code in shared.code.items():
        put(name, shared.address(name), Call(CREATE2_DEPLOYER, bytes(32) + code))
    found, calls = _planned(rpc, sender, chain, plan, shared)
    put("Safe", found.safe, calls[0])
    put("Roles", found.roles, calls[1])
    put("breaker", found.breaker, calls[2])
    batch = configuration(sender, chain, plan, found, shared)
    tell(
        "configuration: Safe transaction 0 is 0x"
        + venue.safe_transaction_digest(
            chain.chain_id, found.safe, batch, 0, venue.DELEGATE_CALL
        ).hex()
    )
    if _ask(rpc, found.safe, venue.SAFE_NONCE) == 0:
        signed = venue.sent_by(sender)
        receipt = send(
            venue.encode_safe_transaction(found.safe, batch, signed, venue.DELEGATE_CALL)
        )
        tell(f"configured, {int(receipt['gasUsed'], 16)} gas")
    verify(rpc, chain, plan, found, shared)
    return found


def configuration(
    sender: str, chain: ChainDeployment, plan: CustodyPlan, found: Custody, shared: SharedCode
) -> Call:
    """The one transaction that makes an empty Safe what it is to be."""
    key = chain.pool_key()
    calls = [
        *venue.approval_calls(key, chain),
        *venue.role_calls(found.roles, found.breaker, found.safe, key, chain),
        Call(found.safe, venue.ENABLE_MODULE.encode(found.roles)),
        *venue.handover_calls(found.safe, sender, plan.owners, plan.threshold),
    ]
    return venue.encode_multi_send(shared.address("multi_send"), calls)


def verify(
    rpc: Rpc, chain: ChainDeployment, plan: CustodyPlan, found: Custody, shared: SharedCode
) -> None:
    """Read everything back that can be read. Raises NotAsPlanned with the first difference.

    Which functions Roles allows has no view: that is settled by the configuration, which is the
    Safe's first transaction (its hash stands in the Safe's first ExecutionSuccess), and by
    nobody but the Safe owning Roles.
    """
    told = ask(rpc, _state(chain, found))
    singleton = int(shared.address("singleton"), 16).to_bytes(32)
    proxy = bytes.fromhex("363d3d373d3d3d363d73" + shared.address("roles")[2:])
    expected: dict[str, object] = {
        "the Safe's owners": sorted(owner.lower() for owner in plan.owners),
        "the Safe's threshold": plan.threshold,
        "the Safe's modules": [found.roles.lower()],
        "the Safe's code": singleton,
        "the Safe's guard": bytes(32),
        "Roles' owner": found.safe.lower(),
        "Roles' avatar": found.safe.lower(),
        "Roles' target": found.safe.lower(),
        "Roles' multisend": venue.NOBODY,
        "Roles' guard": venue.NOBODY,
        "Roles' modules": [found.breaker.lower()],
        "the breaker's role": venue.ROLE,
        "the breaker's Safe": found.safe.lower(),
        "the breaker's agent": plan.agent.lower(),
        "the breaker's guardian": plan.guardian.lower(),
        "the breaker's limits": astuple(plan.limits),
        "whether it is halted": False,
        "the approvals": [True] * 4,
    }
    for what, wanted in expected.items():
        if told[what] != wanted:
            raise NotAsPlanned(what, wanted, told[what])
    code = from_hex(rpc.call("eth_getCode", found.roles, "latest"))
    if not code.startswith(proxy):
        raise NotAsPlanned("Roles' code", "a proxy of the pinned Roles v1", code.hex())
    breaker = breaker_code(chain, plan, found)
    if found.breaker != create2_address(CREATE2_DEPLOYER, bytes(32), breaker):
        raise NotAsPlanned("the breaker", "our code with this plan", found.breaker)


def breaker_code(chain: ChainDeployment, plan: CustodyPlan, found: Custody) -> bytes:
    """The creation code of this plan's breaker; its address follows from it."""
    text = (files("fedtrade.chain") / "abi" / "BreakerModifier.json").read_bytes()
    arguments = (
        found.safe,
        found.roles,
        plan.parameters,
        plan.models,
        chain.pool,
        chain.price_feed,
        chain.quote.address,
        plan.agent,
        plan.guardian,
    )
    limits = astuple(plan.limits)
    return from_hex(json.loads(text)["bytecode"]) + encode(
        [_SET_UP_TYPE, _LIMITS_TYPE], [arguments, limits]
    )


def _planned(
    rpc: Rpc, sender: str, chain: ChainDeployment, plan: CustodyPlan, shared: SharedCode
) -> tuple[Custody, list[Call]]:
    """Where Safe, Roles and breaker will be, and the calls that put them there."""
    kinds = ["address[]", "uint256", *["address"] * 6, _LIMITS_TYPE]
    where = (plan.agent, plan.guardian, plan.parameters, plan.models, chain.pool, chain.price_feed)
    values = (plan.owners, plan.threshold, *where, astuple(plan.limits))
    salt = int.from_bytes(keccak(encode(kinds, values)))
    factory, modules = shared.address("factory"), shared.address("modules")
    to_set_up = venue.SETUP.encode(
        [sender], 1, venue.NOBODY, b"", shared.address("handler"), venue.NOBODY, 0, venue.NOBODY
    )
    (proxy,) = venue.PROXY_CODE.decode(rpc.eth_call(factory, venue.PROXY_CODE.encode()))
    singleton = shared.address("singleton")
    mixed = keccak(keccak(to_set_up) + salt.to_bytes(32))
    safe = create2_address(factory, mixed, proxy + encode(["address"], [singleton]))

    owned = venue.SET_UP.encode(encode(["address"] * 3, [safe] * 3))
    minimal = "602d8060093d393df3363d3d373d3d3d363d73{}5af43d82803e903d91602b57fd5bf3"
    clone = bytes.fromhex(minimal.format(shared.address("roles")[2:]))
    roles = create2_address(modules, keccak(keccak(owned) + salt.to_bytes(32)), clone)

    unnamed = Custody(safe=safe, roles=roles, breaker=venue.NOBODY)
    breaker = breaker_code(chain, plan, unnamed)
    found = Custody(
        safe=safe,
        roles=roles,
        breaker=create2_address(CREATE2_DEPLOYER, bytes(32), breaker),
    )
    return found, [
        Call(factory, venue.CREATE_PROXY.encode(singleton, to_set_up, salt)),
        Call(modules, venue.DEPLOY_MODULE.encode(shared.address("roles"), owned, salt)),
        Call(CREATE2_DEPLOYER, bytes(32) + breaker),
    ]


def _state(chain: ChainDeployment, found: Custody) -> Conversation[dict[str, object]]:
    """Everything about a custody that has a view, addresses in lower case."""
    safe, roles, breaker = found.safe, found.roles, found.breaker
    spenders = (chain.position_manager, chain.swap_router)
    tokens = (chain.base.address, chain.quote.address)
    asked: dict[str, tuple[str, Function, tuple[object, ...]]] = {
        "the Safe's owners": (safe, venue.OWNERS, ()),
        "the Safe's threshold": (safe, venue.THRESHOLD, ()),
        "the Safe's modules": (safe, venue.MODULES, (venue.FIRST, 10)),
        "the Safe's code": (safe, venue.STORAGE_AT, (0, 1)),
        "the Safe's guard": (safe, venue.STORAGE_AT, (_GUARD_SLOT, 1)),
        "Roles' owner": (roles, venue.OWNER, ()),
        "Roles' avatar": (roles, venue.AVATAR, ()),
        "Roles' target": (roles, venue.TARGET, ()),
        "Roles' multisend": (roles, venue.MULTISEND_OF, ()),
        "Roles' guard": (roles, venue.GUARD, ()),
        "Roles' modules": (roles, venue.MODULES, (venue.FIRST, 10)),
        "the breaker's role": (roles, venue.DEFAULT_ROLE, (breaker,)),
        "the breaker's Safe": (breaker, venue.SAFE_OF, ()),
        "the breaker's agent": (breaker, venue.AGENT, ()),
        "the breaker's guardian": (breaker, venue.GUARDIAN, ()),
        "the breaker's limits": (breaker, venue.OWN_LIMITS, ()),
        "whether it is halted": (breaker, venue.HALTED, ()),
    }
    answers = yield from read(list(asked.values()), "latest")
    told: dict[str, object] = {what: answer[0] for what, answer in zip(asked, answers, strict=True)}
    told["the Safe's owners"] = sorted(told["the Safe's owners"])  # type: ignore[call-overload]
    for what in ("the Safe's modules", "Roles' modules"):
        told[what] = list(told[what])  # type: ignore[call-overload]
    allowed = yield from read(
        [(token, ALLOWANCE, (safe, spender)) for token in tokens for spender in spenders], "latest"
    )
    told["the approvals"] = [amount > UINT256_MAX // 2 for (amount,) in allowed]
    return told


def _ask(rpc: Rpc, to: str, view: Function) -> Any:
    return view.decode(rpc.eth_call(to, view.encode()))[0]


def _has_code(rpc: Rpc, address: str) -> bool:
    return bool(from_hex(rpc.call("eth_getCode", address, "latest")))


def _init_data(store: Path, name: str) -> tuple[bytes, bytes]:
    """(salt, creation code) as Zodiac publishes them: two exported constants."""
    text = (package_folder(store, ZODIAC) / "dist/esm/initData" / f"{name}.js").read_text()
    found = dict(re.findall(r'export const (\w+) = "0x([0-9a-fA-F]*)"', text))
    return bytes.fromhex(found["salt"]), bytes.fromhex(found["initCode"])
