// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {IMailbox} from "../src/IMailbox.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {ParameterStore} from "../src/ParameterStore.sol";
import {RegistryBeacon} from "../src/RegistryBeacon.sol";
import {Listed, RegistrySnapshot} from "../src/RegistrySnapshot.sol";
import {MirrorFixture} from "./MirrorFixture.sol";
import {StandInMailbox} from "./StandInMailbox.sol";

/// @notice Posting, and the powers of the owner. Cases: RegistryBeacon.tree.
contract RegistryBeaconTest is MirrorFixture {
    bytes32 internal constant FAR_MIRROR = keccak256("a mirror far away");

    /* constructor */

    function test_constructor_noContract() public {
        IMailbox mailbox = IMailbox(address(homeMailbox));
        bytes memory expected =
            abi.encodeWithSelector(RegistryBeacon.RegistryBeacon_NoContract.selector, outsider);
        vm.expectRevert(expected);
        new RegistryBeacon(IMailbox(outsider), registry, store, governance);
        vm.expectRevert(expected);
        new RegistryBeacon(mailbox, ModelRegistry(outsider), store, governance);
        vm.expectRevert(expected);
        new RegistryBeacon(mailbox, registry, ParameterStore(outsider), governance);
    }

    function test_constructor_zeroOwner() public {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        new RegistryBeacon(IMailbox(address(homeMailbox)), registry, store, address(0));
    }

    function test_constructor_keeps() public view {
        assertEq(address(beacon.mailbox()), address(homeMailbox));
        assertEq(address(beacon.registry()), address(registry));
        assertEq(address(beacon.store()), address(store));
        assertEq(beacon.owner(), governance);
        assertEq(beacon.sequence(), 0);
    }

    /* post */

    function test_post_noDestination() public {
        vm.expectRevert(RegistryBeacon.RegistryBeacon_NoDestination.selector);
        beacon.post(new uint32[](0));
    }

    function test_post_tooMany() public {
        uint256 limit = beacon.MAX_DESTINATIONS();
        uint32[] memory domains = new uint32[](limit);
        for (uint32 i = 0; i < limit; ++i) {
            domains[i] = i + 1;
            nameMirror(i + 1, FAR_MIRROR);
        }
        beacon.post(domains);
        assertEq(homeMailbox.sentCount(), limit);
        vm.expectRevert(
            abi.encodeWithSelector(
                RegistryBeacon.RegistryBeacon_TooManyDestinations.selector, limit + 1, limit
            )
        );
        beacon.post(new uint32[](limit + 1));
    }

    function test_post_notAscending() public {
        nameMirror(FAR, FAR_MIRROR);
        for (uint256 i = 0; i < 2; ++i) {
            uint32 second = i == 0 ? AWAY : FAR;
            vm.expectRevert(
                abi.encodeWithSelector(
                    RegistryBeacon.RegistryBeacon_DomainsNotAscending.selector, FAR, second
                )
            );
            beacon.post(both(FAR, second));
        }
    }

    function test_post_noMirror() public {
        bytes memory expected =
            abi.encodeWithSelector(RegistryBeacon.RegistryBeacon_NoMirror.selector, FAR);
        vm.expectRevert(expected);
        beacon.post(both(AWAY, FAR));
        vm.expectRevert(expected);
        beacon.quote(both(AWAY, FAR));
        nameMirror(0, FAR_MIRROR); // domain 0 is one like any other
        beacon.post(both(0, AWAY));
    }

    function test_post_feeTooLow() public {
        nameMirror(FAR, FAR_MIRROR);
        homeMailbox.setFee(FEE_PER_BYTE);
        uint256 fee = beacon.quote(both(AWAY, FAR));
        vm.deal(address(this), fee);
        vm.expectRevert(
            abi.encodeWithSelector(RegistryBeacon.RegistryBeacon_FeeTooLow.selector, fee - 1, fee)
        );
        beacon.post{value: fee - 1}(both(AWAY, FAR));
        vm.expectRevert(
            abi.encodeWithSelector(RegistryBeacon.RegistryBeacon_FeeTooLow.selector, 0, fee / 2)
        );
        beacon.post(both(AWAY, FAR));
        beacon.post{value: fee}(both(AWAY, FAR)); // nothing is left, so nothing is sent back
        assertEq(address(homeMailbox).balance, fee);
    }

    function testFuzz_post_refund(uint96 more, uint8 perByte) public {
        homeMailbox.setFee(perByte);
        uint256 fee = beacon.quote(only(AWAY));
        uint256 given = fee + more;
        vm.deal(outsider, given);
        vm.prank(outsider);
        beacon.post{value: given}(only(AWAY));
        assertEq(outsider.balance, more);
        assertEq(address(beacon).balance, 0);
        assertEq(homeMailbox.sent(0).paid, fee);
    }

    function test_post_refundRefused() public {
        vm.deal(address(this), 1); // and this contract takes no money
        vm.expectRevert(
            abi.encodeWithSelector(
                RegistryBeacon.RegistryBeacon_RefundRefused.selector, address(this), 1
            )
        );
        beacon.post{value: 1}(only(AWAY));
    }

    function test_post_whilePaused() public {
        vm.prank(governance);
        store.pause();
        RegistrySnapshot memory s = abi.decode(post(), (RegistrySnapshot));
        assertTrue(s.paused);
    }

    function test_post_sendsOneBodyToEach() public {
        nameMirror(FAR, FAR_MIRROR);
        enliven(1);
        bytes memory body = abi.encode(beacon.snapshot());
        vm.expectEmit(true, true, false, false, address(beacon));
        emit RegistryBeacon.Posted(1, AWAY, 0);
        vm.expectEmit(true, true, false, false, address(beacon));
        emit RegistryBeacon.Posted(1, FAR, 0);
        vm.prank(outsider); // anybody
        beacon.post(both(AWAY, FAR));
        assertEq(beacon.sequence(), 1);
        assertEq(homeMailbox.sentCount(), 2);
        for (uint256 i = 0; i < 2; ++i) {
            StandInMailbox.Sent memory m = homeMailbox.sent(i);
            assertEq(m.sender, word(address(beacon)));
            assertEq(m.destination, i == 0 ? AWAY : FAR);
            assertEq(m.recipient, i == 0 ? word(address(mirror)) : FAR_MIRROR);
            assertEq(m.body, body);
        }
        RegistrySnapshot memory second = abi.decode(post(), (RegistrySnapshot));
        assertEq(second.sequence, 2);
    }

    /* setMirror, renounceOwnership */

    function test_setMirror_notOwner() public {
        bytes memory expected =
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, outsider);
        vm.startPrank(outsider);
        vm.expectRevert(expected);
        beacon.setMirror(AWAY, FAR_MIRROR);
        vm.expectRevert(expected);
        beacon.renounceOwnership();
    }

    function test_setMirror() public {
        vm.expectEmit(address(beacon));
        emit RegistryBeacon.MirrorChanged(AWAY, word(address(mirror)), FAR_MIRROR);
        nameMirror(AWAY, FAR_MIRROR);
        assertEq(beacon.mirrorOf(AWAY), FAR_MIRROR);
        beacon.post(only(AWAY));
        assertEq(homeMailbox.sent(0).recipient, FAR_MIRROR);
        nameMirror(AWAY, 0);
        vm.expectRevert(
            abi.encodeWithSelector(RegistryBeacon.RegistryBeacon_NoMirror.selector, AWAY)
        );
        beacon.post(only(AWAY));
    }

    function test_renounceOwnership_refused() public {
        vm.prank(governance);
        vm.expectRevert(RegistryBeacon.RegistryBeacon_OwnerRequired.selector);
        beacon.renounceOwnership();
    }

    /* snapshot, quote */

    function test_snapshot() public {
        enliven(1);
        open(2);
        publish(2, 2);
        RegistrySnapshot memory s = beacon.snapshot();
        assertEq(s.sequence, 1);
        assertEq(s.sentAt, block.timestamp);
        assertEq(s.models.length, 2);
        (
            uint64[28] memory governed,
            uint64[28] memory interim,
            uint64 until,
            bool paused,
            uint64 written
        ) = store.snapshot();
        assertEq(abi.encode(s.governed, s.interim), abi.encode(governed, interim));
        assertEq(s.interimUntil, until);
        assertEq(s.paused, paused);
        assertEq(s.parametersSequence, written);
    }

    function test_quote() public {
        assertEq(beacon.quote(new uint32[](0)), 0);
        homeMailbox.setFee(FEE_PER_BYTE);
        nameMirror(FAR, FAR_MIRROR);
        uint256 length = abi.encode(beacon.snapshot()).length;
        assertEq(beacon.quote(only(AWAY)), FEE_PER_BYTE * length);
        assertEq(beacon.quote(both(AWAY, FAR)), 2 * FEE_PER_BYTE * length);
    }

    /// @dev The mailbox is asked about the very message that would be posted.
    function test_quote_ofTheNextPost() public {
        beacon.post(only(AWAY));
        bytes memory body = abi.encode(beacon.snapshot());
        vm.expectCall(
            address(homeMailbox),
            abi.encodeCall(IMailbox.quoteDispatch, (AWAY, word(address(mirror)), body))
        );
        beacon.quote(only(AWAY));
    }

    /* ModelRegistry.current */

    function test_current_nothing() public {
        assertEq(registry.current().length, 0);
        open(1);
        publish(1, 1);
        revoke(1);
        assertEq(registry.current().length, 0);
    }

    function test_current_waitingThenLive() public {
        enliven(3);
        enliven(5);
        for (uint64 i = 6; i <= 8; ++i) {
            open(i);
            publish(i, i + 10);
        }
        revoke(17);
        Listed[] memory listed = registry.current();
        assertEq(listed.length, 3);
        uint64[3] memory versions = [uint64(18), 16, 5];
        for (uint256 i = 0; i < 3; ++i) {
            (bytes32 hash, uint64 release, uint64 liveFrom, uint64 epsilonMicro,) =
                registry.model(versions[i]);
            assertEq(listed[i].version, versions[i]);
            assertEq(listed[i].sha256, hash);
            assertEq(listed[i].release, release);
            assertEq(listed[i].liveFrom, liveFrom);
            assertEq(listed[i].epsilonMicro, epsilonMicro);
        }
    }
}
