// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {IGovernor} from "@openzeppelin/contracts/governance/IGovernor.sol";

import {ConsortiumGovernor} from "../src/ConsortiumGovernor.sol";
import {ConsortiumTimelock} from "../src/ConsortiumTimelock.sol";
import {Membership} from "../src/Membership.sol";

/// @notice A founded consortium: five members, and a timelock that has been handed over.
abstract contract GovernanceFixture is Test {
    struct Proposal {
        address[] targets;
        uint256[] values;
        bytes[] calldatas;
        string description;
        uint256 id;
    }

    uint48 internal constant VOTING_DELAY_S = 1 days;
    uint32 internal constant VOTING_PERIOD_S = 5 days;
    uint48 internal constant LATE_QUORUM_S = 1 days;
    uint16 internal constant QUORUM_BPS = 5_000;
    uint256 internal constant DELAY_S = 2 days;
    uint256 internal constant MEMBERS = 5;
    uint256 internal constant NEEDED = 3; // half of five, rounded up
    uint256 internal constant START_S = 1_750_000_000;

    address internal founder = makeAddr("founder");
    address internal guardian = makeAddr("guardian");
    address internal outsider = makeAddr("outsider");

    ConsortiumTimelock internal timelock;
    Membership internal membership;
    ConsortiumGovernor internal governor;
    uint256[] internal keys;
    address[] internal accounts;

    function setUp() public virtual {
        vm.warp(START_S);
        timelock = new ConsortiumTimelock(founder);
        membership = new Membership(address(timelock));
        governor = new ConsortiumGovernor(membership, timelock, settings(), guardian);
        for (uint256 i = 0; i < MEMBERS; ++i) {
            keys.push(uint256(keccak256(abi.encode("member", i))) >> 1);
            accounts.push(vm.addr(keys[i]));
        }
        handOver();
        vm.warp(START_S + 1); // a vote counts from the second after it was given
    }

    function settings() internal pure returns (ConsortiumGovernor.Settings memory) {
        return
            ConsortiumGovernor.Settings(VOTING_DELAY_S, VOTING_PERIOD_S, LATE_QUORUM_S, QUORUM_BPS);
    }

    /// @dev What `fedtrade-coordinator deploy` has the timelock do, in one batch.
    function handOver() internal {
        bytes32[3] memory roles = governing();
        address[] memory targets = new address[](MEMBERS + 8);
        bytes[] memory data = new bytes[](targets.length);
        for (uint256 i = 0; i < targets.length; ++i) {
            targets[i] = i < MEMBERS ? address(membership) : address(timelock);
        }
        for (uint256 i = 0; i < MEMBERS; ++i) {
            data[i] = abi.encodeCall(membership.admit, (accounts[i], accounts[i], 0, 1));
        }
        for (uint256 i = 0; i < 3; ++i) {
            data[MEMBERS + i] = abi.encodeCall(timelock.grantRole, (roles[i], address(governor)));
            data[MEMBERS + 3 + i] = abi.encodeCall(timelock.revokeRole, (roles[i], founder));
        }
        data[MEMBERS + 6] = abi.encodeCall(timelock.updateDelay, (DELAY_S));
        data[MEMBERS + 7] = abi.encodeCall(timelock.revokeRole, (bytes32(0), founder));
        uint256[] memory values = new uint256[](targets.length);
        vm.startPrank(founder);
        timelock.scheduleBatch(targets, values, data, 0, 0, 0);
        timelock.executeBatch(targets, values, data, 0, 0);
        vm.stopPrank();
    }

    function governing() internal view returns (bytes32[3] memory) {
        return [timelock.PROPOSER_ROLE(), timelock.CANCELLER_ROLE(), timelock.EXECUTOR_ROLE()];
    }

    /* PROPOSALS */

    function single(address target, bytes memory data) internal view returns (Proposal memory p) {
        p.targets = new address[](1);
        p.values = new uint256[](1);
        p.calldatas = new bytes[](1);
        (p.targets[0], p.calldatas[0], p.description) = (target, data, "why");
        p.id = governor.hashProposal(p.targets, p.values, p.calldatas, keccak256("why"));
    }

    /// @dev To expel the last member: something that only the owner of Membership can do.
    function expulsion() internal view returns (Proposal memory) {
        return single(address(membership), abi.encodeCall(membership.expel, (MEMBERS)));
    }

    function propose(Proposal memory p) internal returns (uint256) {
        vm.prank(accounts[0]);
        return governor.propose(p.targets, p.values, p.calldatas, p.description);
    }

    function vote(uint256 id, uint256 member, uint8 support) internal {
        vm.prank(accounts[member]);
        governor.castVote(id, support);
    }

    function queue(Proposal memory p) internal {
        vm.prank(outsider);
        governor.queue(p.targets, p.values, p.calldatas, keccak256(bytes(p.description)));
    }

    function execute(Proposal memory p) internal {
        vm.prank(outsider);
        governor.execute(p.targets, p.values, p.calldatas, keccak256(bytes(p.description)));
    }

    function cancel(address by, Proposal memory p) internal {
        vm.prank(by);
        governor.cancel(p.targets, p.values, p.calldatas, keccak256(bytes(p.description)));
    }

    function beginVote(Proposal memory p) internal {
        propose(p);
        vm.warp(governor.proposalSnapshot(p.id) + 1);
    }

    function pass(Proposal memory p) internal {
        beginVote(p);
        for (uint256 i = 0; i < NEEDED; ++i) {
            vote(p.id, i, 1);
        }
        vm.warp(governor.proposalDeadline(p.id) + 1);
    }

    function passAndQueue(Proposal memory p) internal {
        pass(p);
        queue(p);
    }

    function carryOut(Proposal memory p) internal {
        passAndQueue(p);
        vm.warp(governor.proposalEta(p.id));
        execute(p);
    }

    function ballot(uint256 key, uint256 id, uint8 support) internal view returns (bytes memory) {
        (, string memory name, string memory version, uint256 chainId, address verifier,,) =
            governor.eip712Domain();
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256(bytes(name)),
                keccak256(bytes(version)),
                chainId,
                verifier
            )
        );
        address voter = vm.addr(key);
        bytes32 struct_ = keccak256(
            abi.encode(governor.BALLOT_TYPEHASH(), id, support, voter, governor.nonces(voter))
        );
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(key, keccak256(abi.encodePacked("\x19\x01", domain, struct_)));
        return abi.encodePacked(r, s, v);
    }

    function assertState(uint256 id, IGovernor.ProposalState state) internal view {
        assertEq(uint8(governor.state(id)), uint8(state));
    }
}
