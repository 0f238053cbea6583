"""The claim of the demonstration: many members with noise forecast better than one without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.positions import PrivatePositions
from fedtrade.artifact import flatten, load, sha256_of
from fedtrade.learning.baseline import base_artifact
from fedtrade.learning.evaluation import diebold_mariano, evaluate, sample
from fedtrade.learning.network import predict
from fedtrade.learning.optimiser import Adam
from fedtrade.learning.tables import TRAIN_UNTIL_S, candles
from fedtrade.learning.training import (
    DEFAULTS,
    DEMO_HIDDEN,
    DEMO_SEED,
    FEDERATED_NOISE_MULTIPLIER,
    TrainingSettings,
    each_round,
    join,
    train,
    train_pooled,
    train_solo,
)
from fedtrade.learning.windows import PositionBatch
from fedtrade.simulation.positions import CONSORTIUM, simulate_positions

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def members() -> list[PositionBatch]:
    batches = []
    for member in CONSORTIUM:
        tables = {(member.venue, s): candles(member.venue, s) for s in member.symbols}
        positions = simulate_positions(member, tables, DEMO_SEED)
        batches.append(PrivatePositions.of(positions, tables, TRAIN_UNTIL_S).everything())
    return batches


def test_federated_beats_solo_and_har(members: list[PositionBatch]) -> None:
    """At ε ≤ 4 (see `training`), on every market and hour after the training cut."""
    judged = sample()
    data = base_artifact(DEMO_HIDDEN, DEMO_SEED)
    start = load(data, sha256_of(data)).arrays
    shift = float(start["fixed.log_to_mean"][0])
    noisy = replace(DEFAULTS, noise_multiplier=FEDERATED_NOISE_MULTIPLIER)
    federated = evaluate(
        predict(train_pooled(start, members, 1, noisy), judged.rows), shift, judged
    )
    har = evaluate(predict(start, judged.rows), shift, judged)
    alone = [
        evaluate(predict(train_solo(start, m, 1), judged.rows), shift, judged) for m in members
    ]
    mean_alone = np.mean([s.losses for s in alone], axis=0)
    assert federated.qlike < np.mean([s.qlike for s in alone]) - 0.005
    assert sum(federated.qlike < s.qlike for s in alone) >= 7
    assert federated.qlike < har.qlike - 0.01
    assert federated.r2 > har.r2
    assert diebold_mariano(federated.losses, mean_alone, judged.end_s)[1] < 0.05
    assert diebold_mariano(federated.losses, har.losses, judged.end_s)[1] < 0.05


def test_training_learns_and_repeats(members: list[PositionBatch]) -> None:
    data = base_artifact((4,), 0)
    start = load(data, sha256_of(data)).arrays
    few = TrainingSettings(rounds=15, optimiser=Adam(learning_rate=1e-2))
    first = train_solo(start, members[0], 5, few)
    again = train_solo(start, members[0], 5, few)
    other = train_solo(start, members[0], 6, few)
    assert flatten(first).tobytes() == flatten(again).tobytes()
    assert not np.array_equal(flatten(first), flatten(other))
    rows = members[0].features.reshape(-1, members[0].features.shape[-1])
    used = members[0].weights.ravel() > 0
    target = members[0].targets.reshape(-1, 2)[used]
    errors = [np.abs(target - predict(a, rows[used])).mean() for a in (start, first)]
    assert errors[1] < errors[0]
    assert all(np.array_equal(first[n], start[n]) for n in start if n.startswith("fixed."))


def test_noise_is_added_only_where_asked(members: list[PositionBatch]) -> None:
    data = base_artifact((4,), 0)
    start = load(data, sha256_of(data)).arrays
    one = TrainingSettings(rounds=1)
    quiet = flatten(train_solo(start, members[0], 5, one))
    loud = flatten(train_solo(start, members[0], 5, replace(one, noise_multiplier=2.0)))
    assert not np.array_equal(quiet, loud)


def test_stopping_early_is_training_for_fewer_rounds(members: list[PositionBatch]) -> None:
    """Also in float32, but for what that rounds."""
    data = base_artifact((4,), 0)
    start = load(data, sha256_of(data)).arrays
    settings = TrainingSettings(rounds=6, noise_multiplier=1.0, optimiser=Adam(learning_rate=1e-2))

    def coins() -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(9))

    steps = [flatten(a) for a in each_round(start, members[0], settings, coins())]
    short = flatten(train(start, members[0], replace(settings, rounds=4), coins()))
    assert len(steps) == 6
    assert np.array_equal(steps[3], short)
    assert not np.array_equal(steps[2], short)
    quick = flatten(train(start, members[0], settings, coins(), torch.float32))
    assert 0 < np.abs(quick - steps[5]).max() < 1e-4


def test_join_keeps_every_position(members: list[PositionBatch]) -> None:
    assert join(members[:2]).count == members[0].count + members[1].count
