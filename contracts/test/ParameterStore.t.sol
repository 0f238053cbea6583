// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Test} from "forge-std/Test.sol";

import {ParameterRules} from "../src/ParameterRules.sol";
import {ParameterStore} from "../src/ParameterStore.sol";
import {defaults} from "./Defaults.sol";

/// @notice A store with everybody who has a power over it, and what tests say about it.
abstract contract StoreFixture is Test {
    uint256 internal constant START_S = 1_750_000_000;
    uint64 internal constant TERM_S = 7 days;

    uint8 internal constant CLIP = ParameterRules.CLIP_NORM_MICRO;
    uint8 internal constant QUORUM = ParameterRules.QUORUM_BPS;
    uint8 internal constant LEVERAGE = ParameterRules.LEVERAGE_MAX_BPS;
    uint8 internal constant SLIPPAGE = ParameterRules.SLIPPAGE_MAX_BPS;
    uint8 internal constant AGE = ParameterRules.ORACLE_AGE_MAX_S;
    uint8 internal constant DEVIATION = ParameterRules.ORACLE_DEVIATION_MAX_BPS;
    uint8 internal constant GAS = ParameterRules.GAS_PRICE_MAX_GWEI;

    address internal governance = makeAddr("governance");
    address internal guardian = makeAddr("guardian");
    address internal steward = makeAddr("steward");
    address internal outsider = makeAddr("outsider");
    ParameterStore internal store;

    function setUp() public virtual {
        vm.warp(START_S);
        store = new ParameterStore(governance, defaults());
        vm.startPrank(governance);
        store.setGuardian(guardian);
        store.setSteward(steward);
        vm.stopPrank();
    }

    function one(uint8 id, uint64 value)
        internal
        pure
        returns (uint8[] memory ids, uint64[] memory values)
    {
        (ids, values) = (new uint8[](1), new uint64[](1));
        (ids[0], values[0]) = (id, value);
    }

    function two(uint8 id, uint64 value, uint8 other, uint64 otherValue)
        internal
        pure
        returns (uint8[] memory ids, uint64[] memory values)
    {
        (ids, values) = (new uint8[](2), new uint64[](2));
        (ids[0], values[0], ids[1], values[1]) = (id, value, other, otherValue);
    }

    function set(uint8 id, uint64 value) internal {
        (uint8[] memory ids, uint64[] memory values) = one(id, value);
        vm.prank(governance);
        store.set(ids, values);
    }

    function steer(uint8 id, uint64 value) internal {
        (uint8[] memory ids, uint64[] memory values) = one(id, value);
        vm.prank(steward);
        store.steer(ids, values);
    }

    function tighten(uint8 id, uint64 value) internal {
        (uint8[] memory ids, uint64[] memory values) = one(id, value);
        vm.prank(guardian);
        store.tighten(ids, values);
    }

    function inForce(uint8 id) internal view returns (uint64) {
        (uint64[28] memory values,,) = store.parameters();
        return values[id];
    }

    function governed(uint8 id) internal view returns (uint64) {
        return store.governed()[id];
    }

    function until() internal view returns (uint64 end) {
        (, end) = store.interim();
    }

    function expectChanged(uint8 id, uint64 value, bool paused) internal {
        (uint64[28] memory values,,) = store.parameters();
        values[id] = value;
        vm.expectEmit(address(store));
        emit ParameterStore.ParametersChanged(store.sequence() + 1, values, paused);
    }

    function expectAbsurd(uint8 number) internal {
        vm.expectRevert(
            abi.encodeWithSelector(ParameterRules.ParameterRules_JointlyAbsurd.selector, number)
        );
    }
}

/// @notice Every branch of the store.
contract ParameterStoreTest is StoreFixture {
    /* constructor */

    function test_constructor() public {
        uint64[28] memory values = defaults();
        vm.expectEmit();
        emit ParameterStore.ParametersChanged(1, values, false);
        ParameterStore fresh = new ParameterStore(governance, values);
        assertEq(fresh.owner(), governance);
        assertEq(fresh.guardian(), address(0));
        assertEq(fresh.steward(), address(0));
        assertEq(fresh.sequence(), 1);
        assertEq(abi.encode(fresh.governed()), abi.encode(values));
        (uint64[28] memory now_, bool paused, uint64 asOf) = fresh.parameters();
        assertEq(abi.encode(now_), abi.encode(values));
        assertFalse(paused);
        assertEq(asOf, block.timestamp);
        (uint64[28] memory interim, uint64 end) = fresh.interim();
        assertEq(abi.encode(interim), abi.encode(values)); // sound, though nobody steered
        assertEq(end, 0);
    }

    function test_constructor_zeroOwner() public {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        new ParameterStore(address(0), defaults());
    }

    function test_constructor_unsound() public {
        uint64[28] memory values = defaults();
        values[QUORUM] = 5_000;
        vm.expectRevert(
            abi.encodeWithSelector(
                ParameterRules.ParameterRules_OutOfBounds.selector, QUORUM, 5_000, 5_001, 10_000
            )
        );
        new ParameterStore(governance, values);
        values = defaults();
        values[DEVIATION] = 150;
        expectAbsurd(ParameterRules.OLD_PRICE_MAY_DIFFER);
        new ParameterStore(governance, values);
    }

    /* lists of parameters, alike for all who write */

    function test_lists() public {
        (uint8[] memory ids, uint64[] memory values) = (new uint8[](0), new uint64[](0));
        checkListRefused(ids, values, ParameterStore.ParameterStore_NoParameters.selector);

        (ids, values) = (new uint8[](1), new uint64[](2));
        checkListRefused(
            ids,
            values,
            abi.encodeWithSelector(ParameterStore.ParameterStore_LengthsDiffer.selector, 1, 2)
        );
        (ids, values) = two(GAS, 400, GAS, 300);
        checkListRefused(
            ids,
            values,
            abi.encodeWithSelector(ParameterStore.ParameterStore_IdsNotAscending.selector, GAS, GAS)
        );
        (ids, values) = two(GAS, 400, AGE, 3_600);
        checkListRefused(
            ids,
            values,
            abi.encodeWithSelector(ParameterStore.ParameterStore_IdsNotAscending.selector, GAS, AGE)
        );
        (ids, values) = one(28, 0);
        checkListRefused(
            ids,
            values,
            abi.encodeWithSelector(ParameterRules.ParameterRules_UnknownParameter.selector, 28)
        );
        (ids, values) = one(GAS, 0);
        checkListRefused(
            ids,
            values,
            abi.encodeWithSelector(
                ParameterRules.ParameterRules_OutOfBounds.selector, GAS, 0, 1, 100_000
            )
        );
    }

    function checkListRefused(uint8[] memory ids, uint64[] memory values, bytes memory reason)
        internal
    {
        vm.expectRevert(reason);
        vm.prank(governance);
        store.set(ids, values);
        vm.expectRevert(reason);
        vm.prank(steward);
        store.steer(ids, values);
        vm.expectRevert(reason);
        vm.prank(guardian);
        store.tighten(ids, values);
        assertEq(store.sequence(), 1);
    }

    function checkListRefused(uint8[] memory ids, uint64[] memory values, bytes4 reason) internal {
        checkListRefused(ids, values, abi.encodePacked(reason));
    }

    /* set */

    function test_set_notAllowed() public {
        (uint8[] memory ids, uint64[] memory values) = one(GAS, 400);
        address[3] memory callers = [guardian, steward, outsider];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, callers[i])
            );
            vm.prank(callers[i]);
            store.set(ids, values);
        }
    }

    function testFuzz_set(uint8 id, uint64 value) public {
        id %= 28;
        uint64[28] memory expected = defaults();
        (uint64 least, uint64 most,,,) = ParameterRules.rule(id);
        expected[id] = value = uint64(bound(value, least, most));
        (uint8[] memory ids, uint64[] memory values) = one(id, value);
        uint8 number = ParameterRules.broken(expected);
        if (number != 0) {
            expectAbsurd(number);
            set(id, value);
            return;
        }
        vm.expectEmit(address(store));
        emit ParameterStore.ParametersSet(ids, values);
        expectChanged(id, value, false);
        set(id, value);
        assertEq(abi.encode(store.governed()), abi.encode(expected));
        assertEq(inForce(id), value); // no step, no cool-down: governance has its time lock
        assertEq(store.sequence(), 2);
    }

    /// @dev One bad value, and nothing is written: no part of a proposal comes into force.
    function test_set_wholeOrNotAtAll() public {
        (uint8[] memory ids, uint64[] memory values) = two(AGE, 3_600, DEVIATION, 5_001);
        vm.expectRevert(
            abi.encodeWithSelector(
                ParameterRules.ParameterRules_OutOfBounds.selector, DEVIATION, 5_001, 10, 5_000
            )
        );
        vm.prank(governance);
        store.set(ids, values);
        assertEq(inForce(AGE), 3_900);
    }

    function test_set_whileATermIsOn() public {
        steer(GAS, 600);
        steer(SLIPPAGE, 55);
        set(GAS, 450);
        assertEq(inForce(GAS), 450); // what governance decides is in force at once
        assertEq(inForce(SLIPPAGE), 55); // what it does not speak of stays steered
        assertEq(governed(SLIPPAGE), 50);
        assertEq(until(), START_S + TERM_S);
        vm.warp(START_S + TERM_S);
        assertEq(inForce(SLIPPAGE), 50);
        assertEq(inForce(GAS), 450);
    }

    function test_set_endsATermThatWouldBeAbsurd() public {
        steer(AGE, 4_875);
        vm.expectEmit(address(store));
        emit ParameterStore.InterimEnded(governance);
        set(DEVIATION, 170); // 3 x 170^2 = 86,700: enough for 3,900 s, not for 4,875 s
        assertEq(until(), 0);
        assertEq(inForce(AGE), 3_900);
        assertEq(inForce(DEVIATION), 170);
    }

    function test_set_absurdOfItself() public {
        steer(AGE, 3_000); // with this it would do, but a term ends
        expectAbsurd(ParameterRules.OLD_PRICE_MAY_DIFFER);
        set(DEVIATION, 150);
    }

    /* steer */

    function test_steer_notAllowed() public {
        (uint8[] memory ids, uint64[] memory values) = one(GAS, 400);
        address[3] memory callers = [guardian, governance, outsider];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ParameterStore.ParameterStore_NotSteward.selector, callers[i]
                )
            );
            vm.prank(callers[i]);
            store.steer(ids, values);
        }
    }

    function test_steer_paused() public {
        vm.prank(guardian);
        store.pause();
        vm.expectRevert(ParameterStore.ParameterStore_Paused.selector);
        steer(GAS, 400);
        vm.prank(governance);
        store.unpause();
        steer(GAS, 400);
    }

    function testFuzz_steer(uint8 id, uint64 to) public {
        id %= 28;
        uint64[28] memory expected = defaults();
        (uint64 least, uint64 most,,,) = ParameterRules.rule(id);
        uint64 from = expected[id];
        uint64 room = from / 2 + 1;
        to = uint64(bound(to, from > room ? from - room : 0, from + room));
        expected[id] = to = uint64(bound(to, least, most));
        (uint8[] memory ids, uint64[] memory values) = one(id, to);
        if (!ParameterRules.withinStep(id, from, to)) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ParameterStore.ParameterStore_StepTooFar.selector, id, from, to
                )
            );
            steer(id, to);
            return;
        }
        uint8 number = ParameterRules.broken(expected);
        if (number != 0) {
            expectAbsurd(number);
            steer(id, to);
            return;
        }
        uint64 end = uint64(block.timestamp) + TERM_S;
        vm.expectEmit(address(store));
        emit ParameterStore.ParametersSteered(steward, ids, values, end);
        vm.expectEmit(address(store));
        emit ParameterStore.ParametersChanged(2, expected, false);
        steer(id, to);
        assertEq(inForce(id), to);
        assertEq(governed(id), from);
        assertEq(store.lastSteered(id), block.timestamp);
        vm.warp(end - 1);
        assertEq(inForce(id), to);
        vm.warp(end);
        assertEq(inForce(id), from); // lapses by itself
        assertEq(until(), 0);
    }

    function test_steer_oneUnitAlways() public {
        steer(ParameterRules.HELPERS, 6); // a quarter of 5 is 1
        steer(ParameterRules.RELEASE_INTERVAL_S, 1); // half of nothing is nothing, but one unit
        vm.expectRevert(
            abi.encodeWithSelector(
                ParameterStore.ParameterStore_StepTooFar.selector, ParameterRules.CORRUPT, 2, 4
            )
        );
        steer(ParameterRules.CORRUPT, 4);
    }

    function test_steer_coolDown() public {
        uint256 start = block.timestamp;
        steer(GAS, 600);
        vm.warp(start + 1 hours - 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                ParameterStore.ParameterStore_TooSoon.selector, GAS, start + 1 hours
            )
        );
        steer(GAS, 700);
        steer(AGE, 4_000); // each cools by itself
        vm.warp(start + 1 hours);
        steer(GAS, 700);
        assertEq(store.lastSteered(GAS), start + 1 hours);
    }

    /// @dev The cool-down goes on when a term ends, and when it is ended.
    function test_steer_coolDownOutlivesTheTerm() public {
        steer(QUORUM, 7_000);
        vm.prank(guardian);
        store.veto();
        vm.expectRevert(
            abi.encodeWithSelector(
                ParameterStore.ParameterStore_TooSoon.selector, QUORUM, START_S + 7 days
            )
        );
        steer(QUORUM, 7_000);
    }

    /// @dev A steward cannot stay in force by steering on.
    function test_steer_doesNotLengthenTheTerm() public {
        steer(GAS, 600);
        vm.warp(START_S + TERM_S - 1);
        steer(AGE, 4_000);
        assertEq(until(), START_S + TERM_S);
        vm.warp(START_S + TERM_S);
        assertEq(inForce(AGE), 3_900);
        assertEq(inForce(GAS), 500);
        steer(GAS, 750); // the next term begins at the governed set
        assertEq(until(), START_S + 2 * TERM_S);
    }

    /// @dev Steps do not compound beyond four of them, however many hours the term has.
    function test_steer_reach() public {
        uint256 time = block.timestamp;
        steer(GAS, 750);
        vm.warp(time += 1 hours);
        steer(GAS, 1_125);
        vm.warp(time += 1 hours);
        vm.expectRevert(
            abi.encodeWithSelector(
                ParameterStore.ParameterStore_OutOfReach.selector, GAS, 500, 1_501
            )
        );
        steer(GAS, 1_501);
        steer(GAS, 1_500); // 500 and four times a half of it
        vm.warp(time += 1 hours);
        steer(GAS, 750); // back
        for (uint256 i = 0; i < 12; ++i) {
            vm.warp(time += 1 hours);
            steer(GAS, inForce(GAS) / 2 + 1); // tighter without end
        }
        assertLe(inForce(GAS), 2);
    }

    /* tighten */

    function test_tighten_notAllowed() public {
        (uint8[] memory ids, uint64[] memory values) = one(GAS, 400);
        address[3] memory callers = [steward, governance, outsider];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ParameterStore.ParameterStore_NotGuardian.selector, callers[i]
                )
            );
            vm.prank(callers[i]);
            store.tighten(ids, values);
        }
    }

    function testFuzz_tighten(uint8 id, uint64 value) public {
        id %= 28;
        uint64[28] memory expected = defaults();
        (uint64 least, uint64 most,,, bool up) = ParameterRules.rule(id);
        uint64 from = expected[id];
        expected[id] = value = uint64(bound(value, least, most));
        (uint8[] memory ids, uint64[] memory values) = one(id, value);
        uint8 number = ParameterRules.broken(expected);
        if (up ? value < from : value > from) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ParameterStore.ParameterStore_Looser.selector, id, value, from
                )
            );
        } else if (value == from) {
            vm.expectRevert(ParameterStore.ParameterStore_NothingTighter.selector);
        } else if (number != 0) {
            expectAbsurd(number);
        } else {
            vm.expectEmit(address(store));
            emit ParameterStore.ParametersTightened(guardian, ids, values);
            expectChanged(id, value, false);
        }
        tighten(id, value);
    }

    /// @dev No step, no cool-down, no end; and also while paused.
    function test_tighten_staysUntilGovernanceMovesIt() public {
        vm.prank(guardian);
        store.pause();
        tighten(GAS, 1);
        vm.warp(START_S + 3_650 days);
        assertEq(inForce(GAS), 1);
        set(GAS, 500);
        assertEq(inForce(GAS), 500);
    }

    /// @dev Against what is governed, and against what is in force.
    function test_tighten_whileATermIsOn() public {
        steer(GAS, 600); // looser than governed
        steer(SLIPPAGE, 40); // tighter than governed
        vm.expectRevert(
            abi.encodeWithSelector(ParameterStore.ParameterStore_Looser.selector, GAS, 550, 500)
        );
        tighten(GAS, 550);
        vm.expectRevert(
            abi.encodeWithSelector(ParameterStore.ParameterStore_Looser.selector, SLIPPAGE, 45, 40)
        );
        tighten(SLIPPAGE, 45);
        tighten(GAS, 500); // as governed, and tighter than what is in force
        assertEq(inForce(GAS), 500);
        tighten(SLIPPAGE, 40); // as in force, and it now outlives the term
        assertEq(until(), START_S + TERM_S);
        vm.warp(START_S + TERM_S);
        assertEq(inForce(SLIPPAGE), 40);
        assertEq(governed(GAS), 500);
    }

    function test_tighten_togetherWhatBelongsTogether() public {
        expectAbsurd(ParameterRules.OLD_PRICE_MAY_DIFFER);
        tighten(DEVIATION, 100);
        (uint8[] memory ids, uint64[] memory values) = two(AGE, 1_500, DEVIATION, 100);
        vm.prank(guardian);
        store.tighten(ids, values);
        assertEq(inForce(DEVIATION), 100);
    }

    /// @dev A steward's values that stand in the way are ended first.
    function test_tighten_absurdWithTheInterim() public {
        steer(AGE, 4_875);
        expectAbsurd(ParameterRules.OLD_PRICE_MAY_DIFFER);
        tighten(DEVIATION, 170);
        vm.prank(guardian);
        store.veto();
        tighten(DEVIATION, 170);
    }

    /* veto */

    function test_veto_notAllowed() public {
        steer(GAS, 600);
        address[2] memory callers = [steward, outsider];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ParameterStore.ParameterStore_NotGuardian.selector, callers[i]
                )
            );
            vm.prank(callers[i]);
            store.veto();
        }
    }

    function test_veto_byEither() public {
        checkVeto(guardian, GAS);
        checkVeto(governance, AGE);
    }

    function checkVeto(address caller, uint8 id) internal {
        uint64 before = inForce(id);
        steer(id, before + 1);
        vm.expectEmit(address(store));
        emit ParameterStore.InterimEnded(caller);
        expectChanged(id, before, false);
        vm.prank(caller);
        store.veto();
        assertEq(inForce(id), before);
        assertEq(until(), 0);
    }

    function test_veto_noTerm() public {
        vm.expectRevert(ParameterStore.ParameterStore_NoInterim.selector);
        vm.prank(guardian);
        store.veto();
        steer(GAS, 600);
        vm.warp(START_S + TERM_S);
        vm.expectRevert(ParameterStore.ParameterStore_NoInterim.selector);
        vm.prank(guardian);
        store.veto();
    }

    /* pause */

    function test_pause_byEither() public {
        address[2] memory callers = [guardian, governance];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectEmit(address(store));
            emit ParameterStore.PauseChanged(callers[i], true);
            expectChanged(GAS, 500, true);
            vm.prank(callers[i]);
            store.pause();
            (, bool paused,) = store.parameters();
            assertTrue(paused);
            vm.expectRevert(ParameterStore.ParameterStore_Paused.selector);
            vm.prank(callers[i]);
            store.pause();
            vm.expectEmit(address(store));
            emit ParameterStore.PauseChanged(governance, false);
            expectChanged(GAS, 500, false);
            vm.prank(governance);
            store.unpause();
        }
    }

    function test_pause_notAllowed() public {
        address[2] memory callers = [steward, outsider];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ParameterStore.ParameterStore_NotGuardian.selector, callers[i]
                )
            );
            vm.prank(callers[i]);
            store.pause();
        }
    }

    function test_unpause_byTheOwnerOnly() public {
        vm.prank(guardian);
        store.pause();
        address[3] memory callers = [guardian, steward, outsider];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, callers[i])
            );
            vm.prank(callers[i]);
            store.unpause();
        }
        vm.startPrank(governance);
        store.unpause();
        vm.expectRevert(ParameterStore.ParameterStore_NotPaused.selector);
        store.unpause();
    }

    /// @dev A pause does not make a term longer.
    function test_pause_theTermRunsOn() public {
        steer(GAS, 600);
        vm.prank(guardian);
        store.pause();
        assertEq(inForce(GAS), 600);
        vm.warp(START_S + TERM_S);
        assertEq(inForce(GAS), 500);
        set(GAS, 400); // governance may move parameters before it lets go on
        assertEq(inForce(GAS), 400);
    }

    /* offices */

    function test_offices_areTheOwnersToGive() public {
        vm.expectEmit(address(store));
        emit ParameterStore.GuardianChanged(guardian, address(0));
        vm.prank(governance);
        store.setGuardian(address(0));
        vm.expectEmit(address(store));
        emit ParameterStore.StewardChanged(steward, outsider);
        vm.prank(governance);
        store.setSteward(outsider);
        vm.expectRevert(
            abi.encodeWithSelector(ParameterStore.ParameterStore_NotSteward.selector, steward)
        );
        steer(GAS, 600);
        vm.expectRevert(
            abi.encodeWithSelector(ParameterStore.ParameterStore_NotGuardian.selector, guardian)
        );
        tighten(GAS, 400);

        address[3] memory callers = [guardian, steward, outsider];
        for (uint256 i = 0; i < callers.length; ++i) {
            bytes memory notOwner =
                abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, callers[i]);
            vm.startPrank(callers[i]);
            vm.expectRevert(notOwner);
            store.setGuardian(callers[i]);
            vm.expectRevert(notOwner);
            store.setSteward(callers[i]);
            vm.stopPrank();
        }
        assertEq(store.sequence(), 1); // who holds an office is no parameter
    }

    function test_ownership_takesTwoStepsAndIsKept() public {
        vm.expectRevert(ParameterStore.ParameterStore_OwnerRequired.selector);
        vm.prank(governance);
        store.renounceOwnership();
        vm.expectRevert(
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, outsider)
        );
        vm.prank(outsider);
        store.renounceOwnership();
        vm.prank(governance);
        store.transferOwnership(outsider);
        assertEq(store.owner(), governance);
        vm.prank(outsider);
        store.acceptOwnership();
        assertEq(store.owner(), outsider);
    }

    /* views */

    function test_snapshot() public {
        steer(GAS, 600);
        (
            uint64[28] memory governed_,
            uint64[28] memory interim,
            uint64 end,
            bool paused,
            uint64 sequence
        ) = store.snapshot();
        assertEq(abi.encode(governed_), abi.encode(store.governed()));
        assertEq(interim[GAS], 600);
        assertEq(governed_[GAS], 500);
        assertEq(end, START_S + TERM_S);
        assertFalse(paused);
        assertEq(sequence, 2);
        vm.warp(START_S + TERM_S); // nothing that no longer counts is told
        (governed_, interim, end,,) = store.snapshot();
        assertEq(abi.encode(governed_), abi.encode(interim));
        assertEq(end, 0);
    }

    function test_lastSteered() public {
        assertEq(store.lastSteered(27), 0);
        vm.expectRevert(
            abi.encodeWithSelector(ParameterRules.ParameterRules_UnknownParameter.selector, 28)
        );
        store.lastSteered(28);
    }
}

/// @notice `ParameterStore.steer` line for line, but for the joint rules: what they are there for.
contract WithoutJointRules {
    uint64[28] public values;

    constructor(uint64[28] memory values_) {
        values = values_;
    }

    function steer(uint8[] calldata ids, uint64[] calldata to) external {
        for (uint256 i = 0; i < ids.length; ++i) {
            ParameterRules.requireBounds(ids[i], to[i]);
            require(ParameterRules.withinStep(ids[i], values[ids[i]], to[i]));
            require(ParameterRules.withinReach(ids[i], values[ids[i]], to[i]));
            values[ids[i]] = to[i];
        }
    }
}

/// @notice On 10 March 2026 two parameters of Aave's oracle cap, an age and a growth, were each within
/// bounds, and jointly put the price that the protocol believed 2.85 % under the market's: 10,938
/// wstETH were liquidated. Here an age and a deviation: the feed may be older, and may differ less.
/// The same case in Python: tests/fedtrade/test_steering.py.
contract JointlyAbsurdTest is StoreFixture {
    uint64 internal constant AGE_BEFORE = 3_600;
    uint64 internal constant DEVIATION_BEFORE = 200;
    uint64 internal constant AGE_AFTER = 4_500; // one step
    uint64 internal constant DEVIATION_AFTER = 160; // within a step

    uint8[] internal ids;
    uint64[] internal values;

    function setUp() public override {
        super.setUp();
        (ids, values) = two(AGE, AGE_BEFORE, DEVIATION, DEVIATION_BEFORE);
        vm.prank(governance);
        store.set(ids, values);
        (ids, values) = two(AGE, AGE_AFTER, DEVIATION, DEVIATION_AFTER);
    }

    function test_together_refusedFromEverybody() public {
        expectAbsurd(ParameterRules.OLD_PRICE_MAY_DIFFER);
        vm.prank(steward);
        store.steer(ids, values);
        expectAbsurd(ParameterRules.OLD_PRICE_MAY_DIFFER);
        vm.prank(governance); // whatever the votes
        store.set(ids, values);
        assertEq(inForce(AGE), AGE_BEFORE); // refused as a whole, not cut down
        assertEq(inForce(DEVIATION), DEVIATION_BEFORE);
        assertEq(store.lastSteered(AGE), 0);
    }

    function test_oneAfterTheOther_refusedAtTheSecond() public {
        steer(AGE, AGE_AFTER);
        vm.warp(block.timestamp + 1 days);
        expectAbsurd(ParameterRules.OLD_PRICE_MAY_DIFFER);
        steer(DEVIATION, DEVIATION_AFTER);
    }

    function test_eachAlone_isAllowed() public {
        uint256 before = vm.snapshotState();
        steer(AGE, AGE_AFTER);
        vm.revertToState(before);
        steer(DEVIATION, DEVIATION_AFTER);
        vm.revertToState(before);
        set(AGE, AGE_AFTER);
        vm.revertToState(before);
        set(DEVIATION, DEVIATION_AFTER);
    }

    /// @dev The control: without joint rules, everything else being equal, it passes.
    function test_withoutJointRules_itWouldBeInForce() public {
        WithoutJointRules other = new WithoutJointRules(store.governed());
        other.steer(ids, values);
        assertEq(other.values(AGE), AGE_AFTER);
        assertEq(other.values(DEVIATION), DEVIATION_AFTER);
    }
}
