// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ModelRegistry} from "../src/ModelRegistry.sol";
import {ParameterRules} from "../src/ParameterRules.sol";
import {Fixture} from "./Fixture.sol";

/// @notice What the governed parameters do to the registry, and when they are read.
contract ModelRegistryParametersTest is Fixture {
    uint64 internal constant INTERVAL_S = 6 hours;

    function pause() internal {
        vm.prank(guardian);
        store.pause();
    }

    function setUp() public override {
        super.setUp();
        vm.prank(governance);
        store.setGuardian(guardian);
    }

    /* quorum */

    function test_quorum_raisedSinceTheOpening() public {
        open(1);
        setParameter(ParameterRules.QUORUM_BPS, 10_000);
        assertEq(registry.releaseOf(1).signaturesNeeded, NEEDED);
        assertEq(registry.signaturesNeeded(1), MEMBERS);
        bytes[] memory signatures = quorum(1, 1, EPSILON_MICRO, NEEDED);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_TooFewSignatures.selector, NEEDED, MEMBERS
            )
        );
        registry.publish(1, 1, sha(1), URI, EPSILON_MICRO, signatures);
        signatures = quorum(1, 1, EPSILON_MICRO, MEMBERS);
        registry.publish(1, 1, sha(1), URI, EPSILON_MICRO, signatures);
    }

    function test_quorum_loweredSinceTheOpening() public {
        open(1);
        setParameter(ParameterRules.QUORUM_BPS, 5_001); // 3 of 5
        assertEq(registry.signaturesNeeded(1), NEEDED);
        bytes[] memory signatures = quorum(1, 1, EPSILON_MICRO, 3);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_TooFewSignatures.selector, 3, NEEDED)
        );
        registry.publish(1, 1, sha(1), URI, EPSILON_MICRO, signatures);
        publish(1, 1);
        open(2);
        assertEq(registry.releaseOf(2).signaturesNeeded, 3);
    }

    /// @dev Exactly a share of five, and one ten-thousandth of a member more than two of three.
    function test_quorum_roundsUp() public {
        setParameter(ParameterRules.QUORUM_BPS, 8_000);
        open(1);
        assertEq(registry.signaturesNeeded(1), 4);
        setParameter(ParameterRules.QUORUM_BPS, 6_667);
        vm.startPrank(governance);
        membership.expel(memberIds[4]);
        membership.expel(memberIds[3]);
        vm.stopPrank();
        memberIds.pop();
        memberIds.pop();
        open(2);
        assertEq(registry.signaturesNeeded(2), 3);
    }

    /// @dev A share of the members at the opening, also where the consortium has grown since.
    function testFuzz_quorum_isTheStricter(uint64 before, uint64 now_, uint8 late) public {
        before = uint64(bound(before, 5_001, 10_000));
        now_ = uint64(bound(now_, 5_001, 10_000));
        setParameter(ParameterRules.QUORUM_BPS, before);
        open(1);
        setParameter(ParameterRules.QUORUM_BPS, now_);
        for (uint256 i = 0; i < late % 4; ++i) {
            seatMember(vm.addr(keyOf("late", i)));
        }
        uint64 stricter = before > now_ ? before : now_;
        assertEq(registry.signaturesNeeded(1), (MEMBERS * stricter + 9_999) / 10_000);
        assertEq(registry.releaseOf(1).members, MEMBERS);
    }

    function test_signaturesNeeded_unknown() public {
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_UnknownRelease.selector, 1)
        );
        registry.signaturesNeeded(1);
    }

    /* activation delay */

    function test_delay_isReadAtThePublication() public {
        open(1);
        setParameter(ParameterRules.ACTIVATION_DELAY_S, 2 hours);
        publish(1, 1);
        (,, uint64 liveFrom,,) = registry.model(1);
        assertEq(liveFrom, block.timestamp + 2 hours);
        setParameter(ParameterRules.ACTIVATION_DELAY_S, 0);
        assertEq(liveVersion(), 0); // what is published keeps its time
    }

    function test_delay_shortened_keepsTheOrder() public {
        open(1);
        publish(1, 1);
        uint64 first = uint64(block.timestamp) + DELAY_S;
        setParameter(ParameterRules.ACTIVATION_DELAY_S, 10);
        open(2);
        publish(2, 2);
        (,, uint64 liveFrom,,) = registry.model(2);
        assertEq(liveFrom, first);
        assertEq(liveVersion(), 0);
        vm.warp(first);
        assertEq(liveVersion(), 2);
    }

    function test_delay_shortened_afterTheOneAheadWasRevoked() public {
        open(1);
        publish(1, 1);
        vm.prank(guardian);
        registry.revoke(1);
        setParameter(ParameterRules.ACTIVATION_DELAY_S, 10);
        open(2);
        publish(2, 2);
        (,, uint64 liveFrom,,) = registry.model(2);
        assertEq(liveFrom, block.timestamp + 10);
    }

    /* cap */

    function test_cap_loweredBelowWhatIsSpent() public {
        open(1);
        publish(1, 1, 5_000_000);
        open(2);
        uint8[] memory ids = new uint8[](2);
        uint64[] memory values = new uint64[](2);
        (ids[0], values[0]) = (ParameterRules.EPSILON_RELEASE_MICRO, 4_000_000);
        (ids[1], values[1]) = (ParameterRules.EPSILON_TOTAL_MICRO, 4_000_000);
        vm.prank(guardian);
        store.tighten(ids, values);
        assertEq(registry.epsilonCapMicro(), 4_000_000);
        bytes[] memory signatures = quorum(2, 2, 1, NEEDED);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_CapExceeded.selector, 5_000_000, 1, 4_000_000
            )
        );
        registry.publish(2, 2, sha(2), URI, 1, signatures);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_CapReached.selector, 5_000_000, 4_000_000
            )
        );
        open(3);
        setParameter(ParameterRules.EPSILON_TOTAL_MICRO, 5_000_001);
        publish(2, 2, 1); // to the last millionth
    }

    function test_cap_noOverflow() public {
        open(1);
        publish(1, 1, EPSILON_MICRO);
        open(2);
        bytes[] memory none = new bytes[](0);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_CapExceeded.selector,
                EPSILON_MICRO,
                type(uint64).max,
                CAP_MICRO
            )
        );
        registry.publish(2, 2, sha(2), URI, type(uint64).max, none);
    }

    /* interval */

    function testFuzz_interval_afterAPublication(uint64 laterS) public {
        laterS = uint64(bound(laterS, 0, INTERVAL_S - 1));
        setParameter(ParameterRules.RELEASE_INTERVAL_S, INTERVAL_S);
        uint64 opened = uint64(block.timestamp);
        open(1); // the first waits for nothing
        assertEq(registry.releaseOf(1).openedAt, opened);
        vm.warp(opened + laterS);
        publish(1, 1);
        assertEq(registry.earliestOpening(), opened + INTERVAL_S);
        expectTooSoon(opened + INTERVAL_S);
        open(2);
        vm.warp(opened + INTERVAL_S);
        open(2);
    }

    /// @dev A crash costs no interval, however often; and failing does not shorten one.
    function test_interval_failedReleasesDoNotCount() public {
        setParameter(ParameterRules.RELEASE_INTERVAL_S, INTERVAL_S);
        open(1);
        open(2); // replaces its own
        vm.prank(coordinator);
        registry.abandonRelease(2);
        open(3);
        assertEq(registry.earliestOpening(), 0);
        publish(3, 1);
        uint64 first = uint64(block.timestamp);
        expectTooSoon(first + INTERVAL_S);
        open(4);
        vm.warp(first + INTERVAL_S);
        open(4);
        vm.warp(first + INTERVAL_S + 1 hours);
        open(5);
        vm.prank(governance);
        registry.abandonRelease(5);
        open(6);
        publish(6, 2);
        expectTooSoon(first + 2 * INTERVAL_S + 1 hours);
        open(7);
    }

    function test_interval_changedMeanwhile() public {
        open(1);
        publish(1, 1);
        uint64 opened = uint64(block.timestamp);
        setParameter(ParameterRules.RELEASE_INTERVAL_S, INTERVAL_S);
        expectTooSoon(opened + INTERVAL_S);
        open(2);
        setParameter(ParameterRules.RELEASE_INTERVAL_S, 0);
        open(2);
    }

    function expectTooSoon(uint64 earliest) internal {
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_TooSoon.selector, earliest)
        );
    }

    /* pause */

    function test_pause_stopsOpeningAndPublishing() public {
        open(1);
        publish(1, 1);
        open(2);
        bytes[] memory signatures = quorum(2, 2, EPSILON_MICRO, NEEDED);
        pause();
        vm.expectRevert(ModelRegistry.ModelRegistry_Paused.selector);
        open(3);
        vm.expectRevert(ModelRegistry.ModelRegistry_Paused.selector);
        registry.publish(2, 2, sha(2), URI, EPSILON_MICRO, signatures);

        vm.prank(coordinator); // a round under way may end, and a release be given up
        registry.postManifest(2, 1, POLICY);
        vm.prank(guardian);
        registry.revoke(1);
        vm.prank(governance);
        store.unpause();
        registry.publish(2, 2, sha(2), URI, EPSILON_MICRO, signatures);
    }

    function test_pause_neverStopsRevokingOrAbandoning() public {
        open(1);
        publish(1, 1);
        vm.warp(block.timestamp + DELAY_S);
        open(2);
        pause();
        assertEq(liveVersion(), 1); // what is live is a fact; whether to act on it is the agent's
        vm.prank(guardian);
        registry.revoke(1);
        assertEq(liveVersion(), 0);
        vm.prank(coordinator);
        registry.abandonRelease(2);
        assertEq(registry.currentRelease(), 0);
    }

    /* the steward */

    /// @dev What is in force counts, not what is governed; and it lapses.
    function test_interimValuesCount() public {
        vm.prank(governance);
        store.setSteward(outsider);
        (uint8[] memory ids, uint64[] memory values) = one(ParameterRules.QUORUM_BPS, 6_001);
        vm.prank(outsider);
        store.steer(ids, values);
        seatMember(vm.addr(keyOf("late", 0)));
        seatMember(vm.addr(keyOf("late", 1)));
        seatMember(vm.addr(keyOf("late", 2)));
        open(1); // 5 of 8 at 6001, 6 of 8 at 6667
        assertEq(registry.releaseOf(1).signaturesNeeded, 5);
        vm.warp(block.timestamp + store.INTERIM_S());
        assertEq(registry.signaturesNeeded(1), 6);
    }
}
