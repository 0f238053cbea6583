"""Three accountants over 200 random releases: `python -m benchmarks.accountants`

The tests hold RDP and PLD to this over 200 releases and PRV over a few, since PRV takes a good part
of a second each. Here PRV (Opacus) runs over all of them. The exit code is 1 where a bound fails.
"""

from __future__ import annotations

import logging
import sys
from time import process_time

import numpy as np

from fedtrade.privacy.accounting import ORDERS, Spend, epsilon, epsilon_prv, epsilon_rdp

RELEASES, SEED, DELTA = 200, 20, 1e-6
LOWEST, HIGHEST = (1e-3, 0.7, 1.0), (0.25, 8.0, 1000.0)
"""q, z and rounds, each drawn evenly over its orders of magnitude."""


def opacus_rdp(spent: Spend) -> float:
    """ε by Opacus' own Rényi divergences at our orders."""
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = np.array(ORDERS)
    divergences = compute_rdp(
        q=spent.sampling_rate,
        noise_multiplier=spent.noise_multiplier,
        steps=spent.rounds,
        orders=ORDERS,
    )
    return float(
        (divergences + np.log1p(-1 / orders) - np.log(DELTA * orders) / (orders - 1)).min()
    )


def main() -> int:
    """Print the largest differences; 0 if all are within their bounds."""
    logging.getLogger("opacus").setLevel(logging.ERROR)
    draw = np.random.default_rng(SEED)
    rdp, prv, above, seconds = 0.0, 0.0, 0, 0.0
    for q, z, rounds in np.exp(draw.uniform(np.log(LOWEST), np.log(HIGHEST), (RELEASES, 3))):
        spent = Spend(float(q), float(z), int(rounds))
        begin = process_time()
        ours = epsilon([spent], DELTA)
        seconds += process_time() - begin
        rdp = max(rdp, abs(epsilon_rdp([spent], DELTA) / opacus_rdp(spent) - 1))
        prv = max(prv, abs(epsilon_prv([spent], DELTA) - ours.pld))
        above += ours.pld > ours.rdp
    print(f"{RELEASES} releases at δ = {DELTA:g}: q, z, rounds from {LOWEST} to {HIGHEST}")
    print(f"RDP beside Opacus' RDP: at most {rdp:.1e} of ε away (bound 1e-4)")
    print(f"PLD beside Opacus' PRV: at most {prv:.4f} away (bound 0.02; PRV itself adds 0.01)")
    print(f"PLD above RDP: {above} times (bound 0)")
    print(f"ε by RDP and PLD, nothing cached: {1e3 * seconds / RELEASES:.0f} ms a call (CPU time)")
    return int(rdp > 1e-4 or prv > 0.02 or above > 0)


if __name__ == "__main__":
    sys.exit(main())
