"""A member as a validator: it signs what the home chain's Merkle tree of messages was, index by index.

The mirrors on other chains believe a message when a threshold of validators has signed the
checkpoint of its leaf (`fedtrade/venues/hyperlane.py`). A validator therefore

* reads its own node, or several that must agree, and only up to the block that they call final;
* builds the tree itself and signs nothing unless the contract has the same count and root there, so
  that a node which leaves out or adds a log is noticed;
* signs one checkpoint an index, for ever: which one stands in `validator.jsonl` (`clients/ledger.py`:
  hash-chained, fsynced) before it is signed. Killed at any point it signs the same again, or nothing.
  A tree that differs from what the file says is a Fault, not a second signature.

Each signed checkpoint becomes a file in the storage folder, in the form of Hyperlane's own agents.
The folder is public: serve it with any web server, under the location that the settings name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from clients.ledger import Ledger
from clients.settings import HomeChainAt, ValidatorAt
from fedtrade.chain.conversation import Conversation, ask, read
from fedtrade.chain.rpc import NodeRefused, Rpc
from fedtrade.console import Stop
from fedtrade.errors import Fault, Stale, Unavailable
from fedtrade.venues.codec import field, place_of, quantity
from fedtrade.venues.hyperlane import (
    ANNOUNCEMENT_NAME,
    COUNT,
    INDEX_NAME,
    INSERTED,
    LOCAL_DOMAIN,
    MAILBOX,
    ROOT,
    Announcement,
    BadCheckpoint,
    Checkpoint,
    MerkleTree,
    SignedCheckpoint,
    announcement_digest,
    announcement_file,
    checkpoint_file,
    checkpoint_name,
    read_checkpoint,
    word_of,
)

log = logging.getLogger(__name__)

LOG_SPAN: Final = 2_000
"""Blocks in one request for logs."""
SPANS_MAX: Final = 50
"""Requests in one look: a validator that was away catches up in several."""
LEAVES_MAX: Final = 10_000
"""Leaves that one look may bring; more is a node that makes them up."""
WAIT_MAX_S: Final = 60.0
LEDGER_FILE: Final = "validator.jsonl"


class Equivocation(Fault):
    """The chain asks for a second, different checkpoint of an index that was signed."""

    def __init__(self, index: int, signed: str, found: str) -> None:
        super().__init__(
            f"Checkpoint {index} was signed for message {signed}, and the node now has {found}. "
            "Nothing more is signed. Either a block was replaced that counted as final, or the node "
            "lies: compare it with another node, and talk to the other validators"
        )
        self.index = index
        self.signed = signed
        self.found = found


class TreeDiffers(Stale):
    """The node's logs do not make the tree that its contract has."""

    def __init__(self, block: int, problem: str) -> None:
        super().__init__(
            f"At block {block} {problem}. Nothing was signed. Use another node if this lasts"
        )
        self.block = block
        self.problem = problem


class WrongChain(Fault):
    """The node is of another chain than the settings say."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(
            f"The node is of chain {found}, the settings say {expected}. Correct home_chain.rpc_url"
        )
        self.expected = expected
        self.found = found


class Signer(Protocol):
    """The key of a validator."""

    address: str

    def sign_digest(self, digest: bytes) -> bytes: ...


class Validator:
    """One validator of the home chain's tree. Use as a context manager."""

    def __init__(
        self, home: HomeChainAt, at: ValidatorAt, ledger: Path, keys: Signer, rpc: Rpc
    ) -> None:
        """Take up the ledger; every checkpoint in it has its file when this returns."""
        self._home, self._at, self._keys, self._rpc = home, at, keys, rpc
        self._tree = MerkleTree()
        self._ids: list[str] = []
        """Message ids of the leaves, as signed."""
        self._read_to = at.from_block - 1
        self.final_block = -1
        """The newest final block that was looked at."""
        self.mailbox, self.domain = ask(rpc, self._where())
        self._ledger = Ledger(ledger)
        try:
            self._take_up()
        except BaseException:
            self._ledger.close()
            raise

    @property
    def signed(self) -> int:
        """Checkpoints signed so far."""
        return self._tree.count

    def announce(self) -> Announcement:
        """Sign where the checkpoints lie, and put that beside them; whoever likes sends it on."""
        location = self._at.location
        digest = announcement_digest(self.domain, self.mailbox, location)
        said = Announcement(
            self._keys.address.lower(),
            self.domain,
            self.mailbox,
            location,
            self._keys.sign_digest(digest),
        )
        self._write(ANNOUNCEMENT_NAME, announcement_file(said))
        return said

    def look(self) -> int:
        """Sign every checkpoint that has become final; gives how many.

        Raises TreeDiffers or another Stale where the node should be asked again, Equivocation where
        it must not be believed.
        """
        final = self._final_number()
        if final <= self._read_to:
            return 0
        end = min(final, self._read_to + LOG_SPAN * SPANS_MAX)
        leaves = self._leaves(self._read_to + 1, end)
        count, root = ask(self._rpc, self._tree_at(end))
        tree, checkpoints = self._tree.copy(), []
        for index, message_id, block in leaves:
            if index < len(self._ids):
                if self._ids[index] != message_id.hex():
                    raise Equivocation(index, self._ids[index], message_id.hex())
                continue  # read again after a restart
            if index != tree.count:
                raise TreeDiffers(end, f"leaf {index} comes where leaf {tree.count} must")
            tree.insert(message_id)
            checkpoints.append((self._checkpoint(tree, message_id), block))
        if (tree.count, tree.root) != (count, root):
            raise TreeDiffers(end, f"the logs make {tree.count} leaves, the contract has {count}")
        for checkpoint, block in checkpoints:
            self._sign(checkpoint, block)
        self._read_to, self.final_block = end, final
        return len(checkpoints)

    def _sign(self, checkpoint: Checkpoint, block: int) -> None:
        """Write down, then sign, then publish: the order is the promise."""
        self._ledger.append(
            {
                "index": checkpoint.index,
                "message_id": checkpoint.message_id.hex(),
                "root": checkpoint.root.hex(),
                "domain": checkpoint.domain,
                "hook": checkpoint.hook.hex(),
                "block": block,
            }
        )
        self._tree.insert(checkpoint.message_id)
        self._ids.append(checkpoint.message_id.hex())
        self._publish(checkpoint)

    def _publish(self, checkpoint: Checkpoint) -> None:
        """Sign what stands in the ledger and put it into the storage; the same bytes each time."""
        name = checkpoint_name(checkpoint.index)
        path = self._at.storage / name
        old = self._published(path)
        if old == checkpoint:
            return
        if old is not None:  # the ledger is older than the storage: an old copy was put back
            raise Equivocation(checkpoint.index, old.message_id.hex(), checkpoint.message_id.hex())
        signature = self._keys.sign_digest(checkpoint.digest)
        self._write(name, checkpoint_file(SignedCheckpoint(checkpoint, signature)))
        self._write(INDEX_NAME, f"{checkpoint.index}".encode())

    def _published(self, path: Path) -> Checkpoint | None:
        """The checkpoint that lies there; None where there is none, or a damaged file."""
        try:
            return read_checkpoint(path.read_bytes()).checkpoint
        except FileNotFoundError:
            return None
        except BadCheckpoint:
            log.warning("%s is damaged and is written anew", path)
            return None

    def _take_up(self) -> None:
        """Rebuild the tree from the ledger and publish what was written down and not published."""
        hook = word_of(self._at.merkle_tree_hook)
        for number, entry in enumerate(self._ledger.entries):
            message_id = bytes.fromhex(entry["message_id"])
            self._tree.insert(message_id)
            self._ids.append(entry["message_id"])
            checkpoint = self._checkpoint(self._tree, message_id)
            noted = (entry["index"], entry["root"], entry["domain"], entry["hook"])
            if noted != (number, checkpoint.root.hex(), self.domain, hook.hex()):
                raise Fault(
                    f"{self._ledger.path}: entry {number} is of another chain or tree. Give each "
                    "tree a folder of its own"
                )
            self._publish(checkpoint)
            self._read_to = entry["block"] - 1  # its block may hold more leaves

    def _checkpoint(self, tree: MerkleTree, message_id: bytes) -> Checkpoint:
        hook = word_of(self._at.merkle_tree_hook)
        return Checkpoint(self.domain, hook, tree.root, tree.count - 1, message_id)

    def _write(self, name: str, content: bytes) -> None:
        """Whole or not at all, so that a reader never meets half a file."""
        folder = self._at.storage
        draft = folder / f".{name}.new"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            os.chmod(draft, 0o644)
            os.replace(draft, folder / name)
        except OSError as error:
            raise Unavailable(
                str(folder),
                f"the checkpoint cannot be written ({error.strerror})",
                "Check folder and disk; the checkpoint is not lost and is written at the next start",
            ) from error

    # the node

    def _where(self) -> Conversation[tuple[str, int]]:
        """The hook's mailbox and its domain, of the right chain."""
        (chain_id,) = yield [("eth_chainId", [])]
        if quantity(chain_id) != self._home.chain_id:
            raise WrongChain(self._home.chain_id, quantity(chain_id))
        ((mailbox,),) = yield from read([(self._at.merkle_tree_hook, MAILBOX, ())], "latest")
        ((domain,),) = yield from read([(mailbox, LOCAL_DOMAIN, ())], "latest")
        return str(mailbox), int(domain)

    def _final_number(self) -> int:
        block = self._rpc.call("eth_getBlockByNumber", self._home.final_block, False)
        if block is None:
            raise TreeDiffers(self._read_to, f"the node has no {self._home.final_block} block yet")
        return quantity(field(block, "number"))

    def _leaves(self, first: int, last: int) -> list[tuple[int, bytes, int]]:
        """(index, message id, block) of the leaves of these blocks, in the chain's order."""
        logs: list[dict[str, Any]] = []
        for start in range(first, last + 1, LOG_SPAN):
            asked = {
                "address": self._at.merkle_tree_hook,
                "topics": [INSERTED.topic],
                "fromBlock": hex(start),
                "toBlock": hex(min(start + LOG_SPAN - 1, last)),
            }
            found = self._rpc.call("eth_getLogs", asked)
            if not isinstance(found, list) or len(logs) + len(found) > LEAVES_MAX:
                raise TreeDiffers(last, "the node's list of logs is none, or far too long")
            logs += found
        leaves = []
        for entry in sorted(logs, key=place_of):
            block, _, address = place_of(entry)
            if address.lower() != self._at.merkle_tree_hook.lower() or not first <= block <= last:
                raise TreeDiffers(last, "the node gave a log that was not asked for")
            _, (message_id, index) = INSERTED.decode(entry)
            leaves.append((int(index), bytes(message_id), block))
        return leaves

    def _tree_at(self, block: int) -> Conversation[tuple[int, bytes]]:
        hook = self._at.merkle_tree_hook
        ((count,), (root,)) = yield from read([(hook, COUNT, ()), (hook, ROOT, ())], block)
        return int(count), bytes(root)

    def close(self) -> None:
        """Let go of the ledger."""
        self._ledger.close()

    def __enter__(self) -> Validator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def validate(validator: Validator, poll_s: float, stop: Stop, say: Callable[[str], None]) -> None:
    """Look, sign, wait, until `stop`. What can pass is waited out; an Equivocation is not."""
    wait_s, lost = poll_s, False
    while not stop.is_set():
        try:
            made = validator.look()
        except (Stale, Unavailable, NodeRefused) as error:
            if not lost:
                log.warning("%s", error)
            lost, wait_s = True, min(WAIT_MAX_S, 2 * wait_s)
        else:
            if made or lost:
                say(status_line(validator))
            lost, wait_s = False, poll_s
        stop.wait(wait_s)


def status_line(validator: Validator) -> str:
    """One line on where it stands."""
    return (
        f"{validator.signed} checkpoints signed, home chain read to block {validator.final_block}"
    )
