// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IMailbox} from "../src/IMailbox.sol";
import {RegistryBeacon} from "../src/RegistryBeacon.sol";
import {RegistryMirror} from "../src/RegistryMirror.sol";
import {RegistrySnapshot} from "../src/RegistrySnapshot.sol";
import {Fixture} from "./Fixture.sol";
import {StandInMailbox} from "./StandInMailbox.sol";

/// @notice A beacon beside the registry, and a mirror that stands for the one on another chain.
abstract contract MirrorFixture is Fixture {
    uint32 internal constant HOME = 31_101;
    uint32 internal constant AWAY = 31_102;
    uint32 internal constant FAR = 31_103;
    uint256 internal constant FEE_PER_BYTE = 7;

    StandInMailbox internal homeMailbox;
    StandInMailbox internal awayMailbox;
    RegistryBeacon internal beacon;
    RegistryMirror internal mirror;

    function setUp() public virtual override {
        super.setUp();
        homeMailbox = new StandInMailbox(HOME);
        awayMailbox = new StandInMailbox(AWAY);
        beacon = new RegistryBeacon(IMailbox(address(homeMailbox)), registry, store, governance);
        mirror = newMirror();
        nameMirror(AWAY, word(address(mirror)));
    }

    function newMirror() internal returns (RegistryMirror) {
        // The stand-in asks no security module, so any contract will do for one.
        return
            new RegistryMirror(
                address(awayMailbox), HOME, word(address(beacon)), address(homeMailbox)
            );
    }

    function nameMirror(uint32 domain, bytes32 to) internal {
        vm.prank(governance);
        beacon.setMirror(domain, to);
    }

    function word(address account) internal pure returns (bytes32) {
        return bytes32(uint256(uint160(account)));
    }

    function only(uint32 domain) internal pure returns (uint32[] memory domains) {
        domains = new uint32[](1);
        domains[0] = domain;
    }

    function both(uint32 one_, uint32 other) internal pure returns (uint32[] memory domains) {
        domains = new uint32[](2);
        (domains[0], domains[1]) = (one_, other);
    }

    /// @dev Posts what home says now; the mirror has not heard it yet.
    function post() internal returns (bytes memory body) {
        beacon.post(only(AWAY));
        return homeMailbox.sent(homeMailbox.sentCount() - 1).body;
    }

    function deliver(bytes memory body) internal {
        awayMailbox.deliver(HOME, word(address(beacon)), address(mirror), body);
    }

    function deliver(RegistrySnapshot memory s) internal {
        deliver(abi.encode(s));
    }

    /// @dev Posts and delivers.
    function tell() internal {
        deliver(post());
    }

    function shown() internal view returns (uint64 version) {
        (version,,,) = mirror.live();
    }

    /// @dev Publishes a version and waits until it is live at home.
    function enliven(uint64 version) internal {
        open(version);
        publish(version, version);
        vm.warp(block.timestamp + DELAY_S);
    }

    function revoke(uint64 version) internal {
        vm.prank(guardian);
        registry.revoke(version);
    }
}
