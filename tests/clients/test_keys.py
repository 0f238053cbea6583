"""The keystore: exact signatures, and each way in which a key could leave is shut."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import coincurve
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.keys import KEY_FILE, KeyWithheld, MemberKeys
from fedtrade.errors import BadInput, Unavailable

SECRET = bytes(range(1, 33))
KEYS = MemberKeys(coincurve.PrivateKey(SECRET), X25519PrivateKey.generate())
ACCOUNT = Account.from_key(SECRET)
TX: dict[str, Any] = {
    "chainId": 31101,
    "nonce": 7,
    "maxPriorityFeePerGas": 10**9,
    "maxFeePerGas": 3 * 10**9,
    "gas": 400_000,
    "to": "0x" + "22" * 20,
    "value": 0,
    "data": "0x" + "ab" * 260,
}

uint64 = st.integers(0, 2**64 - 1)
fee = st.integers(0, 2**100)


def test_address_and_digest_match_eth_account() -> None:
    assert KEYS.address == ACCOUNT.address
    digest = bytes(32)[:-1] + b"\x05"
    signature = KEYS.sign_digest(digest)
    assert signature == ACCOUNT.unsafe_sign_hash(digest).signature
    assert signature[64] in (27, 28)


@settings(max_examples=60, deadline=None)
@given(
    chain=uint64, nonce=st.integers(0, 2**60), gas=uint64, tip=fee, more=fee, value=fee,
    to=st.binary(min_size=20, max_size=20), data=st.binary(max_size=400),
)  # fmt: skip
def test_signed_bytes_equal_eth_account(
    chain: int, nonce: int, gas: int, tip: int, more: int, value: int, to: bytes, data: bytes
) -> None:
    tx: dict[str, Any] = {
        "chainId": chain,
        "nonce": nonce,
        "maxPriorityFeePerGas": tip,
        "maxFeePerGas": tip + more,
        "gas": gas,
        "to": to,
        "value": value,
        "data": data,
    }
    raw, tx_hash = KEYS.sign_transaction(tx)
    theirs = ACCOUNT.sign_transaction({"type": 2, **tx})
    assert raw == bytes(theirs.raw_transaction)
    assert tx_hash == "0x" + bytes(theirs.hash).hex()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nonce": -1}, "nonce"),
        ({"nonce": 1.0}, "nonce"),
        ({"gas": True}, "gas"),
        ({"value": 2**256}, "value"),
        ({"to": ""}, "'to'"),
        ({"to": "22" * 20}, "'to'"),
        ({"data": "0xzz"}, "'data'"),
        ({"maxPriorityFeePerGas": 4 * 10**9}, "priority fee"),
        ({"type": 1}, "EIP-1559"),
        ({"accessList": [1]}, "EIP-1559"),
        ({"gasPrice": 1}, "gasPrice"),
    ],
)
def test_a_transaction_that_is_not_exact_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        KEYS.sign_transaction({**TX, **change})


@pytest.mark.parametrize("field", ["nonce", "chainId", "maxFeePerGas", "gas", "to", "value"])
def test_no_field_is_guessed(field: str) -> None:
    with pytest.raises(BadInput, match=field):
        KEYS.sign_transaction({k: v for k, v in TX.items() if k != field})


def test_digest_must_have_32_bytes() -> None:
    with pytest.raises(BadInput, match="31 bytes"):
        KEYS.sign_digest(bytes(31))


def test_exchange_agrees_and_refuses_a_low_order_point() -> None:
    a, b = MemberKeys.ephemeral(), MemberKeys.ephemeral()
    assert a.x25519_exchange(b.x25519_public) == b.x25519_exchange(a.x25519_public)
    for bad in (bytes(32), bytes(31)):
        with pytest.raises(BadInput, match="x25519"):
            a.x25519_exchange(bad)


def test_created_keys_load_again_and_are_private(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        keys = MemberKeys.create(tmp_path / "own")
    finally:
        os.umask(previous)
    path = tmp_path / "own" / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "own").stat().st_mode & 0o077 == 0
    again = MemberKeys.load(tmp_path / "own")
    assert (again.address, again.x25519_public) == (keys.address, keys.x25519_public)
    assert again.sign_digest(SECRET) == keys.sign_digest(SECRET)
    assert [p.name for p in (tmp_path / "own").iterdir()] == [KEY_FILE]


def test_create_never_overwrites(tmp_path: Path) -> None:
    MemberKeys.create(tmp_path)
    before = (tmp_path / KEY_FILE).read_bytes()
    with pytest.raises(BadInput, match="already"):
        MemberKeys.create(tmp_path)
    assert (tmp_path / KEY_FILE).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    MemberKeys.create(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(BadInput, match=f"{mode:04o}"):
        MemberKeys.load(tmp_path)


def test_a_link_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no keys here"):
        MemberKeys.load(tmp_path)
    MemberKeys.create(tmp_path / "a")
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "a" / KEY_FILE)
    with pytest.raises(BadInput, match="plain"):
        MemberKeys.load(tmp_path)


def test_a_damaged_file_is_refused_without_quoting_the_key(tmp_path: Path) -> None:
    MemberKeys.create(tmp_path)
    path = tmp_path / KEY_FILE
    good = json.loads(path.read_text())
    secret = good["secp256k1"]
    for bad in (
        {**good, "x25519": good["x25519"][:-1]},
        {**good, "more": 1},
        {**good, "secp256k1": "00" * 32},
        {**good, "secp256k1": "ff" * 32},
        {**good, "secp256k1": secret + "00"},
        {**good, "format": 2},
    ):
        path.write_text(json.dumps(bad))
        with pytest.raises(BadInput) as refused:
            MemberKeys.load(tmp_path)
        seen = str(refused.value) + repr(refused.value.__cause__)
        assert secret not in seen
        assert good["x25519"][:-1] not in seen
    path.write_bytes(b"")
    with pytest.raises(BadInput, match="not a key file"):
        MemberKeys.load(tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((Unavailable, BadInput), match="file"):
        MemberKeys.create(tmp_path / "file" / "below")


def test_the_object_shows_only_its_address() -> None:
    shown = repr(KEYS) + str(KEYS)
    assert KEYS.address in shown
    assert SECRET.hex() not in shown
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(KeyWithheld):
            leave(KEYS)
    assert not hasattr(KEYS, "__dict__")
