// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {Membership} from "../src/Membership.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {ParameterRules} from "../src/ParameterRules.sol";
import {ParameterStore} from "../src/ParameterStore.sol";
import {defaults} from "./Defaults.sol";

/// @notice A consortium of five members, three helpers and a coordinator, and what tests say about
/// it.
abstract contract Fixture is Test {
    uint64 internal constant QUORUM_BPS = 6_667;
    uint64 internal constant DELAY_S = 1 hours;
    uint64 internal constant CAP_MICRO = 8_000_000;
    uint64 internal constant EPSILON_MICRO = 1_000_000;
    uint32 internal constant ROUNDS = 40;
    uint256 internal constant MEMBERS = 5;
    uint32 internal constant NEEDED = 4; // 5 x 0.6667 = 3.3335, rounded up
    uint256 internal constant HELPERS = 3;
    uint256 internal constant START_S = 1_750_000_000;

    bytes32 internal constant POLICY = keccak256("policy");
    bytes32 internal constant BASE = keccak256("base model");
    string internal constant URI = "ipfs://artifact";

    address internal governance = makeAddr("governance");
    address internal guardian = makeAddr("guardian");
    address internal outsider = makeAddr("outsider");
    address internal coordinator;
    uint256 internal coordinatorId;

    Membership internal membership;
    ParameterStore internal store;
    ModelRegistry internal registry;

    /// @dev Signing keys of the members, ascending by address, and their seats, ascending by id in
    /// the same order.
    uint256[] internal memberKeys;
    uint256[] internal memberIds;
    uint256[] internal helperIds;

    function setUp() public virtual {
        vm.warp(START_S);
        membership = new Membership(governance);
        store = newStore(QUORUM_BPS, DELAY_S, CAP_MICRO);
        registry = new ModelRegistry(membership, store, governance);
        vm.prank(governance);
        registry.setGuardian(guardian);

        memberKeys = keysAscending("member", MEMBERS);
        for (uint256 i = 0; i < MEMBERS; ++i) {
            memberIds.push(seatMember(vm.addr(memberKeys[i])));
        }
        for (uint256 i = 0; i < HELPERS; ++i) {
            address signer = vm.addr(keyOf("helper", i));
            helperIds.push(seat(signer, membership.HELPER()));
        }
        coordinator = vm.addr(keyOf("coordinator", 0));
        coordinatorId = seat(coordinator, membership.COORDINATOR());
    }

    /* PARAMETERS */

    function newStore(uint64 quorumBps, uint64 delayS, uint64 capMicro)
        internal
        returns (ParameterStore)
    {
        uint64[28] memory values = defaults();
        values[ParameterRules.QUORUM_BPS] = quorumBps;
        values[ParameterRules.ACTIVATION_DELAY_S] = delayS;
        values[ParameterRules.EPSILON_TOTAL_MICRO] = capMicro;
        return new ParameterStore(governance, values);
    }

    function one(uint8 id, uint64 value)
        internal
        pure
        returns (uint8[] memory ids, uint64[] memory values)
    {
        (ids, values) = (new uint8[](1), new uint64[](1));
        (ids[0], values[0]) = (id, value);
    }

    function setParameter(uint8 id, uint64 value) internal {
        (uint8[] memory ids, uint64[] memory values) = one(id, value);
        vm.prank(governance);
        store.set(ids, values);
    }

    /* SEATS */

    function keyOf(string memory label, uint256 index) internal pure returns (uint256) {
        // Far below the order of the curve, and not zero.
        return uint256(keccak256(abi.encode(label, index))) >> 1;
    }

    function keysAscending(string memory label, uint256 count)
        internal
        pure
        returns (uint256[] memory keys)
    {
        keys = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            uint256 key = keyOf(label, i);
            uint256 j = i;
            for (; j > 0 && vm.addr(keys[j - 1]) > vm.addr(key); --j) {
                keys[j] = keys[j - 1];
            }
            keys[j] = key;
        }
    }

    /// @dev The account that holds the vote of the party that signs with `signer`.
    function accountOf(address signer) internal pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encode("account", signer)))));
    }

    function x25519Of(address signer) internal pure returns (bytes32) {
        return keccak256(abi.encode("x25519", signer));
    }

    function seat(address signer, uint8 roles) internal returns (uint256 id) {
        vm.prank(governance);
        id = membership.admit(accountOf(signer), signer, x25519Of(signer), roles);
    }

    function seatMember(address signer) internal returns (uint256 id) {
        return seat(signer, membership.MEMBER());
    }

    /* RELEASES */

    function open(uint64 release) internal {
        vm.prank(coordinator);
        registry.openRelease(release, POLICY, BASE, ROUNDS, memberIds, helperIds);
    }

    function first(uint256[] storage keys, uint256 count)
        internal
        view
        returns (uint256[] memory chosen)
    {
        chosen = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            chosen[i] = keys[i];
        }
    }

    function sign(uint256 key, bytes32 signed) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, signed);
        return abi.encodePacked(r, s, v);
    }

    function signAll(uint256[] memory keys, bytes32 signed)
        internal
        pure
        returns (bytes[] memory signatures)
    {
        signatures = new bytes[](keys.length);
        for (uint256 i = 0; i < keys.length; ++i) {
            signatures[i] = sign(keys[i], signed);
        }
    }

    /// @dev Stands for the artifact's hash. Not by sha256, which is a call, and would meet a test's
    /// expectRevert.
    function sha(uint64 version) internal pure returns (bytes32) {
        return keccak256(abi.encode("artifact", version));
    }

    /// @dev Signatures of the first `count` members over the publication that `publish` below
    /// makes.
    function quorum(uint64 release, uint64 version, uint64 epsilonMicro, uint256 count)
        internal
        view
        returns (bytes[] memory)
    {
        bytes32 signed = registry.digest(release, version, sha(version), URI, epsilonMicro);
        return signAll(first(memberKeys, count), signed);
    }

    function publish(uint64 release, uint64 version) internal {
        publish(release, version, EPSILON_MICRO);
    }

    function publish(uint64 release, uint64 version, uint64 epsilonMicro) internal {
        bytes[] memory signatures = quorum(release, version, epsilonMicro, NEEDED);
        vm.prank(outsider); // who hands the signatures in does not matter
        registry.publish(release, version, sha(version), URI, epsilonMicro, signatures);
    }

    function liveVersion() internal view returns (uint64 version) {
        (version,,,) = registry.live();
    }
}
