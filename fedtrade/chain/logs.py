"""Logs over many blocks, asked for in pieces that common nodes answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fedtrade.chain.conversation import Conversation
from fedtrade.errors import BadInput
from fedtrade.venues.codec import AnswerUnreadable, place_of

PIECE_BLOCKS: Final = 10_000
"""The most blocks of one question: what most providers allow."""
PIECES_MAX: Final = 2_000
LOGS_MAX: Final = 65_536


def logs_between(
    address: str, topics: Sequence[str], first: int, last: int
) -> Conversation[list[Mapping[str, Any]]]:
    """The logs of one contract with one of these first topics, in order; both ends included.

    Raises BadInput for more than 20 million blocks, so that no head that a node invents makes this
    go on for ever, and AnswerUnreadable for answers that are no logs or are of another contract.
    """
    if last - first >= PIECE_BLOCKS * PIECES_MAX:
        raise BadInput(
            "from_block",
            f"{last - first} blocks lie between {first} and the newest one",
            "Correct from_block in the deployment file, or use another node",
        )
    found: list[Mapping[str, Any]] = []
    for start in range(first, last + 1, PIECE_BLOCKS):
        asked = {
            "address": address,
            "topics": [list(topics)],
            "fromBlock": hex(start),
            "toBlock": hex(min(last, start + PIECE_BLOCKS - 1)),
        }
        (answer,) = yield [("eth_getLogs", [asked])]
        if not isinstance(answer, list) or len(found) + len(answer) > LOGS_MAX:
            raise AnswerUnreadable("eth_getLogs", "no list, or too long a one")
        if any(place_of(log)[2].lower() != address.lower() for log in answer):
            raise AnswerUnreadable("eth_getLogs", "a log of another contract")
        found += answer
    return sorted(found, key=place_of)
