// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {LocalPriceFeed} from "../../src/devnet/LocalPriceFeed.sol";

contract LocalPriceFeedTest is Test {
    LocalPriceFeed internal feed;

    function setUp() public {
        vm.warp(1_750_000_000);
        feed = new LocalPriceFeed(8, "ETH / USD", 2_700e8);
    }

    function test_constructor() public view {
        assertEq(feed.operator(), address(this));
        assertEq(feed.decimals(), 8);
        assertEq(feed.description(), "ETH / USD");
        assertEq(feed.version(), 4);
        assertEq(feed.latestRound(), 1);
        assertEq(feed.latestAnswer(), 2_700e8);
        assertEq(feed.latestTimestamp(), 1_750_000_000);
    }

    function test_push_onlyOperator() public {
        address outsider = makeAddr("outsider");
        vm.expectRevert(
            abi.encodeWithSelector(LocalPriceFeed.LocalPriceFeed_NotOperator.selector, outsider)
        );
        vm.prank(outsider);
        feed.push(1);
    }

    function testFuzz_push(int256 answer, uint32 afterS) public {
        uint256 atS = block.timestamp + afterS;
        vm.warp(atS);
        vm.expectEmit(address(feed));
        emit LocalPriceFeed.AnswerUpdated(answer, 2, atS);
        feed.push(answer);

        (uint80 id, int256 given, uint256 startedAt, uint256 updatedAt, uint80 answeredIn) =
            feed.latestRoundData();
        assertEq(id, 2);
        assertEq(given, answer);
        assertEq(startedAt, atS);
        assertEq(updatedAt, atS);
        assertEq(answeredIn, 2);
        (, given,, updatedAt,) = feed.getRoundData(1);
        assertEq(given, 2_700e8);
        assertEq(updatedAt, 1_750_000_000);
    }

    function testFuzz_getRoundData_noData(uint80 roundId) public {
        vm.assume(roundId != 1);
        vm.expectRevert(
            abi.encodeWithSelector(LocalPriceFeed.LocalPriceFeed_NoData.selector, roundId)
        );
        feed.getRoundData(roundId);
    }
}
