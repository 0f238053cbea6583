"""Custody as calls: a Safe, the Roles before it, and the breaker through which an agent acts.

    agent's key → BreakerModifier (ours) → Zodiac Roles v1 → Safe 1.4.1

Signatures are hand-written from the public interfaces. Roles looks at calldata by words of 32
bytes; the arguments of Uniswap's functions are static tuples, which lie inline, so the place of a
field is the place of its word.

A Safe transaction is signed by its owners as EIP-712 typed data (`SafeTx`); an owner that sends the
transaction itself needs no signature (`sent_by`, "pre-validated" in Safe's documentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from fedtrade.market.instruments import PoolKey
from fedtrade.venues.codec import Call, Function, LogShape
from fedtrade.venues.uniswap_v3 import (
    BURN_TOKEN,
    COLLECT,
    DECREASE,
    PROVIDE,
    SWAP_EXACT_INPUT,
    Venue,
    encode_approval,
)

NOBODY: Final = "0x" + "00" * 20
FIRST: Final = "0x" + "00" * 19 + "01"
"""Head of the lists of owners and modules that Safe and Roles keep."""

# Safe 1.4.1
SETUP: Final = Function("setup(address[],uint256,address,bytes,address,address,uint256,address)")
CREATE_PROXY: Final = Function("createProxyWithNonce(address,bytes,uint256)", "(address)")
PROXY_CODE: Final = Function("proxyCreationCode()", "(bytes)")
EXEC_TRANSACTION: Final = Function(
    "execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)",
    "(bool)",
)
ENABLE_MODULE: Final = Function("enableModule(address)")
SWAP_OWNER: Final = Function("swapOwner(address,address,address)")
ADD_OWNER: Final = Function("addOwnerWithThreshold(address,uint256)")
CHANGE_THRESHOLD: Final = Function("changeThreshold(uint256)")
OWNERS: Final = Function("getOwners()", "(address[])")
THRESHOLD: Final = Function("getThreshold()", "(uint256)")
SAFE_NONCE: Final = Function("nonce()", "(uint256)")
MODULES: Final = Function("getModulesPaginated(address,uint256)", "(address[],address)")
STORAGE_AT: Final = Function("getStorageAt(uint256,uint256)", "(bytes)")
MULTI_SEND: Final = Function("multiSend(bytes)")

# Zodiac: module factory, Roles v1
DEPLOY_MODULE: Final = Function("deployModule(address,bytes,uint256)", "(address)")
SET_UP: Final = Function("setUp(bytes)")
ASSIGN_ROLES: Final = Function("assignRoles(address,uint16[],bool[])")
SET_DEFAULT_ROLE: Final = Function("setDefaultRole(address,uint16)")
SCOPE_TARGET: Final = Function("scopeTarget(uint16,address)")
SCOPE_FUNCTION: Final = Function(
    "scopeFunction(uint16,address,bytes4,bool[],uint8[],uint8[],bytes[],uint8)"
)
SCOPE_ONE_OF: Final = Function("scopeParameterAsOneOf(uint16,address,bytes4,uint256,uint8,bytes[])")
ALLOW_FUNCTION: Final = Function("scopeAllowFunction(uint16,address,bytes4,uint8)")
OWNER: Final = Function("owner()", "(address)")
AVATAR: Final = Function("avatar()", "(address)")
TARGET: Final = Function("target()", "(address)")
MULTISEND_OF: Final = Function("multisend()", "(address)")
GUARD: Final = Function("guard()", "(address)")
DEFAULT_ROLE: Final = Function("defaultRoles(address)", "(uint16)")

# BreakerModifier
_LIMITS: Final = "(uint64,uint64,uint64,uint64,uint64,uint64,uint64)"
EXECUTE: Final = Function("execute((uint64,bytes32,uint64,(address,bytes)[]))")
NEXT_NONCE: Final = Function("nextNonce()", "(uint64)")
AGENT: Final = Function("agent()", "(address)")
GUARDIAN: Final = Function("guardian()", "(address)")
SAFE_OF: Final = Function("safe()", "(address)")
HALTED: Final = Function("halted()", "(bool)")
OWN_LIMITS: Final = Function("ownLimits()", f"({_LIMITS})")
IN_FORCE: Final = Function("inForce()", f"({_LIMITS},bool,uint64)")
SPENT_TODAY: Final = Function("spentToday()", "(uint256)")
HALT: Final = Function("halt()")
RESUME: Final = Function("resume()")
SET_AGENT: Final = Function("setAgent(address)")
SET_GUARDIAN: Final = Function("setGuardian(address)")
SET_LIMITS: Final = Function(f"setLimits({_LIMITS})")
ORDER_EXECUTED: Final = LogShape(
    "OrderExecuted(uint64,bytes32,uint256,uint256)", "(uint64,bytes32,uint256)", "(uint256)"
)

CALL: Final = 0
DELEGATE_CALL: Final = 1
ROLE: Final = 1
"""The one role that there is."""
ORDER_CALLS_MAX: Final = 8

_STATIC: Final = 0
_EQUAL_TO: Final = 0
_NO_EXTRAS: Final = 0
"""Roles' options of a function: neither native value nor delegate calls."""

_SAFE_TX_TYPE: Final = keccak(
    text="SafeTx(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,"
    "uint256 baseGas,uint256 gasPrice,address gasToken,address refundReceiver,uint256 nonce)"
)
_DOMAIN_TYPE: Final = keccak(text="EIP712Domain(uint256 chainId,address verifyingContract)")


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """The owner's own limits of a breaker; in force is the tighter of these and the governed ones.

    Fields in the order of the contract's struct. Notionals are whole units of the quote.
    """

    action_notional_max: int
    epoch_notional_max: int
    slippage_max_bps: int
    oracle_deviation_max_bps: int
    oracle_age_max_s: int
    model_age_max_s: int
    mirror_age_max_s: int


def encode_order(
    breaker: str, nonce: int, model_sha256: str, deadline_s: int, calls: Sequence[Call]
) -> Call:
    """The agent's call that has the Safe make these calls, all of them or none.

    `model_sha256`: 64 hex digits. Raises ValueError where a call carries native value or there are
    too many: no breaker would take it.
    """
    if not 1 <= len(calls) <= ORDER_CALLS_MAX or any(call.value_wei for call in calls):
        raise ValueError(f"an order has 1 to {ORDER_CALLS_MAX} calls, without native value")
    inner = [(call.to, call.data) for call in calls]
    return Call(breaker, EXECUTE.encode((nonce, bytes.fromhex(model_sha256), deadline_s, inner)))


def encode_set_limits(breaker: str, limits: BreakerLimits) -> Call:
    """The owner's call that sets its own limits; to be sent by the Safe."""
    return Call(breaker, SET_LIMITS.encode(astuple(limits)))


def encode_multi_send(multi_send: str, calls: Sequence[Call]) -> Call:
    """Several calls as one, which a Safe makes by delegate call to MultiSendCallOnly."""
    packed = b"".join(
        bytes([CALL])
        + bytes.fromhex(call.to.removeprefix("0x"))
        + call.value_wei.to_bytes(32)
        + len(call.data).to_bytes(32)
        + call.data
        for call in calls
    )
    return Call(multi_send, MULTI_SEND.encode(packed))


def encode_safe_transaction(
    safe: str, call: Call, signatures: bytes, operation: int = CALL
) -> Call:
    """A Safe's own transaction with its owners' signatures; anybody may send it.

    `signatures`: 65 bytes each, ascending by the owner's address. No gas is refunded.
    """
    to_pay_back = (0, 0, 0, NOBODY, NOBODY)
    return Call(
        safe,
        EXEC_TRANSACTION.encode(
            call.to, call.value_wei, call.data, operation, *to_pay_back, signatures
        ),
    )


def safe_transaction_digest(
    chain_id: int, safe: str, call: Call, nonce: int, operation: int = CALL
) -> bytes:
    """What an owner signs so that the Safe makes this call (EIP-712, `SafeTx`)."""
    struct = keccak(
        encode(
            ["bytes32", "address", "uint256", "bytes32", "uint8", *["uint256"] * 3, "address",
             "address", "uint256"],
            [_SAFE_TX_TYPE, call.to, call.value_wei, keccak(call.data), operation, 0, 0, 0, NOBODY,
             NOBODY, nonce],
        )
    )  # fmt: skip
    domain = keccak(encode(["bytes32", "uint256", "address"], [_DOMAIN_TYPE, chain_id, safe]))
    return keccak(b"\x19\x01" + domain + struct)


def sent_by(owner: str) -> bytes:
    """In place of a signature: the owner is the one that sends the Safe's transaction."""
    return bytes(12) + bytes.fromhex(owner.removeprefix("0x")) + bytes(32) + b"\x01"


def handover_calls(safe: str, first: str, owners: Sequence[str], threshold: int) -> list[Call]:
    """Put `owners` in the place of the only owner `first`, with this threshold."""
    return [
        Call(safe, SWAP_OWNER.encode(FIRST, first, owners[0])),
        *(Call(safe, ADD_OWNER.encode(owner, 1)) for owner in owners[1:]),
        Call(safe, CHANGE_THRESHOLD.encode(threshold)),
    ]


def approval_calls(key: PoolKey, venue: Venue) -> list[Call]:
    """Let position manager and router take the pool's tokens; only what the Safe itself asks for."""
    return [
        encode_approval(token.address, spender)
        for token in (key.token0, key.token1)
        for spender in (venue.position_manager, venue.swap_router)
    ]


def role_calls(roles: str, breaker: str, safe: str, key: PoolKey, venue: Venue) -> list[Call]:
    """All that the breaker may have the Safe do: trade and provide in one pool, to the Safe itself.

    Not scoped, and so refused: approve, transfer, multicall, increaseLiquidity, every other target,
    native value, delegate calls. Roles' owner (the Safe) sends these.
    """
    pair = (key.token0.address, key.token1.address)
    manager, router = venue.position_manager, venue.swap_router
    mint = {0: _word(pair[0]), 1: _word(pair[1]), 2: key.fee_pips.to_bytes(32), 9: _word(safe)}
    swap = {2: key.fee_pips.to_bytes(32), 3: _word(safe)}
    tokens = [_word(token) for token in pair]
    selector = SWAP_EXACT_INPUT.selector
    return [
        Call(roles, SCOPE_TARGET.encode(ROLE, manager)),
        _scoped(roles, manager, PROVIDE, 11, mint),
        _scoped(roles, manager, COLLECT, 4, {1: _word(safe)}),
        Call(roles, ALLOW_FUNCTION.encode(ROLE, manager, DECREASE.selector, _NO_EXTRAS)),
        Call(roles, ALLOW_FUNCTION.encode(ROLE, manager, BURN_TOKEN.selector, _NO_EXTRAS)),
        Call(roles, SCOPE_TARGET.encode(ROLE, router)),
        _scoped(roles, router, SWAP_EXACT_INPUT, 8, swap),
        # One token of the pool for a token of the pool: there is no pool of a token with itself.
        Call(roles, SCOPE_ONE_OF.encode(ROLE, router, selector, 0, _STATIC, tokens)),
        Call(roles, SCOPE_ONE_OF.encode(ROLE, router, selector, 1, _STATIC, tokens)),
        Call(roles, ASSIGN_ROLES.encode(breaker, [ROLE], [True])),
        Call(roles, SET_DEFAULT_ROLE.encode(breaker, ROLE)),
    ]


def _scoped(
    roles: str, target: str, function: Function, words: int, fixed: dict[int, bytes]
) -> Call:
    """Allow a function whose words at these places must equal these values."""
    places = range(words)
    return Call(
        roles,
        SCOPE_FUNCTION.encode(
            ROLE,
            target,
            function.selector,
            [place in fixed for place in places],
            [_STATIC] * words,
            [_EQUAL_TO] * words,
            [fixed.get(place, b"") for place in places],
            _NO_EXTRAS,
        ),
    )


def _word(address: str) -> bytes:
    return bytes(12) + bytes.fromhex(address.removeprefix("0x"))
