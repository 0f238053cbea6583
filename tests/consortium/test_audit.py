"""The one-run audit through the real rounds: it passes what is right and catches what is not."""

import numpy as np
import pytest

from clients.helper import Helper
from consortium import audit
from fedtrade.artifact import load, sha256_of
from fedtrade.errors import BadInput
from fedtrade.learning.network import clipped_gradient_sum

DELTA = 1e-6
FEW = 400


@pytest.fixture
def draw():
    return np.random.default_rng(11)


def test_a_canary_weighs_the_clipping_norm_and_nearly_all_of_it_is_its_own(draw):
    base, batch = audit.canary_base(draw, FEW), audit.canary_batch(draw, FEW)
    model = load(base, sha256_of(base))
    whole, _ = clipped_gradient_sum(model.arrays, batch, 1.0)
    columns = audit.own_coordinates(model, whole)
    for i in (0, 17, FEW - 1):
        alone, _ = clipped_gradient_sum(model.arrays, batch.take(np.array([i])), 1.0)
        own = audit.own_coordinates(model, alone)
        assert np.linalg.norm(alone) == pytest.approx(1.0)
        assert np.linalg.norm(own) > 0.95
        assert own[:, i] == pytest.approx(columns[:, i], abs=1e-6)
        assert not np.delete(own, i, axis=1).any()


def test_right_noise_passes_and_its_sums_hold_what_was_put_in(draw):
    row = audit.one_run("right", 2.0, 2.0, DELTA, draw, rounds=6)
    assert (row.verdict, row.fault, row.rounds, row.canaries) == ("PASS", False, 6, audit.CANARIES)
    assert row.right > 0.6 * row.guesses  # it does see the canaries, through the noise


def test_half_the_noise_is_caught(draw):
    """A signal of 2 deviations where 1 is claimed: missed once in more than 1,000 runs."""
    row = audit.one_run("half", 2.0, 1.0, DELTA, draw, rounds=6)
    assert row.verdict == "FAIL"
    assert row.fault


def test_a_helper_that_forgets_its_noise_is_caught(draw, monkeypatch):
    """All helpers: with one honest helper the noise of the others is not needed for ε."""
    noise = Helper._noise
    monkeypatch.setattr(Helper, "_noise", lambda self, *a: 0 * noise(self, *a))
    row = audit.one_run("none", 10.0, 10.0, DELTA, draw, rounds=2, canaries=FEW)
    assert row.right == row.guesses
    assert row.verdict == "FAIL"


def test_rounds_are_chosen_so_that_canaries_stand_out():
    assert audit.audit_rounds(1.0) == 1
    assert 90 <= audit.audit_rounds(10.0) <= 110
    assert audit.audit_rounds(30.0) == audit.ROUNDS_MAX


def test_noise_that_cannot_be_halved_is_refused(tmp_path):
    with pytest.raises(BadInput, match="halved"):
        audit.run_audit(tmp_path, audit.audit_parameters(0.6, DELTA))
    with pytest.raises(BadInput, match="less than or equal"):
        audit.main(["--out", str(tmp_path), "--delta", "0.1"])
