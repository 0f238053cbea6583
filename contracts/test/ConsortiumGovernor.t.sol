// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IGovernor} from "@openzeppelin/contracts/governance/IGovernor.sol";
import {
    GovernorPreventLateQuorum
} from "@openzeppelin/contracts/governance/extensions/GovernorPreventLateQuorum.sol";

import {ConsortiumGovernor} from "../src/ConsortiumGovernor.sol";
import {ConsortiumTimelock} from "../src/ConsortiumTimelock.sol";
import {Membership} from "../src/Membership.sol";
import {GovernanceFixture} from "./GovernanceFixture.sol";

contract ConsortiumGovernorTest is GovernanceFixture {
    /* constructor */

    function test_constructor() public view {
        assertEq(governor.name(), "fedtrade ConsortiumGovernor");
        assertEq(governor.CLOCK_MODE(), "mode=timestamp");
        assertEq(governor.clock(), block.timestamp);
        assertEq(governor.votingDelay(), VOTING_DELAY_S);
        assertEq(governor.votingPeriod(), VOTING_PERIOD_S);
        assertEq(governor.lateQuorumVoteExtension(), LATE_QUORUM_S);
        assertEq(governor.quorumNumerator(), QUORUM_BPS);
        assertEq(governor.proposalThreshold(), 1);
        assertEq(governor.proposalGuardian(), guardian);
        assertEq(governor.timelock(), address(timelock));
        assertEq(address(governor.token()), address(membership));
        assertTrue(governor.proposalNeedsQueuing(0));
    }

    function test_constructor_noContract() public {
        vm.expectRevert(noContract(outsider));
        new ConsortiumGovernor(Membership(outsider), timelock, settings(), guardian);
        vm.expectRevert(noContract(outsider));
        new ConsortiumGovernor(
            membership, ConsortiumTimelock(payable(outsider)), settings(), guardian
        );
    }

    function test_constructor_bounds() public {
        ConsortiumGovernor.Settings memory s = settings();
        s.votingDelayS = 30 days + 1;
        vm.expectRevert(votingDelayTooLong(30 days + 1));
        new ConsortiumGovernor(membership, timelock, s, guardian);
        s = settings();
        s.votingPeriodS = 59;
        vm.expectRevert(votingPeriodOutOfRange(59));
        new ConsortiumGovernor(membership, timelock, s, guardian);
        s.votingPeriodS = 30 days + 1;
        vm.expectRevert(votingPeriodOutOfRange(30 days + 1));
        new ConsortiumGovernor(membership, timelock, s, guardian);
        s = settings();
        s.lateQuorumS = VOTING_PERIOD_S + 1;
        vm.expectRevert(
            abi.encodeWithSelector(
                GovernorPreventLateQuorum.GovernorPreventLateQuorumVoteExtensionTooLarge.selector,
                VOTING_PERIOD_S + 1,
                VOTING_PERIOD_S
            )
        );
        new ConsortiumGovernor(membership, timelock, s, guardian);
        s = settings();
        s.quorumBps = 10_001;
        vm.expectRevert(quorumOutOfRange(10_001));
        new ConsortiumGovernor(membership, timelock, s, guardian);

        s = ConsortiumGovernor.Settings(30 days, 30 days, 30 days, 10_000);
        governor = new ConsortiumGovernor(membership, timelock, s, guardian);
        assertEq(governor.votingDelay(), 30 days);
        assertEq(governor.votingPeriod(), 30 days);
        assertEq(governor.quorumNumerator(), 10_000);
        s = ConsortiumGovernor.Settings(0, 60, 60, 3_334);
        governor = new ConsortiumGovernor(membership, timelock, s, guardian);
        assertEq(governor.votingPeriod(), 60);
        assertEq(governor.quorumNumerator(), 3_334);
    }

    /* propose */

    function test_propose_withoutVote() public {
        Proposal memory p = expulsion();
        vm.expectRevert(
            abi.encodeWithSelector(
                IGovernor.GovernorInsufficientProposerVotes.selector, outsider, 0, 1
            )
        );
        vm.prank(outsider);
        governor.propose(p.targets, p.values, p.calldatas, p.description);
    }

    function test_propose_withAVoteOfThisSecond() public {
        vm.prank(accounts[1]);
        membership.delegate(outsider);
        Proposal memory p = expulsion();
        vm.expectRevert(
            abi.encodeWithSelector(
                IGovernor.GovernorInsufficientProposerVotes.selector, outsider, 0, 1
            )
        );
        vm.prank(outsider);
        governor.propose(p.targets, p.values, p.calldatas, p.description);
        vm.warp(block.timestamp + 1);
        vm.prank(outsider);
        assertEq(governor.propose(p.targets, p.values, p.calldatas, p.description), p.id);
    }

    function testFuzz_propose(uint8 member, bytes calldata data) public {
        Proposal memory p = single(address(membership), data);
        vm.prank(accounts[member % MEMBERS]);
        assertEq(governor.propose(p.targets, p.values, p.calldatas, p.description), p.id);
        assertState(p.id, IGovernor.ProposalState.Pending);
        assertEq(governor.proposalSnapshot(p.id), block.timestamp + VOTING_DELAY_S);
        assertEq(
            governor.proposalDeadline(p.id), block.timestamp + VOTING_DELAY_S + VOTING_PERIOD_S
        );
    }

    /* vote */

    function test_vote_withoutVote() public {
        Proposal memory p = expulsion();
        beginVote(p);
        vm.prank(address(timelock));
        membership.admit(outsider, outsider, 0, 1); // after voting began
        vm.warp(block.timestamp + 1);
        assertEq(membership.getVotes(outsider), 1);
        vm.expectRevert(noVote(outsider));
        vm.prank(outsider);
        governor.castVote(p.id, 1);
        vm.expectRevert(noVote(founder));
        vm.prank(founder);
        governor.castVoteWithReason(p.id, 0, "because");
    }

    function test_vote_twice() public {
        Proposal memory p = expulsion();
        beginVote(p);
        vote(p.id, 1, 0);
        vm.expectRevert(
            abi.encodeWithSelector(IGovernor.GovernorAlreadyCastVote.selector, accounts[1])
        );
        vote(p.id, 1, 1);
    }

    function test_vote_bySignature() public {
        Proposal memory p = expulsion();
        beginVote(p);
        bytes memory signed = ballot(keys[2], p.id, 1);
        bytes memory forged = ballot(keys[3], p.id, 1);
        vm.startPrank(outsider);
        vm.expectRevert(invalidSignature(accounts[2])); // says another thing
        governor.castVoteBySig(p.id, 0, accounts[2], signed);
        vm.expectRevert(invalidSignature(accounts[2])); // is another's
        governor.castVoteBySig(p.id, 1, accounts[2], forged);
        governor.castVoteBySig(p.id, 1, accounts[2], signed);
        vm.expectRevert(invalidSignature(accounts[2])); // serves once
        governor.castVoteBySig(p.id, 1, accounts[2], signed);
        vm.stopPrank();
        (uint256 against, uint256 forIt, uint256 abstain) = governor.proposalVotes(p.id);
        assertEq(against, 0);
        assertEq(forIt, 1);
        assertEq(abstain, 0);
        assertTrue(governor.hasVoted(p.id, accounts[2]));
    }

    function test_vote_bySignatureWithoutVote() public {
        Proposal memory p = expulsion();
        beginVote(p);
        uint256 key = uint256(keccak256("stranger")) >> 1;
        bytes memory signed = ballot(key, p.id, 1);
        vm.expectRevert(noVote(vm.addr(key)));
        governor.castVoteBySig(p.id, 1, vm.addr(key), signed);
    }

    function test_vote_lateQuorum() public {
        Proposal memory p = expulsion();
        beginVote(p);
        vote(p.id, 0, 1);
        vote(p.id, 1, 1);
        uint256 deadline = governor.proposalDeadline(p.id);
        vm.warp(deadline);
        vote(p.id, 2, 1); // the quorum, in the last second
        assertEq(governor.proposalDeadline(p.id), deadline + LATE_QUORUM_S);
        vm.warp(deadline + LATE_QUORUM_S);
        vote(p.id, 3, 0); // the others have time to answer
        assertEq(governor.proposalDeadline(p.id), deadline + LATE_QUORUM_S); // and that is all
        assertState(p.id, IGovernor.ProposalState.Active);
    }

    /* quorum */

    /// @dev Exactly a share, and one unit of it more than two thirds.
    function test_quorum_roundsUp() public {
        testFuzz_quorum(5_000, 4);
        testFuzz_quorum(6_667, 3);
        assertEq(governor.quorumDenominator(), 10_000);
    }

    function testFuzz_quorum(uint16 quorumBps, uint8 members) public {
        quorumBps = uint16(bound(quorumBps, 3_334, 10_000));
        members = uint8(bound(members, 1, 24));
        Membership fresh = new Membership(address(this));
        ConsortiumGovernor.Settings memory s = settings();
        s.quorumBps = quorumBps;
        ConsortiumGovernor other = new ConsortiumGovernor(fresh, timelock, s, guardian);
        for (uint160 i = 1; i <= members; ++i) {
            fresh.admit(address(i), address(i), 0, 1);
        }
        vm.warp(block.timestamp + 1);
        uint256 needed = other.quorum(block.timestamp - 1);
        assertGe(needed * 10_000, uint256(members) * quorumBps);
        assertLt((needed - 1) * 10_000, uint256(members) * quorumBps);
        assertGe(needed, 1);
        assertLe(needed, members);
    }

    function test_quorum_tooFew() public {
        Proposal memory p = expulsion();
        beginVote(p);
        vote(p.id, 0, 1);
        vote(p.id, 1, 1);
        vm.warp(governor.proposalDeadline(p.id) + 1);
        assertState(p.id, IGovernor.ProposalState.Defeated);
    }

    function test_quorum_abstaining() public {
        Proposal memory p = expulsion();
        beginVote(p);
        vote(p.id, 0, 1);
        vote(p.id, 1, 2);
        vote(p.id, 2, 2);
        vm.warp(governor.proposalDeadline(p.id) + 1);
        assertState(p.id, IGovernor.ProposalState.Succeeded);
    }

    function test_quorum_asManyAgainst() public {
        Proposal memory p = expulsion();
        beginVote(p);
        vote(p.id, 0, 1);
        vote(p.id, 1, 1);
        vote(p.id, 2, 0);
        vote(p.id, 3, 0);
        vote(p.id, 4, 2);
        vm.warp(governor.proposalDeadline(p.id) + 1);
        assertState(p.id, IGovernor.ProposalState.Defeated);
    }

    /* queue */

    function test_queue_tooEarly() public {
        Proposal memory p = expulsion();
        beginVote(p);
        vm.expectRevert(unexpected(p.id, IGovernor.ProposalState.Active, 4));
        queue(p);
        vm.warp(governor.proposalDeadline(p.id) + 1);
        vm.expectRevert(unexpected(p.id, IGovernor.ProposalState.Defeated, 4));
        queue(p);
    }

    function test_queue_withinGrace() public {
        Proposal memory p = expulsion();
        pass(p);
        vm.warp(governor.proposalDeadline(p.id) + governor.GRACE_S());
        queue(p);
        assertState(p.id, IGovernor.ProposalState.Queued);
    }

    function test_queue_afterGrace() public {
        Proposal memory p = expulsion();
        pass(p);
        vm.warp(governor.proposalDeadline(p.id) + governor.GRACE_S() + 1);
        assertState(p.id, IGovernor.ProposalState.Expired);
        vm.expectRevert(unexpected(p.id, IGovernor.ProposalState.Expired, 4));
        queue(p);
    }

    /* execute */

    function test_execute() public {
        Proposal memory p = expulsion();
        carryOut(p);
        assertState(p.id, IGovernor.ProposalState.Executed);
        assertEq(membership.memberCount(), MEMBERS - 1);
        vm.expectRevert(unexpected(p.id, IGovernor.ProposalState.Executed, 5));
        execute(p);
    }

    function test_execute_tooEarly() public {
        Proposal memory p = expulsion();
        pass(p);
        vm.expectRevert(unexpected(p.id, IGovernor.ProposalState.Succeeded, 5));
        execute(p);
        queue(p);
        assertEq(governor.proposalEta(p.id), block.timestamp + DELAY_S);
        vm.warp(governor.proposalEta(p.id) - 1);
        vm.expectRevert();
        execute(p);
        vm.warp(governor.proposalEta(p.id));
        execute(p);
    }

    function test_execute_afterGrace() public {
        Proposal memory p = expulsion();
        passAndQueue(p);
        uint256 last = governor.proposalEta(p.id) + governor.GRACE_S();
        vm.warp(last + 1);
        assertState(p.id, IGovernor.ProposalState.Expired);
        vm.expectRevert(unexpected(p.id, IGovernor.ProposalState.Expired, 5));
        execute(p);
        vm.warp(last);
        execute(p);
    }

    /* cancel */

    function test_cancel_byAnother() public {
        Proposal memory p = expulsion();
        propose(p);
        vm.expectRevert(unableToCancel(p.id, outsider));
        cancel(outsider, p);
        vm.expectRevert(unableToCancel(p.id, accounts[1]));
        cancel(accounts[1], p);
    }

    function test_cancel_byItsProposer() public {
        Proposal memory p = expulsion();
        propose(p);
        cancel(accounts[0], p);
        assertState(p.id, IGovernor.ProposalState.Canceled);
    }

    function test_cancel_byItsProposerTooLate() public {
        Proposal memory p = expulsion();
        beginVote(p);
        vm.expectRevert(unableToCancel(p.id, accounts[0]));
        cancel(accounts[0], p);
    }

    function test_cancel_withoutGuardian() public {
        governor = new ConsortiumGovernor(membership, timelock, settings(), address(0));
        Proposal memory p = expulsion();
        beginVote(p);
        cancel(accounts[0], p);
        assertState(p.id, IGovernor.ProposalState.Canceled);
    }

    function test_cancel_byTheGuardian() public {
        Proposal memory p = expulsion();
        passAndQueue(p);
        vm.warp(governor.proposalEta(p.id));
        cancel(guardian, p);
        assertState(p.id, IGovernor.ProposalState.Canceled);
        vm.expectRevert(unexpected(p.id, IGovernor.ProposalState.Canceled, 5));
        execute(p);
        assertEq(membership.memberCount(), MEMBERS);
    }

    function test_cancel_byTheGuardianTooLate() public {
        Proposal memory p = expulsion();
        carryOut(p);
        vm.expectRevert();
        cancel(guardian, p);
    }

    function test_cancel_anotherGuardian() public {
        Proposal memory p = succession();
        passAndQueue(p);
        vm.expectRevert(
            abi.encodeWithSelector(
                ConsortiumGovernor.ConsortiumGovernor_GuardianCannotStay.selector, p.id
            )
        );
        cancel(guardian, p);
        vm.warp(governor.proposalEta(p.id));
        execute(p);
        assertEq(governor.proposalGuardian(), outsider);
    }

    function test_cancel_anotherGuardianByItsProposer() public {
        vm.prank(accounts[0]);
        membership.delegate(guardian);
        vm.warp(block.timestamp + 1);
        Proposal memory p = succession();
        vm.prank(guardian);
        governor.propose(p.targets, p.values, p.calldatas, p.description);
        cancel(guardian, p);
        assertState(p.id, IGovernor.ProposalState.Canceled);
    }

    function test_cancel_moreThanAnotherGuardian() public {
        Proposal memory one = succession();
        Proposal memory p = one;
        p.targets = new address[](2);
        p.values = new uint256[](2);
        p.calldatas = new bytes[](2);
        (p.targets[0], p.calldatas[0]) = (one.targets[0], succession().calldatas[0]);
        p.targets[0] = address(governor);
        (p.targets[1], p.calldatas[1]) = (address(membership), expulsion().calldatas[0]);
        p.id = governor.hashProposal(p.targets, p.values, p.calldatas, keccak256("why"));
        propose(p);
        cancel(guardian, p);
        assertState(p.id, IGovernor.ProposalState.Canceled);
    }

    function test_cancel_theSameCallElsewhere() public {
        Proposal memory p = single(address(membership), succession().calldatas[0]);
        propose(p);
        cancel(guardian, p);
        assertState(p.id, IGovernor.ProposalState.Canceled);
    }

    function test_cancel_anotherCallHere() public {
        Proposal memory p =
            single(address(governor), abi.encodeCall(governor.setVotingDelay, (1 hours)));
        propose(p);
        cancel(guardian, p);
        assertState(p.id, IGovernor.ProposalState.Canceled);
    }

    /* settings */

    function test_settings_onlyTheTimelock() public {
        address[2] memory callers = [outsider, guardian];
        for (uint256 i = 0; i < 2; ++i) {
            bytes memory refused =
                abi.encodeWithSelector(IGovernor.GovernorOnlyExecutor.selector, callers[i]);
            vm.startPrank(callers[i]);
            vm.expectRevert(refused);
            governor.setVotingDelay(1);
            vm.expectRevert(refused);
            governor.setVotingPeriod(1 days);
            vm.expectRevert(refused);
            governor.setLateQuorumVoteExtension(1);
            vm.expectRevert(refused);
            governor.updateQuorumNumerator(9_000);
            vm.expectRevert(refused);
            governor.setProposalGuardian(callers[i]);
            vm.expectRevert(refused);
            governor.setProposalThreshold(1);
            vm.stopPrank();
        }
    }

    function testFuzz_settings(uint32 periodS, uint48 delayS, uint16 quorumBps) public {
        // Half of them near the bounds, where they matter.
        if (periodS % 2 == 0) periodS = uint32(bound(periodS, 1, 60 days));
        if (delayS % 2 == 0) delayS = uint48(bound(delayS, 0, 60 days));
        if (quorumBps % 2 == 0) quorumBps = uint16(bound(quorumBps, 0, 11_000));
        bytes[3] memory calls = [
            abi.encodeCall(governor.setVotingPeriod, (periodS)),
            abi.encodeCall(governor.setVotingDelay, (delayS)),
            abi.encodeCall(governor.updateQuorumNumerator, (quorumBps))
        ];
        bool[3] memory inside = [
            periodS >= 60 && periodS <= 30 days,
            delayS <= 30 days,
            quorumBps >= 3_334 && quorumBps <= 10_000
        ];
        bytes[3] memory errors = [
            votingPeriodOutOfRange(periodS), votingDelayTooLong(delayS), quorumOutOfRange(quorumBps)
        ];
        Proposal[3] memory proposals;
        for (uint256 i = 0; i < 3; ++i) {
            proposals[i] = single(address(governor), calls[i]);
            propose(proposals[i]);
        }
        vm.warp(block.timestamp + VOTING_DELAY_S + 1);
        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 j = 0; j < NEEDED; ++j) {
                vote(proposals[i].id, j, 1);
            }
        }
        vm.warp(block.timestamp + VOTING_PERIOD_S + LATE_QUORUM_S);
        for (uint256 i = 0; i < 3; ++i) {
            queue(proposals[i]);
        }
        vm.warp(block.timestamp + DELAY_S);
        for (uint256 i = 0; i < 3; ++i) {
            if (!inside[i]) vm.expectRevert(errors[i]);
            execute(proposals[i]);
        }
        assertEq(governor.votingPeriod(), inside[0] ? periodS : VOTING_PERIOD_S);
        assertEq(governor.votingDelay(), inside[1] ? delayS : VOTING_DELAY_S);
        assertEq(governor.quorumNumerator(), inside[2] ? quorumBps : QUORUM_BPS);
    }

    /* proposal threshold, timelock, relay */

    function test_thresholdIsFixed() public {
        Proposal memory p =
            single(address(governor), abi.encodeCall(governor.setProposalThreshold, (2)));
        passAndQueue(p);
        vm.warp(governor.proposalEta(p.id));
        vm.expectRevert(ConsortiumGovernor.ConsortiumGovernor_ThresholdFixed.selector);
        execute(p);
    }

    function test_timelockIsFixed() public {
        Proposal memory p =
            single(address(governor), abi.encodeCall(governor.updateTimelock, (timelock)));
        passAndQueue(p);
        vm.warp(governor.proposalEta(p.id));
        vm.expectRevert(ConsortiumGovernor.ConsortiumGovernor_TimelockFixed.selector);
        execute(p);
    }

    function test_relayIsRefused() public {
        Proposal memory p =
            single(address(governor), abi.encodeCall(governor.relay, (address(membership), 0, "")));
        passAndQueue(p);
        vm.warp(governor.proposalEta(p.id));
        vm.expectRevert(ConsortiumGovernor.ConsortiumGovernor_NoRelay.selector);
        execute(p);
    }

    /* what is expected */

    /// @dev To appoint another guardian, and nothing else.
    function succession() internal view returns (Proposal memory) {
        return single(address(governor), abi.encodeCall(governor.setProposalGuardian, (outsider)));
    }

    function noContract(address given) internal pure returns (bytes memory) {
        return
            abi.encodeWithSelector(ConsortiumGovernor.ConsortiumGovernor_NoContract.selector, given);
    }

    function noVote(address voter) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(ConsortiumGovernor.ConsortiumGovernor_NoVote.selector, voter);
    }

    function votingDelayTooLong(uint256 delayS) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(
            ConsortiumGovernor.ConsortiumGovernor_VotingDelayTooLong.selector, delayS, 30 days
        );
    }

    function votingPeriodOutOfRange(uint256 periodS) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(
            ConsortiumGovernor.ConsortiumGovernor_VotingPeriodOutOfRange.selector,
            periodS,
            60,
            30 days
        );
    }

    function quorumOutOfRange(uint256 quorumBps) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(
            ConsortiumGovernor.ConsortiumGovernor_QuorumOutOfRange.selector, quorumBps, 3_334
        );
    }

    function invalidSignature(address voter) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IGovernor.GovernorInvalidSignature.selector, voter);
    }

    function unableToCancel(uint256 id, address by) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IGovernor.GovernorUnableToCancel.selector, id, by);
    }

    /// @param allowed The one state in which it would be possible.
    function unexpected(uint256 id, IGovernor.ProposalState found, uint8 allowed)
        internal
        pure
        returns (bytes memory)
    {
        return abi.encodeWithSelector(
            IGovernor.GovernorUnexpectedProposalState.selector, id, found, bytes32(1 << allowed)
        );
    }
}
