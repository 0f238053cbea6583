// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title ParameterRules
/// @notice The rules that every set of governed parameters obeys, whoever writes it: hard bounds of
/// each parameter, how far and how often the steward may move it, which direction is the tighter
/// one, and what must hold between parameters (two values that are each within bounds can be
/// jointly absurd). Pure: nothing here reads a chain, and no vote changes it. The same rules in
/// Python are fedtrade/governed.py; test/vectors/parameters.json is read by the tests of both.
///
/// A parameter is a uint64 in the unit that its name ends with: Micro = millionths, Bps =
/// ten-thousandths, S = seconds, Gwei; amounts of the quote are whole units. Its id is its place in
/// the array of all values, for ever.
library ParameterRules {
    /* PARAMETERS */

    uint256 internal constant COUNT = 28;

    // Privacy of a release.
    uint8 internal constant NOISE_MULTIPLIER_MICRO = 0;
    uint8 internal constant CLIP_NORM_MICRO = 1;
    uint8 internal constant SAMPLING_RATE_MICRO = 2;
    uint8 internal constant EPSILON_RELEASE_MICRO = 3; // the most that one release may spend
    uint8 internal constant EPSILON_TOTAL_MICRO = 4; // the most that all publications may spend
    uint8 internal constant COHORT_MIN = 5; // fewest members whose sum may be unmasked
    uint8 internal constant HELPERS = 6; // fewest helpers in a mask committee
    uint8 internal constant CORRUPT = 7; // fewest bad helpers that a committee must stand
    uint8 internal constant RESPONDERS_MIN = 8; // fewest helpers that answer in a round

    // Publication.
    uint8 internal constant RELEASE_INTERVAL_S = 9; // least time between two openings
    uint8 internal constant QUORUM_BPS = 10; // share of all members that sign a publication
    uint8 internal constant ACTIVATION_DELAY_S = 11; // from publication to use: time to revoke
    uint8 internal constant MODEL_AGE_MAX_S = 12; // older models must not be acted on
    uint8 internal constant MIRROR_AGE_MAX_S = 13; // how old a mirror's news may be

    // Risk of an agent.
    uint8 internal constant LEVERAGE_MAX_BPS = 14; // of equity: 10,000 is none
    uint8 internal constant SLIPPAGE_MAX_BPS = 15; // a swap's worst price against the feed's
    uint8 internal constant ACTION_NOTIONAL_MAX = 16; // of one action or order
    uint8 internal constant EPOCH_NOTIONAL_MAX = 17; // of all actions of a day
    uint8 internal constant DELTA_BAND_BPS = 18; // exposure against the target, of equity
    uint8 internal constant DRAWDOWN_REDUCE_BPS = 19; // fall from the high-water mark: add nothing
    uint8 internal constant DRAWDOWN_HALT_BPS = 20; // ... withdraw
    uint8 internal constant DRAWDOWN_UNWIND_BPS = 21; // ... sell
    uint8 internal constant ORACLE_AGE_MAX_S = 22; // how old the feed's answer may be
    uint8 internal constant ORACLE_DEVIATION_MAX_BPS = 23; // pool's price against the feed's
    uint8 internal constant GAS_PRICE_MAX_GWEI = 24;
    uint8 internal constant CORRELATION_MAX_BPS = 25; // of returns over markets; 10,000 is one
    uint8 internal constant BRIDGE_IN_FLIGHT_MAX = 26; // value on its way between chains
    uint8 internal constant CROWDING_MAX_BPS = 27; // own share of a pool's active liquidity

    /* JOINT RULES */

    uint8 internal constant COMMITTEE_STANDS = 1;
    uint8 internal constant RESPONDERS_SUFFICE = 2;
    uint8 internal constant COHORT_HIDES = 3;
    uint8 internal constant SAMPLING_NEEDS_NOISE = 4;
    uint8 internal constant RELEASE_WITHIN_TOTAL = 5;
    uint8 internal constant MODEL_OUTLIVES_DELAY = 6;
    uint8 internal constant LEVELS_ASCEND = 7;
    uint8 internal constant ACTION_WITHIN_EPOCH = 8;
    uint8 internal constant OLD_PRICE_MAY_DIFFER = 9;
    uint8 internal constant SLIPPAGE_WITHIN_ORACLE = 10;
    uint8 internal constant BRIDGE_WITHIN_EPOCH = 11;
    uint8 internal constant BAND_WITHIN_UNWIND = 12;
    uint8 internal constant MIRROR_WITHIN_MODEL = 13;

    /* OTHER CONSTANTS */

    uint256 internal constant BPS = 10_000;

    /// @dev How many steps of the governed value the steward may loosen it by, in all.
    uint256 internal constant REACH_STEPS = 4;

    bool private constant UP = true;
    bool private constant DOWN = false;

    /* ERRORS */

    error ParameterRules_UnknownParameter(uint8 id);
    error ParameterRules_OutOfBounds(uint8 id, uint64 value, uint64 least, uint64 most);
    error ParameterRules_JointlyAbsurd(uint8 rule);

    /* ONE PARAMETER */

    /// @notice The row of a parameter.
    /// @return least The hard minimum, and
    /// @return most the hard maximum, both included.
    /// @return stepBps How far the steward may move it at one time, of the value in force.
    /// @return coolDownS How long the steward then waits.
    /// @return tighterUp Whether a larger value is the tighter one.
    function rule(uint8 id)
        internal
        pure
        returns (uint64 least, uint64 most, uint16 stepBps, uint32 coolDownS, bool tighterUp)
    {
        // forgefmt: disable-start
        if (id == NOISE_MULTIPLIER_MICRO) return (500_000, 64_000_000, 2_500, 1 days, UP);
        if (id == CLIP_NORM_MICRO) return (1_000, 1_000_000_000, 2_500, 1 days, DOWN);
        if (id == SAMPLING_RATE_MICRO) return (1, 250_000, 2_500, 1 days, DOWN);
        if (id == EPSILON_RELEASE_MICRO) return (10_000, 20_000_000, 1_000, 7 days, DOWN);
        if (id == EPSILON_TOTAL_MICRO) return (10_000, 1_000_000_000, 1_000, 7 days, DOWN);
        if (id == COHORT_MIN) return (3, 256, 2_500, 1 days, UP);
        if (id == HELPERS) return (3, 9, 2_500, 7 days, UP);
        if (id == CORRUPT) return (1, 4, 2_500, 7 days, UP);
        if (id == RESPONDERS_MIN) return (2, 9, 2_500, 7 days, UP);
        if (id == RELEASE_INTERVAL_S) return (0, 30 days, 5_000, 1 days, UP);
        if (id == QUORUM_BPS) return (5_001, 10_000, 1_000, 7 days, UP);
        if (id == ACTIVATION_DELAY_S) return (0, 30 days, 5_000, 7 days, UP);
        if (id == MODEL_AGE_MAX_S) return (600, 90 days, 2_500, 1 days, DOWN);
        if (id == MIRROR_AGE_MAX_S) return (60, 7 days, 2_500, 1 days, DOWN);
        if (id == LEVERAGE_MAX_BPS) return (10_000, 100_000, 1_000, 1 hours, DOWN);
        if (id == SLIPPAGE_MAX_BPS) return (1, 500, 2_500, 1 hours, DOWN);
        if (id == ACTION_NOTIONAL_MAX) return (1, 1_000_000_000, 2_500, 1 hours, DOWN);
        if (id == EPOCH_NOTIONAL_MAX) return (1, 10_000_000_000, 2_500, 1 hours, DOWN);
        if (id == DELTA_BAND_BPS) return (0, 10_000, 2_500, 1 hours, DOWN);
        if (id == DRAWDOWN_REDUCE_BPS) return (10, 9_000, 1_000, 1 hours, DOWN);
        if (id == DRAWDOWN_HALT_BPS) return (20, 9_500, 1_000, 1 hours, DOWN);
        if (id == DRAWDOWN_UNWIND_BPS) return (30, 10_000, 1_000, 1 hours, DOWN);
        if (id == ORACLE_AGE_MAX_S) return (10, 1 days, 2_500, 1 hours, DOWN);
        if (id == ORACLE_DEVIATION_MAX_BPS) return (10, 5_000, 2_500, 1 hours, DOWN);
        if (id == GAS_PRICE_MAX_GWEI) return (1, 100_000, 5_000, 1 hours, DOWN);
        if (id == CORRELATION_MAX_BPS) return (1_000, 10_000, 1_000, 1 hours, DOWN);
        if (id == BRIDGE_IN_FLIGHT_MAX) return (0, 10_000_000_000, 2_500, 1 hours, DOWN);
        if (id == CROWDING_MAX_BPS) return (100, 10_000, 2_500, 1 hours, DOWN);
        // forgefmt: disable-end
        revert ParameterRules_UnknownParameter(id);
    }

    /// @notice Reverts unless the value is within the hard bounds.
    function requireBounds(uint8 id, uint64 value) internal pure {
        (uint64 least, uint64 most,,,) = rule(id);
        if (value < least || value > most) {
            revert ParameterRules_OutOfBounds(id, value, least, most);
        }
    }

    /// @notice Whether the steward may move this parameter so far at one time: its share of the
    /// value in force, rounded down, and always one unit.
    function withinStep(uint8 id, uint64 from, uint64 to) internal pure returns (bool) {
        return _apart(from, to) <= _step(id, from);
    }

    /// @notice Whether the steward may bring this parameter there at all, in however many steps: to
    /// whatever is tighter than the governed value, and at most REACH_STEPS steps of the governed
    /// value beyond it. Steps are short but many fit into a term; without this they would compound
    /// to the hard bounds.
    function withinReach(uint8 id, uint64 governed, uint64 to) internal pure returns (bool) {
        return
            asTight(id, to, governed) || _apart(governed, to) <= REACH_STEPS * _step(id, governed);
    }

    /// @notice Whether `value` is at least as tight as `than`.
    function asTight(uint8 id, uint64 value, uint64 than) internal pure returns (bool) {
        (,,,, bool tighterUp) = rule(id);
        return tighterUp ? value >= than : value <= than;
    }

    /* ALL PARAMETERS */

    /// @notice The first joint rule that these values break; 0 if they break none.
    /// @dev In 256 bits throughout, so that it answers for any values, also those out of bounds.
    function broken(uint64[28] memory v) internal pure returns (uint8) {
        // So many bad helpers can then neither stop nor open a sum by themselves.
        if (v[HELPERS] < 2 * uint256(v[CORRUPT]) + 1) return COMMITTEE_STANDS;
        // With fewer answers nothing can be unmasked; more than there are helpers never come.
        if (v[RESPONDERS_MIN] < uint256(v[CORRUPT]) + 1 || v[RESPONDERS_MIN] > v[HELPERS]) {
            return RESPONDERS_SUFFICE;
        }
        // Two honest members at least, when the bad helpers' friends are subtracted.
        if (v[COHORT_MIN] < uint256(v[CORRUPT]) + 2) return COHORT_HIDES;
        // Subsampling amplifies privacy only while q is small against z: q <= z / 10.
        if (uint256(v[SAMPLING_RATE_MICRO]) * 10 > v[NOISE_MULTIPLIER_MICRO]) {
            return SAMPLING_NEEDS_NOISE;
        }
        // One release may not be allowed what all together are not.
        if (v[EPSILON_RELEASE_MICRO] > v[EPSILON_TOTAL_MICRO]) return RELEASE_WITHIN_TOTAL;
        // Otherwise there are times without a usable model whatever anybody does.
        if (v[MODEL_AGE_MAX_S] <= uint256(v[RELEASE_INTERVAL_S]) + v[ACTIVATION_DELAY_S]) {
            return MODEL_OUTLIVES_DELAY;
        }
        // Add nothing, then withdraw, then sell: a level that is passed over is no level.
        if (
            v[DRAWDOWN_REDUCE_BPS] >= v[DRAWDOWN_HALT_BPS]
                || v[DRAWDOWN_HALT_BPS] >= v[DRAWDOWN_UNWIND_BPS]
        ) return LEVELS_ASCEND;
        // A day's cap that one action passes is no cap of the day.
        if (v[ACTION_NOTIONAL_MAX] > v[EPOCH_NOTIONAL_MAX]) return ACTION_WITHIN_EPOCH;
        // A price that may be old must be allowed to differ from the market: by 20 bps for the
        // square root of each minute of its age. Otherwise an honest feed in an ordinary market
        // looks wrong, and whoever believes the bound acts on a price that is not the market's.
        if (
            3 * uint256(v[ORACLE_DEVIATION_MAX_BPS]) * v[ORACLE_DEVIATION_MAX_BPS]
                < 20 * uint256(v[ORACLE_AGE_MAX_S])
        ) return OLD_PRICE_MAY_DIFFER;
        // A swap must not give away more than what already counts as a wrong price.
        if (v[SLIPPAGE_MAX_BPS] > v[ORACLE_DEVIATION_MAX_BPS]) return SLIPPAGE_WITHIN_ORACLE;
        // What one day's actions may not move cannot be on its way.
        if (v[BRIDGE_IN_FLIGHT_MAX] > v[EPOCH_NOTIONAL_MAX]) return BRIDGE_WITHIN_EPOCH;
        // A fifth's move against the whole band at full leverage stays under the last level:
        // leverage x band x 0.2 <= unwind, all three in ten-thousandths.
        if (
            uint256(v[LEVERAGE_MAX_BPS]) * v[DELTA_BAND_BPS] * 2_000
                > uint256(v[DRAWDOWN_UNWIND_BPS]) * 1e8
        ) return BAND_WITHIN_UNWIND;
        // News that may be older than the model that it names cannot say that the model is usable.
        if (v[MIRROR_AGE_MAX_S] > v[MODEL_AGE_MAX_S]) return MIRROR_WITHIN_MODEL;
        return 0;
    }

    /// @notice Reverts where a joint rule is broken, naming the first.
    function requireConsistent(uint64[28] memory values) internal pure {
        uint8 number = broken(values);
        if (number != 0) revert ParameterRules_JointlyAbsurd(number);
    }

    /// @notice Reverts unless every value is within its bounds and no joint rule is broken: for who
    /// takes a whole set of values from elsewhere.
    function requireSound(uint64[28] memory values) internal pure {
        for (uint8 id = 0; id < COUNT; ++id) {
            requireBounds(id, values[id]);
        }
        requireConsistent(values);
    }

    /* PRIVATE */

    function _step(uint8 id, uint64 from) private pure returns (uint256) {
        (,, uint16 stepBps,,) = rule(id);
        uint256 step = uint256(from) * stepBps / BPS;
        return step == 0 ? 1 : step;
    }

    function _apart(uint64 a, uint64 b) private pure returns (uint64) {
        return a > b ? a - b : b - a;
    }
}
