// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";
import {Vm} from "forge-std/Vm.sol";

import {ModelRegistry} from "../src/ModelRegistry.sol";
import {ParameterRules} from "../src/ParameterRules.sol";
import {ParameterStore} from "../src/ParameterStore.sol";
import {RegistryBeacon} from "../src/RegistryBeacon.sol";
import {RegistryMirror} from "../src/RegistryMirror.sol";
import {Listed, RegistrySnapshot} from "../src/RegistrySnapshot.sol";
import {MirrorFixture} from "./MirrorFixture.sol";
import {StandInMailbox} from "./StandInMailbox.sol";

/// @notice Everybody between a registry and its mirror: the consortium that publishes, revokes,
/// steers and pauses; a messenger that may do with messages whatever it likes except forge a proof;
/// and an agent that sees the mirror's events and nothing else.
contract Couriers is Test {
    uint32 internal constant HOME = 31_101;
    uint32 internal constant AWAY = 31_102;

    ModelRegistry internal immutable REGISTRY;
    ParameterStore internal immutable STORE;
    RegistryBeacon internal immutable BEACON;
    RegistryMirror internal immutable MIRROR;
    StandInMailbox internal immutable SENT_BY;
    StandInMailbox internal immutable TAKEN_BY;
    address internal immutable OWNER;
    address internal immutable STEWARD;
    MirrorInvariantTest internal immutable CONSORTIUM;

    bytes[] internal bodies; // every message that was ever posted
    uint256 public taken; // index of the newest that the mirror took, plus one; 0 if none
    uint64 public numberBefore;
    uint64 internal version;

    // What an agent has read from events.
    uint64[] internal announced;
    mapping(uint64 version => uint64) internal announcedFrom;
    mapping(uint64 version => bytes32) internal announcedHash;
    mapping(uint64 version => bool) internal withdrawn;

    constructor(
        MirrorInvariantTest consortium,
        RegistryBeacon beacon,
        RegistryMirror mirror,
        StandInMailbox takenBy,
        address steward
    ) {
        CONSORTIUM = consortium;
        (BEACON, MIRROR, TAKEN_BY, STEWARD) = (beacon, mirror, takenBy, steward);
        (REGISTRY, STORE) = (beacon.registry(), beacon.store());
        SENT_BY = StandInMailbox(address(beacon.mailbox()));
        OWNER = beacon.owner();
    }

    function body(uint256 index) external view returns (bytes memory) {
        return bodies[index];
    }

    function posted() external view returns (uint256) {
        return bodies.length;
    }

    /* THE CONSORTIUM */

    function wait(uint32 forS) external {
        vm.warp(block.timestamp + forS % 3 hours);
    }

    function waitLong(uint32 forS) external {
        vm.warp(block.timestamp + forS % 10 days);
    }

    function publish() external {
        if (CONSORTIUM.tryPublish(version + 1)) ++version;
    }

    function revoke(uint64 which) external {
        uint64 newest = version;
        if (newest == 0) return;
        vm.prank(OWNER);
        try REGISTRY.revoke(newest - which % (newest < 4 ? newest : 4)) {} catch {}
    }

    function govern(uint8 bps, bool pausing) external {
        (uint8[] memory ids, uint64[] memory values) = (new uint8[](1), new uint64[](1));
        (ids[0], values[0]) = (ParameterRules.SLIPPAGE_MAX_BPS, 1 + uint64(bps));
        vm.startPrank(OWNER);
        STORE.set(ids, values);
        if (!pausing) {} else if (STORE.paused()) {
            STORE.unpause();
        } else {
            STORE.pause();
        }
        vm.stopPrank();
    }

    function steer(bool up) external {
        (uint8[] memory ids, uint64[] memory values) = (new uint8[](1), new uint64[](1));
        (uint64[28] memory inForce,,) = STORE.parameters();
        uint64 now_ = inForce[ParameterRules.SLIPPAGE_MAX_BPS];
        (ids[0], values[0]) = (ParameterRules.SLIPPAGE_MAX_BPS, up ? now_ + 1 : now_ - 1);
        vm.prank(STEWARD);
        try STORE.steer(ids, values) {} catch {}
    }

    function post() external {
        uint32[] memory to = new uint32[](1);
        to[0] = AWAY;
        BEACON.post(to);
        bodies.push(SENT_BY.sent(SENT_BY.sentCount() - 1).body);
    }

    /* THE MESSENGER */

    /// @notice Any message, at any time, in any order, again and again, or never.
    function deliver(uint256 which) external {
        if (bodies.length == 0) return;
        which = which % bodies.length;
        take(which);
    }

    function deliverNewest() external {
        if (bodies.length > 0) take(bodies.length - 1);
    }

    function take(uint256 which) internal {
        numberBefore = MIRROR.sequence();
        bool must = which + 1 > taken; // the newest so far: nothing else is asked of it
        bytes32 from = bytes32(uint256(uint160(address(BEACON))));
        vm.recordLogs();
        try TAKEN_BY.deliver(HOME, from, address(MIRROR), bodies[which]) {
            assertTrue(must, "took what is not newer");
            taken = which + 1;
        } catch {
            assertFalse(must, "refused what is newer");
        }
        follow();
    }

    /// @notice A message of its own making, or a true one under a false name. All are refused.
    function forge(uint8 how, uint256 which, uint64 number) external {
        RegistrySnapshot memory s = BEACON.snapshot();
        s.sequence = number;
        s.models = new Listed[](1);
        s.models[0] = Listed(type(uint64).max, 1, 0, 1, "forged");
        bytes memory content =
            how % 2 == 0 || bodies.length == 0 ? abi.encode(s) : bodies[which % bodies.length];
        bytes32 from = bytes32(uint256(uint160(address(BEACON))));
        how = how / 2 % 3;
        bool refused;
        if (how == 0) {
            try MIRROR.handle(HOME, from, content) {}
            catch {
                refused = true;
            }
        } else {
            (uint32 origin, bytes32 sender) =
                how == 1 ? (AWAY, from) : (HOME, bytes32(uint256(uint160(address(this)))));
            try TAKEN_BY.deliver(origin, sender, address(MIRROR), content) {}
            catch {
                refused = true;
            }
        }
        assertTrue(refused, "took a forged message");
    }

    /* THE AGENT */

    function follow() internal {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != address(MIRROR)) continue;
            uint64 v = uint64(uint256(logs[i].topics[1]));
            if (logs[i].topics[0] == RegistryMirror.ModelPublished.selector) {
                assertEq(announcedFrom[v], 0, "published twice");
                (bytes32 hash, uint64 liveFrom,,) =
                    abi.decode(logs[i].data, (bytes32, uint64, uint64, string));
                announced.push(v);
                (announcedHash[v], announcedFrom[v]) = (hash, liveFrom);
            } else if (logs[i].topics[0] == RegistryMirror.ModelRevoked.selector) {
                assertFalse(withdrawn[v], "revoked twice");
                assertGt(announcedFrom[v], 0, "revoked what was not published");
                (,,,, bool revoked) = REGISTRY.model(v);
                assertTrue(revoked, "revoked what is not revoked at home");
                withdrawn[v] = true;
            }
        }
    }

    /// @notice The newest that was announced, is active and was not withdrawn.
    function believed() external view returns (uint64 best, bytes32 hash) {
        for (uint256 i = 0; i < announced.length; ++i) {
            uint64 v = announced[i];
            if (!withdrawn[v] && announcedFrom[v] <= block.timestamp && v > best) best = v;
        }
        hash = announcedHash[best];
    }
}

contract MirrorInvariantTest is MirrorFixture {
    Couriers internal couriers;
    address internal steward = makeAddr("steward");

    function setUp() public override {
        super.setUp();
        vm.prank(governance);
        store.setSteward(steward);
        couriers = new Couriers(this, beacon, mirror, awayMailbox, steward);
        targetContract(address(couriers));
    }

    /// @dev The members publish, if the registry lets them (limits, cap of epsilon, pause).
    function tryPublish(uint64 version) external returns (bool) {
        uint64 release = registry.latestRelease() + 1;
        vm.prank(coordinator);
        try registry.openRelease(release, POLICY, BASE, ROUNDS, memberIds, helperIds) {}
        catch {
            return false;
        }
        bytes[] memory signatures = quorum(release, version, 1, NEEDED);
        try registry.publish(release, version, sha(version), URI, 1, signatures) {
            return true;
        } catch {
            return false;
        }
    }

    /// @dev One campaign for all: forge would run one for each function.
    function invariant_mirror() public view {
        uint256 taken = couriers.taken();
        (uint64 version, bytes32 hash, uint64 liveFrom,) = mirror.live();
        (uint64[28] memory values, bool paused, uint64 asOf) = mirror.parameters();
        (uint64 believed, bytes32 believedHash) = couriers.believed();
        assertEq(believed, version, "events and live() differ");
        assertEq(believedHash, hash);
        assertGe(mirror.sequence(), couriers.numberBefore());
        if (taken == 0) {
            assertEq(version, 0);
            assertEq(mirror.sequence(), 0);
            assertTrue(paused);
            return;
        }
        RegistrySnapshot memory s = abi.decode(couriers.body(taken - 1), (RegistrySnapshot));
        assertEq(mirror.sequence(), s.sequence);
        assertEq(asOf, s.sentAt);
        assertEq(paused, s.paused);
        bool term = block.timestamp < s.interimUntil;
        assertEq(abi.encode(values), abi.encode(term ? s.interim : s.governed));
        bool found = version == 0;
        for (uint256 i = 0; i < s.models.length; ++i) {
            Listed memory m = s.models[i];
            if (m.version == version && m.sha256 == hash) found = true;
            if (m.version > version) assertGt(m.liveFrom, block.timestamp);
        }
        assertTrue(found, "shows what home did not list");
        assertLe(liveFrom, block.timestamp);
    }

    /// @dev The actors reach every state that the invariants speak of.
    function test_couriersReachEverything() public {
        couriers.publish();
        couriers.post();
        couriers.wait(2 hours);
        couriers.publish();
        couriers.post();
        couriers.deliver(1);
        couriers.deliver(0);
        assertEq(couriers.taken(), 2);
        assertEq(shown(), 1);
        couriers.wait(2 hours);
        assertEq(shown(), 2);
        couriers.revoke(0);
        couriers.steer(true);
        couriers.govern(60, true);
        couriers.post();
        assertEq(shown(), 2);
        couriers.deliverNewest();
        assertEq(shown(), 1);
        for (uint8 how = 0; how < 6; ++how) {
            couriers.forge(how, 0, type(uint64).max);
        }
        assertEq(couriers.posted(), 3);
        invariant_mirror();
    }
}
