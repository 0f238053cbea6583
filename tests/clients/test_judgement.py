"""A member does not sign a model that its held-out positions speak against, and tells little by it."""

import numpy as np
import pytest

from clients.judgement import (
    COST,
    HELD_OUT,
    JUDGED_MIN,
    LOSS_CLIP,
    NOISE_MULTIPLIER,
    TOLERANCE,
    ModelWorse,
    held_out,
    judge,
)
from consortium.rehearsal import rehearse
from fedtrade.privacy.accounting import epsilon_rdp


def refusals(change, positions, seeds=400):
    """How many of `seeds` votes refuse a model that changes every loss by `change`."""
    before = np.zeros(positions)
    count = 0
    for seed in range(seeds):
        try:
            judge(before, before + change, seed.to_bytes(32, "big"), "a" * 64)
        except ModelWorse:
            count += 1
    return count / seeds


def test_a_model_that_is_clearly_worse_is_refused_and_an_equal_one_is_not():
    assert refusals(0.0, JUDGED_MIN) < 0.01
    assert refusals(-1.0, JUDGED_MIN) == 0.0
    assert refusals(1.0, JUDGED_MIN) > 0.99
    assert 0.3 < refusals(TOLERANCE, JUDGED_MIN) < 0.7  # on the line the noise decides
    assert refusals(2 * TOLERANCE, 300) > 0.99


def test_a_loss_that_is_no_number_counts_as_the_worst():
    with pytest.raises(ModelWorse):
        judge(np.zeros(300), np.full(300, np.nan), bytes(32), "a" * 64)


def test_one_position_moves_the_noisy_mean_by_at_most_what_is_accounted():
    """The difference that one position can make, in units of the noise's deviation, is 1/z."""
    assert 1 / COST.noise_multiplier == LOSS_CLIP / (NOISE_MULTIPLIER * LOSS_CLIP)
    assert epsilon_rdp([COST], 1e-6) < 1.5


def test_who_is_held_out_depends_on_places_alone():
    one = held_out(5000, b"k" * 32)
    assert (held_out(6000, b"k" * 32)[:5000] == one).all()  # appending moves nobody
    assert (held_out(5000, b"l" * 32) != one).any()
    assert abs(one.mean() - HELD_OUT) < 0.02


def test_held_out_positions_are_in_no_round(tmp_path):
    consortium = rehearse(tmp_path, positions_each=400)
    member = consortium.desks[1].member
    seen = np.zeros(400, bool)
    sample = member._positions.sample

    def watch(include):
        seen[include] = True
        return sample(include)

    member._positions.sample = watch
    for _ in range(8):
        consortium.release.run_round(consortium.direct())
    assert not seen[member._held_out].any()
    assert seen[~member._held_out].mean() > 0.5
    consortium.close()


def test_a_poisoned_release_is_signed_by_nobody(tmp_path):
    """A helper that adds a vector of its own to its shares moves the model, and no hash shows it."""
    consortium = rehearse(tmp_path, positions_each=400)
    release = consortium.release
    bad = consortium.desks[1].helper
    noise = bad._noise
    push = np.full(consortium.terms.dimension, 2**27, np.int64)
    push[::2] *= -1
    bad._noise = lambda content, group, responders: noise(content, group, responders) + push
    release.trajectory._adam = type(release.trajectory._adam)(learning_rate=1.0)
    for _ in range(4):
        release.run_round(consortium.direct())
    finished = release.finish()
    signed = refused = 0
    for member in consortium.members():
        if member._held_out.sum() < JUDGED_MIN:
            continue
        from fedtrade.privacy import transcript

        proved = transcript.Verified(
            finished.artifact_sha256, finished.artifact, member.terms, 4, 4, 0
        )
        try:
            member._judge(proved)
            signed += 1
        except ModelWorse:
            refused += 1
    assert refused > 0
    assert signed == 0
    consortium.close()
