"""What several nodes must agree on before an answer is believed. Pure: no sockets, no clock.

Of n nodes k = n // 2 + 1 must agree, on the chain id, on the newest block and on every answer; k is
counted over the nodes that are configured, never over those that happen to answer, so a lone node is
never a majority. One node configured is trusted alone, and whoever reports says so.

Nodes are rarely at the same head. So every read is pinned: "latest" becomes the newest block that k
nodes have with the same hash, and is asked for by that hash (EIP-1898, `requireCanonical`). An honest
node that has the block gives the one true answer, one that has not says so, and no answer mixes two
blocks. Receipts have no block parameter; one from above the pin counts as none yet.

Answers are compared, and handed on, in a canonical form: only the fields that we read. Where honest
nodes may differ the rule does, too:

    estimates of gas        k within a quarter of each other; the highest of them
    a transaction by hash   whoever has it is believed: to take it for gone would be the dangerous error
    a sent transaction      goes to every node; refused only where k say so for one reason

A node that says otherwise, hangs, breaks off, lags or is of another chain is named with the reason
and left for a time (`Standing`), then tried again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eth_utils.crypto import keccak

from fedtrade.chain.rpc import NodeLost, NodeRefused, from_hex
from fedtrade.errors import BadInput, Stale
from fedtrade.market.events import Head
from fedtrade.venues import codec
from fedtrade.venues.codec import AnswerUnreadable, quantity

NODES_MAX: Final = 9
LAG_MAX_BLOCKS: Final = 5
"""A node this far behind the agreed head is left."""
REST_S: Final = 2.0
REST_MAX_S: Final = 60.0
"""A node that was left is tried again after this long; each time twice as long, up to the most."""
STRIKES_MAX: Final = 3
"""Refusals in a row, where the others answer, after which a node is left."""
GOOD_AFTER: Final = 100
"""Agreed answers in a row after which a node's past is forgotten."""

SEND: Final = "eth_sendRawTransaction"
BLOCK_AT: Final[Mapping[str, int]] = {
    "eth_call": 1,
    "eth_estimateGas": 1,
    "eth_getBalance": 1,
    "eth_getCode": 1,
    "eth_getTransactionCount": 1,
    "eth_getStorageAt": 2,
}
"""Which parameter of a method names the block."""
TAGS: Final = ("latest", "safe", "finalized")
_QUANTITIES: Final = (
    "eth_chainId", "eth_blockNumber", "eth_getBalance", "eth_getTransactionCount",
    "eth_estimateGas", "eth_gasPrice", "eth_maxPriorityFeePerGas",
)  # fmt: skip
_NEAR: Final = ("eth_estimateGas", "eth_gasPrice", "eth_maxPriorityFeePerGas")
_HEX: Final = ("eth_call", "eth_getCode", "eth_getStorageAt")
_BLOCKS: Final = ("eth_getBlockByNumber", "eth_getBlockByHash")
_RECEIPT: Final = "eth_getTransactionReceipt"
_TRANSACTION: Final = "eth_getTransactionByHash"
_FEES: Final = "eth_feeHistory"
_LIMITED_CODES: Final = (429, -32005, -32029)
_LIMITED_WORDS: Final = ("rate limit", "too many requests", "limit exceeded", "capacity")
_SENT: Final = (
    ("known", ("already known", "already imported", "known transaction")),
    ("used", ("nonce too low", "nonce is too low", "invalid nonce")),
    ("cheap", ("underpriced",)),
    ("poor", ("insufficient funds",)),
)

Vote = tuple[str, str]
"""("result", canonical JSON), ("reverted", revert data) or ("refused", reason's kind)."""


class NoAgreement(NodeLost):
    """Too few nodes say the same: nothing is known, and nothing may follow from it."""

    def __init__(self, what: str, standings: Sequence[Standing]) -> None:
        told = "; ".join(f"{s.url}: {s.reason or s.last or 'no answer'}" for s in standings)
        n = len(standings)
        Stale.__init__(
            self,
            f"{majority(n)} of {n} nodes must agree on {what}, and do not ({told}). Nothing is "
            "concluded from it. Mend or replace the nodes that are named.",
        )
        self.url = ", ".join(s.url for s in standings)
        self.problem = f"no agreement on {what}"


class NodeUseless(Stale):
    """What one node answered is no answer; it is left, the others are asked."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"A node's answer is of no use ({reason}). Ask another.")
        self.reason = reason


def majority(nodes: int) -> int:
    """How many of the configured nodes must agree."""
    return nodes // 2 + 1


def distinct(urls: Sequence[str]) -> tuple[str, ...]:
    """The nodes' addresses, each once. Raises BadInput: one node must not vote twice."""
    if not 1 <= len(urls) <= NODES_MAX or len(set(urls)) < len(urls):
        raise BadInput(
            "nodes",
            f"{len(urls)} addresses, {len(set(urls))} of them different",
            f"Name 1 to {NODES_MAX} different nodes: one that is named twice would agree with itself.",
        )
    return tuple(urls)


@dataclass(slots=True)
class Standing:
    """How one node stands with us: asked, or left for a time and why."""

    url: str
    reason: str = ""
    """Why it is left; empty where it is asked."""
    until_s: float = 0.0
    last: str = ""
    """What was wrong last, also where it is asked again."""
    offences: int = 0
    _strikes: int = 0
    _good: int = 0

    def leave(self, reason: str, now_s: float) -> None:
        """Name what is wrong, and ask it no more for a time that doubles with each offence."""
        if self.reason:
            return
        self.reason = self.last = reason
        self.until_s = now_s + min(REST_S * 2**self.offences, REST_MAX_S)
        self.offences = min(self.offences + 1, 16)
        self._good = 0

    def strike(self, reason: str, now_s: float) -> None:
        """Once is bad luck (it is a moment behind); several times in a row is an offence."""
        self._strikes += 1
        self.last = reason
        if self._strikes >= STRIKES_MAX:
            self.leave(reason, now_s)

    def agreed(self) -> None:
        """It said what the majority said."""
        self._strikes = 0
        self._good += 1
        if self._good >= GOOD_AFTER:
            self.offences, self._good = 0, 0

    def serves(self, now_s: float) -> bool:
        """Whether to ask it now; a rest that is over ends here."""
        if self.reason and now_s >= self.until_s:
            self.reason, self._strikes = "", 0
        return not self.reason


def trust_line(standings: Sequence[Standing]) -> str:
    """In one line whom a reader believes, and which nodes it has left."""
    n = len(standings)
    if n == 1:
        return f"one node is trusted alone ({standings[0].url}); name more to have them agree"
    left = [f"{s.url} is left: {s.reason}" for s in standings if s.reason]
    return "; ".join([f"{majority(n)} of {n} nodes must agree", *left])


# What is asked.


def tag_of(method: str, params: Sequence[Any]) -> str | None:
    """The moving block that a call speaks of, or None where it names one, or none at all."""
    if method == "eth_blockNumber":
        return "latest"
    place = 0 if method == "eth_getBlockByNumber" else BLOCK_AT.get(method)
    if place is None:
        return None
    if len(params) <= place:
        return "latest"
    at = params[place]
    if at == "pending":
        raise BadInput(method, "nodes cannot agree on what is pending", "Ask at the newest block.")
    return at if at in TAGS else None


def pinned(method: str, params: Sequence[Any], head: Head) -> list[Any]:
    """The parameters with the head's hash in place of its tag or number (EIP-1898)."""
    if method == "eth_getLogs":
        return [_until(params[0], head)]
    place = BLOCK_AT.get(method)
    if place is None:
        return list(params)
    at = params[place] if len(params) > place else "latest"
    if at in TAGS or (isinstance(at, str) and _same_number(at, head.number)):
        at = {"blockHash": head.hash, "requireCanonical": True}
    return [*params[:place], at, *params[place + 1 :]]


def _until(asked: Any, head: Head) -> Any:
    """A filter of logs that ends at the head where it would end at the newest block."""
    if not isinstance(asked, Mapping) or "blockHash" in asked:
        return asked
    return (
        {**asked, "toBlock": hex(head.number)}
        if asked.get("toBlock") in (None, "latest")
        else asked
    )


def _same_number(at: str, number: int) -> bool:
    return at.startswith("0x") and at == hex(number)


# What is answered.


def head_from(raw: object) -> Head:
    """A block header as JSON-RPC gives it. Raises AnswerUnreadable."""
    base_fee = raw.get("baseFeePerGas") if isinstance(raw, Mapping) else None
    return Head(
        codec.index(codec.field(raw, "number")),
        _word(codec.field(raw, "hash")),
        _word(codec.field(raw, "parentHash")),
        codec.index(codec.field(raw, "timestamp")),
        quantity(base_fee or "0x0"),
    )


def header_of(head: Head) -> dict[str, str]:
    """A head in the form of JSON-RPC."""
    return {
        "number": hex(head.number),
        "hash": head.hash,
        "parentHash": head.parent_hash,
        "timestamp": hex(head.timestamp_s),
        "baseFeePerGas": hex(head.base_fee_wei),
    }


def canonical(method: str, result: object, head: Head | None = None) -> Any:
    """A result reduced to what we read of it. Raises AnswerUnreadable where it is none."""
    if method in _QUANTITIES:
        return hex(quantity(result))
    if method in _HEX:
        return _bytes(result)
    if method in _BLOCKS:
        return None if result is None else header_of(head_from(result))
    if method == "eth_getLogs":
        if not isinstance(result, list):
            raise AnswerUnreadable(method, "it is no list")
        logs = [_log(log) for log in result]
        return sorted(logs, key=lambda log: (int(log["blockNumber"], 16), int(log["logIndex"], 16)))
    if method == _RECEIPT:
        return None if result is None else _receipt(result, head)
    if method == _FEES:
        return {
            "baseFeePerGas": [hex(quantity(fee)) for fee in codec.field(result, "baseFeePerGas")]
        }
    if method == _TRANSACTION:
        return None if result is None else {"hash": _word(codec.field(result, "hash"))}
    return result


def _log(log: object) -> dict[str, Any]:
    topics = codec.field(log, "topics")
    if not isinstance(topics, list):
        raise AnswerUnreadable("topics", "they are no list")
    return {
        "address": _bytes(codec.field(log, "address")),
        "topics": [_word(topic) for topic in topics],
        "data": _bytes(codec.field(log, "data")),
        "blockNumber": hex(codec.index(codec.field(log, "blockNumber"))),
        "blockHash": _word(codec.field(log, "blockHash")),
        "logIndex": hex(codec.index(codec.field(log, "logIndex"))),
    }


def _receipt(receipt: object, head: Head | None) -> dict[str, Any] | None:
    number = codec.index(codec.field(receipt, "blockNumber"))
    if head is not None and number > head.number:
        return None  # in a block that is not agreed on yet
    made = receipt.get("contractAddress") if isinstance(receipt, Mapping) else None
    return {
        "transactionHash": _word(codec.field(receipt, "transactionHash")),
        "blockNumber": hex(number),
        "blockHash": _word(codec.field(receipt, "blockHash")),
        "status": hex(quantity(codec.field(receipt, "status"))),
        "gasUsed": hex(quantity(codec.field(receipt, "gasUsed"))),
        "effectiveGasPrice": hex(quantity(codec.field(receipt, "effectiveGasPrice"))),
        "contractAddress": None if made is None else _bytes(made),
        "logs": [_log(log) for log in codec.field(receipt, "logs") or []],
    }


def _bytes(value: object) -> str:
    if not isinstance(value, str):
        raise AnswerUnreadable("bytes", f"{value!r:.80} is no hex")
    try:
        return "0x" + from_hex(value).hex()
    except NodeLost:
        raise AnswerUnreadable("bytes", f"{value!r:.80} is no hex") from None


def _word(value: object) -> str:
    word = _bytes(value)
    if len(word) != 66:
        raise AnswerUnreadable("hash", f"{value!r:.80} has not 32 bytes")
    return word


def vote_of(method: str, reply: object, head: Head | None = None) -> Vote:
    """What one node says: a result, or the NodeRefused that it gave. Raises NodeUseless."""
    if isinstance(reply, NodeRefused):
        reason = reply.reason.lower()
        if reply.code in _LIMITED_CODES or any(word in reason for word in _LIMITED_WORDS):
            raise NodeUseless(f"it refuses to serve us ({reply.reason})")
        if method == SEND:
            kinds = (kind for kind, words in _SENT if any(word in reason for word in words))
            return "refused", next(kinds, "")
        if len(reply.data) > 2 or reply.code == 3 or "revert" in reason:
            return "reverted", reply.data.lower()
        return "refused", "poor" if "insufficient funds" in reason else ""
    try:
        return "result", json.dumps(canonical(method, reply, head), sort_keys=True)
    except AnswerUnreadable as error:
        raise NodeUseless(f"its answer to {method} cannot be read: {error.problem}") from error


@dataclass(slots=True)
class Ballot:
    """The votes of several nodes on one call."""

    method: str
    nodes: int
    """How many are configured."""
    votes: dict[int, Vote] = field(default_factory=dict)
    refusals: dict[int, NodeRefused] = field(default_factory=dict)

    def cast(self, node: int, reply: object, head: Head | None = None) -> None:
        """Count what a node says; asked again, its last word counts. Raises NodeUseless."""
        self.votes[node] = vote_of(self.method, reply, head)
        if isinstance(reply, NodeRefused):
            self.refusals[node] = reply

    def outcome(self, everybody: bool = False) -> Vote | None:
        """What is agreed on, if anything. `everybody`: nobody who was asked is still to answer."""
        need, said = majority(self.nodes), list(self.votes.values())
        if self.method == _TRANSACTION:
            found = [vote for vote in said if vote[0] == "result" and vote[1] != "null"]
            if found:
                return found[0]
            if not everybody:
                return None
        if self.method in _NEAR and (near := self._near(need)) is not None:
            return "result", json.dumps(hex(near))
        if self.method == SEND:
            return self._sent(need, everybody)
        for vote in said:
            if said.count(vote) >= need and (self.method not in _NEAR or vote[0] != "result"):
                return vote
        return None

    def against(self, outcome: Vote) -> list[int]:
        """Nodes that gave another result, or another revert, than the one agreed on."""
        if self.method in (SEND, _TRANSACTION):
            return []
        other = [n for n, vote in self.votes.items() if vote != outcome and vote[0] != "refused"]
        if self.method in _NEAR and outcome[0] == "result":
            agreed = int(json.loads(outcome[1]), 16)
            other = [
                n for n in other if self.votes[n][0] != "result" or not _close(self._gas(n), agreed)
            ]
        return other

    def result(self, outcome: Vote) -> Any:
        """The value agreed on. Raises the NodeRefused agreed on."""
        if outcome[0] == "result":
            return json.loads(outcome[1])
        agreeing = next(n for n, vote in self.votes.items() if vote == outcome)
        raise self.refusals[agreeing]

    def _gas(self, node: int) -> int:
        return int(json.loads(self.votes[node][1]), 16)

    def _near(self, need: int) -> int | None:
        """The highest of the lowest `need` estimates that lie close together."""
        ordered = sorted(self._gas(n) for n, vote in self.votes.items() if vote[0] == "result")
        for start in range(len(ordered) - need + 1):
            if _close(ordered[start], ordered[start + need - 1]):
                return ordered[start + need - 1]
        return None

    def _sent(self, need: int, everybody: bool) -> Vote | None:
        """Taken by one is out. Refused for one reason by enough is refused; anything else is out."""
        said = list(self.votes.values())
        if any(vote[0] == "result" for vote in said):
            return "result", "null"
        if not everybody or not said:
            return None
        common = max(said, key=said.count)
        return common if said.count(common) >= need else ("result", "null")


def _close(one: int, other: int) -> bool:
    return max(one, other) * 4 <= min(one, other) * 5


def agreed_number(numbers: Sequence[int], nodes: int) -> int | None:
    """The highest block that a majority of the configured nodes has reached."""
    need = majority(nodes)
    return sorted(numbers, reverse=True)[need - 1] if len(numbers) >= need else None


def enough_heads(numbers: Sequence[int], nodes: int) -> bool:
    """Whether nobody else needs to be heard: a majority is at nearly the same height.

    Two that lie far apart leave open which of them is behind, or ahead of every block there is.
    """
    top = agreed_number(numbers, nodes)
    return top is not None and max(numbers) - top <= LAG_MAX_BLOCKS


def agreed_head(told: Mapping[int, Head], nodes: int) -> Head | None:
    """The head that a majority of the configured nodes tells in every field."""
    said = list(told.values())
    return next((head for head in said if said.count(head) >= majority(nodes)), None)


def transaction_hash(raw: str) -> str:
    """The hash of a signed transaction: no node needs to be believed about it."""
    return "0x" + keccak(from_hex(raw)).hex()
