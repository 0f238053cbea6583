"""Signing one EIP-1559 transaction: `clients.keys` beside eth-account with both of its backends.

All three sign the same transactions with the same throw-away key, and every byte must agree.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import coincurve
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from eth_account import Account
from eth_keys.backends.base import BaseECCBackend
from eth_keys.backends.coincurve import CoinCurveECCBackend
from eth_keys.backends.native.main import NativeECCBackend
from eth_keys.datatypes import PrivateKey

from benchmarks.measure import Row, alternate, row
from clients.keys import MemberKeys
from fedtrade.errors import Fault

TRANSACTIONS = 20
REPETITIONS = 10
PACKAGES = ("eth-account", "coincurve")


class OtherBytes(Fault):
    """A counterpart's signed transaction differs from ours."""

    def __init__(self, side: str) -> None:
        super().__init__(f"{side}: its signed bytes differ from ours for the same transaction.")
        self.side = side


def rows() -> list[Row]:
    """Ours against eth-account in pure Python and with coincurve; raises OtherBytes."""
    key = coincurve.PrivateKey()
    keys = MemberKeys(key, X25519PrivateKey.generate())
    transactions = [_transaction(nonce) for nonce in range(TRANSACTIONS)]
    accounts = {
        "pure Python": _account(NativeECCBackend(), key.secret),
        "coincurve": _account(CoinCurveECCBackend(), key.secret),
    }
    for transaction in transactions:
        raw, digest = keys.sign_transaction(transaction)
        for name, account in accounts.items():
            signed = account.sign_transaction(transaction)
            if bytes(signed.raw_transaction) != raw or "0x" + signed.hash.hex() != digest:
                raise OtherBytes(f"eth-account ({name})")
    turns = {name: cycle(transactions) for name in ("ours", *accounts)}
    taken = alternate(
        {
            "ours": lambda: keys.sign_transaction(next(turns["ours"])),
            **{
                name: (lambda a, t: lambda: a.sign_transaction(next(t)))(account, turns[name])
                for name, account in accounts.items()
            },
        },
        REPETITIONS,
        inner={"ours": 50, "coincurve": 10},
    )
    return [
        row(
            "sign_eip1559",
            "eth-account, pure Python",
            taken["ours"] * 1e6,
            taken["pure Python"] * 1e6,
            "us",
            PACKAGES,
        ),
        row(
            "sign_eip1559_coincurve",
            "eth-account with coincurve",
            taken["ours"] * 1e6,
            taken["coincurve"] * 1e6,
            "us",
            PACKAGES,
        ),
    ]


class _AccountWith(Account):
    """An `Account` whose keys use one backend (`set_key_backend` does not reach them in 0.14)."""

    def __init__(self, backend: BaseECCBackend) -> None:
        super().__init__()
        self._backend = backend

    def _parse_private_key(self, key: Any) -> PrivateKey:
        return key if isinstance(key, PrivateKey) else PrivateKey(bytes(key), self._backend)


def _account(backend: BaseECCBackend, secret: bytes) -> Any:
    """An eth-account that signs with this backend, as its user would call it."""
    return _AccountWith(backend).from_key(secret)


def _transaction(nonce: int) -> dict[str, object]:
    """A call with 260 bytes of data, such as an agent sends."""
    return {
        "type": 2,
        "chainId": 31101,
        "nonce": nonce,
        "to": "0x" + "22" * 20,
        "value": 0,
        "gas": 300_000,
        "maxFeePerGas": 10**10 + nonce,
        "maxPriorityFeePerGas": 10**9,
        "data": "0x" + "ab" * 260,
    }
