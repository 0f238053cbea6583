"""Who makes blocks while something else waits for them, and undoes some of them."""

from __future__ import annotations

import threading
import time
from typing import Any, Literal, Self

from fedtrade.chain.rpc import Rpc
from fedtrade.devnet.anvil import Anvil

PAUSE_S = 0.01

How = Literal["dropped", "included", "waiting"]
"""What becomes of a transaction when blocks are replaced: it is in none of the new blocks, in one of
them at another place, or it was in no block yet."""


class Miner:
    """Makes a block every few milliseconds in a thread of its own, and undoes what it is told to.

    With a `depth`, each transaction of `account` is undone once: when its block is this deep, the
    newest `depth` blocks are replaced by others. `most`: how many are undone.
    """

    def __init__(
        self, anvil: Anvil, account: str, depth: int = 0, how: How = "dropped", most: int = 1_000
    ) -> None:
        self._rpc = Rpc(anvil.url)
        self._account = account.lower()
        self._depth, self._how, self._most = depth, how, most
        self._seen: dict[str, int] = {}
        self.undone: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._rpc.call("evm_setAutomine", False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._rpc.close()

    def _work(self) -> None:
        while not self._stop.is_set():
            if self._depth and self._how == "waiting":
                self._undo_under_waiting()
            self._rpc.call("evm_mine")
            self._undo(self._rpc.call("eth_getBlockByNumber", "latest", True))
            time.sleep(PAUSE_S)

    def _undo(self, newest: dict[str, Any]) -> None:
        number = int(newest["number"], 16)
        for tx in newest["transactions"]:
            if tx["from"].lower() == self._account:
                self._seen[tx["hash"]] = number
        for transaction, block in list(self._seen.items()):
            if self._how == "waiting":
                if transaction not in self.undone:  # it came at the last moment: once more
                    del self._seen[transaction]
                    self._rpc.call("anvil_reorg", 1, [])
                continue
            deep = number - block + 1
            if self._depth and transaction not in self.undone and deep >= self._depth:
                if len(self.undone) >= self._most:
                    return
                self.undone.add(transaction)
                raw = self._rpc.call("eth_getRawTransactionByHash", transaction)
                again = [[raw, deep // 2]] if self._how == "included" else []
                self._rpc.call("anvil_reorg", deep, again)
                return

    def _undo_under_waiting(self) -> None:
        pool = self._rpc.call("txpool_content")["pending"]
        waiting = {
            tx["hash"]
            for sender, by_nonce in pool.items()
            if sender.lower() == self._account
            for tx in by_nonce.values()
        }
        if waiting - self.undone and len(self.undone) < self._most:
            self.undone |= waiting
            self._rpc.call("anvil_reorg", self._depth, [])


def sent_by(rpc: Rpc, account: str, since: int = 0) -> list[dict[str, Any]]:
    """Every transaction of an account that is in the chain from a block on, in order."""
    newest = int(rpc.call("eth_blockNumber"), 16)
    return [
        tx
        for number in range(since, newest + 1)
        for tx in rpc.call("eth_getBlockByNumber", hex(number), True)["transactions"]
        if tx["from"].lower() == account.lower()
    ]
