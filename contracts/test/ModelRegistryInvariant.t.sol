// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {Membership} from "../src/Membership.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {ParameterRules} from "../src/ParameterRules.sol";
import {ParameterStore} from "../src/ParameterStore.sol";
import {Fixture} from "./Fixture.sol";

/// @notice Everybody who acts on a registry, honest or not, with a plain record of what should have
/// happened. Each act decides from that record alone whether it must succeed, and fails if the
/// contract disagrees.
contract Actors is Test {
    struct Published {
        uint64 version;
        uint64 liveFrom;
        uint64 epsilonMicro;
        bytes32 hash;
        bool revoked;
        uint256 signers;
        uint256 needed;
        uint64 spentMicro; // in all, this one included
        uint64 capMicro; // as it was then
    }

    struct Posted {
        uint64 release;
        uint32 round;
        bytes32 root;
    }

    uint64 internal constant CAP_MICRO = 8_000_000;
    uint32 internal constant ROUNDS = 40;
    uint256 internal constant WAITING = 8;
    string internal constant URI = "ipfs://artifact";

    Membership internal immutable MEMBERSHIP;
    ModelRegistry internal immutable REGISTRY;
    ParameterStore internal immutable STORE;
    address internal immutable OWNER;
    address internal immutable GUARDIAN;

    /// @dev Signing keys, ascending by address. Who of them is a member changes all the time.
    uint256[] internal keys;
    address[] internal signers;
    address[2] internal coordinators;

    Published[] internal publications;
    Posted[] internal manifests;
    uint64 public newestRelease;
    uint64 public newestVersion;
    uint64 public spentMicro;
    uint64 public open; // the open release; 0 if none
    uint256 internal holder; // which coordinator opened it
    uint32 internal lastRound;
    uint256 internal needed; // at the opening
    uint256 internal membersThen;
    uint64 internal openedAt;
    uint64 internal waitsFrom; // opening of the newest published release; 0 if none
    // What governance last said.
    uint64 internal quorumBps = 6_667;
    uint64 internal delayS = 1 hours;
    uint64 internal capMicro = CAP_MICRO;
    uint64 internal intervalS;
    bool internal paused;
    mapping(uint64 release => mapping(address signer => bool)) internal signs;

    constructor(
        ModelRegistry registry,
        address guardian,
        address[2] memory coordinators_,
        uint256[] memory keys_
    ) {
        REGISTRY = registry;
        MEMBERSHIP = registry.membership();
        STORE = ParameterStore(address(registry.parameterStore()));
        OWNER = registry.owner();
        GUARDIAN = guardian;
        coordinators = coordinators_;
        keys = keys_;
        for (uint256 i = 0; i < keys_.length; ++i) {
            signers.push(vm.addr(keys_[i]));
        }
    }

    function allPublished() external view returns (Published[] memory) {
        return publications;
    }

    function allPosted() external view returns (Posted[] memory) {
        return manifests;
    }

    /* THE WORLD */

    function wait(uint32 forS) external {
        vm.warp(block.timestamp + forS % 2 hours);
    }

    /// @notice Governance expels a party, or seats it as a member.
    function seatOrExpel(uint8 which) external {
        address signer = signers[which % keys.length];
        uint256 id = MEMBERSHIP.idOfSigner(signer);
        vm.prank(OWNER);
        if (id == 0) MEMBERSHIP.admit(signer, signer, 0, 1);
        else MEMBERSHIP.expel(id);
    }

    /// @notice Governance moves one of the parameters that the registry reads, or pauses.
    function govern(uint8 what, uint64 value) external {
        what %= 8;
        if (what == 0) {
            move(ParameterRules.QUORUM_BPS, quorumBps = uint64(bound(value, 5_001, 1e4)));
        }
        if (what == 1) {
            move(ParameterRules.ACTIVATION_DELAY_S, delayS = uint64(bound(value, 0, 4 hours)));
        }
        if (what == 2) {
            capMicro = uint64(bound(value, CAP_MICRO, 2 * CAP_MICRO));
            if (value % 3 == 0) capMicro = CAP_MICRO; // lowered again, perhaps below what is spent
            move(ParameterRules.EPSILON_TOTAL_MICRO, capMicro);
        }
        if (what == 3) {
            intervalS = value % 2 == 0 ? 0 : uint64(bound(value, 1, 3 hours));
            move(ParameterRules.RELEASE_INTERVAL_S, intervalS);
        }
        bool pauses = what == 4 && value % 4 == 0; // seldom, and not for long
        if (pauses == paused) return;
        paused = pauses;
        vm.prank(OWNER);
        if (pauses) STORE.pause();
        else STORE.unpause();
    }

    function move(uint8 id, uint64 value) internal {
        uint8[] memory ids = new uint8[](1);
        uint64[] memory values = new uint64[](1);
        (ids[0], values[0]) = (id, value);
        vm.prank(OWNER);
        STORE.set(ids, values);
    }

    function share(uint256 members) internal view returns (uint256) {
        return (members * quorumBps + 9_999) / 10_000;
    }

    /* THE COORDINATORS */

    /// @param leaveOut The members (one bit each) that this release goes without.
    function openRelease(uint8 who, uint8 step, uint8 leaveOut) external {
        uint64 release = newestRelease + step % 3;
        uint256[] memory ids = memberIds(leaveOut & (leaveOut >> 4)); // a few, mostly
        uint256 members = MEMBERSHIP.memberCount();
        bool must = release > newestRelease && spentMicro < capMicro && !paused
            && ids.length >= share(members) && ids.length > 0 && (open == 0 || holder == who % 2)
            && (waitsFrom == 0 || block.timestamp >= waitsFrom + intervalS);
        vm.prank(coordinators[who % 2]);
        try REGISTRY.openRelease(release, "policy", "base", ROUNDS, ids, new uint256[](0)) {
            assertTrue(must, "opened what must not be opened");
            (open, newestRelease, holder) = (release, release, who % 2);
            (lastRound, needed) = (0, share(members));
            (membersThen, openedAt) = (members, uint64(block.timestamp));
            for (uint256 i = 0; i < ids.length; ++i) {
                signs[release][MEMBERSHIP.seat(ids[i]).signer] = true;
            }
        } catch {
            assertFalse(must, "refused to open");
        }
    }

    function postManifest(uint8 who, uint8 release, uint8 step, bytes32 root) external {
        uint32 round = lastRound + step % 4;
        uint64 to = release % 4 == 0 ? newestRelease + 1 - release % 8 / 4 : open;
        bool must = open != 0 && to == open && holder == who % 2 && root != 0 && round > lastRound
            && round <= ROUNDS;
        vm.prank(coordinators[who % 2]);
        try REGISTRY.postManifest(to, round, root) {
            assertTrue(must, "posted what must not be posted");
            manifests.push(Posted(to, round, root));
            lastRound = round;
        } catch {
            assertFalse(must, "refused to post");
        }
    }

    function abandon(uint8 who) external {
        if (who % 4 != 0) return; // seldom, or nothing is ever published
        address caller = who % 8 == 0 ? OWNER : coordinators[who / 8 % 2];
        bool must = open != 0 && (caller == OWNER || coordinators[holder] == caller);
        uint64 release = open;
        vm.prank(caller);
        try REGISTRY.abandonRelease(release) {
            assertTrue(must, "abandoned what must not be abandoned");
            open = 0;
        } catch {
            assertFalse(must, "refused to abandon");
        }
    }

    /* THE MEMBERS */

    /// @notice Every member of the release signs.
    function publishHonestly(uint64 epsilonMicro) external {
        if (open == 0) return;
        uint64 version = newestVersion + 1;
        epsilonMicro = uint64(bound(epsilonMicro, 1, CAP_MICRO / 4));
        bytes32 hash = keccak256(abi.encode(version));
        bytes32 signed = REGISTRY.digest(open, version, hash, URI, epsilonMicro);
        publish(version, hash, epsilonMicro, signatures(type(uint256).max, signed, 0), 0);
    }

    /// @notice Some sign, some who may not sign, some twice, some in the wrong order, some
    /// something else.
    function publishSomehow(uint8 step, uint64 epsilonMicro, uint8 who, uint8 trick) external {
        uint64 version = newestVersion + step % 3;
        epsilonMicro = uint64(bound(epsilonMicro, 0, CAP_MICRO / 2));
        bytes32 hash = keccak256(abi.encode(version));
        bytes32 signed = REGISTRY.digest(open, version, hash, URI, epsilonMicro);
        publish(version, hash, epsilonMicro, signatures(who, signed, trick % 5), trick % 5);
    }

    function publish(
        uint64 version,
        bytes32 hash,
        uint64 epsilonMicro,
        bytes[] memory given,
        uint8 trick
    ) internal {
        bool tricked = trick != 0 && given.length > 1;
        uint256 asked = share(membersThen);
        if (needed > asked) asked = needed;
        bool must = open != 0 && version > newestVersion && epsilonMicro > 0 && !paused
            && spentMicro + epsilonMicro <= capMicro && waiting() < WAITING && given.length >= asked
            && !tricked && allMaySign;
        try REGISTRY.publish(open, version, hash, URI, epsilonMicro, given) {
            assertTrue(must, "published what must not be published");
            publications.push(
                Published({
                    version: version,
                    liveFrom: notBeforeOthers(uint64(block.timestamp) + delayS),
                    epsilonMicro: epsilonMicro,
                    hash: hash,
                    revoked: false,
                    signers: given.length,
                    needed: asked,
                    spentMicro: spentMicro + epsilonMicro,
                    capMicro: capMicro
                })
            );
            (newestVersion, open, waitsFrom) = (version, 0, openedAt);
            spentMicro += epsilonMicro;
        } catch {
            assertFalse(must, "refused to publish");
        }
    }

    /* OWNER AND GUARDIAN */

    function revoke(uint8 who, uint8 which) external {
        if (publications.length == 0) return;
        Published storage p = publications[which % publications.length];
        address caller = [GUARDIAN, OWNER, coordinators[0], address(this)][who % 4];
        bool must = !p.revoked && (caller == GUARDIAN || caller == OWNER);
        vm.prank(caller);
        try REGISTRY.revoke(p.version) {
            assertTrue(must, "revoked what must not be revoked");
            p.revoked = true;
        } catch {
            assertFalse(must, "refused to revoke");
        }
    }

    /* THE RECORD */

    /// @notice Versions that are not revoked and not active yet.
    function waiting() public view returns (uint256 count) {
        for (uint256 i = 0; i < publications.length; ++i) {
            if (!publications[i].revoked && block.timestamp < publications[i].liveFrom) ++count;
        }
    }

    /// @notice That time, or the latest of any version that is not revoked.
    function notBeforeOthers(uint64 liveFrom) internal view returns (uint64) {
        for (uint256 i = 0; i < publications.length; ++i) {
            if (publications[i].revoked || publications[i].liveFrom <= liveFrom) continue;
            liveFrom = publications[i].liveFrom;
        }
        return liveFrom;
    }

    /// @notice What must be live, by a plain search over everything.
    function live() external view returns (Published memory best) {
        for (uint256 i = 0; i < publications.length; ++i) {
            Published memory p = publications[i];
            if (p.revoked || block.timestamp < p.liveFrom) continue;
            if (p.version > best.version) best = p;
        }
    }

    /// @dev Whether all who signed last may sign for the open release.
    bool internal allMaySign;

    /// @param who One bit for each key; with every bit set, exactly those who may sign.
    function signatures(uint256 who, bytes32 signed, uint8 trick)
        internal
        returns (bytes[] memory given)
    {
        given = new bytes[](keys.length);
        uint256 count = 0;
        allMaySign = true;
        for (uint256 i = 0; i < keys.length; ++i) {
            bool may = signs[open][signers[i]];
            if (who == type(uint256).max ? !may : who >> i & 1 == 0) continue;
            allMaySign = allMaySign && may;
            (uint8 v, bytes32 r, bytes32 s) =
                vm.sign(keys[i], trick == 1 && count == 1 ? ~signed : signed);
            given[count++] = abi.encodePacked(r, s, v);
        }
        assembly ("memory-safe") {
            mstore(given, count)
        }
        if (count < 2) return given;
        if (trick == 2) given[count - 1] = given[count - 2];
        if (trick == 3) (given[0], given[1]) = (given[1], given[0]);
        if (trick == 4) given[1] = given[0];
    }

    function memberIds(uint256 leaveOut) internal view returns (uint256[] memory ids) {
        ids = new uint256[](keys.length);
        uint256 count = 0;
        for (uint256 i = 0; i < keys.length; ++i) {
            uint256 id = MEMBERSHIP.idOfSigner(signers[i]);
            if (id == 0 || leaveOut >> i & 1 == 1) continue;
            uint256 j = count++;
            for (; j > 0 && ids[j - 1] > id; --j) {
                ids[j] = ids[j - 1];
            }
            ids[j] = id;
        }
        assembly ("memory-safe") {
            mstore(ids, count)
        }
    }
}

contract ModelRegistryInvariantTest is Fixture {
    Actors internal actors;

    function setUp() public override {
        super.setUp();
        address second = vm.addr(keyOf("coordinator", 1));
        seat(second, membership.COORDINATOR());
        // Five members and three who are none yet; see Actors.seatOrExpel.
        uint256[] memory keys = new uint256[](MEMBERS + 3);
        for (uint256 i = 0; i < MEMBERS; ++i) {
            keys[i] = memberKeys[i];
        }
        for (uint256 i = MEMBERS; i < keys.length; ++i) {
            uint256 key = keyOf("late", i);
            uint256 j = i;
            for (; j > 0 && vm.addr(keys[j - 1]) > vm.addr(key); --j) {
                keys[j] = keys[j - 1];
            }
            keys[j] = key;
        }
        actors = new Actors(registry, guardian, [coordinator, second], keys);
        targetContract(address(actors));
    }

    /// @dev One campaign for all: forge would run one for each function.
    function invariant_registry() public view {
        onlyByQuorum();
        withinTheCap();
        onlyAscending();
        oneManifestForARound();
        liveIsTheNewestActive();
        fewWait();
        versionsActivateInOrder();
    }

    function onlyByQuorum() internal view {
        Actors.Published[] memory all = actors.allPublished();
        for (uint256 i = 0; i < all.length; ++i) {
            assertGe(all[i].signers, all[i].needed);
            assertGt(all[i].needed, 0);
        }
    }

    function withinTheCap() internal view {
        Actors.Published[] memory all = actors.allPublished();
        uint256 sum = 0;
        for (uint256 i = 0; i < all.length; ++i) {
            sum += all[i].epsilonMicro;
            assertEq(all[i].spentMicro, sum);
            assertLe(sum, all[i].capMicro);
        }
        assertEq(registry.epsilonSpentMicro(), sum);
    }

    function onlyAscending() internal view {
        Actors.Published[] memory all = actors.allPublished();
        for (uint256 i = 1; i < all.length; ++i) {
            assertGt(all[i].version, all[i - 1].version);
        }
        assertEq(registry.latestVersion(), actors.newestVersion());
        assertEq(registry.latestRelease(), actors.newestRelease());
        assertEq(registry.currentRelease(), actors.open());
    }

    function oneManifestForARound() internal view {
        Actors.Posted[] memory all = actors.allPosted();
        for (uint256 i = 0; i < all.length; ++i) {
            assertEq(registry.manifestOf(all[i].release, all[i].round), all[i].root);
            if (i == 0) continue;
            bool ascends = all[i].release > all[i - 1].release
                || (all[i].release == all[i - 1].release && all[i].round > all[i - 1].round);
            assertTrue(ascends);
        }
    }

    function liveIsTheNewestActive() internal view {
        (uint64 version, bytes32 hash, uint64 liveFrom, uint64 epsilonMicro) = registry.live();
        Actors.Published memory expected = actors.live();
        assertEq(version, expected.version);
        assertEq(hash, expected.hash);
        assertEq(liveFrom, expected.liveFrom);
        assertEq(epsilonMicro, expected.epsilonMicro);
        if (version == 0) return;
        (,,,, bool revoked) = registry.model(version);
        assertFalse(revoked);
        assertLe(liveFrom, block.timestamp);
    }

    function fewWait() internal view {
        assertLe(actors.waiting(), registry.MAX_PENDING());
    }

    function versionsActivateInOrder() internal view {
        Actors.Published[] memory all = actors.allPublished();
        uint64 latest = 0;
        for (uint256 i = 0; i < all.length; ++i) {
            if (all[i].revoked) continue;
            assertGe(all[i].liveFrom, latest);
            latest = all[i].liveFrom;
        }
    }

    /// @dev The actors can reach every state that the invariants speak of; otherwise they would
    /// hold of nothing.
    function test_actorsReachEverything() public {
        for (uint8 i = 1; i <= 3; ++i) {
            actors.openRelease(0, 1, 0);
            actors.postManifest(0, 1, 1, POLICY);
            actors.seatOrExpel(i);
            actors.publishHonestly(EPSILON_MICRO);
        }
        assertEq(actors.allPublished().length, 3);
        assertEq(actors.allPosted().length, 3);
        assertEq(actors.waiting(), 3);
        actors.revoke(0, 2);
        actors.wait(uint32(DELAY_S));
        assertEq(actors.live().version, 2);
        actors.openRelease(1, 1, 0);
        actors.abandon(8);
        assertEq(actors.open(), 0);

        actors.govern(3, 1 hours + 1);
        actors.openRelease(0, 1, 0);
        assertEq(actors.open(), 0); // the interval is not over
        actors.wait(1);
        actors.openRelease(0, 1, 0);
        assertEq(actors.open(), 5);
        actors.govern(4, 0);
        actors.publishHonestly(EPSILON_MICRO);
        assertEq(actors.allPublished().length, 3); // paused
        actors.govern(0, 10_000);
        actors.publishSomehow(1, EPSILON_MICRO, 0x1f, 0);
        actors.publishHonestly(EPSILON_MICRO);
        assertEq(actors.allPublished().length, 4);
        actors.wait(2 hours - 1);
        actors.govern(2, 1);
        actors.govern(1, 0);
        actors.openRelease(0, 1, 0);
        assertEq(actors.open(), 6);
    }
}
