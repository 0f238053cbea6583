// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {ParameterRules} from "../src/ParameterRules.sol";
import {defaults} from "./Defaults.sol";

/// @notice The library's functions, so that a test can see them revert.
contract Rules {
    function rule(uint8 id) external pure returns (uint64, uint64, uint16, uint32, bool) {
        return ParameterRules.rule(id);
    }

    function requireBounds(uint8 id, uint64 value) external pure {
        ParameterRules.requireBounds(id, value);
    }

    function requireSound(uint64[28] memory values) external pure {
        ParameterRules.requireSound(values);
    }
}

/// @notice The rules against what fedtrade/governed.py says, and their laws.
contract ParameterRulesTest is Test {
    uint256 internal constant COUNT = ParameterRules.COUNT;

    Rules internal rules = new Rules();
    string internal vectors = vm.readFile("test/vectors/parameters.json");

    function column(string memory key) internal view returns (uint256[] memory) {
        return vm.parseJsonUintArray(vectors, key);
    }

    /* the table */

    function test_table_isThatOfPython() public view {
        uint256[] memory least = column(".table.least");
        uint256[] memory most = column(".table.most");
        uint256[] memory steps = column(".table.step_bps");
        uint256[] memory coolDowns = column(".table.cool_down_s");
        uint256[] memory up = column(".table.tighter_up");
        uint256[] memory usual = column(".table.default");
        uint64[28] memory ours = defaults();
        assertEq(least.length, COUNT);
        for (uint8 id = 0; id < COUNT; ++id) {
            (uint64 a, uint64 b, uint16 step, uint32 coolDown, bool tighterUp) =
                ParameterRules.rule(id);
            assertEq(a, least[id]);
            assertEq(b, most[id]);
            assertEq(step, steps[id]);
            assertEq(coolDown, coolDowns[id]);
            assertEq(tighterUp, up[id] == 1);
            assertEq(ours[id], usual[id]);
        }
        rules.requireSound(ours);
    }

    /// @dev An id in Solidity and the place of its name in Python's table are one number.
    function test_table_namesHaveTheirIds() public view {
        string[] memory names = vm.parseJsonStringArray(vectors, ".table.name");
        assertEq(names[ParameterRules.NOISE_MULTIPLIER_MICRO], "noiseMultiplierMicro");
        assertEq(names[ParameterRules.CLIP_NORM_MICRO], "clipNormMicro");
        assertEq(names[ParameterRules.SAMPLING_RATE_MICRO], "samplingRateMicro");
        assertEq(names[ParameterRules.EPSILON_RELEASE_MICRO], "epsilonReleaseMicro");
        assertEq(names[ParameterRules.EPSILON_TOTAL_MICRO], "epsilonTotalMicro");
        assertEq(names[ParameterRules.COHORT_MIN], "cohortMin");
        assertEq(names[ParameterRules.HELPERS], "helpers");
        assertEq(names[ParameterRules.CORRUPT], "corrupt");
        assertEq(names[ParameterRules.RESPONDERS_MIN], "respondersMin");
        assertEq(names[ParameterRules.RELEASE_INTERVAL_S], "releaseIntervalS");
        assertEq(names[ParameterRules.QUORUM_BPS], "quorumBps");
        assertEq(names[ParameterRules.ACTIVATION_DELAY_S], "activationDelayS");
        assertEq(names[ParameterRules.MODEL_AGE_MAX_S], "modelAgeMaxS");
        assertEq(names[ParameterRules.MIRROR_AGE_MAX_S], "mirrorAgeMaxS");
        assertEq(names[ParameterRules.LEVERAGE_MAX_BPS], "leverageMaxBps");
        assertEq(names[ParameterRules.SLIPPAGE_MAX_BPS], "slippageMaxBps");
        assertEq(names[ParameterRules.ACTION_NOTIONAL_MAX], "actionNotionalMax");
        assertEq(names[ParameterRules.EPOCH_NOTIONAL_MAX], "epochNotionalMax");
        assertEq(names[ParameterRules.DELTA_BAND_BPS], "deltaBandBps");
        assertEq(names[ParameterRules.DRAWDOWN_REDUCE_BPS], "drawdownReduceBps");
        assertEq(names[ParameterRules.DRAWDOWN_HALT_BPS], "drawdownHaltBps");
        assertEq(names[ParameterRules.DRAWDOWN_UNWIND_BPS], "drawdownUnwindBps");
        assertEq(names[ParameterRules.ORACLE_AGE_MAX_S], "oracleAgeMaxS");
        assertEq(names[ParameterRules.ORACLE_DEVIATION_MAX_BPS], "oracleDeviationMaxBps");
        assertEq(names[ParameterRules.GAS_PRICE_MAX_GWEI], "gasPriceMaxGwei");
        assertEq(names[ParameterRules.CORRELATION_MAX_BPS], "correlationMaxBps");
        assertEq(names[ParameterRules.BRIDGE_IN_FLIGHT_MAX], "bridgeInFlightMax");
        assertEq(names[ParameterRules.CROWDING_MAX_BPS], "crowdingMaxBps");
        string[] memory joint = vm.parseJsonStringArray(vectors, ".joint_rules");
        assertEq(joint[ParameterRules.COMMITTEE_STANDS - 1], "CommitteeStands");
        assertEq(joint[ParameterRules.RESPONDERS_SUFFICE - 1], "RespondersSuffice");
        assertEq(joint[ParameterRules.COHORT_HIDES - 1], "CohortHides");
        assertEq(joint[ParameterRules.SAMPLING_NEEDS_NOISE - 1], "SamplingNeedsNoise");
        assertEq(joint[ParameterRules.RELEASE_WITHIN_TOTAL - 1], "ReleaseWithinTotal");
        assertEq(joint[ParameterRules.MODEL_OUTLIVES_DELAY - 1], "ModelOutlivesDelay");
        assertEq(joint[ParameterRules.LEVELS_ASCEND - 1], "LevelsAscend");
        assertEq(joint[ParameterRules.ACTION_WITHIN_EPOCH - 1], "ActionWithinEpoch");
        assertEq(joint[ParameterRules.OLD_PRICE_MAY_DIFFER - 1], "OldPriceMayDiffer");
        assertEq(joint[ParameterRules.SLIPPAGE_WITHIN_ORACLE - 1], "SlippageWithinOracle");
        assertEq(joint[ParameterRules.BRIDGE_WITHIN_EPOCH - 1], "BridgeWithinEpoch");
        assertEq(joint[ParameterRules.BAND_WITHIN_UNWIND - 1], "BandWithinUnwind");
        assertEq(joint[ParameterRules.MIRROR_WITHIN_MODEL - 1], "MirrorWithinModel");
        assertEq(joint.length, 13);
    }

    function testFuzz_rule_unknown(uint8 id) public {
        id = uint8(bound(id, COUNT, type(uint8).max));
        vm.expectRevert(
            abi.encodeWithSelector(ParameterRules.ParameterRules_UnknownParameter.selector, id)
        );
        rules.rule(id);
    }

    /* the judged cases */

    function test_sets_areJudgedAsInPython() public {
        uint256[] memory values = column(".sets.values");
        uint256[] memory outside = column(".sets.outside");
        uint256[] memory numbers = column(".sets.broken");
        assertGe(outside.length, 200);
        for (uint256 i = 0; i < outside.length; ++i) {
            uint64[28] memory v;
            for (uint256 j = 0; j < COUNT; ++j) {
                v[j] = uint64(values[COUNT * i + j]);
            }
            assertEq(ParameterRules.broken(v), numbers[i]);
            uint8 id = uint8(outside[i]);
            if (id < COUNT) {
                (uint64 least, uint64 most,,,) = ParameterRules.rule(id);
                vm.expectRevert(
                    abi.encodeWithSelector(
                        ParameterRules.ParameterRules_OutOfBounds.selector, id, v[id], least, most
                    )
                );
            } else if (numbers[i] != 0) {
                vm.expectRevert(
                    abi.encodeWithSelector(
                        ParameterRules.ParameterRules_JointlyAbsurd.selector, numbers[i]
                    )
                );
            }
            rules.requireSound(v);
        }
    }

    function test_moves_areJudgedAsInPython() public view {
        uint256[] memory ids = column(".moves.id");
        uint256[] memory from = column(".moves.from");
        uint256[] memory to = column(".moves.to");
        uint256[] memory step = column(".moves.within_step");
        uint256[] memory reach = column(".moves.within_reach");
        uint256[] memory tight = column(".moves.as_tight");
        assertGe(ids.length, 500);
        for (uint256 i = 0; i < ids.length; ++i) {
            (uint8 id, uint64 a, uint64 b) = (uint8(ids[i]), uint64(from[i]), uint64(to[i]));
            assertEq(ParameterRules.withinStep(id, a, b), step[i] == 1);
            assertEq(ParameterRules.withinReach(id, a, b), reach[i] == 1);
            assertEq(ParameterRules.asTight(id, b, a), tight[i] == 1);
        }
    }

    /* laws */

    function testFuzz_bounds(uint8 id, uint64 value) public {
        id = uint8(bound(id, 0, COUNT - 1));
        (uint64 least, uint64 most,,,) = ParameterRules.rule(id);
        assertLe(least, most);
        if (value < least || value > most) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ParameterRules.ParameterRules_OutOfBounds.selector, id, value, least, most
                )
            );
        }
        rules.requireBounds(id, value);
    }

    /// @dev The largest product that is allowed, and the next that two values can have.
    function test_broken_bandEdge() public pure {
        uint64[28] memory v = defaults();
        v[ParameterRules.DRAWDOWN_UNWIND_BPS] = 10_000;
        v[ParameterRules.LEVERAGE_MAX_BPS] = 50_000;
        v[ParameterRules.DELTA_BAND_BPS] = 10_000; // 500,000,000
        assertEq(ParameterRules.broken(v), 0);
        v[ParameterRules.LEVERAGE_MAX_BPS] = 54_609;
        v[ParameterRules.DELTA_BAND_BPS] = 9_156; // 500,000,004
        assertEq(ParameterRules.broken(v), ParameterRules.BAND_WITHIN_UNWIND);
    }

    /// @dev Any value of any size gets an answer: no product overflows.
    function testFuzz_broken_neverReverts(uint64[28] memory values) public pure {
        assertLe(ParameterRules.broken(values), 13);
    }
}

/// @notice Laws of single parameters. The check_ functions are for symbolic execution too (halmos),
/// where they hold for every argument there is.
contract ParameterLawsTest is Test {
    uint256 internal constant COUNT = ParameterRules.COUNT;

    /// @dev A step never is more than the share, but for one unit; and staying is always a step.
    function check_step(uint8 id, uint64 from, uint64 to) public pure {
        if (id >= COUNT) return;
        (,, uint16 stepBps,,) = ParameterRules.rule(id);
        assert(ParameterRules.withinStep(id, from, from));
        if (!ParameterRules.withinStep(id, from, to)) return;
        uint256 apart = to > from ? to - from : from - to;
        assert(apart <= 1 || apart * 10_000 <= uint256(from) * stepBps);
    }

    /// @dev Where the steward may get to is tighter than what is governed, or within four steps.
    function check_reach(uint8 id, uint64 governed, uint64 to) public pure {
        if (id >= COUNT) return;
        if (!ParameterRules.withinReach(id, governed, to)) return;
        if (ParameterRules.asTight(id, to, governed)) return;
        (,, uint16 stepBps,,) = ParameterRules.rule(id);
        uint256 apart = to > governed ? to - governed : governed - to;
        assert(apart <= 4 || apart * 10_000 <= uint256(governed) * stepBps * 4);
    }

    /// @dev Tighter is an order: total, and equal only where values are.
    function check_tight(uint8 id, uint64 a, uint64 b, uint64 c) public pure {
        if (id >= COUNT) return;
        bool ab = ParameterRules.asTight(id, a, b);
        bool ba = ParameterRules.asTight(id, b, a);
        assert(ab || ba);
        assert(!(ab && ba) || a == b);
        assert(!(ab && ParameterRules.asTight(id, b, c)) || ParameterRules.asTight(id, a, c));
    }

    function testFuzz_laws(uint8 id, uint64 a, uint64 b, uint64 c) public pure {
        id %= 28;
        check_step(id, a, b);
        check_reach(id, a, b);
        check_tight(id, a, b, c);
        check_tight(id, a, a, c);
    }
}
