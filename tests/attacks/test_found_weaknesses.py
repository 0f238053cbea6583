"""What attacks on earlier versions have found, each as it was done then: it must fail now.

Grouped by who attacks: a bad helper or member, the coordinator, a node of the transport. What parsers
did not stand is in `test_found_bytes.py`.
"""

import contextlib
import hashlib
import itertools
import logging
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from adversary import (
    COORDINATOR,
    LANES,
    THREE,
    Party,
    RandomPositions,
    Refused,
    crafted,
    gather,
    person,
    resigned,
)
from flwr.app import ConfigRecord, Message, RecordDict

from clients.dealer import Dealer
from clients.floor import Floor, FloorBroken
from consortium.rehearsal import SMALL, make_terms, small_base
from fedtrade.artifact import load, sha256_of
from fedtrade.learning.network import clipped_gradient_sum
from fedtrade.privacy import ceremony, lattice, robust
from fedtrade.privacy.agreement import beacon_of
from fedtrade.protocol import (
    UNSIGNED,
    Answer,
    Check,
    Draw,
    Endorsement,
    Intake,
    KeyCommit,
    KeyReveal,
    Malformed,
    Upload,
    WrongBinding,
    decode,
    encode,
    sign_message,
)
from server.app import _reply_body
from server.operation import Operation
from server.release import Release
from server.rounds import RoundAbandoned
from server.store import TranscriptFile


@pytest.fixture
def open_release(tmp_path):
    made = []

    def make(lane="mask", members=6, **change):
        consortium, _ = gather(
            tmp_path / str(len(made)), LANES[lane].model_copy(update=change), members
        )
        made.append(consortium)
        return consortium

    yield make
    for consortium in made:
        consortium.close()


def one_bad(consortium, action, seat, forge):
    """An exchange in which one seat's reply to one action is `forge(reply)`."""
    direct = consortium.direct()

    def exchange(asked, bodies):
        replies = dict(direct(asked, bodies))
        if asked == action and seat in replies:
            replies[seat] = forge(replies[seat])
        return replies

    return exchange


def signed_again(consortium, kind, seat, **change):
    """A forger of a seat's own replies: the changes are made from the message, and signed."""

    def forge(data):
        message = decode(kind, data)
        new = message.model_copy(update={name: make(message) for name, make in change.items()})
        return encode(sign_message(consortium.terms, new, person(seat - 1).sign_digest))

    return forge


def random_first_half(consortium, seat):
    """A ciphertext whose first half is random residues, rightly signed."""

    def forge(data):
        upload = decode(Upload, data)
        words = np.random.default_rng(1).integers(0, 2**59, (2, len(upload.masked) // 16))
        masked = lattice.to_bytes(words.astype(np.uint64))
        statement = upload.statement.model_copy(
            update={"masked_sha256": hashlib.sha256(masked).digest()}
        )
        signed = sign_message(consortium.terms, statement, person(seat - 1).sign_digest)
        return encode(upload.model_copy(update={"statement": signed, "masked": masked}))

    return forge


# --- a bad helper, a bad member -------------------------------------------------------------------


def short_words(consortium):
    return one_bad(
        consortium,
        "check",
        1,
        signed_again(consortium, Check, 1, words=lambda m: (b"\0" * 4,) * len(m.words)),
    )


def garbage_partial(consortium):
    forge = signed_again(consortium, Answer, 1, share=lambda m: b"\xff" * len(m.share))
    return one_bad(consortium, "answer", 1, forge)


def zero_partial(consortium):
    forge = signed_again(consortium, Answer, 1, share=lambda m: bytes(len(m.share)))
    return one_bad(consortium, "answer", 1, forge)


def garbage_ciphertext(consortium):
    return one_bad(consortium, "upload", 4, random_first_half(consortium, 4))


GARBAGE = [
    ("norm", short_words),
    ("mask", zero_partial),
    ("bfv", zero_partial),
    ("bfv", garbage_partial),
    ("bfv", garbage_ciphertext),
]


@pytest.mark.parametrize(("lane", "attack"), GARBAGE)
def test_garbage_of_one_party_ends_a_round_and_neither_the_release_nor_its_restart(
    open_release, lane, attack
):
    consortium = open_release(lane)
    release = consortium.release
    before = release.trajectory.model
    with pytest.raises(RoundAbandoned):
        release.run_round(attack(consortium))
    assert release.trajectory.model == before
    # what was kept on disk of that round does not stop whoever starts again
    again = Release(
        consortium.terms,
        release.trajectory.base,
        small_base(),
        TranscriptFile(consortium.transcript_path),
        release._sign,
        release._post,
    )
    assert again.spent == 1
    assert again.run_round(consortium.direct()).cohort == (1, 2, 3, 4, 5, 6)


def test_a_coordinator_killed_before_it_wrote_that_the_round_ended_goes_on_as_well(open_release):
    """The bad message was dropped or kept by itself: repeated, the round ends the same way."""
    for lane, attack in (("norm", short_words), ("bfv", garbage_ciphertext)):
        consortium = open_release(lane)
        release = consortium.release

        def killed(number):
            raise KeyboardInterrupt

        release._store.end = killed
        with pytest.raises(KeyboardInterrupt):
            release.run_round(attack(consortium))
        again = Release(
            consortium.terms,
            release.trajectory.base,
            small_base(),
            TranscriptFile(consortium.transcript_path),
            release._sign,
            release._post,
        )
        with contextlib.suppress(RoundAbandoned):
            again.run_round(consortium.direct())
        assert again.spent == 1
        again.run_round(consortium.direct())
        assert again.spent == 2


def test_a_helper_shows_the_nonce_that_it_committed_to_and_no_other(attack):
    """It has seen the others' nonces and looks for one that puts 7, 8 and 9 into one bucket."""
    a = attack("buckets", members=9).collect()
    for seat in a.helpers:
        a.round.ready(a.ask("ready", seat, a.intakes[seat]))
    draft = a.round.draft(COORDINATOR.sign_digest)
    replies = {seat: a.ask("draw", seat, draft) for seat in a.helpers}
    draws = {seat: decode(Draw, data) for seat, data in replies.items()}
    ground = next(
        forged
        for n in itertools.count()
        if (forged := draws[3].model_copy(update={"nonce": hashlib.sha256(b"%d" % n).digest()}))
        and (7, 8, 9) in robust.buckets(range(1, 10), 3, beacon_of([draws[1], draws[2], forged]))
    )
    for seat in (1, 2):
        a.round.draw(replies[seat])
    bad = resigned(a, Draw, 3, encode(ground))
    with pytest.raises(Malformed, match="committed"):
        a.round.draw(bad)
    # a coordinator that works with it gets no further: the honest helpers judge it for themselves
    a.round.draw(replies[3])
    a.manifest = a.round.commit(COORDINATOR.sign_digest)
    shown = (draws[1], draws[2], decode(Draw, bad))
    question = a.question(beacon=beacon_of(shown)).model_copy(update={"draws": shown})
    assert a.outcome(question) == "Malformed"


# --- the coordinator ------------------------------------------------------------------------------


def test_the_cohort_cannot_be_chosen_once_the_nonces_are_shown(attack):
    """Member 1 is to be alone with two colluders: with the beacon known there is such a cohort."""
    a = attack("buckets", members=12).collect().make_ready()
    beacon = a.manifest.beacon
    cohort = next(
        cohort
        for pair in itertools.combinations(range(2, 13), 2)
        for rest in itertools.combinations(sorted(set(range(2, 13)) - set(pair)), 3)
        if (1, *pair) in robust.buckets(cohort := tuple(sorted((1, *pair, *rest))), 3, beacon)
    )
    chosen = a.question(**a.subset(*cohort))
    assert a.outcome(chosen) == "SecondManifest"  # there is no second draw
    for seat in a.helpers:  # and the first was for another cohort
        assert a.refused("answer", seat, chosen) == "WrongBinding"
    a.restart(1)
    assert a.outcome(chosen) == "SecondManifest"
    a.board.manifests.clear()
    assert isinstance(a.outcome(a.question()), bytes)


def test_buckets_that_the_responders_did_not_draw_are_refused(attack):
    a = attack("buckets", members=9).collect().make_ready()
    good = a.question()
    first, *rest = good.draws
    cases = {
        "none": ((), "Malformed"),
        "one left out": (tuple(rest), "Malformed"),
        "one for all": ((first,) * 3, "Malformed"),
        "another nonce": ((first.model_copy(update={"nonce": b"n" * 32}), *rest), "WrongAuthor"),
        "another draft": (
            (decode(Draw, resigned(a, Draw, 1, encode(first), draft=b"d" * 32)), *rest),
            "WrongBinding",
        ),
        "the coordinator's": ((a.sign(first), *rest), "WrongAuthor"),
    }
    for what, (draws, name) in cases.items():
        assert a.outcome(good.model_copy(update={"draws": draws})) == name, what
    # a nonce is not shown for a manifest that has its buckets, nor where there are none
    assert a.refused("draw", 1, good) == "WrongBinding"
    b = attack("mask").collect().make_ready()
    assert b.refused("draw", 1, b.question()) == "WrongBinding"
    a.board.manifests.clear()
    assert isinstance(a.outcome(good), bytes)


def test_a_round_is_drawn_once_whoever_responds(attack):
    """Helper 3 is bad and draws for everybody: each honest helper gives the coordinator a draw more."""
    a = attack("buckets", members=9).collect()
    for seat in a.helpers:
        a.round.ready(a.ask("ready", seat, a.intakes[seat]))
    a.manifest = a.round.draft(COORDINATOR.sign_digest).manifest
    first, second = (a.question(responders=seats) for seats in ((1, 3), (2, 3)))
    drawn = [a.ask("draw", 1, first), a.ask("draw", 2, second)]
    assert any(isinstance(reply, Refused) for reply in drawn)


def test_readiness_does_not_show_a_nonce(attack):
    a = attack("buckets", members=9).collect()
    ready = a.ask("ready", 1, a.intakes[1])
    assert a.helpers[1]._nonce(a.intakes[1].content()) not in ready


def test_a_helper_approves_only_a_round_and_a_model_that_it_is_ready_for(attack):
    a = attack("certificate").collect().make_ready()
    assert a.refused("approve", 1, a.question(model=b"x" * 32)) == "WrongBinding"
    b = attack("certificate").collect().make_ready()
    c = attack("certificate")
    assert c.terms.digest == b.terms.digest
    assert c.refused("approve", 1, b.question()) == "WrongBinding"  # it has taken no intake yet
    assert isinstance(b.ask("approve", 1, b.question()), bytes)


@pytest.mark.parametrize("number", [0, SMALL.rounds + 1, 2**32 - 1])
def test_an_intake_outside_the_rounds_does_not_retire_a_helper(attack, number):
    a = attack("mask").collect()
    far = a.sign(
        Intake(
            release=1,
            round=number,
            terms=a.terms.digest,
            model=a.trajectory.model,
            uploads=(),
            signature=UNSIGNED,
        )
    )
    assert a.refused("ready", 1, far) == "WrongBinding"
    assert isinstance(a.outcome(a.make_ready().question()), bytes)


def test_a_members_least_cohort_counts_members_of_a_bucket():
    loose = SMALL.model_copy(update={"cohort_min": 20, "bucket_min": 4})
    floor = Floor(cohort_min=10, epsilon_limit=20.0)
    with pytest.raises(FloorBroken) as refused:
        floor.check(SimpleNamespace(parameters=loose))
    assert (refused.value.field, refused.value.found) == ("cohort_min", 4)
    floor.check(SimpleNamespace(parameters=loose.model_copy(update={"bucket_min": 10})))


def test_reveals_under_two_lists_of_commitments_make_no_key(tmp_path):
    """Helper 3 and the coordinator show helper 1 one commitment and helper 2 another."""
    parties = [
        Party(i + 1, str(i), person(i), RandomPositions(10, 6, seed=i), tmp_path) for i in range(3)
    ]
    parameters = THREE.model_copy(update={"aggregation": "bfv", "cohort_min": 3})
    terms = make_terms(parties, parameters, small_base(), COORDINATOR.address)
    dealers = [Dealer(terms, i + 1, person(i)) for i in range(3)]
    commits = [dealer.commit() for dealer in dealers]
    last = decode(KeyCommit, commits[2]).model_copy(update={"part": b"x" * 32})
    other = [*commits[:2], encode(sign_message(terms, last, person(2).sign_digest))]
    shown, shown_other = msgspec.msgpack.encode(commits), msgspec.msgpack.encode(other)
    reveals = [dealers[0].reveal(shown_other), *(d.reveal(shown) for d in dealers[1:])]
    with pytest.raises(WrongBinding, match="commitments"):
        dealers[1].rehearse(msgspec.msgpack.encode([*commits, *reveals]))
    with pytest.raises(WrongBinding, match="commitments"):
        dealers[1].rehearse(msgspec.msgpack.encode([*other, *reveals]))
    honest = [
        decode(KeyReveal, dealers[0].reveal(shown)),
        *(decode(KeyReveal, r) for r in reveals[1:]),
    ]
    ceremony.check_reveals(terms, [decode(KeyCommit, c) for c in commits], honest)


def test_no_model_makes_a_clipped_gradient_longer_than_the_clip_norm():
    """Its Gram sums cancel in float64: the norm that was computed was 0, and nothing was clipped."""
    base = small_base(hidden=(16, 16))
    arrays = load(base, sha256_of(base)).arrays
    for seed in range(200):
        batch = RandomPositions(1, 6, seed=seed)._batch
        total, _ = clipped_gradient_sum(crafted(arrays, seed), batch, 1.0)
        assert np.linalg.norm(total) <= 1 + 1e-9


# --- a node of the transport ----------------------------------------------------------------------


def claiming(body):
    return RecordDict({"fedtrade": ConfigRecord({"body": body})})


def over_flower(consortium, forge):
    """One round over the in-process grid; `forge(node, action, message)` may give another reply."""
    reports = []

    def fault(node, message):
        action = message.metadata.message_type.removeprefix("query.")
        body = forge(node, action, message)
        return None if body is None else Message(claiming(body), reply_to=message)

    consortium.over_flower(lambda ex: reports.append(consortium.release.run_round(ex)), fault=fault)
    return reports[0]


def test_a_node_that_claims_anothers_seat_cannot_speak_for_it(open_release):
    """It keeps the seat out over Flower messages, as `server.app` says; that is all."""
    consortium = open_release("mask", members=7)
    spoken = []

    def forge(node, action, message):
        if node != 6:  # member 5's
            return None
        if action == "hello":
            return msgspec.msgpack.encode({"member": 7})
        body = message.content.config_records["fedtrade"]["body"]
        upload = decode(Upload, consortium.desks[5].act("upload", body))
        statement = upload.statement.model_copy(update={"member": 7})
        signed = sign_message(consortium.terms, statement, person(4).sign_digest)
        spoken.append(7)
        return encode(upload.model_copy(update={"statement": signed}))

    report = over_flower(consortium, forge)
    assert spoken == [7]
    assert report.cohort == (1, 2, 3, 4, 6)
    (left,) = report.left_out
    assert left.who == "member 7"
    assert "signed by" in left.why


def test_a_seat_claimed_in_bad_utf8_does_not_end_the_run(open_release):
    consortium = open_release("mask", members=7)
    report = over_flower(
        consortium,
        lambda node, action, _: b"\x81\xa1\xff\x01" if (node, action) == (8, "hello") else None,
    )
    assert report.cohort == (1, 2, 3, 4, 5, 6)


def test_the_name_of_a_refusal_is_one_line_of_a_log(caplog):
    caplog.set_level(logging.WARNING)
    record = ConfigRecord({"refused": b"x\nnode 7 was paid: all is well\x1b[2J"})
    reply = SimpleNamespace(content=RecordDict({"fedtrade": record}), has_error=lambda: False)
    assert _reply_body(reply, 2, "upload") is None
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.isprintable()
    assert "paid" not in line


BAD_SIGNATURES = [
    b"\x81\xa1\xff\xc4\x00",
    b"\x81\xcf" + b"\xff" * 8 + b"\xc4\x00",
    b"\x81\x01\xa1\xff",
    b"\x91" * 100_000,
    b"",
]


@pytest.mark.parametrize("reply", BAD_SIGNATURES, ids=range(len(BAD_SIGNATURES)))
def test_signatures_in_a_bad_form_are_dropped_alone(open_release, reply):
    consortium = open_release("mask")
    consortium.release.run_round(consortium.direct())
    finished = consortium.release.finish()
    terms = consortium.terms
    registries = {terms.chain_id: terms.registry}
    asked = Endorsement(transcript=finished.transcript, version=1, uri="u", registries=registries)
    replies = {1: consortium.desks[1].act("endorse", encode(asked)), 2: reply}
    settings = SimpleNamespace(release=SimpleNamespace(version=1, uri="u"))
    operation = SimpleNamespace(terms=terms, settings=settings)
    found = Operation._signatures(operation, replies, finished, registries)
    assert list(found[terms.chain_id]) == [terms.member(1).signer]
