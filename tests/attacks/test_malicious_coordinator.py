"""A coordinator that wants one member's update: each attack is refused by name and gives nothing.

What it gets for each attempt is the name of a refusal (`Adversary.ask`), and the party that refused
has the reason in its log. A refusal changes nothing: the last test of the first group answers the
honest question after all of them.
"""

import pytest
from adversary import (
    COORDINATOR,
    LANES,
    Adversary,
    person,
    splits,
)

from clients.helper import Helper
from clients.keys import MemberKeys
from consortium.rehearsal import Party, RandomPositions, make_terms, small_base
from fedtrade.protocol import (
    UNSIGNED,
    Announcement,
    Answer,
    Approval,
    Ready,
    WrongBinding,
    decode,
    encode,
    sha256,
)
from server.rounds import Round

EVERY_LANE = tuple(LANES)
STRANGER = MemberKeys.ephemeral()


@pytest.fixture(scope="module", params=EVERY_LANE)
def standing(request, tmp_path_factory):
    """A round that all helpers are ready for; refused questions leave it as it is."""
    adversary = Adversary(tmp_path_factory.mktemp(request.param), request.param)
    adversary.collect().make_ready()
    yield adversary
    adversary.close()


# --- what a manifest may not say ------------------------------------------------------------------


def swapped(a):
    return {"uploads": (a.manifest.uploads[1], a.manifest.uploads[0], *a.manifest.uploads[2:])}


def twice(a):
    first, _, *rest = a.manifest.cohort
    return {"cohort": (first, first, *rest)}


MANIFESTS = {
    "nobody": (lambda a: a.subset(), "CohortRefused"),
    "a single member": (lambda a: a.subset(3), "CohortRefused"),
    "below the minimum": (lambda a: a.subset(1, 2, 3), "CohortRefused"),
    "a member twice": (twice, "Malformed"),
    "a member that is not": (lambda a: {"cohort": (*a.manifest.cohort[:-1], 99)}, "WrongBinding"),
    "uploads missing": (lambda a: {"uploads": a.manifest.uploads[:-1]}, "Malformed"),
    "an upload that nobody accepted": (
        lambda a: {"uploads": (b"f" * 32, *a.manifest.uploads[1:])},
        "Malformed",
    ),
    "another round": (lambda a: {"round": 2}, "WrongBinding"),
    "a round before the first": (lambda a: {"round": 0}, "WrongBinding"),
    "a round after the last": (lambda a: {"round": a.p.rounds + 1}, "WrongBinding"),
    "another release": (lambda a: {"release": 2}, "WrongBinding"),
    "other terms": (lambda a: {"terms": b"t" * 32}, "WrongBinding"),
    "too few responders": (lambda a: {"responders": (1,)}, "Malformed"),
    "no responders": (lambda a: {"responders": ()}, "Malformed"),
    "responders out of order": (
        lambda a: {"responders": a.manifest.responders[::-1]},
        "Malformed",
    ),
    "a stranger among the responders": (lambda a: {"responders": (1, 2, 99)}, "WrongBinding"),
    "a beacon of its own": (
        lambda a: {"beacon": b"b" * 32},
        {"buckets": "WrongBinding"},  # and no release without buckets has one
    ),
    "weights for some": (lambda a: {"weights": (1,)}, "Malformed"),
    "weights outside the terms": (
        lambda a: {"weights": (a.p.weight_max + 1,) * len(a.manifest.cohort)},
        "Malformed",
    ),
    "weights outside any terms": (
        lambda a: {"weights": (1000,) * len(a.manifest.cohort)},
        "Malformed",
    ),
    "weights of zero": (lambda a: {"weights": (0,) * len(a.manifest.cohort)}, "Malformed"),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_manifest_that_isolates_or_misbinds_is_refused(standing, what):
    change, name = MANIFESTS[what]
    if isinstance(name, dict):
        name = name.get(standing.lane, "Malformed")
    assert standing.outcome(standing.question(**change(standing))) == name
    standing.board.manifests.clear()


@pytest.mark.parametrize("lane", EVERY_LANE)
@pytest.mark.parametrize("what", ["uploads swapped", "another model"])
def test_a_manifest_about_what_this_helper_does_not_hold_is_not_answered(attack, lane, what):
    """Under certificates it may be *signed* by a helper that is ready for the round and the model; then
    the round is lost to the coordinator that asked for it, and nothing is learnt."""
    a = attack(lane).collect().make_ready()
    change = swapped(a) if what == "uploads swapped" else {"model": b"x" * 32}
    names = {"CohortRefused", "WrongBinding", "Malformed"}
    names |= {"SecondManifest"} if lane == "buckets" else set()  # drawn for the honest one already
    assert a.outcome(a.question(**change)) in names


def forged_readies(a):
    first, *rest = (a.round.readies[h] for h in a.manifest.responders)
    return (first.model_copy(update={"nonce_sha256": b"n" * 32}), *rest)


QUESTIONS = {
    "unsigned": (
        lambda a: a.question().model_copy(
            update={"manifest": a.manifest.model_copy(update={"signature": UNSIGNED})}
        ),
        "WrongAuthor",
    ),
    "signed by a stranger": (lambda a: a.question(sign_with=STRANGER), "WrongAuthor"),
    "signed by a member": (lambda a: a.question(sign_with=person(0)), "WrongAuthor"),
    "no readiness shown": (lambda a: a.question(readies=()), "Malformed"),
    "readiness altered": (lambda a: a.question(readies=forged_readies(a)), "WrongAuthor"),
    "readiness of one helper for all": (
        lambda a: a.question(readies=(a.round.readies[1],) * len(a.manifest.responders)),
        "Malformed",
    ),
}


@pytest.mark.parametrize("what", QUESTIONS)
def test_a_question_that_is_not_proved_is_refused(standing, what):
    make, name = QUESTIONS[what]
    question = make(standing)
    assert standing.outcome(question) == name
    standing.board.manifests.clear()


def test_after_all_those_refusals_the_honest_question_is_answered(standing):
    answer = decode(Answer, standing.outcome(standing.question()))
    assert answer.helper == 1
    assert answer.manifest == standing.manifest.content()


# --- two subsets of one round ---------------------------------------------------------------------


@pytest.mark.parametrize("lane", ["mask", "five", "norm", "local", "bfv"])
def test_a_second_subset_is_refused_whoever_is_asked_and_after_a_restart(attack, lane):
    a = attack(lane).collect().make_ready()
    everybody = a.question()
    without = a.question(**a.subset(1, 2, 4, 5, 6))
    honest = a.outcome(everybody)
    assert isinstance(honest, bytes)
    # the board has taken the first: another helper sees that the second is not final
    assert a.refused("answer", 2, without) == "ManifestNotFinal"
    # and a home chain that lies to the helper that has answered helps no more
    a.board.manifests[(1, 1)] = without.manifest.content()
    assert a.refused("answer", 1, without) == "SecondManifest"
    a.restart(1)
    assert a.refused("answer", 1, without) == "SecondManifest"
    # asked for the first again it gives the same bytes: never a second draw of its noise
    a.board.manifests[(1, 1)] = everybody.manifest.content()
    assert a.ask("answer", 1, everybody) == honest


@pytest.mark.parametrize("lane", ["certificate", "bfv-certificate"])
def test_under_certificates_an_honest_helper_signs_one_subset(attack, lane):
    a = attack(lane).collect().make_ready()
    first, second = a.question(), a.question(**a.subset(1, 2, 4, 5, 6))
    # helper 1 is shown the one, helper 2 the other, and helper 3 is bad and signs both
    one = decode(Approval, a.ask("approve", 1, first))
    two = decode(Approval, a.ask("approve", 2, second))
    assert a.refused("approve", 1, second) == "SecondManifest"
    assert a.refused("approve", 2, first) == "SecondManifest"
    a.restart(1)
    assert a.refused("approve", 1, second) == "SecondManifest"
    for seat, question, approval in ((1, first, one), (2, second, two)):
        third = a.sign(approval.model_copy(update={"helper": 3, "signature": UNSIGNED}), person(2))
        shown = question.model_copy(update={"approvals": (approval, third)})
        assert a.refused("answer", seat, shown) == "NotCertified"
        # one helper's signature counts once, however often it is shown
        shown = question.model_copy(update={"approvals": (approval, third, third, approval)})
        assert a.refused("answer", seat, shown) == "NotCertified"
    # signatures under another manifest do not count, and nobody else's name can be used
    borrowed = first.model_copy(update={"approvals": (one, two)})
    assert a.refused("answer", 1, borrowed) == "NotCertified"
    posing = a.sign(one.model_copy(update={"helper": 2, "signature": UNSIGNED}), person(2))
    borrowed = first.model_copy(update={"approvals": (one, posing)})
    assert a.refused("answer", 1, borrowed) == "WrongAuthor"


@pytest.mark.parametrize(("m", "c"), [(3, 1), (5, 1), (5, 2), (7, 3)])
def test_no_two_certificates_exist_with_c_bad_helpers(m, c, tmp_path):
    """All ways of showing honest helpers one of two manifests or none; the c bad sign both."""
    parameters = LANES["mask"].model_copy(update={"helpers": m, "corrupt": c, "cohort_min": c + 2})
    least = terms_of(parameters, tmp_path).certificate_min
    shown = [(split.count("A") + c, split.count("B") + c) for split in splits(m - c)]
    assert len(shown) == 3 ** (m - c)
    assert not any(min(both) >= least for both in shown)
    # the control: one signature fewer and there is a split with two certificates
    assert any(min(both) >= least - 1 for both in shown)


def terms_of(parameters, folder):
    """Real terms of a committee, without the rest of a consortium."""
    parties = [
        Party(i + 1, str(i), person(i), RandomPositions(3, 6, seed=i), folder) for i in range(7)
    ]
    return make_terms(parties, parameters, small_base(), COORDINATOR.address)


def test_cohorts_that_differ_by_helper_give_one_sum_and_one_only(attack):
    """Each helper is shown its own manifest in the other's stead: the board stands with one."""
    a = attack("five").collect().make_ready()
    questions = {
        h: a.question(**a.subset(*(s for s in range(1, 7) if s != h))) for h in range(1, 6)
    }
    a.finalise(questions[1])
    assert isinstance(a.ask("answer", 1, questions[1]), bytes)
    for h in range(2, 6):
        assert a.refused("answer", h, questions[h]) == "ManifestNotFinal"


def test_a_manifest_that_is_not_final_is_refused(attack):
    a = attack("mask").collect().make_ready()
    assert a.refused("answer", 1, a.question()) == "ManifestNotFinal"
    b = attack("certificate").collect().make_ready()
    assert b.refused("answer", 1, b.question()) == "NotCertified"


def test_a_helper_that_wants_more_members_than_the_terms_gets_them(attack, tmp_path):
    a = attack("mask").collect().make_ready()
    strict = Helper(1, person(0), a.terms, tmp_path / "strict", a.board.final, cohort_min=6)
    a.desks[1].helper, loose = strict, a.desks[1].helper
    assert decode(Ready, a.ask("ready", 1, a.intakes[1])).helper == 1
    assert a.outcome(a.question(**a.subset(1, 2, 3, 4, 5))) == "CohortRefused"
    strict.close()
    a.desks[1].helper = loose


# --- late changes, replays ------------------------------------------------------------------------


@pytest.mark.parametrize("lane", ["mask", "bfv"])
def test_an_upload_that_came_after_readiness_cannot_enter(attack, lane):
    a = attack(lane).collect()
    late = a.round.uploads.pop(6)
    a.intakes = {
        seat: a.sign(intake.model_copy(update={"uploads": intake.uploads[:-1]}))
        for seat, intake in a.intakes.items()
    }
    a.make_ready()
    assert a.manifest.cohort == (1, 2, 3, 4, 5)
    wider = {
        "cohort": (1, 2, 3, 4, 5, 6),
        "uploads": (*a.manifest.uploads, late.statement.content()),
    }
    assert a.outcome(a.question(**wider)) == "Malformed"


@pytest.mark.parametrize("lane", ["mask", "buckets", "bfv"])
def test_one_intake_a_round_so_nonces_cannot_be_tried(attack, lane):
    """Nonce and beacon grinding: another intake would give another nonce."""
    a = attack(lane).collect().make_ready()
    fewer = a.intakes[1].model_copy(update={"uploads": a.intakes[1].uploads[:-1]})
    assert a.refused("ready", 1, a.sign(fewer)) == "SecondIntake"
    a.restart(1)
    assert a.refused("ready", 1, a.sign(fewer)) == "SecondIntake"
    again = decode(Ready, a.ask("ready", 1, a.intakes[1]))
    assert again.nonce_sha256 == a.round.readies[1].nonce_sha256


@pytest.fixture(scope="module", params=["mask", "certificate", "norm", "bfv"])
def two_rounds(request, tmp_path_factory):
    """The messages of round 1, and an adversary that is in round 2 of the same release."""
    adversary = Adversary(tmp_path_factory.mktemp("first"), request.param)
    adversary.collect().make_ready()
    question = adversary.finalise(adversary.question())
    old = {
        "question": question,
        "answer": adversary.ask("answer", 1, question),
        "round": adversary.round,
        "intakes": adversary.intakes,
        "panel": adversary.round.panel,
        "announcement": adversary.announcement(),
    }
    adversary.number = 2
    adversary.round = Round(adversary.terms, 2, adversary.trajectory.model)
    adversary.collect().make_ready()
    yield adversary, old
    adversary.close()


def test_messages_of_an_earlier_round_are_refused(two_rounds):
    a, old = two_rounds
    # uploads of round 1 among those of round 2
    mixed = (old["intakes"][1].uploads[0], *a.intakes[1].uploads[1:])
    assert a.refused("ready", 1, a.sign(a.intakes[1].model_copy(update={"uploads": mixed}))) in (
        "SecondIntake",
        "WrongBinding",
    )
    fresh = a.intakes[1].model_copy(update={"uploads": mixed, "round": 3})
    assert a.refused("ready", 1, a.sign(fresh)) == "WrongBinding"
    # a whole intake of round 1
    assert a.refused("ready", 1, old["intakes"][1]) == "WrongBinding"
    # readiness of round 1 under a manifest of round 2
    readies = tuple(old["round"].readies[h] for h in a.manifest.responders)
    assert a.outcome(a.question(readies=readies)) == "WrongBinding"
    a.board.manifests.pop((1, 2), None)
    # approvals of round 1
    if a.p.agreement == "certificate":
        shown = a.question(approvals=old["question"].approvals)
        assert a.refused("answer", 1, shown) == "WrongBinding"
    # check words of round 1
    if a.p.update_norm_max is not None:
        checks = tuple(old["round"].checks[h] for h in a.manifest.responders)
        assert a.outcome(a.question(checks=checks)) == "WrongBinding"
        assert a.refused("check", 1, old["panel"]) == "WrongBinding"
        a.board.manifests.pop((1, 2), None)
    # the question of round 1: answered as before, or refused where its boxes are gone
    assert a.refused("answer", 1, old["question"]) == "WrongBinding"
    # the announcement of round 1: the same bytes as then, paid once
    again = a.ask("upload", 1, old["announcement"])
    assert sha256(again) == sha256(encode(old["round"].uploads[1]))


def test_replies_of_an_earlier_round_are_refused_by_an_honest_coordinator(two_rounds):
    """Replays by a member or helper, or by whoever is on the wire."""
    a, old = two_rounds
    fresh = Round(a.terms, 2, a.trajectory.model)
    with pytest.raises(WrongBinding):
        fresh.upload(encode(old["round"].uploads[1]))
    with pytest.raises(WrongBinding):
        fresh.ready(encode(old["round"].readies[1]))
    a.round.manifest = a.manifest
    with pytest.raises(WrongBinding):
        a.round.answer(old["answer"])
    if a.p.agreement == "certificate":
        with pytest.raises(WrongBinding):
            a.round.approve(encode(old["question"].approvals[0]))


@pytest.mark.parametrize("lane", ["mask", "bfv"])
def test_messages_of_another_release_or_other_terms_are_refused(attack, lane):
    a = attack(lane).collect().make_ready()
    b = attack(lane, release=2).collect().make_ready()
    assert a.refused("upload", 1, b.announcement()) == "WrongBinding"
    assert a.refused("ready", 1, b.intakes[1]) == "WrongBinding"
    assert a.outcome(b.question()) == "WrongBinding"
    foreign = a.intakes[1].model_copy(update={"uploads": b.intakes[1].uploads, "round": 2})
    assert a.refused("ready", 1, a.sign(foreign)) == "WrongBinding"
    # other terms under the same release number: one cohort_min lower
    looser = a.terms.model_copy(
        update={"parameters": a.p.model_copy(update={"cohort_min": 3, "noise_multiplier": 0.6})}
    )
    for message in (a.announcement(), a.intakes[1]):
        other = a.sign(message.model_copy(update={"terms": looser.digest}))
        action = "upload" if isinstance(message, Announcement) else "ready"
        assert a.refused(action, 1, other) == "WrongBinding"


def test_a_second_answer_after_a_failed_round_is_the_same_bytes_or_none(attack):
    """Helper 3 never answers, the round is abandoned; the others are asked again and again."""
    a = attack("mask").collect().make_ready()
    question = a.finalise(a.question())
    first = {h: a.ask("answer", h, question) for h in (1, 2)}
    for _ in range(3):
        assert {h: a.ask("answer", h, question) for h in (1, 2)} == first
    for h in (1, 2):
        a.restart(h)
        assert a.ask("answer", h, question) == first[h]
    # without the helper that failed: another manifest of the same round
    fewer = a.question(responders=(1, 2))
    a.board.manifests[(1, 1)] = fewer.manifest.content()
    assert a.refused("answer", 1, fewer) == "SecondManifest"
    assert a.refused("answer", 2, fewer) == "SecondManifest"
