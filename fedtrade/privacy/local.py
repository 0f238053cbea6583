"""Local mode: a member that trusts no committee adds its own noise, step by step.

From the round's model w₀ the member takes K steps of DP-SGD on its own positions (Abadi et al. 2016,
per position), with FedProx's pull μ toward w₀ (Li et al. 2020):

    g_k = (Σ clip(∇) + noise) / (q·n)        w ← w − η·(g_k + μ·(w − w₀))

and sends q·n·(w₀ − w)/η: the sum of the steps in the units of a gradient sum, so that the server's
division by Σ q·n gives the average of the members' differences weighted by their public sizes
(FedAvg; McMahan et al. 2017) and K = 1, μ = 0 is DP-FedSGD with noise by the member.

Each noisy sum is the mechanism that the committee uses: integers of SCALE per clip unit plus exact
discrete noise of variance (z·SCALE)². Everything after it, this module's arithmetic included, is
post-processing. A round so costs K sums of one member's own positions, whatever the others do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedtrade.parameters import SCALE, PrivacyParameters
from fedtrade.privacy import mechanism

Floats = NDArray[np.float64]


def difference(
    start: NDArray[np.float32],
    clipped_sum: Callable[[NDArray[np.float32]], Floats],
    parameters: PrivacyParameters,
    batch_max: int,
    expected_batch: float,
    noise_key: bytes,
) -> Floats:
    """Σ of a member's noisy steps in the units of a gradient sum, shape (d,).

    `clipped_sum(w)` samples positions and adds their clipped gradients at w. `noise_key` is 32
    secret bytes, used for this call only. Raises NotFinite.
    """
    p = parameters
    rate, unit = p.local_learning_rate, p.clip_norm / SCALE
    variance = mechanism.noise_variance(p.noise_multiplier, responders=1, corrupt=0)
    drawn = mechanism.noise(noise_key, variance, p.local_steps * len(start))
    here = start.astype(np.float64)
    for noise in drawn.reshape(p.local_steps, len(start)):
        units = mechanism.quantise(clipped_sum(here.astype(np.float32)), p.clip_norm, batch_max)
        gradient = (units + noise) * unit / expected_batch
        here = here - rate * (gradient + p.proximal * (here - start))
    return (start - here) * (expected_batch / rate)
