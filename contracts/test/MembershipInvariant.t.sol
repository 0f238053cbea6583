// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {Membership} from "../src/Membership.sol";

/// @notice Governance and seat holders at work, with few enough names that they collide all the
/// time.
contract Parties is Test {
    Membership internal immutable MEMBERSHIP;
    address internal immutable GOVERNANCE;
    uint160 internal constant NAMES = 6;

    constructor(Membership membership, address governance) {
        MEMBERSHIP = membership;
        GOVERNANCE = governance;
    }

    function accounts() public pure returns (address[] memory all) {
        all = new address[](NAMES);
        for (uint160 i = 0; i < NAMES; ++i) {
            all[i] = account(i);
        }
    }

    function account(uint160 i) internal pure returns (address) {
        return address(0x1000 + i % NAMES);
    }

    function signer(uint160 i) internal pure returns (address) {
        return address(0x2000 + i % NAMES);
    }

    function key(uint256 i) internal pure returns (bytes32) {
        return bytes32(i % NAMES); // 0, no key, among them
    }

    function admit(uint8 a, uint8 s, uint8 k, uint8 roles) external {
        vm.prank(GOVERNANCE);
        try MEMBERSHIP.admit(account(a), signer(s), key(k), roles % 9) {} catch {}
    }

    function update(uint8 id, uint8 s, uint8 k, uint8 roles) external {
        uint256 which = someId(id);
        vm.prank(GOVERNANCE);
        try MEMBERSHIP.update(which, signer(s), key(k), roles % 9) {} catch {}
    }

    function expel(uint8 id) external {
        uint256 which = someId(id);
        vm.prank(GOVERNANCE);
        try MEMBERSHIP.expel(which) {} catch {}
    }

    function delegate(uint8 from, uint8 to) external {
        vm.prank(account(from));
        MEMBERSHIP.delegate(account(to));
    }

    function transfer(uint8 from, uint8 to, uint8 id) external {
        uint256 which = someId(id);
        vm.prank(account(from));
        vm.expectRevert();
        MEMBERSHIP.transferFrom(account(from), account(to), which);
    }

    function someId(uint8 id) internal view returns (uint256) {
        return id % (MEMBERSHIP.lastSeatId() + 2);
    }
}

contract MembershipInvariantTest is Test {
    Membership internal membership;
    Parties internal parties;

    function setUp() public {
        address governance = makeAddr("governance");
        membership = new Membership(governance);
        parties = new Parties(membership, governance);
        targetContract(address(parties));
    }

    /// @dev One campaign for all: forge would run one for each function.
    function invariant_membership() public view {
        oneVoteForEachMember();
        everyKeyLeadsToItsSeat();
    }

    function oneVoteForEachMember() internal view {
        address[] memory accounts = parties.accounts();
        uint256 votes = 0;
        for (uint256 i = 0; i < accounts.length; ++i) {
            votes += membership.getVotes(accounts[i]);
            uint256 id = membership.idOfAccount(accounts[i]);
            uint256 own = membership.balanceOf(accounts[i]);
            assertEq(own, membership.hasRole(id, 1) ? 1 : 0);
            if (own == 1) assertEq(membership.ownerOf(id), accounts[i]);
        }
        assertEq(votes, membership.memberCount());
    }

    function everyKeyLeadsToItsSeat() internal view {
        address[] memory accounts = parties.accounts();
        uint256 members = 0;
        uint256 seats = 0;
        uint256 signers = 0;
        int256 keys = 0;
        for (uint160 i = 0; i < accounts.length; ++i) {
            // No key leads to a seat that is gone: as many signers lead somewhere as there are
            // seats,
            if (membership.idOfSigner(address(0x2000 + i)) != 0) ++signers;
            if (membership.idOfKey(bytes32(uint256(i))) != 0) ++keys;
            uint256 id = membership.idOfAccount(accounts[i]);
            if (id == 0) continue;
            Membership.Seat memory s = membership.seat(id);
            assertEq(s.account, accounts[i]);
            assertEq(membership.idOfSigner(s.signer), id); // and each seat's leads to it.
            assertEq(membership.idOfKey(s.x25519), s.x25519 == 0 ? 0 : id);
            assertTrue(s.roles & 2 == 0 || s.x25519 != 0);
            if (s.roles & 1 == 1) ++members;
            if (s.x25519 != 0) --keys;
            ++seats;
        }
        assertEq(signers, seats);
        assertEq(keys, 0);
        assertEq(members, membership.memberCount());
    }
}
