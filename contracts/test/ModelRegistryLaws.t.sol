// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {Membership} from "../src/Membership.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {ParameterStore} from "../src/ParameterStore.sol";
import {defaults} from "./Defaults.sol";

/// @notice What a publication needs, for every caller, version, hash, ε and signature: halmos runs
/// the `check_` functions with all of them as symbols, `ecrecover` as a function of which nothing is
/// known. Four members, of whom the default parameters want three.
contract ModelRegistryLawsTest is Test {
    uint256 internal constant MEMBERS = 4;
    uint256 internal constant NEEDED = 3;
    address internal constant GOVERNANCE = address(0x600d);

    Membership internal membership;
    ModelRegistry internal registry;
    address internal coordinator = address(0xc0);
    uint256[] internal memberIds;
    uint256[] internal helperIds;

    function setUp() public {
        vm.warp(1_750_000_000);
        membership = new Membership(GOVERNANCE);
        ParameterStore store = new ParameterStore(GOVERNANCE, defaults());
        registry = new ModelRegistry(membership, store, GOVERNANCE);
        for (uint256 i = 0; i < MEMBERS; ++i) {
            memberIds.push(_seat(address(uint160(0xa0 + i)), membership.MEMBER()));
        }
        for (uint256 i = 0; i < 3; ++i) {
            helperIds.push(_seat(address(uint160(0xb0 + i)), membership.HELPER()));
        }
        _seat(coordinator, membership.COORDINATOR());
        _open(1);
    }

    function _seat(address signer, uint8 roles) internal returns (uint256) {
        vm.prank(GOVERNANCE);
        return membership.admit(
            address(uint160(signer) + 0x1000), signer, bytes32(uint256(uint160(signer))), roles
        );
    }

    function _open(uint64 release) internal {
        vm.prank(coordinator);
        registry.openRelease(release, bytes32("policy"), bytes32("base"), 4, memberIds, helperIds);
    }

    struct Given {
        address caller;
        uint64 version;
        bytes32 sha256;
        uint64 epsilonMicro;
    }

    struct Signature {
        bytes32 r;
        bytes32 s;
        uint8 v;
    }

    function _publish(uint64 release, Given memory g, bytes[] memory signatures)
        internal
        returns (bool done)
    {
        vm.prank(g.caller);
        (done,) = address(registry)
            .call(
                abi.encodeCall(
                    ModelRegistry.publish,
                    (release, g.version, g.sha256, "uri", g.epsilonMicro, signatures)
                )
            );
    }

    function _bytes(Signature memory s) internal pure returns (bytes memory) {
        return abi.encodePacked(s.r, s.s, s.v);
    }

    /// @notice With fewer signatures than the quorum, whatever they are, nothing is published.
    function check_onlyQuorum(Given memory g, Signature memory a, Signature memory b) public {
        bytes[] memory signatures = new bytes[](NEEDED - 1);
        (signatures[0], signatures[1]) = (_bytes(a), _bytes(b));
        assert(!_publish(1, g, signatures));
        assert(registry.latestVersion() == 0);
    }

    /// @notice What was published was signed by as many different members of the release.
    function check_signers(
        Given memory g,
        Signature memory a,
        Signature memory b,
        Signature memory c
    ) public {
        bytes[] memory signatures = new bytes[](NEEDED);
        (signatures[0], signatures[1], signatures[2]) = (_bytes(a), _bytes(b), _bytes(c));
        if (!_publish(1, g, signatures)) return;
        bytes32 signed = registry.digest(1, g.version, g.sha256, "uri", g.epsilonMicro);
        address x = ecrecover(signed, a.v, a.r, a.s);
        address y = ecrecover(signed, b.v, b.r, b.s);
        address z = ecrecover(signed, c.v, c.r, c.s);
        assert(x < y && y < z);
        assert(_member(x) && _member(y) && _member(z));
    }

    function _member(address signer) internal pure returns (bool) {
        return uint160(signer) >= 0xa0 && uint160(signer) < 0xa0 + MEMBERS;
    }

    /// @notice A publication is of a higher version than the newest, and stands as the newest.
    function check_versions(
        uint64 newest,
        Given memory g,
        Signature memory a,
        Signature memory b,
        Signature memory c
    ) public {
        bytes[] memory signatures = new bytes[](NEEDED);
        (signatures[0], signatures[1], signatures[2]) = (_bytes(a), _bytes(b), _bytes(c));
        Given memory before = Given(g.caller, newest, g.sha256, g.epsilonMicro);
        if (!_publish(1, before, signatures)) return;
        _open(2);
        if (!_publish(2, g, signatures)) return;
        assert(g.version > newest && newest != 0);
        assert(registry.latestVersion() == g.version);
    }
}
