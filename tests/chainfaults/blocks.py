"""Who makes blocks while something else waits for them, and undoes some of them."""

from __future__ import annotations

import threading
import time
from typing import Any, Self

from fedtrade.chain.rpc import Rpc
from fedtrade.devnet.anvil import Anvil

PAUSE_S = 0.01


class Miner:
    """Makes a block every few milliseconds in a thread of its own, and undoes what it is told to.

    With a `depth`, each transaction of `account` is undone once: when its block is this deep, the
    newest `depth` blocks are replaced by empty ones.
    """

    def __init__(self, anvil: Anvil, account: str, depth: int = 0) -> None:
        self._rpc = Rpc(anvil.url)
        self._account = account.lower()
        self._depth = depth
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
            self._rpc.call("evm_mine")
            self._undo(self._rpc.call("eth_getBlockByNumber", "latest", True))
            time.sleep(PAUSE_S)

    def _undo(self, newest: dict[str, Any]) -> None:
        number = int(newest["number"], 16)
        for tx in newest["transactions"]:
            if tx["from"].lower() == self._account:
                self._seen[tx["hash"]] = number
        for transaction, block in list(self._seen.items()):
            if self._depth and transaction not in self.undone and number - block + 1 >= self._depth:
                self.undone.add(transaction)
                self._rpc.call("anvil_reorg", number - block + 1, [])
                return


def sent_by(rpc: Rpc, account: str) -> list[dict[str, Any]]:
    """Every transaction of an account that is in the chain, in order."""
    newest = int(rpc.call("eth_blockNumber"), 16)
    return [
        tx
        for number in range(newest + 1)
        for tx in rpc.call("eth_getBlockByNumber", hex(number), True)["transactions"]
        if tx["from"].lower() == account.lower()
    ]
