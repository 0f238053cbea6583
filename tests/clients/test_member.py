"""A member keeps its floor, pays before it sends, and signs only what it recomputed."""

import hashlib

import numpy as np
import pytest

from clients.budget import RoundAlreadyPaid
from clients.floor import Floor, FloorBroken
from clients.keys import MemberKeys
from consortium.rehearsal import SMALL, rehearse
from fedtrade.artifact import unflatten
from fedtrade.chain.parameter_store import EverythingPaused, InForce
from fedtrade.governed import Governed, LooserThanGoverned
from fedtrade.privacy.accounting import Overspent
from fedtrade.privacy.aggregation import spend_of
from fedtrade.privacy.transcript import Unverified
from fedtrade.protocol import (
    Announcement,
    Upload,
    WrongAuthor,
    WrongBinding,
    decode,
    encode,
    publication_digest,
    recover,
)
from server.rounds import Round


def announce(consortium, number=1, **update):
    release = consortium.release
    draft = Round(consortium.terms, number, release.trajectory.model)
    message = draft.announce(release.trajectory.vector_bytes, release._sign)
    if update:
        message = message.model_copy(update=update)
    return encode(message)


@pytest.fixture
def consortium(tmp_path):
    consortium = rehearse(tmp_path)
    yield consortium
    consortium.close()


@pytest.mark.parametrize(
    ("field", "floor"),
    [
        ("delta_max", {"delta_max": 1e-7}),
        ("noise_multiplier", {"noise_multiplier_min": 2.0}),
        ("sampling_rate", {"sampling_rate_max": 0.01}),
        ("cohort_min", {"cohort_min": 9}),
        ("corrupt", {"corrupt_min": 3}),
    ],
)
def test_terms_below_the_members_own_floor_are_refused(tmp_path, field, floor):
    with pytest.raises(FloorBroken) as caught:
        rehearse(tmp_path, floor=Floor(epsilon_limit=20.0, **floor))
    assert caught.value.field in field


ALLOWED = SMALL.model_copy(update={"sampling_rate": 0.05, "epsilon_cap": 8.0})
"""What the governed parameters allow where nobody has voted yet."""


def test_a_round_obeys_what_governance_says_now_and_costs_nothing_where_it_is_refused(tmp_path):
    consortium = rehearse(tmp_path, parameters=ALLOWED)
    member = consortium.desks[1].member
    now = InForce(Governed(), paused=False, as_of_s=0)
    member._governance = lambda: now
    now = InForce(Governed().changed({"epsilonReleaseMicro": 4_000_000}), False, 0)
    with pytest.raises(LooserThanGoverned, match=r"epsilon_cap 8\.0 is above 4\.0"):
        member.upload(announce(consortium))
    now = InForce(Governed(), paused=True, as_of_s=0)
    with pytest.raises(EverythingPaused):
        member.upload(announce(consortium))
    assert member.budget.rounds == 0
    now = InForce(Governed(), paused=False, as_of_s=0)
    assert decode(Upload, member.upload(announce(consortium))).statement.member == 1
    consortium.close()


def test_the_ledger_is_written_before_anything_is_signed(consortium):
    member = consortium.desks[1].member
    sign = member._keys.sign_digest
    seen = []

    class Watching:
        def __getattr__(self, name):
            return getattr(keys, name)

        def sign_digest(self, digest):
            seen.append(member.budget.rounds)
            return sign(digest)

    keys, member._keys = member._keys, Watching()
    member.upload(announce(consortium))
    assert seen == [1]


def test_a_member_that_starts_again_sends_the_same_upload_and_pays_once(tmp_path):
    keys = [MemberKeys.ephemeral() for _ in range(7)]

    def seat():
        return rehearse(tmp_path, keys=keys[:6], coordinator_keys=keys[6])

    first = seat()
    question = announce(first)
    upload = first.desks[1].member.upload(question)
    assert first.desks[1].member.upload(question) == upload
    first.close()
    again = seat()
    assert again.desks[1].member.upload(question) == upload
    assert again.desks[1].member.budget.rounds == 1
    again.close()


def test_another_upload_for_a_paid_round_is_refused(consortium):
    """A coordinator that shows one member two models of a round gets one upload."""
    member = consortium.desks[1].member
    member.upload(announce(consortium))
    other = np.ones(consortium.terms.dimension, "<f4").tobytes()
    draft = Round(consortium.terms, 1, hashlib.sha256(other).digest())
    with pytest.raises(RoundAlreadyPaid):
        member.upload(encode(draft.announce(other, consortium.release._sign)))
    assert member.budget.rounds == 1


def test_the_ledgers_head_is_committed_with_the_upload(consortium):
    member = consortium.desks[1].member
    upload = decode(Upload, member.upload(announce(consortium)))
    assert upload.statement.ledger.hex() == member.budget.head


def test_a_member_that_has_spent_its_limit_sends_nothing(tmp_path):
    consortium = rehearse(tmp_path, floor=Floor(epsilon_limit=6.0))
    member = consortium.desks[1].member
    left = member.budget.rounds_left(spend_of(member.terms, 1))
    assert 0 < left < SMALL.rounds
    for number in range(1, left + 1):
        member.upload(announce(consortium, number))
    with pytest.raises(Overspent):
        member.upload(announce(consortium, left + 1))
    assert member.budget.epsilon().rdp <= 6.0
    consortium.close()


def test_what_is_not_the_coordinators_or_not_this_round_is_refused(consortium):
    member = consortium.desks[1].member
    for update, error in (
        ({"round": SMALL.rounds + 1}, WrongAuthor),  # the signature is of another round
        ({"vector": bytes(consortium.terms.dimension * 4)}, WrongBinding),
        ({"terms": b"t" * 32}, WrongBinding),
    ):
        with pytest.raises(error):
            member.upload(announce(consortium, **update))
    with pytest.raises(WrongBinding, match="round"):
        member.upload(announce(consortium, number=SMALL.rounds + 1))
    assert member.budget.spends == ()


def test_an_upload_looks_uniform_and_differs_every_time(consortium):
    member = consortium.desks[1].member
    one = decode(Upload, member.upload(announce(consortium, 1)))
    two = decode(Upload, member.upload(announce(consortium, 2)))
    a, b = (np.frombuffer(u.masked, "<u4") for u in (one, two))
    assert (a != b).mean() > 0.9
    assert len({*one.boxes, *two.boxes}) == 10
    assert set(one.statement.commitments).isdisjoint(two.statement.commitments)


def test_a_member_signs_only_the_hash_it_recomputed(consortium):
    for _ in range(2):
        consortium.release.run_round(consortium.direct())
    finished = consortium.release.finish()
    member = consortium.desks[2].member
    registries = {31101: "0x" + "11" * 20, 31102: "0x" + "22" * 20}
    signed = member.endorse(finished.transcript, 1, "file:a", registries)
    for chain_id, registry in registries.items():
        digest = publication_digest(
            chain_id,
            registry,
            1,
            1,
            bytes.fromhex(finished.artifact_sha256),
            "file:a",
            finished.epsilon_micro,
        )
        assert recover(digest, signed[chain_id]) == member.seat.signer
    altered = bytearray(finished.transcript)
    altered[len(altered) // 2] ^= 1
    with pytest.raises(Unverified):
        member.endorse(bytes(altered), 1, "file:a", registries)


def test_a_transcript_of_other_terms_is_not_signed(consortium, tmp_path):
    other = rehearse(tmp_path / "other")
    other.release.run_round(other.direct())
    with pytest.raises(WrongBinding, match="terms"):
        consortium.desks[1].member.endorse(other.release.finish().transcript, 1, "", {})
    other.close()


def test_the_model_is_read_as_the_vector_was_written(consortium):
    """In place of `unflatten`, without its copies."""
    member = consortium.desks[1].member
    vector = np.arange(consortium.terms.dimension, dtype=np.float32)
    shapes = {name: array.shape for name, array in member._base.arrays.items()}
    wanted = unflatten(vector, shapes)
    found = {name: vector[place].reshape(shape) for name, place, shape in member._places}
    assert found.keys() == wanted.keys()
    assert all((found[name] == wanted[name]).all() for name in wanted)


def test_the_announcement_model_must_hash_to_what_is_signed(consortium):
    release = consortium.release
    draft = Round(consortium.terms, 1, b"m" * 32)
    lie = draft.announce(release.trajectory.vector_bytes, release._sign)
    assert isinstance(lie, Announcement)
    with pytest.raises(WrongBinding, match="model"):
        consortium.desks[1].member.upload(encode(lie))
