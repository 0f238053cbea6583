"""One account, one nonce: what is sent is mined at most once, and what is stuck gives way."""

from itertools import pairwise

import pytest
from eth_account.typed_transactions import TypedTransaction
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes

from fedtrade.chain.rpc import NodeRefused, Rpc, result_of
from fedtrade.typed_data import keccak
from fedtrade.venues.codec import Call
from server.keys import CoordinatorKeys
from server.sending import Fees, NonceTaken, Sender, TooDear

GWEI = 10**9
CALL = Call(to_checksum_address("0x" + "aa" * 20), b"\x01\x02", 5)


class Node(Rpc):
    """**Stand-in** for a node: keeps what is sent, mines what it is told to."""

    def __init__(self):
        super().__init__("http://127.0.0.1:1")
        self.sent = []  # (hash, transaction)
        self.receipts = {}
        self.nonce = 7
        self.base_fee = 10 * GWEI
        self.says = None  # a refusal of eth_sendRawTransaction
        self.reverts = False

    def call(self, method, *params):
        if method == "eth_call" and self.reverts:
            raise NodeRefused(method, 3, "execution reverted", "0x")
        answers = {
            "eth_call": "0x",
            "eth_estimateGas": hex(100_000),
            "eth_getTransactionCount": hex(self.nonce),
            "eth_getBlockByNumber": {"baseFeePerGas": hex(self.base_fee)},
        }
        if method == "eth_sendRawTransaction":
            return self._send(params[0])
        if method == "eth_getTransactionReceipt":
            return self.receipts.get(params[0])
        return result_of(method, {"result": answers[method]})

    def _send(self, raw):
        if self.says is not None:
            raise NodeRefused("eth_sendRawTransaction", -32000, self.says, "")
        fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        name = "0x" + keccak(bytes.fromhex(raw[2:])).hex()
        self.sent.append((name, fields))
        return name

    def mine(self, which, good=True):
        name, fields = self.sent[which]
        self.receipts[name] = {"status": "0x1" if good else "0x0", "gasUsed": hex(90_000)}
        self.nonce = fields["nonce"] + 1


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def setting():
    node, clock = Node(), Clock()
    fees = Fees(200 * GWEI, GWEI, replace_after_s=60.0, attempts_max=3)
    return node, clock, Sender("aster", 5, node, CoordinatorKeys.ephemeral(), fees, clock)


def test_a_mined_transaction_is_told_once(setting):
    node, _, sender = setting
    assert sender.settle() is None
    sender.send(CALL, "a post")
    assert sender.busy
    assert sender.settle() is None
    node.mine(0)
    settled = sender.settle()
    assert (settled.what, settled.outcome, settled.gas) == ("a post", "mined", 90_000)
    assert not sender.busy
    assert sender.settle() is None
    fields = node.sent[0][1]
    assert (fields["nonce"], fields["chainId"], fields["value"]) == (7, 5, 5)
    assert fields["gas"] == 125_000
    assert fields["maxFeePerGas"] == 21 * GWEI


def test_a_revert_when_mined_is_told(setting):
    node, _, sender = setting
    sender.send(CALL, "a post")
    node.mine(0, good=False)
    assert sender.settle().outcome == "reverted"


def test_what_would_revert_is_not_sent(setting):
    node, _, sender = setting
    node.reverts = True
    with pytest.raises(NodeRefused):
        sender.send(CALL, "a post")
    assert node.sent == []
    assert not sender.busy


def test_only_one_is_under_way(setting):
    _, _, sender = setting
    sender.send(CALL, "a post")
    with pytest.raises(NonceTaken):
        sender.send(CALL, "another")


def test_a_stuck_one_is_replaced_then_given_up_then_outbid(setting):
    node, clock, sender = setting
    sender.send(CALL, "old")
    for _ in range(2):
        clock.now += 59.0
        assert sender.settle() is None
        clock.now += 2.0
        assert sender.settle() is None
    clock.now += 61.0
    assert sender.settle().outcome == "given up"
    sender.send(Call(CALL.to, b"\x03", 0), "new")
    fees = [fields["maxFeePerGas"] for _, fields in node.sent]
    tips = [fields["maxPriorityFeePerGas"] for _, fields in node.sent]
    assert len(fees) == 4
    assert {fields["nonce"] for _, fields in node.sent} == {7}  # at most one is ever mined
    assert all(b * 10 >= a * 11 for a, b in pairwise(fees))
    assert all(b * 10 >= a * 11 for a, b in pairwise(tips))
    node.mine(3)
    assert sender.settle().what == "new"


def test_an_earlier_attempt_that_is_mined_counts(setting):
    node, clock, sender = setting
    sender.send(CALL, "a post")
    clock.now += 61.0
    sender.settle()
    node.mine(0)
    assert sender.settle().outcome == "mined"


def test_a_nonce_that_another_program_used_ends_it(setting):
    node, clock, sender = setting
    sender.send(CALL, "a post")
    node.nonce = 8
    clock.now += 61.0
    assert sender.settle().outcome == "given up"
    assert len(node.sent) == 1


def test_above_the_cap_nothing_is_sent(setting):
    node, clock, sender = setting
    node.base_fee = 150 * GWEI
    with pytest.raises(TooDear, match="301 gwei and the cap is 200"):
        sender.send(CALL, "a post")
    node.base_fee = 99 * GWEI
    sender.send(CALL, "a post")
    clock.now += 61.0
    with pytest.raises(TooDear):  # a replacement would pass it
        sender.settle()
    assert len(node.sent) == 1
    node.mine(0)
    assert sender.settle().outcome == "mined"


def test_after_a_kill_it_outbids_its_former_self(setting):
    """A new process knows nothing of the transaction that is stuck at its nonce."""
    node, _, sender = setting
    node.says = "replacement transaction underpriced"
    fees = []
    sign = sender._keys

    class Watch:
        address = sign.address

        def sign_transaction(self, transaction):
            fees.append(transaction["maxFeePerGas"])
            return sign.sign_transaction(transaction)

    sender._keys = Watch()
    for _ in range(3):
        with pytest.raises(NonceTaken, match="underpriced"):
            sender.send(CALL, "a post")
    node.says = None
    sender.send(CALL, "a post")
    assert fees == sorted(set(fees))
    assert len(node.sent) == 1


def test_what_the_node_knows_already_is_under_way(setting):
    node, _, sender = setting
    node.says = "already known"
    sender.send(CALL, "a post")
    assert sender.busy
    (name,) = sender._underway.transactions
    node.receipts[name] = {"status": "0x1", "gasUsed": "0x5"}
    assert sender.settle().outcome == "mined"


def test_any_other_refusal_is_the_nodes_own(setting):
    node, _, sender = setting
    node.says = "insufficient funds for gas * price + value"
    with pytest.raises(NodeRefused, match="insufficient funds"):
        sender.send(CALL, "a post")
    assert not sender.busy
