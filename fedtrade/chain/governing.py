"""Governance on the home chain: what is proposed, where it stands, and what each party may do now.

Everything is tried without effect before it is sent: a proposal that breaks a rule of the parameters
is refused by the rules themselves, any other call by the contract that would refuse it, and neither
costs gas. What a proposal does is read from its calls, never from its description.

An act has ended when it is as deep as the deployment's `confirmations` ask for. One that stands
already, of an earlier run or of somebody else, but in newer blocks only, is waited for: where it
falls out it is made, and where it stays it is refused as done. The contracts take each act once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pydantic import Field, ValidationError

from fedtrade.chain.call_words import in_words
from fedtrade.chain.contracts import (
    Membership,
    ModelRegistry,
    explain,
)
from fedtrade.chain.conversation import Conversation, ask, read
from fedtrade.chain.deployment import Address, ChainDeployment
from fedtrade.chain.logs import logs_between
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.chain.rpc import NodeRefused, Rpc, eth_call
from fedtrade.chain.transacting import Receipt, Signer, Stands, stands, transact
from fedtrade.errors import BadInput, Refusal
from fedtrade.settings import Strict
from fedtrade.steering import Standing as Parameters
from fedtrade.venues import governance as gov
from fedtrade.venues.codec import Call, Function, quantity
from fedtrade.venues.codec import field as field_of
from fedtrade.venues.governance import Proposal, ProposalState, Proposed, Support

PREFIX_DIGITS: Final = 4


class NotNow(Refusal):
    """A proposal is not in the state that an act needs."""

    def __init__(self, proposal_id: int, state: ProposalState, act: str, when: str) -> None:
        super().__init__(
            f"Proposal {short(proposal_id)} is {state.name.lower()}, so it cannot be {act}. {when}"
        )
        self.state = state


class NoVote(Refusal):
    """An account has no say in a proposal."""

    def __init__(self, account: str, when: str) -> None:
        super().__init__(
            f"{account} had no vote {when}. The account of a member's seat has one, or whom it "
            "delegated to: use its key"
        )
        self.account = account


class WouldFail(Refusal):
    """A call of a proposal would revert if it were executed now."""

    def __init__(self, what: str, refused: Refusal) -> None:
        super().__init__(f"Executed now, the proposal would fail at: {what}. {refused}")
        self.what = what


@dataclass(frozen=True, slots=True)
class Change:
    """What a proposal is to do. Each field that is given becomes a call, in this order."""

    parameters: Mapping[str, int] = field(default_factory=dict)
    """New values by name."""
    admit: tuple[tuple[str, str, bytes, int], ...] = ()
    """(account, signer, X25519 key, roles) of each new seat."""
    update: tuple[tuple[int, str, bytes, int], ...] = ()
    """(id, signer, X25519 key, roles) of each seat with new keys or roles."""
    expel: tuple[int, ...] = ()
    revoke: tuple[int, ...] = ()
    """Versions of models."""
    guardian: str | None = None
    """Of registry, store and governor. The present one can cancel this."""
    governor_guardian: str | None = None
    """Of the governor alone. Proposed by itself, the present one cannot cancel it."""
    steward: str | None = None
    unpause: bool = False
    others: tuple[Call, ...] = ()
    """Calls that have no words here."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A proposal and where it stands. Times are of the chain, seconds since 1970."""

    proposed: Proposed
    state: ProposalState
    against: int
    in_favour: int
    abstaining: int
    needed: int
    """Votes for or abstaining that make the quorum."""
    ends_s: int
    """End of the vote, a late quorum's extension included."""
    eta_s: int
    """From when it may be executed; 0 until it is queued."""
    lapses_s: int
    """When it lapses unless it is queued, or executed; 0 where that is not the question."""

    @property
    def id(self) -> int:
        return self.proposed.id


class Ballot(Strict):
    """A signed vote, for anybody to hand in: a JSON file. It says nothing that is not public."""

    chain_id: int = Field(gt=0)
    governor: Address
    proposal: str = Field(pattern="^0x[0-9a-f]{1,64}$")
    support: int = Field(ge=0, le=2)
    voter: Address
    nonce: int = Field(ge=0)
    signature: str = Field(pattern="^0x[0-9a-f]{130}$")

    @classmethod
    def parse(cls, content: bytes) -> Ballot:
        """Raises BadInput."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"])) or "file"
            raise BadInput(
                "ballot", f"{place} is not as `sign-vote` writes it", "Ask the voter for the file"
            ) from None


class Voter(Signer, Protocol):
    """An account that signs transactions and digests."""

    def sign_digest(self, digest: bytes) -> bytes: ...


class Governance:
    """The governor of a home chain, with one node of that chain or several that agree."""

    def __init__(
        self, chain: ChainDeployment, rpc: Rpc, sent: Callable[[str], None] = lambda _: None
    ) -> None:
        """`sent` is told the hash of each transaction that is out and waited for."""
        self._sent = sent
        self.chain = chain
        self.at = chain.decided_here
        self._store = ParameterStore(self.at.parameter_store)
        self._rpc = rpc

    def now_s(self) -> int:
        """Time of the newest block."""
        return self._head()[1]

    def parameters(self) -> Parameters:
        """What the parameter store holds."""
        return ask(self._rpc, self._store.standing())

    def proposals(self) -> list[Standing]:
        """Every proposal that was ever made, oldest first."""
        block, _ = self._head()
        logs = ask(
            self._rpc,
            logs_between(
                self.at.governor, [gov.PROPOSAL_CREATED.topic], self.chain.from_block, block
            ),
        )
        made = [gov.decode_proposed(log) for log in logs]
        return ask(self._rpc, _standings(self.at.governor, made, block))

    def find(self, word: str) -> Standing:
        """A proposal by its id, or by the first digits of it. Raises BadInput."""
        digits = word.lower().removeprefix("0x")
        known = self.proposals()
        found = [p for p in known if f"{p.id:064x}".startswith(digits)]
        if len(digits) < PREFIX_DIGITS or len(found) != 1:
            listed = ", ".join(short(p.id) for p in known[-8:]) or "none was made yet"
            problem = "several begin so" if len(found) > 1 else "there is no such proposal"
            raise BadInput(
                f"proposal {word!r}",
                f"{problem} (at least {PREFIX_DIGITS} digits)",
                f"The newest are: {listed}",
            )
        return found[0]

    def draft(self, change: Change, why: str) -> Proposal:
        """A proposal that would succeed if it were executed now. Raises Refusal, and costs nothing.

        Raises BadInput for an empty one, the refusals of `fedtrade.governed` for parameters, and
        WouldFail for any other call that its contract would refuse.
        """
        if not why.strip():
            raise BadInput("--why", "it is empty", "Say in a sentence why members should agree")
        calls = self._calls(change)
        if not calls:
            raise BadInput("proposal", "it changes nothing", "Name at least one change")
        for call in calls:
            if call.to == self.at.governor:
                continue  # it takes them while a proposal is carried out, and at no other time
            try:
                self._rpc.call(*eth_call(call.to, call.data, sender=self.at.timelock))
            except NodeRefused as refused:
                (what,) = self.in_words([call])
                raise WouldFail(what, explain(refused)) from refused
        return Proposal(tuple(calls), why.strip())

    def propose(self, proposal: Proposal, signer: Signer) -> Receipt:
        """Make it. Raises NoVote before any gas is paid."""
        now_s = self.now_s()
        if self._votes(signer.address, now_s - 1) < 1:
            raise NoVote(signer.address, "a second ago, and proposing needs one")
        if self._is_done(self._in_state(proposal.id, *ProposalState), proposal.id):
            raise BadInput(
                f"proposal {short(proposal.id)}",
                "the same was proposed before",
                "Vote on that one, or say in other words why it is proposed again",
            )
        return self._send(proposal.propose(self.at.governor), signer)

    def vote(self, standing: Standing, support: Support, signer: Signer, why: str = "") -> Receipt:
        """Cast the signer's vote. Raises NotNow, NoVote."""
        self._require_vote(standing, signer.address)
        return self._send(gov.vote(self.at.governor, standing.id, support, why), signer)

    def sign_vote(self, standing: Standing, support: Support, signer: Voter) -> Ballot:
        """Sign a vote for somebody else to hand in. Sends nothing. Raises NotNow, NoVote."""
        self._require_vote(standing, signer.address)
        nonce = self._one(gov.NONCES, signer.address)
        digest = gov.ballot_digest(
            self.chain.chain_id, self.at.governor, standing.id, support, signer.address, nonce
        )
        return Ballot(
            chain_id=self.chain.chain_id,
            governor=self.at.governor,
            proposal=hex(standing.id),
            support=support,
            voter=signer.address,
            nonce=nonce,
            signature="0x" + signer.sign_digest(digest).hex(),
        )

    def hand_in(self, ballot: Ballot, signer: Signer) -> Receipt:
        """Hand in somebody's signed vote. Raises BadInput if it is of another governor, NotNow."""
        if (ballot.chain_id, ballot.governor) != (self.chain.chain_id, self.at.governor):
            raise BadInput(
                "ballot",
                f"it is for governor {ballot.governor} on chain {ballot.chain_id}",
                "Use the deployment file of that one",
            )
        standing = self.find(ballot.proposal[2:].rjust(64, "0"))
        self._require_vote(standing, ballot.voter)
        call = gov.vote_by_signature(
            self.at.governor,
            standing.id,
            Support(ballot.support),
            ballot.voter,
            bytes.fromhex(ballot.signature[2:]),
        )
        return self._send(call, signer)

    def queue(self, standing: Standing, signer: Signer) -> Receipt:
        """Start the delay of a proposal that has passed. Raises NotNow."""
        standing = self._steady(standing, ProposalState.QUEUED)
        self._require(standing, ProposalState.SUCCEEDED, "queued")
        return self._send(standing.proposed.proposal.queue(self.at.governor), signer)

    def execute(self, standing: Standing, signer: Signer) -> Receipt:
        """Carry out a proposal that has waited. Raises NotNow."""
        standing = self._steady(standing, ProposalState.EXECUTED)
        self._require(standing, ProposalState.QUEUED, "executed")
        if self.now_s() < standing.eta_s:
            raise NotNow(standing.id, standing.state, "executed", what_next(standing))
        return self._send(standing.proposed.proposal.execute(self.at.governor), signer)

    def cancel(self, standing: Standing, signer: Signer) -> Receipt:
        """Take a proposal back: its proposer until voting begins, the guardian until execution."""
        standing = self._steady(standing, ProposalState.CANCELED)
        ended = (ProposalState.CANCELED, ProposalState.EXECUTED, ProposalState.EXPIRED)
        if standing.state in ended:
            raise NotNow(standing.id, standing.state, "canceled", "It has come to its end.")
        return self._send(standing.proposed.proposal.cancel(self.at.governor), signer)

    def pause(self, signer: Signer) -> Receipt:
        """Stop everything; the guardian. Only a proposal lets it go on."""
        return self._send(self._store.pause(), signer)

    def veto(self, signer: Signer) -> Receipt:
        """End what the steward did; the guardian."""
        return self._send(self._store.veto(), signer)

    def tighten(self, changes: Mapping[str, int], signer: Signer) -> Receipt:
        """Tighten parameters until a proposal moves them; the guardian."""
        self.parameters().after_tighten(changes, self.now_s())
        return self._send(self._store.tighten(changes), signer)

    def revoke(self, version: int, signer: Signer) -> Receipt:
        """Withdraw a model for ever; the guardian."""
        return self._send(ModelRegistry(self.at.model_registry).revoke(version), signer)

    def in_words(self, calls: tuple[Call, ...] | list[Call]) -> list[str]:
        """What calls do, a line each, beside what stands now."""
        present = self.parameters().governed
        return [line for call in calls for line in in_words(call, self._names(), present)]

    def _calls(self, change: Change) -> list[Call]:
        at, calls = self.at, []
        if change.parameters:
            self.parameters().after_set(change.parameters, self.now_s())
            calls.append(self._store.set(change.parameters))
        seats, registry = Membership(at.membership), ModelRegistry(at.model_registry)
        calls += [seats.admit(*seat) for seat in change.admit]
        calls += [seats.update(*seat) for seat in change.update]
        calls += [seats.expel(seat) for seat in change.expel]
        calls += [registry.revoke(version) for version in change.revoke]
        if change.guardian is not None:
            calls += [
                Call(at.model_registry, gov.SET_GUARDIAN.encode(change.guardian)),
                self._store.set_guardian(change.guardian),
                Call(at.governor, gov.SET_PROPOSAL_GUARDIAN.encode(change.guardian)),
            ]
        if change.governor_guardian is not None:
            calls.append(
                Call(at.governor, gov.SET_PROPOSAL_GUARDIAN.encode(change.governor_guardian))
            )
        if change.steward is not None:
            calls.append(self._store.set_steward(change.steward))
        if change.unpause:
            calls.append(self._store.unpause())
        return [*calls, *change.others]

    def _require_vote(self, standing: Standing, voter: str) -> None:
        self._require(standing, ProposalState.ACTIVE, "voted on")
        if not self._votes(voter, standing.proposed.vote_begins_s):
            raise NoVote(voter, "when voting began")
        if self._is_done(self._voted(standing.id, voter), standing.id):
            raise BadInput(f"account {voter}", "it has voted already", "A vote cannot be changed")

    def _require(self, standing: Standing, wanted: ProposalState, act: str) -> None:
        if standing.state is not wanted:
            raise NotNow(standing.id, standing.state, act, what_next(standing))

    def _steady(self, standing: Standing, goal: ProposalState) -> Standing:
        """Where the proposal stands, once it has the state that an act leads to for good, or not."""
        if standing.state is not goal:
            return standing
        if self._is_done(self._in_state(standing.id, goal), standing.id):
            return standing
        return self.find(f"{standing.id:064x}")

    def _is_done(self, so: Stands, proposal_id: int) -> bool:
        what = f"What was done about proposal {short(proposal_id)}"
        return stands(self._rpc, self.chain.confirmations, so, what)

    def _in_state(self, proposal_id: int, *states: ProposalState) -> Stands:
        def so(block: int | str) -> Conversation[bool]:
            made, governor = (proposal_id,), self.at.governor
            ((begins_s,),) = yield from read([(governor, gov.PROPOSAL_SNAPSHOT, made)], block)
            if not begins_s:
                return False  # it was not proposed yet
            ((state,),) = yield from read([(governor, gov.STATE, made)], block)
            return ProposalState(state) in states

        return so

    def _voted(self, proposal_id: int, voter: str) -> Stands:
        def so(block: int | str) -> Conversation[bool]:
            asked = [(self.at.governor, gov.HAS_VOTED, (proposal_id, voter))]
            ((voted,),) = yield from read(asked, block)
            return bool(voted)

        return so

    def _votes(self, account: str, at_s: int) -> int:
        return self._one(gov.GET_VOTES, account, at_s)

    def _one(self, view: Function, *arguments_: object) -> int:
        ((value,),) = ask(self._rpc, read([(self.at.governor, view, arguments_)], "latest"))
        return int(value)

    def _head(self) -> tuple[int, int]:
        """(number, time) of the newest block."""
        head = self._rpc.call("eth_getBlockByNumber", "latest", False)
        return quantity(field_of(head, "number")), quantity(field_of(head, "timestamp"))

    def _send(self, call: Call, signer: Signer) -> Receipt:
        chain = self.chain
        return transact(
            self._rpc,
            chain.chain_id,
            signer,
            call,
            confirmations=chain.confirmations,
            sent=self._sent,
        )

    def _names(self) -> dict[str, str]:
        return {
            self.at.membership: "Membership",
            self.at.parameter_store: "ParameterStore",
            self.at.model_registry: "ModelRegistry",
            self.at.governor: "ConsortiumGovernor",
            self.at.timelock: "ConsortiumTimelock",
        }


def short(proposal_id: int) -> str:
    """The first digits of a proposal's id, with which commands name it."""
    return f"0x{proposal_id:064x}"[:10]


def moment(timestamp_s: int) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(timestamp_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def what_next(standing: Standing) -> str:
    """What happens next to a proposal, and when."""
    begins, ends = standing.proposed.vote_begins_s, standing.ends_s
    return {
        ProposalState.PENDING: f"Voting begins after {moment(begins)}.",
        ProposalState.ACTIVE: f"Voting ends after {moment(ends)}.",
        ProposalState.CANCELED: "It has come to its end.",
        ProposalState.DEFEATED: "It did not get enough votes.",
        ProposalState.SUCCEEDED: f"Queue it until {moment(standing.lapses_s)}.",
        ProposalState.QUEUED: f"Execute it from {moment(standing.eta_s)} to "
        f"{moment(standing.lapses_s)}.",
        ProposalState.EXPIRED: "Propose it again.",
        ProposalState.EXECUTED: "It has come to its end.",
    }[standing.state]


def _standings(governor: str, made: list[Proposed], block: int) -> Conversation[list[Standing]]:
    """Where each proposal stands at a block."""
    views = [
        (governor, view, (one.id,))
        for one in made
        for view in (gov.STATE, gov.PROPOSAL_VOTES, gov.PROPOSAL_DEADLINE, gov.PROPOSAL_ETA)
    ]
    values = yield from read([(governor, gov.GRACE, ()), *views], block)
    ((grace_s,), *rows) = values
    found = []
    needed = yield from _quorums(governor, made, rows[0::4], block)
    for place, one in enumerate(made):
        (state,), (against, for_it, abstain), (ends_s,), (eta_s,) = rows[4 * place : 4 * place + 4]
        known = ProposalState(state)
        starts = {ProposalState.SUCCEEDED: ends_s, ProposalState.QUEUED: eta_s}.get(known)
        found.append(
            Standing(
                one, known, against, for_it, abstain, needed[place], ends_s, eta_s,
                starts + grace_s if starts is not None else 0,
            )
        )  # fmt: skip
    return found


def _quorums(
    governor: str, made: list[Proposed], states: list[tuple[Any, ...]], block: int
) -> Conversation[list[int]]:
    """The quorum of each; 0 while it is pending, since it is not known before voting begins."""
    begun = [place for place, (state,) in enumerate(states) if ProposalState(state) is not _PENDING]
    # One that was canceled before its vote has no past time to count the seats at: its quorum is
    # not asked for, as nobody needs it.
    begun = [place for place in begun if ProposalState(states[place][0]) is not _CANCELED]
    views = [(governor, gov.QUORUM, (made[place].vote_begins_s,)) for place in begun]
    values = yield from read(views, block)
    found = [0] * len(made)
    for place, (needed,) in zip(begun, values, strict=True):
        found[place] = needed
    return found


_PENDING: Final = ProposalState.PENDING
_CANCELED: Final = ProposalState.CANCELED
