"""Members that send what they must not: each is left out alone, or what it does is bounded.

`run` is a real release of the coordinator; `alter` stands for the modified software of one member. In
every test either the round ends with a sum of the others, or it is abandoned and the model stays.
"""

import hashlib
import os

import numpy as np
import pytest
from adversary import FIVE, LANES, gather, person

import clients.member
from fedtrade.parameters import SCALE
from fedtrade.privacy import masking, norm
from fedtrade.privacy.aggregation import buckets_of, mean_gradient, unmask
from fedtrade.privacy.mechanism import NotFinite
from fedtrade.protocol import Upload, decode, encode, sha256, sign_message
from server.rounds import RoundAbandoned

CHECKED = ["mask", "certificate", "norm", "bfv"]


@pytest.fixture
def open_release(tmp_path):
    made = []

    def make(lane="mask", members=6, **change):
        parameters = LANES[lane].model_copy(update=change)
        consortium, _ = gather(tmp_path / str(len(made)), parameters, members)
        made.append(consortium)
        return consortium

    yield make
    for consortium in made:
        consortium.close()


def run(consortium, alter=None, action="upload"):
    """One round in which `alter` maps the replies of one action: seat -> bytes, to the same."""
    direct = consortium.direct()

    def exchange(asked, bodies):
        replies = dict(direct(asked, bodies))
        return alter(replies) if alter and asked == action else replies

    return consortium.release.run_round(exchange)


def altered(consortium, seat, change):
    """Replies in which one member's upload is changed by `change(Upload) -> dict` and signed again."""

    def alter(replies):
        upload = decode(Upload, replies[seat])
        new = upload.model_copy(update=change(upload))
        statement = new.statement.model_copy(
            update={
                "masked_sha256": sha256(new.masked),
                "boxes_sha256": tuple(sha256(box) for box in new.boxes),
            }
        )
        signed = sign_message(consortium.terms, statement, person(seat - 1).sign_digest)
        return {**replies, seat: encode(new.model_copy(update={"statement": signed}))}

    return alter


# --- what a member's own software refuses ---------------------------------------------------------


@pytest.mark.parametrize("lane", ["mask", "norm", "local", "bfv"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_gradients_that_are_no_numbers_are_bounded_on_the_members_own_machine(
    open_release, monkeypatch, lane, value
):
    """And never refused: a refusal that depends on the data is an answer that nobody pays for."""
    consortium = open_release(lane)
    honest = clients.member.clipped_gradient_sum
    member = consortium.desks[2].member
    mine = member._positions._batch.features
    spoiled = []

    def spoil(arrays, batch, clip_norm):
        total, loss = honest(arrays, batch, clip_norm)
        if batch.count and np.isin(batch.features[:, 0, 0], mine).all():
            spoiled.append(value)
            total = total.copy()
            total[3] = value
        return total, loss

    added = {}
    units = member._units

    def watched(vector, context):
        added[2] = units(vector, context)
        return added[2]

    monkeypatch.setattr(clients.member, "clipped_gradient_sum", spoil)
    monkeypatch.setattr(member, "_units", watched)
    with np.errstate(over="ignore"):
        report = run(consortium)
    assert spoiled
    assert report.cohort == (1, 2, 3, 4, 5, 6)
    largest = consortium.terms.member_batch_max() * SCALE
    assert np.abs(added[2]).max() <= largest
    if lane == "norm":
        assert np.linalg.norm(added[2].astype(float)) <= LANES["norm"].norm_units
    assert np.isfinite(consortium.release.trajectory.vector).all()


def test_a_huge_but_finite_update_is_brought_onto_the_ball():
    plan = norm.Plan(100, 2**16)
    units = norm.onto_ball(np.full(100, 1e30), plan)
    assert np.sqrt(np.square(units.astype(float)).sum()) <= plan.bound
    with pytest.raises(NotFinite):
        norm.onto_ball(np.full(100, 1e200), plan)


# --- malformed and misbound uploads ---------------------------------------------------------------


def longer(upload):
    return {"masked": upload.masked + b"\0\0\0\0"}


def shorter(upload):
    return {"masked": upload.masked[:-4]}


def no_boxes(upload):
    return {"boxes": ()}


def torn_box(upload):
    return {"boxes": (upload.boxes[0][:10], *upload.boxes[1:])}


@pytest.mark.parametrize("lane", CHECKED)
@pytest.mark.parametrize("change", [longer, shorter, no_boxes])
def test_vectors_of_another_length_leave_their_member_out(open_release, lane, change):
    consortium = open_release(lane)
    report = run(consortium, altered(consortium, 2, change))
    assert report.cohort == (1, 3, 4, 5, 6)
    assert [left.who for left in report.left_out] == ["member 2"]


@pytest.mark.parametrize("lane", CHECKED)
def test_forged_foreign_and_repeated_uploads_are_each_dropped_alone(open_release, lane):
    consortium = open_release(lane)
    terms = consortium.terms

    def alter(replies):
        fourth = decode(Upload, replies[4]).statement
        return {
            1: replies[1],
            2: b"",
            3: replies[3][:-1],
            4: resigned_upload(terms, replies[4], 4, round=2),
            5: resigned_upload(terms, replies[5], 4),  # signed by 4 in the name of 5
            6: replies[6],
            7: replies[1],  # a second copy
            8: encode(decode(Upload, replies[6]).model_copy(update={"statement": fourth})),
            9: resigned_upload(terms, replies[6], 6, member=1),  # 6 in the name of 1
            10: resigned_upload(terms, replies[6], 6, model=b"m" * 32),
        }

    with pytest.raises(RoundAbandoned, match="3 members uploaded"):
        run(consortium, lambda replies: {**alter(replies), 5: replies[5]})
    # with enough honest ones the round goes on without the rest
    more = open_release(lane, members=10)
    report = run(more, lambda r: {**r, 2: b"", 3: r[3][:-1], 4: r[5], 6: r[6] + b"x"})
    assert report.cohort == (1, 5, 7, 8, 9, 10)
    assert len(report.left_out) == 4


def resigned_upload(terms, data, signer, **change):
    upload = decode(Upload, data)
    statement = upload.statement.model_copy(update=change)
    signed = sign_message(terms, statement, person(signer - 1).sign_digest)
    return encode(upload.model_copy(update={"statement": signed}))


# --- seeds and boxes ------------------------------------------------------------------------------


def with_wrong_seeds(consortium, seat, helpers):
    """The member's software seals seeds of zero for these helpers, in boxes that it signs."""
    member = consortium.desks[seat].member
    honest = member._seal

    def cheat(seeds, context, entropy):
        key = entropy(96)
        good = honest(seeds, context, masking.Keystream(key[:32]))
        bad = honest([bytes(32)] * len(seeds), context, masking.Keystream(key[32:64]))
        return tuple(bad[i] if i in helpers else box for i, box in enumerate(good))

    member._seal = cheat


@pytest.mark.parametrize("lane", ["mask", "certificate", "norm", "buckets"])
@pytest.mark.parametrize("helpers", [{0}, {0, 1}, {0, 1, 2}])
def test_wrong_seeds_for_any_helpers_convict_their_member(open_release, lane, helpers):
    consortium = open_release(lane, members=7)
    with_wrong_seeds(consortium, 2, helpers)
    report = run(consortium)
    assert report.cohort == (1, 3, 4, 5, 6, 7)
    assert report.responders == (1, 2, 3)  # no helper is lost by it
    assert "proved a wrong seed" in report.left_out[0].why


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_boxes_that_do_not_open_cost_their_member_or_up_to_c_helpers(open_release, broken):
    consortium = open_release("five")

    def spoil(upload):
        boxes = tuple(os.urandom(len(b)) if i < broken else b for i, b in enumerate(upload.boxes))
        return {"boxes": boxes}

    report = run(consortium, altered(consortium, 6, spoil))
    if broken > FIVE.corrupt:
        assert report.cohort == (1, 2, 3, 4, 5)
        assert report.responders == (1, 2, 3, 4, 5)
    else:  # it may be the helpers that lie: they stand aside, the sum is whole
        assert report.cohort == (1, 2, 3, 4, 5, 6)
        assert report.responders == tuple(range(broken + 1, 6))


def test_torn_boxes_are_no_crash(open_release):
    consortium = open_release("mask")
    report = run(consortium, altered(consortium, 2, torn_box))
    assert report.cohort in ((1, 2, 3, 4, 5, 6), (1, 3, 4, 5, 6))


# --- poison ---------------------------------------------------------------------------------------


def poisoned(member, units):
    """The member's software adds these units instead of a gradient; all else it does right."""
    member._units = lambda vector, context: np.asarray(units, np.int64)


@pytest.mark.parametrize("coordinate", [2**31, -(2**31), 2**31 - 1, 2**30 + 2**29])
def test_a_coordinate_that_wraps_the_ring_is_found_in_the_sum(open_release, coordinate):
    consortium = open_release("mask")
    units = np.zeros(consortium.terms.dimension)
    units[0] = coordinate
    poisoned(consortium.desks[2].member, units)
    model = consortium.release.trajectory.model
    with pytest.raises(RoundAbandoned, match="beyond the bound"):
        run(consortium)
    assert consortium.release.trajectory.model == model
    assert consortium.release.spent == 1  # and ε counts as spent
    del consortium.desks[2].member._units
    assert run(consortium).cohort == (1, 2, 3, 4, 5, 6)


def test_lane_c_a_garbage_ciphertext_moves_no_model(open_release):
    consortium = open_release("bfv")

    def garbage(upload):
        n = len(upload.masked) // 8
        words = np.random.default_rng(1).integers(0, 2**59, n).astype("<u8")
        return {"masked": words.tobytes()}

    model = consortium.release.trajectory.model
    with pytest.raises(RoundAbandoned):
        run(consortium, altered(consortium, 2, garbage))
    assert consortium.release.trajectory.model == model


def norm_forgeries():
    def wrapped(v, n):
        v[0] ^= np.uint64(2**63)

    def above_the_proof(v, n):
        v[0] ^= np.uint64(2**54)

    def one_more(v, n):
        v[1] ^= np.uint64(1)

    def bits(v, n):
        v[n] ^= np.uint64(1)

    def slack(v, n):
        v[n - 1] ^= np.uint64(3)

    def all_ones(v, n):
        v[:n] += np.uint64(2**33 + 1)

    def noise(v, n):
        v[:] = np.frombuffer(hashlib.shake_256(b"x").digest(8 * len(v)), "<u8")

    return [wrapped, above_the_proof, one_more, bits, slack, all_ones, noise]


@pytest.mark.parametrize("forge", norm_forgeries(), ids=lambda f: f.__name__)
def test_a_forged_norm_proof_leaves_its_member_out(open_release, forge):
    consortium = open_release("norm")
    plan = norm.Plan(consortium.terms.dimension, LANES["norm"].norm_units)

    def change(upload):
        vector = np.frombuffer(upload.masked, "<u8").copy()
        forge(vector, plan.values)
        return {"masked": vector.tobytes()}

    report = run(consortium, altered(consortium, 2, change))
    assert report.cohort == (1, 3, 4, 5, 6)
    assert "norm" in report.left_out[0].why


def test_a_proof_for_other_seeds_or_another_member_does_not_pass(open_release):
    consortium = open_release("norm")
    kept = {}

    def alter(replies):
        kept.update(replies)
        theirs = decode(Upload, replies[3])
        return altered(consortium, 2, lambda upload: {"masked": theirs.masked})(replies)

    assert run(consortium, alter).cohort == (1, 3, 4, 5, 6)


LARGE = 1500
"""Clip units that the poisoner adds to every coordinate: what lane B's ring lets through unseen."""


def gradient_of(consortium):
    """The mean gradient of the last round, the sums of its groups, and the groups."""
    record = consortium.last
    terms, manifest = consortium.terms, record.question.manifest
    masked = {u.statement.member: u.masked for u in record.uploads}
    sums = unmask(terms, manifest, masked, [a.share for a in record.answers])
    return mean_gradient(terms, manifest, sums), sums, buckets_of(terms, manifest)


def run_and_keep(consortium):
    append = consortium.release._store.append

    def keep(record):
        consortium.last = record
        append(record)

    consortium.release._store.append = keep
    return run(consortium)


def shift(open_release, poison, **change):
    """Largest change of a coordinate of the mean gradient that the poison makes (clip units)."""
    made = []
    for attack in (False, True):
        consortium = open_release("mask", members=9, noise_multiplier=0.5, rounds=2, **change)
        if attack:
            poisoned(consortium.desks[9].member, poison(consortium))
        run_and_keep(consortium)
        made.append(gradient_of(consortium)[0])
    return float(np.abs(made[1] - made[0]).max())


def test_the_control_a_plain_mean_is_moved_by_one_member(open_release):
    moved = shift(open_release, lambda c: np.full(c.terms.dimension, LARGE * 2**16))
    assert moved > LARGE / (9 * 40 * 0.2) - 1  # its share of the expected batch: 20.8


def test_with_the_norm_check_one_member_moves_the_step_no_further_than_the_bound(open_release):
    """‖poison‖ ≤ B = 2 clip units over an expected batch of 72; honest updates lie within B as well.
    The rest of the tolerance is twelve deviations of the noise of both rounds."""
    bound, batch = 2.0, 9 * 40 * 0.2

    def heaviest(consortium):
        units = np.zeros(consortium.terms.dimension)
        units[0] = bound * 2**16 - 10
        return units

    noise = 0.5 * np.sqrt(3 / 2) * np.sqrt(2)
    moved = shift(open_release, heaviest, update_norm_max=bound)
    assert moved < (2 * bound + 12 * noise) / batch  # 0.2, against 20.8 without


def test_with_buckets_and_a_trim_the_step_stays_among_the_honest_buckets(open_release):
    """f = 1 bad member, g = 3 buckets, t = 1: each coordinate lies between honest buckets' means."""
    consortium = open_release(
        "mask", members=9, noise_multiplier=0.5, rounds=2, bucket_min=3, bucket_trim=1, cohort_min=6
    )
    poisoned(consortium.desks[9].member, np.full(consortium.terms.dimension, LARGE * 2**16))
    run_and_keep(consortium)
    gradient, sums, groups = gradient_of(consortium)
    means = [s / 2**16 / (len(g) * 40 * 0.2) for s, g in zip(sums, groups, strict=True)]
    honest = np.stack([m for m, g in zip(means, groups, strict=True) if 9 not in g])
    assert len(honest) == 2
    assert (gradient >= honest.min(0) - 1e-12).all()
    assert (gradient <= honest.max(0) + 1e-12).all()
    spoiled = next(m for m, g in zip(means, groups, strict=True) if 9 in g)
    assert np.abs(spoiled).max() > 50  # the poison was really there
    assert np.abs(gradient).max() < 1.0
