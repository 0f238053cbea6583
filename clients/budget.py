"""The only spender of a member's ε: one line a round, on the disk before the upload leaves.

A line says what happened (release, round, sampling rate, noise multiplier, noisy sums, and the hash
of the statement that was signed); what it costs is computed from the lines (`privacy.accounting`),
so the same file can be re-audited with a better accountant. The file is a `clients.ledger.Ledger`:
hash-chained, replayed at every start, and never forgetful. The limit is the member's own and nothing
received can raise it.

A round may be asked for twice: a member that was killed after its line was written builds the same
upload again, bit for bit, and may send it. Anything else for that round is refused.

`presume` is for a ledger that may be an old copy: rounds that the home chain shows as closed and
that the ledger does not know are charged as spent. It can only count too much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from clients.ledger import Ledger, LedgerDamaged
from fedtrade.errors import Refusal
from fedtrade.parameters import Parsed
from fedtrade.privacy.accounting import (
    Epsilon,
    Overspent,
    Spend,
    affordable_rounds,
    epsilon,
    epsilon_rdp,
)
from fedtrade.protocol import Count, Hex32OrEmpty, RoundNumber


class RoundAlreadyPaid(Refusal):
    """Another upload for a round that is on the ledger: an equivocating or replayed announcement."""

    def __init__(self, release: int, round_number: int) -> None:
        super().__init__(
            f"round {round_number} of release {release} is already on the ledger for another "
            "upload; one upload a round. Wait for the next round"
        )
        self.release = release
        self.round = round_number


class Line(Parsed):
    """One round's spending, as it stands in the file."""

    release: Count
    round: RoundNumber
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    noise_multiplier: Annotated[float, Field(gt=0)]
    sums: Annotated[int, Field(ge=1, le=64)]
    """Noisy sums of the positions that the round releases: 1, or the local steps."""
    upload: Hex32OrEmpty
    """sha256 of the upload (or of the artifact judged); empty where it was presumed."""
    pool: Literal["rounds", "held out"] = "rounds"
    """Whose ε it is: of the positions that rounds may use, or of those kept out of them."""


class Budget:
    """A member's ledger of ε, open for spending."""

    def __init__(self, path: Path, limit: float, delta: float) -> None:
        self.path = path
        self.limit = limit
        self.delta = delta
        self._paid: dict[tuple[int, int], tuple[str, str]] = {}
        """(release, round) -> the upload that it permits, and the ledger's head with it."""
        self._sums: Counter[tuple[float, float]] = Counter()
        self._judged: Counter[tuple[float, float]] = Counter()
        self._judgements: set[str] = set()
        self._after: dict[Spend, float] = {}
        """ε of the rounds if one more is added, for what the ledger has now."""
        self._ledger = Ledger(path)
        kept = zip(self._ledger.entries, self._ledger.hashes, strict=True)
        for number, (entry, line_hash) in enumerate(kept, start=1):
            try:
                self._remember(Line.model_validate(entry), line_hash)
            except ValidationError:
                self.close()
                raise LedgerDamaged(path, number, "it is no line of a ledger of ε") from None

    def _remember(self, line: Line, line_hash: str) -> None:
        self._after.clear()
        kind = (line.sampling_rate, line.noise_multiplier)
        if line.pool == "held out":
            self._judged[kind] += line.sums
            self._judgements.add(line.upload)
        else:
            self._paid[(line.release, line.round)] = (line.upload, line_hash)
            self._sums[kind] += line.sums

    @property
    def head(self) -> str:
        """Hash of the last line."""
        return self._ledger.head

    @property
    def rounds(self) -> int:
        """How many rounds stand on the ledger."""
        return len(self._paid)

    @property
    def last(self) -> tuple[int, int] | None:
        """(release, round) of the newest line."""
        return next(reversed(self._paid), None)

    @property
    def spends(self) -> tuple[Spend, ...]:
        """All that was spent of the positions that rounds use, by kind."""
        return tuple(Spend(q, z, n) for (q, z), n in sorted(self._sums.items()))

    @property
    def judgements(self) -> tuple[Spend, ...]:
        """All that was spent of the positions that are kept out of rounds."""
        return tuple(Spend(q, z, n) for (q, z), n in sorted(self._judged.items()))

    def epsilon(self) -> Epsilon:
        """What it has cost so far: the larger of the two pools, since no position is in both."""
        pools = [epsilon(spends, self.delta) for spends in (self.spends, self.judgements)]
        return max(pools, key=lambda e: e.rdp)

    def rounds_left(self, one: Spend) -> int:
        """How many more rounds like `one` the limit allows."""
        sums = affordable_rounds(
            self.spends, one.sampling_rate, one.noise_multiplier, self.delta, self.limit
        )
        return sums // one.rounds

    def paid(self, release: int, round_number: int) -> bool:
        """Whether the round is on the ledger."""
        return (release, round_number) in self._paid

    def check(self, release: int, round_number: int, one: Spend) -> None:
        """Refuse a round that the limit does not allow, before any work is done. Raises Overspent."""
        if self.paid(release, round_number):
            return
        if one not in self._after:
            self._after[one] = epsilon_rdp((*self.spends, one), self.delta)
        if self._after[one] > self.limit:
            raise Overspent(self.limit, self._after[one])

    def spend(self, release: int, round_number: int, one: Spend, upload: bytes) -> bytes:
        """Put one round on the ledger and on the disk; gives the ledger's head with it (32 bytes).

        `one` is what the round costs, `upload` the sha256 of what it permits to be sent. Asked again
        for the same upload it gives the same head. When this returns, the round counts as spent
        whatever happens. Raises Overspent, RoundAlreadyPaid or Unavailable.
        """
        before = self._paid.get((release, round_number))
        if before is not None:
            if before[0] != upload.hex():
                raise RoundAlreadyPaid(release, round_number)
            return bytes.fromhex(before[1])
        self.check(release, round_number, one)
        self._put(release, round_number, one, upload.hex())
        return bytes.fromhex(self.head)

    def judge(self, release: int, one: Spend, artifact: bytes) -> None:
        """Put the judgement of one artifact on the ledger, once. Raises Overspent or Unavailable."""
        if artifact.hex() in self._judgements:
            return
        would_be = epsilon_rdp((*self.judgements, one), self.delta)
        if would_be > self.limit:
            raise Overspent(self.limit, would_be)
        self._put(release, 0, one, artifact.hex(), "held out")

    def presume(self, release: int, rounds: Iterable[int], one: Spend) -> int:
        """Charge rounds that others can prove and this ledger does not know; gives how many."""
        missing = [r for r in rounds if not self.paid(release, r)]
        for round_number in missing:
            self._put(release, round_number, one, "")
        return len(missing)

    def _put(
        self,
        release: int,
        round_number: int,
        one: Spend,
        upload: str,
        pool: Literal["rounds", "held out"] = "rounds",
    ) -> None:
        line = Line(
            release=release,
            round=round_number,
            sampling_rate=one.sampling_rate,
            noise_multiplier=one.noise_multiplier,
            sums=one.rounds,
            upload=upload,
            pool=pool,
        )
        self._remember(line, self._ledger.append(line.model_dump()))

    def close(self) -> None:
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
