"""The steward as a process: looks at every chain, and moves the parameters a step where it must.

    every market → assessment (`fedtrade.stewarding`) → journal (fsync) → one transaction → journal

Its key can do nothing but `steer`: small steps, each after its cool-down, for a term that ends by
itself, and never beyond what the contract's rules allow. The guardian and governance end the term at
any time. Every assessment stands in a hash-chained journal with what was seen and why each parameter
moves or stays, also where nothing is done, and where something is missing and so nothing may be.

A process that is killed loses nothing: what it did stands on the chain, and the next assessment
begins there. A transaction that was sent and never seen mined cannot be doubled, since a second one
would be within the cool-down of the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final, Self

from pydantic import Field

from fedtrade.chain.conversation import Conversation, ask, read
from fedtrade.chain.deployment import ChainDeployment, Deployment
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.chain.quorum import reader
from fedtrade.chain.transacting import Receipt, transact
from fedtrade.console import Stop
from fedtrade.errors import FedtradeError, Refusal, Stale, Unavailable
from fedtrade.journal import Journal
from fedtrade.market.encoding import plain
from fedtrade.settings import Beside, Strict, read_settings
from fedtrade.stewarding import Assessment, InputsUnusable, Market, assess
from fedtrade.venues.codec import AnswerUnreadable, field, quantity
from fedtrade.venues.price_feed import GET_ROUND, LATEST_ROUND
from server.keys import CoordinatorKeys

ROUNDS_MAX: Final = 500
"""Answers of a feed that are looked back at."""
LATELY_S: Final = 3_600
USUAL_LEAST_S: Final = 4 * 3_600
"""A feed whose last answers span less says nothing of what is usual."""
BLOCKS: Final = 100
"""Blocks whose base fees are looked at."""
PHASE_BITS: Final = 64
"""A proxy of feeds numbers its rounds in each phase anew, above these bits (Chainlink)."""
STEWARD_FILE: Final = "steward.toml"
JOURNAL_FILE: Final = "steward.jsonl"

STEWARD_TEMPLATE: Final = """\
# The settings of a steward. Paths are relative to this file. An unknown field is an error.

deployment = "deployment.json"  # chains and contracts; every chain in it is looked at
keys = "."                      # folder of coordinator.key: an account of the steward's own, with gas
folder = "."                    # the journal of assessments, steward.jsonl
interval_s = 600.0              # time between two assessments
"""


class StewardSettings(Strict):
    """`steward.toml`."""

    deployment: Beside
    keys: Beside
    folder: Beside
    interval_s: Annotated[float, Field(ge=10.0, le=86_400.0)] = 600.0

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; every path in it becomes absolute. Raises BadInput."""
        return read_settings(cls, path)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one look led to."""

    assessment: Assessment
    receipt: Receipt | None
    """Of the transaction, where something was moved."""


def observe(chain: ChainDeployment) -> Conversation[Market]:
    """How a chain's market stands at its newest block. Raises InputsUnusable."""
    (head,) = yield [("eth_getBlockByNumber", ["latest", False])]
    number, now_s = quantity(field(head, "number")), quantity(field(head, "timestamp"))
    (fees,) = yield [("eth_feeHistory", [hex(min(BLOCKS, number + 1)), hex(number), []])]
    ((newest, *_),) = yield from read([(chain.price_feed, LATEST_ROUND, ())], number)
    count = min(ROUNDS_MAX, newest % 2**PHASE_BITS)
    rounds = yield from read(
        [(chain.price_feed, GET_ROUND, (newest - back,)) for back in range(count)], number
    )
    series = sorted((updated_s, answer) for _, answer, _, updated_s, _ in rounds)
    lately, usual = _variances(chain.name, series)
    return Market(
        name=chain.name,
        observed_s=now_s,
        variance_per_hour=lately,
        usual_variance_per_hour=usual,
        base_fee_wei=_median_fee_wei(fees),
        feed_age_s=float(now_s - series[-1][0]),
    )


def _variances(name: str, series: list[tuple[int, int]]) -> tuple[float, float]:
    """Realised variance an hour of (time, answer), over the last LATELY_S and over all.

    Σ (Δ ln price)² over the time from the first to the last answer that it is taken from.
    """
    if len(series) < 3 or series[-1][0] - series[0][0] < USUAL_LEAST_S:
        raise InputsUnusable(name, f"its feed remembers less than {USUAL_LEAST_S} s")
    if any(answer <= 0 for _, answer in series):
        raise InputsUnusable(name, "its feed has answered with no price")
    begin = next(i for i, (at, _) in enumerate(series) if at >= series[-1][0] - LATELY_S)
    return _variance(series[max(0, min(begin, len(series) - 2)) :]), _variance(series)


def _variance(series: list[tuple[int, int]]) -> float:
    logs = [math.log(answer) for _, answer in series]
    total = math.fsum((b - a) ** 2 for a, b in pairwise(logs))
    hours = (series[-1][0] - series[0][0]) / 3_600
    return total / hours if hours else math.nan  # no number: the assessment says so


def _median_fee_wei(fees: Any) -> float:
    listed = field(fees, "baseFeePerGas")
    if not isinstance(listed, list) or not listed:
        raise AnswerUnreadable("eth_feeHistory", "no base fees")
    return float(median(quantity(fee) for fee in listed))


class Steward:
    """Assesses and acts. Use as a context manager."""

    def __init__(self, settings: StewardSettings) -> None:
        self.settings = settings
        deployment = Deployment.load(settings.deployment)
        self._chains = deployment.chains
        self._home = deployment.chain(deployment.home)
        self._store = ParameterStore(self._home.decided_here.parameter_store)
        self._keys = CoordinatorKeys.load(settings.keys)
        self._rpcs = {
            chain.name: reader(chain.all_rpc_urls, chain.chain_id) for chain in self._chains
        }
        self._journal = Journal(settings.folder / JOURNAL_FILE)

    @property
    def address(self) -> str:
        """The account that governance appoints."""
        return self._keys.address

    def look(self) -> Outcome:
        """Assess once, and steer where the assessment says so.

        Raises InputsUnusable, StorePaused, and what chains and contracts refuse; the journal has it.
        """
        try:
            assessment = self._assess()
            receipt = self._steer(assessment) if assessment.changes else None
        except FedtradeError as error:
            self._note({"nothing done": error.message, "error": type(error).__name__})
            raise
        return Outcome(assessment, receipt)

    def run(self, stop: Stop, report: Callable[[Outcome | FedtradeError], None]) -> None:
        """Look every `interval_s` until `stop` is set. What may pass is reported, a Fault is raised."""
        while not stop.is_set():
            try:
                report(self.look())
            except (Refusal, Stale, Unavailable) as error:
                report(error)
            stop.wait(self.settings.interval_s)

    def _assess(self) -> Assessment:
        home = self._rpcs[self._home.name]
        head = home.call("eth_getBlockByNumber", "latest", False)
        number, now_s = quantity(field(head, "number")), quantity(field(head, "timestamp"))
        standing = ask(home, self._store.standing(number))
        markets = [ask(self._rpcs[chain.name], observe(chain)) for chain in self._chains]
        assessment = assess(markets, standing, now_s)
        self._note(
            {
                "block": number,
                "markets": [asdict(market) for market in markets],
                "assessment": asdict(assessment),
            }
        )
        return assessment

    def _steer(self, assessment: Assessment) -> Receipt:
        receipt = transact(
            self._rpcs[self._home.name],
            self._home.chain_id,
            self._keys,
            self._store.steer(assessment.changes),
            confirmations=self._home.confirmations,
        )
        self._note({"steered": dict(assessment.changes), "transaction": receipt.transaction})
        return receipt

    def _note(self, body: dict[str, Any]) -> None:
        self._journal.append("note", plain(body))
        self._journal.sync()

    def close(self) -> None:
        self._journal.close()
        for rpc in self._rpcs.values():
            rpc.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_words(outcome: Outcome) -> str:
    """An assessment on a few lines, for the log."""
    moved = [f for f in outcome.assessment.findings if f.to != f.present]
    if outcome.receipt is None or not moved:
        return f"stress {outcome.assessment.stress:.2f}: nothing to move"
    lines = [f"  {f.parameter} {f.present} -> {f.to} (wanted {f.wanted}): {f.why}" for f in moved]
    head = f"stress {outcome.assessment.stress:.2f}: {len(moved)} parameters moved"
    return "\n".join([f"{head}, transaction {outcome.receipt.transaction}", *lines])
