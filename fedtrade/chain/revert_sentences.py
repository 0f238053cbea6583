"""What each custom error of our contracts means, and what to do, as a sentence.

The names in braces are the error's own arguments; a test compares both with the compiled ABI, so an
error that is added or renamed in Solidity cannot be forgotten here.
"""

from __future__ import annotations

from typing import Final

SENTENCES: Final[dict[str, str]] = {
    "Membership_ZeroAddress": "an account or signer is the zero address; give a real one",
    "Membership_BadRoles": "roles {roles} is no sum of member 1, helper 2 and coordinator 4",
    "Membership_MissingKey": "roles {roles} include helper, which needs an X25519 key",
    "Membership_AccountTaken": "account {account} has seat {id} already; update that seat",
    "Membership_SignerTaken": "signer {signer} belongs to seat {id}; make another key",
    "Membership_KeyTaken": "X25519 key {x25519} belongs to seat {id}; make another key",
    "Membership_UnknownSeat": "there is no seat {id}",
    "Membership_TooManyMembers": "there are {limit} members already, which is the limit",
    "Membership_NotTransferable": "a seat cannot be passed on",
    "Membership_OwnerRequired": "membership cannot be without an owner",
    "ModelRegistry_NoMembership": "there is no contract at membership {membership}",
    "ModelRegistry_NoParameters": "there is no contract at parameter store {parameterStore}",
    "ModelRegistry_Paused": "everything is paused; wait until governance unpauses it",
    "ModelRegistry_TooSoon": "the next release may be opened from {earliest} on (seconds since 1970)",
    "ModelRegistry_OwnerRequired": "the registry cannot be without an owner",
    "ModelRegistry_NotCoordinator": "{caller} has no seat with the coordinator role",
    "ModelRegistry_NotReleaseCoordinator": "{caller} is not the coordinator of release {release}",
    "ModelRegistry_NotGuardian": "{caller} is neither guardian nor owner",
    "ModelRegistry_StaleRelease": "release {release} is not above {latest}, the newest one",
    "ModelRegistry_ReleaseTooFar": "release {release} is above {limit}; number it lower",
    "ModelRegistry_ReleaseHeld": "release {release} is open and held by coordinator {coordinatorId}",
    "ModelRegistry_ReleaseNotOpen": "release {release} is not open",
    "ModelRegistry_CapReached": "epsilon {spentMicro} of {capMicro} (micro) is spent; none is left",
    "ModelRegistry_NoRounds": "a release needs at least one round",
    "ModelRegistry_IdsNotAscending": "seat {id} comes after {previous}; sort and deduplicate seats",
    "ModelRegistry_WrongRole": "seat {id} lacks the role {roles}",
    "ModelRegistry_TooFewMembers": "{members} members cannot reach the quorum of {needed}",
    "ModelRegistry_TooManyHelpers": "{helpers} helpers are more than {limit}",
    "ModelRegistry_ZeroRoot": "the manifest's root is zero",
    "ModelRegistry_RoundNotAscending": "round {round} is not above {last}, the last with a manifest",
    "ModelRegistry_RoundPastLimit": "round {round} is past the release's {limit} rounds",
    "ModelRegistry_ZeroHash": "the artifact's hash is zero",
    "ModelRegistry_ZeroEpsilon": "epsilon is zero, which no training is",
    "ModelRegistry_CapExceeded": "epsilon {epsilonMicro} on top of {spentMicro} passes the cap of "
    "{capMicro} (micro)",
    "ModelRegistry_StaleVersion": "version {version} is not above {latest}, the newest one",
    "ModelRegistry_VersionTooFar": "version {version} is above {limit}; number it lower",
    "ModelRegistry_UriTooLong": "the URI has {bytes_} bytes, {limit} are allowed",
    "ModelRegistry_TooManyPending": "{limit} versions wait for activation already; wait or revoke",
    "ModelRegistry_TooFewSignatures": "{given} signatures were given, {needed} are needed",
    "ModelRegistry_NotReleaseMember": "{signer} signed and is no member of release {release}; a "
    "changed word or another chain also gives such a stranger",
    "ModelRegistry_SignersNotAscending": "signer {signer} comes after {previous}; each signs once, "
    "in order of addresses",
    "ModelRegistry_UnknownVersion": "there is no version {version}",
    "ModelRegistry_AlreadyRevoked": "version {version} is revoked already",
    "ModelRegistry_UnknownRelease": "there is no release {release}",
    "ParameterRules_UnknownParameter": "there is no parameter {id}",
    "ParameterRules_OutOfBounds": "parameter {id} cannot be {value}, only {least} to {most}, whatever "
    "the votes",
    "ParameterRules_JointlyAbsurd": "the parameters together would break joint rule {rule}; change "
    "what belongs together in one proposal",
    "ParameterStore_OwnerRequired": "the parameter store cannot be without an owner",
    "ParameterStore_NotGuardian": "{caller} is not the guardian",
    "ParameterStore_NotSteward": "{caller} is not the steward",
    "ParameterStore_Paused": "everything is paused; only governance lets it go on",
    "ParameterStore_NotPaused": "nothing is paused",
    "ParameterStore_NoInterim": "no interim values are in force, so there is nothing to veto",
    "ParameterStore_NoParameters": "no parameter is named",
    "ParameterStore_LengthsDiffer": "{ids} parameters and {values} values were given",
    "ParameterStore_IdsNotAscending": "parameter {id} comes after {previous}; sort and deduplicate",
    "ParameterStore_StepTooFar": "the steward may not move parameter {id} from {from} to {to} at once",
    "ParameterStore_OutOfReach": "{to} is out of the steward's reach: governance has set parameter "
    "{id} to {governed}",
    "ParameterStore_TooSoon": "parameter {id} was steered a short time ago; wait until {earliest} "
    "(seconds since 1970)",
    "ParameterStore_Looser": "{value} for parameter {id} is looser than {than}, which stands",
    "ParameterStore_NothingTighter": "nothing would be tighter than it is",
    "RegistryBeacon_NoContract": "there is no contract at {given}",
    "RegistryBeacon_OwnerRequired": "the beacon cannot be without an owner",
    "RegistryBeacon_NoDestination": "a post needs at least one destination",
    "RegistryBeacon_TooManyDestinations": "{destinations} destinations are more than {limit}",
    "RegistryBeacon_DomainsNotAscending": "domain {domain} comes after {previous}; sort and "
    "deduplicate them",
    "RegistryBeacon_NoMirror": "domain {domain} has no mirror; governance names one",
    "RegistryBeacon_FeeTooLow": "the mailbox asks for {needed} wei, and {given} were given",
    "RegistryBeacon_RefundRefused": "{caller} does not take {amount} wei back; send the exact fee",
    "RegistryMirror_NoContract": "there is no contract at {given}",
    "RegistryMirror_NoBeacon": "the mirror has no beacon to listen to",
    "RegistryMirror_NotMailbox": "{caller} is not the mirror's mailbox",
    "RegistryMirror_NotBeacon": "{sender} on domain {origin} is not the mirror's beacon",
    "RegistryMirror_Stale": "message {sequence} is not above {newest}, which the mirror has",
    "RegistryMirror_FromTheFuture": "the message was sent at {sentAt}, and the mirror takes none "
    "from after {limit}; wait, or correct a clock",
    "RegistryMirror_TooManyListed": "{listed} versions are more than {limit}",
    "RegistryMirror_BadList": "entry {index} of the models is empty or out of order",
    "BreakerModifier_NoContract": "there is no contract at {account}",
    "BreakerModifier_NotInPool": "the quote {quote} is no token of the pool",
    "BreakerModifier_TooManyDecimals": "{decimals} decimals are more than {limit}",
    "BreakerModifier_BadLimits": "slippage or deviation is above 10000 bps",
    "BreakerModifier_ZeroAgent": "the agent is the zero address",
    "BreakerModifier_NotSafe": "{caller} is not the Safe; its owners must sign this",
    "BreakerModifier_NotGuardian": "{caller} is neither guardian nor owner",
    "BreakerModifier_NotAgent": "{caller} is not the agent whose orders this breaker takes",
    "BreakerModifier_Halted": "the breaker is halted; only the Safe's owners resume it",
    "BreakerModifier_Paused": "the consortium has paused all agents",
    "BreakerModifier_WrongNonce": "the order has nonce {given}, the next one is {next}; read it anew",
    "BreakerModifier_Late": "the order's deadline {deadline} is over at {timestamp}",
    "BreakerModifier_BadCallCount": "an order has 1 to {limit} calls, not {calls}",
    "BreakerModifier_CallFailed": "call {index} of the order failed with {reason}",
    "BreakerModifier_NotLive": "the order's model {model} is not the live one, {live}",
    "BreakerModifier_ModelTooOld": "the model is live since {liveFrom}, which is over {limitS} s ago",
    "BreakerModifier_MirrorTooOld": "the consortium's word is of {asOf}, over {limitS} s old; have the "
    "mirror's relay looked at",
    "BreakerModifier_BadAnswer": "the feed's answer {answer} is no price",
    "BreakerModifier_AnswerTooOld": "the feed's answer is of {updatedAt}, over {limitS} s old or of "
    "the future",
    "BreakerModifier_PriceTooFar": "the pool is at {poolAnswer}, the feed at {answer}: more than "
    "{limitBps} bps apart",
    "BreakerModifier_BadSwap": "a swap of {sentOut} would bring in {broughtIn} (in the quote's "
    "smallest unit, at the feed's price): more than {limitBps} bps less",
    "BreakerModifier_OverOrder": "the order would send out {sentOut}, an order may send out {limit} "
    "(in the quote's smallest unit)",
    "BreakerModifier_OverEpoch": "the day's orders have sent out {spent}, with this one's {sentOut} "
    "they would pass {limit} (in the quote's smallest unit)",
    "LocalPriceFeed_NotOperator": "{caller} is not the feed's operator",
    "LocalPriceFeed_NoData": "the feed has no round {roundId}",
    "ConsortiumGovernor_NoContract": "there is no contract at {given}",
    "ConsortiumGovernor_VotingDelayTooLong": "a voting delay of {delayS} s is above {limitS} s",
    "ConsortiumGovernor_VotingPeriodOutOfRange": "a voting period of {periodS} s is not in {minS} s "
    "to {maxS} s",
    "ConsortiumGovernor_QuorumOutOfRange": "a quorum of {quorumBps} bps is not in {minBps} to 10000",
    "ConsortiumGovernor_ThresholdFixed": "one vote is enough to propose, for ever",
    "ConsortiumGovernor_TimelockFixed": "the timelock cannot be replaced; give another governor its "
    "roles instead",
    "ConsortiumGovernor_NoRelay": "the governor calls nothing but its timelock",
    "ConsortiumGovernor_NoVote": "{voter} had no vote when voting began; the account of a member's "
    "seat has one, or whom it delegated to",
    "ConsortiumGovernor_GuardianCannotStay": "a guardian cannot cancel the proposal that does nothing "
    "but replace it",
    "ConsortiumTimelock_DelayOutOfRange": "a delay of {delayS} s is not in {minS} s to {maxS} s",
    "GovernorInsufficientProposerVotes": "{proposer} has {votes} votes and {threshold} is needed to "
    "propose; the account of a member's seat has one, or whom it delegated to",
    "GovernorNonexistentProposal": "there is no proposal {proposalId}",
    "GovernorUnexpectedProposalState": "the proposal is in state {current}, which does not allow this "
    "(0 pending, 1 active, 2 canceled, 3 defeated, 4 succeeded, 5 queued, 6 expired, 7 executed)",
    "GovernorAlreadyCastVote": "{voter} has voted already",
    "GovernorInvalidSignature": "the signature is not {voter}'s over this ballot, or it was handed in "
    "before",
    "GovernorUnableToCancel": "{account} may not cancel it: its proposer may until voting begins, the "
    "guardian until it is executed",
    "GovernorOnlyExecutor": "only the timelock may do this, by a proposal",
    "TimelockUnexpectedOperationState": "the operation has not waited for its delay, or was carried "
    "out or canceled",
    "AccessControlUnauthorizedAccount": "{account} lacks the role {neededRole}",
    "OwnableUnauthorizedAccount": "{account} is not the owner",
}
