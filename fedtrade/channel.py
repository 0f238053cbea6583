"""What both ends of the round channel agree on: how a request is signed, and every limit.

The channel carries the messages of `fedtrade.protocol` between the coordinator's own HTTPS service
and its members and helpers, who connect outward only:

    POST /v1/next            long poll: the next task of this seat, or 204 after at most POLL_S
    POST /v1/reply/<task>    the reply to a task
    POST /v1/refuse/<task>   the *name* of the error that refused it, nothing else
    GET  /v1/health          is the service there

A request is signed by the seat's own signing key over sha256 of the canonical msgpack list of a
domain string, the coordinator's address, role, seat, method and path, the body's sha256 and the
time. The time is in milliseconds and strictly increases from request to request of one seat: the
server keeps the last one and refuses what is not later (a replay) or more than SKEW_MAX_MS off its
clock. The headers are enough to refuse a stranger, so no body of a stranger is ever read.

The server's side is authenticated by TLS, with the one authority that a party's own file names, and
every task is a message of the protocol that its author has signed. So the channel is trusted with
delivery only: whoever breaks it can delay or drop messages, and cannot make or alter one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from fedtrade.errors import Refusal, Stale
from fedtrade.protocol import (
    MEMBER_ACTIONS,
    MESSAGE_BYTES_MAX,
    TRANSCRIPT_BYTES_MAX,
    Action,
    Sign,
    recover,
)

Role = Literal["member", "helper"]

DOMAIN: Final = b"fedtrade round channel 1"
POLL_S: Final = 25.0
"""The longest that the server holds a poll for work."""
SKEW_MAX_MS: Final = 30_000
ERROR_NAME_BYTES_MAX: Final = 64

NEXT: Final = "/v1/next"
REPLY: Final = "/v1/reply/"
REFUSE: Final = "/v1/refuse/"
HEALTH: Final = "/v1/health"

SEAT_HEADER: Final = "Fedtrade-Seat"
TIME_HEADER: Final = "Fedtrade-Time-Ms"
BODY_HEADER: Final = "Fedtrade-Body-Sha256"
SIGNATURE_HEADER: Final = "Fedtrade-Signature"
TASK_HEADER: Final = "Fedtrade-Task"
ACTION_HEADER: Final = "Fedtrade-Action"
REFUSED_HEADER: Final = "Fedtrade-Refused"

EMPTY_SHA256: Final = hashlib.sha256(b"").digest()


class NotAuthentic(Refusal):
    """A request that no seat of this release has signed, or that cannot be read."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"a request on the round channel is refused: {problem}. Drop it")
        self.problem = problem


class Replayed(Stale):
    """A request whose time is not later than that of one accepted before."""

    def __init__(self, time_ms: int, last_ms: int) -> None:
        super().__init__(
            f"a request of {time_ms} ms does not come after the last one, of {last_ms} ms: it is a "
            "replay, or this clock was set back. Sign a new one with a later time"
        )
        self.time_ms = time_ms
        self.last_ms = last_ms


class ClockSkew(Stale):
    """Two clocks that are too far apart to tell a fresh request from a replayed one."""

    def __init__(self, own_ms: int, server_ms: int) -> None:
        super().__init__(
            f"this machine's clock is {(own_ms - server_ms) / 1000:+.1f} s off the coordinator's and "
            f"{SKEW_MAX_MS / 1000:.0f} s are allowed. Set it by NTP, then start again"
        )
        self.own_ms = own_ms
        self.server_ms = server_ms


def role_of(action: Action) -> Role:
    """Who is asked for an action."""
    return "member" if action in MEMBER_ACTIONS else "helper"


def task_bytes_max(action: str) -> int:
    """The most that a party takes in for a task."""
    return TRANSCRIPT_BYTES_MAX if action == "endorse" else MESSAGE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Request:
    """What a seat signs of one request."""

    coordinator: str
    """Address of the coordinator that it is meant for, lower case."""
    role: Role
    seat: int
    target: str
    """Method and path, for example `POST /v1/next`."""
    body_sha256: bytes
    time_ms: int

    def digest(self) -> bytes:
        """The 32 bytes to be signed."""
        content = (
            DOMAIN, self.coordinator, self.role, self.seat, self.target, self.body_sha256,
            self.time_ms,
        )  # fmt: skip
        return hashlib.sha256(msgspec.msgpack.encode(content)).digest()

    def headers(self, sign: Sign) -> dict[str, str]:
        """The headers that carry it, signed."""
        return {
            SEAT_HEADER: f"{self.role}/{self.seat}",
            TIME_HEADER: str(self.time_ms),
            BODY_HEADER: self.body_sha256.hex(),
            SIGNATURE_HEADER: sign(self.digest()).hex(),
        }


def read_request(
    headers: Mapping[str, str],
    coordinator: str,
    target: str,
    signers: Mapping[tuple[Role, int], str],
) -> Request:
    """The request that these headers carry, once its seat's signature is checked.

    `signers` gives the address of every seat. Raises NotAuthentic. Freshness is for the caller.
    """
    try:
        role, _, seat = headers[SEAT_HEADER].partition("/")
        request = Request(
            coordinator,
            "helper" if role == "helper" else "member",
            _whole(seat),
            target,
            bytes.fromhex(headers[BODY_HEADER]),
            _whole(headers[TIME_HEADER]),
        )
        signature = bytes.fromhex(headers[SIGNATURE_HEADER])
    except (KeyError, ValueError):
        raise NotAuthentic("its headers cannot be read") from None
    if role != request.role or len(request.body_sha256) != 32 or len(signature) != 65:
        raise NotAuthentic("its headers cannot be read")
    signer = signers.get((request.role, request.seat))
    if signer is None or recover(request.digest(), signature) != signer:
        raise NotAuthentic("no seat of this release has signed it")
    return request


def check_fresh(time_ms: int, last_ms: int, now_ms: int) -> None:
    """Refuse a request that is not later than the seat's last one or is off this clock.

    Raises ClockSkew or Replayed.
    """
    if abs(time_ms - now_ms) > SKEW_MAX_MS:
        raise ClockSkew(time_ms, now_ms)
    if time_ms <= last_ms:
        raise Replayed(time_ms, last_ms)


def error_name(body: bytes) -> str:
    """The name in a refusal: letters and digits, or "Unnamed" where it is anything else."""
    try:
        name = body.decode("ascii")
    except UnicodeDecodeError:
        return "Unnamed"
    return name if name.isalnum() and len(name) <= ERROR_NAME_BYTES_MAX else "Unnamed"


def _whole(text: str) -> int:
    """A whole number below 2^63 in plain decimal digits. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ValueError("not a whole number")
    number = int(text)
    if number >= 2**63:
        raise ValueError("too large")
    return number
