"""The red team's exercise: positions read back from updates, with and without the protocol.

Scenes are drawn from simulated books; in each, a member's update holds a few positions of one window,
and the attacker of `fedtrade.learning.inversion` observes it

    alone         the update itself, as a server without secure aggregation would see it
    fixed point   the same after the member's own quantisation
    cohort        the sum of the update and those of the other members
    noise         the update with the committee's noise, all other members being the attacker's
    cohort, noise what the protocol shows

and reads back the private features. Each result stands beside two controls: what the prior alone
reaches, and what the same attack reaches when its rows are compared with those of another scene. The
second is there because rows are paired with the true ones in the best way, which several spread
guesses profit from even if they know nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from fedtrade.artifact import Arrays, NetworkShape, flatten, load, sha256_of
from fedtrade.dashboard.leakage import InversionRow
from fedtrade.learning import inversion
from fedtrade.learning.baseline import base_artifact, initial_arrays
from fedtrade.learning.features import FEATURES, PRIVATE_NEUTRAL, PUBLIC_FEATURES
from fedtrade.learning.inversion import Effort, Prior, Recovery
from fedtrade.learning.network import clipped_gradient_sum
from fedtrade.learning.tables import TRAIN_UNTIL_S, candles
from fedtrade.learning.training import DEMO_HIDDEN, DEMO_SEED, TrainingSettings, join, train
from fedtrade.learning.windows import HEADS, PositionBatch, market_table, position_windows
from fedtrade.parameters import SCALE, PrivacyParameters
from fedtrade.privacy.mechanism import noise, quantise
from fedtrade.simulation.positions import CONSORTIUM, STANDIN, simulate_positions

SCENES = 12
POSITIONS = (1, 4, 8)
"""Positions in the update that is attacked."""
OTHERS = 152
"""Positions of the other members in one round of a small cohort: 8 members with 19 each."""
WARM_ROUNDS = 20
"""Rounds of training before the attack, so that gradients flow through all layers."""
WITNESSES = 400
"""Rows of the attacker's own book from which it learns what others add on average."""
BATCH_MAX = 1_000
CONFIDENCE = 0.95
MARGIN = 0.05
"""A gain below a twentieth of a deviation counts as none."""
PUBLIC = len(PUBLIC_FEATURES)
PRIVATE = tuple(range(PUBLIC, len(FEATURES)))

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """Rows from which scenes are drawn, and the model that is attacked."""

    arrays: Arrays
    rows: NDArray[np.float32]
    targets: NDArray[np.float32]
    z: Floats
    """The rows as the network sees them."""
    prior: Prior
    contexts: Floats
    """Public features of all hours of all markets that the books trade, standardised."""
    mean: Floats
    """Mean clipped gradient of a row."""
    variance: Floats
    """Its variance, per coordinate."""


def model_size() -> int:
    """Parameters of the demonstration's network."""
    shape = NetworkShape(inputs=len(FEATURES), hidden=DEMO_HIDDEN, outputs=len(HEADS))
    return len(flatten(initial_arrays(shape, DEMO_SEED)))


def book(draw: np.random.Generator) -> Book:
    """Simulated books of all members, one window a row, and a model trained on them for a while."""
    batches, contexts = [], []
    for who in CONSORTIUM:
        market = {(who.venue, s): candles(who.venue, s) for s in who.symbols}
        tables = {key: market_table(c, TRAIN_UNTIL_S) for key, c in market.items()}
        positions = simulate_positions(who, market, int(draw.integers(2**31)))
        batches.append(position_windows(positions, tables, TRAIN_UNTIL_S))
        contexts += [table.features for table in tables.values()]
    whole = join(batches)
    base = base_artifact(DEMO_HIDDEN, DEMO_SEED)
    start = load(base, sha256_of(base)).arrays
    arrays = train(start, whole, TrainingSettings(rounds=WARM_ROUNDS), draw)
    rows = whole.features.reshape(-1, len(FEATURES))
    neutral = PRIVATE_NEUTRAL.astype(np.float32)
    shown = (whole.weights.reshape(-1) > 0) & (rows[:, PUBLIC:] != neutral).any(1)
    rows, targets = rows[shown], whole.targets.reshape(-1, len(HEADS))[shown]
    z = inversion.standardise(arrays, rows)
    seen = np.unique(np.concatenate([z[:, :PUBLIC], _contexts(arrays, contexts)]), axis=0)
    witness = draw.choice(len(rows), WITNESSES, replace=False)
    each = np.stack([_gradient(arrays, rows[[i]], targets[[i]]) for i in witness])
    return Book(arrays, rows, targets, z, Prior.of(z), seen, each.mean(0), each.var(0))


def _contexts(arrays: Arrays, tables: Sequence[Floats]) -> Floats:
    """Standardised public features of every hour of every market."""
    public = np.concatenate(tables)
    padded = np.concatenate([public, np.zeros((len(public), len(PRIVATE)))], axis=1)
    return inversion.standardise(arrays, padded.astype(np.float32))[:, :PUBLIC]


def _gradient(
    arrays: Arrays, rows: NDArray[np.float32], targets: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The member's own clipped sum over positions of one window."""
    ones = np.ones((len(rows), 1), np.float32)
    batch = PositionBatch(rows[:, None], targets[:, None], ones)
    return clipped_gradient_sum(arrays, batch, 1.0)[0]


def attack(
    parameters: PrivacyParameters,
    draw: np.random.Generator,
    scenes: int = SCENES,
    positions: Sequence[int] = POSITIONS,
    effort: Effort | None = None,
) -> tuple[list[InversionRow], tuple[str, ...]]:
    """Every attack on every observation, as rows of the report; and the stand-ins used."""
    known = book(draw)
    found: list[tuple[str, int, str, Recovery, Recovery, Recovery]] = []
    for count in positions:
        picks = np.stack([draw.choice(len(known.z), count, replace=False) for _ in range(scenes)])
        truth = known.z[picks]
        nothing = inversion.judge_prior(truth, known.prior, PRIVATE)
        for name, (seen, variance) in _observations(known, picks, parameters, draw).items():
            for way, rows in _attacks(known, seen, variance, count, draw, effort).items():
                result = inversion.judge(rows, truth, known.prior, PRIVATE)
                mixed = _against_others(rows, truth, known.prior)
                found.append((name, count, way, result, nothing, mixed))
    level = (1 - CONFIDENCE) / len(found)
    return [_row(*one, level) for one in found], (STANDIN,)


def _observations(
    known: Book, picks: NDArray[np.intp], parameters: PrivacyParameters, draw: np.random.Generator
) -> Mapping[str, tuple[Floats, Floats]]:
    """What is seen of the updates (S, d), and the variance of what the rows do not explain (d,)."""
    exact = np.stack([_gradient(known.arrays, known.rows[p], known.targets[p]) for p in picks])
    fixed = np.stack([quantise(vector, 1.0, BATCH_MAX) / SCALE for vector in exact])
    others = []
    for _ in picks:
        rest = draw.choice(len(known.z), OTHERS, replace=False)
        total = _gradient(known.arrays, known.rows[rest], known.targets[rest])
        # the attacker takes off what others add on average
        others.append(quantise(total, 1.0, BATCH_MAX) / SCALE - OTHERS * known.mean)
    length, z = exact.shape[1], parameters.noise_multiplier
    drawn = np.stack([noise(draw.bytes(32), (z * SCALE) ** 2, length) / SCALE for _ in picks])
    tiny, unit = np.full(length, 1e-12), np.full(length, SCALE**-2.0)
    crowd, loud = OTHERS * known.variance + unit, np.full(length, z**2)
    return {
        "alone": (exact, tiny),
        "fixed point": (fixed, unit),
        "cohort": (fixed + np.stack(others), crowd),
        "noise": (fixed + drawn, loud),
        "cohort, noise": (fixed + np.stack(others) + drawn, crowd + loud),
    }


def _attacks(
    known: Book,
    seen: Floats,
    variance: Floats,
    count: int,
    draw: np.random.Generator,
    effort: Effort | None,
) -> Mapping[str, Floats]:
    """Rows (S, count, F) by every attack that applies."""
    ways = {
        "public data": inversion.context_rows(known.arrays, seen, count, known.contexts, PUBLIC),
        "matching": inversion.match(
            known.arrays, seen, variance, count, known.prior, 1.0, draw, effort
        ),
    }
    if count == 1:
        ways["ratio"] = inversion.analytic_rows(known.arrays, seen)[:, None]
    return ways


def _against_others(rows: Floats, truth: Floats, prior: Prior) -> Recovery:
    """Each scene's truth against the rows found in every other scene, averaged."""
    turns = [
        inversion.judge(np.roll(rows, turn, axis=0), truth, prior, PRIVATE)
        for turn in range(1, len(rows))
    ]
    return Recovery(
        np.mean([t.error for t in turns], axis=0), np.mean([t.recovered for t in turns], axis=0)
    )


@lru_cache(maxsize=8)
def _quantile(level: float, scenes: int) -> float:
    return float(student.ppf(1 - level / 2, scenes - 1))


def _interval(values: Floats, level: float) -> tuple[float, float, float]:
    """Mean and Student's interval over scenes."""
    half = _quantile(level, len(values)) * float(values.std(ddof=1)) / len(values) ** 0.5
    centre = float(values.mean())
    return centre, centre - half, centre + half


def _row(
    name: str,
    count: int,
    way: str,
    result: Recovery,
    nothing: Recovery,
    mixed: Recovery,
    level: float,
) -> InversionRow:
    """One line of the report. `better` holds for all lines together with CONFIDENCE."""
    error, error_low, error_high = _interval(result.error, 1 - CONFIDENCE)
    share, share_low, share_high = _interval(result.recovered, 1 - CONFIDENCE)
    _, gain, _ = _interval(nothing.error - result.error, 2 * level)
    _, knowledge, _ = _interval(mixed.error - result.error, 2 * level)
    return InversionRow(
        observed=name,
        positions=count,
        attack=way,
        scenes=len(result.error),
        error=error,
        error_low=max(error_low, 0.0),
        error_high=error_high,
        prior_error=float(nothing.error.mean()),
        recovered=share,
        recovered_low=max(share_low, 0.0),
        recovered_high=min(share_high, 1.0),
        prior_recovered=float(nothing.recovered.mean()),
        control_error=float(mixed.error.mean()),
        better=gain > MARGIN and knowledge > MARGIN,
    )
