// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {ModelRegistry} from "../src/ModelRegistry.sol";
import {Fixture} from "./Fixture.sol";

/// @notice Publications and their signatures.
contract ModelRegistryPublishTest is Fixture {
    /// @dev The order of secp256k1.
    uint256 internal constant ORDER =
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    bytes[] internal signatures;

    function setUp() public override {
        super.setUp();
        open(1);
        resign(NEEDED);
    }

    /// @dev Good signatures of the first members over release 1, version 1.
    function resign(uint256 count) internal {
        signatures = quorum(1, 1, EPSILON_MICRO, count);
    }

    function submit() internal {
        registry.publish(1, 1, sha(1), URI, EPSILON_MICRO, signatures);
    }

    function expectNotMember(address signer) internal {
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_NotReleaseMember.selector, 1, signer)
        );
    }

    function expectNotMember() internal {
        vm.expectPartialRevert(ModelRegistry.ModelRegistry_NotReleaseMember.selector);
    }

    /* it publishes */

    function testFuzz_publish(
        address caller,
        uint64 version,
        bytes32 hash,
        uint64 epsilonMicro,
        uint8 count,
        uint32 laterS
    ) public {
        version = uint64(bound(version, 1, registry.MAX_STEP()));
        epsilonMicro = uint64(bound(epsilonMicro, 1, CAP_MICRO));
        vm.assume(hash != 0);
        vm.warp(block.timestamp + laterS);
        bytes32 signed = registry.digest(1, version, hash, URI, epsilonMicro);
        signatures = signAll(first(memberKeys, bound(count, NEEDED, MEMBERS)), signed);
        uint64 liveFrom = uint64(block.timestamp) + DELAY_S;

        vm.expectEmit(address(registry));
        emit ModelRegistry.ModelPublished(version, 1, hash, liveFrom, epsilonMicro, URI);
        vm.prank(caller);
        registry.publish(1, version, hash, URI, epsilonMicro, signatures);

        (bytes32 kept, uint64 release, uint64 from, uint64 spent, bool revoked) =
            registry.model(version);
        assertEq(kept, hash);
        assertEq(release, 1);
        assertEq(from, liveFrom);
        assertEq(spent, epsilonMicro);
        assertFalse(revoked);
        assertEq(registry.latestVersion(), version);
        assertEq(registry.currentRelease(), 0);
        assertEq(registry.epsilonSpentMicro(), epsilonMicro);
        assertTrue(registry.releaseOf(1).state == ModelRegistry.ReleaseState.Published);
        assertEq(registry.releaseOf(1).version, version);
    }

    /* release, version, values */

    function test_publish_notOpen() public {
        submit();
        bytes memory notOpen =
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_ReleaseNotOpen.selector, 1);
        vm.expectRevert(notOpen);
        submit(); // the release has ended
        open(2);
        vm.expectRevert(notOpen);
        submit(); // another is open
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_ReleaseNotOpen.selector, 0)
        );
        registry.publish(0, 2, sha(2), URI, EPSILON_MICRO, signatures);
    }

    function test_publish_noReleaseZero() public {
        vm.prank(coordinator);
        registry.abandonRelease(1);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_ReleaseNotOpen.selector, 0)
        );
        registry.publish(0, 1, sha(1), URI, EPSILON_MICRO, signatures);
    }

    function test_publish_versionBounds() public {
        uint64 step = registry.MAX_STEP();
        testFuzz_publish_versionTooFar(step + 1);
        testFuzz_publish_staleVersion(step, step); // publishes the farthest, then refuses it again
    }

    /// @dev The step counts from the version before, however far that is.
    function test_publish_versionAfterTheFarthest() public {
        uint64 step = registry.MAX_STEP();
        publish(1, step);
        open(2);
        publish(2, 2 * step);
        assertEq(registry.latestVersion(), 2 * step);
    }

    function testFuzz_publish_staleVersion(uint64 newest, uint64 version) public {
        newest = uint64(bound(newest, 1, registry.MAX_STEP()));
        version = uint64(bound(version, 0, newest));
        publish(1, newest);
        vm.prank(governance);
        registry.revoke(newest); // a revoked version is not given out again
        open(2);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_StaleVersion.selector, version, newest
            )
        );
        registry.publish(2, version, sha(version), URI, EPSILON_MICRO, signatures);
    }

    function testFuzz_publish_versionTooFar(uint64 version) public {
        uint64 step = registry.MAX_STEP();
        version = uint64(bound(version, uint256(step) + 1, type(uint64).max));
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_VersionTooFar.selector, version, step
            )
        );
        registry.publish(1, version, sha(version), URI, EPSILON_MICRO, signatures);
    }

    function test_publish_zeros() public {
        vm.expectRevert(ModelRegistry.ModelRegistry_ZeroHash.selector);
        registry.publish(1, 1, 0, URI, EPSILON_MICRO, signatures);
        vm.expectRevert(ModelRegistry.ModelRegistry_ZeroEpsilon.selector);
        registry.publish(1, 1, sha(1), URI, 0, signatures);
    }

    function test_publish_uri() public {
        string memory longest = string(new bytes(256));
        string memory tooLong = string(new bytes(257));
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_UriTooLong.selector, 257, 256)
        );
        registry.publish(1, 1, sha(1), tooLong, EPSILON_MICRO, signatures);
        bytes32 signed = registry.digest(1, 1, sha(1), longest, EPSILON_MICRO);
        signatures = signAll(first(memberKeys, NEEDED), signed);
        registry.publish(1, 1, sha(1), longest, EPSILON_MICRO, signatures);
    }

    function testFuzz_publish_cap(uint64 before, uint64 epsilonMicro) public {
        before = uint64(bound(before, 1, CAP_MICRO - 1));
        publish(1, 1, before);
        open(2);
        epsilonMicro = uint64(bound(epsilonMicro, CAP_MICRO - before + 1, type(uint64).max));
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_CapExceeded.selector, before, epsilonMicro, CAP_MICRO
            )
        );
        registry.publish(2, 2, sha(2), URI, epsilonMicro, signatures);
        publish(2, 2, CAP_MICRO - before); // to the last millionth
        assertEq(registry.epsilonSpentMicro(), CAP_MICRO);
    }

    function test_publish_tooManyPending() public {
        registry = new ModelRegistry(membership, store, governance);
        uint64 limit = uint64(registry.MAX_PENDING());
        for (uint64 i = 1; i <= limit; ++i) {
            open(i);
            publish(i, i, 1);
        }
        uint64 next = limit + 1;
        open(next);
        signatures = quorum(next, next, 1, NEEDED);
        vm.expectRevert(
            abi.encodeWithSelector(ModelRegistry.ModelRegistry_TooManyPending.selector, limit)
        );
        registry.publish(next, next, sha(next), URI, 1, signatures);

        vm.prank(governance);
        registry.revoke(3); // a revoked version waits no more
        registry.publish(next, next, sha(next), URI, 1, signatures);
        vm.warp(block.timestamp + DELAY_S);
        assertEq(liveVersion(), next);
        open(next + 1);
        publish(next + 1, next + 1, 1); // and none waits once they are active
    }

    /* signatures */

    function testFuzz_publish_tooFew(uint8 count) public {
        uint256 given = bound(count, 0, NEEDED - 1);
        resign(given);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_TooFewSignatures.selector, given, NEEDED
            )
        );
        submit();
    }

    function test_publish_oneTwice() public {
        signatures[1] = signatures[0];
        address signer = vm.addr(memberKeys[0]);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_SignersNotAscending.selector, signer, signer
            )
        );
        submit();
    }

    function testFuzz_publish_notAscending(uint8 a, uint8 b) public {
        uint256 i = bound(a, 0, NEEDED - 2);
        uint256 j = bound(b, i + 1, NEEDED - 1);
        (signatures[i], signatures[j]) = (signatures[j], signatures[i]);
        vm.expectPartialRevert(ModelRegistry.ModelRegistry_SignersNotAscending.selector);
        submit();
    }

    function testFuzz_publish_outsider(uint256 key, uint8 place) public {
        key = bound(key, 1, ORDER - 1);
        address signer = vm.addr(key);
        vm.assume(!registry.isSigner(1, signer));
        bytes32 signed = registry.digest(1, 1, sha(1), URI, EPSILON_MICRO);
        // Beyond the number needed as well: every signature handed in is checked.
        resign(MEMBERS);
        signatures[bound(place, 0, MEMBERS - 1)] = sign(key, signed);
        expectNotMember(signer);
        submit();
    }

    function test_publish_otherRoles() public {
        bytes32 signed = registry.digest(1, 1, sha(1), URI, EPSILON_MICRO);
        signatures[0] = sign(keyOf("helper", 0), signed);
        expectNotMember(vm.addr(keyOf("helper", 0)));
        submit();
        signatures[0] = sign(keyOf("coordinator", 0), signed);
        expectNotMember(coordinator);
        submit();
    }

    function test_publish_memberNotInTheRelease() public {
        uint256[] memory some = first(memberIds, NEEDED);
        vm.prank(coordinator);
        registry.openRelease(2, POLICY, BASE, ROUNDS, some, helperIds);
        signatures = quorum(2, 2, EPSILON_MICRO, MEMBERS);
        vm.expectRevert(
            abi.encodeWithSelector(
                ModelRegistry.ModelRegistry_NotReleaseMember.selector,
                2,
                vm.addr(memberKeys[MEMBERS - 1])
            )
        );
        registry.publish(2, 2, sha(2), URI, EPSILON_MICRO, signatures);
        publish(2, 2);
    }

    function test_publish_malleable() public {
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(memberKeys[0], registry.digest(1, 1, sha(1), URI, EPSILON_MICRO));
        bytes32 high = bytes32(ORDER - uint256(s));
        signatures[0] = abi.encodePacked(r, high, v == 27 ? uint8(28) : uint8(27));
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, high));
        submit();
    }

    function testFuzz_publish_length(uint8 length) public {
        vm.assume(length != 65);
        signatures[0] = new bytes(length);
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureLength.selector, length));
        submit();
    }

    function testFuzz_publish_badV(uint8 v) public {
        vm.assume(v != 27 && v != 28);
        signatures[0][64] = bytes1(v);
        vm.expectRevert(ECDSA.ECDSAInvalidSignature.selector);
        submit();
    }

    /// @dev Whatever bit of whatever signature is turned, there is no publication.
    function testFuzz_publish_turnedBit(uint8 which, uint16 bit) public {
        uint256 i = bound(which, 0, NEEDED - 1);
        uint256 b = bound(bit, 0, 65 * 8 - 1);
        bytes memory signature = signatures[i];
        signature[b / 8] ^= bytes1(0x80) >> (b % 8);
        signatures[i] = signature;
        vm.expectRevert();
        submit();
    }

    function test_publish_otherValues() public {
        bytes32 h = sha(1);
        expectNotMember();
        registry.publish(1, 2, h, URI, EPSILON_MICRO, signatures);
        expectNotMember();
        registry.publish(1, 1, sha(2), URI, EPSILON_MICRO, signatures);
        expectNotMember();
        registry.publish(1, 1, h, "ipfs://another", EPSILON_MICRO, signatures);
        expectNotMember();
        registry.publish(1, 1, h, URI, EPSILON_MICRO - 1, signatures);
        open(2);
        vm.expectPartialRevert(ModelRegistry.ModelRegistry_NotReleaseMember.selector);
        registry.publish(2, 1, h, URI, EPSILON_MICRO, signatures);
    }

    function test_publish_otherRegistryOrChain() public {
        ModelRegistry signedFor = registry;
        registry = new ModelRegistry(membership, store, governance);
        open(1);
        expectNotMember();
        submit();
        registry = signedFor;
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        expectNotMember();
        submit();
        vm.chainId(here);
        submit();
    }

    /// @dev Who signs is fixed when the release is opened.
    function test_publish_membershipChangesMeanwhile() public {
        vm.startPrank(governance);
        membership.expel(memberIds[0]);
        membership.update(memberIds[1], outsider, 0, 1);
        vm.stopPrank();
        for (uint256 i = 0; i < 20; ++i) {
            seatMember(vm.addr(keyOf("late", i)));
        }
        assertEq(registry.releaseOf(1).signaturesNeeded, NEEDED);
        bytes32 signed = registry.digest(1, 1, sha(1), URI, EPSILON_MICRO);
        signatures.push(sign(keyOf("late", 0), signed));
        expectNotMember(vm.addr(keyOf("late", 0)));
        submit();
        signatures.pop();
        submit();
    }

    /* digest */

    /// @dev As any EIP-712 library computes it, from the text of the types.
    function testFuzz_digest(
        uint64 release,
        uint64 version,
        bytes32 hash,
        string calldata uri,
        uint64 epsilonMicro
    ) public view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("fedtrade ModelRegistry"),
                keccak256("1"),
                block.chainid,
                address(registry)
            )
        );
        bytes32 content = keccak256(
            abi.encode(
                keccak256(
                    "Publication(uint64 release,uint64 version,bytes32 sha256,string uri,uint64 epsilonMicro)"
                ),
                release,
                version,
                hash,
                keccak256(bytes(uri)),
                epsilonMicro
            )
        );
        assertEq(
            registry.digest(release, version, hash, uri, epsilonMicro),
            keccak256(abi.encodePacked(hex"1901", domain, content))
        );
    }

    /// @dev The same vector is read by the Python tests (tests/contracts).
    function test_digest_sharedVector() public {
        string memory vector = vm.readFile("test/vectors/publication.json");
        address at_ = vm.parseJsonAddress(vector, ".registry");
        vm.chainId(vm.parseJsonUint(vector, ".chain_id"));
        deployCodeTo(
            "ModelRegistry.sol:ModelRegistry", abi.encode(membership, store, governance), at_
        );
        bytes32 signed = ModelRegistry(at_)
            .digest(
                uint64(vm.parseJsonUint(vector, ".release")),
                uint64(vm.parseJsonUint(vector, ".version")),
                vm.parseJsonBytes32(vector, ".sha256"),
                vm.parseJsonString(vector, ".uri"),
                uint64(vm.parseJsonUint(vector, ".epsilon_micro"))
            );
        assertEq(signed, vm.parseJsonBytes32(vector, ".digest"));
        uint256 key = vm.parseJsonUint(vector, ".test_key");
        assertEq(sign(key, signed), vm.parseJsonBytes(vector, ".signature"));
        assertEq(vm.addr(key), vm.parseJsonAddress(vector, ".signer"));
    }
}
