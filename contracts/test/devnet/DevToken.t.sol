// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";
import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {DevToken} from "../../src/devnet/DevToken.sol";

contract DevTokenTest is Test {
    function testFuzz_constructor(uint8 decimals) public {
        DevToken token = new DevToken("Dollar stand-in", "USDC", decimals);
        assertEq(token.name(), "Dollar stand-in");
        assertEq(token.symbol(), "USDC");
        assertEq(token.decimals(), decimals);
        assertEq(token.owner(), address(this));
        assertEq(token.totalSupply(), 0);
    }

    function testFuzz_mint(address to, uint256 amount) public {
        vm.assume(to != address(0) && to != address(this));
        DevToken token = new DevToken("Dollar stand-in", "USDC", 6);
        token.mint(to, amount);
        assertEq(token.balanceOf(to), amount);

        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, to));
        vm.prank(to);
        token.mint(to, 1);
    }
}
