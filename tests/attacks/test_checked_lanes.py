"""What only some lanes have: hidden norms, and the collective key with its ceremony."""

import numpy as np
import pytest
from adversary import (
    key_record,
    person,
    resigned,
)

from clients.helper import Helper
from clients.keys import MemberKeys
from fedtrade.errors import Refusal
from fedtrade.protocol import (
    Check,
    Intake,
    KeyCommit,
    Manifest,
    Question,
    Ready,
    Statement,
    Upload,
    WrongBinding,
    decode,
    encode,
    sha256,
    sign_message,
)

STRANGER = MemberKeys.ephemeral()


# --- norms ----------------------------------------------------------------------------------------


def test_the_norm_check_cannot_be_skipped_or_forged(attack):
    a = attack("norm").collect().make_ready()
    checks = tuple(a.round.checks[h] for h in a.manifest.responders)
    zeros = tuple(bytes(len(w)) for w in checks[0].words)
    cases = {
        "skipped": ((), "Malformed"),
        "one left out": (checks[1:], "Malformed"),
        "one for all": ((checks[0],) * 3, "Malformed"),
        "words of zero": (
            tuple(c.model_copy(update={"words": zeros}) for c in checks),
            "WrongAuthor",
        ),
        "signed by the coordinator": (
            tuple(a.sign(c.model_copy(update={"words": zeros})) for c in checks),
            "WrongAuthor",
        ),
    }
    for what, (shown, name) in cases.items():
        assert a.outcome(a.question(checks=shown)) == name, what
        a.board.manifests.clear()
    # a bad helper that answered about another panel
    other = decode(
        Check,
        resigned(a, Check, 3, encode(checks[2]), uploads=checks[2].uploads[::-1]),
    )
    assert a.outcome(a.question(checks=(*checks[:2], other))) == "Malformed"
    a.board.manifests.clear()
    # the inspection itself: vectors that members did not sign, boxes that were not accepted
    panel = a.round.panel
    altered = (bytes(len(panel.vectors[0])), *panel.vectors[1:])
    changed = a.sign(panel.model_copy(update={"vectors": altered}))
    assert a.refused("check", 1, changed) == "Malformed"
    unknown = a.sign(panel.model_copy(update={"uploads": (b"u" * 32, *panel.uploads[1:])}))
    assert a.refused("check", 1, unknown) == "CohortRefused"
    assert a.refused("check", 1, a.sign(panel, STRANGER)) == "WrongAuthor"
    few = a.sign(panel.model_copy(update={"responders": (1, 2)}))
    assert a.refused("check", 1, few) == "CohortRefused"
    b = attack("mask").collect().make_ready()
    there = panel.model_copy(update={"terms": b.terms.digest, "model": b.trajectory.model})
    assert b.refused("check", 1, b.sign(there)) == "WrongBinding"


def test_a_member_that_failed_the_check_cannot_be_put_into_the_cohort(attack):
    a = attack("norm")

    def heavy(seat, data):
        """Member 2 adds 2^40 to a coordinate of its masked vector after it was proved."""
        if seat != 2:
            return data
        upload = decode(Upload, data)
        vector = np.frombuffer(upload.masked, "<u8").copy()
        vector[0] += np.uint64(2**40)
        masked = vector.tobytes()
        statement = a.sign(
            upload.statement.model_copy(update={"masked_sha256": sha256(masked)}), person(1)
        )
        return encode(upload.model_copy(update={"statement": statement, "masked": masked}))

    a.collect(heavy).make_ready()
    assert a.manifest.cohort == (1, 3, 4, 5, 6)
    everybody = {
        "cohort": (1, 2, 3, 4, 5, 6),
        "uploads": tuple(a.round.uploads[m].statement.content() for m in range(1, 7)),
    }
    assert a.outcome(a.question(**everybody)) == "NormExceeded"
    a.board.manifests.clear()
    assert isinstance(a.outcome(a.question()), bytes)


# --- lane C ---------------------------------------------------------------------------------------


def test_lane_c_helpers_add_up_ciphertexts_themselves(attack):
    """No message carries a sum to be decrypted, and a c₁ that was altered is accepted by nobody."""
    assert not {"c1", "ciphertext", "sum", "c1_sum"} & {
        f for kind in (Manifest, Question, Intake, Statement) for f in kind.model_fields
    }
    a = attack("bfv").collect()
    first, *rest = a.intakes[1].uploads
    box = bytes([first.box[0] ^ 1]) + first.box[1:]
    uploads = (first.model_copy(update={"box": box}), *rest)
    ready = decode(
        Ready, a.ask("ready", 1, a.sign(a.intakes[1].model_copy(update={"uploads": uploads})))
    )
    assert [(c.member, c.box_key) for c in ready.complaints] == [(1, b"")]
    assert first.statement.content() not in ready.accepted


def test_lane_c_a_second_half_that_is_no_encryption_leaves_its_member_out(attack):
    """Member 2 works with the coordinator: its c₁ picks out a coefficient of the key."""
    from fedtrade.privacy import lattice, threshold
    from fedtrade.privacy.aggregation import halves

    a = attack("bfv")

    def probe(seat, data):
        if seat != 2:
            return data
        upload = decode(Upload, data)
        _, proof = halves(a.terms, upload.boxes[0])
        unit = np.zeros((2, lattice.DEGREE), np.uint64)
        unit[:, 0] = 1
        box = lattice.to_bytes(unit) + proof
        assert len(lattice.to_bytes(unit)) == threshold.second_bytes(a.terms.dimension)
        statement = a.sign(
            upload.statement.model_copy(update={"boxes_sha256": (sha256(box),)}), person(1)
        )
        return encode(upload.model_copy(update={"statement": statement, "boxes": (box,)}))

    a.collect(probe).make_ready()
    assert a.manifest.cohort == (1, 3, 4, 5, 6)
    everybody = {
        "cohort": (1, 2, 3, 4, 5, 6),
        "uploads": tuple(a.round.uploads[m].statement.content() for m in range(1, 7)),
    }
    assert a.outcome(a.question(**everybody)) == "Malformed"  # no helper accepted it


def test_lane_c_a_copied_upload_of_another_member_is_accepted_by_nobody(attack):
    """The proof is bound to the member: a copy would double the victim's vector in the sum."""
    a = attack("bfv")
    kept = {}

    def copy(seat, data):
        kept[seat] = decode(Upload, data)
        if seat != 2:
            return data
        theirs = kept[1]
        statement = kept[2].statement.model_copy(
            update={
                "masked_sha256": theirs.statement.masked_sha256,
                "boxes_sha256": theirs.statement.boxes_sha256,
            }
        )
        signed = a.sign(statement, person(1))
        return encode(theirs.model_copy(update={"statement": signed}))

    a.collect(copy).make_ready()
    assert a.manifest.cohort == (1, 3, 4, 5, 6)


def test_lane_c_a_key_record_of_other_terms_is_refused(attack, tmp_path):
    a = attack("bfv")
    b = attack("bfv", release=2)
    theirs = key_record(b.terms)
    with pytest.raises(WrongBinding):
        Helper(1, person(0), a.terms, tmp_path / "h", a.board.final, 3, theirs)
    # the record's own hash in the terms does not make it theirs
    terms = a.terms.model_copy(update={"key_sha256": sha256(encode(theirs)).hex()})
    with pytest.raises(WrongBinding):
        Helper(1, person(0), terms, tmp_path / "h", a.board.final, 3, theirs)


def test_lane_c_rogue_keys_and_reveals_that_were_not_committed_to_are_refused(attack):
    """The last helper computes its part from the others', so that the key is one that it knows."""
    import msgspec

    from clients.dealer import Dealer
    from fedtrade.privacy import ceremony, collective, lattice
    from fedtrade.privacy.collective import WrongReveal

    a = attack("bfv")
    terms = ceremony.draft(a.terms)
    record = key_record(a.terms)
    about = ceremony.context(terms)
    mine = collective.deal(b"k" * 32, about, 2, 3, 1).reveal

    def residues(part):
        return lattice.from_bytes("b", part[: collective.SHARE_BYTES], lattice.DEGREE)

    rogue = residues(mine)
    for reveal in record.reveals[:2]:
        rogue = lattice.subtract(rogue, residues(reveal.part))
    honest = Dealer(terms, 1, person(0))

    def signed(message, seat=3, **change):
        forged = message.model_copy(update=change)
        return encode(sign_message(terms, forged, person(seat - 1).sign_digest))

    old = [encode(c) for c in record.commits], [encode(r) for r in record.reveals]
    partner = Dealer(terms, 2, person(1))

    def revealed(commits, part):
        """What everybody says under these commitments: the honest two, and then helper 3."""
        shown = msgspec.msgpack.encode(commits)
        bound = ceremony.commits_sha256([decode(KeyCommit, c) for c in commits])
        last = signed(record.reveals[2], part=part, commits=bound)
        return msgspec.msgpack.encode([*commits, honest.reveal(shown), partner.reveal(shown), last])

    for part in (
        lattice.to_bytes(rogue) + mine[collective.SHARE_BYTES :],  # computed from the others' b
        record.reveals[0].part,  # a copy of another's
        mine[:-1] + bytes([mine[-1] ^ 1]),  # a proof that is none
    ):
        commit = signed(record.commits[2], part=collective.commitment_of(part, about, 2))
        with pytest.raises(WrongReveal):
            honest.rehearse(revealed([*old[0][:2], commit], part))
    # a proper part that was not committed to
    reveal = signed(record.reveals[2], part=mine)
    with pytest.raises(WrongReveal, match="committed"):
        honest.rehearse(msgspec.msgpack.encode([*old[0], *old[1][:2], reveal]))
    # before everybody has committed, nobody reveals; a commitment of ours that is not ours: neither
    for commits in (old[0][:2], [signed(record.commits[0], 1, part=b"x" * 32), *old[0][1:]]):
        with pytest.raises(Refusal):
            honest.reveal(msgspec.msgpack.encode(commits))
