"""Agreement as a rule: what counts as the same, who is left, and that one node is never a majority."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.chain import agreement
from fedtrade.chain.agreement import (
    SEND,
    Ballot,
    NodeUseless,
    Standing,
    agreed_head,
    agreed_number,
    canonical,
    distinct,
    head_from,
    header_of,
    majority,
    pinned,
    tag_of,
    transaction_hash,
    trust_line,
    vote_of,
)
from fedtrade.chain.rpc import NodeRefused
from fedtrade.errors import BadInput
from fedtrade.market.events import Head
from fedtrade.venues.codec import AnswerUnreadable

HEAD = Head(7, "0x" + "07" * 32, "0x" + "06" * 32, 1000, 10**9)
GAS = "eth_estimateGas"


def refused(reason, code=-32000, data=""):
    return NodeRefused("m", code, reason, data)


def ballot(method, *replies, head=HEAD):
    found = Ballot(method, len(replies))
    for node, reply in enumerate(replies):
        if reply is not ...:
            found.cast(node, reply, head)
    return found


@pytest.mark.parametrize(("nodes", "need"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (9, 5)])
def test_a_majority_is_of_those_configured(nodes, need):
    assert majority(nodes) == need


@given(
    truth=st.integers(0, 2**64),
    lie=st.integers(0, 2**64),
    liar=st.integers(0, 2),
    late=st.booleans(),
)
def test_one_of_three_changes_no_answer(truth, lie, liar, late):
    """Whatever one node says, or whether it says anything, the answer is the others'."""
    says = [hex(truth)] * 3
    says[liar] = ... if late else hex(lie)
    found = ballot("eth_getBalance", *says)
    outcome = found.outcome()
    assert outcome is not None
    assert found.result(outcome) == hex(truth)
    assert found.against(outcome) == ([liar] if not late and lie != truth else [])


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9))
def test_no_minority_is_ever_believed(said):
    found = ballot("eth_getBalance", *map(hex, said))
    outcome = found.outcome(everybody=True)
    most = max(said.count(one) for one in said)
    assert (outcome is not None) == (most >= len(said) // 2 + 1)


@given(
    honest=st.lists(st.integers(90_000, 110_000), min_size=2, max_size=2), lie=st.integers(0, 2**80)
)
def test_an_estimate_is_within_a_quarter_of_an_honest_one(honest, lie):
    found = ballot(GAS, hex(lie), *map(hex, honest))
    outcome = found.outcome()
    assert outcome is not None
    gas = int(found.result(outcome), 16)
    assert min(honest) * 4 <= gas * 5
    assert gas * 4 <= max(honest) * 5
    assert set(found.against(outcome)) <= {0}


def test_estimates_that_lie_apart_are_none():
    assert ballot(GAS, "0x5208", "0xfffff", ...).outcome(everybody=True) is None
    assert ballot(GAS, "0x5208", "0x5208", ...).outcome() == ("result", '"0x5208"')


def test_a_revert_is_agreed_on_by_its_data():
    revert = refused("execution reverted: no", 3, "0xabcd")
    found = ballot("eth_call", revert, refused("VM Exception: revert", -32015, "0xABCD"), "0x01")
    outcome = found.outcome()
    assert outcome == ("reverted", "0xabcd")
    assert found.against(outcome) == [2]
    with pytest.raises(NodeRefused, match="execution reverted"):
        found.result(outcome)
    assert ballot("eth_call", revert, refused("header not found"), "0x01").outcome(True) is None


@pytest.mark.parametrize("error", [refused("too many requests", 429), refused("x", -32005)])
def test_a_node_that_serves_nobody_has_no_vote(error):
    with pytest.raises(NodeUseless, match="refuses to serve"):
        vote_of("eth_call", error)


@pytest.mark.parametrize(
    ("replies", "outcome"),
    [
        (["0x01", refused("insufficient funds"), refused("insufficient funds")], "result"),
        ([refused("nonce too low"), refused("nonce is too low"), ...], "refused"),
        ([refused("insufficient funds"), refused("already known"), ...], "result"),
        ([refused("insufficient funds"), ..., ...], "result"),
    ],
)
def test_what_may_be_out_is_out(replies, outcome):
    """One node's refusal never calls a transaction back that another may have passed on."""
    assert ballot(SEND, *replies).outcome(everybody=True)[0] == outcome


def test_sending_waits_for_everybody_unless_one_takes_it():
    poor = refused("insufficient funds")
    assert ballot(SEND, poor, poor, ...).outcome() is None
    assert ballot(SEND, poor, "0x01", ...).outcome() == ("result", "null")


def test_a_transaction_that_one_node_has_is_there():
    has = {"hash": HEAD.hash, "nonce": "0x0"}
    method = "eth_getTransactionByHash"
    assert ballot(method, None, None, has).outcome()[1] != "null"
    assert ballot(method, None, None, ...).outcome() is None
    assert ballot(method, None, None, ...).outcome(everybody=True) == ("result", "null")


def receipt(block, status="0x1"):
    return {
        "transactionHash": HEAD.hash, "blockNumber": hex(block), "blockHash": HEAD.hash,
        "status": status, "gasUsed": "0x1", "effectiveGasPrice": "0x1", "logs": [], "more": "x",
    }  # fmt: skip


def test_a_receipt_from_above_the_head_is_none_yet():
    method = "eth_getTransactionReceipt"
    assert canonical(method, receipt(8), HEAD) is None
    assert canonical(method, receipt(7), HEAD)["status"] == "0x1"
    assert ballot(method, receipt(8), None, ...).outcome() == ("result", "null")
    assert ballot(method, receipt(7), None, ...).outcome(True) is None


def log(index, data="0xAA"):
    return {
        "address": "0x" + "AB" * 20, "topics": [HEAD.hash], "data": data, "blockNumber": "0x7",
        "blockHash": HEAD.hash, "logIndex": hex(index), "removed": False,
    }  # fmt: skip


def test_logs_are_compared_in_order_and_by_what_is_read():
    one, other = [log(1), log(0)], [{**log(0), "extra": 1}, log(1)]
    assert canonical("eth_getLogs", one) == canonical("eth_getLogs", other)
    assert ballot("eth_getLogs", one, other, [log(0)]).outcome() is not None
    assert ballot("eth_getLogs", one, one + one, [log(0)]).outcome(True) is None
    assert ballot("eth_getLogs", [log(0, "0xab")], [log(0, "0xac")], ...).outcome(True) is None


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("eth_getBalance", None), ("eth_getBalance", "x"), ("eth_getBalance", hex(2**256)),
        ("eth_call", None), ("eth_call", "0x1"), ("eth_getLogs", None), ("eth_getLogs", [1]),
        ("eth_getBlockByNumber", {"number": "0x1"}), ("eth_getTransactionReceipt", {}),
        ("eth_getBlockByNumber", {**header_of(HEAD), "number": hex(2**63)}),
        ("eth_getBlockByNumber", {**header_of(HEAD), "hash": "0x12"}),
        ("eth_getTransactionReceipt", receipt(2**63)),
    ],
)  # fmt: skip
def test_an_answer_of_the_wrong_form_is_no_vote(method, result):
    with pytest.raises(NodeUseless, match="cannot be read"):
        vote_of(method, result, HEAD)


def test_a_head_and_back():
    assert head_from(header_of(HEAD)) == HEAD
    with pytest.raises(AnswerUnreadable):
        head_from([])


@given(honest=st.lists(st.integers(0, 100), min_size=2, max_size=2), lie=st.integers(0, 2**62))
def test_the_agreed_height_was_reached_by_an_honest_node(honest, lie):
    assert min(honest) <= agreed_number([*honest, lie], 3) <= max(honest)
    assert agreed_number([lie], 3) is None


@pytest.mark.parametrize(
    ("numbers", "enough"),
    [([100], False), ([100, 99], True), ([100, 90], False), ([100, 90, 99], True),
     ([10**9, 100], False), ([10**9, 100, 100], False)],
)  # fmt: skip
def test_a_third_is_heard_where_two_lie_far_apart(numbers, enough):
    assert agreement.enough_heads(numbers, 3) == enough


def test_a_head_is_agreed_on_in_every_field():
    later = Head(HEAD.number, HEAD.hash, HEAD.parent_hash, HEAD.timestamp_s + 1, HEAD.base_fee_wei)
    assert agreed_head({0: HEAD, 1: later}, 3) is None
    assert agreed_head({0: HEAD, 1: later, 2: HEAD}, 3) == HEAD
    assert agreed_head({0: HEAD}, 3) is None


def test_reads_are_pinned_by_hash():
    pin = {"blockHash": HEAD.hash, "requireCanonical": True}
    assert pinned("eth_call", [{"to": "0x1"}, "latest"], HEAD) == [{"to": "0x1"}, pin]
    assert pinned("eth_call", [{"to": "0x1"}, "0x7"], HEAD) == [{"to": "0x1"}, pin]
    assert pinned("eth_call", [{"to": "0x1"}, "0x6"], HEAD) == [{"to": "0x1"}, "0x6"]
    assert pinned("eth_estimateGas", [{"to": "0x1"}], HEAD) == [{"to": "0x1"}, pin]
    assert pinned("eth_getTransactionReceipt", ["0x1"], HEAD) == ["0x1"]
    assert pinned("eth_getLogs", [{"fromBlock": "0x1"}], HEAD)[0]["toBlock"] == "0x7"
    assert pinned("eth_getLogs", [{"blockHash": "0x1"}], HEAD) == [{"blockHash": "0x1"}]
    assert tag_of("eth_getBlockByNumber", ["finalized", False]) == "finalized"
    assert tag_of("eth_chainId", []) is None
    assert tag_of("eth_call", [{}, "0x6"]) is None
    with pytest.raises(BadInput, match="pending"):
        tag_of("eth_getTransactionCount", ["0x1", "pending"])


def test_a_node_is_left_for_longer_each_time_and_forgiven_in_the_end():
    standing = Standing("http://x")
    rests = []
    now_s = 0.0
    for _ in range(9):
        standing.leave("it lied", now_s)
        rests.append(standing.until_s - now_s)
        assert not standing.serves(standing.until_s - 0.01)
        now_s = standing.until_s
        assert standing.serves(now_s)
    assert rests == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]
    for _ in range(agreement.GOOD_AFTER):
        standing.agreed()
    standing.leave("again", now_s)
    assert standing.until_s == now_s + 2.0


def test_bad_luck_is_no_offence_at_once():
    standing = Standing("http://x")
    for _ in range(2):
        standing.strike("behind", 0.0)
    standing.agreed()
    for _ in range(2):
        standing.strike("behind", 0.0)
    assert standing.serves(0.0)
    standing.strike("behind", 0.0)
    assert not standing.serves(0.0)


def test_whom_we_trust_is_said_plainly():
    assert "one node is trusted alone" in trust_line([Standing("http://x")])
    three = [Standing(f"http://{n}") for n in range(3)]
    three[1].leave("it is 9 blocks behind", 0.0)
    told = trust_line(three)
    assert told == "2 of 3 nodes must agree; http://1 is left: it is 9 blocks behind"


def test_a_node_that_is_named_twice_would_agree_with_itself():
    with pytest.raises(BadInput, match="agree with itself"):
        distinct(["http://x", "http://x"])
    with pytest.raises(BadInput, match="0 addresses"):
        distinct([])


def test_a_transaction_has_its_hash_from_us():
    assert transaction_hash("0x") == (
        "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )
    assert json.loads(ballot("m", {"a": 1}, {"a": 1}).outcome()[1]) == {"a": 1}
