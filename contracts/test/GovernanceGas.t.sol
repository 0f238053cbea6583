// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {GovernanceFixture} from "./GovernanceFixture.sol";

/// @notice Nothing but what goes well, so that `forge test --match-contract GasTest --gas-report`
/// gives the table in README.md.
contract GovernanceGasTest is GovernanceFixture {
    function test_oneProposal() public {
        Proposal memory p = expulsion();
        beginVote(p);
        vote(p.id, 0, 1);
        vote(p.id, 1, 1);
        bytes memory signed = ballot(keys[2], p.id, 1);
        vm.prank(outsider);
        governor.castVoteBySig(p.id, 1, accounts[2], signed);
        vm.warp(governor.proposalDeadline(p.id) + 1);
        queue(p);
        vm.warp(governor.proposalEta(p.id));
        execute(p);
        assertEq(membership.memberCount(), MEMBERS - 1);
    }

    function test_oneCancellation() public {
        Proposal memory p = expulsion();
        passAndQueue(p);
        cancel(guardian, p);
    }
}
