"""Forged, altered, swapped and unsigned messages of a coordinator: refused by name, everywhere."""

import itertools

import numpy as np
import pytest
from adversary import (
    COORDINATOR,
    Refused,
    crafted,
    person,
    resigned,
)

from clients.helper import Helper
from clients.keys import MemberKeys
from consortium.rehearsal import small_base
from fedtrade.artifact import flatten
from fedtrade.protocol import (
    UNSIGNED,
    Announcement,
    Answer,
    Check,
    Intake,
    Manifest,
    Question,
    Ready,
    SealedUpload,
    Upload,
    WrongAuthor,
    WrongBinding,
    decode,
    encode,
    sha256,
)
from server.rounds import AlreadyGiven

STRANGER = MemberKeys.ephemeral()


# --- forged messages and swapped keys -------------------------------------------------------------


def test_announcements_that_are_forged_or_misbound_are_refused(attack):
    a = attack("mask")
    good = a.announcement()
    cases = {
        "unsigned": (good.model_copy(update={"signature": UNSIGNED}), "WrongAuthor"),
        "a stranger's": (a.sign(good, STRANGER), "WrongAuthor"),
        "another member's": (a.sign(good, person(1)), "WrongAuthor"),
        "round 0": (a.sign(good.model_copy(update={"round": 0})), "WrongBinding"),
        "too late": (a.sign(good.model_copy(update={"round": a.p.rounds + 1})), "WrongBinding"),
        "model hash": (a.sign(good.model_copy(update={"model": b"m" * 32})), "WrongBinding"),
        "short": (
            a.sign(good.model_copy(update={"vector": good.vector[4:], "model": b"m" * 32})),
            "WrongBinding",
        ),
        "no message": (b"x", "Malformed"),
    }
    for what, (message, name) in cases.items():
        assert a.refused("upload", 1, message) == name, what
    assert not a.desks[1].member.budget.rounds  # none of it cost anything
    assert decode(Upload, a.ask("upload", 1, good))


def test_a_model_with_nan_is_refused_and_no_finite_model_is(attack):
    """A refusal that depended on private values would be an answer that nobody pays for: so the most
    extreme finite models must be answered by everybody."""
    a = attack("mask")
    d = a.terms.dimension
    for bad in (np.nan, np.inf, -np.inf):
        vector = np.zeros(d, "<f4")
        vector[d // 2] = bad
        assert a.refused("upload", 1, a.announcement(vector.tobytes())) == "Malformed"
    rng = np.random.default_rng(3)
    largest = float(np.finfo(np.float32).max)
    models = [np.full(d, largest), np.full(d, -largest), rng.choice([-largest, largest], d)]
    models += [rng.choice([-largest, 0.0, 1e-38, 1.0, largest], d) for _ in range(3)]
    for number, model in enumerate(models, start=1):
        a.number = number
        for seat in (1, 2, 3):
            reply = a.ask("upload", seat, a.announcement(model.astype("<f4").tobytes()))
            assert not isinstance(reply, Refused), reply
    # a model that makes the norms of single positions cancel
    b = attack("mask", base=small_base(hidden=(16, 16)))
    for number in range(1, 5):
        b.number = number
        vector = flatten(crafted(b.trajectory.base.arrays, number, 300.0, 15.0)).astype("<f4")
        for seat in (1, 2, 3):
            reply = b.ask("upload", seat, b.announcement(vector.tobytes()))
            assert not isinstance(reply, Refused), reply


def test_equivocation_over_the_model_ends_at_the_ledger_and_at_the_helpers(attack):
    """The victim gets a model of its own: its upload enters no cohort, and it uploads only once."""
    a = attack("mask").collect()
    crafted = (np.frombuffer(a.trajectory.vector_bytes, "<f4") + 1).astype("<f4").tobytes()
    assert a.refused("upload", 3, a.announcement(crafted)) == "RoundAlreadyPaid"
    b = attack("mask")
    b.number = 1
    uploads = {s: b.ask("upload", s, b.announcement(crafted if s == 3 else None)) for s in b.desks}
    sealed = tuple(
        SealedUpload(statement=u.statement, box=u.box(0))
        for u in (decode(Upload, uploads[s]) for s in sorted(uploads))
    )
    model = b.trajectory.model
    intake = Intake(
        release=1,
        round=1,
        terms=b.terms.digest,
        model=model,
        uploads=sealed,
        signature=UNSIGNED,
    )
    assert b.refused("ready", 1, b.sign(intake)) == "WrongBinding"
    # alone under its own model, it is a cohort of one: no manifest may name it
    alone = intake.model_copy(update={"uploads": (sealed[2],), "model": sha256(crafted)})
    assert decode(Ready, b.ask("ready", 1, b.sign(alone))).accepted


@pytest.mark.parametrize("lane", ["mask", "norm", "bfv"])
def test_uploads_that_are_forged_altered_or_swapped_are_refused(attack, lane):
    a = attack(lane).collect()
    first, second, *rest = a.intakes[1].uploads
    statement = first.statement
    cases = {
        "masked hash": (statement.model_copy(update={"masked_sha256": b"z" * 32}), "WrongAuthor"),
        "posing": (statement.model_copy(update={"member": 2}), "WrongAuthor"),
        "unsigned": (statement.model_copy(update={"signature": UNSIGNED}), "WrongAuthor"),
        "ledger": (statement.model_copy(update={"ledger": b"l" * 32}), "WrongAuthor"),
        "a member that is not": (statement.model_copy(update={"member": 77}), "WrongBinding"),
        "malleable": (
            statement.model_copy(update={"signature": flipped(statement.signature)}),
            "WrongAuthor",
        ),
    }
    if statement.commitments:
        other = (b"c" * 32, *statement.commitments[1:])
        cases["commitments"] = (statement.model_copy(update={"commitments": other}), "WrongAuthor")
    for what, (bad, name) in cases.items():
        uploads = (first.model_copy(update={"statement": bad}), second, *rest)
        intake = a.sign(a.intakes[1].model_copy(update={"uploads": uploads}))
        assert a.refused("ready", 1, intake) == name, what
    listed_twice = a.intakes[1].model_copy(update={"uploads": (first, first, *rest)})
    assert a.refused("ready", 1, a.sign(listed_twice)) == "Malformed"
    assert a.refused("ready", 1, a.sign(a.intakes[1], STRANGER)) == "WrongAuthor"
    unsigned = a.intakes[1].model_copy(update={"signature": UNSIGNED})
    assert a.refused("ready", 1, unsigned) == "WrongAuthor"
    # boxes exchanged between two members: no evidence, no key, and neither is accepted
    crossed = (
        first.model_copy(update={"box": second.box}),
        second.model_copy(update={"box": first.box}),
        *rest,
    )
    intake = a.sign(a.intakes[1].model_copy(update={"uploads": crossed}))
    ready = decode(Ready, a.ask("ready", 1, intake))
    assert [(c.member, c.box_key) for c in ready.complaints] == [(1, b""), (2, b"")]
    assert not {s.statement.content() for s in (first, second)} & set(ready.accepted)


def flipped(signature):
    """The other signature of the same digest (EIP-2 calls it malleable)."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def test_keys_swapped_in_the_terms_are_refused_by_everybody(attack, tmp_path):
    """The coordinator puts an encryption key of its own in a helper's place."""
    a = attack("mask")
    mine = MemberKeys.ephemeral()
    stolen = a.terms.helpers[0].model_copy(update={"x25519": mine.x25519_public})
    terms = a.terms.model_copy(update={"helpers": (stolen, *a.terms.helpers[1:])})
    assert terms.digest != a.terms.digest
    with pytest.raises(WrongBinding):
        Helper(1, person(0), terms, tmp_path / "h", a.board.final, 3)
    # members seal for the terms that they joined; an announcement under others is refused
    other = a.announcement().model_copy(update={"terms": terms.digest})
    assert a.refused("upload", 2, a.sign(other)) == "WrongBinding"
    signer = a.terms.members[1].model_copy(update={"signer": mine.address.lower()})
    seats = tuple(signer if s.id == 2 else s for s in a.terms.members)
    posing = a.terms.model_copy(update={"members": seats})
    statement = a.collect().intakes[1].uploads[1].statement
    forged = a.sign(statement.model_copy(update={"terms": posing.digest}), mine)
    uploads = (a.intakes[1].uploads[0], SealedUpload(statement=forged, box=b"x"))
    intake = a.intakes[1].model_copy(update={"uploads": uploads})
    assert a.refused("ready", 1, a.sign(intake)) == "WrongBinding"


def test_terms_that_nobody_approved_are_not_joined(attack, tmp_path):
    """A party without a home chain joins only what its owner has written down."""
    from clients.desk import Desk
    from clients.settings import MemberSettings
    from fedtrade.protocol import Briefing

    a = attack("certificate")
    keys = MemberKeys.create(tmp_path / "keys")
    seat = a.terms.helpers[0].model_copy(
        update={"signer": keys.address.lower(), "x25519": keys.x25519_public}
    )
    terms = a.terms.model_copy(update={"helpers": (seat, *a.terms.helpers[1:])})

    def desk(approved):
        settings = MemberSettings.model_validate(
            {
                "folder": tmp_path / "own",
                "keys": tmp_path / "keys",
                "seats": {"helper": 1},
                "coordinator": {
                    "address": COORDINATOR.address.lower(),
                    "url": "https://127.0.0.1:1",
                    "ca_file": tmp_path / "ca.crt",
                },
                "approved_terms": approved,
            }
        )
        return Desk.open(settings)

    from fedtrade.artifact import pack

    base = a.consortium.release.trajectory.base
    briefing = encode(Briefing(terms=terms, base=pack(base.arrays, base.manifest)))
    a.desks[1] = wary = desk(())
    assert a.refused("serve", 1, briefing) == "Unapproved"
    a.desks[1] = willing = desk((terms.digest.hex(),))
    assert a.ask("serve", 1, briefing) == terms.digest
    # an approved briefing is not a licence for another coordinator
    theirs = terms.model_copy(update={"coordinator": STRANGER.address.lower()})
    other = encode(Briefing(terms=theirs, base=pack(base.arrays, base.manifest)))
    assert a.refused("serve", 1, other) == "WrongBinding"
    for opened in (wary, willing):
        opened.close()


# --- there is no such message ---------------------------------------------------------------------


def test_no_message_asks_for_a_seed_or_holds_a_member_present_and_absent():
    for kind in (Announcement, Intake, Manifest, Question, Check, Answer):
        fields = set(kind.model_fields)
        assert not fields & {"dropped", "absent", "seed", "seeds", "secret", "unmask"}
    assert set(Question.model_fields) == {
        "manifest", "readies", "draws", "checks", "approvals"
    }  # fmt: skip
    # present in one, absent in the other: two manifests of one round, and only one is ever answered
    # (`test_a_second_subset_is_refused_whoever_is_asked_and_after_a_restart`)


def test_an_answer_is_taken_once_and_from_a_responder(attack):
    a = attack("mask").collect().make_ready()
    question = a.finalise(a.question())
    a.round.manifest = question.manifest
    first = a.ask("answer", 1, question)
    assert a.round.answer(first) == 1
    with pytest.raises(AlreadyGiven):
        a.round.answer(first)
    stranger = resigned(a, Answer, 3, first, helper=2)
    with pytest.raises(WrongAuthor):
        a.round.answer(stranger)


def test_every_action_of_a_role_that_is_not_seated_is_refused(attack):
    a = attack("mask")
    for action, seat in itertools.product(("ready", "check", "draw", "approve", "answer"), (5, 6)):
        assert a.refused(action, seat, b"x") == "NotSeated"
    for action in ("deal", "reveal", "rehearse"):
        assert a.refused(action, 1, b"x") in ("Malformed", "NotSeated")
