// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Governor} from "@openzeppelin/contracts/governance/Governor.sol";
import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {
    GovernorCountingSimple
} from "@openzeppelin/contracts/governance/extensions/GovernorCountingSimple.sol";
import {
    GovernorPreventLateQuorum
} from "@openzeppelin/contracts/governance/extensions/GovernorPreventLateQuorum.sol";
import {
    GovernorProposalGuardian
} from "@openzeppelin/contracts/governance/extensions/GovernorProposalGuardian.sol";
import {GovernorSettings} from "@openzeppelin/contracts/governance/extensions/GovernorSettings.sol";
import {
    GovernorTimelockControl
} from "@openzeppelin/contracts/governance/extensions/GovernorTimelockControl.sol";
import {GovernorVotes} from "@openzeppelin/contracts/governance/extensions/GovernorVotes.sol";
import {
    GovernorVotesQuorumFraction
} from "@openzeppelin/contracts/governance/extensions/GovernorVotesQuorumFraction.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {ConsortiumTimelock} from "./ConsortiumTimelock.sol";
import {Membership} from "./Membership.sol";

/// @title ConsortiumGovernor
/// @notice How the consortium decides: a member proposes calls, members vote, and what they have
/// passed waits in the timelock and is then carried out by it. One member, one vote, counted as the
/// seats stood when voting began.
///
/// Powers:
/// - Whoever holds a vote proposes, at any time, and may take its own proposal back until voting
///   begins. Nobody can raise that bar, and nobody without a vote can propose.
/// - Votes pass a proposal: more for than against, and those for and abstaining at least `quorum`,
///   a share of all members rounded up. Votes count by themselves or by signatures that anybody
///   hands in. A vote without weight is refused: it would count for nothing, and look as if it had.
/// - A quorum that is reached late extends the vote, so that nobody decides at the last second.
/// - Anybody queues what has passed and executes what has waited. Both lapse after `GRACE_S`: what
///   was decided long ago must not be sprung on a consortium that has forgotten it.
/// - The guardian cancels, until execution, and nothing else. It cannot cancel a proposal that does
///   nothing but appoint another guardian: it may gain time, not keep its office.
/// - The timelock changes the settings, within bounds that leave votes possible: each change is a
///   proposal itself.
/// - Nobody replaces the timelock, makes this contract call anything but the timelock, upgrades or
///   pauses it; and it holds no funds.
contract ConsortiumGovernor is
    GovernorSettings,
    GovernorCountingSimple,
    GovernorVotesQuorumFraction,
    GovernorTimelockControl,
    GovernorPreventLateQuorum,
    GovernorProposalGuardian
{
    /* TYPES */

    /// @param votingDelayS From a proposal to the beginning of its vote: time to read it.
    /// @param votingPeriodS How long votes are taken.
    /// @param lateQuorumS How long a vote goes on, at least, after its quorum was reached.
    /// @param quorumBps Share of all members, in hundredths of a percent, that a proposal needs.
    struct Settings {
        uint48 votingDelayS;
        uint32 votingPeriodS;
        uint48 lateQuorumS;
        uint16 quorumBps;
    }

    /* CONSTANTS */

    uint256 public constant MAX_VOTING_DELAY_S = 30 days;

    /// @notice The shortest vote. Choose far more: it is for rehearsals.
    uint256 public constant MIN_VOTING_PERIOD_S = 60;
    uint256 public constant MAX_VOTING_PERIOD_S = 30 days;

    /// @notice The smallest quorum: more than a third of all members.
    uint256 public constant MIN_QUORUM_BPS = 3_334;

    /// @notice How long a proposal that has passed may be queued, and one that has waited executed.
    uint256 public constant GRACE_S = 14 days;

    uint256 private constant BPS = 10_000;

    /* ERRORS */

    error ConsortiumGovernor_NoContract(address given);
    error ConsortiumGovernor_VotingDelayTooLong(uint256 delayS, uint256 limitS);
    error ConsortiumGovernor_VotingPeriodOutOfRange(uint256 periodS, uint256 minS, uint256 maxS);
    error ConsortiumGovernor_QuorumOutOfRange(uint256 quorumBps, uint256 minBps);
    error ConsortiumGovernor_ThresholdFixed();
    error ConsortiumGovernor_TimelockFixed();
    error ConsortiumGovernor_NoRelay();
    error ConsortiumGovernor_NoVote(address voter);
    error ConsortiumGovernor_GuardianCannotStay(uint256 proposalId);

    /* CONSTRUCTOR */

    /// @param guardian Who may cancel; zero for nobody, and then a proposer may take its own
    /// proposal back until it is executed.
    constructor(
        Membership membership,
        ConsortiumTimelock timelock_,
        Settings memory settings,
        address guardian
    )
        Governor("fedtrade ConsortiumGovernor")
        GovernorSettings(settings.votingDelayS, settings.votingPeriodS, 1)
        GovernorVotes(Membership(_deployed(address(membership))))
        GovernorVotesQuorumFraction(settings.quorumBps)
        GovernorTimelockControl(ConsortiumTimelock(payable(_deployed(address(timelock_)))))
        GovernorPreventLateQuorum(settings.lateQuorumS)
    {
        _setProposalGuardian(guardian);
    }

    /* CANCELLING */

    /// @notice Takes a proposal back: its proposer until voting begins, the guardian until it is
    /// executed.
    function cancel(
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) public override returns (uint256) {
        uint256 id = getProposalId(targets, values, calldatas, descriptionHash);
        if (
            msg.sender == proposalGuardian() && msg.sender != proposalProposer(id)
                && targets.length == 1 && targets[0] == address(this)
                && bytes4(calldatas[0]) == this.setProposalGuardian.selector
        ) revert ConsortiumGovernor_GuardianCannotStay(id);
        return super.cancel(targets, values, calldatas, descriptionHash);
    }

    /* NOT HERE */

    /// @notice Refused: the contracts that this governs belong to its timelock. Another timelock
    /// takes another governor, to which this one's timelock gives the roles.
    function updateTimelock(TimelockController) public pure override {
        revert ConsortiumGovernor_TimelockFixed();
    }

    /// @notice Refused: whatever is decided goes through the timelock.
    function relay(address, uint256, bytes calldata) public payable override {
        revert ConsortiumGovernor_NoRelay();
    }

    /* VIEWS */

    /// @notice Of quorumNumerator: quorums are in hundredths of a percent.
    function quorumDenominator() public pure override returns (uint256) {
        return BPS;
    }

    /// @notice How many members must vote for or abstain, by the seats at that time; rounded up.
    function quorum(uint256 timepoint)
        public
        view
        override(Governor, GovernorVotesQuorumFraction)
        returns (uint256)
    {
        uint256 members = token().getPastTotalSupply(timepoint);
        return Math.mulDiv(members, quorumNumerator(timepoint), BPS, Math.Rounding.Ceil);
    }

    /// @notice Where a proposal stands. One that has passed and was not queued, or has waited and
    /// was not executed, within `GRACE_S`, is Expired.
    function state(uint256 proposalId)
        public
        view
        override(Governor, GovernorTimelockControl)
        returns (ProposalState known)
    {
        known = GovernorTimelockControl.state(proposalId);
        uint256 due = known == ProposalState.Succeeded
            ? proposalDeadline(proposalId)
            : known == ProposalState.Queued ? proposalEta(proposalId) : type(uint128).max;
        if (clock() > due + GRACE_S) known = ProposalState.Expired;
    }

    function proposalDeadline(uint256 proposalId)
        public
        view
        override(Governor, GovernorPreventLateQuorum)
        returns (uint256)
    {
        return super.proposalDeadline(proposalId);
    }

    function proposalNeedsQueuing(uint256 proposalId)
        public
        view
        override(Governor, GovernorTimelockControl)
        returns (bool)
    {
        return super.proposalNeedsQueuing(proposalId);
    }

    function proposalThreshold()
        public
        view
        override(Governor, GovernorSettings)
        returns (uint256)
    {
        return super.proposalThreshold();
    }

    /* BOUNDS OF THE SETTINGS */

    function _setVotingDelay(uint48 delayS) internal override {
        if (delayS > MAX_VOTING_DELAY_S) {
            revert ConsortiumGovernor_VotingDelayTooLong(delayS, MAX_VOTING_DELAY_S);
        }
        super._setVotingDelay(delayS);
    }

    function _setVotingPeriod(uint32 periodS) internal override {
        if (periodS < MIN_VOTING_PERIOD_S || periodS > MAX_VOTING_PERIOD_S) {
            revert ConsortiumGovernor_VotingPeriodOutOfRange(
                periodS, MIN_VOTING_PERIOD_S, MAX_VOTING_PERIOD_S
            );
        }
        super._setVotingPeriod(periodS);
    }

    function _setProposalThreshold(uint256 votes) internal override {
        if (votes != 1) revert ConsortiumGovernor_ThresholdFixed();
        super._setProposalThreshold(votes);
    }

    function _updateQuorumNumerator(uint256 quorumBps) internal override {
        if (quorumBps < MIN_QUORUM_BPS || quorumBps > BPS) {
            revert ConsortiumGovernor_QuorumOutOfRange(quorumBps, MIN_QUORUM_BPS);
        }
        super._updateQuorumNumerator(quorumBps);
    }

    /* INTERNAL */

    function _countVote(
        uint256 proposalId,
        address account,
        uint8 support,
        uint256 weight,
        bytes memory params
    ) internal override(Governor, GovernorCountingSimple) returns (uint256) {
        if (weight == 0) revert ConsortiumGovernor_NoVote(account);
        return super._countVote(proposalId, account, support, weight, params);
    }

    /// @dev An account without code as the timelock would be a single key that governs.
    function _deployed(address given) private view returns (address) {
        if (given.code.length == 0) revert ConsortiumGovernor_NoContract(given);
        return given;
    }

    /* WHICH OF TWO PARENTS: nothing of ours from here on */

    function _tallyUpdated(uint256 proposalId)
        internal
        override(Governor, GovernorPreventLateQuorum)
    {
        super._tallyUpdated(proposalId);
    }

    function _queueOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) returns (uint48) {
        return super._queueOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _executeOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) {
        super._executeOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _cancel(
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) returns (uint256) {
        return super._cancel(targets, values, calldatas, descriptionHash);
    }

    function _executor()
        internal
        view
        override(Governor, GovernorTimelockControl)
        returns (address)
    {
        return super._executor();
    }

    function _validateCancel(uint256 proposalId, address caller)
        internal
        view
        override(Governor, GovernorProposalGuardian)
        returns (bool)
    {
        return super._validateCancel(proposalId, caller);
    }
}
