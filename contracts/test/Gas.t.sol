// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ParameterRules} from "../src/ParameterRules.sol";
import {Fixture} from "./Fixture.sol";

/// @notice Nothing but what goes well, so that `forge test --match-contract GasTest --gas-report`
/// gives the table in README.md. A consortium of 50 members and 5 helpers.
contract GasTest is Fixture {
    uint256 internal constant MANY = 50;
    uint256 internal constant QUORUM = 34; // 50 x 0.6667 = 33.335, rounded up

    function setUp() public override {
        super.setUp();
        delete memberKeys;
        delete memberIds;
        for (uint256 i = 1; i <= MEMBERS; ++i) {
            vm.prank(governance);
            membership.expel(i);
        }
        memberKeys = keysAscending("one of many", MANY);
        for (uint256 i = 0; i < MANY; ++i) {
            memberIds.push(seatMember(vm.addr(memberKeys[i])));
        }
        for (uint256 i = HELPERS; i < 5; ++i) {
            helperIds.push(seat(vm.addr(keyOf("helper", i)), membership.HELPER()));
        }
    }

    function test_oneRelease() public {
        open(1);
        vm.startPrank(coordinator);
        for (uint32 round = 1; round <= 10; ++round) {
            registry.postManifest(1, round, POLICY);
        }
        vm.stopPrank();
        bytes[] memory signatures = quorum(1, 1, EPSILON_MICRO, QUORUM);
        registry.publish(1, 1, sha(1), URI, EPSILON_MICRO, signatures);
        vm.warp(block.timestamp + DELAY_S);
        assertEq(liveVersion(), 1);
        vm.prank(guardian);
        registry.revoke(1);
        assertEq(liveVersion(), 0);
    }

    /// @dev Each write at its dearest: every parameter at once, and the first of a term.
    function test_parameters() public {
        uint8[] memory ids = new uint8[](28);
        (uint64[28] memory now_,,) = store.parameters();
        uint64[] memory values = new uint64[](28);
        for (uint8 id = 0; id < 28; ++id) {
            (ids[id], values[id]) = (id, now_[id]);
        }
        vm.startPrank(governance);
        store.setGuardian(guardian);
        store.setSteward(outsider);
        store.set(ids, values);
        vm.stopPrank();
        vm.prank(outsider);
        store.steer(ids, values);
        values[ParameterRules.GAS_PRICE_MAX_GWEI] = 400;
        vm.startPrank(guardian);
        store.tighten(ids, values);
        store.veto();
        store.pause();
        vm.stopPrank();
        vm.prank(governance);
        store.unpause();
        store.snapshot();
        assertEq(store.governed()[ParameterRules.GAS_PRICE_MAX_GWEI], 400);
    }

    /// @dev One parameter, as is usual.
    function test_oneParameter() public {
        vm.startPrank(governance);
        store.setGuardian(guardian);
        store.setSteward(outsider);
        vm.stopPrank();
        setParameter(ParameterRules.GAS_PRICE_MAX_GWEI, 450);
        (uint8[] memory ids, uint64[] memory values) = one(ParameterRules.GAS_PRICE_MAX_GWEI, 500);
        vm.prank(outsider);
        store.steer(ids, values);
        values[0] = 400;
        vm.prank(guardian);
        store.tighten(ids, values);
        store.parameters();
    }
}
