"""The pending-transaction pool of one chain, as one node tells it: arrive, replace, mine, drop.

No node sees every transaction, and nobody sees what goes to a builder in private: what is in here
*may* be mined, what is not in here may be mined as well. What it does know is never contradicted by
the chain: for each sender and nonce there is at most one transaction, and none whose nonce a block
has used.

    arrive    a transaction that the node took in. One of the same sender and nonce replaces the
              other where both its fees are a tenth higher (the rule of geth, which others follow);
              else nodes refuse it, and so do we
    mine      a block uses a nonce: what was pending with it is mined, or displaced by what was
    drop      the node says so, or it waits longer than the pool keeps it, or the pool is full and
              it pays least
    undo      a block is replaced: what it had mined is pending again

Blocks must follow one another. After a gap nonces may have been used that we know nothing of, so
everything is forgotten and `PendingUnknown` raised until `begin` is told a block to go on from.
Time is an argument.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fedtrade.errors import BadInput, Stale
from fedtrade.market.events import Head

BUMP_TENTHS: Final = 11
"""A replacement pays at least this many tenths of both fees of what it replaces."""
UNDONE_MAX: Final = 64
"""Blocks that may be undone without forgetting everything: two epochs of Ethereum."""

Fate = Literal["mined", "displaced", "replaced", "dropped", "expired", "crowded out"]


class PendingUnknown(Stale):
    """The pool cannot say what is pending."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"What is pending is not known: {why}. Begin again at a block of the chain."
        )
        self.why = why


@dataclass(frozen=True, slots=True)
class PendingTransaction:
    """A transaction that waits to be mined, as its sender signed it."""

    hash: str
    sender: str
    nonce: int
    to: str | None
    """None creates a contract."""
    value_wei: int
    gas: int
    max_fee_wei: int
    """Per unit of gas, base fee included; a legacy transaction's gas price."""
    max_tip_wei: int
    """Per unit of gas; a legacy transaction's gas price."""
    input: bytes

    def __post_init__(self) -> None:
        if min(self.nonce, self.value_wei, self.gas, self.max_fee_wei, self.max_tip_wei) < 0:
            raise BadInput(f"transaction {self.hash}", "a number is negative", "Drop it.")

    def tip_wei(self, base_fee_wei: int) -> int:
        """What a block's builder gets per unit of gas (EIP-1559); negative where it cannot pay."""
        return min(self.max_tip_wei, self.max_fee_wei - base_fee_wei)

    def outbids(self, other: PendingTransaction) -> bool:
        """Whether nodes take this one in place of `other`."""
        return all(
            10 * ours >= BUMP_TENTHS * theirs
            for ours, theirs in (
                (self.max_fee_wei, other.max_fee_wei),
                (self.max_tip_wei, other.max_tip_wei),
            )
        )


@dataclass(frozen=True, slots=True)
class Gone:
    """A transaction left the pool."""

    transaction: PendingTransaction
    fate: Fate
    by: str | None = None
    """Hash of what replaced or displaced it, where it is known."""


@dataclass(frozen=True, slots=True)
class _Block:
    """A block with what it took out of the pool, so that it can be undone."""

    head: Head
    took: tuple[tuple[PendingTransaction, int], ...]
    """Each with the time at which it had arrived."""
    used: Mapping[str, int]
    """sender -> the nonce after the last that it used in this block."""


class PendingPool:
    """The transactions of one chain that one node holds pending."""

    def __init__(self, most: int = 20_000, keep_s: int = 3 * 3600, silence_s: int = 120) -> None:
        """At most `most` transactions, each for at most `keep_s`.

        A view to which nothing was told for `silence_s` is not believed.
        """
        self._most, self._keep_s, self._silence_s = most, keep_s, silence_s
        self._known: dict[str, tuple[PendingTransaction, int]] = {}
        """hash -> (transaction, when it arrived), in the order of arrival."""
        self._slots: dict[str, dict[int, str]] = {}
        """sender -> nonce -> hash."""
        self._cheapest: list[tuple[int, str]] = []
        """A heap of (fee, hash), in which some are gone already."""
        self._blocks: deque[_Block] = deque(maxlen=UNDONE_MAX)
        self._heard_s = 0
        self._why = "no block has been told yet"

    # what is known

    def check(self, now_s: int) -> None:
        """Raise PendingUnknown where the view may not be believed at `now_s`."""
        if self._why:
            raise PendingUnknown(self._why)
        if now_s - self._heard_s > self._silence_s:
            raise PendingUnknown(f"the node has told nothing for {now_s - self._heard_s} s")

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, hash: str) -> bool:
        return hash in self._known

    def __iter__(self) -> Iterator[PendingTransaction]:
        """All of them, the first to arrive first."""
        return (transaction for transaction, _ in self._known.values())

    def of(self, sender: str) -> tuple[PendingTransaction, ...]:
        """A sender's, by nonce."""
        slots = self._slots.get(sender, {})
        return tuple(self._known[slots[nonce]][0] for nonce in sorted(slots))

    def next_block(self, base_fee_wei: int, gas_limit: int) -> list[PendingTransaction]:
        """What a builder that maximises tips, and sees what we see, would put into a block.

        Best tip first, a sender's in the order of their nonces, up to the gas limit. Where a
        sender's next nonce is known, what comes after a missing one waits.
        """
        ready: list[tuple[int, int, str, int]] = []
        for order, sender in enumerate(self._slots):
            lowest = min(self._slots[sender])
            if lowest == (self._next_nonce(sender) or lowest):
                self._offer(ready, base_fee_wei, sender, lowest, order)
        chosen, gas = [], 0
        while ready:
            _, order, sender, nonce = heapq.heappop(ready)
            transaction = self._known[self._slots[sender][nonce]][0]
            if gas + transaction.gas > gas_limit:
                continue  # and so do this sender's later ones
            gas += transaction.gas
            chosen.append(transaction)
            if nonce + 1 in self._slots[sender]:
                self._offer(ready, base_fee_wei, sender, nonce + 1, order)
        return chosen

    def _offer(
        self,
        ready: list[tuple[int, int, str, int]],
        base_fee_wei: int,
        sender: str,
        nonce: int,
        order: int,
    ) -> None:
        tip_wei = self._known[self._slots[sender][nonce]][0].tip_wei(base_fee_wei)
        if tip_wei >= 0:
            heapq.heappush(ready, (-tip_wei, order, sender, nonce))

    def _next_nonce(self, sender: str) -> int | None:
        """The lowest nonce that no block has used, where one of the blocks that we keep told."""
        return next((b.used[sender] for b in reversed(self._blocks) if sender in b.used), None)

    # what happened

    def begin(self, head: Head, now_s: int) -> None:
        """Go on from this block with an empty pool: what the node holds arrives after it."""
        self._forget("")
        self._blocks.append(_Block(head, (), {}))
        self._heard_s = now_s

    def arrive(self, transaction: PendingTransaction, now_s: int) -> list[Gone]:
        """The node took in a transaction. Gives what left the pool for it."""
        if self._why:
            return []
        self._heard_s = now_s
        if transaction.hash in self._known:
            return []  # told twice
        if transaction.nonce < (self._next_nonce(transaction.sender) or 0):
            return []  # told late: its nonce is used
        gone = []
        before = self._slots.get(transaction.sender, {}).get(transaction.nonce)
        if before is not None:
            if not transaction.outbids(self._known[before][0]):
                return []
            gone.append(Gone(self._take(before)[0], "replaced", transaction.hash))
        self._put(transaction, now_s)
        while len(self._known) > self._most:
            _, hash = heapq.heappop(self._cheapest)
            if hash in self._known:
                gone += self._crowd_out(self._known[hash][0])
        return gone

    def drop(self, hash: str, now_s: int) -> list[Gone]:
        """The node says that it dropped a transaction."""
        if self._why:
            return []
        self._heard_s = now_s
        return [Gone(self._take(hash)[0], "dropped")] if hash in self._known else []

    def expire(self, now_s: int) -> list[Gone]:
        """Drop what has waited too long."""
        late = []
        for transaction, since_s in self._known.values():
            if now_s - since_s <= self._keep_s:
                break  # the rest came later
            late.append(transaction.hash)
        return [Gone(self._take(hash)[0], "expired") for hash in late]

    def mine(self, head: Head, mined: Iterable[tuple[str, str, int]], now_s: int) -> list[Gone]:
        """A block with its transactions as (hash, sender, nonce), in order; gives what it took.

        Told blocks that replace some of ours are undone first, up to UNDONE_MAX. Raises
        PendingUnknown, with everything forgotten, where the block does not follow one of ours.
        """
        if self._why:
            raise PendingUnknown(self._why)
        if head.hash == self._blocks[-1].head.hash:
            return []  # told twice
        self._undo(head)
        self._heard_s = now_s
        gone: list[Gone] = []
        took: list[tuple[PendingTransaction, int]] = []
        next_nonces: dict[str, int] = {}
        for hash, sender, nonce in mined:
            next_nonces[sender] = nonce + 1
            slots = self._slots.get(sender, {})
            for used in sorted(n for n in slots if n <= nonce):
                transaction, since_s = self._take(slots[used])
                took.append((transaction, since_s))
                if transaction.hash == hash:
                    gone.append(Gone(transaction, "mined"))
                else:
                    gone.append(Gone(transaction, "displaced", hash if used == nonce else None))
        self._blocks.append(_Block(head, tuple(took), next_nonces))
        return gone

    def _undo(self, head: Head) -> None:
        """Make the block's parent our newest; what the undone blocks took is pending again."""
        if all(block.head.hash != head.parent_hash for block in self._blocks):
            newest = self._blocks[-1].head
            why = f"block {head.number} does not follow {newest.number}, nor one before it"
            self._forget(why)
            raise PendingUnknown(why)
        while self._blocks[-1].head.hash != head.parent_hash:
            for transaction, since_s in reversed(self._blocks.pop().took):
                if transaction.nonce not in self._slots.get(transaction.sender, {}):
                    self._put(transaction, since_s)
        # in the order of arrival again, which `expire` relies on
        self._known = dict(sorted(self._known.items(), key=lambda item: item[1][1]))

    def _put(self, transaction: PendingTransaction, since_s: int) -> None:
        self._known[transaction.hash] = transaction, since_s
        heapq.heappush(self._cheapest, (transaction.max_fee_wei, transaction.hash))
        if len(self._cheapest) > 2 * self._most + 2:
            self._cheapest = [(t.max_fee_wei, t.hash) for t, _ in self._known.values()]
            heapq.heapify(self._cheapest)
        self._slots.setdefault(transaction.sender, {})[transaction.nonce] = transaction.hash

    def _take(self, hash: str) -> tuple[PendingTransaction, int]:
        transaction, since_s = self._known.pop(hash)
        slots = self._slots[transaction.sender]
        del slots[transaction.nonce]
        if not slots:
            del self._slots[transaction.sender]
        return transaction, since_s

    def _crowd_out(self, transaction: PendingTransaction) -> list[Gone]:
        """Drop a transaction with what its sender sent after it, which cannot be mined without."""
        later = [t for t in self.of(transaction.sender) if t.nonce >= transaction.nonce]
        return [Gone(self._take(t.hash)[0], "crowded out") for t in later]

    def _forget(self, why: str) -> None:
        self._known.clear()
        self._slots.clear()
        self._cheapest.clear()
        self._blocks.clear()
        self._why = why
