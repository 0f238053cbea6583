"""A helper against a coordinator that wants one member's update. Each attack must fail by name."""

import numpy as np
import pytest

from clients.helper import CohortRefused, Helper, ManifestNotFinal, SecondIntake, SecondManifest
from clients.keys import MemberKeys
from consortium.rehearsal import SMALL, Board, rehearse
from fedtrade.chain.parameter_store import EverythingPaused, InForce
from fedtrade.errors import Fault, Refusal
from fedtrade.governed import Governed, LooserThanGoverned
from fedtrade.privacy import masking
from fedtrade.privacy.mechanism import noise_variance
from fedtrade.protocol import (
    Announcement,
    Answer,
    Intake,
    Malformed,
    Manifest,
    Question,
    Ready,
    SealedUpload,
    Upload,
    WrongAuthor,
    WrongBinding,
    decode,
    encode,
    sign_message,
)
from server.rounds import Round


class Attack:
    """A coordinator that holds its own key and may build any message it likes."""

    def __init__(self, folder, number=1, members=6, parameters=SMALL):
        self.keys = MemberKeys.ephemeral()
        self.board = Board()
        self.consortium = rehearse(
            folder, members, parameters, notices=self.board, coordinator_keys=self.keys
        )
        self.terms = self.consortium.terms
        self.number = number
        trajectory = self.consortium.release.trajectory
        self.round = Round(self.terms, number, trajectory.model)
        announce = encode(self.round.announce(trajectory.vector_bytes, self.keys.sign_digest))
        self.uploads = {s: d.member.upload(announce) for s, d in self.consortium.desks.items()}
        for upload in self.uploads.values():
            self.round.upload(upload)
        closed = self.round.close(self.keys.sign_digest)
        self.intakes = {helper: decode(Intake, data) for helper, data in closed.items()}
        self.helpers = {s: d.helper for s, d in self.consortium.desks.items() if d.helper}

    def ready(self, *helpers):
        for h in helpers or self.helpers:
            self.round.ready(self.helpers[h].ready(encode(self.intakes[h])))

    def sign(self, message):
        return sign_message(self.terms, message, self.keys.sign_digest)

    def manifest(self, post=True, **update):
        manifest = self.round.manifest or self.round.commit(self.keys.sign_digest)
        responders = update.get("responders", manifest.responders)
        shown = [self.round.readies[h] for h in responders if h in self.round.readies]
        proof = {"readies": tuple(r.content() for r in shown)}
        if update:
            manifest = self.sign(manifest.model_copy(update={**proof, **update}))
        if post:
            self.board.manifests[(manifest.release, manifest.round)] = manifest.content()
        return encode(Question(manifest=manifest, readies=tuple(shown)))

    def subset(self, size):
        m = self.round.manifest or self.round.commit(self.keys.sign_digest)
        return {"cohort": m.cohort[:size], "uploads": m.uploads[:size]}


@pytest.fixture
def attack(tmp_path):
    attack = Attack(tmp_path)
    yield attack
    attack.consortium.close()


def test_a_helper_opens_no_round_and_answers_for_none_that_governance_does_not_allow(tmp_path):
    allowed = SMALL.model_copy(update={"sampling_rate": 0.05, "epsilon_cap": 8.0})
    attack = Attack(tmp_path, parameters=allowed)
    now = InForce(Governed(), paused=True, as_of_s=0)
    for helper in attack.helpers.values():
        helper._governance = lambda: now
    with pytest.raises(EverythingPaused):
        attack.ready(1)
    now = InForce(Governed().changed({"cohortMin": 5}), False, 0)
    with pytest.raises(LooserThanGoverned, match="cohort_min"):
        attack.ready(1)
    now = InForce(Governed(), paused=False, as_of_s=0)
    attack.ready()
    now = InForce(Governed().changed({"respondersMin": 4}), False, 0)
    with pytest.raises(CohortRefused, match="too few"):
        attack.helpers[1].answer(attack.manifest(responders=(1, 2, 3)))
    decode(Answer, attack.helpers[1].answer(attack.manifest(responders=(1, 2, 3, 4))))
    attack.consortium.close()


def test_the_honest_way_gives_an_answer_and_repeats_its_bytes(attack):
    attack.ready()
    manifest = attack.manifest()
    first = attack.helpers[1].answer(manifest)
    assert decode(Answer, first).helper == 1
    assert attack.helpers[1].answer(manifest) == first


def test_single_member_and_small_cohorts_are_refused(attack):
    attack.ready()
    for size in (0, 1, 3):
        with pytest.raises(CohortRefused):
            attack.helpers[1].answer(attack.manifest(**attack.subset(size)))


def test_a_helpers_own_minimum_is_above_the_terms(attack, tmp_path):
    strict = Helper(
        1,
        attack.consortium.desks[1].helper._keys,
        attack.terms,
        tmp_path / "strict",
        attack.board.final,
        cohort_min=6,
    )
    strict.ready(encode(attack.intakes[1]))
    attack.ready()
    with pytest.raises(CohortRefused, match="minimum is 6"):
        strict.answer(attack.manifest(**attack.subset(5)))


def test_two_subsets_of_one_round_are_refused_even_after_a_restart(attack, tmp_path):
    attack.ready()
    attack.helpers[1].answer(attack.manifest())
    with pytest.raises(SecondManifest):
        attack.helpers[1].answer(attack.manifest(**attack.subset(5)))
    attack.helpers[1].close()
    again = Helper(
        1, attack.helpers[1]._keys, attack.terms, tmp_path / "member-1", attack.board.final, 3
    )
    with pytest.raises(SecondManifest):
        again.answer(attack.manifest(**attack.subset(5)))


def test_a_manifest_that_is_not_final_is_refused(attack):
    attack.ready()
    with pytest.raises(ManifestNotFinal):
        attack.helpers[1].answer(attack.manifest(post=False))
    attack.manifest()
    with pytest.raises(ManifestNotFinal):  # the chain has another one
        attack.helpers[2].answer(attack.manifest(post=False, **attack.subset(5)))


def test_equivocation_over_models_is_refused(attack):
    attack.ready()
    with pytest.raises(WrongBinding):
        attack.helpers[1].answer(attack.manifest(model=b"x" * 32))
    with pytest.raises(WrongBinding):
        attack.helpers[1].answer(attack.manifest(round=2))


def test_an_upload_that_this_helper_did_not_accept_is_refused(attack):
    attack.ready()
    m = attack.round.commit(attack.keys.sign_digest)
    uploads = (b"f" * 32, *m.uploads[1:])
    with pytest.raises(Malformed, match="did not accept"):
        attack.helpers[1].answer(attack.manifest(uploads=uploads))
    swapped = (m.uploads[1], m.uploads[0], *m.uploads[2:])
    with pytest.raises(CohortRefused, match="not accepted"):
        attack.helpers[1].answer(attack.manifest(uploads=swapped))


def test_listing_a_member_twice_is_refused(attack):
    attack.ready()
    m = attack.round.commit(attack.keys.sign_digest)
    with pytest.raises(Malformed, match="twice"):
        attack.helpers[1].answer(attack.manifest(cohort=(1, 1, *m.cohort[2:]), uploads=m.uploads))


@pytest.mark.parametrize("responders", [(1, 2), (2, 3, 4), (1, 2, 99), (2, 1, 3), (1, 1, 2)])
def test_impossible_responders_are_refused(attack, responders):
    attack.ready()
    with pytest.raises((CohortRefused, Malformed, WrongBinding)):
        attack.helpers[1].answer(attack.manifest(responders=responders))


def test_nobody_but_the_coordinator_may_ask(attack):
    attack.ready()
    question = decode(Question, attack.manifest())
    forged = sign_message(attack.terms, question.manifest, MemberKeys.ephemeral().sign_digest)
    with pytest.raises(WrongAuthor):
        attack.helpers[1].answer(encode(question.model_copy(update={"manifest": forged})))
    intake = sign_message(attack.terms, attack.intakes[1], MemberKeys.ephemeral().sign_digest)
    with pytest.raises(WrongAuthor):
        attack.helpers[1].ready(encode(intake))


def test_swapped_unsigned_or_replayed_uploads_are_refused(attack, tmp_path):
    sealed = list(attack.intakes[1].uploads)
    forged = sealed[0].statement.model_copy(update={"masked_sha256": b"z" * 32})
    posing = sealed[0].statement.model_copy(update={"member": 2})
    other = Attack(tmp_path / "other", number=2)
    replayed = other.intakes[1].uploads[0]
    other.consortium.close()
    for bad, error in (
        (sealed[0].model_copy(update={"statement": forged}), WrongAuthor),
        (sealed[0].model_copy(update={"statement": posing}), WrongAuthor),
        (replayed, WrongBinding),
        (sealed[1], Malformed),  # twice in one intake
    ):
        intake = attack.intakes[1].model_copy(update={"uploads": (bad, *sealed[1:])})
        with pytest.raises(error):
            attack.helpers[1].ready(encode(attack.sign(intake)))


def test_a_box_that_the_member_did_not_sign_reveals_no_key(attack):
    """A coordinator that alters a box gets a complaint without evidence, never the box's key."""
    first, *rest = attack.intakes[1].uploads
    box = first.box[:-1] + bytes([first.box[-1] ^ 1])
    intake = attack.intakes[1].model_copy(
        update={"uploads": (SealedUpload(statement=first.statement, box=box), *rest)}
    )
    ready = decode(Ready, attack.helpers[1].ready(encode(attack.sign(intake))))
    assert [(c.member, c.box_key) for c in ready.complaints] == [(1, b"")]
    assert first.statement.content() not in ready.accepted


def test_a_member_that_gives_helpers_different_seeds_is_convicted(attack):
    """The wrong seed sits in a box that the member itself signed: the key is the evidence."""
    desk = attack.consortium.desks[3]
    member = desk.member
    trajectory = attack.consortium.release.trajectory
    honest = member._seal

    def cheat(seeds, context, entropy):
        boxes = list(honest(seeds, context, entropy))
        boxes[0] = honest([b"\0" * 32 for _ in seeds], context, entropy)[0]
        return tuple(boxes)

    member._seal = cheat
    cheated = Round(attack.terms, 2, trajectory.model)
    announce = encode(cheated.announce(trajectory.vector_bytes, attack.keys.sign_digest))
    for d in attack.consortium.desks.values():
        cheated.upload(d.member.upload(announce))
    for helper, intake in cheated.close(attack.keys.sign_digest).items():
        cheated.ready(attack.helpers[helper].ready(intake))
    manifest = cheated.commit(attack.keys.sign_digest)
    assert 3 not in manifest.cohort
    assert manifest.responders == (1, 2, 3, 4, 5)
    assert any("member 3" in left.who and "proved" in left.why for left in cheated.left_out)


def test_c_helpers_seeds_do_not_strip_an_honest_answer(attack):
    """With the seeds of helpers 1 and 2 in hand, the answer of helper 4 is still uniform: the
    coordinator can take all its masks away, but not its shares of zero with helpers 3 and 5.
    (Helper 3 owns the one mask that helpers 1 and 2 miss, so it needs no share of zero.)"""
    attack.ready()
    victim = 3  # the index of seat 4
    answer = decode(Answer, attack.helpers[4].answer(attack.manifest()))
    share = np.frombuffer(answer.share, "<u4").copy()
    p = attack.terms.parameters
    owner = masking.owners(tuple(range(5)), p.helpers, p.corrupt)
    assert owner[masking.subsets(5, 2).index((0, 1))] != victim
    for seat in (1, 2):
        opened = attack.helpers[seat]._open
        held = masking.seeds_of(attack.helpers[seat].index, p.helpers, p.corrupt)
        context = masking.round_context(attack.terms.digest, 1, attack.number, attack.round.model)
        for member, seeds in opened.seeds.values():
            for subset, seed in zip(held, seeds, strict=True):
                if owner[subset] == victim and (
                    seat == 1 or subset not in masking.seeds_of(0, 5, 2)
                ):
                    ctx = masking.member_context(context, member)
                    share -= masking.mask_share({ctx: [seed]}, len(share), share.dtype)
    sigma = np.sqrt(noise_variance(p.noise_multiplier, 5, p.corrupt))
    # what is left is not the noise: noise alone would stay within ten sigmas of zero
    assert (np.abs(share.view(np.int32).astype(float)) > 10 * sigma).mean() > 0.9


def test_a_log_of_answers_that_was_shortened_is_a_fault(attack, tmp_path):
    attack.ready()
    attack.helpers[1].answer(attack.manifest())
    attack.helpers[1].close()
    path = tmp_path / "member-1" / "signed-1.jsonl"
    path.write_text(path.read_text()[:-2])
    with pytest.raises(Fault):
        Helper(1, attack.helpers[1]._keys, attack.terms, path.parent, attack.board.final, 3)


def test_there_is_no_message_that_asks_for_one_members_share():
    for message in (Announcement, Intake, Manifest):
        fields = set(message.model_fields)
        assert not fields & {"seed", "seeds", "key", "dropped", "member"}
    assert not {"seeds", "key"} & set(Upload.model_fields)


def test_keys_of_another_seat_are_refused(attack, tmp_path):
    with pytest.raises(Refusal):
        Helper(1, MemberKeys.ephemeral(), attack.terms, tmp_path, attack.board.final, 3)


def test_a_helper_that_starts_again_in_mid_round_gives_the_same_bytes(attack, tmp_path):
    """Its boxes are on its disk, sealed: it needs nobody to send them again."""
    attack.ready()
    question = attack.manifest()
    before = attack.helpers[1].answer(question)
    ready = encode(attack.round.readies[1])
    for asked in (False, True):  # killed before and after it was asked again for its readiness
        attack.helpers[1].close()
        attack.helpers[1] = Helper(
            1, attack.helpers[1]._keys, attack.terms, tmp_path / "member-1", attack.board.final, 3
        )
        if asked:
            assert attack.helpers[1].ready(encode(attack.intakes[1])) == ready
        assert attack.helpers[1].answer(question) == before


def test_other_uploads_for_a_round_that_it_is_ready_for_are_refused(attack):
    """Else a coordinator could try intakes until the nonces draw the buckets that it wants."""
    attack.ready()
    fewer = attack.intakes[1].model_copy(update={"uploads": attack.intakes[1].uploads[:-1]})
    with pytest.raises(SecondIntake):
        attack.helpers[1].ready(encode(attack.sign(fewer)))
    assert decode(Ready, attack.helpers[1].ready(encode(attack.intakes[1])))


def test_a_beacon_where_there_are_no_buckets_is_refused(attack):
    attack.ready()
    with pytest.raises(Malformed, match="beacon"):
        attack.helpers[1].answer(attack.manifest(beacon=b"b" * 32))


class TestBuckets:
    """The partition belongs to nobody: nonces are committed to first, shown once all else is fixed."""

    @pytest.fixture
    def drawn(self, tmp_path):
        parameters = SMALL.model_copy(update={"bucket_min": 4, "cohort_min": 8})
        attack = Attack(tmp_path, members=9, parameters=parameters)
        attack.ready()
        attack.draft = attack.round.draft(attack.keys.sign_digest)
        for helper in attack.helpers.values():
            attack.round.draw(helper.draw(encode(attack.draft)))
        yield attack
        attack.consortium.close()

    def ask(self, attack, **update):
        manifest = attack.round.manifest or attack.round.commit(attack.keys.sign_digest)
        question = attack.round.question()
        if update:
            manifest = attack.sign(manifest.model_copy(update=update))
        attack.board.manifests[(1, 1)] = manifest.content()
        return encode(question.model_copy(update={"manifest": manifest}))

    def test_the_honest_way_is_answered(self, drawn):
        assert decode(Answer, drawn.helpers[1].answer(self.ask(drawn))).helper == 1

    def test_another_cohort_after_the_nonces_is_refused(self, drawn):
        m = drawn.round.commit(drawn.keys.sign_digest)
        fewer = {"cohort": m.cohort[:8], "uploads": m.uploads[:8]}
        with pytest.raises(WrongBinding, match="draft"):
            drawn.helpers[1].answer(self.ask(drawn, **fewer))

    def test_another_beacon_is_refused(self, drawn):
        with pytest.raises(WrongBinding, match="beacon"):
            drawn.helpers[1].answer(self.ask(drawn, beacon=b"b" * 32))

    def test_a_second_draft_gets_no_nonce_even_after_a_restart(self, drawn, tmp_path):
        m = drawn.draft.manifest
        fewer = drawn.sign(m.model_copy(update={"cohort": m.cohort[:8], "uploads": m.uploads[:8]}))
        other = encode(drawn.draft.model_copy(update={"manifest": fewer}))
        with pytest.raises(SecondManifest):
            drawn.helpers[1].draw(other)
        drawn.helpers[1].close()
        again = Helper(
            1, drawn.helpers[1]._keys, drawn.terms, tmp_path / "member-1", drawn.board.final, 3
        )
        with pytest.raises(SecondManifest):
            again.draw(other)
        again.close()

    def test_a_nonce_that_was_not_committed_to_is_refused(self, drawn):
        question = decode(Question, self.ask(drawn))
        forged = drawn.helpers[2]._keys.sign_digest
        lie = sign_message(
            drawn.terms, question.draws[1].model_copy(update={"nonce": b"n" * 32}), forged
        )
        draws = (question.draws[0], lie, *question.draws[2:])
        with pytest.raises(Malformed, match="committed to"):
            drawn.helpers[1].answer(encode(question.model_copy(update={"draws": draws})))
