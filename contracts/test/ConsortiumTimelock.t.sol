// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

import {ConsortiumTimelock} from "../src/ConsortiumTimelock.sol";
import {GovernanceFixture} from "./GovernanceFixture.sol";

contract ConsortiumTimelockTest is GovernanceFixture {
    function test_constructor() public {
        ConsortiumTimelock fresh = new ConsortiumTimelock(founder);
        bytes32[3] memory roles = governing();
        for (uint256 i = 0; i < 3; ++i) {
            assertTrue(fresh.hasRole(roles[i], founder));
            assertFalse(fresh.hasRole(roles[i], address(0))); // not open to everybody
        }
        assertTrue(fresh.hasRole(0, founder));
        assertEq(fresh.getMinDelay(), 0);
    }

    function test_handOver() public view {
        bytes32[3] memory roles = governing();
        for (uint256 i = 0; i < 3; ++i) {
            assertFalse(timelock.hasRole(roles[i], founder));
            assertTrue(timelock.hasRole(roles[i], address(governor)));
            assertFalse(timelock.hasRole(roles[i], address(timelock)));
        }
        assertFalse(timelock.hasRole(0, founder));
        assertFalse(timelock.hasRole(0, address(governor)));
        assertTrue(timelock.hasRole(0, address(timelock)));
        assertEq(timelock.getMinDelay(), DELAY_S);
    }

    function test_nobodyElse() public {
        bytes32[3] memory roles = governing();
        for (uint256 i = 0; i < 2; ++i) {
            address who = i == 0 ? founder : outsider;
            vm.startPrank(who);
            expectMissing(who, roles[0]);
            timelock.schedule(address(membership), 0, "", 0, 0, DELAY_S);
            expectMissing(who, roles[2]);
            timelock.execute(address(membership), 0, "", 0, 0);
            expectMissing(who, roles[1]);
            timelock.cancel(0);
            expectMissing(who, 0);
            timelock.grantRole(roles[0], who);
            vm.stopPrank();
        }
    }

    function test_updateDelay_onlyItself() public {
        vm.expectRevert(
            abi.encodeWithSelector(TimelockController.TimelockUnauthorizedCaller.selector, outsider)
        );
        vm.prank(outsider);
        timelock.updateDelay(1 days);
    }

    function test_updateDelay_bounds() public {
        vm.startPrank(address(timelock));
        timelock.updateDelay(60);
        timelock.updateDelay(30 days);
        expectOutOfRange(59);
        timelock.updateDelay(59);
        expectOutOfRange(30 days + 1);
        timelock.updateDelay(30 days + 1);
        vm.stopPrank();
        assertEq(timelock.getMinDelay(), 30 days);
    }

    function testFuzz_updateDelay(uint256 delayS) public {
        bool inside = delayS >= 60 && delayS <= 30 days;
        if (!inside) expectOutOfRange(delayS);
        vm.prank(address(timelock));
        timelock.updateDelay(delayS);
        assertEq(timelock.getMinDelay(), inside ? delayS : DELAY_S);
    }

    function expectOutOfRange(uint256 delayS) internal {
        vm.expectRevert(
            abi.encodeWithSelector(
                ConsortiumTimelock.ConsortiumTimelock_DelayOutOfRange.selector, delayS, 60, 30 days
            )
        );
    }

    function expectMissing(address who, bytes32 role) internal {
        vm.expectRevert(
            abi.encodeWithSelector(
                IAccessControl.AccessControlUnauthorizedAccount.selector, who, role
            )
        );
    }
}
