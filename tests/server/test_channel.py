"""The round channel's server: who gets in, what it reads, and what an exchange waits for."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from clients.keys import MemberKeys
from fedtrade.channel import (
    ACTION_HEADER,
    BODY_HEADER,
    HEALTH,
    NEXT,
    REFUSE,
    REFUSED_HEADER,
    REPLY,
    SEAT_HEADER,
    SIGNATURE_HEADER,
    SKEW_MAX_MS,
    TASK_HEADER,
    TIME_HEADER,
    ClockSkew,
    NotAuthentic,
    Replayed,
    Request,
    check_fresh,
    error_name,
    read_request,
)
from fedtrade.errors import Unavailable
from fedtrade.parameters import PrivacyParameters
from fedtrade.protocol import (
    HELPER_ACTIONS,
    MEMBER_ACTIONS,
    MESSAGE_BYTES_MAX,
    ReleaseTerms,
    Seat,
    encode,
)
from server import channel as server_channel
from server.certificates import create_authority, issue
from server.channel import BURST, STRANGERS_MAX, ChannelClosed, CoordinatorClock, RoundChannel

COORDINATOR = "0x" + "c0" * 20
KEYS = {seat: MemberKeys.ephemeral() for seat in range(1, 6)}
SEATS = tuple(
    Seat(id=seat, signer=keys.address.lower(), x25519=keys.x25519_public)
    for seat, keys in KEYS.items()
)
TERMS = ReleaseTerms(
    release=1,
    chain_id=1,
    registry="0x" + "00" * 20,
    coordinator=COORDINATOR,
    parameters=PrivacyParameters(
        sampling_rate=0.1, noise_multiplier=1.0, clip_norm=1.0, rounds=4, delta=1e-6,
        epsilon_cap=8.0, cohort_min=4, helpers=3, corrupt=1, learning_rate=0.01,
    ),
    members=SEATS,
    positions=(10,) * len(SEATS),
    helpers=SEATS[:3],
    base_sha256="00" * 32,
    dimension=10,
)  # fmt: skip


def timeouts(seconds):
    return dict.fromkeys((*MEMBER_ACTIONS, *HELPER_ACTIONS), seconds)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    now = datetime.now(UTC)
    create_authority(folder, "test", now)
    return issue(folder, ["127.0.0.1"], now)


@pytest.fixture
def channel(tls):
    with RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(5.0)) as running:
        yield running


class Caller:
    """One connection of one seat, spoken by hand."""

    def __init__(self, channel, tls, seat=1, role="member", keys=None):
        self.seat, self.role = seat, role
        self.keys = keys or KEYS[seat]
        self.last_ms = 0
        context = tls.client_context()
        self.http = http.client.HTTPSConnection(
            "127.0.0.1", channel.port, context=context, timeout=40
        )

    def headers(self, path, body=b"", time_ms=None, **changes):
        self.last_ms = max(time.time_ns() // 10**6, self.last_ms + 1)
        fields = {
            "coordinator": COORDINATOR,
            "role": self.role,
            "seat": self.seat,
            "target": f"POST {path}",
            "body_sha256": hashlib.sha256(body).digest(),
            "time_ms": self.last_ms if time_ms is None else time_ms,
        }
        return Request(**{**fields, **changes}).headers(self.keys.sign_digest)

    def post(self, path, body=b"", headers=None):
        """(status, headers, body)"""
        self.http.request(
            "POST", path, body, self.headers(path, body) if headers is None else headers
        )
        response = self.http.getresponse()
        found = response.status, dict(response.headers), response.read()
        if found[1].get("Connection") == "close":
            self.http.close()
        return found

    def work(self, act, tasks=1):
        """Poll, act(action, body) -> path prefix and body, reply; so many times."""
        for _ in range(tasks):
            status, headers, body = self.post(NEXT)
            if status != 200:
                return status
            prefix, reply = act(headers[ACTION_HEADER], body)
            status, _, _ = self.post(prefix + headers[TASK_HEADER], reply)
        self.http.close()
        return status


@contextlib.contextmanager
def working(channel, tls, act, seats, role="member", tasks=1):
    """So many tasks done by each of these seats, in threads of their own."""
    with ThreadPoolExecutor(len(seats)) as pool:
        yield [pool.submit(Caller(channel, tls, s, role).work, act, tasks) for s in seats]


def echo(action, body):
    return REPLY, action.encode() + b" " + body


# exchange


def test_every_asked_seat_gets_its_own_body_and_its_reply_comes_back(channel, tls):
    with working(channel, tls, echo, [1, 2, 3], tasks=2):
        for turn in range(2):
            bodies = {seat: f"{turn}-{seat}".encode() for seat in (1, 2, 3)}
            replies = channel.exchange("upload", bodies)
            assert replies == {seat: b"upload " + body for seat, body in bodies.items()}


def test_members_and_helpers_are_asked_apart(channel, tls):
    with (
        working(channel, tls, echo, [1], role="member"),
        working(channel, tls, lambda *_: (REPLY, b"helper"), [1], role="helper"),
    ):
        assert channel.exchange("ready", {1: b""}) == {1: b"helper"}
        assert channel.exchange("upload", {1: b"x"}) == {1: b"upload x"}


def test_a_message_of_the_largest_size_passes(channel, tls):
    whole = bytes(MESSAGE_BYTES_MAX)
    with working(channel, tls, lambda _, body: (REPLY, body), [1]):
        assert channel.exchange("upload", {1: whole}) == {1: whole}


def test_one_that_refuses_is_not_in_the_reply_and_only_its_errors_name_is_known(
    channel, tls, caplog
):
    def act(_, body):
        return (REFUSE, b"Overspent") if body == b"2" else (REPLY, b"ok")

    with caplog.at_level("WARNING"), working(channel, tls, act, [1, 2, 3]):
        replies = channel.exchange("upload", {seat: str(seat).encode() for seat in (1, 2, 3)})
    assert set(replies) == {1, 3}
    assert "member 2 refused upload: Overspent" in caplog.text


@pytest.mark.parametrize("told", [b"my secret: 12", b"x\nforged line", b"\xff\xfe", b"", b"A" * 65])
def test_what_is_no_name_is_not_logged(told):
    assert error_name(told) == "Unnamed"
    assert error_name(b"RoundAlreadyPaid") == "RoundAlreadyPaid"


def test_one_that_is_late_is_left_out_and_its_reply_is_dropped(tls):
    with RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(0.3)) as channel:
        late = Caller(channel, tls, 2)
        with ThreadPoolExecutor(1) as pool, working(channel, tls, echo, [1]):
            polled = pool.submit(late.post, NEXT)
            assert set(channel.exchange("upload", {1: b"", 2: b""})) == {1}
            status, headers, _ = polled.result()
        assert status == 200
        assert late.post(REPLY + headers[TASK_HEADER], b"too late")[0] == 404
        late.http.close()


def test_one_that_missed_an_exchange_is_not_waited_for_until_it_is_back(tls, monkeypatch):
    with RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(0.3)) as channel:
        with working(channel, tls, echo, [1]):
            assert set(channel.exchange("upload", {1: b"", 2: b""})) == {1}
        waited = []
        real = asyncio.wait
        monkeypatch.setattr(
            server_channel.asyncio,
            "wait",
            lambda futures, **k: waited.append(len(futures)) or real(futures, **k),
        )
        with working(channel, tls, echo, [1]):
            assert set(channel.exchange("upload", {1: b"", 2: b""})) == {1}
        assert set(waited) == {2}  # one reply and refused clocks, not the one that is missing
        with working(channel, tls, echo, [2, 1]):
            time.sleep(0.1)  # both polls are in
            assert set(channel.exchange("upload", {1: b"", 2: b""})) == {1, 2}


def test_a_task_whose_delivery_was_lost_is_handed_out_again(channel, tls):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(channel.exchange, "upload", {1: b"work"})
        first = Caller(channel, tls, 1)
        status, headers, body = first.post(NEXT)
        first.http.close()  # the member's machine dies here
        second = Caller(channel, tls, 1)
        second.last_ms = first.last_ms
        again = second.post(NEXT)
        assert (status, body) == (200, b"work")
        assert again[1][TASK_HEADER] == headers[TASK_HEADER]
        assert second.post(REPLY + headers[TASK_HEADER], b"done")[0] == 204
        assert asked.result() == {1: b"done"}
        assert second.post(REPLY + headers[TASK_HEADER], b"twice")[0] == 404
        second.http.close()


def test_the_end_of_the_release_is_told_to_every_poll(tls):
    channel = RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(1.0))
    channel.start()
    with working(channel, tls, echo, [1, 2]) as found:
        while channel.heard("member") != {1, 2}:
            time.sleep(0.01)
        channel.close()
    assert [each.result() for each in found] == [410, 410]


def test_an_exchange_does_not_outlive_its_channel(tls):
    channel = RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(60.0))
    with pytest.raises(ChannelClosed):
        channel.exchange("upload", {1: b""})
    with ThreadPoolExecutor(1) as pool:
        channel.start()
        asked = pool.submit(channel.exchange, "upload", {1: b""})
        while channel._slots[("member", 1)].task is None:
            time.sleep(0.01)
        channel.close()
        with pytest.raises(ChannelClosed):
            asked.result(timeout=10)
    channel.close()  # harmless


def test_a_port_that_is_taken_is_one_sentence(channel, tls):
    with pytest.raises(Unavailable, match="cannot listen"):
        RoundChannel(TERMS, tls.server_context(), "127.0.0.1", channel.port, timeouts(1.0)).start()


# who gets in


def test_health_needs_no_seat(channel, tls):
    caller = Caller(channel, tls)
    caller.http.request("GET", HEALTH)
    response = caller.http.getresponse()
    assert (response.status, response.read()) == (200, b"ok\n")
    caller.http.close()


def forged(caller, change):
    """Headers of a good request, with one thing about it wrong."""
    good = caller.headers(NEXT)
    match change:
        case "no headers":
            return {}
        case "another's key":
            other = Caller.headers
            caller.keys = KEYS[2]
            return other(caller, NEXT)
        case "unknown seat":
            return caller.headers(NEXT, seat=99)
        case "not its role":
            caller.keys = KEYS[5]
            return caller.headers(NEXT, role="helper", seat=5)
        case "another coordinator":
            return caller.headers(NEXT, coordinator="0x" + "ab" * 20)
        case "another path":
            return caller.headers(NEXT, target=f"POST {REPLY}1")
        case "other method":
            return caller.headers(NEXT, target=f"GET {NEXT}")
        case "seat moved":
            return {**good, SEAT_HEADER: "member/2"}
        case "role moved":
            return {**good, SEAT_HEADER: "helper/1"}
        case "later time":
            return {**good, TIME_HEADER: str(int(good[TIME_HEADER]) + 1)}
        case "other body":
            return {**good, BODY_HEADER: "00" * 32}
        case "broken signature":
            return {**good, SIGNATURE_HEADER: "00" * 65}
        case "short signature":
            return {**good, SIGNATURE_HEADER: "00" * 64}
        case "no hex":
            return {**good, SIGNATURE_HEADER: "zz" * 65}
        case "huge seat":
            return {**good, SEAT_HEADER: "member/" + "9" * 300}
        case "negative seat":
            return {**good, SEAT_HEADER: "member/-1"}
        case "unicode digit":
            return {**good, TIME_HEADER: "1e3"}
        case "other role":
            return {**good, SEAT_HEADER: "owner/1"}
    raise AssertionError(change)


FORGERIES = [
    "no headers", "another's key", "unknown seat", "not its role", "another coordinator",
    "another path", "other method", "seat moved", "role moved", "later time", "other body",
    "broken signature", "short signature", "no hex", "huge seat", "negative seat",
    "unicode digit", "other role",
]  # fmt: skip


@pytest.mark.parametrize("change", FORGERIES)
def test_a_request_that_its_seat_did_not_sign_is_turned_away(channel, tls, change):
    caller = Caller(channel, tls)
    status, headers, body = caller.post(NEXT, headers=forged(caller, change))
    assert (status, body) == (403, b"")
    assert headers[REFUSED_HEADER] == "NotAuthentic"
    assert headers["Connection"] == "close"


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/next/", "/v1/next?x=1", "/v1/../v1/next", "/V1/next"]
)
def test_there_is_nothing_else_there(channel, tls, path):
    caller = Caller(channel, tls)
    status, _, _ = caller.post(path, headers=caller.headers(path))
    assert status in (403, 404)


def test_a_request_is_accepted_once(channel, tls):
    caller = Caller(channel, tls)
    path = REPLY + "none"
    headers = caller.headers(path)
    assert caller.post(path, headers=headers)[0] == 404  # accepted; there is no such task
    status, told, _ = caller.post(path, headers=headers)
    assert status == 409
    assert told[REFUSED_HEADER] == "Replayed"
    assert told[TIME_HEADER] == headers[TIME_HEADER]
    older = caller.headers(path, time_ms=int(headers[TIME_HEADER]) - 1)
    assert caller.post(path, headers=older)[0] == 409


def test_what_was_signed_before_the_service_started_is_not_accepted(channel, tls):
    caller = Caller(channel, tls)
    before = caller.headers(NEXT, time_ms=channel._born_ms)
    status, headers, _ = caller.post(NEXT, headers=before)
    assert (status, headers[REFUSED_HEADER]) == (409, "Replayed")


@pytest.mark.parametrize("off_ms", [-SKEW_MAX_MS - 2_000, SKEW_MAX_MS + 2_000])
def test_a_clock_that_is_off_gets_the_servers_time(channel, tls, off_ms):
    caller = Caller(channel, tls)
    now_ms = time.time_ns() // 10**6
    status, headers, _ = caller.post(NEXT, headers=caller.headers(NEXT, time_ms=now_ms + off_ms))
    assert (status, headers[REFUSED_HEADER]) == (409, "ClockSkew")
    assert abs(int(headers[TIME_HEADER]) - now_ms) < 10_000


def skewed(caller, off_ms):
    """A poll by a clock that is off; the answer's status."""
    headers = caller.headers(NEXT, time_ms=time.time_ns() // 10**6 + off_ms)
    return caller.post(NEXT, headers=headers)[0]


def test_a_seat_whose_clock_is_refused_is_not_waited_for(tls):
    """Before the exchange or within it; the others' replies come through."""
    with RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(60.0)) as channel:
        assert skewed(Caller(channel, tls, 2), 400_000) == 409
        with ThreadPoolExecutor(2) as pool:
            good = pool.submit(Caller(channel, tls, 1).work, lambda action, body: (REPLY, b"ok"))
            asked = pool.submit(channel.exchange, "upload", {s: b"?" for s in (1, 2, 3)})
            good.result(timeout=20)
            assert not asked.done()  # the third is waited for
            assert skewed(Caller(channel, tls, 3), -400_000) == 409
            assert asked.result(timeout=20) == {1: b"ok"}


@pytest.mark.parametrize("off_ms", [400_000, -400_000])
def test_where_most_seats_find_this_clock_off_the_exchange_ends_with_a_sentence(tls, off_ms):
    with (
        RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(60.0)) as channel,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(channel.exchange, "join", dict.fromkeys(range(1, 6), b"?"))
        for seat in (1, 2, 3, 4):
            assert skewed(Caller(channel, tls, seat), off_ms) == 409
        assert skewed(Caller(channel, tls, 5), -off_ms) == 409  # another direction: no witness
        assert not asked.done()
        assert skewed(Caller(channel, tls, 1, "helper"), off_ms) == 409  # five of eight
        with pytest.raises(CoordinatorClock, match=r"5 of 8 seats .* NTP") as caught:
            asked.result(timeout=20)
        assert caught.value.exit_code == 3
        assert abs(caught.value.off_ms + off_ms) < 5_000


def test_old_requests_of_connected_seats_shown_by_somebody_else_prove_nothing(tls):
    with RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(1.0)) as channel:
        holders = [Caller(channel, tls, seat) for seat in range(1, 6)]
        for holder in holders:
            holder.http.connect()
            holder.http.request("POST", NEXT, b"", holder.headers(NEXT))
        until = time.monotonic() + 20
        while len(channel.heard("member")) < 5:
            assert time.monotonic() < until
            time.sleep(0.01)
        for seat in range(1, 6):
            assert skewed(Caller(channel, tls, seat), -400_000) == 409
        assert len(channel.heard("member")) == 5
        assert channel.exchange("upload", {1: b"?"}) == {}  # nobody replies, nobody doubts
        for holder in holders:
            holder.http.close()


def test_freshness_has_exact_edges():
    check_fresh(100, 99, 100 + SKEW_MAX_MS)
    with pytest.raises(ClockSkew):
        check_fresh(100, 99, 101 + SKEW_MAX_MS)
    with pytest.raises(ClockSkew):
        check_fresh(101 + SKEW_MAX_MS, 99, 100)
    with pytest.raises(Replayed):
        check_fresh(100, 100, 100)


def test_a_signature_is_over_every_part_of_a_request():
    keys, signers = KEYS[1], {("member", 1): KEYS[1].address.lower()}
    request = Request(COORDINATOR, "member", 1, "POST /v1/next", bytes(32), 5)
    headers = request.headers(keys.sign_digest)
    assert read_request(headers, COORDINATOR, "POST /v1/next", signers) == request
    with pytest.raises(NotAuthentic):
        read_request(headers, COORDINATOR, "POST /v1/nexu", signers)
    with pytest.raises(NotAuthentic):
        read_request(headers, "0x" + "c1" * 20, "POST /v1/next", signers)


def test_a_seat_that_asks_too_often_is_slowed_down(tls, monkeypatch):
    monkeypatch.setattr(server_channel, "REQUESTS_PER_S", 0.0)
    monkeypatch.setattr(server_channel, "BURST", 3.0)
    with RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(1.0)) as channel:
        for slot in channel._slots.values():
            slot.tokens = 3.0
        caller, other = Caller(channel, tls), Caller(channel, tls, 2)
        found = [caller.post(REPLY + "none")[0] for _ in range(4)]
        assert found == [404, 404, 404, 429]
        assert other.post(REPLY + "none")[0] == 404
    assert 4 * len(MEMBER_ACTIONS + HELPER_ACTIONS) < BURST


# bodies


def test_a_body_that_was_not_signed_is_not_a_reply(channel, tls):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(channel.exchange, "upload", {1: b""})
        caller = Caller(channel, tls)
        _, headers, _ = caller.post(NEXT)
        path = REPLY + headers[TASK_HEADER]
        signed = caller.headers(path, b"good")
        assert caller.post(path, b"evil", signed)[0] == 403
        assert caller.post(path, b"good")[0] == 204
        assert asked.result() == {1: b"good"}
        caller.http.close()


def test_another_seats_task_cannot_be_replied_to(channel, tls):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(channel.exchange, "upload", {1: b""})
        caller, thief = Caller(channel, tls), Caller(channel, tls, 2)
        _, headers, _ = caller.post(NEXT)
        path = REPLY + headers[TASK_HEADER]
        assert thief.post(path, b"mine")[0] == 404
        assert caller.post(path, b"good")[0] == 204
        assert asked.result() == {1: b"good"}
        caller.http.close()


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [
        (NEXT, "1", 413),
        (REPLY, str(MESSAGE_BYTES_MAX + 1), 413),
        (REPLY, "800000000", 413),
        (REFUSE, "65", 413),
        (REPLY, None, 411),
        (NEXT, None, 413),
    ],
)
def test_a_body_over_its_limit_is_refused_unread(channel, tls, path, length, status):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(channel.exchange, "upload", {1: b""})
        caller = Caller(channel, tls)
        _, headers, _ = caller.post(NEXT)
        if path != NEXT:
            path += headers[TASK_HEADER]
        caller.http.putrequest("POST", path)
        for name, value in caller.headers(path).items():
            caller.http.putheader(name, value)
        if length is None:
            caller.http.putheader("Transfer-Encoding", "chunked")
        else:
            caller.http.putheader("Content-Length", length)
        caller.http.endheaders()  # and not a byte of the body
        response = caller.http.getresponse()
        assert (response.status, response.headers["Connection"]) == (status, "close")
        caller.http.close()
        caller.post(REFUSE + headers[TASK_HEADER], b"Done")
        assert asked.result() == {}
        caller.http.close()


def raw(channel, tls):
    """A bare TLS socket."""
    context = tls.client_context()
    plain = socket.create_connection(("127.0.0.1", channel.port), timeout=20)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_connection_that_says_nothing_is_closed(tls, monkeypatch):
    monkeypatch.setattr(server_channel, "IDLE_S", 0.2)
    with (
        RoundChannel(TERMS, tls.server_context(), "127.0.0.1", 0, timeouts(1.0)) as channel,
        raw(channel, tls) as silent,
        raw(channel, tls) as slow,
    ):
        slow.sendall(b"POST /v1/next HTTP/1.1\r\nHost: x\r\nA: ")
        assert silent.recv(1) == b""
        assert slow.recv(1) == b""


def test_strangers_make_room_for_each_other_and_never_for_a_seat(channel, tls):
    member = Caller(channel, tls)
    assert member.post(HEALTH + "x", headers=member.headers(HEALTH + "x"))[0] == 403
    member.http.close()
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(member.post, NEXT)
        while not any(slot.connection for slot in channel._slots.values()):
            time.sleep(0.01)
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(raw(channel, tls)) for _ in range(STRANGERS_MAX + 3)]
            for oldest in crowd[:3]:
                assert oldest.recv(1) == b""
            assert len(channel._door.strangers) == STRANGERS_MAX
            asking = threading.Thread(target=channel.exchange, args=("upload", {1: b"stay"}))
            asking.start()
            status, headers, body = polled.result()
            assert (status, body) == (200, b"stay")
            assert member.post(REFUSE + headers[TASK_HEADER], b"Done")[0] == 204
            asking.join()
    member.http.close()


def test_tls_1_2_is_not_spoken(channel, tls):
    context = tls.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", channel.port), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(plain, server_hostname="127.0.0.1") as spoken,
    ):
        spoken.recv(1)


def test_800_mb_of_a_stranger_do_not_stay_in_memory(tls, tmp_path):
    """The service in a process of its own: its memory before and after."""
    code = f"""
import re, sys
from pathlib import Path
from server.certificates import TlsFiles
from server.channel import RoundChannel
from fedtrade.protocol import ReleaseTerms, decode
terms = decode(ReleaseTerms, Path({str(tmp_path / "terms")!r}).read_bytes())
tls = TlsFiles.within(Path({str(tls.ca.parent)!r})).server_context()
def peak_kb():
    return re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
with RoundChannel(terms, tls, "127.0.0.1", 0, {{}}) as channel:
    print(channel.port, peak_kb(), flush=True)
    sys.stdin.readline()
    print(peak_kb(), flush=True)
"""
    (tmp_path / "terms").write_bytes(encode(TERMS))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as service:
        port, before_kb = map(int, service.stdout.readline().split())
        context = tls.client_context()
        sent = 0
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as stranger:
            stranger.sendall(
                b"POST /v1/reply/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 800000000\r\n\r\n"
            )
            chunk = bytes(2**20)
            with contextlib.suppress(OSError):
                while sent < 800_000_000:
                    stranger.sendall(chunk)
                    sent += len(chunk)
        print("", file=service.stdin, flush=True)
        after_kb = int(service.stdout.readline())
    assert after_kb - before_kb < 50_000
