// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Vm} from "forge-std/Vm.sol";

import {ParameterRules} from "../src/ParameterRules.sol";
import {RegistryMirror} from "../src/RegistryMirror.sol";
import {Listed, RegistrySnapshot} from "../src/RegistrySnapshot.sol";
import {MirrorFixture} from "./MirrorFixture.sol";

/// @notice What a mirror takes, refuses and shows. Cases: RegistryMirror.tree.
contract RegistryMirrorTest is MirrorFixture {
    address internal steward = makeAddr("steward");

    /// @dev What home says now, to be changed by a test and delivered as if it had been proved.
    function snapshot() internal view returns (RegistrySnapshot memory) {
        return beacon.snapshot();
    }

    function listedOf(uint64 version, uint256 liveFrom) internal pure returns (Listed memory) {
        return Listed(version, version, uint64(liveFrom), 1, sha(version));
    }

    function parameter(uint8 id) internal view returns (uint64) {
        (uint64[28] memory values,,) = mirror.parameters();
        return values[id];
    }

    function steer(uint8 id, uint64 value) internal {
        (uint8[] memory ids, uint64[] memory values) = one(id, value);
        vm.prank(governance);
        store.setSteward(steward);
        vm.prank(steward);
        store.steer(ids, values);
    }

    /* constructor */

    function test_constructor_noContract() public {
        bytes memory expected =
            abi.encodeWithSelector(RegistryMirror.RegistryMirror_NoContract.selector, outsider);
        bytes32 from = word(address(beacon));
        vm.expectRevert(expected);
        new RegistryMirror(outsider, HOME, from, address(homeMailbox));
        vm.expectRevert(expected);
        new RegistryMirror(address(awayMailbox), HOME, from, outsider);
    }

    function test_constructor_noBeacon() public {
        vm.expectRevert(RegistryMirror.RegistryMirror_NoBeacon.selector);
        new RegistryMirror(address(awayMailbox), HOME, 0, address(homeMailbox));
    }

    function test_constructor_showsNothing() public view {
        assertEq(mirror.mailbox(), address(awayMailbox));
        assertEq(mirror.homeDomain(), HOME);
        assertEq(mirror.beacon(), word(address(beacon)));
        assertEq(mirror.interchainSecurityModule(), address(homeMailbox));
        (uint64 version, bytes32 hash, uint64 liveFrom, uint64 epsilonMicro) = mirror.live();
        assertEq(version, 0);
        assertEq(hash, 0);
        assertEq(liveFrom, 0);
        assertEq(epsilonMicro, 0);
        (uint64[28] memory values, bool paused, uint64 asOf) = mirror.parameters();
        uint64[28] memory zeros;
        assertEq(abi.encode(values), abi.encode(zeros));
        assertTrue(paused);
        assertEq(asOf, 0);
        assertEq(mirror.listed().length, 0);
    }

    /* handle: who, from where, when */

    function test_handle_notMailbox() public {
        bytes memory body = post();
        address[3] memory callers = [outsider, address(beacon), address(homeMailbox)];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    RegistryMirror.RegistryMirror_NotMailbox.selector, callers[i]
                )
            );
            vm.prank(callers[i]);
            mirror.handle(HOME, word(address(beacon)), body);
        }
    }

    function test_handle_notBeacon() public {
        bytes memory body = post();
        bytes32 from = word(address(beacon));
        vm.expectRevert(
            abi.encodeWithSelector(RegistryMirror.RegistryMirror_NotBeacon.selector, FAR, from)
        );
        awayMailbox.deliver(FAR, from, address(mirror), body);
        bytes32[2] memory others = [word(outsider), from | bytes32(uint256(1) << 160)];
        for (uint256 i = 0; i < 2; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    RegistryMirror.RegistryMirror_NotBeacon.selector, HOME, others[i]
                )
            );
            awayMailbox.deliver(HOME, others[i], address(mirror), body);
        }
    }

    function test_handle_value() public {
        bytes memory body = post();
        vm.deal(address(this), 1);
        vm.expectRevert();
        awayMailbox.deliver{value: 1}(HOME, word(address(beacon)), address(mirror), body);
    }

    function testFuzz_handle_garbage(bytes calldata body) public {
        vm.expectRevert();
        deliver(body);
        assertEq(mirror.sequence(), 0);
    }

    function test_handle_cutShort() public {
        bytes memory body = post();
        for (uint256 left = body.length; left >= 32; left -= 32) {
            assembly {
                mstore(body, sub(left, 32))
            }
            vm.expectRevert();
            deliver(body);
        }
    }

    function test_handle_stale() public {
        enliven(1);
        bytes memory first = post();
        revoke(1);
        bytes memory second = post();
        deliver(second); // reordered: the newer one first
        assertEq(shown(), 0);
        for (uint64 number = 1; number <= 2; ++number) {
            vm.expectRevert(
                abi.encodeWithSelector(RegistryMirror.RegistryMirror_Stale.selector, number, 2)
            );
            deliver(number == 1 ? first : second);
        }
        assertEq(shown(), 0);
        RegistrySnapshot memory s = snapshot();
        s.sequence = 0;
        vm.expectRevert(abi.encodeWithSelector(RegistryMirror.RegistryMirror_Stale.selector, 0, 2));
        deliver(s);
    }

    function test_handle_fromTheFuture() public {
        RegistrySnapshot memory s = snapshot();
        uint64 limit = uint64(block.timestamp) + mirror.MAX_AHEAD_S();
        s.sentAt = limit + 1;
        vm.expectRevert(
            abi.encodeWithSelector(
                RegistryMirror.RegistryMirror_FromTheFuture.selector, limit + 1, limit
            )
        );
        deliver(s);
        vm.warp(block.timestamp + 1); // later it is taken
        deliver(s);
        assertEq(mirror.sentAt(), limit + 1);
    }

    /* handle: the list */

    function refusesList(Listed[] memory models, uint256 index) internal {
        RegistrySnapshot memory s = snapshot();
        s.models = models;
        vm.expectRevert(
            abi.encodeWithSelector(RegistryMirror.RegistryMirror_BadList.selector, index)
        );
        deliver(s);
    }

    function test_handle_tooManyListed() public {
        RegistrySnapshot memory s = snapshot();
        uint256 limit = mirror.MAX_LISTED();
        assertEq(limit, registry.MAX_PENDING() + 1);
        s.models = new Listed[](limit + 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                RegistryMirror.RegistryMirror_TooManyListed.selector, limit + 1, limit
            )
        );
        deliver(s);
        s.models = new Listed[](limit);
        for (uint64 i = 0; i < limit; ++i) {
            s.models[i] = listedOf(100 - i, block.timestamp + 1000 - i);
        }
        deliver(s);
        assertEq(mirror.listed().length, limit);
    }

    function test_handle_emptyEntry() public {
        Listed[] memory models = new Listed[](1);
        models[0] = listedOf(0, block.timestamp);
        refusesList(models, 0);
        models[0] = listedOf(1, block.timestamp);
        models[0].sha256 = 0;
        refusesList(models, 0);
    }

    function test_handle_outOfOrder() public {
        Listed[] memory models = new Listed[](2);
        uint256 later = block.timestamp + 100;
        models[0] = listedOf(2, later);
        models[1] = listedOf(2, later); // the same twice
        refusesList(models, 1);
        models[1] = listedOf(3, later); // a newer one below
        refusesList(models, 1);
        models[1] = listedOf(1, later + 1); // goes live after the newer one
        refusesList(models, 1);
        models[0] = listedOf(2, block.timestamp); // active, so nothing comes below
        models[1] = listedOf(1, block.timestamp);
        refusesList(models, 1);
        models[0] = listedOf(2, block.timestamp + 1);
        RegistrySnapshot memory s = snapshot();
        s.models = models;
        deliver(s);
        assertEq(shown(), 1);
    }

    /* handle: the parameters */

    function test_handle_absurdParameters() public {
        RegistrySnapshot memory s = snapshot();
        s.governed[ParameterRules.LEVERAGE_MAX_BPS] = 100_001;
        vm.expectRevert(
            abi.encodeWithSelector(
                ParameterRules.ParameterRules_OutOfBounds.selector,
                ParameterRules.LEVERAGE_MAX_BPS,
                100_001,
                10_000,
                100_000
            )
        );
        deliver(s);
        s = snapshot();
        s.governed[ParameterRules.HELPERS] = 2 * s.governed[ParameterRules.CORRUPT];
        vm.expectRevert(
            abi.encodeWithSelector(
                ParameterRules.ParameterRules_JointlyAbsurd.selector,
                ParameterRules.COMMITTEE_STANDS
            )
        );
        deliver(s);
    }

    function test_handle_absurdInterim() public {
        RegistrySnapshot memory s = snapshot();
        s.interim[ParameterRules.SLIPPAGE_MAX_BPS] = 501;
        s.interimUntil = s.sentAt + 1;
        vm.expectRevert();
        deliver(s);
        s.interimUntil = s.sentAt; // over when it was sent: without meaning
        deliver(s);
        assertEq(
            parameter(ParameterRules.SLIPPAGE_MAX_BPS), s.governed[ParameterRules.SLIPPAGE_MAX_BPS]
        );
    }

    /* handle: the events, which are all that an agent reads */

    function published(uint64 version) internal {
        (bytes32 hash, uint64 release, uint64 liveFrom, uint64 epsilonMicro,) =
            registry.model(version);
        vm.expectEmit(address(mirror));
        emit RegistryMirror.ModelPublished(version, release, hash, liveFrom, epsilonMicro, "");
    }

    function revoked(uint64 version) internal {
        vm.expectEmit(address(mirror));
        emit RegistryMirror.ModelRevoked(version);
    }

    /// @dev How many events of this signature the last messages emitted.
    function counted(string memory signature) internal returns (uint256 count) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] == keccak256(bytes(signature))) ++count;
        }
    }

    function test_handle_publishes() public {
        enliven(1);
        open(2);
        publish(2, 2);
        bytes memory body = post();
        vm.expectEmit(address(mirror));
        emit RegistryMirror.Mirrored(1, uint64(block.timestamp));
        published(1);
        published(2);
        deliver(body);
        assertEq(abi.encode(mirror.listed()), abi.encode(registry.current()));
        assertEq(shown(), 1);
    }

    function test_handle_revokes() public {
        enliven(1);
        open(2);
        publish(2, 2);
        open(3);
        publish(3, 3);
        tell();
        revoke(2);
        bytes memory body = post();
        revoked(2);
        vm.recordLogs();
        deliver(body);
        assertEq(counted("ModelRevoked(uint64)"), 1);
        vm.warp(block.timestamp + DELAY_S);
        assertEq(shown(), 3);
    }

    function test_handle_supersedes() public {
        enliven(1);
        tell();
        enliven(2);
        vm.recordLogs();
        tell();
        assertEq(counted("ModelRevoked(uint64)"), 0);
        assertEq(shown(), 2);
    }

    /// @dev 2 is superseded and revoked while nobody looks; then 3 is revoked, and home falls back
    /// to 1. Who follows events must hear of both.
    function test_handle_fallsBackOverARevokedOne() public {
        enliven(1);
        tell();
        enliven(2);
        tell();
        enliven(3);
        tell();
        revoke(2);
        vm.recordLogs();
        tell();
        assertEq(counted("ModelRevoked(uint64)"), 0); // 2 is not listed: nothing is known of it
        revoke(3);
        bytes memory body = post();
        revoked(3);
        revoked(2);
        vm.recordLogs();
        deliver(body);
        assertEq(shown(), 1);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            assertTrue(logs[i].topics[0] != RegistryMirror.ModelPublished.selector, "1 is known");
        }
    }

    /// @dev A version that was never announced becomes the fallback between two that were.
    function test_handle_fallsBackToOneThatIsNew() public {
        enliven(1);
        tell();
        enliven(2); // nobody posts
        enliven(3);
        tell();
        open(4);
        publish(4, 4);
        revoke(3);
        bytes memory body = post();
        revoked(3);
        published(2);
        published(4);
        deliver(body);
        assertEq(shown(), 2);
        revoke(4);
        revoke(2);
        body = post();
        revoked(4);
        revoked(2);
        deliver(body);
        assertEq(shown(), 1);
    }

    function test_handle_everythingRevoked() public {
        enliven(1);
        enliven(2);
        tell();
        revoke(1);
        revoke(2);
        bytes memory body = post();
        revoked(2);
        deliver(body);
        assertEq(shown(), 0);
        assertEq(mirror.listed().length, 0);
        enliven(3);
        tell();
        assertEq(shown(), 3);
    }

    function test_handle_parametersChanged() public {
        tell();
        (uint8[] memory ids, uint64[] memory values) = one(ParameterRules.SLIPPAGE_MAX_BPS, 40);
        vm.prank(governance);
        store.set(ids, values);
        bytes memory body = post();
        (uint64[28] memory inForce,,) = store.parameters();
        vm.expectEmit(address(mirror));
        emit RegistryMirror.ParametersChanged(store.sequence(), inForce, false);
        deliver(body);
        assertEq(mirror.parametersSequence(), store.sequence());
        assertEq(parameter(ParameterRules.SLIPPAGE_MAX_BPS), 40);
    }

    /// @dev What is in force by this chain's clock: the interim set to the last second of its term.
    function test_handle_parametersOfATerm() public {
        steer(ParameterRules.SLIPPAGE_MAX_BPS, 49);
        RegistrySnapshot memory s = snapshot();
        for (uint64 i = 0; i < 2; ++i) {
            vm.warp(s.interimUntil - 1 + i);
            (s.sequence, s.parametersSequence) = (1 + i, 10 + i);
            vm.expectEmit(address(mirror));
            emit RegistryMirror.ParametersChanged(10 + i, i == 0 ? s.interim : s.governed, false);
            deliver(s);
        }
    }

    function test_handle_nothingNew() public {
        enliven(1);
        tell();
        vm.warp(block.timestamp + 1 hours);
        bytes memory body = post();
        vm.recordLogs();
        deliver(body);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 1);
        assertEq(logs[0].topics[0], RegistryMirror.Mirrored.selector);
        (,, uint64 asOf) = mirror.parameters();
        assertEq(asOf, block.timestamp);
    }

    function test_handle_pause() public {
        tell();
        vm.prank(governance);
        store.pause();
        tell();
        (, bool paused,) = mirror.parameters();
        assertTrue(paused);
        vm.prank(governance);
        store.unpause();
        tell();
        (, paused,) = mirror.parameters();
        assertFalse(paused);
    }

    /* live, parameters: time */

    function test_live_byTime() public {
        enliven(1);
        open(2);
        publish(2, 2);
        tell();
        vm.warp(block.timestamp + DELAY_S - 1);
        assertEq(shown(), 1);
        vm.warp(block.timestamp + 1);
        assertEq(shown(), 2);
        assertEq(shown(), liveVersion());
        (, bytes32 hash,,) = mirror.live();
        assertEq(hash, sha(2));
    }

    function test_parameters_term() public {
        uint8 id = ParameterRules.SLIPPAGE_MAX_BPS;
        tell();
        uint64 before = parameter(id);
        steer(id, before - 1);
        tell();
        assertEq(parameter(id), before - 1);
        uint256 end = block.timestamp + store.INTERIM_S();
        vm.warp(end - 1);
        assertEq(parameter(id), before - 1);
        vm.warp(end);
        assertEq(parameter(id), before); // without a message
        tell();
        assertEq(parameter(id), before);
        steer(id, before - 2);
        tell();
        assertEq(parameter(id), before - 2);
        vm.prank(governance);
        store.veto();
        tell();
        assertEq(parameter(id), before);
    }

    /// @dev The first message comes after a term: its interim set was never stored here.
    function test_parameters_firstMessageAfterATerm() public {
        uint8 id = ParameterRules.SLIPPAGE_MAX_BPS;
        steer(id, 49);
        vm.warp(block.timestamp + store.INTERIM_S());
        tell();
        assertEq(parameter(id), 50);
    }

    function test_parameters_homeAhead() public {
        RegistrySnapshot memory s = snapshot();
        s.sentAt = uint64(block.timestamp) + 60;
        deliver(s);
        (,, uint64 asOf) = mirror.parameters();
        assertEq(asOf, block.timestamp);
        vm.warp(block.timestamp + 61);
        (,, asOf) = mirror.parameters();
        assertEq(asOf, block.timestamp - 1);
    }

    function test_parameters_withheld() public {
        enliven(1);
        tell();
        uint256 at = block.timestamp;
        post(); // and nobody delivers it
        vm.warp(at + 3 days);
        (,, uint64 asOf) = mirror.parameters();
        assertEq(asOf, at);
        assertEq(shown(), 1);
    }

    /// @dev Whatever passes the rules is shown as it was sent.
    function testFuzz_parameters(uint64 sequence, uint64 until, uint16 ahead, bool paused) public {
        vm.assume(sequence > 0);
        RegistrySnapshot memory s = snapshot();
        s.sequence = sequence;
        s.paused = paused;
        s.interimUntil = until;
        s.interim[ParameterRules.SLIPPAGE_MAX_BPS] = 49;
        deliver(s);
        vm.warp(block.timestamp + ahead);
        (uint64[28] memory values, bool paused_, uint64 asOf) = mirror.parameters();
        assertEq(abi.encode(values), abi.encode(block.timestamp < until ? s.interim : s.governed));
        assertEq(paused_, paused);
        assertEq(asOf, s.sentAt);
        assertEq(mirror.sequence(), sequence);
    }
}
