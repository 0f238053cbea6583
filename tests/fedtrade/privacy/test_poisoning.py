"""Threat R9, poisoned updates: what the norm bound, random buckets and a trimmed mean hold off.

Forty members learn a logistic model from their own (simulated, seeded) positions by DP-FedSGD with
the committee's noise. f of them attack in every round, and know everything: the honest updates, the
bound and the rule. What would fail the norm check they shorten to the bound, but for one attack that
does not. The *control* is the plain mean of all updates, without a bound, of the same attackers who
then need not shorten.

By `fedtrade.privacy.robust`, 13 buckets of at least 3 members with 6 cut off at each end stand 6
spoiled buckets, which 6 bad members (0.15) can never pass. That is the stated breakdown: up to it every
attack costs at most 2 points of accuracy, beyond it nothing is promised. Points lost, mean of three
seeds:

    f of 40             both guards                bound alone     buckets alone   neither
                          4    6    8   12   16      4     8         4     8         4     8    16
    sign flip           0.2  0.3  0.4  1.4  3.7    0.0   0.6       0.2   0.4       0.0   0.6   7.0
    sign flip at bound  0.3  0.6  0.6  0.9 13.0    0.2   0.5       0.9  61.0      61.4  60.9  60.8
    scale by 1e6        0.1  0.0  0.1  0.2  0.5   -0.1   0.0       0.1  55.8      59.4  60.5  62.2
    a little is enough  0.5  0.7  1.3  2.9  4.6    0.4   1.2       0.5   1.4       0.4   1.3   4.2
    label flip          0.2  0.4  0.8  1.7  3.4    0.0   0.8       0.1   0.9       0.1   0.9   6.9
    backdoor            0.2  0.6  1.7  6.7 14.1    0.3   2.1       0.5  34.3      33.8  34.0  34.3

The bound does most of the work. What the buckets add is a second wall: they hold where the bound does
not (it is not checked, or a bad helper passes a bad member), up to the breakdown. Attacks that stay
small (plain sign flip, label flip, "a little is enough") neither guard sees; they need over a fifth
of the members to do harm, against the plain mean as well. A backdoor is not kept out: four attackers
raise the share of 0s that the mark turns to 1 by 11 points (27 under the bound alone), six by 25,
eight by 60.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from fedtrade.parameters import SCALE
from fedtrade.privacy import mechanism, norm, robust

MEMBERS, POSITIONS, FEATURES, ROUNDS = 40, 160, 12, 40
DIMENSION = FEATURES + 1
RATE, NOISE_MULTIPLIER, LEARNING_RATE = 0.25, 1.0, 1.0
BATCH = RATE * POSITIONS
PLAN = norm.Plan(DIMENSION, 10 * SCALE)
BUCKET_MIN, TRIM = 3, 6
TRIGGER = slice(0, 2)
"""A backdoor's mark: these two features at 3 deviations. They say nothing about the label."""


@dataclass(frozen=True)
class Data:
    """Positions of all members: features (members, positions, 13) with a 1 at the end; labels."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


@cache
def draw_data(seed):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(DIMENSION)
    truth[TRIGGER] = 0.0
    truth *= 2.5 / np.linalg.norm(truth)

    def draw(shape, shift):
        x = rng.standard_normal((*shape, DIMENSION)) + shift
        x[..., -1] = 1.0
        return x, (rng.random(shape) < 1 / (1 + np.exp(-x @ truth))).astype(float)

    own = 0.3 * rng.standard_normal((MEMBERS, 1, DIMENSION))  # members see different markets
    return Data(*draw((MEMBERS, POSITIONS), own), *draw((4000,), 0.0))


def gradient_sums(x, y, model, weights=1.0):
    """Each member's sum of gradients clipped to norm 1. Shape (members, positions, d) -> (., d)."""
    errors = 1 / (1 + np.exp(np.clip(-x @ model, -30, 30))) - y
    lengths = np.abs(errors) * np.linalg.norm(x, axis=-1)
    return np.einsum("mp,mpd->md", weights * errors / np.maximum(lengths, 1.0), x)


def within_bound(vectors):
    """What a member sends of each row, in clip units."""
    return np.stack([norm.onto_ball(v * SCALE, PLAN) / SCALE for v in vectors])


def attack(name, data, sums, bad, model, bounded):
    """What the bad members send, in clip units. Shape (f, d). `sums`: everybody's honest updates."""
    honest = np.delete(sums, bad, axis=0)
    mean, spread = honest.mean(axis=0), honest.std(axis=0)
    if name == "scale by 1e6":
        return -1e6 * sums[bad]
    if name == "sign flip":
        sent = -sums[bad]
    elif name == "sign flip at bound":
        sent = np.tile(-1e3 * mean, (len(bad), 1))
    elif name == "a little is enough":  # Baruch et al. 2019: inside the spread of the honest
        sent = np.tile(mean - 1.5 * spread, (len(bad), 1))
    elif name == "label flip":
        sent = RATE * gradient_sums(data.x[bad], 1 - data.y[bad], model)
    else:
        assert name == "backdoor"
        marked = data.x[bad].copy()
        marked[..., TRIGGER] = 3.0
        sent = 1e3 * gradient_sums(marked, np.ones(marked.shape[:2]), model)
    return within_bound(sent) if bounded else sent


ATTACKS = (
    "sign flip",
    "sign flip at bound",
    "scale by 1e6",
    "a little is enough",
    "label flip",
    "backdoor",
)


def noise(rng, sums=1):
    """The committee's noise on so many sums, in ring units. Shape (sums, d)."""
    drawn = mechanism.noise(rng.bytes(32), (NOISE_MULTIPLIER * SCALE) ** 2, sums * DIMENSION)
    return drawn.astype(np.uint32).view(np.int32).reshape(sums, DIMENSION)


def buckets_alone(sent, rng):
    """The trimmed mean over buckets, in clip units a position."""
    units = np.rint(sent * SCALE)
    groups = robust.buckets(range(len(sent)), BUCKET_MIN, rng.bytes(32))
    trim = min(TRIM, (len(groups) - 1) // 2)
    totals = np.stack([units[list(g)].sum(axis=0) for g in groups]) + noise(rng, len(groups))
    batches = SCALE * BATCH * np.array([len(g) for g in groups])
    return robust.trimmed_mean(totals / batches[:, None], trim)


def passed(sent):
    """The updates that the norm check lets in."""
    return sent[(np.rint(sent * SCALE) ** 2).sum(axis=1) <= PLAN.bound**2]


def bound_alone(sent, rng):
    return undefended(passed(sent), rng)


def defended(sent, rng):
    return buckets_alone(passed(sent), rng)


def undefended(sent, rng):
    return (sent.sum(axis=0) + noise(rng)[0] / SCALE) / (BATCH * len(sent))


def train(name, bad_members, aggregate, seed=0):
    """Accuracy in points on clean test positions, and how often the mark makes a 0 a 1."""
    data, rng = draw_data(seed), np.random.default_rng([seed, bad_members])
    bad = np.arange(bad_members)
    model = np.zeros(DIMENSION)
    for _ in range(ROUNDS):
        include = rng.random((MEMBERS, POSITIONS)) < RATE
        sums = gradient_sums(data.x, data.y, model, include)
        sent = within_bound(sums)
        if bad_members:
            sent[bad] = attack(
                name, data, sums, bad, model, bounded=aggregate in (defended, bound_alone)
            )
        model = model - LEARNING_RATE * aggregate(sent, rng)
    accuracy = 100 * float(((data.test_x @ model > 0) == data.test_y).mean())
    marked = data.test_x[data.test_y == 0].copy()
    marked[:, TRIGGER] = 3.0
    return accuracy, 100 * float((marked @ model > 0).mean())


BREAKDOWN = TRIM
"""Up to so many bad members of 40 (0.15) every attack costs at most 2 points: what is stated."""
HOLDS = {
    4: ATTACKS,
    8: ("sign flip", "sign flip at bound", "scale by 1e6", "label flip"),
    12: ("sign flip at bound", "scale by 1e6"),
    16: ("scale by 1e6",),
}
FAILS = {
    12: ("a little is enough", "backdoor"),
    16: ("sign flip at bound", "a little is enough", "backdoor"),
}


@cache
def clean(seed=0):
    return train("", 0, undefended, seed)


def lost(name, bad_members, aggregate, seed=0):
    return clean(seed)[0] - train(name, bad_members, aggregate, seed)[0]


def test_without_attackers_the_defence_costs_little():
    assert clean()[0] > 75
    assert abs(lost("", 0, defended)) < 1


@pytest.mark.parametrize(("bad", "name"), [(f, a) for f, names in HOLDS.items() for a in names])
def test_attacks_that_cost_at_most_two_points(bad, name):
    assert lost(name, bad, defended) <= 2


@pytest.mark.parametrize("name", ATTACKS)
def test_up_to_the_stated_breakdown_no_attack_costs_more_than_two_points(name):
    assert max(lost(name, BREAKDOWN, defended, seed) for seed in range(3)) <= 2


@pytest.mark.parametrize("name", ATTACKS)
def test_control_every_attack_breaks_the_plain_mean_where_it_has_enough_members(name):
    """Small ones need more: at 0.1 plain sign flips and flipped labels do not even break that."""
    assert lost(name, 16, undefended) > 4


@pytest.mark.parametrize(("bad", "name"), [(f, a) for f, names in FAILS.items() for a in names])
def test_attacks_beyond_the_breakdown_point_that_do_not_hold(bad, name):
    assert lost(name, bad, defended) > 2


@pytest.mark.parametrize("guard", [bound_alone, buckets_alone])
@pytest.mark.parametrize("name", ATTACKS)
def test_up_to_the_breakdown_point_either_guard_holds_where_the_other_is_gone(name, guard):
    assert lost(name, 4, guard) <= 2


@pytest.mark.parametrize("name", ["sign flip at bound", "scale by 1e6", "backdoor"])
def test_control_beyond_it_the_buckets_alone_break(name):
    assert lost(name, 8, buckets_alone) > 10


@pytest.mark.parametrize("name", ["sign flip at bound", "scale by 1e6", "backdoor"])
def test_control_the_plain_mean_breaks_under_four_attackers(name):
    accuracy, marked = train(name, 4, undefended)
    assert clean()[0] - accuracy > 10
    assert lost(name, 4, defended) <= 2
    assert name != "backdoor" or marked > 80


def test_a_backdoor_gets_through_where_accuracy_shows_little():
    """Said plainly, as it is what the defence does not do."""
    few, many = train("backdoor", 4, defended)[1], train("backdoor", 8, defended)[1]
    assert few - clean()[1] < 40
    assert many - clean()[1] > 40


def test_up_to_the_breakdown_no_more_buckets_are_spoiled_than_are_cut_off():
    rng = np.random.default_rng(0)
    for _ in range(300):
        groups = robust.buckets(range(MEMBERS), BUCKET_MIN, rng.bytes(32))
        assert len(groups) >= 2 * TRIM + 1
        spoiled = sum(min(g) < BREAKDOWN for g in groups)  # the bad come first, and groups ascend
        assert spoiled <= TRIM


def test_the_bound_that_is_assumed_here_is_the_one_that_can_be_proved():
    """Each vector that counts as within the bound has a proof; one of the others has none."""
    data = draw_data(0)
    sums = gradient_sums(data.x, data.y, np.zeros(DIMENSION), 0.25)
    binding = norm.Binding(b"c" * 32, tuple(bytes([i]) * 32 for i in range(3)))
    masks = np.zeros(PLAN.length, np.uint64)
    for name in ATTACKS:
        for vector in attack(name, data, sums, np.arange(4), np.zeros(DIMENSION), bounded=True):
            units = np.rint(vector * SCALE).astype(np.int64)
            if name == "scale by 1e6":
                with pytest.raises(norm.NormTooLarge):
                    norm.prove(units, PLAN, masks, binding)
            else:
                norm.prove(units, PLAN, masks, binding)
