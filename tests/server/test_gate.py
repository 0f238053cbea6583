"""The gate before the SuperLink: what passes, byte for byte, and everything that must not.

Each attack runs against a real gate with TLS on loopback, before a fake SuperLink that records what
reaches it; most end with the assertion that nothing did.
"""

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedtrade.errors import BadInput, Unavailable
from server.certificates import create_authority, issue
from server.gate import PATHS, Gate, Limits, read_node_keys, serving

PULL = "/v1/fleet/pull-messages"
QUICK = Limits(head_s=0.6, body_s=0.6, handshake_s=0.6)


class Node:
    """A member's node: its key, and the headers that it signs."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.pem = self.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def headers(self, at=None, **changed):
        stamp = (at or datetime.now(UTC)).isoformat()
        signature = self.key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "content-type": "application/protobuf",
            "flwr-public-key": b64encode(self.pem).decode(),
            "flwr-timestamp": stamp,
            "flwr-signature": b64encode(signature).decode(),
        } | changed


NODE, STRANGER = Node(), Node()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    create_authority(folder, "test", datetime.now(UTC))
    return issue(folder, ["127.0.0.1", "localhost"], datetime.now(UTC))


async def shut(writer):
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class Rig:
    """A gate, what stands behind it, and a client that trusts it."""

    def __init__(self, port, seen, http, context):
        self.port, self.seen, self.http, self.context = port, seen, http, context
        self.url = f"https://127.0.0.1:{port}"

    async def post(self, path=PULL, data=b"x", headers=None):
        return await self.http.post(
            self.url + path, data=data, headers=headers or NODE.headers(), allow_redirects=False
        )

    async def raw(self, *parts, pause_s=0.0, until_closed=False):
        """Send these bytes as they are; gives what comes back, at once or until the gate closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            return await asyncio.wait_for(reader.read(-1 if until_closed else 2**20), 10)
        except (ConnectionError, ssl.SSLError):
            return b""
        finally:
            await shut(writer)


@asynccontextmanager
async def rig(tls, answer=None, limits=None, upstream=None):
    """`answer`: what the fake SuperLink does with a request; it records each one before."""
    seen = []

    async def record(request):
        body = await request.read()
        seen.append((request.method, request.raw_path, dict(request.headers), body))
        if answer is not None:
            return await answer(request, body)
        return web.Response(body=b"answer:" + body, content_type="application/protobuf")

    behind = web.Application(client_max_size=2**26)
    behind.router.add_route("*", "/{path:.*}", record)
    runner = web.AppRunner(behind, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server_context())
    await site.start()
    address = f"https://127.0.0.1:{runner.addresses[0][1]}"
    gate = Gate(upstream or address, tls.client_context(), {NODE.pem}.__contains__, limits)
    port = await gate.open("127.0.0.1", 0, tls.server_context())
    context = tls.client_context()
    try:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), auto_decompress=False
        ) as http:
            yield Rig(port, seen, http, context)
    finally:
        await gate.close()
        await runner.cleanup()


def run(tls, play, **options):
    """Play against a rig; gives what the play gives and what reached the SuperLink."""

    async def main():
        async with rig(tls, **options) as there:
            return await play(there), list(there.seen)

    return asyncio.run(main())


async def answered(response):
    return response.status, await response.read()


def test_the_ten_fleet_paths_pass_byte_for_byte(tls):
    body = bytes(range(256)) * 4096  # 1 MiB with every byte

    async def play(there):
        return [await answered(await there.post(path, body)) for path in sorted(PATHS)]

    answers, seen = run(tls, play)
    assert answers == [(200, b"answer:" + body)] * 10
    assert [(method, path, got) for method, path, _, got in seen] == [
        ("POST", path, body) for path in sorted(PATHS)
    ]


def test_only_the_headers_of_the_fleet_go_on(tls):
    async def play(there):
        headers = NODE.headers() | {
            "Cookie": "a=b",
            "X-Forwarded-For": "10.0.0.1",
            "Authorization": "Bearer x",
            "Connection": "close, flwr-signature",
            "Te": "trailers",
            "flwr-component-name": "SuperNode",
        }
        return await answered(await there.post(headers=headers))

    (status, _), seen = run(tls, play)
    assert status == 200
    names = {name.lower() for name in seen[0][2]}
    assert names == {
        *("host", "content-length", "content-type", "flwr-public-key", "flwr-timestamp"),
        *("flwr-signature", "flwr-component-name", "accept"),
    }


def test_the_superlinks_refusals_and_its_content_pass_back(tls):
    async def answer(request, body):
        return web.Response(
            status=401,
            body=b'{"code": 7}',
            content_type="application/json",
            headers={"Set-Cookie": "a=b", "flwr-version-incompatibility-message": "old"},
        )

    async def play(there):
        response = await there.post()
        return response.status, await response.read(), dict(response.headers)

    (status, body, headers), _ = run(tls, play, answer=answer)
    assert (status, body, headers["Content-Type"]) == (401, b'{"code": 7}', "application/json")
    assert headers["flwr-version-incompatibility-message"] == "old"
    assert "Set-Cookie" not in headers


FORBIDDEN = [
    "/",
    "/health",
    "/docs",
    "/openapi.json",
    "/v1/control/start-run",
    "/v1/control/list-runs",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/runtime/push-object",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages?x=1",
    "/v1/fleet//pull-messages",
    "//v1/fleet/pull-messages",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/./pull-messages",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/..%2fcontrol/start-run",
    "/v1/fleet/pull%2Dmessages",
    "/v1/fleet/pull-messages%00",
    "/v1/fleet/pull-messages;x",
    "/V1/FLEET/PULL-MESSAGES",
    "/v1/fleet/pull-messages#x",
    "https://127.0.0.1/v1/fleet/pull-messages",
]


def head(method, path, headers, version="HTTP/1.1"):
    lines = [f"{method} {path} {version}", "Host: gate"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else None


def test_no_other_path_passes_however_it_is_written(tls):
    async def play(there):
        return [
            status_of(
                await there.raw(
                    head(
                        "POST", path, NODE.headers(**{"Content-Length": "1", "Connection": "close"})
                    ),
                    b"x",
                )
            )
            for path in FORBIDDEN
        ]

    statuses, seen = run(tls, play)
    assert set(statuses) <= {400, 404}
    assert seen == []


def test_no_other_method_passes(tls):
    async def play(there):
        methods = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "post"]
        headers = NODE.headers(**{"Content-Length": "0", "Connection": "close"})
        return [status_of(await there.raw(head(method, PULL, headers))) for method in methods]

    statuses, seen = run(tls, play)
    assert set(statuses) <= {400, 404}
    assert seen == []


def test_nothing_passes_without_a_registered_nodes_fresh_signature(tls):
    now = datetime.now(UTC)
    good = NODE.headers()
    other = STRANGER.headers()
    attempts = [
        other,  # a sound signature of a key that nobody registered
        good | {"flwr-signature": other["flwr-signature"]},
        good | {"flwr-public-key": other["flwr-public-key"]},
        good | {"flwr-timestamp": (now + timedelta(seconds=1)).isoformat()},
        good | {"flwr-signature": ""},
        good | {"flwr-signature": "!" * 40},
        good | {"flwr-timestamp": "yesterday"},
        good | {"flwr-timestamp": now.replace(tzinfo=None).isoformat()},
        NODE.headers(now - timedelta(seconds=400)),
        NODE.headers(now - timedelta(seconds=306)),
        NODE.headers(now + timedelta(seconds=10)),
        NODE.headers(now + timedelta(seconds=400)),
        {"content-type": "application/protobuf"},
    ]
    attempts += [{k: v for k, v in good.items() if k != gone} for gone in list(good)[1:]]

    async def play(there):
        return [(await there.post(headers=headers)).status for headers in attempts]

    statuses, seen = run(tls, play)
    assert statuses == [401] * len(attempts)
    assert seen == []


@pytest.mark.parametrize("off_s", [-290, -60, 0, 3])
def test_a_clock_within_the_superlinks_limits_passes(tls, off_s):
    async def play(there):
        at = datetime.now(UTC) + timedelta(seconds=off_s)
        return (await there.post(headers=NODE.headers(at))).status

    assert run(tls, play)[0] == 200


def test_a_node_whose_clock_is_off_is_told_by_how_much(tls):
    async def play(there):
        at = datetime.now(UTC) + timedelta(seconds=400)
        return await answered(await there.post(headers=NODE.headers(at)))

    (status, reason), _ = run(tls, play)
    assert status == 401
    assert b"clock is +" in reason


def test_a_stranger_is_refused_before_its_body_is_read(tls):
    """The answer comes while not one byte of the stated body has been sent."""

    async def play(there):
        headers = STRANGER.headers(**{"Content-Length": "1000000"})
        return status_of(await there.raw(head("POST", PULL, headers)))

    status, seen = run(tls, play)
    assert status == 401
    assert seen == []


def test_a_body_beyond_the_limit_is_refused_unread(tls):
    limits = Limits(body_bytes_max=1000)

    async def play(there):
        fits = (await there.post(data=b"x" * 1000)).status
        headers = NODE.headers(**{"Content-Length": "1001"})
        return fits, status_of(await there.raw(head("POST", PULL, headers)))

    statuses, seen = run(tls, play, limits=limits)
    assert statuses == (200, 413)
    assert [len(body) for *_, body in seen] == [1000]


def test_a_chunked_body_is_refused_unread(tls):
    async def play(there):
        headers = NODE.headers(**{"Transfer-Encoding": "chunked"})
        return status_of(await there.raw(head("POST", PULL, headers), b"5\r\nhello\r\n0\r\n\r\n"))

    status, seen = run(tls, play)
    assert status == 411
    assert seen == []


@pytest.mark.parametrize(
    "extra",
    [
        {"Content-Length": "5", "Transfer-Encoding": "chunked"},
        {"Content-Length": "5, 6"},
        {"Content-Length": "+5"},
        {"Content-Length": "0x5"},
        {"Content-Length": "-5"},
        {"Content-Length": "5", "Transfer-Encoding": "identity, chunked"},
        {"Content-Length ": "5"},
        {"Content-Length": "5", "X": "a\x00b"},
    ],
)
def test_ambiguous_framing_is_refused(tls, extra):
    smuggled = b"0\r\n\r\nPOST /v1/control/start-run HTTP/1.1\r\nHost: x\r\n\r\n"

    async def play(there):
        return await there.raw(head("POST", PULL, NODE.headers() | extra), smuggled)

    answer, seen = run(tls, play, limits=QUICK)
    assert status_of(answer) in (400, 411)
    assert seen == []


def test_a_header_that_is_there_twice_is_refused(tls):
    line = NODE.headers()["flwr-public-key"]
    request = head("POST", PULL, NODE.headers(**{"Content-Length": "1"}))
    twice = request.replace(b"\r\n\r\n", b"\r\nFlwr-Public-Key: " + line.encode() + b"\r\n\r\n")

    async def play(there):
        return status_of(await there.raw(twice, b"x"))

    status, seen = run(tls, play)
    assert status == 400
    assert seen == []


def test_what_follows_a_body_is_another_request_with_the_same_checks(tls):
    first = head("POST", PULL, NODE.headers(**{"Content-Length": "1"})) + b"x"
    second = head("POST", "/v1/control/start-run", NODE.headers(**{"Content-Length": "0"}))

    async def play(there):
        return await there.raw(first + second, until_closed=True)

    answer, seen = run(tls, play, limits=QUICK)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.count(b"HTTP/1.1 404") == 1
    assert [path for _, path, *_ in seen] == [PULL]


def test_a_packed_body_or_an_upgrade_is_refused(tls):
    async def play(there):
        return [
            (await there.post(headers=NODE.headers(**extra))).status
            for extra in (
                {"Content-Encoding": "gzip"},
                {"Upgrade": "websocket", "Connection": "Upgrade"},
            )
        ]

    statuses, seen = run(tls, play)
    assert statuses == [400, 400]
    assert seen == []


def test_heads_that_are_too_long_are_refused(tls):
    async def play(there):
        long_line = head("POST", PULL, NODE.headers(X="y" * 20_000))
        many = head("POST", PULL, NODE.headers(**{f"x-{n}": "y" for n in range(500)}))
        return [status_of(await there.raw(request)) for request in (long_line, many)]

    statuses, seen = run(tls, play, limits=QUICK)
    assert statuses == [400, 400]
    assert seen == []


def test_plain_http_and_tls_1_2_get_no_answer(tls):
    async def play(there):
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        writer.write(head("POST", PULL, NODE.headers(**{"Content-Length": "0"})))
        plain = await asyncio.wait_for(reader.read(), 5)
        await shut(writer)
        old = tls.client_context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", there.port, ssl=old)
        return plain

    plain, seen = run(tls, play)
    assert not plain.startswith(b"HTTP")
    assert seen == []


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param([b"P"] * 40, id="head"),
        pytest.param([head("POST", PULL, {})[:-2]] + [b"X: y\r\n"] * 40, id="headers"),
        pytest.param(None, id="body"),
        pytest.param([], id="nothing"),
    ],
)
def test_a_slow_sender_is_cut_off(tls, slow):
    """One byte at a time keeps nothing open: the limit is for the whole head, the whole body."""

    async def play(there):
        parts = slow
        if parts is None:
            parts = [head("POST", PULL, NODE.headers(**{"Content-Length": "99"}))] + [b"x"] * 40
        started = time.monotonic()
        answer = await there.raw(*parts, pause_s=0.1)
        return answer, time.monotonic() - started

    (answer, _), seen = run(tls, play, limits=QUICK)
    assert status_of(answer) in (None, 408)
    assert seen == []


def test_a_body_that_breaks_off_does_not_go_on(tls):
    async def play(there):
        _, writer = await asyncio.open_connection("127.0.0.1", there.port, ssl=there.context)
        writer.write(head("POST", PULL, NODE.headers(**{"Content-Length": "10"})) + b"half")
        await writer.drain()
        writer.transport.abort()
        await asyncio.sleep(0.1)
        return (await there.post()).status

    status, seen = run(tls, play)
    assert status == 200
    assert [body for *_, body in seen] == [b"x"]


def test_a_connection_that_does_not_shake_hands_is_cut_off(tls):
    async def play(there):
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        found = await asyncio.wait_for(reader.read(), 5)
        await shut(writer)
        return found

    assert run(tls, play, limits=QUICK)[0] == b""


def test_connections_are_counted_before_the_handshake_and_given_back(tls):
    limits = Limits(connections_per_source_max=3)

    async def play(there):
        silent = [await asyncio.open_connection("127.0.0.1", there.port) for _ in range(3)]
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        over = await asyncio.wait_for(reader.read(), 5)
        await shut(writer)
        for _, open_writer in silent:
            await shut(open_writer)
        await asyncio.sleep(0.1)
        return over, (await there.post()).status

    (over, after), _ = run(tls, play, limits=limits)
    assert over == b""
    assert after == 200


def test_all_connections_together_are_limited(tls):
    limits = Limits(connections_max=2)

    async def play(there):
        silent = [await asyncio.open_connection("127.0.0.1", there.port) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await there.post()
        for _, writer in silent:
            await shut(writer)
        await asyncio.sleep(0.1)
        return (await there.post()).status

    assert run(tls, play, limits=limits)[0] == 200


def test_a_node_that_asks_too_often_is_slowed_and_others_are_not(tls):
    limits = Limits(requests_per_key_s=0.001, requests_per_key_burst=3)

    async def play(there):
        return [(await there.post()).status for _ in range(5)]

    statuses, seen = run(tls, play, limits=limits)
    assert statuses == [200, 200, 200, 503, 503]  # 503: Flower waits and tries again
    assert len(seen) == 3


def test_a_source_that_is_refused_too_often_gets_no_more_reasons(tls):
    limits = Limits(refusals_per_source_s=0.001, refusals_per_source_burst=2)

    async def play(there):
        refused = [(await there.post(headers=STRANGER.headers())).status for _ in range(4)]
        return refused, (await there.post()).status

    (refused, registered), _ = run(tls, play, limits=limits)
    assert refused == [401, 401, 429, 429]
    assert registered == 200  # a registered node behind the same address goes on


def test_bodies_held_together_are_limited(tls):
    """Two bodies of which only one fits: the second is turned away unread, and fits afterwards."""
    limits = Limits(bodies_bytes_max=1000)

    async def play(there):
        release = asyncio.Event()

        async def slow_body():
            yield b"x" * 300
            await release.wait()
            yield b"x" * 300

        headers = NODE.headers(**{"Content-Length": "600"})
        first = asyncio.create_task(there.post(data=slow_body(), headers=headers))
        await asyncio.sleep(0.2)
        second = (await there.post(data=b"y" * 600)).status
        release.set()
        return second, (await first).status, (await there.post(data=b"y" * 600)).status

    assert run(tls, play, limits=limits)[0] == (503, 200, 200)


def test_a_superlink_that_is_down_is_a_502_at_once(tls):
    async def play(there):
        started = time.monotonic()
        status = (await there.post()).status
        return status, time.monotonic() - started

    (status, took_s), _ = run(tls, play, upstream="https://127.0.0.1:1")
    assert status == 502
    assert took_s < Limits().exchange_s / 10  # not a wait for a time limit


def test_a_superlink_that_does_not_answer_is_a_504(tls):
    async def answer(request, body):
        await asyncio.sleep(1)

    async def play(there):
        return (await there.post()).status

    assert run(tls, play, answer=answer, limits=Limits(exchange_s=0.3))[0] == 504


def test_an_answer_that_breaks_off_never_looks_whole(tls):
    async def answer(request, body):
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"half")
        request.transport.abort()
        return response

    async def play(there):
        response = await there.post()
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await response.read()
        response.close()

    run(tls, play, answer=answer)


def test_a_superlink_with_another_authority_is_not_spoken_to(tls, tmp_path):
    create_authority(tmp_path, "another", datetime.now(UTC))
    other = issue(tmp_path, ["127.0.0.1"], datetime.now(UTC))

    async def main():
        seen = []

        async def record(request):
            seen.append(request)
            return web.Response()

        behind = web.Application()
        behind.router.add_route("*", "/{path:.*}", record)
        runner = web.AppRunner(behind, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=other.server_context()).start()
        address = f"https://127.0.0.1:{runner.addresses[0][1]}"
        async with rig(tls, upstream=address) as there:
            status = (await there.post()).status
        await runner.cleanup()
        return status, seen

    assert asyncio.run(main()) == (502, [])


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "127.0.0.1:1", "https://h/x", "https:"])
def test_only_an_https_address_can_stand_behind(tls, address):
    with pytest.raises(BadInput, match="upstream"):
        Gate(address, tls.client_context(), set().__contains__)


def test_a_taken_port_is_named(tls):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(Unavailable, match=str(taken.getsockname()[1])),
        serving(_gate(tls), "127.0.0.1", taken.getsockname()[1], tls.server_context()),
    ):
        pass


def _gate(tls):
    return Gate("https://127.0.0.1:1", tls.client_context(), set().__contains__)


def test_the_gate_closes_with_connections_open(tls):
    with serving(_gate(tls), "127.0.0.1", 0, tls.server_context()) as port:
        idle = tls.client_context().wrap_socket(
            socket.create_connection(("127.0.0.1", port), 5), server_hostname="127.0.0.1"
        )
        silent = socket.create_connection(("127.0.0.1", port), 5)
    with idle, silent:
        with suppress(ssl.SSLError, ConnectionError):
            assert idle.recv(1) == b""
        with suppress(ConnectionError):
            assert silent.recv(1) == b""


def test_node_keys_are_read_from_the_files_that_members_send(tmp_path):
    path = tmp_path / "node.pub"
    path.write_bytes(
        NODE.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" a member\n"
    )
    assert read_node_keys([path]) == {NODE.pem}
    path.write_bytes(b"ssh-nothing AAAA")
    with pytest.raises(BadInput, match="no public key"):
        read_node_keys([path])
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    path.write_bytes(other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    with pytest.raises(BadInput, match="elliptic"):
        read_node_keys([path])
    with pytest.raises(BadInput, match="cannot be read"):
        read_node_keys([tmp_path / "missing.pub"])


FLOOD = Path(__file__).with_name("flood.py")


@pytest.mark.parametrize("attack", ["stranger", "registered", "chunked"])
def test_800_mb_add_less_than_50_mb(attack):
    """In a process of its own: the growth of its peak memory, as the kernel counts it."""
    told = subprocess.run(
        [sys.executable, str(FLOOD), attack],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    found = json.loads(told.stdout)
    assert found["reached"] == 0
    assert found["grown_mb"] < 50
    assert found["after"] == 200  # and the gate still works
