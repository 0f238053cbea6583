// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {Membership} from "../src/Membership.sol";
import {Fixture} from "./Fixture.sol";

contract MembershipTest is Fixture {
    address internal account = makeAddr("account");
    address internal signer = makeAddr("signer");
    bytes32 internal constant KEY = keccak256("x25519");

    function admit(address account_, address signer_, bytes32 key, uint8 roles)
        internal
        returns (uint256)
    {
        vm.prank(governance);
        return membership.admit(account_, signer_, key, roles);
    }

    /* constructor */

    function test_constructor() public {
        assertEq(membership.owner(), governance);
        assertEq(membership.clock(), START_S);
        assertEq(membership.CLOCK_MODE(), "mode=timestamp");
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        new Membership(address(0));
    }

    /* admit */

    function test_admit_onlyOwner() public {
        vm.expectRevert(
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, outsider)
        );
        vm.prank(outsider);
        membership.admit(account, signer, KEY, 1);
    }

    function test_admit_zeroAddress() public {
        vm.expectRevert(Membership.Membership_ZeroAddress.selector);
        admit(address(0), signer, KEY, 1);
        vm.expectRevert(Membership.Membership_ZeroAddress.selector);
        admit(account, address(0), KEY, 1);
    }

    function test_admit_badRolesBounds() public {
        testFuzz_admit_badRoles(0);
        testFuzz_admit_badRoles(8); // one above all three
    }

    function testFuzz_admit_badRoles(uint8 roles) public {
        vm.assume(roles == 0 || roles > 7);
        vm.expectRevert(abi.encodeWithSelector(Membership.Membership_BadRoles.selector, roles));
        admit(account, signer, KEY, roles);
    }

    function test_admit_helperWithoutKey() public {
        vm.expectRevert(abi.encodeWithSelector(Membership.Membership_MissingKey.selector, 3));
        admit(account, signer, 0, 3);
    }

    function test_admit_taken() public {
        uint256 id = memberIds[0];
        address known = vm.addr(memberKeys[0]);
        vm.expectRevert(
            abi.encodeWithSelector(
                Membership.Membership_AccountTaken.selector, accountOf(known), id
            )
        );
        admit(accountOf(known), signer, KEY, 1);
        vm.expectRevert(
            abi.encodeWithSelector(Membership.Membership_SignerTaken.selector, known, id)
        );
        admit(account, known, KEY, 1);
        vm.expectRevert(
            abi.encodeWithSelector(Membership.Membership_KeyTaken.selector, x25519Of(known), id)
        );
        admit(account, signer, x25519Of(known), 2);
    }

    function test_admit_seatsWithoutKey() public {
        // No key is no key: any number of seats that are no helpers may have none.
        uint256 a = admit(account, signer, 0, 1);
        uint256 b = admit(outsider, outsider, 0, 4);
        assertEq(membership.seat(a).x25519, 0);
        assertEq(membership.seat(b).x25519, 0);
        assertEq(membership.idOfKey(0), 0);
    }

    function test_admit_tooManyMembers() public {
        uint256 limit = membership.MAX_MEMBERS();
        for (uint160 i = 0; i < limit - MEMBERS; ++i) {
            address one = address(0x10000 + i);
            admit(one, one, 0, 1);
        }
        assertEq(membership.memberCount(), limit);
        vm.expectRevert(
            abi.encodeWithSelector(Membership.Membership_TooManyMembers.selector, limit)
        );
        admit(account, signer, KEY, 1);
        admit(account, signer, KEY, 2); // members are counted, not seats
    }

    function testFuzz_admit(uint8 roles, bytes32 key) public {
        roles = uint8(bound(roles, 1, 7));
        vm.assume(key != 0 && membership.idOfKey(key) == 0);
        uint256 expected = membership.lastSeatId() + 1;
        vm.expectEmit(address(membership));
        emit Membership.SeatAdmitted(expected, account, signer, key, roles);
        uint256 id = admit(account, signer, key, roles);

        assertEq(id, expected);
        Membership.Seat memory s = membership.seat(id);
        assertEq(s.account, account);
        assertEq(s.signer, signer);
        assertEq(s.x25519, key);
        assertEq(s.roles, roles);
        assertEq(membership.idOfAccount(account), id);
        assertEq(membership.idOfSigner(signer), id);
        assertEq(membership.idOfKey(key), id);
        for (uint8 asked = 0; asked < 8; ++asked) {
            assertEq(membership.hasRole(id, asked), asked != 0 && asked & roles == asked);
        }
        uint256 votes = roles & 1;
        assertEq(membership.balanceOf(account), votes);
        assertEq(membership.getVotes(account), votes);
        assertEq(membership.memberCount(), MEMBERS + votes);
    }

    function test_admit_keepsDelegate() public {
        vm.prank(account);
        membership.delegate(outsider);
        admit(account, signer, KEY, 1);
        assertEq(membership.getVotes(account), 0);
        assertEq(membership.getVotes(outsider), 1);
    }

    /* update */

    function test_update_onlyOwner() public {
        vm.expectRevert(
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, outsider)
        );
        vm.prank(outsider);
        membership.update(1, signer, KEY, 1);
    }

    function test_update_unknown() public {
        vm.expectRevert(abi.encodeWithSelector(Membership.Membership_UnknownSeat.selector, 99));
        vm.prank(governance);
        membership.update(99, signer, KEY, 1);
    }

    function test_update_taken() public {
        address other = vm.addr(memberKeys[1]);
        vm.startPrank(governance);
        vm.expectRevert(
            abi.encodeWithSelector(Membership.Membership_SignerTaken.selector, other, 2)
        );
        membership.update(1, other, KEY, 1);
        vm.expectRevert(
            abi.encodeWithSelector(Membership.Membership_KeyTaken.selector, x25519Of(other), 2)
        );
        membership.update(1, signer, x25519Of(other), 1);
    }

    function test_update_keys() public {
        address old = vm.addr(memberKeys[0]);
        vm.expectEmit(address(membership));
        emit Membership.SeatUpdated(1, signer, KEY, 3);
        vm.prank(governance);
        membership.update(1, signer, KEY, 3);

        assertEq(membership.idOfSigner(old), 0);
        assertEq(membership.idOfKey(x25519Of(old)), 0);
        assertEq(membership.idOfSigner(signer), 1);
        assertEq(membership.idOfKey(KEY), 1);
        assertEq(membership.seat(1).roles, 3);
        assertEq(membership.getVotes(accountOf(old)), 1);
        assertEq(membership.memberCount(), MEMBERS);
    }

    function test_update_givesAndTakesTheVote() public {
        address old = vm.addr(memberKeys[0]);
        vm.startPrank(governance);
        membership.update(1, old, x25519Of(old), 2);
        assertEq(membership.getVotes(accountOf(old)), 0);
        assertEq(membership.memberCount(), MEMBERS - 1);
        membership.update(1, old, x25519Of(old), 1);
        assertEq(membership.getVotes(accountOf(old)), 1);
        assertEq(membership.memberCount(), MEMBERS);
    }

    /* expel */

    function test_expel_onlyOwner() public {
        vm.expectRevert(
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, outsider)
        );
        vm.prank(outsider);
        membership.expel(1);
    }

    function test_expel() public {
        address gone = vm.addr(memberKeys[0]);
        address holder = accountOf(gone);
        uint256 before = block.timestamp;
        vm.warp(before + 10);
        vm.expectEmit(address(membership));
        emit Membership.SeatExpelled(1, holder, gone);
        vm.startPrank(governance);
        membership.expel(1);

        assertEq(membership.idOfAccount(holder), 0);
        assertEq(membership.idOfSigner(gone), 0);
        assertEq(membership.idOfKey(x25519Of(gone)), 0);
        assertFalse(membership.hasRole(1, 1));
        assertEq(membership.getVotes(holder), 0);
        assertEq(membership.getPastVotes(holder, before), 1); // an open ballot keeps its voters
        assertEq(membership.memberCount(), MEMBERS - 1);
        vm.expectRevert(abi.encodeWithSelector(Membership.Membership_UnknownSeat.selector, 1));
        membership.seat(1);
        vm.expectRevert(abi.encodeWithSelector(Membership.Membership_UnknownSeat.selector, 1));
        membership.expel(1);

        uint256 id = membership.admit(holder, gone, x25519Of(gone), 1);
        assertEq(id, membership.lastSeatId());
        assertGt(id, coordinatorId);
        assertEq(membership.getVotes(holder), 1);
    }

    function test_expel_withoutVote() public {
        vm.prank(governance);
        membership.expel(helperIds[0]);
        assertEq(membership.memberCount(), MEMBERS);
    }

    /* no transfer */

    function test_transfer_refused() public {
        address holder = accountOf(vm.addr(memberKeys[0]));
        address[2] memory callers = [holder, governance];
        for (uint256 i = 0; i < callers.length; ++i) {
            vm.startPrank(callers[i]);
            vm.expectRevert(Membership.Membership_NotTransferable.selector);
            membership.transferFrom(holder, outsider, 1);
            vm.expectRevert(Membership.Membership_NotTransferable.selector);
            membership.safeTransferFrom(holder, outsider, 1);
            vm.expectRevert(Membership.Membership_NotTransferable.selector);
            membership.transferFrom(holder, holder, 1);
            vm.expectRevert(Membership.Membership_NotTransferable.selector);
            membership.approve(outsider, 1);
            vm.expectRevert(Membership.Membership_NotTransferable.selector);
            membership.setApprovalForAll(outsider, true);
            vm.stopPrank();
        }
    }

    function test_delegate() public {
        address holder = accountOf(vm.addr(memberKeys[0]));
        vm.startPrank(holder);
        membership.delegate(outsider);
        membership.delegate(outsider);
        assertEq(membership.getVotes(outsider), 1);
        assertEq(membership.getVotes(holder), 0);
        vm.warp(block.timestamp + 1);
        assertEq(membership.getPastTotalSupply(block.timestamp - 1), MEMBERS);
    }

    function test_renounceOwnership_refused() public {
        vm.expectRevert(Membership.Membership_OwnerRequired.selector);
        vm.prank(governance);
        membership.renounceOwnership();
        vm.expectRevert(
            abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, outsider)
        );
        vm.prank(outsider);
        membership.renounceOwnership();
    }

    function test_ownership_takesTwoSteps() public {
        vm.prank(governance);
        membership.transferOwnership(outsider);
        assertEq(membership.owner(), governance);
        vm.prank(outsider);
        membership.acceptOwnership();
        assertEq(membership.owner(), outsider);
    }
}
