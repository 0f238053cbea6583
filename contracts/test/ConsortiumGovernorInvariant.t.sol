// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Test} from "forge-std/Test.sol";

import {ConsortiumGovernor} from "../src/ConsortiumGovernor.sol";
import {ConsortiumTimelock} from "../src/ConsortiumTimelock.sol";
import {Membership} from "../src/Membership.sol";
import {GovernanceFixture} from "./GovernanceFixture.sol";

/// @notice Something that the timelock owns.
contract Governed is Ownable {
    uint256 public value;

    constructor(address owner_) Ownable(owner_) {}

    function set(uint256 to) external onlyOwner {
        value = to;
    }
}

/// @notice Members, guardian and outsiders at work, with a plain record of what should have come of
/// it. Each act decides from that record alone whether it must succeed, and fails if the contracts
/// disagree. Proposal number n sets the governed value to n.
contract Politics is Test {
    struct Record {
        uint256 beginS;
        uint256 endS;
        uint256 extendedS;
        uint256[3] votes;
        uint256 etaS; // 0 until queued
        bool canceled;
        bool executed;
    }

    uint256 internal constant NEEDED = 3;
    uint256 internal constant EXTENSION_S = 1 days;
    uint256 internal constant DELAY_S = 2 days;
    uint256 internal constant GRACE_S = 14 days;
    uint256 internal constant MOST = 12;

    ConsortiumGovernor internal immutable GOVERNOR;
    ConsortiumTimelock internal immutable TIMELOCK;
    Governed internal immutable GOVERNED;
    address internal immutable GUARDIAN;
    address[] internal members;

    Record[] internal records;
    mapping(uint256 proposal => mapping(address voter => bool)) internal voted;
    uint256 public expected; // what the governed value must be
    uint256 public executions;

    constructor(
        ConsortiumGovernor governor,
        ConsortiumTimelock timelock,
        Governed governed,
        address guardian,
        address[] memory members_
    ) {
        (GOVERNOR, TIMELOCK, GOVERNED, GUARDIAN) = (governor, timelock, governed, guardian);
        members = members_;
        records.push(); // numbers begin at 1
    }

    function actions(uint256 n)
        internal
        view
        returns (address[] memory targets, uint256[] memory values, bytes[] memory data)
    {
        targets = new address[](1);
        values = new uint256[](1);
        data = new bytes[](1);
        targets[0] = address(GOVERNED);
        data[0] = abi.encodeCall(Governed.set, (n));
    }

    function idOf(uint256 n) internal view returns (uint256) {
        (address[] memory t, uint256[] memory v, bytes[] memory d) = actions(n);
        return GOVERNOR.hashProposal(t, v, d, keccak256(""));
    }

    function some(uint8 which) internal view returns (uint256 n, Record storage r) {
        n = records.length == 1 ? 0 : 1 + which % (records.length - 1);
        r = records[n];
    }

    function active(Record storage r) internal view returns (bool) {
        return r.beginS != 0 && !r.canceled && block.timestamp > r.beginS
            && block.timestamp <= max(r.endS, r.extendedS);
    }

    function passed(Record storage r) internal view returns (bool) {
        return r.beginS != 0 && block.timestamp > max(r.endS, r.extendedS)
            && r.votes[1] + r.votes[2] >= NEEDED && r.votes[1] > r.votes[0];
    }

    function wait(uint32 s) external {
        vm.warp(block.timestamp + bound(s, 1, 4 days));
    }

    function propose(uint8 by) external {
        if (records.length > MOST) return;
        uint256 n = records.length;
        (address[] memory t, uint256[] memory v, bytes[] memory d) = actions(n);
        address who = by % 4 == 3 ? GUARDIAN : members[by % members.length];
        bool allowed = who != GUARDIAN;
        vm.prank(who);
        try GOVERNOR.propose(t, v, d, "") {
            assertTrue(allowed);
            Record storage r = records.push();
            r.beginS = block.timestamp + 1 days;
            r.endS = r.beginS + 5 days;
        } catch {
            assertFalse(allowed);
        }
    }

    function vote(uint8 which, uint8 by, uint8 support) external {
        (uint256 n, Record storage r) = some(which);
        support = support % 8 < 5 ? 1 : support % 3;
        address who = by % 8 == 7 ? GUARDIAN : members[by % members.length];
        bool allowed = active(r) && who != GUARDIAN && !voted[n][who];
        uint256 id = idOf(n);
        vm.prank(who);
        try GOVERNOR.castVote(id, support) {
            assertTrue(allowed);
            voted[n][who] = true;
            ++r.votes[support];
            if (r.extendedS == 0 && r.votes[1] + r.votes[2] >= NEEDED) {
                r.extendedS = block.timestamp + EXTENSION_S;
            }
        } catch {
            assertFalse(allowed);
        }
    }

    function queue(uint8 which) external {
        (uint256 n, Record storage r) = some(which);
        bool allowed = passed(r) && !r.canceled && r.etaS == 0
            && block.timestamp <= max(r.endS, r.extendedS) + GRACE_S;
        (address[] memory t, uint256[] memory v, bytes[] memory d) = actions(n);
        try GOVERNOR.queue(t, v, d, keccak256("")) {
            assertTrue(allowed);
            r.etaS = block.timestamp + DELAY_S;
        } catch {
            assertFalse(allowed);
        }
    }

    function execute(uint8 which) external {
        (uint256 n, Record storage r) = some(which);
        bool allowed = r.etaS != 0 && !r.canceled && !r.executed && block.timestamp >= r.etaS
            && block.timestamp <= r.etaS + GRACE_S;
        (address[] memory t, uint256[] memory v, bytes[] memory d) = actions(n);
        try GOVERNOR.execute(t, v, d, keccak256("")) {
            assertTrue(allowed);
            r.executed = true;
            expected = n;
            ++executions;
        } catch {
            assertFalse(allowed);
        }
    }

    function cancel(uint8 which, uint8 by) external {
        (uint256 n, Record storage r) = some(which);
        if (by % 8 != 0) return; // not all the time, or nothing would ever pass
        bool lapsed = r.etaS != 0
            ? block.timestamp > r.etaS + GRACE_S
            : passed(r) && block.timestamp > max(r.endS, r.extendedS) + GRACE_S;
        bool guards = by % 16 == 0;
        bool allowed = guards && r.beginS != 0 && !r.canceled && !r.executed && !lapsed;
        (address[] memory t, uint256[] memory v, bytes[] memory d) = actions(n);
        vm.prank(guards ? GUARDIAN : address(this));
        try GOVERNOR.cancel(t, v, d, keccak256("")) {
            assertTrue(allowed);
            r.canceled = true;
        } catch {
            assertFalse(allowed);
        }
    }

    /// @dev Ways around the governor: none may lead anywhere, for anybody.
    function trespass(uint8 which, uint8 how, uint8 by) external {
        (uint256 n,) = some(which);
        (address[] memory t, uint256[] memory v, bytes[] memory d) = actions(n);
        bytes32 salt = bytes20(address(GOVERNOR)) ^ keccak256("");
        address[3] memory callers = [GUARDIAN, members[by % members.length], address(this)];
        bytes32 operation = TIMELOCK.hashOperationBatch(t, v, d, 0, salt);
        vm.startPrank(callers[by % 3]);
        vm.expectRevert();
        if (how % 5 == 0) TIMELOCK.executeBatch(t, v, d, 0, salt);
        else if (how % 5 == 1) TIMELOCK.scheduleBatch(t, v, d, 0, salt, DELAY_S);
        else if (how % 5 == 2) TIMELOCK.cancel(operation);
        else if (how % 5 == 3) TIMELOCK.grantRole(0, callers[by % 3]);
        else GOVERNED.set(n);
        vm.stopPrank();
    }

    function max(uint256 a, uint256 b) internal pure returns (uint256) {
        return a > b ? a : b;
    }
}

contract ConsortiumGovernorInvariantTest is GovernanceFixture {
    Governed internal governed;
    Politics internal politics;

    function setUp() public override {
        super.setUp();
        governed = new Governed(address(timelock));
        politics = new Politics(governor, timelock, governed, guardian, accounts);
        targetContract(address(politics));
        // More of what moves a proposal on, or campaigns would end before anything was executed.
        bytes4[] memory selectors = new bytes4[](14);
        for (uint256 i = 0; i < 5; ++i) {
            selectors[i] = Politics.vote.selector;
        }
        for (uint256 i = 5; i < 9; ++i) {
            selectors[i] = i % 2 == 0 ? Politics.wait.selector : Politics.queue.selector;
        }
        selectors[9] = Politics.propose.selector;
        selectors[10] = Politics.execute.selector;
        selectors[11] = Politics.execute.selector;
        selectors[12] = Politics.cancel.selector;
        selectors[13] = Politics.trespass.selector;
        targetSelector(FuzzSelector(address(politics), selectors));
    }

    /// @dev One campaign for all: forge would run one for each function.
    function invariant_governor() public view {
        assertEq(governed.value(), politics.expected());
        assertEq(governed.owner(), address(timelock));
        assertEq(membership.owner(), address(timelock));
        bytes32[3] memory roles = governing();
        for (uint256 i = 0; i < 3; ++i) {
            assertTrue(timelock.hasRole(roles[i], address(governor)));
            assertFalse(timelock.hasRole(roles[i], guardian));
            assertFalse(timelock.hasRole(roles[i], address(politics)));
        }
        assertFalse(timelock.hasRole(0, guardian));
        assertFalse(timelock.hasRole(0, address(politics)));
        assertEq(timelock.getMinDelay(), DELAY_S);
    }

    /// @dev That the campaign reaches what it is about: one proposal all the way.
    function test_politicsLeadSomewhere() public {
        politics.propose(0);
        vm.warp(block.timestamp + 1 days + 1);
        for (uint8 i = 0; i < 3; ++i) {
            politics.vote(0, i, 0);
        }
        vm.warp(block.timestamp + 5 days);
        politics.queue(0);
        politics.execute(0); // too early
        assertEq(politics.executions(), 0);
        vm.warp(block.timestamp + DELAY_S);
        politics.execute(0);
        assertEq(politics.executions(), 1);
        assertEq(governed.value(), 1);
    }
}
