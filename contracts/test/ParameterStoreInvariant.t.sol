// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {ParameterRules} from "../src/ParameterRules.sol";
import {ParameterStore} from "../src/ParameterStore.sol";
import {defaults} from "./Defaults.sol";

/// @notice Everybody who acts on a store, honest or not, with a plain record of what should have
/// happened. Each act decides from that record alone whether it must succeed, and fails if the
/// contract disagrees.
contract StoreActors is Test {
    ParameterStore internal immutable STORE;
    address internal immutable OWNER;
    address internal immutable GUARDIAN;
    address internal immutable STEWARD;
    address internal immutable OUTSIDER = makeAddr("outsider");

    uint64[28] internal governed;
    uint64[28] internal interim;
    uint64 public termEnd; // 0 if it was ended
    uint64[28] internal steeredAt;
    bool public paused;
    uint64 public writes = 1;
    mapping(bytes32 act => uint256) public count;

    constructor(ParameterStore store, address guardian, address steward) {
        STORE = store;
        OWNER = store.owner();
        GUARDIAN = guardian;
        STEWARD = steward;
        governed = defaults();
    }

    function recordedGoverned() external view returns (uint64[28] memory) {
        return governed;
    }

    function recordedInForce() public view returns (uint64[28] memory) {
        return termIsOn() ? interim : governed;
    }

    function termIsOn() public view returns (bool) {
        return block.timestamp < termEnd;
    }

    function caller(uint8 who, address rightful) internal view returns (address) {
        if (who % 8 != 0) return rightful; // mostly
        return [OWNER, GUARDIAN, STEWARD, OUTSIDER][who / 8 % 4];
    }

    /* THE WORLD */

    /// @dev Minutes mostly, sometimes beyond a cool-down or a term.
    function wait(uint32 forS, uint8 kind) external {
        uint256 most = [30 minutes, 2 hours, 2 hours, 2 days, 8 days][kind % 5];
        vm.warp(block.timestamp + forS % most);
    }

    /* PROPOSALS */

    /// @dev One to three parameters, ascending, mostly a little beside the value in force.
    function proposal(uint256 seed, bool tighter)
        internal
        view
        returns (uint8[] memory ids, uint64[] memory values)
    {
        uint256 length = 1 + seed % 3;
        uint8 id = uint8((seed >> 8) % 26);
        (ids, values) = (new uint8[](length), new uint64[](length));
        for (uint256 i = 0; i < length; ++i) {
            ids[i] = id;
            values[i] = beside(id, uint256(keccak256(abi.encode(seed, i))), tighter);
            id += uint8(1 + (seed >> (16 + 8 * i)) % 2); // neighbours belong together
        }
        if (seed % 64 == 9) ids[0] = 28; // unknown, or not ascending
    }

    function beside(uint8 id, uint256 seed, bool tighter) internal view returns (uint64) {
        uint64[28] memory now_ = recordedInForce();
        if (id >= 28) return 0;
        (uint64 least, uint64 most, uint16 stepBps,, bool up) = ParameterRules.rule(id);
        uint256 step = uint256(now_[id]) * stepBps / 10_000;
        if (step == 0) step = 1;
        uint256 kind = (seed >> 200) % 16;
        if (kind == 0) return uint64(seed); // anything
        if (kind == 1) return [least, most, least - (least == 0 ? 0 : 1), most + 1][seed % 4];
        if (kind == 2) return governed[id];
        uint256 far = kind == 3 ? step : kind == 4 ? step + 1 : seed % (step + 1);
        bool rises = tighter && kind > 4 ? up : (seed >> 128) % 2 == 0;
        if (!rises && far > now_[id]) return 0;
        return uint64(rises ? now_[id] + far : now_[id] - far);
    }

    function listed(uint8[] memory ids) internal pure returns (bool) {
        for (uint256 i = 0; i < ids.length; ++i) {
            if (ids[i] >= 28 || (i > 0 && ids[i] <= ids[i - 1])) return false;
        }
        return ids.length > 0;
    }

    function within(uint8 id, uint64 value) internal pure returns (bool) {
        (uint64 least, uint64 most,,,) = ParameterRules.rule(id);
        return least <= value && value <= most;
    }

    /* THE ACTS */

    function set(uint8 who, uint256 seed) external {
        (uint8[] memory ids, uint64[] memory values) = proposal(seed, false);
        address by = caller(who, OWNER);
        uint64[28] memory next = governed;
        uint64[28] memory mixed = recordedInForce();
        bool must = by == OWNER && listed(ids);
        for (uint256 i = 0; must && i < ids.length; ++i) {
            must = within(ids[i], values[i]);
            if (must) next[ids[i]] = mixed[ids[i]] = values[i];
        }
        must = must && ParameterRules.broken(next) == 0;
        vm.prank(by);
        try STORE.set(ids, values) {
            assertTrue(must, "set what must not be set");
            governed = next;
            if (termIsOn()) {
                if (ParameterRules.broken(mixed) == 0) interim = mixed;
                else (termEnd, count["set ended a term"]) = (0, count["set ended a term"] + 1);
            }
            wrote("set");
        } catch {
            assertFalse(must, "refused to set");
        }
    }

    function steer(uint8 who, uint256 seed) external {
        (uint8[] memory ids, uint64[] memory values) = proposal(seed, false);
        address by = caller(who, STEWARD);
        uint64[28] memory next = recordedInForce();
        bool must = by == STEWARD && !paused && listed(ids);
        for (uint256 i = 0; must && i < ids.length; ++i) {
            (uint8 id, uint64 to) = (ids[i], values[i]);
            (,,, uint32 coolDownS,) = ParameterRules.rule(id);
            must = within(id, to) && ParameterRules.withinStep(id, next[id], to)
                && ParameterRules.withinReach(id, governed[id], to)
                && (steeredAt[id] == 0 || block.timestamp >= steeredAt[id] + coolDownS);
            next[id] = to;
        }
        must = must && ParameterRules.broken(next) == 0;
        if (paused) ++count["steering a paused store"];
        vm.prank(by);
        try STORE.steer(ids, values) {
            assertTrue(must, "steered what must not be steered");
            if (!termIsOn()) termEnd = uint64(block.timestamp + 7 days);
            interim = next;
            for (uint256 i = 0; i < ids.length; ++i) {
                steeredAt[ids[i]] = uint64(block.timestamp);
            }
            wrote("steer");
        } catch {
            assertFalse(must, "refused to steer");
        }
    }

    function tighten(uint8 who, uint256 seed) external {
        (uint8[] memory ids, uint64[] memory values) = proposal(seed, true);
        address by = caller(who, GUARDIAN);
        uint64[28] memory next = governed;
        uint64[28] memory now_ = recordedInForce();
        bool must = by == GUARDIAN && listed(ids);
        bool tighter = false;
        for (uint256 i = 0; must && i < ids.length; ++i) {
            (uint8 id, uint64 value) = (ids[i], values[i]);
            must = within(id, value) && ParameterRules.asTight(id, value, next[id])
                && ParameterRules.asTight(id, value, now_[id]);
            tighter = tighter || value != next[id] || value != now_[id];
            next[id] = now_[id] = value;
        }
        must =
            must && tighter && ParameterRules.broken(next) == 0 && ParameterRules.broken(now_) == 0;
        (uint64[28] memory before,,) = STORE.parameters();
        uint64[28] memory governedBefore = STORE.governed();
        vm.prank(by);
        try STORE.tighten(ids, values) {
            assertTrue(must, "tightened what must not be tightened");
            governed = next;
            if (termIsOn()) interim = now_;
            onlyTighter(before, governedBefore);
            wrote("tighten");
        } catch {
            assertFalse(must, "refused to tighten");
        }
    }

    /// @dev Whatever the guardian did, nothing is looser than it was, now or after the term.
    function onlyTighter(uint64[28] memory before, uint64[28] memory governedBefore) internal view {
        (uint64[28] memory now_,,) = STORE.parameters();
        uint64[28] memory governedNow = STORE.governed();
        for (uint8 id = 0; id < 28; ++id) {
            assertTrue(ParameterRules.asTight(id, now_[id], before[id]));
            assertTrue(ParameterRules.asTight(id, governedNow[id], governedBefore[id]));
        }
    }

    function veto(uint8 who) external {
        if (who % 4 != 0) return; // seldom, or no term lasts
        address by = caller(who, who % 3 == 0 ? OWNER : GUARDIAN);
        bool must = (by == OWNER || by == GUARDIAN) && termIsOn();
        vm.prank(by);
        try STORE.veto() {
            assertTrue(must, "vetoed what must not be vetoed");
            termEnd = 0;
            wrote("veto");
        } catch {
            assertFalse(must, "refused to veto");
        }
    }

    function pauseOrUnpause(uint8 who, bool pauses) external {
        if (pauses && who % 4 != 0) return; // seldom
        address by = caller(who, pauses && who % 3 == 0 ? GUARDIAN : OWNER);
        bool must = pauses != paused && (by == OWNER || (pauses && by == GUARDIAN));
        try this.tell(by, pauses) {
            assertTrue(must, "paused or unpaused what must not be");
            paused = pauses;
            wrote("pause");
        } catch {
            assertFalse(must, "refused to pause or unpause");
        }
    }

    function tell(address by, bool pauses) external {
        vm.prank(by);
        if (pauses) STORE.pause();
        else STORE.unpause();
    }

    function wrote(bytes32 act) internal {
        ++count[act];
        ++writes;
    }
}

contract ParameterStoreInvariantTest is Test {
    ParameterStore internal store;
    StoreActors internal actors;
    address internal guardian = makeAddr("guardian");
    address internal steward = makeAddr("steward");

    function setUp() public {
        vm.warp(1_750_000_000);
        store = new ParameterStore(address(this), defaults());
        store.setGuardian(guardian);
        store.setSteward(steward);
        actors = new StoreActors(store, guardian, steward);
        bytes4[] memory acts = new bytes4[](6);
        acts[0] = StoreActors.wait.selector;
        acts[1] = StoreActors.set.selector;
        acts[2] = StoreActors.steer.selector;
        acts[3] = StoreActors.tighten.selector;
        acts[4] = StoreActors.veto.selector;
        acts[5] = StoreActors.pauseOrUnpause.selector;
        targetSelector(FuzzSelector(address(actors), acts));
        targetContract(address(actors));
    }

    /// @dev One campaign for all: forge would run one for each function.
    function invariant_store() public {
        asRecorded();
        alwaysSound();
        stewardWithinReach();
        soundWhenTheTermEnds();
    }

    function asRecorded() internal view {
        (uint64[28] memory values, bool paused, uint64 asOf) = store.parameters();
        assertEq(abi.encode(values), abi.encode(actors.recordedInForce()));
        assertEq(abi.encode(store.governed()), abi.encode(actors.recordedGoverned()));
        assertEq(paused, actors.paused());
        assertEq(asOf, block.timestamp);
        assertEq(store.sequence(), actors.writes());
        (, uint64 until) = store.interim();
        assertEq(until, actors.termIsOn() ? actors.termEnd() : 0);
        assertLe(until, block.timestamp + store.INTERIM_S());
    }

    function alwaysSound() internal view {
        (uint64[28] memory values,,) = store.parameters();
        ParameterRules.requireSound(values);
        ParameterRules.requireSound(store.governed());
    }

    /// @dev However long it steered, nothing is looser than governed by more than the reach.
    function stewardWithinReach() internal view {
        (uint64[28] memory values,,) = store.parameters();
        uint64[28] memory governed = store.governed();
        for (uint8 id = 0; id < 28; ++id) {
            assertTrue(ParameterRules.withinReach(id, governed[id], values[id]));
        }
    }

    /// @dev At the second at which a term ends, what comes into force is sound, and is governed.
    function soundWhenTheTermEnds() internal {
        (, uint64 until) = store.interim();
        if (until == 0) return;
        uint256 now_ = block.timestamp;
        vm.warp(until);
        (uint64[28] memory values,,) = store.parameters();
        ParameterRules.requireSound(values);
        assertEq(abi.encode(values), abi.encode(store.governed()));
        vm.warp(now_);
    }

    /// @dev The actors can reach every state that the invariants speak of; otherwise they would
    /// hold of nothing.
    function test_actorsReachEverything() public {
        for (uint256 i = 0; i < 600; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(i)));
            actors.wait(uint32(seed >> 8), uint8(seed));
            actors.set(uint8(seed >> 40), seed >> 1);
            actors.steer(uint8(seed >> 48), seed >> 2);
            actors.steer(uint8(seed >> 56), seed >> 3);
            if (i % 8 == 0) actors.tighten(uint8(seed >> 64), seed >> 4);
            actors.veto(uint8(seed >> 72));
            actors.pauseOrUnpause(uint8(seed >> 80), seed % 8 == 0);
        }
        assertGt(actors.count("set"), 50);
        assertGt(actors.count("steer"), 50);
        assertGt(actors.count("tighten"), 5);
        assertGt(actors.count("veto"), 5);
        assertGt(actors.count("pause"), 5);
        assertGt(actors.count("steering a paused store"), 5);
        assertGt(actors.count("set ended a term"), 0);
    }
}
