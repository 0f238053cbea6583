// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {ModelRegistry} from "../src/ModelRegistry.sol";
import {ParameterRules} from "../src/ParameterRules.sol";
import {Fixture} from "./Fixture.sol";

/// @notice What is live, revocation, and the powers of owner and guardian.
contract ModelRegistryLiveTest is Fixture {
    /// @dev Publishes this version and waits until it is live.
    function enliven(uint64 version) internal {
        open(version);
        publish(version, version);
        vm.warp(block.timestamp + DELAY_S);
    }

    function revoke(uint64 version) internal {
        vm.prank(guardian);
        registry.revoke(version);
    }

    /* live */

    function test_live_nothing() public view {
        (uint64 version, bytes32 hash, uint64 liveFrom, uint64 epsilonMicro) = registry.live();
        assertEq(version, 0);
        assertEq(hash, 0);
        assertEq(liveFrom, 0);
        assertEq(epsilonMicro, 0);
    }

    function test_live_afterTheDelay() public {
        open(1);
        publish(1, 5);
        uint256 publishedAt = block.timestamp;
        assertEq(liveVersion(), 0);
        vm.warp(publishedAt + DELAY_S - 1);
        assertEq(liveVersion(), 0);
        vm.warp(publishedAt + DELAY_S);
        (uint64 version, bytes32 hash, uint64 liveFrom, uint64 epsilonMicro) = registry.live();
        assertEq(version, 5);
        assertEq(hash, sha(5));
        assertEq(liveFrom, publishedAt + DELAY_S);
        assertEq(epsilonMicro, EPSILON_MICRO);
    }

    function test_live_noDelay() public {
        setParameter(ParameterRules.ACTIVATION_DELAY_S, 0);
        open(1);
        publish(1, 1);
        assertEq(liveVersion(), 1);
    }

    function test_live_olderWhileNewerWaits() public {
        enliven(1);
        open(2);
        publish(2, 2);
        open(3);
        publish(3, 3);
        assertEq(liveVersion(), 1);
        vm.warp(block.timestamp + DELAY_S);
        assertEq(liveVersion(), 3);
    }

    function test_live_fallsBack() public {
        for (uint64 version = 1; version <= 4; ++version) {
            enliven(version);
        }
        assertEq(liveVersion(), 4);
        revoke(3);
        assertEq(liveVersion(), 4);
        revoke(4);
        assertEq(liveVersion(), 2);
        revoke(1);
        assertEq(liveVersion(), 2);
        revoke(2);
        assertEq(liveVersion(), 0);
        enliven(5); // and begins again
        assertEq(liveVersion(), 5);
    }

    function test_live_revokedBeforeActive() public {
        enliven(1);
        open(2);
        publish(2, 2);
        revoke(2);
        vm.warp(block.timestamp + 10 * DELAY_S);
        assertEq(liveVersion(), 1);
    }

    /// @dev However many versions were revoked and as many as may wait: the walk passes only those
    /// that wait.
    function test_live_boundedWork() public {
        uint64 version = 1;
        open(version);
        publish(version, version, 1);
        vm.warp(block.timestamp + DELAY_S);
        for (version = 2; version <= 50; ++version) {
            open(version);
            publish(version, version, 1);
            revoke(version);
        }
        for (; version <= 50 + registry.MAX_PENDING(); ++version) {
            open(version);
            publish(version, version, 1);
        }
        vm.cool(address(registry)); // as in a transaction of its own
        uint256 before = gasleft();
        assertEq(liveVersion(), 1);
        assertLt(before - gasleft(), 40_000);
    }

    /* revoke */

    function test_revoke_notAllowed() public {
        enliven(1);
        address[4] memory callers = [outsider, coordinator, vm.addr(memberKeys[0]), address(0)];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(ModelRegistry.ModelRegistry_NotGuardian.selector, callers[i])
            );
            vm.prank(callers[i]);
            registry.revoke(1);
        }
    }

    function test_revoke_unknown() public {
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_UnknownVersion.selector, 1)
        );
        revoke(1);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_UnknownVersion.selector, 0)
        );
        revoke(0);
    }

    function test_revoke_twice() public {
        enliven(1);
        revoke(1);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_AlreadyRevoked.selector, 1)
        );
        revoke(1);
    }

    function test_revoke_byOwner() public {
        checkRevoke(governance);
    }

    function test_revoke_byGuardian() public {
        checkRevoke(guardian);
    }

    function checkRevoke(address caller) internal {
        enliven(1);
        vm.expectEmit(address(registry));
        emit ModelRegistry.ModelRevoked(1);
        vm.prank(caller);
        registry.revoke(1);
        (bytes32 hash,,,, bool revoked) = registry.model(1);
        assertEq(hash, sha(1)); // on record for ever
        assertTrue(revoked);
        assertEq(registry.epsilonSpentMicro(), EPSILON_MICRO);
        assertEq(registry.latestVersion(), 1);
    }

    /// @dev From the middle, from the end, and then the newest: none of them comes back.
    function test_revoke_allFromTheMiddle() public {
        for (uint64 i = 1; i <= 3; ++i) {
            enliven(i);
        }
        revoke(2);
        revoke(1);
        assertEq(liveVersion(), 3);
        revoke(3);
        assertEq(liveVersion(), 0);
        enliven(4);
        revoke(4);
        assertEq(liveVersion(), 0);
    }

    function test_model_unknown() public {
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_UnknownVersion.selector, 1)
        );
        registry.model(1);
    }

    /* owner and guardian */

    function test_setGuardian() public {
        vm.expectRevert(
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, guardian)
        );
        vm.prank(guardian);
        registry.setGuardian(outsider);

        enliven(1);
        vm.expectEmit(address(registry));
        emit ModelRegistry.GuardianChanged(guardian, address(0));
        vm.prank(governance);
        registry.setGuardian(address(0));
        assertEq(registry.guardian(), address(0));
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_NotGuardian.selector, guardian)
        );
        revoke(1);
    }

    function test_renounceOwnership_refused() public {
        vm.expectRevert(ModelRegistry.ModelRegistry_OwnerRequired.selector);
        vm.prank(governance);
        registry.renounceOwnership();
        vm.expectRevert(
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, outsider)
        );
        vm.prank(outsider);
        registry.renounceOwnership();
    }
}
