"""Nothing private leaves a member's own folder: secrets are searched in all that left, crashes too.

Positions hold planted values. Every secret that a run makes (keys, what is derived from them, mask
seeds, updates before they are masked, each helper's noise, shares of a collective key) is noted as it
is made. Everything that left a party is kept: each message and reply as Flower carries it, each log
line, each printed line, and every file that was written, the parties' own ledgers, intakes and
briefings included, for none of these has a place for a plain secret. Then one is searched in the
other, in every form that a secret takes on its way. A control plants some and must find them.

`FEDTRADE_CANARY_RUNS` small releases more, with new secrets each, are cut short at random points: by
an exception whose text quotes what it was called with, or by SIGKILL.
"""

import asyncio
import logging
import os
import random
import resource
import shutil
import signal
import struct
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from leaks import Everything, watch

from clients.channel import serve
from clients.desk import Desk
from clients.helper import Helper
from clients.keys import MemberKeys
from clients.ledger import Ledger
from clients.member import Member
from clients.positions import PrivatePositions
from clients.settings import CoordinatorAt, MemberSettings, Seats
from consortium import rehearsal
from consortium.rehearsal import SMALL, Board, Consortium, Party, RandomPositions, make_terms
from fedtrade.artifact import load
from fedtrade.errors import FedtradeError
from fedtrade.learning.features import PRIVATE_FEATURES, PUBLIC_FEATURES
from fedtrade.learning.tables import candles
from fedtrade.privacy import masking
from fedtrade.protocol import HELPER_ACTIONS, MEMBER_ACTIONS, Briefing, Endorsement, encode
from server.certificates import create_authority, issue
from server.channel import RoundChannel
from server.keys import CoordinatorKeys
from server.release import Release, endorsements
from server.rounds import RoundAbandoned
from server.store import TranscriptFile

MARKET = ("binance", "ETH")
HEADER = "position_id,venue,symbol,side,opened_at,closed_at,entry_price,quantity_base,leverage\n"
RUNS = int(os.environ.get("FEDTRADE_CANARY_RUNS", "12"))

THREE = SMALL.model_copy(update={"helpers": 3, "corrupt": 1, "cohort_min": 4})
LANES = {
    "mask": THREE,
    "norm": THREE.model_copy(update={"update_norm_max": 8.0}),
    "certificate": THREE.model_copy(update={"agreement": "certificate"}),
    "buckets": THREE.model_copy(update={"bucket_min": 3, "cohort_min": 6}),
    "local": THREE.model_copy(update={"local_steps": 2}),
    "bfv": THREE.model_copy(update={"aggregation": "bfv", "weight_max": 2}),
}
MEMBERS = 6


def planted(member):
    """Values that occur nowhere by chance: prices and sizes with ten significant digits."""
    return {
        "id": f"CANARY-{member}-7f3a9",
        "price": 1937.412683 + member * 0.00731,
        "size": 41.88317529 + member * 0.0113,
        "leverage": 7.381912 + member * 0.0271,
    }


def write_positions(folder, member):
    folder.mkdir(parents=True)
    v = planted(member)
    rows = [
        f"{v['id']}-{i},binance,ETH,{'long' if i % 2 else 'short'},2025-04-{d:02d}T03:17:41Z,"
        f"2025-04-{d + 2:02d}T09:41:13Z,{v['price']!r},{v['size']!r},{v['leverage']!r}\n"
        for i, d in enumerate(range(2, 26))
    ]
    path = folder / "positions.csv"
    path.write_text(HEADER + "".join(rows))
    return path


def gather(folder, lane, spy, positions, base, keys=None):
    """A consortium of new parties whose keys are noted."""
    parties = [
        Party(i, f"m{i}", MemberKeys.ephemeral(), held, folder / "members" / str(i))
        for i, held in enumerate(positions, start=1)
    ]
    keys = keys or MemberKeys.ephemeral()
    for own in (*(party.keys for party in parties), keys):
        spy.key(own._signing.secret)
        spy.key(own._exchange.private_bytes_raw())
    terms, record = make_terms(parties, LANES[lane], base, keys.address), None
    if lane == "bfv":
        terms, record = rehearsal.make_key(terms, parties)
        spy.out(encode(record))
    floor = rehearsal.Floor(epsilon_limit=20.0)
    made = (parties, terms, base, Board(), keys.sign_digest, folder / "shared", floor, record)
    return parties, Consortium(*made), record


def drive(consortium, spy, rounds):
    """Rounds over Flower, a question that fails, and the members' judgement of the release."""

    def run(exchange):
        for _ in range(rounds):
            consortium.release.run_round(exchange)
        exchange("upload", {1: b"nonsense"})
        terms, finished = consortium.terms, consortium.release.finish()
        spy.out(finished.transcript)
        spy.out(finished.artifact)
        asked = Endorsement(
            transcript=finished.transcript,
            version=1,
            uri="u",
            registries={terms.chain_id: terms.registry},
        )
        signed = endorsements(exchange, terms, encode(asked))
        assert len(signed) == MEMBERS
        for reply in signed.values():
            spy.out(reply)

    consortium.over_flower(run)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Positions of planted values, and the folder of their files."""
    folder, table = tmp_path_factory.mktemp("held"), candles(*MARKET)
    return folder, [
        PrivatePositions.load(write_positions(folder / str(i), i), {MARKET: table}, 1_749_686_400)
        for i in range(1, MEMBERS + 1)
    ]


@pytest.fixture(params=LANES)
def released(request, tmp_path, held, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    spy, (source, positions) = Everything(), held
    for i in range(1, MEMBERS + 1):
        values = planted(i)
        spy.secret(values["id"].encode())
        for name in ("price", "size", "leverage"):
            spy.number(values[name])
    features = len(PUBLIC_FEATURES) + len(PRIVATE_FEATURES)
    base = rehearsal.small_base(features=features, hidden=(4,))
    watch(monkeypatch, spy)
    parties, consortium, record = gather(tmp_path, request.param, spy, positions, base)
    drive(consortium, spy, rounds=1 if request.param == "bfv" else 2)
    for i, party in enumerate(parties, start=1):
        with pytest.raises(FedtradeError):  # errors are texts too
            PrivatePositions.load(source / str(i) / "positions.csv", {}, now_s=1_749_686_400)
        spy.out(repr(party).encode() + repr(party.positions).encode())
    for desk in consortium.desks.values():
        spy.out(repr(vars(desk)).encode() + repr(vars(desk.member.budget)).encode())
    spy.out(encode(Briefing(terms=consortium.terms, base=base, key=record)))
    consortium.close()
    spy.folder(tmp_path)
    spy.left.extend(logging.Formatter().format(r).encode() for r in caplog.records)
    spy.left.extend(part.encode() for part in capfd.readouterr())
    return spy


def test_nothing_private_is_in_anything_that_left(released):
    assert len(released.left) > 60
    assert sum(map(len, released.left)) > 10_000
    assert len(released.secrets) > 500
    names = {data for data in released.left if len(data) < 40}
    assert {b"intake-1-1.bin", b"ledger.jsonl", b"signed-1.jsonl", b"transcript.bin"} <= names
    assert released.found() == []
    plants = [released.secrets[0], released.secrets[-1], struct.pack("<d", planted(3)["price"])]
    released.left += [b"xx" + plants[0], b"yyy" + plants[1] + b"z", b"zzz" + plants[2]]
    assert set(released.found()) >= set(plants)  # the control: the search finds what is there


# --- over the round channel, from settings files ----------------------------------------------------


def open_desks(folder, spy, tls, port, terms, keys):
    """Desks as a deployment has them: from `member.toml` alone, with keys and positions beside it."""
    desks = {}
    for seat in (each.id for each in terms.members):
        own = folder / str(seat)
        settings = MemberSettings(
            folder=own,
            keys=own,
            positions=own / "positions.csv",
            until=datetime(2025, 6, 12, tzinfo=UTC),
            seats=Seats(member=seat, helper=seat if seat <= len(terms.helpers) else None),
            coordinator=CoordinatorAt(
                address=terms.coordinator, url=f"https://127.0.0.1:{port}", ca_file=tls.ca
            ),
            approved_terms=(terms.digest.hex(),),
            floor=rehearsal.Floor(epsilon_limit=20.0),
        )
        desks[seat] = (Desk.open(settings), settings, keys[seat])
    return desks


def test_nothing_leaves_over_the_round_channel(tmp_path, monkeypatch, caplog, capfd):
    """Each party's folder, what the channel carries, and what the coordinator logs."""
    caplog.set_level(logging.DEBUG)
    spy, members, now = Everything(), tmp_path / "members", datetime.now(UTC)
    watch(monkeypatch, spy)
    create_authority(tmp_path / "tls", "test", now)
    tls = issue(tmp_path / "tls", ["127.0.0.1"], now)
    keys = {}
    for seat in range(1, 5):
        write_positions(members / str(seat), seat)
        spy.secret(planted(seat)["id"].encode())
        spy.number(planted(seat)["price"])
        keys[seat] = MemberKeys.create(members / str(seat))
        spy.key(keys[seat]._signing.secret)
        spy.key(keys[seat]._exchange.private_bytes_raw())
    features = len(PUBLIC_FEATURES) + len(PRIVATE_FEATURES)
    base = rehearsal.small_base(features=features, hidden=(4,))
    rows = SimpleNamespace(count=24)
    parties = [Party(seat, "m", own, rows, members / str(seat)) for seat, own in keys.items()]
    coordinator = MemberKeys.ephemeral()
    terms = make_terms(parties, LANES["certificate"], base, coordinator.address)
    timeouts = dict.fromkeys((*MEMBER_ACTIONS, *HELPER_ACTIONS), 30.0)
    with RoundChannel(terms, tls.server_context(), "127.0.0.1", 0, timeouts) as channel:
        desks = open_desks(members, spy, tls, channel.port, terms, keys)

        def exchange(action, asked):
            replies = channel.exchange(action, asked)
            for body in (*asked.values(), *replies.values()):
                spy.out(body)
            return replies

        with ThreadPoolExecutor(len(desks)) as pool:
            for desk, settings, own in desks.values():
                pool.submit(asyncio.run, serve(desk, settings, own.sign_digest, asyncio.Event()))
            briefing = encode(Briefing(terms=terms, base=base))
            seats = [seat.id for seat in terms.members]
            helpers = [seat.id for seat in terms.helpers]
            assert set(exchange("join", dict.fromkeys(seats, briefing))) == set(seats)
            assert set(exchange("serve", dict.fromkeys(helpers, briefing))) == set(helpers)
            release = Release(
                terms,
                load(base, terms.base_sha256),
                base,
                TranscriptFile(tmp_path / "shared" / "transcript.bin"),
                coordinator.sign_digest,
                lambda *_: None,
            )
            report = release.run_round(exchange)
            assert report.cohort == tuple(seats)
            text = f"it quotes {planted(4)['id']}-3 at {planted(4)['price']!r}"
            real = desks[4][0].member.upload

            def fail(_body):
                raise RuntimeError(text)

            desks[4][0].member.upload = fail
            with pytest.raises(RoundAbandoned):  # three are too few
                release.run_round(exchange)
            desks[4][0].member.upload = real
            spy.out(release.finish().transcript)
            channel.close()
        for desk, *_ in desks.values():
            desk.close()
    spy.folder(tmp_path)
    names = {data for data in spy.left if len(data) < 40}
    assert {b"briefing.bin", b"intake-1-1.bin", b"ledger.jsonl", b"transcript.bin"} <= names
    of_member = [r for r in caplog.records if r.name == "fedtrade.member"]
    spy.left.extend(
        logging.Formatter().format(r).encode() for r in caplog.records if r not in of_member
    )
    assert any(r.name == "fedtrade.coordinator" for r in caplog.records)
    assert text in "".join(
        logging.Formatter().format(r) for r in of_member
    )  # there, and only there
    capfd.readouterr()
    assert len(spy.secrets) > 100
    assert spy.found() == []


# --- cut short at random points -------------------------------------------------------------------


class Cut(Exception):
    """What is raised in the middle; its text quotes what was at hand."""


POINTS = (
    (Member, "_units"), (Member, "_protect"), (Member, "_seal"), (Ledger, "append"),
    (Helper, "_take"), (Helper, "_share"), (Helper, "_noise"), (Helper, "_keep"), (Helper, "_bind"),
    (masking, "unseal"), (masking, "seal"), (MemberKeys, "derive"), (MemberKeys, "sign_digest"),
    (os, "fsync"), (os, "replace"),
)  # fmt: skip
"""Where a run may be cut."""


def cut_at(patch, spy, r, how):
    """Cut the run at the n-th passage of one point, before or after its work is done."""
    owner, name = r.choice(POINTS)
    real, left, late = getattr(owner, name), [r.choice((1, 1, 2, 3, 5, 8, 13))], r.random() < 0.5
    canary = f"CANARY-{r.getrandbits(96):024x}"

    def cut(*arguments):
        left[0] -= 1
        if left[0]:
            return real(*arguments)
        if late:
            real(*arguments)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        private = owner is not os  # the coordinator writes to a disk as well, and knows no secret
        if not private:
            raise Cut("a disk")
        spy.secret(canary.encode())
        raise Cut(f"{canary} {arguments!r}"[:4000])

    patch.setattr(owner, name, cut)
    return lambda: left[0] <= 0


def short_release(folder, lane, seed, spy, how):
    """One release of two rounds, cut at one point; gives how it ended.

    "borne": whoever was cut was left out of a round, and the release went on.
    """
    r = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, spy)
        positions = [RandomPositions(24, 6, seed=seed * 100 + i) for i in range(MEMBERS)]
        for each in positions:
            spy.vector(each._batch.features)
            spy.vector(each._batch.targets)
        _, consortium, _ = gather(folder, lane, spy, positions, rehearsal.small_base())
        was_cut = cut_at(patch, spy, r, how)
        try:
            consortium.over_flower(
                lambda exchange: [consortium.release.run_round(exchange) for _ in range(2)]
            )
        except (RoundAbandoned, Cut, FedtradeError):
            spy.out(traceback.format_exc().encode())  # what a coordinator would print
            return "cut"
        finally:
            consortium.close()
    return "borne" if was_cut() else "whole"


class OfCoordinator(logging.Handler):
    """Log lines that somebody else than the member that wrote them may see."""

    def __init__(self, spy):
        super().__init__(logging.DEBUG)
        self.spy = spy

    def emit(self, record):
        if not record.name.startswith("fedtrade.member"):
            self.spy.out(logging.Formatter().format(record).encode())


def killed_release(folder, lane, seed, spy):
    """The same in a process that ends itself with SIGKILL; gives how it ended."""
    notes = folder.parent / f"{folder.name}.notes"
    printed = folder.parent / f"{folder.name}.printed"
    child = os.fork()
    if not child:
        status = 1
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            out = os.open(printed, flags, 0o600)
            os.dup2(out, 1)
            os.dup2(out, 2)
            own = Everything(os.open(notes, flags, 0o600))
            short_release(folder, lane, seed, own, "kill")
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    spy.take(notes.read_bytes())
    spy.left.append(printed.read_bytes())
    notes.unlink()
    printed.unlink()
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return "killed" if os.WIFSIGNALED(status) else "whole"


SHORT = ("mask", "norm", "certificate", "buckets", "local")


@pytest.mark.timeout(7200)
def test_releases_that_are_cut_short_leave_nothing(tmp_path, capfd):
    """Each with secrets of its own. A member's own log may quote an exception; nothing else may."""
    ends = dict.fromkeys(("whole", "borne", "cut", "killed"), 0)
    secrets = searched = 0
    member_log = logging.getLogger("fedtrade.member")
    quiet = logging.NullHandler()
    member_log.addHandler(quiet)
    member_log.propagate = False
    try:
        for run in range(RUNS):
            folder, spy = tmp_path / str(run), Everything()
            folder.mkdir()
            lane = SHORT[run % len(SHORT)]
            if run % 3 == 2:
                end = killed_release(folder, lane, run, spy)
            else:
                heard = OfCoordinator(spy)
                logging.getLogger().addHandler(heard)
                end = short_release(folder, lane, run, spy, "raise")
                logging.getLogger().removeHandler(heard)
            ends[end] += 1
            spy.folder(folder)
            spy.left.extend(part.encode() for part in capfd.readouterr())
            assert spy.found() == [], f"run {run}, {lane}, {end}"
            secrets += len(spy.secrets)
            searched += sum(map(len, spy.left))
            shutil.rmtree(folder)
    finally:
        member_log.propagate = True
        member_log.removeHandler(quiet)
    with capfd.disabled():
        print(
            f"\n{RUNS} runs {ends}: {secrets} secrets, {searched / 2**20:.1f} MiB searched", end=""
        )
    assert ends["killed"] > 0
    assert ends["cut"] + ends["borne"] > 0


def test_a_text_that_quotes_a_secret_would_be_found(tmp_path, monkeypatch):
    """The control: a shell that answers with an exception's text instead of its name."""
    spy = Everything()
    watch(monkeypatch, spy)
    positions = [RandomPositions(24, 6, seed=i) for i in range(MEMBERS)]
    _, consortium, _ = gather(tmp_path, "mask", spy, positions, rehearsal.small_base())

    def exchange(action, asked):
        for seat, body in asked.items():
            try:
                consortium.desks[seat].act(action, body)
            except Cut as error:
                spy.out(str(error).encode())
        return {}

    real = Member._seal

    def quoting(self, seeds, *rest):
        real(self, seeds, *rest)
        raise Cut("seeds " + "".join(seed.decode("latin1") for seed in seeds))

    monkeypatch.setattr(Member, "_seal", quoting)
    with pytest.raises(RoundAbandoned):
        consortium.release.run_round(exchange)
    consortium.close()
    spy.left = [data.decode().encode("latin1") if b"seeds" in data else data for data in spy.left]
    assert len(spy.found()) >= 3


@pytest.mark.parametrize("kind", [MemberKeys, CoordinatorKeys])
def test_a_process_that_has_loaded_keys_leaves_no_core_file(tmp_path, monkeypatch, kind):
    limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limit: limits.append((what, limit)))
    kind.create(tmp_path)
    kind.load(tmp_path)
    assert limits == [(resource.RLIMIT_CORE, (0, 0))]
