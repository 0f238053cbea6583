"""A validator signs one checkpoint an index, from a tree that the contract confirms, or nothing."""

import json
import os
import signal
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.keys import MemberKeys
from clients.ledger import LedgerDamaged
from clients.settings import HomeChainAt, ValidatorAt
from clients.validator import (
    Equivocation,
    TreeDiffers,
    Validator,
    WrongChain,
    status_line,
    validate,
)
from fedtrade.chain.rpc import NodeLost, Rpc, result_of
from fedtrade.errors import Fault, Unavailable
from fedtrade.typed_data import keccak
from fedtrade.venues.hyperlane import (
    COUNT,
    INSERTED,
    LOCAL_DOMAIN,
    MAILBOX,
    ROOT,
    MerkleTree,
    read_announcement,
    read_checkpoint,
)

HOOK = "0x" + "70" * 20
BOX = "0x" + "bb" * 20
CHAIN = 31101


def word(value):
    return value if isinstance(value, bytes) else value.to_bytes(32, "big")


def leaf(name):
    return keccak(name.encode())


class Node(Rpc):
    """**Stand-in** for a node: a hook's leaves by block, and every way to lie about them."""

    def __init__(self, *leaves):
        super().__init__("http://127.0.0.1:1")
        self.leaves = list(leaves)  # (block, id)
        self.final = max((block for block, _ in leaves), default=0)
        self.chain_id = CHAIN
        self.hidden = set()  # ids whose logs are left out
        self.down = False

    def call(self, method, *params):
        if self.down:
            raise NodeLost(self.url, "down")
        return result_of(method, {"result": self._answer(method, params)})

    def batch(self, calls):
        return [self.call(method, *params) for method, params in calls]

    def _answer(self, method, params):
        if method == "eth_chainId":
            return hex(self.chain_id)
        if method == "eth_getBlockByNumber":
            assert params[0] == "finalized"
            return None if self.final is None else {"number": hex(self.final)}
        if method == "eth_getLogs":
            return self._logs(int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16))
        assert method == "eth_call"
        selector = bytes.fromhex(params[0]["data"][2:10])
        if selector == MAILBOX.selector:
            return "0x" + (bytes(12) + bytes.fromhex(BOX[2:])).hex()
        if selector == LOCAL_DOMAIN.selector:
            return "0x" + word(CHAIN).hex()
        tree = MerkleTree()
        for block, message_id in self.leaves:
            if block <= int(params[1], 16):
                tree.insert(message_id)
        return "0x" + word({COUNT.selector: tree.count, ROOT.selector: tree.root}[selector]).hex()

    def _logs(self, first, last):
        return [
            {
                "address": HOOK,
                "topics": [INSERTED.topic],
                "data": "0x" + (message_id + word(index)).hex(),
                "blockNumber": hex(block),
                "logIndex": hex(index),
            }
            for index, (block, message_id) in enumerate(self.leaves)
            if first <= block <= last and message_id not in self.hidden
        ]


@pytest.fixture
def keys():
    return MemberKeys.ephemeral()


@pytest.fixture
def sit(tmp_path, keys):
    """A validator of a node, in this test's folder; opened again as often as one likes."""
    home = HomeChainAt(rpc_url="http://127.0.0.1:1", chain_id=CHAIN, membership=BOX, registry=BOX)
    opened = []

    def open_(node, folder=tmp_path, **more):
        at = ValidatorAt(
            merkle_tree_hook=HOOK,
            from_block=1,
            storage=folder / "public",
            location="file:///public",
            **more,
        )
        made = Validator(home, at, folder / "validator.jsonl", keys, node)
        opened.append(made)
        return made

    yield open_
    for validator in opened:
        validator.close()


def published(folder):
    """index -> checkpoint of every file in the storage."""
    files = (folder / "public").glob("*_with_id.json")
    return {c.index: c for c in (read_checkpoint(f.read_bytes()).checkpoint for f in files)}


def ledger(folder):
    return [json.loads(line) for line in (folder / "validator.jsonl").read_text().splitlines()]


def test_each_leaf_gets_one_signed_checkpoint(tmp_path, sit, keys):
    node = Node((3, leaf("a")), (3, leaf("b")), (5, leaf("c")))
    validator = sit(node)
    assert validator.look() == 3
    assert validator.look() == 0
    tree = MerkleTree()
    for index, name in enumerate("abc"):
        tree.insert(leaf(name))
        signed = read_checkpoint((tmp_path / "public" / f"{index}_with_id.json").read_bytes())
        assert signed.signer == keys.address.lower()
        assert signed.checkpoint.root == tree.root
        assert signed.checkpoint.message_id == leaf(name)
        assert signed.checkpoint.domain == CHAIN
    assert (tmp_path / "public" / "index.json").read_text() == "2"
    assert "3 checkpoints" in status_line(validator)


def test_nothing_is_signed_before_it_is_final(sit):
    node = Node((3, leaf("a")), (9, leaf("b")))
    node.final = 8
    validator = sit(node)
    assert validator.look() == 1
    node.final = 9
    assert validator.look() == 1


def test_it_says_where_its_checkpoints_lie(tmp_path, sit, keys):
    said = sit(Node()).announce()
    read = read_announcement((tmp_path / "public" / "announcement.json").read_bytes())
    assert read == said
    assert (read.validator, read.location) == (keys.address.lower(), "file:///public")


def test_a_restart_goes_on_and_writes_what_is_missing(tmp_path, sit):
    node = Node((3, leaf("a")), (3, leaf("b")))
    first = sit(node)
    first.look()
    first.close()
    before = published(tmp_path)
    (tmp_path / "public" / "1_with_id.json").unlink()
    (tmp_path / "public" / "0_with_id.json").write_text("{")  # damaged
    node.leaves.append((4, leaf("c")))
    node.final = 4
    again = sit(node)
    assert published(tmp_path) == before
    assert again.look() == 1
    assert len(ledger(tmp_path)) == 3


@pytest.mark.parametrize("lie", ["left out", "made up", "moved"])
def test_a_node_whose_logs_are_not_the_tree_gets_no_signature(tmp_path, sit, lie):
    truth = Node((3, leaf("a")), (4, leaf("b")))
    node = Node(*truth.leaves)
    if lie == "left out":
        node.hidden = {leaf("a")}
    elif lie == "made up":
        logs = node._logs
        node._logs = lambda a, b: [
            *logs(a, b),
            *Node(*node.leaves, (4, leaf("x")))._logs(4, 4)[-1:],
        ]
    else:
        node._logs = Node((3, leaf("b")), (4, leaf("a")))._logs
    validator = sit(node)
    with pytest.raises(TreeDiffers):
        validator.look()
    assert published(tmp_path) == {}
    assert ledger(tmp_path) == []
    node.__dict__.pop("_logs", None)
    node.hidden = set()
    assert validator.look() == 2  # once it tells the truth


def test_a_last_leaf_left_out_is_noticed(sit):
    node = Node((3, leaf("a")), (4, leaf("b")))
    node.hidden = {leaf("b")}
    with pytest.raises(TreeDiffers, match="1 leaves, the contract has 2"):
        sit(node).look()


def test_a_reorganised_final_block_is_not_signed_again(tmp_path, sit):
    node = Node((3, leaf("a")), (4, leaf("b")))
    validator = sit(node)
    validator.look()
    before = published(tmp_path)
    validator.close()
    other = Node((3, leaf("a")), (4, leaf("z")), (5, leaf("c")))
    again = sit(other)
    with pytest.raises(Equivocation, match="Checkpoint 1"):
        again.look()
    assert published(tmp_path) == before
    assert len(ledger(tmp_path)) == 2


def test_a_reorganisation_while_it_runs_stops_it_too(tmp_path, sit):
    node = Node((3, leaf("a")), (4, leaf("b")))
    validator = sit(node)
    validator.look()
    node.leaves = [(3, leaf("z")), (4, leaf("b")), (6, leaf("c"))]
    node.final = 6
    with pytest.raises(TreeDiffers):
        validator.look()
    assert set(published(tmp_path)) == {0, 1}


def test_an_old_copy_of_the_ledger_is_noticed(tmp_path, sit):
    """The ledger forgets b; its file is still there, so another b is not signed."""
    node = Node((3, leaf("a")))
    first = sit(node)
    first.look()
    first.close()
    old = {p.name: p.read_bytes() for p in tmp_path.glob("validator.jsonl*")}
    node = Node((3, leaf("a")), (4, leaf("b")))
    second = sit(node)
    second.look()
    second.close()
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    third = sit(Node((3, leaf("a")), (4, leaf("z"))))
    before = published(tmp_path)
    with pytest.raises(Equivocation):
        third.look()
    assert published(tmp_path) == before


def test_a_cut_ledger_is_a_fault(tmp_path, sit):
    first = sit(Node((3, leaf("a")), (4, leaf("b"))))
    first.look()
    first.close()
    path = tmp_path / "validator.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    with pytest.raises(LedgerDamaged):
        sit(Node((3, leaf("a")), (4, leaf("z"))))


def test_another_trees_ledger_is_a_fault(tmp_path, sit):
    first = sit(Node((3, leaf("a"))))
    first.look()
    first.close()
    text = (tmp_path / "validator.jsonl").read_text()
    assert f'"domain":{CHAIN}' in text
    node = Node((3, leaf("a")))
    answer = node._answer
    other = word(CHAIN + 1).hex()

    def lie(method, params):
        told = answer(method, params)
        return "0x" + other if told == "0x" + word(CHAIN).hex() else told

    node._answer = lie
    with pytest.raises(Fault, match="another chain or tree"):
        sit(node)


def test_only_one_process_signs_at_a_time(sit):
    sit(Node())
    with pytest.raises(Unavailable, match="another process"):
        sit(Node())


def test_the_wrong_chain_is_named(sit):
    node = Node()
    node.chain_id = 5
    with pytest.raises(WrongChain, match="chain 5"):
        sit(node)


def test_a_node_that_is_away_is_waited_for(sit):
    node = Node((3, leaf("a")))
    validator = sit(node)
    node.down = True
    stop, said = threading.Event(), []
    waits = []

    class Stop:
        def is_set(self):
            return stop.is_set()

        def wait(self, wait_s):
            waits.append(wait_s)
            node.down = len(waits) < 4
            if len(waits) == 6:
                stop.set()

    validate(validator, 1.0, Stop(), said.append)
    assert waits == [2.0, 4.0, 8.0, 16.0, 1.0, 1.0]
    assert said == ["1 checkpoints signed, home chain read to block 3"]


def test_an_equivocation_is_not_waited_out(sit):
    node = Node((3, leaf("a")))
    first = sit(node)
    first.look()
    first.close()
    again = sit(Node((3, leaf("z"))))
    with pytest.raises(Equivocation):
        validate(again, 1.0, threading.Event(), print)


POINTS = ("before the ledger", "after the ledger", "after signing", "after publishing")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("world", ["the same", "another"])
def test_killed_at_any_point_it_never_signs_two_roots(tmp_path, sit, keys, point, world):
    """kill -9, then a start in the same world, or in one where the leaf is another."""
    shown = tmp_path / "shown"  # every signature that ever left the key, of both lives
    sign = MemberKeys.sign_digest

    def note(self, digest):
        with shown.open("ab") as file:
            file.write(digest)
        return sign(self, digest)

    child = os.fork()
    if child == 0:
        validator = sit(Node((3, leaf("a"))))
        MemberKeys.sign_digest = note
        if point == "before the ledger":
            validator._ledger.append = lambda entry: die()
        elif point == "after the ledger":
            validator._publish = lambda checkpoint: die()
        elif point == "after signing":
            validator._write = lambda name, content: die()
        validator.look()
        die()
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    MemberKeys.sign_digest = note
    try:
        again = sit(Node((3, leaf("a" if world == "the same" else "z"))))
        try:
            again.look()
            stopped = False
        except Equivocation:
            stopped = True
    finally:
        MemberKeys.sign_digest = sign
    digests = {shown.read_bytes()[i : i + 32] for i in range(0, shown.stat().st_size, 32)}
    assert len(digests) == 1  # one root of index 0, whatever happened
    assert stopped == (world == "another" and point != "before the ledger")
    (checkpoint,) = published(tmp_path).values()
    assert {checkpoint.digest} == digests


@settings(max_examples=30)
@given(st.lists(st.integers(1, 3), max_size=8), st.integers(0, 8))
def test_looks_may_fall_anywhere(tmp_path_factory, blocks, stop):
    """Whatever is final when it looks, and wherever it restarts, the checkpoints are the tree's."""
    folder = tmp_path_factory.mktemp("v")
    leaves, block = [], 1
    for number, step in enumerate(blocks):
        block += step - 1  # several leaves may share a block
        leaves.append((block, leaf(str(number))))
    node = Node(*leaves)
    keys = MemberKeys.ephemeral()
    home = HomeChainAt(rpc_url="http://127.0.0.1:1", chain_id=CHAIN, membership=BOX, registry=BOX)
    at = ValidatorAt(
        merkle_tree_hook=HOOK, from_block=1, storage=folder / "public", location="file:///p"
    )
    made = 0
    for final in range(1, block + 1):
        node.final = final
        with Validator(home, at, folder / "v.jsonl", keys, node) as validator:
            made += validator.look()
            if final != stop:
                made += validator.look()
    found, tree = published(folder), MerkleTree()
    assert made == len(leaves) == len(found)
    for index, (_, message_id) in enumerate(leaves):
        tree.insert(message_id)
        assert (found[index].root, found[index].message_id) == (tree.root, message_id)
