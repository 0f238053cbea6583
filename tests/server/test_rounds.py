"""A round against replies that are late, broken or forged: each is dropped alone."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.keys import MemberKeys
from consortium.rehearsal import SMALL, rehearse
from fedtrade.errors import Refusal
from fedtrade.privacy.aggregation import TooCostly
from fedtrade.protocol import Complaint, Ready, Upload, decode, encode, sign_message
from server.rounds import AlreadyGiven, OutOfOrder, Round, RoundAbandoned, drop_alone


class Table:
    def __init__(self, folder):
        self.keys = MemberKeys.ephemeral()
        self.consortium = rehearse(folder, coordinator_keys=self.keys)
        self.terms = self.consortium.terms
        self.trajectory = self.consortium.release.trajectory
        self.round = Round(self.terms, 1, self.trajectory.model)
        self.announce = encode(
            self.round.announce(self.trajectory.vector_bytes, self.keys.sign_digest)
        )

    def upload(self, seat):
        return self.consortium.desks[seat].member.upload(self.announce)

    def upload_all(self):
        for seat in self.consortium.desks:
            self.round.upload(self.upload(seat))


@pytest.fixture
def table(tmp_path):
    table = Table(tmp_path)
    yield table
    table.consortium.close()


def test_uploads_that_are_altered_forged_or_repeated_are_refused(table):
    good = table.upload(1)
    upload = decode(Upload, good)
    intruder = MemberKeys.ephemeral()
    forged = sign_message(table.terms, upload.statement, intruder.sign_digest)
    other_mask = upload.model_copy(update={"masked": bytes(len(upload.masked))})
    short = upload.model_copy(update={"masked": upload.masked[:-4]})
    boxes = upload.model_copy(update={"boxes": upload.boxes[::-1]})
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        encode(other_mask),
        encode(short),
        encode(boxes),
        encode(upload.model_copy(update={"statement": forged})),
    ):
        with pytest.raises(Refusal):
            table.round.upload(bad)
    assert table.round.upload(good) == 1
    with pytest.raises(AlreadyGiven):
        table.round.upload(good)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_reply_can_break_a_round(table, data):
    garbage = data.draw(st.dictionaries(st.integers(0, 9), st.binary(max_size=200), max_size=5))
    left = []
    assert drop_alone(table.round.upload, garbage, left, "member") == []
    assert len(left) == len(garbage)
    assert table.round.state == "collecting"


def test_steps_out_of_order_are_faults(table):
    with pytest.raises(OutOfOrder):
        table.round.sum()
    table.upload_all()
    table.round.close(table.keys.sign_digest)
    with pytest.raises(OutOfOrder):
        table.round.close(table.keys.sign_digest)
    with pytest.raises(RoundAbandoned):
        table.round.commit(table.keys.sign_digest)  # nobody is ready
    assert table.round.state == "abandoned"
    with pytest.raises(OutOfOrder):
        table.round.commit(table.keys.sign_digest)


def test_one_bad_helper_cannot_expel_a_member_by_repeating_itself(table):
    """A complaint without evidence counts once a helper, and only for the upload that we have."""
    table.upload_all()
    victim = table.round.uploads[3].statement.content()
    for helper, intake in table.round.close(table.keys.sign_digest).items():
        desk = table.consortium.desks[helper].helper
        ready = decode(Ready, desk.ready(intake))
        if helper == 1:
            noise = Complaint(member=3, statement=victim, box_key=b"")
            other = Complaint(member=4, statement=b"x" * 32, box_key=b"")
            update = {
                "complaints": (noise,) * 5 + (other,),
                "accepted": tuple(a for a in ready.accepted if a != victim),
            }
            ready = sign_message(
                table.terms, ready.model_copy(update=update), desk._keys.sign_digest
            )
        table.round.ready(encode(ready))
    manifest = table.round.commit(table.keys.sign_digest)
    assert manifest.cohort == (1, 2, 3, 4, 5, 6)
    assert manifest.responders == (2, 3, 4, 5)


def test_a_forged_box_key_convicts_nobody(table):
    table.upload_all()
    content = table.round.uploads[3].statement.content()
    for helper, intake in table.round.close(table.keys.sign_digest).items():
        desk = table.consortium.desks[helper].helper
        ready = decode(Ready, desk.ready(intake))
        if helper == 1:
            lie = Complaint(member=3, statement=content, box_key=b"k" * 32)
            ready = sign_message(
                table.terms, ready.model_copy(update={"complaints": (lie,)}), desk._keys.sign_digest
            )
        table.round.ready(encode(ready))
    assert 3 in table.round.commit(table.keys.sign_digest).cohort


def test_terms_that_break_their_own_cap_are_joined_by_nobody(tmp_path):
    costly = SMALL.model_copy(update={"epsilon_cap": 1.0})
    with pytest.raises(TooCostly):
        rehearse(tmp_path, parameters=costly)


def test_too_small_a_cohort_abandons_the_round(table):
    for seat in (1, 2, 3):
        table.round.upload(table.upload(seat))
    with pytest.raises(RoundAbandoned, match="3 members uploaded"):
        table.round.close(table.keys.sign_digest)
