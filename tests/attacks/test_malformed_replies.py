"""A hundred thousand replies that are not what was asked for: each is dropped alone.

Three ways in, from the outside to the inside: the records of Flower messages (`server.app`), the seats
that nodes claim, and the protocol's messages (`Round`). None of them may end a run, and none may be
taken. Some hundreds more travel over the in-process grid within whole rounds.
"""

import contextlib
import itertools
import logging
import random

import msgspec
import pytest
from adversary import LANES, Adversary, gather, person
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation import Mutator

from fedtrade.protocol import (
    Answer,
    Approval,
    Check,
    Draw,
    Ready,
    Upload,
    decode,
    encode,
    sign_message,
)
from server.app import _reply_body, _seats
from server.rounds import Round, RoundAbandoned, drop_alone

MUTANTS = 78_000
SEATS_CLAIMED = 12_000
RECORDS = 10_000
"""Together 1e5."""


class Reply:
    """A reply as `_reply_body` reads it, without the cost of Flower's own checks of a Message."""

    def __init__(self, content):
        self.content = content

    def has_error(self):
        return False


values = st.one_of(
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.binary(max_size=60),
    st.booleans(),
    st.lists(st.integers(-5, 5), max_size=4),
    st.lists(st.binary(max_size=5), max_size=3),
)
keys = st.one_of(st.sampled_from(["body", "refused"]), st.text(min_size=1, max_size=10))
configs = st.dictionaries(keys, values, max_size=5).map(ConfigRecord)
metrics = st.dictionaries(st.text(max_size=5), st.integers(-9, 9), max_size=3).map(MetricRecord)
names = st.one_of(st.just("fedtrade"), st.text(max_size=10))
records = st.dictionaries(
    names, st.one_of(configs, metrics, st.builds(ArrayRecord)), max_size=3
).map(RecordDict)


@settings(max_examples=100)
@given(records)
def test_any_record_gives_bytes_or_nothing(content):
    body = _reply_body(Reply(content), 2, "upload")
    assert body is None or isinstance(body, bytes)


def test_ten_thousand_records_of_every_type(caplog):
    caplog.set_level(logging.CRITICAL)
    r = random.Random(1)
    pieces = [0, -1, 1.5, float("nan"), "x", b"", b"\xff" * 30, True, [], [1], [b"a"], ["a"]]
    found = 0
    for _ in range(RECORDS):
        fields = {r.choice(("body", "refused", "x", "")): r.choice(pieces) for _ in range(3)}
        content = RecordDict({r.choice(("fedtrade", "other")): ConfigRecord(fields)})
        body = _reply_body(Reply(content), 2, "ready")
        assert body is None or isinstance(body, bytes)
        found += body is not None
    assert 0 < found < RECORDS


def test_twelve_thousand_claims_of_seats(caplog):
    caplog.set_level(logging.CRITICAL)
    good = [
        msgspec.msgpack.encode({"member": 1}),
        msgspec.msgpack.encode({"member": 3, "helper": 3}),
        msgspec.msgpack.encode({"member": 2**63, "helper": -1}),
        msgspec.msgpack.encode(["member", 1]),
    ]
    mutate = Mutator(good, 2)
    for _ in range(SEATS_CLAIMED // 4):
        bodies = {node: mutate() for node in range(2, 6)}
        bodies[9] = good[1]
        seats = _seats(bodies)
        assert set(seats) == {"member", "helper"}
        assert 9 in seats["member"].values() or 3 in seats["member"]
        for role in seats.values():
            assert all(isinstance(s, int) and isinstance(n, int) for s, n in role.items())


SPOKEN = ["mask", "certificate", "norm", "buckets", "bfv"]


@pytest.fixture(scope="module", params=SPOKEN)
def exchange_of(request, tmp_path_factory):
    """A finished round's replies by kind, and rounds that stand before each of them."""
    a = Adversary(tmp_path_factory.mktemp(request.param), request.param)
    fresh = Round(a.terms, 1, a.trajectory.model)
    a.collect().make_ready()
    question = a.finalise(a.question())
    a.round.manifest = question.manifest
    answers = [a.ask("answer", h, question) for h in (1, 2, 3)]
    good = {
        "upload": (fresh.upload, [encode(u) for u in a.round.uploads.values()]),
        "ready": (a.round.ready, [encode(m) for m in a.round.readies.values()]),
        "answer": (a.round.answer, answers),
    }
    if a.p.update_norm_max is not None:
        good["check"] = (a.round.check, [encode(m) for m in a.round.checks.values()])
    if a.p.bucket_min is not None:
        good["draw"] = (a.round.draw, [encode(m) for m in a.round.draws.values()])
    if a.p.agreement == "certificate":
        good["approve"] = (a.round.approve, [encode(m) for m in question.approvals])
    yield a, good
    a.close()


def test_mutants_of_every_message_are_dropped_alone(exchange_of):
    """They are mutants of messages that were good: not one of them is taken."""
    a, good = exchange_of
    each = MUTANTS // len(SPOKEN) // len(good)
    for kind, (take, bodies) in good.items():
        mutate, left, taken = Mutator(bodies, 3), [], []
        for start in range(0, each, 500):
            size = min(500, each - start)
            replies = {i: mutate() for i in range(size)}
            same = [i for i, data in replies.items() if data in bodies]
            for i in same:  # a change that changed nothing
                del replies[i]
            taken += drop_alone(take, replies, left, kind)
        assert taken == []
        assert len(left) > 0.9 * each
        assert all(entry.why and len(entry.why) < 1500 for entry in left)
    state = a.round.state
    assert state == "committed"


def test_the_count_is_a_hundred_thousand():
    assert MUTANTS + SEATS_CLAIMED + RECORDS == 100_000


# --- validly signed nonsense ----------------------------------------------------------------------


def nonsense(kind, data, r):
    """The fields that a bad helper or member may fill as it likes, and sign."""
    message = decode(kind, data)
    changes = {}
    for name in r.sample(sorted(kind.model_fields), k=r.choice((1, 2))):
        value = getattr(message, name)
        if name in ("signature", "release", "round", "terms"):
            continue
        if isinstance(value, bytes):
            length = r.choice((len(value), len(value), 0, 4, 8, 32))
            changes[name] = r.randbytes(length)
        elif isinstance(value, int):
            changes[name] = r.choice((0, 1, 2, 3, 4, 2**63 - 1))
        elif isinstance(value, tuple):
            changes[name] = r.choice((value[::-1], value[:1], value * 2, ()))
    return message.model_copy(update=changes)


@pytest.mark.parametrize(
    ("lane", "seed"),
    [*itertools.product(("mask", "certificate", "five"), range(4)),
     *itertools.product(("norm", "buckets", "bfv"), range(2))],
)  # fmt: skip
def test_what_a_bad_helper_signs_ends_in_a_sum_or_in_a_clean_abandonment(tmp_path, lane, seed):
    r = random.Random(seed)
    consortium, _ = gather(tmp_path, LANES[lane], 7)
    kinds = {
        "ready": Ready, "check": Check, "draw": Draw, "approve": Approval, "answer": Answer
    }  # fmt: skip
    direct = consortium.direct()
    for _ in range(6):
        bad = {h.id for h in consortium.terms.helpers[: consortium.terms.parameters.corrupt]}

        def exchange(action, bodies, bad=bad):
            replies = dict(direct(action, bodies))
            for seat in bad & set(replies):
                if action in kinds and r.random() < 0.5:
                    forged = nonsense(kinds[action], replies[seat], r)
                    signed = sign_message(consortium.terms, forged, person(seat - 1).sign_digest)
                    replies[seat] = encode(signed)
            return replies

        spent = consortium.release.spent
        with contextlib.suppress(RoundAbandoned):  # and nothing else
            report = consortium.release.run_round(exchange)
            assert len(report.cohort) >= consortium.terms.parameters.cohort_min
        assert consortium.release.spent == spent + 1
    consortium.close()


# --- over the grid --------------------------------------------------------------------------------


def replies_over_flower(consortium, forge, rounds):
    """Run some rounds over the in-process grid; `forge(node, kind, message)` may replace a reply."""
    reports = []

    def fault(node, message):
        action = message.metadata.message_type.removeprefix("query.")
        content = forge(node, action)
        return None if content is None else Message(content, reply_to=message)

    def run(exchange):
        reports.extend(consortium.release.run_round(exchange) for _ in range(rounds))

    consortium.over_flower(run, fault=fault)
    return reports


def test_bad_members_over_the_grid_are_excluded_and_the_run_goes_on(tmp_path, caplog):
    """Nodes 7 to 9 hold members 6 to 8: all that they answer is nonsense."""
    caplog.set_level(logging.CRITICAL)
    parameters = LANES["mask"].model_copy(update={"rounds": 40, "sampling_rate": 0.05})
    consortium, _ = gather(tmp_path, parameters, 8)
    r = random.Random(4)
    pieces = [0, 1.5, "x", b"", b"\xff" * 30, True, [1], [b"a"], [], ["a", "b"]]
    forged = []

    def forge(node, action):
        if node < 7 or action == "hello":
            return None
        forged.append(action)
        fields = {r.choice(("body", "refused", "x")): r.choice(pieces) for _ in range(2)}
        return RecordDict({r.choice(("fedtrade", "fedtrade", "y")): ConfigRecord(fields)})

    reports = replies_over_flower(consortium, forge, 40)
    assert [report.cohort for report in reports] == [(1, 2, 3, 4, 5)] * 40
    assert len(forged) == 120
    consortium.close()


def test_mutated_helpers_over_the_grid_cost_at_most_their_own_part(tmp_path, caplog):
    """Five helpers, one of which answers readiness with mutants of its own true reply."""
    caplog.set_level(logging.CRITICAL)
    parameters = LANES["five"].model_copy(update={"rounds": 30, "sampling_rate": 0.05})
    consortium, _ = gather(tmp_path, parameters, 6)
    r = random.Random(5)
    sent = []

    def forge(node, action):
        if node != 3 or action != "ready":
            return None
        body = Mutator(sent or [b"\x81"], r.randrange(10**6))()
        sent.append(body)
        return RecordDict({"fedtrade": ConfigRecord({"body": body})})

    reports = replies_over_flower(consortium, forge, 30)
    assert [report.responders for report in reports] == [(1, 3, 4, 5)] * 30
    assert len(sent) == 30
    consortium.close()


def test_every_kind_of_message_was_among_the_mutants(exchange_of):
    a, good = exchange_of
    wanted = {"upload", "ready", "answer"}
    wanted |= {"check"} if a.p.update_norm_max is not None else set()
    wanted |= {"draw"} if a.p.bucket_min is not None else set()
    wanted |= {"approve"} if a.p.agreement == "certificate" else set()
    assert set(good) == wanted
    assert decode(Upload, good["upload"][1][0]).statement.member == 1
