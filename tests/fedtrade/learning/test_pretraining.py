"""A base fitted on public candles: better than HAR after it, blind to private features, repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from fedtrade.errors import BadInput
from fedtrade.learning import pretraining
from fedtrade.learning.baseline import fixed_arrays, initial_arrays
from fedtrade.learning.evaluation import qlike, r_squared
from fedtrade.learning.features import (
    CONTEXT,
    FEATURES,
    PRIVATE_FEATURES,
    PUBLIC_FEATURES,
    neutral_rows,
)
from fedtrade.learning.perceptron import log_to_mean, predict
from fedtrade.learning.pretraining import pretrain
from fedtrade.learning.tables import TRAIN_UNTIL_S, candles, markets
from fedtrade.learning.windows import DAY_S, market_table

HIDDEN = (16, 8)


@pytest.fixture(scope="module")
def tables():
    return [market_table(candles(*market), TRAIN_UNTIL_S + 60 * DAY_S) for market in markets()]


@pytest.fixture(scope="module")
def fitted(tables):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "TEACHERS", 2)
        patch.setattr(pretraining, "TEACHER_ROUNDS", 150)
        patch.setattr(pretraining, "STUDENT_ROUNDS", 150)
        seen = []
        before = [t.take(t.end_s < TRAIN_UNTIL_S) for t in tables]
        arrays = pretrain(before, HIDDEN, 3, lambda what, done, of: seen.append((done, of)))
        again = pretrain(before, HIDDEN, 3)
    assert seen[-1] == (4, 4)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    return before, arrays


def test_beats_har_on_later_hours_in_both_senses(tables, fitted):
    before, arrays = fitted
    late = [t.take(t.end_s >= TRAIN_UNTIL_S) for t in tables]
    rows = neutral_rows(np.concatenate([t.features for t in late]))
    target = np.concatenate([t.targets for t in late])[:, 0]
    har = {**arrays, "head.weight": 0 * arrays["head.weight"], "head.bias": 0 * arrays["head.bias"]}
    shift = log_to_mean(arrays, rows)[:, 0]
    alone = float(fixed_arrays(before)["fixed.log_to_mean"][0])
    ours, theirs = predict(arrays, rows)[:, 0], predict(har, rows)[:, 0]
    assert r_squared(target, ours) > r_squared(target, theirs) + 0.02
    assert qlike(target, ours + shift).mean() < qlike(target, theirs + alone).mean() - 0.01


def test_private_features_move_nothing_before_a_private_round(fitted):
    _, arrays = fitted
    row = neutral_rows(np.zeros((1, len(PUBLIC_FEATURES))))
    moved = row.copy()
    moved[:, -len(PRIVATE_FEATURES) :] += 1.0
    assert np.array_equal(predict(arrays, row), predict(arrays, moved))
    assert arrays["dense0.weight"].shape == (HIDDEN[0], len(FEATURES))


def test_what_is_outside_the_bars_is_hidden_on_every_third_day(tables, monkeypatch):
    seen = []

    def stop(tables_rows, *rest):
        seen.append(tables_rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "neutral_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tables, HIDDEN, 3)
    end_s = np.concatenate([t.end_s for t in tables])
    thin = end_s // DAY_S % 3 == 0
    assert (seen[0][thin, CONTEXT] == 0).all()
    assert (seen[0][~thin, CONTEXT] != 0).any()
    assert (np.concatenate([t.features for t in tables])[thin, CONTEXT] != 0).any()  # untouched


def test_smearing_finds_how_errors_depend_on_the_inputs():
    draw = np.random.default_rng(0)
    design = np.concatenate([np.ones((200_000, 1)), draw.standard_normal((200_000, 2))], axis=1)
    ratio = np.exp(design @ [0.3, 0.2, -0.1]) * draw.gamma(0.5, 2.0, 200_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "SMEARING_RIDGE", 1e-6)
        assert pretraining._gamma(design, ratio) == pytest.approx([0.3, 0.2, -0.1], abs=0.02)


def test_smearing_of_no_inputs_is_duans():
    ratio = np.exp(np.random.default_rng(1).standard_normal(10_000))
    found = pretraining._gamma(np.ones((10_000, 1)), ratio)
    assert found == pytest.approx([np.log(ratio.mean())])


def test_too_few_hours_are_refused(tables):
    few = tables[0].take(np.arange(len(tables[0].end_s)) < 100)
    with pytest.raises(BadInput, match="100 hours"):
        pretrain([few], HIDDEN, 0)


def test_begins_at_har(tables):
    """A head of 0 is HAR, which is what the targets of a fit are measured from."""
    from fedtrade.artifact import NetworkShape

    start = initial_arrays(
        NetworkShape(inputs=len(FEATURES), hidden=HIDDEN, outputs=2), 0, fixed_arrays(tables)
    )
    rows = neutral_rows(tables[0].features[:5])
    z = (rows - start["fixed.feature_mean"]) / start["fixed.feature_scale"]
    har = start["fixed.baseline_bias"] + z.clip(-6, 6) @ start["fixed.baseline_weight"].T
    assert predict(start, rows) == pytest.approx(har)
