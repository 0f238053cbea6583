// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {IParameters} from "../src/IParameters.sol";
import {Membership} from "../src/Membership.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {ParameterRules} from "../src/ParameterRules.sol";
import {Fixture} from "./Fixture.sol";

/// @notice Constructor, releases and manifests.
contract ModelRegistryReleaseTest is Fixture {
    bytes32 internal constant ROOT = keccak256("root");

    function openAs(address caller, uint64 release) internal {
        vm.prank(caller);
        registry.openRelease(release, POLICY, BASE, ROUNDS, memberIds, helperIds);
    }

    function openWith(uint256[] memory members, uint256[] memory helpers) internal {
        vm.prank(coordinator);
        registry.openRelease(1, POLICY, BASE, ROUNDS, members, helpers);
    }

    function post(uint64 release, uint32 round, bytes32 root) internal {
        vm.prank(coordinator);
        registry.postManifest(release, round, root);
    }

    function stateOf(uint64 release) internal view returns (ModelRegistry.ReleaseState) {
        return registry.releaseOf(release).state;
    }

    function otherCoordinator() internal returns (address signer) {
        signer = vm.addr(keyOf("coordinator", 1));
        seat(signer, membership.COORDINATOR());
    }

    function setRoles(uint256 id, uint8 roles) internal {
        Membership.Seat memory s = membership.seat(id);
        vm.prank(governance);
        membership.update(id, s.signer, s.x25519, roles);
    }

    /* constructor */

    function test_constructor() public view {
        assertEq(address(registry.membership()), address(membership));
        assertEq(registry.owner(), governance);
        assertEq(address(registry.parameterStore()), address(store));
        assertEq(registry.epsilonCapMicro(), CAP_MICRO);
        assertEq(registry.earliestOpening(), 0);
        assertEq(registry.latestRelease(), 0);
        assertEq(registry.currentRelease(), 0);
        assertEq(registry.latestVersion(), 0);
        assertEq(liveVersion(), 0);
    }

    function test_constructor_noMembership() public {
        Membership none = Membership(outsider);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_NoMembership.selector, outsider)
        );
        new ModelRegistry(none, store, governance);
    }

    function test_constructor_noParameters() public {
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_NoParameters.selector, outsider)
        );
        new ModelRegistry(membership, IParameters(outsider), governance);
    }

    function test_constructor_zeroOwner() public {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        new ModelRegistry(membership, store, address(0));
    }

    /* openRelease */

    function test_open_notCoordinator() public {
        address[5] memory callers = [
            outsider,
            governance,
            vm.addr(memberKeys[0]),
            vm.addr(keyOf("helper", 0)),
            accountOf(coordinator) // holds the seat, but acts through its signer
        ];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ModelRegistry.ModelRegistry_NotCoordinator.selector, callers[i]
                )
            );
            openAs(callers[i], 1);
        }
        vm.prank(governance);
        membership.expel(coordinatorId);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_NotCoordinator.selector, coordinator)
        );
        open(1);
    }

    function testFuzz_open_stale(uint64 newest, uint64 release) public {
        newest = uint64(bound(newest, 1, registry.MAX_STEP()));
        open(newest);
        release = uint64(bound(release, 0, newest));
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_StaleRelease.selector, release, newest
            )
        );
        open(release);
    }

    function testFuzz_open_tooFar(uint64 newest, uint64 release) public {
        uint64 step = registry.MAX_STEP();
        newest = uint64(bound(newest, 1, step));
        open(newest);
        release = uint64(bound(release, uint256(newest) + step + 1, type(uint64).max));
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_ReleaseTooFar.selector, release, newest + step
            )
        );
        open(release);
        open(newest + step);
    }

    function test_open_noRounds() public {
        vm.expectRevert(ModelRegistry.ModelRegistry_NoRounds.selector);
        vm.prank(coordinator);
        registry.openRelease(1, POLICY, BASE, 0, memberIds, helperIds);
    }

    function test_open_capReached() public {
        open(1);
        publish(1, 1, CAP_MICRO);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_CapReached.selector, CAP_MICRO, CAP_MICRO
            )
        );
        open(2);
    }

    /// @dev The coordinator may not choose a handful of members and then need the signatures of
    /// those alone.
    function test_open_fewMembers() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_TooFewMembers.selector, NEEDED - 1, NEEDED
            )
        );
        openWith(first(memberIds, NEEDED - 1), helperIds);
        openWith(first(memberIds, NEEDED), helperIds);
        assertEq(registry.releaseOf(1).signaturesNeeded, NEEDED);
    }

    function test_open_noMembersAtAll() public {
        registry = new ModelRegistry(new Membership(address(this)), store, governance);
        registry.membership().admit(coordinator, coordinator, 0, 4);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_TooFewMembers.selector, 0, 1)
        );
        openWith(new uint256[](0), new uint256[](0));
    }

    /// @dev The number of signatures is the share rounded up: one fewer would be below the share.
    function testFuzz_open_roundsUp(uint8 members, uint16 bps) public {
        uint256 count = bound(members, 1, 40);
        bps = uint16(bound(bps, 5_001, 10_000));
        setParameter(ParameterRules.QUORUM_BPS, bps);
        Membership m = new Membership(address(this));
        registry = new ModelRegistry(m, store, governance);
        uint256[] memory ids = new uint256[](count);
        for (uint160 i = 0; i < count; ++i) {
            address one = address(0x10000 + i);
            ids[i] = m.admit(one, one, 0, 1);
        }
        m.admit(coordinator, coordinator, 0, 4);
        openWith(ids, new uint256[](0));
        uint256 needed = registry.releaseOf(1).signaturesNeeded;
        assertGe(needed * 10_000, count * bps);
        assertLt((needed - 1) * 10_000, count * bps);
        assertGt(2 * needed, count); // any two quorums have a member in common
        assertLe(needed, count);
    }

    function test_open_badMemberIds() public {
        uint256[] memory ids = first(memberIds, MEMBERS);
        ids[1] = ids[0];
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_IdsNotAscending.selector, 1, 1)
        );
        openWith(ids, helperIds);

        ids = first(memberIds, MEMBERS);
        (ids[0], ids[1]) = (ids[1], ids[0]);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_IdsNotAscending.selector, 2, 1)
        );
        openWith(ids, helperIds);

        ids = first(memberIds, MEMBERS);
        ids[0] = 0;
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_IdsNotAscending.selector, 0, 0)
        );
        openWith(ids, helperIds);

        ids = first(memberIds, MEMBERS);
        ids[MEMBERS - 1] = helperIds[0];
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_WrongRole.selector, helperIds[0], 1)
        );
        openWith(ids, helperIds);

        ids[MEMBERS - 1] = 99;
        vm.expectRevert(abi.encodeWithSelector(Membership.Membership_UnknownSeat.selector, 99));
        openWith(ids, helperIds);
    }

    function test_open_badHelperIds() public {
        uint256[] memory ids = first(helperIds, HELPERS);
        ids[1] = ids[0];
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_IdsNotAscending.selector, ids[0], ids[0]
            )
        );
        openWith(memberIds, ids);

        ids = first(memberIds, 1);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_WrongRole.selector, ids[0], 2)
        );
        openWith(memberIds, ids);

        ids = new uint256[](registry.MAX_HELPERS() + 1);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_TooManyHelpers.selector, 17, 16)
        );
        openWith(memberIds, ids);

        openWith(memberIds, new uint256[](0)); // members who trust nobody need no committee
    }

    function test_open_mostHelpers() public {
        for (uint256 i = HELPERS; i < registry.MAX_HELPERS(); ++i) {
            helperIds.push(seat(vm.addr(keyOf("helper", i)), membership.HELPER()));
        }
        assertEq(helperIds.length, 16);
        open(1);
        assertEq(registry.currentRelease(), 1);
    }

    function test_open() public {
        vm.expectEmit(address(registry));
        emit ModelRegistry.ReleaseOpened(
            7, coordinatorId, POLICY, BASE, ROUNDS, NEEDED, memberIds, helperIds
        );
        expectRoster(7, 1, memberIds);
        expectRoster(7, 2, helperIds);
        vm.recordLogs();
        open(7);
        assertEq(vm.getRecordedLogs().length, 3); // and nothing was abandoned

        assertEq(registry.latestRelease(), 7);
        assertEq(registry.currentRelease(), 7);
        ModelRegistry.Release memory r = registry.releaseOf(7);
        assertEq(r.coordinatorId, coordinatorId);
        assertEq(r.policyHash, POLICY);
        assertEq(r.baseSha256, BASE);
        assertEq(r.rounds, ROUNDS);
        assertEq(r.lastRound, 0);
        assertEq(r.signaturesNeeded, NEEDED);
        assertEq(r.version, 0);
        assertTrue(r.state == ModelRegistry.ReleaseState.Open);
        for (uint256 i = 0; i < MEMBERS; ++i) {
            assertTrue(registry.isSigner(7, vm.addr(memberKeys[i])));
        }
        assertFalse(registry.isSigner(7, vm.addr(keyOf("helper", 0))));
        assertFalse(registry.isSigner(7, coordinator));
        assertFalse(registry.isSigner(6, vm.addr(memberKeys[0])));
    }

    function expectRoster(uint64 release, uint8 role, uint256[] memory ids) internal {
        address[] memory signers = new address[](ids.length);
        bytes32[] memory keys = new bytes32[](ids.length);
        for (uint256 i = 0; i < ids.length; ++i) {
            signers[i] = membership.seat(ids[i]).signer;
            keys[i] = membership.seat(ids[i]).x25519;
        }
        vm.expectEmit(address(registry));
        emit ModelRegistry.ReleaseRoster(release, role, ids, signers, keys);
    }

    function test_open_replacesOwnRelease() public {
        open(1);
        vm.expectEmit(address(registry));
        emit ModelRegistry.ReleaseAbandoned(1);
        open(2);
        assertTrue(stateOf(1) == ModelRegistry.ReleaseState.Abandoned);
        assertTrue(stateOf(2) == ModelRegistry.ReleaseState.Open);
        assertEq(registry.currentRelease(), 2);
    }

    function test_open_heldByAnother() public {
        address other = otherCoordinator();
        open(1);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_ReleaseHeld.selector, 1, coordinatorId
            )
        );
        openAs(other, 2);

        setRoles(coordinatorId, membership.MEMBER());
        openAs(other, 2); // the seat that held it is no coordinator any more
        assertTrue(stateOf(1) == ModelRegistry.ReleaseState.Abandoned);
    }

    function test_open_afterHolderWasExpelled() public {
        address other = otherCoordinator();
        open(1);
        vm.prank(governance);
        membership.expel(coordinatorId);
        openAs(other, 2);
        assertEq(registry.currentRelease(), 2);
    }

    function test_releaseOf_unknown() public {
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_UnknownRelease.selector, 1)
        );
        registry.releaseOf(1);
    }

    /* postManifest */

    function test_post_notOpen() public {
        uint64[3] memory releases = [uint64(0), 1, 2];
        for (uint256 i = 0; i < releases.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ModelRegistry.ModelRegistry_ReleaseNotOpen.selector, releases[i]
                )
            );
            post(releases[i], 1, ROOT);
        }
        open(1);
        publish(1, 1);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_ReleaseNotOpen.selector, 1)
        );
        post(1, 1, ROOT);
    }

    function test_post_notTheReleasesCoordinator() public {
        address other = otherCoordinator();
        open(1);
        address[4] memory callers = [other, outsider, governance, vm.addr(memberKeys[0])];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ModelRegistry.ModelRegistry_NotReleaseCoordinator.selector, 1, callers[i]
                )
            );
            vm.prank(callers[i]);
            registry.postManifest(1, 1, ROOT);
        }
    }

    function test_post_coordinatorWithoutRole() public {
        open(1);
        setRoles(coordinatorId, membership.MEMBER());
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_NotReleaseCoordinator.selector, 1, coordinator
            )
        );
        post(1, 1, ROOT);
        vm.prank(governance);
        membership.expel(coordinatorId);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_NotReleaseCoordinator.selector, 1, coordinator
            )
        );
        post(1, 1, ROOT);
    }

    function test_post_coordinatorWithNewKey() public {
        open(1);
        vm.prank(governance);
        membership.update(coordinatorId, outsider, 0, 4);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_NotReleaseCoordinator.selector, 1, coordinator
            )
        );
        post(1, 1, ROOT);
        vm.prank(outsider);
        registry.postManifest(1, 1, ROOT);
        assertEq(registry.manifestOf(1, 1), ROOT);
    }

    function test_post_zeroRoot() public {
        open(1);
        vm.expectRevert(ModelRegistry.ModelRegistry_ZeroRoot.selector);
        post(1, 1, 0);
    }

    function testFuzz_post_notAscending(uint32 last, uint32 round) public {
        last = uint32(bound(last, 1, ROUNDS));
        round = uint32(bound(round, 0, last));
        open(1);
        post(1, last, ROOT);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_RoundNotAscending.selector, round, last
            )
        );
        post(1, round, keccak256("another root"));
        assertEq(registry.manifestOf(1, last), ROOT);
    }

    function test_post_roundZero() public {
        open(1);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_RoundNotAscending.selector, 0, 0)
        );
        post(1, 0, ROOT);
    }

    function testFuzz_post_pastLimit(uint32 round) public {
        round = uint32(bound(round, ROUNDS + 1, type(uint32).max));
        open(1);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_RoundPastLimit.selector, round, ROUNDS
            )
        );
        post(1, round, ROOT);
    }

    function testFuzz_post(uint32 round, bytes32 root) public {
        round = uint32(bound(round, 1, ROUNDS)); // earlier rounds may be left out
        vm.assume(root != 0);
        open(1);
        assertFalse(registry.hasManifest(1, round));
        vm.expectEmit(address(registry));
        emit ModelRegistry.ManifestPosted(1, round, root);
        post(1, round, root);
        assertEq(registry.manifestOf(1, round), root);
        assertTrue(registry.hasManifest(1, round));
        assertEq(registry.releaseOf(1).lastRound, round);
    }

    function test_post_everyRound() public {
        open(1);
        for (uint32 round = 1; round <= ROUNDS; ++round) {
            post(1, round, keccak256(abi.encode(round)));
        }
        open(2); // a new release counts from the beginning, and the old roots stay
        post(2, 1, ROOT);
        assertEq(registry.manifestOf(1, 1), keccak256(abi.encode(uint32(1))));
        assertEq(registry.manifestOf(2, 1), ROOT);
    }

    /* abandonRelease */

    function test_abandon_notOpen() public {
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_ReleaseNotOpen.selector, 1)
        );
        vm.prank(governance);
        registry.abandonRelease(1);
    }

    function test_abandon_notAllowed() public {
        address other = otherCoordinator();
        open(1);
        address[3] memory callers = [outsider, guardian, other];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ModelRegistry.ModelRegistry_NotReleaseCoordinator.selector, 1, callers[i]
                )
            );
            vm.prank(callers[i]);
            registry.abandonRelease(1);
        }
    }

    function test_abandon_byOwner() public {
        checkAbandon(governance);
    }

    function test_abandon_byCoordinator() public {
        checkAbandon(coordinator);
    }

    function checkAbandon(address caller) internal {
        open(1);
        bytes[] memory signatures = quorum(1, 1, EPSILON_MICRO, NEEDED);
        vm.expectEmit(address(registry));
        emit ModelRegistry.ReleaseAbandoned(1);
        vm.prank(caller);
        registry.abandonRelease(1);

        assertTrue(stateOf(1) == ModelRegistry.ReleaseState.Abandoned);
        assertEq(registry.currentRelease(), 0);
        bytes memory notOpen =
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_ReleaseNotOpen.selector, 1);
        vm.expectRevert(notOpen);
        post(1, 1, ROOT);
        vm.expectRevert(notOpen);
        registry.publish(1, 1, sha(1), URI, EPSILON_MICRO, signatures);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_StaleRelease.selector, 1, 1)
        );
        open(1); // never again under the same number: its signatures are out in the world
    }
}
