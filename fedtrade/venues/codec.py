"""Contract calls and logs as bytes: one line per function or event, its types, nothing else.

Adapters write the few signatures that they use by hand and keep no ABI files of other projects. A
signature is the canonical one of which the chain knows the keccak, so a wrong one fails in the first
test against a real contract. Logs are taken as JSON-RPC gives them (hex strings).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from fedtrade.errors import Stale


class LogUnreadable(Stale):
    """A log has our event's topic and not its shape: the address is not the contract we think."""

    def __init__(self, event: str, problem: str) -> None:
        super().__init__(
            f"A log of {event} does not decode ({problem}). Check the contract's address."
        )
        self.event = event
        self.problem = problem


class AnswerUnreadable(Stale):
    """What a node or a contract gave is not of the form that was asked for."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(
            f"{what}: the node's answer cannot be read ({problem}). Check the contract's address, "
            "or use another node."
        )
        self.what = what
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Call:
    """What to send: target, calldata and native value."""

    to: str
    data: bytes
    value_wei: int = 0


def types_of(signature: str) -> tuple[str, ...]:
    """The top-level parameter types of `name(type,(type,type),...)` or of `(type,...)`."""
    inner = signature[signature.index("(") + 1 : signature.rindex(")")]
    parts: list[str] = []
    depth = 0
    for character in inner:
        if not parts:
            parts.append("")
        if character == "," and depth == 0:
            parts.append("")
            continue
        depth += {"(": 1, ")": -1}.get(character, 0)
        parts[-1] += character
    return tuple(parts)


@dataclass(frozen=True)
class Function:
    """A contract function: canonical signature, and the tuple of what it returns."""

    signature: str
    returns: str = "()"

    @cached_property
    def selector(self) -> bytes:
        return keccak(text=self.signature)[:4]

    @cached_property
    def _inputs(self) -> tuple[str, ...]:
        return types_of(self.signature)

    @cached_property
    def _outputs(self) -> tuple[str, ...]:
        return types_of(self.returns)

    def encode(self, *arguments: object) -> bytes:
        """Calldata."""
        return self.selector + encode(self._inputs, arguments)

    def decode_input(self, data: bytes) -> tuple[Any, ...]:
        """The arguments of calldata that `encode` made."""
        if data[:4] != self.selector:
            raise ValueError(f"not a call of {self.signature}")
        return decode(self._inputs, data[4:])

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """What a call returned. Raises AnswerUnreadable."""
        try:
            return decode(self._outputs, data)
        except (DecodingError, ValueError, OverflowError) as error:
            raise AnswerUnreadable(self.signature, type(error).__name__) from error


@dataclass(frozen=True)
class LogShape:
    """An event: canonical signature, the indexed types and the types in its data."""

    signature: str
    indexed: str
    data: str

    @cached_property
    def topic(self) -> str:
        return "0x" + keccak(text=self.signature).hex()

    @cached_property
    def _indexed(self) -> tuple[str, ...]:
        return types_of(self.indexed)

    @cached_property
    def _data(self) -> tuple[str, ...]:
        return types_of(self.data)

    def matches(self, log: Mapping[str, Any]) -> bool:
        """Whether a log is of this event. Raises AnswerUnreadable."""
        topics = field(log, "topics")
        return isinstance(topics, list) and bool(topics) and topics[0] == self.topic

    def decode(self, log: Mapping[str, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """(indexed values, data values); raises LogUnreadable."""
        topics = field(log, "topics")[1:]
        name = self.signature.partition("(")[0]
        if len(topics) != len(self._indexed):
            raise LogUnreadable(name, f"{len(topics)} indexed values")
        try:
            words = bytes.fromhex("".join(topic.removeprefix("0x") for topic in topics))
            content = bytes.fromhex(log["data"].removeprefix("0x"))
            return decode(self._indexed, words), decode(self._data, content)
        except (DecodingError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LogUnreadable(name, type(error).__name__) from error


def quantity(value: object) -> int:
    """A JSON-RPC quantity, as hex or as a number. Raises AnswerUnreadable."""
    try:
        number = int(value, 16) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or number < 0:
        raise AnswerUnreadable("quantity", f"{value!r:.80} is no whole number")
    if number >= 2**256:
        raise AnswerUnreadable("quantity", "it has more than 256 bits")
    return number


def index(value: object) -> int:
    """A quantity that counts something (block, time, nonce, log). Raises AnswerUnreadable.

    No chain has counted to 2^63, and files and loops that go by such a number could not take it.
    """
    number = quantity(value)
    if number >= 2**63:
        raise AnswerUnreadable("quantity", f"{number:#x} is too large to count anything")
    return number


def field(answer: object, name: str) -> Any:
    """A field of an object that a node gave. Raises AnswerUnreadable."""
    if not isinstance(answer, Mapping) or name not in answer:
        raise AnswerUnreadable(name, "there is no such field")
    return answer[name]


def place_of(log: object) -> tuple[int, int, str]:
    """Where a log stands: block, index in the block, checksummed address of the contract.

    Raises AnswerUnreadable.
    """
    try:
        address = to_checksum_address(field(log, "address"))
    except (ValueError, TypeError):
        raise AnswerUnreadable("address", "it is none") from None
    return quantity(field(log, "blockNumber")), quantity(field(log, "logIndex")), address
