"""ε by two accountants, against each other, against Opacus and against a lower bound."""

import builtins
import math

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp

from fedtrade.errors import Unavailable
from fedtrade.privacy import accounting
from fedtrade.privacy.accounting import (
    ADJACENCY,
    ORDERS,
    UNIT,
    Overspent,
    Spend,
    affordable_rounds,
    epsilon,
    epsilon_prv,
    epsilon_rdp,
    least_noise,
)

DELTA = 1e-6


def random_spends(seed, count):
    """(q, z, rounds), each spread evenly over its orders of magnitude."""
    rng = np.random.default_rng(seed)
    lowest, highest = np.log((1e-3, 0.7, 1.0)), np.log((0.25, 8.0, 1000.0))
    for _ in range(count):
        q, z, rounds = np.exp(rng.uniform(lowest, highest))
        yield Spend(float(q), float(z), int(rounds))


@pytest.mark.parametrize("seed", range(8))
def test_rdp_equals_opacus_and_bounds_pld(seed):
    for spent in random_spends(seed, 25):
        theirs = compute_rdp(
            q=spent.sampling_rate,
            noise_multiplier=spent.noise_multiplier,
            steps=spent.rounds,
            orders=ORDERS,
        )
        assert accounting._divergences([spent]) == pytest.approx(theirs, rel=1e-4, abs=1e-12)
        ours = epsilon([spent], DELTA)
        assert 0 < ours.pld <= ours.rdp
        from_theirs = np.add(
            theirs, [math.log1p(-1 / a) - math.log(DELTA * a) / (a - 1) for a in ORDERS]
        ).min()
        assert ours.rdp == pytest.approx(max(0.0, from_theirs), rel=1e-4)


def test_the_whole_accountant_equals_opacus():
    theirs = RDPAccountant()
    theirs.history = [(1.0, 0.05, 120), (1.3, 0.1, 30)]
    spent = [Spend(0.05, 1.0, 120), Spend(0.1, 1.3, 30)]
    opacus = theirs.get_epsilon(DELTA, alphas=list(ORDERS))
    assert epsilon_rdp(spent, DELTA) == pytest.approx(opacus, rel=1e-6)


@pytest.mark.parametrize("seed", range(100, 104))
def test_pld_is_prv_and_never_below_a_lower_bound(seed):
    for spent in random_spends(seed, 6):
        pld = epsilon([spent], DELTA).pld
        assert abs(epsilon_prv([spent], DELTA) - pld) <= 0.02
        optimistic = from_gaussian_mechanism(
            spent.noise_multiplier,
            sampling_prob=spent.sampling_rate,
            value_discretization_interval=accounting._pld_interval([spent]),
            pessimistic_estimate=False,
            use_connect_dots=False,
        ).self_compose(spent.rounds)
        assert pld >= optimistic.get_epsilon_for_delta(DELTA)


def test_without_sampling_pld_is_the_gaussian_itself():
    """δ(ε) of a Gaussian in closed form (Balle and Wang 2018); T rounds are one at z/√T."""
    z, rounds = 4.0, 9
    found = epsilon([Spend(1.0, z, rounds)], DELTA).pld

    def delta(eps):
        mu = math.sqrt(rounds) / z
        below, above = (
            0.5 * math.erfc(x / math.sqrt(2)) for x in (eps / mu - mu / 2, eps / mu + mu / 2)
        )
        return below - math.exp(eps) * above

    assert delta(found) <= DELTA < delta(found - 0.001)


def test_spends_of_different_kinds_compose_in_any_order():
    first, second = Spend(0.05, 1.0, 30), Spend(0.002, 4.0, 500)
    both = epsilon([first, second], DELTA)
    assert both.pld == pytest.approx(epsilon([second, first], DELTA).pld, abs=1e-9)
    for one in (first, second):
        alone = epsilon([one], DELTA)
        assert both.pld > alone.pld
        assert both.rdp > alone.rdp
    assert both.pld == pytest.approx(epsilon_prv([first, second], DELTA), abs=0.02)
    assert both.pld <= both.rdp


def test_prv_says_what_is_missing_where_opacus_is_not_installed(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("opacus"):
            raise ImportError(f"No module named {name}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(Unavailable, match=r"fedtrade\[research\]"):
        epsilon_prv([Spend(0.05, 1.0, 1)], DELTA)


def test_spends_compose_and_nothing_costs_nothing():
    nothing = epsilon((), 1e-6)
    assert nothing.rdp == nothing.pld == epsilon_prv((), 1e-6) == 0.0
    one = Spend(0.05, 1.0, 30)
    assert epsilon_rdp([one, one], 1e-6) == pytest.approx(epsilon_rdp([Spend(0.05, 1.0, 60)], 1e-6))
    assert epsilon_rdp([one, Spend(0.05, 2.0, 1)], 1e-6) > epsilon_rdp([one], 1e-6)


def test_affordable_rounds_is_the_last_within_the_limit():
    n = affordable_rounds((), 0.05, 1.0, 1e-6, 3.0, rounds_max=256)
    assert epsilon_rdp([Spend(0.05, 1.0, n)], 1e-6) <= 3.0
    assert epsilon_rdp([Spend(0.05, 1.0, n + 1)], 1e-6) > 3.0
    assert affordable_rounds((Spend(0.05, 1.0, n),), 0.05, 1.0, 1e-6, 3.0, rounds_max=8) == 0


def test_least_noise_is_the_least_to_a_thousandth():
    z = least_noise(0.05, 100, 1e-6, 4.0)
    assert epsilon_rdp([Spend(0.05, z, 100)], 1e-6) <= 4.0
    assert epsilon_rdp([Spend(0.05, z - 1e-3, 100)], 1e-6) > 4.0
    with pytest.raises(Overspent):
        least_noise(0.25, 10_000, 1e-6, 0.01)


def test_epsilon_is_never_printed_without_unit_and_adjacency():
    text = str(epsilon([Spend(0.05, 1.0, 1)], 1e-6))
    assert UNIT in text
    assert ADJACENCY in text
    assert "1e-06" in text


def test_epsilon_of_divergences_is_dp_accountings():
    from dp_accounting.rdp import compute_epsilon

    from fedtrade.privacy import accounting

    rng = np.random.default_rng(0)
    for _ in range(300):
        scale = rng.choice([1e-9, 1e-6, 1e-3, 0.1, 3.0])
        divergences = np.sort(rng.exponential(scale, len(accounting.ORDERS)))
        for delta in (1e-5, 1e-6, 1e-9):
            theirs = compute_epsilon(accounting.ORDERS, divergences, delta)[0]
            ours = accounting._from_divergences(divergences, delta)
            assert abs(ours - theirs) <= 1e-13 * max(1.0, theirs)
