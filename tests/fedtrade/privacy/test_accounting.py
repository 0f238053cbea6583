"""ε by two accountants, against each other and against Opacus."""

import pytest
from opacus.accountants import RDPAccountant

from fedtrade.privacy.accounting import (
    ADJACENCY,
    ORDERS,
    UNIT,
    Spend,
    affordable_rounds,
    epsilon,
    epsilon_rdp,
)


@pytest.mark.parametrize(("q", "z", "rounds"), [(0.05, 1.0, 120), (0.02, 0.8, 60), (0.1, 2.0, 100)])
def test_rdp_equals_opacus_and_bounds_pld(q, z, rounds):
    spent = [Spend(q, z, rounds)]
    ours = epsilon(spent, 1e-6)
    theirs = RDPAccountant()
    theirs.history = [(z, q, rounds)]
    opacus = theirs.get_epsilon(1e-6, alphas=list(ORDERS))
    assert ours.rdp == pytest.approx(opacus, rel=1e-6)
    assert ours.pld <= ours.rdp
    assert ours.pld > 0.5 * ours.rdp


def test_spends_compose_and_nothing_costs_nothing():
    assert epsilon((), 1e-6).rdp == 0.0
    one = Spend(0.05, 1.0, 30)
    assert epsilon_rdp([one, one], 1e-6) == pytest.approx(epsilon_rdp([Spend(0.05, 1.0, 60)], 1e-6))
    assert epsilon_rdp([one, Spend(0.05, 2.0, 1)], 1e-6) > epsilon_rdp([one], 1e-6)


def test_affordable_rounds_is_the_last_within_the_limit():
    n = affordable_rounds((), 0.05, 1.0, 1e-6, 3.0, rounds_max=256)
    assert epsilon_rdp([Spend(0.05, 1.0, n)], 1e-6) <= 3.0
    assert epsilon_rdp([Spend(0.05, 1.0, n + 1)], 1e-6) > 3.0
    assert affordable_rounds((Spend(0.05, 1.0, n),), 0.05, 1.0, 1e-6, 3.0, rounds_max=8) == 0


def test_epsilon_is_never_printed_without_unit_and_adjacency():
    text = str(epsilon([Spend(0.05, 1.0, 1)], 1e-6))
    assert UNIT in text
    assert ADJACENCY in text
    assert "1e-06" in text
