"""Transactions as a node's JSON tells them: those that wait, and those of a block."""

from __future__ import annotations

from typing import Any, Final

from eth_utils.address import to_checksum_address

from fedtrade.market.pending import PendingTransaction
from fedtrade.venues.codec import AnswerUnreadable, field, index, quantity

INPUT_MAX_BYTES: Final = 2**17
"""Nodes take in no larger transaction (geth: 128 KiB), so a larger one is none."""


def transaction_of(raw: object) -> PendingTransaction:
    """A transaction of `newPendingTransactions` (whole), `txpool_content` or a block.

    Raises AnswerUnreadable.
    """
    legacy = "maxFeePerGas" not in raw if isinstance(raw, dict) else False
    return PendingTransaction(
        hash=_hash(field(raw, "hash")),
        sender=_address(field(raw, "from")),
        nonce=index(field(raw, "nonce")),
        to=None if field(raw, "to") is None else _address(field(raw, "to")),
        value_wei=quantity(field(raw, "value")),
        gas=index(field(raw, "gas")),
        max_fee_wei=quantity(field(raw, "gasPrice" if legacy else "maxFeePerGas")),
        max_tip_wei=quantity(field(raw, "gasPrice" if legacy else "maxPriorityFeePerGas")),
        input=_bytes("input", field(raw, "input"), INPUT_MAX_BYTES),
    )


def mined_in(block: object) -> list[tuple[str, str, int]]:
    """(hash, sender, nonce) of each transaction of a block that was read with its transactions.

    Raises AnswerUnreadable.
    """
    listed = field(block, "transactions")
    if not isinstance(listed, list):
        raise AnswerUnreadable("transactions", "it is no list")
    return [
        (_hash(field(raw, "hash")), _address(field(raw, "from")), index(field(raw, "nonce")))
        for raw in listed
    ]


def _hash(value: Any) -> str:
    if len(_bytes("hash", value, 32)) != 32:
        raise AnswerUnreadable("hash", "it has not 32 bytes")
    return str(value).lower()


def _address(value: Any) -> str:
    if len(_bytes("address", value, 20)) != 20:
        raise AnswerUnreadable("address", "it has not 20 bytes")
    return str(to_checksum_address(value))


def _bytes(what: str, value: Any, most: int) -> bytes:
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 2 + 2 * most:
        raise AnswerUnreadable(what, f"it is no hex of at most {most} bytes")
    try:
        return bytes.fromhex(value[2:])
    except ValueError:
        raise AnswerUnreadable(what, "it is no hex") from None
