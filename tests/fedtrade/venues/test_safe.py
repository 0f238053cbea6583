"""Custody's calls without a chain: digests against eth-account, orders there and back."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.resources import files

import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.market.instruments import PoolKey, Token
from fedtrade.venues import safe
from fedtrade.venues import uniswap_v3 as v3
from fedtrade.venues.codec import Call, Function, LogShape

ADDRESS = "0x" + "5a" * 20
ADDRESSES = st.integers(1, 2**160 - 1).map(lambda n: f"0x{n:040x}")
KEY = PoolKey("0x" + "33" * 20, Token("0x" + "11" * 20, "WETH", 18),
              Token("0x" + "22" * 20, "USDC", 6), 500, 10, True)  # fmt: skip


class VENUE:
    position_manager = "0x" + "44" * 20
    swap_router = "0x" + "55" * 20


SAFE_TX = {
    "SafeTx": [
        {"name": name, "type": kind}
        for name, kind in (
            ("to", "address"), ("value", "uint256"), ("data", "bytes"), ("operation", "uint8"),
            ("safeTxGas", "uint256"), ("baseGas", "uint256"), ("gasPrice", "uint256"),
            ("gasToken", "address"), ("refundReceiver", "address"), ("nonce", "uint256"),
        )
    ]
}  # fmt: skip


@given(ADDRESSES, ADDRESSES, st.binary(max_size=80), st.integers(0, 2**64), st.integers(0, 1))
def test_an_owner_signs_what_eip_712_says(account, to, data, nonce, operation):
    signable = encode_typed_data(
        domain_data={"chainId": 31101, "verifyingContract": account},
        message_types=SAFE_TX,
        message_data={
            "to": to, "value": 0, "data": data, "operation": operation, "safeTxGas": 0,
            "baseGas": 0, "gasPrice": 0, "gasToken": safe.NOBODY, "refundReceiver": safe.NOBODY,
            "nonce": nonce,
        },
    )  # fmt: skip
    ours = safe.safe_transaction_digest(31101, account, Call(to, data), nonce, operation)
    assert ours == bytes(_hash_eip191_message(signable))


@given(
    st.integers(0, 2**64 - 1),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**64 - 1),
    st.lists(st.tuples(ADDRESSES, st.binary(max_size=70)), min_size=1, max_size=8),
)
def test_an_order_says_what_it_was_given(nonce, model, deadline_s, inner):
    calls = [Call(to, data) for to, data in inner]
    sent = safe.encode_order(ADDRESS, nonce, model.hex(), deadline_s, calls)
    assert sent.to == ADDRESS
    assert sent.value_wei == 0
    assert safe.EXECUTE.decode_input(sent.data) == ((nonce, model, deadline_s, tuple(inner)),)


def test_an_order_that_no_breaker_takes_is_not_made():
    call = Call(ADDRESS, b"")
    for calls in ([], [call] * 9, [Call(ADDRESS, b"", 1)]):
        with pytest.raises(ValueError, match="1 to 8 calls"):
            safe.encode_order(ADDRESS, 0, "ab" * 32, 1, calls)


def test_several_calls_are_packed_as_multi_send_reads_them():
    calls = [Call("0x" + "01" * 20, b"abc", 7), Call("0x" + "02" * 20, b"")]
    (packed,) = safe.MULTI_SEND.decode_input(safe.encode_multi_send(ADDRESS, calls).data)
    first = b"\0" + b"\1" * 20 + (7).to_bytes(32) + (3).to_bytes(32) + b"abc"
    assert packed == first + b"\0" + b"\2" * 20 + bytes(64)


def test_who_sends_needs_no_signature():
    signed = safe.sent_by(ADDRESS)
    assert len(signed) == 65
    assert signed[12:32] == b"\x5a" * 20
    assert signed[64] == 1


def test_everything_that_names_a_recipient_or_a_token_is_scoped():
    calls = safe.role_calls("0x" + "66" * 20, "0x" + "77" * 20, ADDRESS, KEY, VENUE)
    scoped = {}
    for call in calls:
        if call.data[:4] == safe.SCOPE_FUNCTION.selector:
            _, target, selector, is_scoped, *_, values, options = safe.SCOPE_FUNCTION.decode_input(
                call.data
            )
            assert options == 0
            scoped[target, selector] = {n: v for n, v in enumerate(values) if is_scoped[n]}
    word = {name: bytes(12) + bytes.fromhex(name[2:]) for name in (ADDRESS, KEY.token0.address,
            KEY.token1.address)}  # fmt: skip
    fee = (500).to_bytes(32)
    manager, router = VENUE.position_manager, VENUE.swap_router
    assert scoped == {
        (manager, v3.PROVIDE.selector): {
            0: word[KEY.token0.address], 1: word[KEY.token1.address], 2: fee, 9: word[ADDRESS]},
        (manager, v3.COLLECT.selector): {1: word[ADDRESS]},
        (router, v3.SWAP_EXACT_INPUT.selector): {2: fee, 3: word[ADDRESS]},
    }  # fmt: skip
    # The words that are scoped are those in which our own calldata has these values.
    mint = v3.encode_provide(KEY, ADDRESS, (-10, 10), (1, 2))
    swap = v3.encode_swap(KEY, ADDRESS, True, 5)
    collect = v3.COLLECT.encode((9, ADDRESS, 1, 1))
    for target, data in ((manager, mint), (router, swap), (manager, collect)):
        for place, value in scoped[target, data[:4]].items():
            assert data[4 + 32 * place : 36 + 32 * place] == value
    one_of = [safe.SCOPE_ONE_OF.decode_input(c.data) for c in calls
              if c.data[:4] == safe.SCOPE_ONE_OF.selector]  # fmt: skip
    tokens = (word[KEY.token0.address], word[KEY.token1.address])
    assert [(row[2], row[3], row[5]) for row in one_of] == [
        (v3.SWAP_EXACT_INPUT.selector, place, tokens) for place in (0, 1)
    ]


def test_every_binding_of_the_breaker_is_in_its_abi():
    abi = json.loads((files("fedtrade.chain") / "abi" / "BreakerModifier.json").read_text())["abi"]

    def canonical(parameter):
        kind = parameter["type"]
        if not kind.startswith("tuple"):
            return kind
        inner = ",".join(canonical(part) for part in parameter["components"])
        return f"({inner}){kind.removeprefix('tuple')}"

    def listed(entries):
        return "(" + ",".join(map(canonical, entries)) + ")"

    compiled = {e["name"] + listed(e["inputs"]): listed(e.get("outputs", ())) for e in abi
                if e["type"] in ("function", "event")}  # fmt: skip
    ours = [safe.EXECUTE, safe.NEXT_NONCE, safe.AGENT, safe.GUARDIAN, safe.SAFE_OF, safe.HALTED,
            safe.OWN_LIMITS, safe.IN_FORCE, safe.SPENT_TODAY, safe.HALT, safe.RESUME,
            safe.SET_AGENT, safe.SET_GUARDIAN, safe.SET_LIMITS]  # fmt: skip
    for function in ours:
        assert isinstance(function, Function)
        assert compiled[function.signature] == function.returns
    assert isinstance(safe.ORDER_EXECUTED, LogShape)
    assert safe.ORDER_EXECUTED.signature in compiled
    (row,) = [e for e in abi if e.get("name") == "setLimits"]
    names = [part["name"] for part in row["inputs"][0]["components"]]
    ours_ = [f.name for f in fields(safe.BreakerLimits)]
    assert [n.lower() for n in names] == [n.replace("_", "") for n in ours_]
