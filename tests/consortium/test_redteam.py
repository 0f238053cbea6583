"""The red team's exercise on simulated books: small, but all of it."""

import numpy as np
import pytest
import torch

from consortium import redteam
from consortium.audit import audit_parameters
from fedtrade.learning.inversion import Effort


@pytest.fixture(scope="module")
def rows():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield redteam.attack(
        audit_parameters(1.75, 1e-6),
        np.random.default_rng(4),
        scenes=6,
        positions=(1, 4),
        effort=Effort(steps=40, starts=1),
    )[0]
    torch.set_num_threads(before)


def of(rows, observed, attack, positions):
    (row,) = (
        r for r in rows if (r.observed, r.attack, r.positions) == (observed, attack, positions)
    )
    return row


def test_all_attacks_run_on_all_observations(rows):
    assert len(rows) == 5 * (3 + 2)
    assert {r.scenes for r in rows} == {6}
    assert all(r.error_low <= r.error <= r.error_high for r in rows)


@pytest.mark.parametrize("observed", ["alone", "fixed point"])
@pytest.mark.parametrize("positions", [1, 4])
def test_without_the_protocol_positions_are_read_back(rows, observed, positions):
    row = of(rows, observed, "public data", positions)
    assert row.better
    assert row.error < 0.1
    assert row.recovered > 0.9


@pytest.mark.parametrize("observed", ["cohort", "noise", "cohort, noise"])
def test_with_it_they_are_not(rows, observed):
    assert not any(r.better for r in rows if r.observed == observed)
    row = of(rows, observed, "public data", 4)
    assert row.error > 0.8 * row.prior_error


def test_a_scene_of_another_update_is_no_knowledge():
    """The control: guesses spread over the population profit from the pairing, and from nothing."""
    spread = redteam.Recovery(np.full(6, 0.9), np.zeros(6))
    nothing = redteam.Recovery(np.full(6, 1.0) + np.linspace(0, 0.01, 6), np.zeros(6))
    row = redteam._row("noise", 8, "matching", spread, nothing, spread, 0.01)
    assert not row.better
    known = redteam.Recovery(np.full(6, 0.1), np.zeros(6))
    assert redteam._row("noise", 8, "matching", known, nothing, spread, 0.01).better
