"""Governor, timelock and what they govern, sans-I/O: proposals, ballots, and calls in words.

A proposal is a list of calls and a description; its id is the keccak of both (OpenZeppelin's
Governor 5, `hashProposal`), so it can be computed before it is made, and the same proposal cannot be
made twice. A ballot is EIP-712 typed data that anybody may hand in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from fedtrade.typed_data import keccak, typed_digest, word
from fedtrade.venues.codec import Call, Function, LogShape, LogUnreadable, field, quantity

GOVERNOR_NAME: Final = b"fedtrade ConsortiumGovernor"

_ACTIONS: Final = "address[],uint256[],bytes[]"
PROPOSE: Final = Function(f"propose({_ACTIONS},string)", "(uint256)")
QUEUE: Final = Function(f"queue({_ACTIONS},bytes32)", "(uint256)")
EXECUTE: Final = Function(f"execute({_ACTIONS},bytes32)", "(uint256)")
CANCEL: Final = Function(f"cancel({_ACTIONS},bytes32)", "(uint256)")
CAST_VOTE: Final = Function("castVoteWithReason(uint256,uint8,string)", "(uint256)")
CAST_VOTE_BY_SIG: Final = Function("castVoteBySig(uint256,uint8,address,bytes)", "(uint256)")

STATE: Final = Function("state(uint256)", "(uint8)")
PROPOSAL_VOTES: Final = Function("proposalVotes(uint256)", "(uint256,uint256,uint256)")
PROPOSAL_SNAPSHOT: Final = Function("proposalSnapshot(uint256)", "(uint256)")
PROPOSAL_DEADLINE: Final = Function("proposalDeadline(uint256)", "(uint256)")
PROPOSAL_ETA: Final = Function("proposalEta(uint256)", "(uint256)")
QUORUM: Final = Function("quorum(uint256)", "(uint256)")
HAS_VOTED: Final = Function("hasVoted(uint256,address)", "(bool)")
NONCES: Final = Function("nonces(address)", "(uint256)")
GET_VOTES: Final = Function("getVotes(address,uint256)", "(uint256)")
GRACE: Final = Function("GRACE_S()", "(uint256)")
VOTING_DELAY: Final = Function("votingDelay()", "(uint256)")
VOTING_PERIOD: Final = Function("votingPeriod()", "(uint256)")
LATE_QUORUM: Final = Function("lateQuorumVoteExtension()", "(uint48)")
QUORUM_BPS: Final = Function("quorumNumerator()", "(uint256)")
PROPOSAL_GUARDIAN: Final = Function("proposalGuardian()", "(address)")
TOKEN: Final = Function("token()", "(address)")
TIMELOCK: Final = Function("timelock()", "(address)")
SET_PROPOSAL_GUARDIAN: Final = Function("setProposalGuardian(address)")
SET_VOTING_DELAY: Final = Function("setVotingDelay(uint48)")
SET_VOTING_PERIOD: Final = Function("setVotingPeriod(uint32)")
SET_LATE_QUORUM: Final = Function("setLateQuorumVoteExtension(uint48)")
SET_QUORUM_BPS: Final = Function("updateQuorumNumerator(uint256)")

SCHEDULE_BATCH: Final = Function(f"scheduleBatch({_ACTIONS},bytes32,bytes32,uint256)")
EXECUTE_BATCH: Final = Function(f"executeBatch({_ACTIONS},bytes32,bytes32)")
GRANT_ROLE: Final = Function("grantRole(bytes32,address)")
REVOKE_ROLE: Final = Function("revokeRole(bytes32,address)")
UPDATE_DELAY: Final = Function("updateDelay(uint256)")
MIN_DELAY: Final = Function("getMinDelay()", "(uint256)")

OWNER: Final = Function("owner()", "(address)")
PENDING_OWNER: Final = Function("pendingOwner()", "(address)")
GUARDIAN: Final = Function("guardian()", "(address)")
STEWARD: Final = Function("steward()", "(address)")
SET_GUARDIAN: Final = Function("setGuardian(address)")

ADMIN_ROLE: Final = bytes(32)
PROPOSER_ROLE: Final = keccak(b"PROPOSER_ROLE")
EXECUTOR_ROLE: Final = keccak(b"EXECUTOR_ROLE")
CANCELLER_ROLE: Final = keccak(b"CANCELLER_ROLE")
ROLES: Final = {
    ADMIN_ROLE: "admin",
    PROPOSER_ROLE: "proposer",
    EXECUTOR_ROLE: "executor",
    CANCELLER_ROLE: "canceller",
}

PROPOSAL_CREATED: Final = LogShape(
    "ProposalCreated(uint256,address,address[],uint256[],string[],bytes[],uint256,uint256,string)",
    "()",
    # A string that is no UTF-8 must not hide the proposal: it is taken as bytes.
    "(uint256,address,address[],uint256[],bytes[],bytes[],uint256,uint256,bytes)",
)
ROLE_GRANTED: Final = LogShape(
    "RoleGranted(bytes32,address,address)", "(bytes32,address,address)", "()"
)
ROLE_REVOKED: Final = LogShape(
    "RoleRevoked(bytes32,address,address)", "(bytes32,address,address)", "()"
)

_BALLOT_TYPE: Final = keccak(
    b"Ballot(uint256 proposalId,uint8 support,address voter,uint256 nonce)"
)


class ProposalState(IntEnum):
    """Where a proposal stands, in the order of the contract's enum."""

    PENDING = 0
    ACTIVE = 1
    CANCELED = 2
    DEFEATED = 3
    SUCCEEDED = 4
    QUEUED = 5
    EXPIRED = 6
    EXECUTED = 7


class Support(IntEnum):
    """What a vote says."""

    AGAINST = 0
    FOR = 1
    ABSTAIN = 2


@dataclass(frozen=True, slots=True)
class Proposal:
    """Calls that the timelock is to make, and why."""

    calls: tuple[Call, ...]
    description: str
    """Bytes that are no UTF-8 stand in it as lone surrogates, so that the id stays what it is."""

    @property
    def id(self) -> int:
        """keccak(abi.encode(targets, values, calldatas, keccak(description)))."""
        types = ["address[]", "uint256[]", "bytes[]", "bytes32"]
        return int.from_bytes(keccak(encode(types, [*self._actions, self._description_hash])))

    @property
    def _actions(self) -> tuple[list[str], list[int], list[bytes]]:
        return (
            [call.to for call in self.calls],
            [call.value_wei for call in self.calls],
            [call.data for call in self.calls],
        )

    @property
    def _description_hash(self) -> bytes:
        return keccak(self.description.encode("utf-8", "surrogateescape"))

    def propose(self, governor: str) -> Call:
        """By whoever holds a vote."""
        return Call(governor, PROPOSE.encode(*self._actions, self.description))

    def queue(self, governor: str) -> Call:
        """By anybody, once it has passed."""
        return Call(governor, QUEUE.encode(*self._actions, self._description_hash))

    def execute(self, governor: str) -> Call:
        """By anybody, once it has waited."""
        return Call(governor, EXECUTE.encode(*self._actions, self._description_hash))

    def cancel(self, governor: str) -> Call:
        """By its proposer until voting begins, by the guardian until it is executed."""
        return Call(governor, CANCEL.encode(*self._actions, self._description_hash))


@dataclass(frozen=True, slots=True)
class Proposed:
    """A proposal as the governor's log has it."""

    id: int
    proposer: str
    proposal: Proposal
    vote_begins_s: int
    vote_ends_s: int
    """As proposed: a quorum that is reached late moves it."""
    block: int


def decode_proposed(log: Mapping[str, Any]) -> Proposed:
    """A ProposalCreated log. Raises LogUnreadable, also if its id is not that of its content."""
    _, values = PROPOSAL_CREATED.decode(log)
    number, proposer, targets, amounts, _, calldatas, begins, ends, description = values
    calls = tuple(
        Call(to_checksum_address(to), data, value)
        for to, value, data in zip(targets, amounts, calldatas, strict=False)
    )
    proposal = Proposal(calls, description.decode("utf-8", "surrogateescape"))
    if proposal.id != number:
        raise LogUnreadable("ProposalCreated", "its id is not that of its content")
    block = quantity(field(log, "blockNumber"))
    return Proposed(number, to_checksum_address(proposer), proposal, begins, ends, block)


def ballot_digest(
    chain_id: int, governor: str, proposal_id: int, support: Support, voter: str, nonce: int
) -> bytes:
    """What a voter signs, for anybody to hand in (EIP-712; OpenZeppelin's `Ballot`)."""
    struct = (
        _BALLOT_TYPE
        + word(proposal_id)
        + word(support)
        + bytes(12)
        + bytes.fromhex(voter[2:])
        + word(nonce)
    )
    return typed_digest(GOVERNOR_NAME, chain_id, governor, struct)


def vote(governor: str, proposal_id: int, support: Support, reason: str = "") -> Call:
    """A vote of the sender."""
    return Call(governor, CAST_VOTE.encode(proposal_id, support, reason))


def vote_by_signature(
    governor: str, proposal_id: int, support: Support, voter: str, signature: bytes
) -> Call:
    """A vote of somebody who has signed `ballot_digest`."""
    return Call(governor, CAST_VOTE_BY_SIG.encode(proposal_id, support, voter, signature))


def schedule(timelock: str, calls: Sequence[Call], salt: bytes) -> Call:
    """Without delay and without a predecessor: only a founder's timelock takes it."""
    return Call(timelock, SCHEDULE_BATCH.encode(*_batch(calls), bytes(32), salt, 0))


def execute_batch(timelock: str, calls: Sequence[Call], salt: bytes) -> Call:
    """What `schedule` has scheduled."""
    return Call(timelock, EXECUTE_BATCH.encode(*_batch(calls), bytes(32), salt))


def _batch(calls: Sequence[Call]) -> tuple[list[str], list[int], list[bytes]]:
    return Proposal(tuple(calls), "")._actions


def holders(logs: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """(role, account) of everybody who holds a role after these logs, in order."""
    held: set[tuple[bytes, str]] = set()
    for log in logs:
        granted = ROLE_GRANTED.matches(log)
        (role, account, _), _ = (ROLE_GRANTED if granted else ROLE_REVOKED).decode(log)
        entry = (role, to_checksum_address(account))
        held = held | {entry} if granted else held - {entry}
    return {(ROLES.get(role, "0x" + role.hex()), account) for role, account in held}
