"""A member's end of the round channel: does each task once, waits outages out, tells nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from clients import channel as client_channel
from clients.channel import TurnedAway, client_tls, serve
from clients.keys import MemberKeys
from clients.settings import CoordinatorAt, MemberSettings, Seats
from fedtrade.channel import SKEW_MAX_MS, ClockSkew
from fedtrade.errors import BadInput, Refusal
from fedtrade.parameters import PrivacyParameters
from fedtrade.protocol import HELPER_ACTIONS, MEMBER_ACTIONS, ReleaseTerms, Seat
from server import channel as server_channel
from server.certificates import create_authority, issue
from server.channel import RoundChannel

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
TIMEOUTS = dict.fromkeys((*MEMBER_ACTIONS, *HELPER_ACTIONS), 10.0)
SECRET = "entry price 1823.5"


class Desk:
    """A desk that notes what it is asked; `act` may be told to fail."""

    def __init__(self, roles, work=lambda action, body: action.encode() + b" " + body):
        self.roles = roles
        self.asked = []
        self.threads = set()
        self._work = work

    def act(self, action, body):
        self.asked.append((action, body))
        self.threads.add(threading.get_ident())
        return self._work(action, body)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    now = datetime.now(UTC)
    create_authority(folder, "test", now)
    return issue(folder, ["127.0.0.1"], now)


def opened(tls, port=0):
    return RoundChannel(TERMS, tls.server_context(), "127.0.0.1", port, TIMEOUTS)


def settings(tls, port, roles, ca=None):
    return MemberSettings(
        folder="unused",
        keys="unused",
        positions="unused",
        seats=Seats(**roles),
        coordinator=CoordinatorAt(
            address=COORDINATOR, url=f"https://127.0.0.1:{port}", ca_file=ca or tls.ca
        ),
    )


class Party:
    """`serve` in a thread of its own, as a member's process would run it."""

    def __init__(self, tls, port, desk, keys=None, **options):
        seat = next(iter(desk.roles.values()))
        sign = (keys or KEYS[seat]).sign_digest
        started = threading.Event()

        async def main():
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            started.set()
            await serve(desk, settings(tls, port, desk.roles), sign, self._stop, **options)

        self._pool = ThreadPoolExecutor(1)
        self.ended = self._pool.submit(asyncio.run, main())
        started.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self.ended.done():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._pool.shutdown()


def test_a_party_with_two_roles_does_what_it_is_asked_in_one_thread(tls):
    desk = Desk({"member": 1, "helper": 1})
    with opened(tls) as channel, Party(tls, channel.port, desk):
        assert channel.exchange("join", {1: b"terms"}) == {1: b"join terms"}
        assert channel.exchange("serve", {1: b"terms"}) == {1: b"serve terms"}
        assert channel.exchange("upload", {1: b"a"}) == {1: b"upload a"}
        assert channel.exchange("ready", {1: b""}) == {1: b"ready "}
    assert [action for action, _ in desk.asked] == ["join", "serve", "upload", "ready"]
    assert len(desk.threads) == 1


def test_the_end_of_the_release_ends_it(tls):
    with opened(tls) as channel:
        party = Party(tls, channel.port, Desk({"member": 1, "helper": 1}))
        assert channel.exchange("upload", {1: b""}) == {1: b"upload "}
    assert party.ended.result(timeout=10) is None
    with party:
        pass


def test_nothing_but_the_errors_name_goes_back(tls, caplog):
    class TooPersonal(Refusal):
        pass

    def work(action, body):
        if body == b"ours":
            raise TooPersonal(SECRET)
        raise ValueError(SECRET)

    desk = Desk({"member": 1}, work)
    with (
        caplog.at_level(logging.INFO),
        opened(tls) as channel,
        Party(tls, channel.port, desk),
    ):
        assert channel.exchange("upload", {1: b"ours"}) == {}
        assert channel.exchange("upload", {1: b"any"}) == {}
        assert channel.exchange("upload", {1: b"ours"}) == {}  # and it goes on
    told = [r.getMessage() for r in caplog.records if r.name == "fedtrade.coordinator"]
    assert sum("refused upload: TooPersonal" in line for line in told) == 2
    assert sum("refused upload: Fault" in line for line in told) == 1
    assert not any(SECRET in line for line in told)


def test_a_task_for_another_role_is_refused_and_not_done(tls, caplog, monkeypatch):
    monkeypatch.setattr(server_channel, "role_of", lambda action: "member")
    desk = Desk({"member": 1})
    with opened(tls) as channel, Party(tls, channel.port, desk):
        assert channel.exchange("answer", {1: b""}) == {}
    assert desk.asked == []
    assert "refused answer: NotForUs" in caplog.text


def test_a_reply_that_did_not_arrive_is_sent_again_and_the_work_is_not(tls, monkeypatch):
    desk = Desk({"member": 1})
    real, lost = client_channel._Loop._post, []

    async def lossy(self, path, body, digest):
        if path.startswith("/v1/reply/") and not lost:
            lost.append(path)
            return client_channel._Lost("a wire was cut")
        return await real(self, path, body, digest)

    monkeypatch.setattr(client_channel._Loop, "_post", lossy)
    with opened(tls) as channel, Party(tls, channel.port, desk):
        assert channel.exchange("upload", {1: b"x"}) == {1: b"upload x"}
        assert channel.exchange("upload", {1: b"x"}) == {1: b"upload x"}
    assert lost
    assert desk.asked == [("upload", b"x")] * 2  # two tasks, each done once


def test_an_outage_is_waited_out_and_logged_once(tls, caplog, monkeypatch):
    monkeypatch.setattr(client_channel, "BACKOFF_MIN_S", 0.01)
    monkeypatch.setattr(client_channel, "BACKOFF_MAX_S", 0.02)
    with opened(tls) as first, Party(tls, first.port, Desk({"member": 1})) as party:
        assert first.exchange("upload", {1: b""}) == {1: b"upload "}
        # the coordinator is killed: connections drop, nobody says goodbye
        first._loop.call_soon_threadsafe(first._listener.close)
        for slot in first._slots.values():
            if slot.connection:
                first._loop.call_soon_threadsafe(slot.connection.force_close)
        time.sleep(0.3)
        assert not party.ended.done()
        with caplog.at_level(logging.INFO), opened(tls, first.port) as second:
            assert second.exchange("upload", {1: b"2"}) == {1: b"upload 2"}
    outages = [r for r in caplog.records if "no connection" in r.getMessage()]
    assert len(outages) == 1


def test_it_never_waits_longer_than_its_limit(tls, monkeypatch):
    waits = []
    real = asyncio.sleep

    async def sleep(delay, result=None):
        waits.append(delay)
        await real(0)
        return result

    monkeypatch.setattr(client_channel.asyncio, "sleep", sleep)
    with Party(tls, 1, Desk({"member": 1})):  # nobody listens on port 1
        while len(waits) < 12:
            time.sleep(0.01)
    assert waits[0] == client_channel.BACKOFF_MIN_S
    assert max(waits) == client_channel.BACKOFF_MAX_S
    assert waits[:12] == sorted(waits[:12])


@pytest.mark.parametrize("off_ms", [-SKEW_MAX_MS - 5_000, SKEW_MAX_MS + 5_000])
def test_a_clock_that_is_off_is_a_typed_stale(tls, off_ms):
    clock = {"now_ms": lambda: time.time_ns() // 10**6 + off_ms}
    with (
        opened(tls) as channel,
        Party(tls, channel.port, Desk({"member": 1}), **clock) as party,
        pytest.raises(ClockSkew, match=r"NTP") as caught,
    ):
        party.ended.result(timeout=10)
    assert caught.value.exit_code == 3
    assert abs(caught.value.own_ms - caught.value.server_ms - off_ms) < 3_000


def test_a_clock_that_is_set_back_a_little_goes_on(tls):
    readings = iter([10_000, -10_000])

    def now_ms():
        return time.time_ns() // 10**6 + next(readings, -10_000)

    with opened(tls) as channel:
        with Party(tls, channel.port, Desk({"member": 1}), now_ms=now_ms):
            assert channel.exchange("upload", {1: b""}) == {1: b"upload "}
        with Party(tls, channel.port, Desk({"member": 1}), now_ms=now_ms):  # starts again, behind
            assert channel.exchange("upload", {1: b""}) == {1: b"upload "}


def test_a_key_that_holds_no_seat_is_turned_away(tls):
    stranger = MemberKeys.ephemeral()
    with (
        opened(tls) as channel,
        Party(tls, channel.port, Desk({"member": 1}), keys=stranger) as party,
        pytest.raises(TurnedAway, match="NotAuthentic"),
    ):
        party.ended.result(timeout=10)


def test_another_authoritys_certificate_is_not_spoken_to(tls, tmp_path, caplog):
    now = datetime.now(UTC)
    create_authority(tmp_path, "another", now)
    other = issue(tmp_path, ["127.0.0.1"], now)
    desk = Desk({"member": 1})
    with (
        RoundChannel(TERMS, other.server_context(), "127.0.0.1", 0, TIMEOUTS) as channel,
        Party(tls, channel.port, desk),
    ):
        while "CertificateError" not in caplog.text:
            time.sleep(0.01)
    assert desk.asked == []


def test_a_certificate_for_another_host_is_not_spoken_to(tls, tmp_path, caplog):
    now = datetime.now(UTC)
    create_authority(tmp_path, "another", now)
    other = issue(tmp_path, ["elsewhere.example"], now)
    desk = Desk({"member": 1})
    with (
        RoundChannel(TERMS, other.server_context(), "127.0.0.1", 0, TIMEOUTS) as channel,
        Party(other, channel.port, desk),
    ):
        while "CertificateError" not in caplog.text:
            time.sleep(0.01)
        assert channel.heard("member") == frozenset()
    assert desk.asked == []


def test_no_authority_is_one_sentence(tmp_path):
    (tmp_path / "ca.crt").write_text("no certificate")
    for path in (tmp_path / "ca.crt", tmp_path / "none"):
        with pytest.raises(BadInput, match="no authority"):
            client_tls(path)


def test_a_message_over_the_limit_is_not_taken_in(tls, monkeypatch):
    monkeypatch.setattr(client_channel, "task_bytes_max", lambda a: 2000 if a == "join" else 1000)
    desk = Desk({"member": 1})
    with (
        RoundChannel(
            TERMS, tls.server_context(), "127.0.0.1", 0, {**TIMEOUTS, "upload": 0.5}
        ) as channel,
        Party(tls, channel.port, desk),
    ):
        assert channel.exchange("upload", {1: bytes(1001)}) == {}
        assert channel.exchange("join", {1: bytes(1001)}) == {1: b"join " + bytes(1001)}
    assert [action for action, _ in desk.asked] == ["join"]


RUN = """
import sys, time
from pathlib import Path
from clients.channel import run
from clients.keys import MemberKeys
from clients.settings import MemberSettings

class Desk:
    roles = {"member": 1}
    def act(self, action, body):
        time.sleep(0.5)
        return b"finished"

run(Desk(), MemberSettings.load(Path(sys.argv[1])), MemberKeys.load(Path(sys.argv[2])).sign_digest)
"""


def test_sigterm_lets_the_task_at_hand_be_finished(tls, tmp_path):
    keys = MemberKeys.create(tmp_path)
    seat = Seat(id=1, signer=keys.address.lower(), x25519=keys.x25519_public)
    terms = TERMS.model_copy(update={"members": (seat, *SEATS[1:])})
    with RoundChannel(terms, tls.server_context(), "127.0.0.1", 0, TIMEOUTS) as channel:
        (tmp_path / "member.toml").write_text(
            'folder = "."\nkeys = "."\npositions = "p.csv"\n[seats]\nmember = 1\n[coordinator]\n'
            f'address = "{COORDINATOR}"\nurl = "https://127.0.0.1:{channel.port}"\n'
            f'ca_file = "{tls.ca}"\n'
        )
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, tmp_path / "member.toml", tmp_path],
            stderr=subprocess.PIPE,
        )
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(channel.exchange, "upload", {1: b""})
            task = None
            while task is None or not channel._slots[("member", 1)].connection:
                task = channel._slots[("member", 1)].task
                time.sleep(0.01)
            time.sleep(0.2)  # it is at work
            process.send_signal(signal.SIGTERM)
            assert asked.result() == {1: b"finished"}
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == b""
        process.stderr.close()
