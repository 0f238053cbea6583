"""Ids, ballots and logs of governance, against eth-account and the arithmetic of the standard."""

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.venues import governance as gov
from fedtrade.venues.codec import Call, LogUnreadable
from fedtrade.venues.governance import Proposal, Support

ADDRESS = st.binary(min_size=20, max_size=20).map(lambda b: "0x" + b.hex())
CALLS = st.lists(
    st.builds(Call, ADDRESS, st.binary(max_size=40), st.integers(0, 2**128)), max_size=4
)


@given(CALLS, st.text(max_size=30))
def test_a_proposals_id_is_the_governors(calls, description):
    proposal = Proposal(tuple(calls), description)
    targets, values = [c.to for c in calls], [c.value_wei for c in calls]
    content = [targets, values, [c.data for c in calls], keccak(text=description)]
    types = ["address[]", "uint256[]", "bytes[]", "bytes32"]
    assert proposal.id == int.from_bytes(keccak(encode(types, content)))
    for function, call in (
        (gov.QUEUE, proposal.queue),
        (gov.EXECUTE, proposal.execute),
        (gov.CANCEL, proposal.cancel),
    ):
        sent = call("0x" + "11" * 20)
        found = function.decode_input(sent.data)
        assert [list(part) for part in found[:3]] == content[:3]
        assert found[3] == content[3]


def log_of(proposal, **changes):
    fields = {
        "id": proposal.id, "proposer": "0x" + "22" * 20, "targets": [c.to for c in proposal.calls],
        "values": [c.value_wei for c in proposal.calls], "signatures": [b""] * len(proposal.calls),
        "data": [c.data for c in proposal.calls], "begins": 5, "ends": 9,
        "why": proposal.description.encode("utf-8", "surrogateescape"),
    } | changes  # fmt: skip
    types = gov.PROPOSAL_CREATED.data[1:-1].split(",")
    data = encode(types, list(fields.values()))
    topics = [gov.PROPOSAL_CREATED.topic]
    return {"topics": topics, "data": "0x" + data.hex(), "blockNumber": "0x7"}


@given(CALLS, st.binary(max_size=30))
def test_what_a_log_says_is_what_was_proposed(calls, description):
    """Also when the description is no UTF-8: the id stays what it is."""
    why = description.decode("utf-8", "surrogateescape")
    calls = tuple(Call(gov.to_checksum_address(c.to), c.data, c.value_wei) for c in calls)
    found = gov.decode_proposed(log_of(Proposal(calls, why)))
    assert found.proposal == Proposal(calls, why)
    assert (found.vote_begins_s, found.vote_ends_s, found.block) == (5, 9, 7)


def test_a_log_whose_id_is_not_that_of_its_content_is_refused():
    proposal = Proposal((Call("0x" + "33" * 20, b"\1"),), "why")
    for changes in ({"id": 7}, {"data": [b"\2"]}, {"targets": []}, {"why": b"other"}):
        with pytest.raises(LogUnreadable, match="its id is not that of its content"):
            gov.decode_proposed(log_of(proposal, **changes))


@given(
    st.integers(0, 2**256 - 1),
    st.sampled_from(Support),
    st.integers(0, 2**64),
    st.integers(1, 2**32),
)
def test_a_ballot_is_what_eth_account_signs(proposal_id, support, nonce, chain_id):
    key, governor = Account.from_key(b"\5" * 32), "0x" + "44" * 20
    signable = encode_typed_data(
        domain_data={
            "name": "fedtrade ConsortiumGovernor",
            "version": "1",
            "chainId": chain_id,
            "verifyingContract": governor,
        },
        message_types={
            "Ballot": [
                {"name": "proposalId", "type": "uint256"},
                {"name": "support", "type": "uint8"},
                {"name": "voter", "type": "address"},
                {"name": "nonce", "type": "uint256"},
            ]
        },
        message_data={
            "proposalId": proposal_id,
            "support": int(support),
            "voter": key.address,
            "nonce": nonce,
        },
    )
    theirs = bytes(key.sign_message(signable).message_hash)
    ours = gov.ballot_digest(chain_id, governor, proposal_id, support, key.address, nonce)
    assert ours == theirs


def test_roles_are_who_was_granted_and_not_revoked():
    def log(event, role, account):
        words = [role, bytes(12) + bytes([account]) * 20, bytes(32)]
        return {"topics": [event.topic, *("0x" + w.hex() for w in words)], "data": "0x"}

    granted, revoked = gov.ROLE_GRANTED, gov.ROLE_REVOKED
    logs = [
        log(granted, gov.ADMIN_ROLE, 1),
        log(granted, gov.PROPOSER_ROLE, 1),
        log(granted, b"\7" * 32, 2),
        log(revoked, gov.PROPOSER_ROLE, 1),
        log(revoked, gov.EXECUTOR_ROLE, 1),
    ]
    one, two = "0x" + "01" * 20, "0x" + "02" * 20
    assert gov.holders(logs) == {("admin", one), ("0x" + "07" * 32, two)}
    assert ("proposer", one) in gov.holders(logs[:3])
