"""A member's own judgement of a model, on positions that no round has seen, before it signs.

Recomputing a release proves that the model is what the messages give; it does not prove that the
messages were well meant. So every member keeps a tenth of its positions out of all rounds, chosen by
a keyed coin for each position's place in the file, and compares the model with the one that the
release began with on them: the mean, over held-out positions, of the change of the loss, each cut to
±LOSS_CLIP. Whether it signs is seen by others, so the mean gets noise: a Gaussian mechanism of
multiplier NOISE_MULTIPLIER on a sum to which a position adds at most LOSS_CLIP. That is paid from the
ledger, as a spend of the held-out positions; since no position is in both pools, a position costs
the larger of the two and not their sum (parallel composition).

With fewer than JUDGED_MIN held-out positions the noise would decide, so the member does not judge.

Before that, and whatever it holds, it puts the model and the features that it was itself trained on
through the leak gate (`fedtrade.learning.leaks`): on the public candles of all markets that it has,
those where it holds nothing included, so the verdict tells nothing of its positions and costs nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrade.artifact import Artifact
from fedtrade.errors import Refusal
from fedtrade.learning import leaks
from fedtrade.learning.features import neutral_rows
from fedtrade.learning.perceptron import predict
from fedtrade.learning.tables import Candles
from fedtrade.learning.windows import MarketTable, market_table
from fedtrade.parameters import SCALE
from fedtrade.privacy.accounting import Spend
from fedtrade.privacy.mechanism import noise, noise_variance

HELD_OUT: Final = 0.1
LOSS_CLIP: Final = 0.25
NOISE_MULTIPLIER: Final = 4.0
TOLERANCE: Final = 0.1
"""The mean loss may rise by this much: what noise and a bad month may do to an honest model."""
JUDGED_MIN: Final = 30
"""At 30 positions the noise has a deviation of a third of the tolerance."""

COST: Final = Spend(sampling_rate=1.0, noise_multiplier=NOISE_MULTIPLIER, rounds=1)
"""What one judgement costs the held-out positions (before one unit of rounding: 2^-16 of it)."""


class ModelWorse(Refusal):
    """A model that this member's held-out positions speak against."""

    def __init__(self, artifact_sha256: str) -> None:
        super().__init__(
            f"model {artifact_sha256} forecasts this member's held-out positions worse than the one "
            "before it. It is not signed. Ask the others; if they see the same, a member or helper "
            "has poisoned the release: open a new one with the norm check and buckets on"
        )
        self.artifact_sha256 = artifact_sha256


class SeesAhead(Refusal):
    """A model, or features that it was trained on, that know of the hours that it forecasts."""

    def __init__(self, artifact_sha256: str, failed: Sequence[leaks.Finding]) -> None:
        first = failed[0]
        super().__init__(
            f"model {artifact_sha256} or the features under it have seen what they forecast "
            f"({first.check} check of {first.subject}: {first.detail}"
            + (f"; and {len(failed) - 1} more)" if len(failed) > 1 else ")")
            + ". It is not signed. If no other member finds this, look for it in your own candles and "
            "version; else a new release has to begin with features that are mended"
        )
        self.artifact_sha256 = artifact_sha256
        self.failed = tuple(failed)


def pass_leak_gate(candles: Mapping[tuple[str, str], Candles], artifact: Artifact) -> None:
    """Refuse a model that has seen ahead in any market of public `candles`. Raises SeesAhead.

    The features are those of a member's windows. Too few hours to tell pass (`leaks.LEAST_ROWS`).
    """
    findings: list[leaks.Finding] = []
    for (venue, symbol), known in sorted(candles.items()):
        if not len(known.start_s):
            continue
        table = _table(known)
        log_variance = predict(artifact.arrays, neutral_rows(table.features))[:, 0]
        findings += leaks.market(f"{venue}/{symbol}", _rows, known, table, log_variance)
    failed = [finding for finding in findings if not finding.passed]
    if failed:
        raise SeesAhead(artifact.sha256, failed)


def _table(known: Candles) -> MarketTable:
    return market_table(known, int(known.end_s[-1]))


def _rows(known: Candles) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    table = _table(known)
    return table.end_s, table.features


def held_out(count: int, key: bytes) -> NDArray[np.bool_]:
    """Which of `count` positions no round may use. Depends on places in the file alone."""
    threshold = int(HELD_OUT * 2**32)
    return np.array(
        [
            int.from_bytes(hmac.digest(key, place.to_bytes(8, "big"), "sha256")[:4], "big")
            < threshold
            for place in range(count)
        ],
        dtype=np.bool_,
    )


def judge(
    before: NDArray[np.float64], after: NDArray[np.float64], key: bytes, artifact_sha256: str
) -> None:
    """Refuse a model whose losses (P,) on held-out positions have risen. Raises ModelWorse.

    `key`: 32 secret bytes of this artifact; the same key gives the same verdict.
    """
    change = np.nan_to_num(after - before, nan=LOSS_CLIP)
    units = int(np.rint(np.clip(change / LOSS_CLIP, -1.0, 1.0) * SCALE).sum())
    drawn = int(noise(key, noise_variance(NOISE_MULTIPLIER, responders=1, corrupt=0), 1)[0])
    if (units + drawn) * LOSS_CLIP / SCALE > TOLERANCE * len(after):
        raise ModelWorse(artifact_sha256)
