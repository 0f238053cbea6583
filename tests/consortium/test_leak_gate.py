"""A release passes the leak gate before it is published; one that has seen the future does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from consortium import learn
from fedtrade.learning import baseline, evaluation
from fedtrade.learning.features import PUBLIC_FEATURES, neutral_rows
from fedtrade.learning.leaks import LeakFound

BASE = baseline.base_artifact((4,), seed=1)


def test_an_honest_release_passes() -> None:
    learn.pass_leak_gate(BASE)


def test_a_feature_that_peeks_keeps_a_release_from_being_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = evaluation.sample

    def peeking(from_s: int, until_s: int) -> evaluation.Sample:
        sample = honest(from_s, until_s)
        public = sample.public.copy()
        public[:, PUBLIC_FEATURES.index("return_1h")] = sample.targets[:, 0]
        return dataclasses.replace(sample, public=public, rows=neutral_rows(public))

    monkeypatch.setattr(evaluation, "sample", peeking)
    with pytest.raises(LeakFound, match="return_1h"):
        learn.pass_leak_gate(BASE)


def test_the_gate_looks_at_enough_of_every_market_and_at_nothing_after_the_cut() -> None:
    judged = evaluation.sample(learn.TRAIN_UNTIL_S - learn.GATE_S, learn.TRAIN_UNTIL_S)
    assert judged.end_s.max() < learn.TRAIN_UNTIL_S
    rows = {market: judged.market.count(market) for market in set(judged.market)}
    assert sum(count > 1_000 for count in rows.values()) >= 5
    assert np.isfinite(judged.public).all()
