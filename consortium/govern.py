"""A decision of the consortium, from the proposal to its execution, as members' commands make it.

One member drafts and proposes, the others vote with their own keys (one of them by a ballot that
somebody else hands in), and when the time for each has come anybody queues and executes. What is
rehearsed: who votes how is scripted, and the chains' clocks are moved on instead of waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from clients.keys import MemberKeys, VotingKey
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.governing import Change, Governance, Standing, short
from fedtrade.chain.transacting import Receipt
from fedtrade.devnet.net import Devnet
from fedtrade.errors import Fault
from fedtrade.venues.governance import ProposalState, Support

AGAINST: Final = 1
"""So many members, the last ones, vote against: a vote that nobody could lose would show little."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A proposal that was carried out. Times are of the home chain."""

    id: str
    why: str
    changes: tuple[str, ...]
    """In words, as the members read them before they vote."""
    proposer: str
    in_favour: int
    against: int
    needed: int
    proposed_s: int
    queued_s: int
    executed_s: int
    transaction: str
    """Of the execution."""


def decide(
    devnet: Devnet, members: Sequence[MemberKeys], parameters: Mapping[str, int], why: str
) -> Decided:
    """Propose, vote, queue, wait, execute; raises Fault where the members do not agree."""
    home = devnet.deployment.chain(devnet.deployment.home)
    keys = [VotingKey(member) for member in members]
    governance = Governance(home, devnet.rpc(home.name))
    proposal = governance.draft(Change(parameters=parameters), why)
    changes = tuple(governance.in_words(proposal.calls))
    proposed_s = _time_of(devnet, home, governance.propose(proposal, keys[0]))
    word = f"{proposal.id:064x}"
    pass_until(devnet, governance.find(word).proposed.vote_begins_s + 1)
    for key in keys[:-AGAINST]:
        standing = governance.find(word)
        if key is keys[1]:
            ballot = governance.sign_vote(standing, Support.FOR, key)
            governance.hand_in(ballot, keys[0])
        else:
            governance.vote(standing, Support.FOR, key)
    for key in keys[-AGAINST:]:
        governance.vote(governance.find(word), Support.AGAINST, key, "too tight for me")
    pass_until(devnet, governance.find(word).ends_s + 1)
    queued_s = _time_of(devnet, home, governance.queue(governance.find(word), keys[0]))
    pass_until(devnet, governance.find(word).eta_s)
    done = governance.execute(governance.find(word), keys[0])
    standing = governance.find(word)
    if standing.state is not ProposalState.EXECUTED:
        raise Fault(f"proposal {short(proposal.id)} is {standing.state.name}, not executed")
    return _decided(standing, changes, proposed_s, queued_s, _time_of(devnet, home, done), done)


def pass_until(devnet: Devnet, timestamp_s: int) -> None:
    """Move the clock of every chain on to this time; those that are past it stay."""
    for chain in devnet.deployment.chains:
        if devnet.anvil(chain.name).latest().timestamp_s < timestamp_s:
            devnet.mine(chain.name, timestamp_s)


def _time_of(devnet: Devnet, home: ChainDeployment, receipt: Receipt) -> int:
    block = devnet.rpc(home.name).call("eth_getBlockByNumber", hex(receipt.block), False)
    return int(block["timestamp"], 16)


def _decided(
    standing: Standing,
    changes: tuple[str, ...],
    proposed_s: int,
    queued_s: int,
    executed_s: int,
    done: Receipt,
) -> Decided:
    return Decided(
        id=f"0x{standing.id:064x}",
        why=standing.proposed.proposal.description,
        changes=changes,
        proposer=standing.proposed.proposer,
        in_favour=standing.in_favour,
        against=standing.against,
        needed=standing.needed,
        proposed_s=proposed_s,
        queued_s=queued_s,
        executed_s=executed_s,
        transaction=done.transaction,
    )
