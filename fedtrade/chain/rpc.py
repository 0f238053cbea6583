"""JSON-RPC to one node over HTTP: single calls, batches, and errors that say what to do.

Synchronous, with one kept-alive connection and a limit on every wait. It is what set-up, tests and
the rehearsal's market use; `quorum.py` has several nodes agree, and an agent's own websocket is in
`clients/node.py`.

An error of the node (a revert, bad parameters) is a Refusal: asking again changes nothing. A
connection that breaks under a request is Stale: whether the request had an effect is unknown. A node
that cannot be reached at all is Unavailable.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec

from fedtrade.errors import BadInput, Refusal, Stale, Unavailable

TIMEOUT_S: Final = 30.0
BATCH_MAX: Final = 250
"""Requests in one HTTP body; longer batches are sent in pieces."""
ANSWER_MAX_BYTES: Final = 256 * 2**20
"""Nothing larger is read: a dump of a local chain's state is a tenth of it."""

RpcCall = tuple[str, Sequence[object]]
"""A method and its parameters."""


class NodeRefused(Refusal):
    """The node answered a call with an error."""

    def __init__(self, method: str, code: int, reason: str, data: str) -> None:
        super().__init__(f"The node refused {method}: {reason} (code {code}). See what was asked.")
        self.method = method
        self.code = code
        self.reason = reason
        self.data = data
        """ABI-encoded revert data as 0x hex, or empty."""


class NodeLost(Stale):
    """The connection broke or timed out under a request: whatever was asked is unknown."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"Lost the node at {url} ({problem}). Connect again and read anew.")
        self.url = url
        self.problem = problem


class Rpc:
    """One HTTP connection to one node; safe to share between threads, which then take turns."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise BadInput(
                "rpc_url",
                f"{url!r} is no http:// or https:// address",
                "Write it as https://HOST/PATH or http://HOST:PORT.",
            )
        self.url = url
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._connection = (
            http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
            if parts.scheme == "http"
            else http.client.HTTPSConnection(
                parts.hostname,
                parts.port or 443,
                timeout=timeout_s,
                context=ssl.create_default_context(),
            )
        )
        self._ids = itertools.count(1)
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection up; the next request opens a new one."""
        self._connection.close()

    def abort(self) -> None:
        """Break off whatever another thread waits for; that thread gets NodeLost."""
        if (line := self._connection.sock) is not None:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._connection.close()  # the other side was faster

    def call(self, method: str, *params: object) -> Any:
        """Ask once. Raises NodeRefused, NodeLost or Unavailable."""
        reply = self._post(self._request(method, params))
        return result_of(method, reply)

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """Ask many at once, in order of the answers; raises NodeRefused for the first error.

        The node may execute the requests of a batch in any order.
        """
        results = self.replies(calls)
        for result in results:
            if isinstance(result, NodeRefused):
                raise result
        return results

    def replies(self, calls: Sequence[RpcCall]) -> list[Any]:
        """As `batch`, but an error is the answer of its call alone: a NodeRefused among the results."""
        results: list[Any] = []
        for start in range(0, len(calls), BATCH_MAX):
            piece = calls[start : start + BATCH_MAX]
            requests = [self._request(method, params) for method, params in piece]
            answered = self._post(requests)
            if not isinstance(answered, list):
                raise NodeLost(self.url, "no list of answers to a batch")
            replies = {
                reply["id"]: reply
                for reply in answered
                if isinstance(reply, dict) and isinstance(reply.get("id"), int)
            }
            for request, (method, _) in zip(requests, piece, strict=True):
                reply = replies.get(request["id"])
                if reply is None:
                    raise NodeLost(self.url, f"no answer to {method} in a batch")
                try:
                    results.append(result_of(method, reply))
                except NodeRefused as refused:
                    results.append(refused)
        return results

    def eth_call(
        self, to: str, data: bytes, block: int | str = "latest", sender: str | None = None
    ) -> bytes:
        """The return data of a call that changes nothing, at one block."""
        return from_hex(self.call(*eth_call(to, data, block, sender)))

    def _request(self, method: str, params: Sequence[object]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}

    def _post(self, body: object) -> Any:
        content = msgspec.json.encode(body)
        with self._turn:
            if self._connection.sock is None:
                self._connect()
            try:
                self._connection.request(
                    "POST", self._path, content, {"Content-Type": "application/json"}
                )
                response = self._connection.getresponse()
                answer = response.read(ANSWER_MAX_BYTES + 1)
                if len(answer) > ANSWER_MAX_BYTES:
                    raise OSError(f"an answer of over {ANSWER_MAX_BYTES} bytes")
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise NodeLost(self.url, str(error) or type(error).__name__) from error
        try:
            return msgspec.json.decode(answer)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            self.close()  # it may have been cut off
            raise NodeLost(self.url, f"status {response.status}, and no JSON") from error

    def _connect(self) -> None:
        try:
            self._connection.connect()
        except OSError as error:
            self._connection.close()
            raise Unavailable(
                f"node {self.url}",
                f"cannot be reached ({error.strerror or error})",
                "Start it (`fedtrade devnet up` for local chains), or correct rpc_url.",
            ) from error


def eth_call(
    to: str, data: bytes, block: int | str = "latest", sender: str | None = None
) -> tuple[str, dict[str, str], str]:
    """An eth_call as method and parameters, for a batch or another transport."""
    call = {"to": to, "data": "0x" + data.hex()}
    if sender is not None:
        call["from"] = sender
    return ("eth_call", call, block if isinstance(block, str) else hex(block))


def from_hex(text: str) -> bytes:
    """0x-prefixed hex as a node writes it. Raises NodeLost for anything else."""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except (ValueError, AttributeError, TypeError):
        raise NodeLost("node", "an answer that is no hex") from None


def result_of(method: str, reply: Any) -> Any:
    """The result in a node's reply. Raises NodeRefused, whatever form its error has."""
    if not isinstance(reply, dict):
        raise NodeRefused(method, 0, "the answer is no JSON-RPC object", "")
    if (error := reply.get("error")) is None:
        return reply.get("result")
    if not isinstance(error, dict):
        raise NodeRefused(method, 0, _printable(error), "")
    code, data = error.get("code"), error.get("data")
    raise NodeRefused(
        method,
        code if isinstance(code, int) else 0,
        _printable(error.get("message")),
        data if isinstance(data, str) else "",
    )


def _printable(text: object) -> str:
    """A node's message on one line: some carry the raw bytes of a revert."""
    line = "".join(c if c.isprintable() else " " for c in str(text or "no reason given"))
    return " ".join(line.split())[:500]
