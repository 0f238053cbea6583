"""The round channel carries a release to the same bytes as plain calls do."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import pytest

from clients.channel import serve
from clients.keys import MemberKeys
from clients.settings import CoordinatorAt, MemberSettings, Seats
from consortium.rehearsal import SMALL, Board, rehearse
from fedtrade.privacy.transcript import verify
from fedtrade.protocol import HELPER_ACTIONS, MEMBER_ACTIONS
from server.certificates import create_authority, issue
from server.channel import RoundChannel
from server.rounds import RoundAbandoned

MEMBERS = 5
TIMEOUTS = dict.fromkeys((*MEMBER_ACTIONS, *HELPER_ACTIONS), 20.0)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    now = datetime.now(UTC)
    create_authority(folder, "test", now)
    return issue(folder, ["127.0.0.1"], now)


@pytest.fixture(scope="module")
def keys():
    return [MemberKeys.ephemeral() for _ in range(MEMBERS + 1)]


def consortium(folder, keys):
    return rehearse(
        folder,
        members=MEMBERS,
        keys=keys[:MEMBERS],
        coordinator_keys=keys[MEMBERS],
        notices=Board(),
        parameters=SMALL.model_copy(update={"cohort_min": 4}),
    )


@contextmanager
def seated(desk, keys, settings):
    """One party at the channel, in a thread of its own."""
    ready, held = threading.Event(), {}

    async def main():
        held["loop"], held["stop"] = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await serve(desk, settings, keys.sign_digest, held["stop"])

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(asyncio.run, main())
        ready.wait()
        yield
        if not ended.done():
            held["loop"].call_soon_threadsafe(held["stop"].set)


@contextmanager
def over_channel(parties, keys, tls, timeouts=TIMEOUTS):
    terms = parties.terms
    with (
        RoundChannel(terms, tls.server_context(), "127.0.0.1", 0, timeouts) as channel,
        ExitStack() as stack,
    ):
        for (seat, desk), own in zip(parties.desks.items(), keys, strict=False):
            assert seat == terms.members[seat - 1].id
            settings = MemberSettings(
                folder="unused",
                keys="unused",
                positions="unused",
                seats=Seats(**desk.roles),
                coordinator=CoordinatorAt(
                    address=terms.coordinator,
                    url=f"https://127.0.0.1:{channel.port}",
                    ca_file=tls.ca,
                ),
            )
            stack.enter_context(seated(desk, own, settings))
        yield channel


def test_the_transcript_is_the_same_bytes_as_over_plain_calls(tmp_path, keys, tls):
    direct = consortium(tmp_path / "direct", keys)
    for _ in range(3):
        direct.release.run_round(direct.direct())
    expected = direct.release.finish()
    direct.close()

    parties = consortium(tmp_path / "channel", keys)
    with over_channel(parties, keys, tls) as channel:
        reports = [parties.release.run_round(channel.exchange) for _ in range(3)]
    found = parties.release.finish()
    parties.close()
    assert all(len(report.cohort) == MEMBERS for report in reports)
    assert found.transcript == expected.transcript
    assert found.artifact_sha256 == expected.artifact_sha256
    assert verify(found.transcript).steps == 3


def test_one_bad_member_does_not_stop_a_round(tmp_path, keys, tls, caplog):
    parties = consortium(tmp_path, keys)

    def fail(_body):
        raise RuntimeError("position 4711 of acme")

    parties.desks[5].member.upload = fail
    with over_channel(parties, keys, tls) as channel, caplog.at_level("WARNING"):
        report = parties.release.run_round(channel.exchange)
    parties.close()
    assert report.cohort == (1, 2, 3, 4)
    told = [r.getMessage() for r in caplog.records if r.name == "fedtrade.coordinator"]
    assert told == ["member 5 refused upload: Fault"]


def test_a_round_with_too_few_members_is_abandoned_and_the_next_goes_on(tmp_path, keys, tls):
    parties = consortium(tmp_path, keys)
    real = {seat: parties.desks[seat].act for seat in (4, 5)}
    parties.desks[4].act = parties.desks[5].act = lambda action, body: b"forged"
    with over_channel(parties, keys, tls) as channel:
        with pytest.raises(RoundAbandoned, match="3 members uploaded"):
            parties.release.run_round(channel.exchange)
        for seat, act in real.items():
            parties.desks[seat].act = act
        assert parties.release.run_round(channel.exchange).number == 2
    parties.close()
