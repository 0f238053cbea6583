// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {BreakerModifier, IPool} from "../src/BreakerModifier.sol";
import {DevToken} from "../src/devnet/DevToken.sol";
import {LocalPriceFeed} from "../src/devnet/LocalPriceFeed.sol";
import {CustodyFixture} from "./CustodyFixture.sol";
import {StandInSafe} from "./StandInSafe.sol";
import {StandInTrader, StandInUniswap} from "./StandInUniswap.sol";

contract BreakerModifierTest is CustodyFixture {
    bytes4 internal constant OVER_ORDER = BreakerModifier.BreakerModifier_OverOrder.selector;
    bytes4 internal constant OVER_EPOCH = BreakerModifier.BreakerModifier_OverEpoch.selector;
    bytes4 internal constant BAD_SWAP = BreakerModifier.BreakerModifier_BadSwap.selector;

    /* CONSTRUCTOR */

    function test_constructor() public view {
        assertEq(breaker.safe(), address(safe));
        assertEq(address(breaker.roles()), address(roles));
        assertEq(address(breaker.parameters()), address(consortium));
        assertEq(address(breaker.models()), address(consortium));
        assertEq(address(breaker.pool()), address(uniswap));
        assertEq(address(breaker.feed()), address(feed));
        assertEq(breaker.base(), address(weth));
        assertEq(breaker.quote(), address(usdc));
        assertEq(breaker.agent(), agent);
        assertEq(breaker.guardian(), guardian);
        assertEq(breaker.nextNonce(), 0);
        assertFalse(breaker.halted());
        assertEq(abi.encode(breaker.ownLimits()), abi.encode(limitsOf()));
    }

    function test_constructor_noContract() public {
        for (uint256 i = 0; i < 6; ++i) {
            bytes memory given = abi.encode(setUpOf());
            assembly ("memory-safe") {
                mstore(add(add(given, 32), mul(i, 32)), 0xdead)
            }
            BreakerModifier.SetUp memory s = abi.decode(given, (BreakerModifier.SetUp));
            vm.expectRevert(
                abi.encodeWithSelector(
                    BreakerModifier.BreakerModifier_NoContract.selector, address(0xdead)
                )
            );
            new BreakerModifier(s, limitsOf());
        }
    }

    function test_constructor_notInPool() public {
        BreakerModifier.SetUp memory s = setUpOf();
        s.quote = address(feed);
        vm.expectRevert(
            abi.encodeWithSelector(BreakerModifier.BreakerModifier_NotInPool.selector, feed)
        );
        new BreakerModifier(s, limitsOf());
    }

    function test_constructor_tooManyDecimals() public {
        DevToken odd = new DevToken("Odd", "ODD", 31);
        BreakerModifier.SetUp memory s = setUpOf();
        s.pool = IPool(address(new StandInUniswap(address(odd), address(usdc), 500, 1)));
        vm.expectRevert(
            abi.encodeWithSelector(BreakerModifier.BreakerModifier_TooManyDecimals.selector, 39, 38)
        );
        new BreakerModifier(s, limitsOf());
        odd = new DevToken("Odd", "ODD", 39);
        s.quote = address(odd);
        s.pool = IPool(address(new StandInUniswap(address(odd), address(usdc), 500, 1)));
        vm.expectRevert(
            abi.encodeWithSelector(BreakerModifier.BreakerModifier_TooManyDecimals.selector, 39, 38)
        );
        new BreakerModifier(s, limitsOf());
        odd = new DevToken("Odd", "ODD", 30); // and the feed's 8 are as many as there may be
        s.quote = address(usdc);
        s.pool = IPool(address(new StandInUniswap(address(odd), address(usdc), 500, 1)));
        assertEq(new BreakerModifier(s, limitsOf()).base(), address(odd));
    }

    function test_constructor_zeroAgent() public {
        BreakerModifier.SetUp memory s = setUpOf();
        s.agent = address(0);
        vm.expectRevert(BreakerModifier.BreakerModifier_ZeroAgent.selector);
        new BreakerModifier(s, limitsOf());
    }

    function test_constructor_badLimits() public {
        BreakerModifier.Limits memory l = limitsOf();
        l.slippageMaxBps = 10_001;
        vm.expectRevert(BreakerModifier.BreakerModifier_BadLimits.selector);
        new BreakerModifier(setUpOf(), l);
        l = limitsOf();
        l.oracleDeviationMaxBps = 10_001;
        vm.expectRevert(BreakerModifier.BreakerModifier_BadLimits.selector);
        new BreakerModifier(setUpOf(), l);
    }

    /* EXECUTE: WHO, WHEN, WHICH */

    function test_execute_onlyAgent() public {
        BreakerModifier.Order memory o = order(sell(1e18, BPS));
        address[4] memory others = [outsider, guardian, address(safe), address(this)];
        for (uint256 i = 0; i < others.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(BreakerModifier.BreakerModifier_NotAgent.selector, others[i])
            );
            vm.prank(others[i]);
            breaker.execute(o);
        }
    }

    function test_execute_halted() public {
        execute(provide(9_000, 11_000, 1e18, 2_700e6));
        vm.prank(guardian);
        breaker.halt();
        bytes memory reason =
            abi.encodeWithSelector(BreakerModifier.BreakerModifier_Halted.selector);
        refused(sell(1e18, BPS), reason);
        refused(withdraw(0), reason);
    }

    function test_execute_paused() public {
        execute(provide(9_000, 11_000, 1e18, 2_700e6));
        consortium.setPaused(true);
        bytes memory reason =
            abi.encodeWithSelector(BreakerModifier.BreakerModifier_Paused.selector);
        refused(sell(1e18, BPS), reason);
        refused(withdraw(0), reason);
        consortium.setPaused(false);
        execute(withdraw(0));
    }

    function test_execute_once() public {
        BreakerModifier.Order memory o = order(sell(1e18, BPS));
        execute(o);
        refused(
            o, abi.encodeWithSelector(BreakerModifier.BreakerModifier_WrongNonce.selector, 0, 1)
        );
    }

    function testFuzz_execute_wrongNonce(uint64 nonce) public {
        vm.assume(nonce != 0);
        BreakerModifier.Order memory o = order(sell(1e18, BPS));
        o.nonce = nonce;
        refused(
            o, abi.encodeWithSelector(BreakerModifier.BreakerModifier_WrongNonce.selector, nonce, 0)
        );
    }

    function test_execute_late() public {
        BreakerModifier.Order memory o = order(sell(1e18, BPS));
        vm.warp(o.deadline + 1);
        refused(
            o,
            abi.encodeWithSelector(
                BreakerModifier.BreakerModifier_Late.selector, o.deadline, o.deadline + 1
            )
        );
        vm.warp(o.deadline);
        execute(o);
    }

    function test_execute_callCount() public {
        BreakerModifier.Order memory o = order(sell(1e16, BPS));
        for (uint256 count = 0; count < 11; ++count) {
            o.calls = new BreakerModifier.Call[](count);
            for (uint256 i = 0; i < count; ++i) {
                o.calls[i] = sell(1e16, BPS);
            }
            o.nonce = breaker.nextNonce();
            if (count > 0 && count <= 8) {
                execute(o);
            } else {
                refused(
                    o,
                    abi.encodeWithSelector(
                        BreakerModifier.BreakerModifier_BadCallCount.selector, count, 8
                    )
                );
            }
        }
    }

    function test_execute_failed() public {
        refused(
            order(sell(1e18, BPS), sell(1e18, BPS + 1)),
            abi.encodeWithSelector(
                BreakerModifier.BreakerModifier_CallFailed.selector,
                1,
                abi.encodeWithSelector(StandInUniswap.StandInUniswap_WrongWay.selector)
            )
        );
        assertEq(breaker.spentToday(), 0);
    }

    /* EXECUTE: NOTHING SENT OUT */

    function testFuzz_execute_withdraw(uint256 bps, uint8 wrong) public {
        bps = bound(bps, 1, 1_000_000);
        execute(provide(9_900, 10_100, 15e18, 45_000e6));
        uint256 had = worth();
        uint256 spent = breaker.spentToday();
        vm.warp(block.timestamp + 2 hours); // the feed's answer is old by now
        if (wrong & 1 == 1) consortium.setLive(0, 0, 0);
        if (wrong & 2 == 2) consortium.setAsOf(1);
        if (wrong & 4 == 4) feed.push(0);
        uniswap.setPrice(sqrtPrice(bps));
        BreakerModifier.Order memory o = order(withdraw(0));
        o.model = 0;
        execute(o);
        assertEq(breaker.spentToday(), spent);
        assertGe(worth() + 10, had); // but for the last units, withdrawing costs nothing
    }

    /* EXECUTE: A SALE */

    function test_execute_saleUnderAnyModel() public {
        consortium.setLive(0, 0, 0);
        consortium.setAsOf(1);
        uniswap.setPrice(sqrtPrice(15_000));
        execute(sell(1e18, 12_000));
        assertEq(breaker.spentToday(), 2_700e6);
        assertGt(usdc.balanceOf(address(safe)), 500_000e6 + 3_200e6);
    }

    function testFuzz_execute_saleAtAPrice(uint256 bps, uint256 amount) public {
        (bps, amount) = (bound(bps, 1, BPS), bound(amount, 1e15, 30e18));
        uint256 out = amount * 2_700e6;
        out = out / 1e18 + (out % 1e18 == 0 ? 0 : 1);
        BreakerModifier.Order memory o = order(sell(amount, bps));
        uint256 before = usdc.balanceOf(address(safe));
        vm.prank(agent);
        try breaker.execute(o) {
            uint256 broughtIn = usdc.balanceOf(address(safe)) - before;
            assertGe(broughtIn * BPS, out * (BPS - SLIPPAGE_BPS));
            assertEq(breaker.spentToday(), out);
            assertGe(bps, BPS - SLIPPAGE_BPS);
        } catch (bytes memory reason) {
            assertEq(bytes4(reason), BreakerModifier.BreakerModifier_BadSwap.selector);
            assertLe(bps, BPS - SLIPPAGE_BPS + 6); // the fee is a loss, too
        }
    }

    /// @dev Exactly the share that may be lost, and one unit more; one unit for one unit.
    function test_execute_exactSale() public {
        StandInTrader trader = newTrader();
        execute(trade(trader, weth, 1e18, usdc, 2_673e6));
        refused(
            trade(trader, weth, 1e18, usdc, 2_673e6 - 1),
            abi.encodeWithSelector(BAD_SWAP, 2_700e6, 2_673e6 - 1, SLIPPAGE_BPS)
        );
        consortium.setLive(0, 0, 0); // one unit that comes in makes it a sale
        execute(trade(trader, weth, 1, usdc, 1));
        refused(
            trade(trader, weth, 1e18, usdc, 1),
            abi.encodeWithSelector(BAD_SWAP, 2_700e6, 1, SLIPPAGE_BPS)
        );
        refused(
            trade(trader, usdc, 2_700e6, weth, 1),
            abi.encodeWithSelector(BAD_SWAP, 2_700e6, 0, SLIPPAGE_BPS)
        );
    }

    /// @dev The least and the largest answer that count as prices.
    function test_execute_extremeAnswers() public {
        feed.push(1);
        execute(sell(1e18, BPS));
        feed.push(int256(uint256(type(uint128).max)));
        refusedAs(order(sell(1e18, BPS)), BAD_SWAP);
    }

    function test_execute_answer() public {
        vm.warp(START_S + 1 hours);
        execute(sell(1e18, BPS));
        vm.warp(START_S + 1 hours + 1);
        bytes4 old = BreakerModifier.BreakerModifier_AnswerTooOld.selector;
        refused(sell(1e18, BPS), abi.encodeWithSelector(old, START_S, 1 hours));

        int256[4] memory answers = [int256(0), -1, type(int256).min, int256(1 << 128)];
        for (uint256 i = 0; i < answers.length; ++i) {
            feed.push(answers[i]);
            refused(
                sell(1e18, BPS),
                abi.encodeWithSelector(
                    BreakerModifier.BreakerModifier_BadAnswer.selector, answers[i]
                )
            );
        }
        feed.push(int256(ANSWER));
        uint256 pushed = block.timestamp;
        vm.warp(pushed - 1);
        refused(sell(1e18, BPS), abi.encodeWithSelector(old, pushed, 1 hours));
    }

    /* EXECUTE: MORE RISK */

    function adding(uint256 which) internal view returns (BreakerModifier.Call memory) {
        if (which % 3 == 0) return buy(2_700e6, BPS);
        if (which % 3 == 1) return provide(9_000, 11_000, 1e18, 2_700e6);
        return provide(10_100, 10_200, 1e18, 0); // base alone: not a sale
    }

    function test_execute_model() public {
        bytes4 notLive = BreakerModifier.BreakerModifier_NotLive.selector;
        for (uint256 i = 0; i < 3; ++i) {
            BreakerModifier.Order memory o = order(adding(i));
            o.model = keccak256("another model");
            refused(o, abi.encodeWithSelector(notLive, o.model, MODEL));
            o.model = 0;
            refused(o, abi.encodeWithSelector(notLive, bytes32(0), MODEL));
            consortium.setLive(0, 0, 0);
            refused(o, abi.encodeWithSelector(notLive, bytes32(0), bytes32(0)));
            consortium.setLive(1, MODEL, uint64(block.timestamp - 7 days - 1));
            o.model = MODEL;
            refused(
                o,
                abi.encodeWithSelector(
                    BreakerModifier.BreakerModifier_ModelTooOld.selector,
                    block.timestamp - 7 days - 1,
                    7 days
                )
            );
            consortium.setLive(1, MODEL, uint64(block.timestamp - 7 days));
            execute(o);
        }
    }

    function test_execute_mirror() public {
        for (uint256 i = 0; i < 3; ++i) {
            uint64 asOf = uint64(block.timestamp - 1 hours - 1);
            consortium.setAsOf(asOf);
            refused(
                adding(i),
                abi.encodeWithSelector(
                    BreakerModifier.BreakerModifier_MirrorTooOld.selector, asOf, 1 hours
                )
            );
            consortium.setAsOf(asOf + 1);
            execute(adding(i));
        }
    }

    function test_execute_priceTooFar() public {
        uint256[3] memory far = [uint256(9_690), 10_310, 1];
        for (uint256 i = 0; i < far.length; ++i) {
            uniswap.setPrice(sqrtPrice(far[i]));
            refusedAs(
                order(provide(5_000, 20_000, 1e18, 2_700e6)),
                BreakerModifier.BreakerModifier_PriceTooFar.selector
            );
        }
        uniswap.setPrice(0); // no pool has been opened
        refused(
            provide(5_000, 20_000, 1e18, 2_700e6),
            abi.encodeWithSelector(
                BreakerModifier.BreakerModifier_PriceTooFar.selector, 0, ANSWER, DEVIATION_BPS
            )
        );
        // A purchase at a good price is one from a pool that stands wrong; afterwards it is too far.
        uniswap.setPrice(sqrtPrice(9_690));
        refusedAs(order(buy(2_700e6, 9_800)), BreakerModifier.BreakerModifier_PriceTooFar.selector);
        // Nor may the price move within an order.
        uniswap.setPrice(sqrtPrice(9_710));
        execute(order(buy(2_700e6, 9_710), buy(2_700e6, 9_800)));
        BreakerModifier.Call memory dust = buy(1, 10_400);
        refusedAs(order(dust), BreakerModifier.BreakerModifier_PriceTooFar.selector);
    }

    /// @dev Just as far as it may stand: one of the two square roots gives that very answer.
    function test_execute_nearEdge() public {
        for (uint160 i = 0; i < 2; ++i) {
            uniswap.setPrice(sqrtPrice(BPS + DEVIATION_BPS) + i);
            execute(provide(5_000, 20_000, 1e18, 2_700e6));
        }
    }

    function testFuzz_execute_near(uint256 bps) public {
        bps = bound(bps, 9_000, 11_000);
        uniswap.setPrice(sqrtPrice(bps));
        BreakerModifier.Order memory o = order(provide(5_000, 20_000, 1e18, 2_700e6));
        bool near = bps >= BPS - DEVIATION_BPS && bps <= BPS + DEVIATION_BPS;
        vm.prank(agent);
        try breaker.execute(o) {
            assertTrue(near);
        } catch (bytes memory reason) {
            // On the very edge the square root's rounding decides.
            assertTrue(!near || bps == BPS - DEVIATION_BPS || bps == BPS + DEVIATION_BPS);
            assertEq(bytes4(reason), BreakerModifier.BreakerModifier_PriceTooFar.selector);
        }
    }

    function test_execute_badPurchase() public {
        refusedAs(order(buy(2_700e6, 10_101)), BreakerModifier.BreakerModifier_BadSwap.selector);
        execute(buy(2_700e6, 10_090));
    }

    /* EXECUTE: HOW MUCH */

    function test_execute_overOrder() public {
        usdc.mint(address(safe), 1e12);
        execute(buy(100_000e6, BPS));
        refused(
            buy(100_000e6 + 1, BPS), abi.encodeWithSelector(OVER_ORDER, 100_000e6 + 1, 100_000e6)
        );
        refused(
            order(buy(50_000e6, BPS), buy(50_001e6, BPS)),
            abi.encodeWithSelector(OVER_ORDER, 100_001e6, 100_000e6)
        );
    }

    function test_execute_overEpoch() public {
        execute(buy(100_000e6, BPS));
        execute(buy(100_000e6, BPS));
        assertEq(breaker.spentToday(), 200_000e6);
        refused(
            buy(50_000e6 + 1, BPS),
            abi.encodeWithSelector(OVER_EPOCH, 200_000e6, 50_000e6 + 1, 250_000e6)
        );
        execute(buy(50_000e6, BPS));
        refused(buy(1, BPS), abi.encodeWithSelector(OVER_EPOCH, 250_000e6, 1, 250_000e6));

        // The last second of a day, and the first of the next.
        vm.warp((START_S / 1 days + 1) * 1 days - 1);
        feed.push(int256(ANSWER));
        refused(buy(1, BPS), abi.encodeWithSelector(OVER_EPOCH, 250_000e6, 1, 250_000e6));
        vm.warp(block.timestamp + 1);
        assertEq(breaker.spentToday(), 0);
        vm.expectEmit(address(breaker));
        emit BreakerModifier.OrderExecuted(3, MODEL, START_S / 1 days + 1, 100_000e6);
        execute(buy(100_000e6, BPS));
        assertEq(breaker.spentToday(), 100_000e6);
    }

    /// @dev There and back within one order, or over a position: nothing is set off.
    function test_execute_gross() public {
        execute(order(buy(50_000e6, BPS), sell(18e18, BPS)));
        assertEq(breaker.spentToday(), 50_000e6 + 18 * 2_700e6);
        execute(provide(9_000, 11_000, 18e18, 50_000e6));
        uint256 spent = breaker.spentToday();
        uint256 was = weth.balanceOf(address(safe));
        execute(order(withdraw(0), sell(10e18, BPS)));
        assertGt(weth.balanceOf(address(safe)), was); // more came out of the position than was sold
        assertEq(breaker.spentToday(), spent + 27_000e6);
    }

    function test_execute_rounding() public {
        execute(sell(1e15 + 1, BPS)); // one wei above 2.70 USDC
        assertEq(breaker.spentToday(), 2_700_001);
    }

    function test_execute_emits() public {
        vm.expectEmit(address(breaker));
        emit BreakerModifier.OrderExecuted(0, MODEL, START_S / 1 days, 2_700e6);
        execute(sell(1e18, BPS));
    }

    function testFuzz_inForce(uint64[7] memory own, uint64[7] memory governed) public {
        uint256[7] memory ids = [uint256(16), 17, 15, 23, 22, 12, 13];
        for (uint256 i = 0; i < 7; ++i) {
            consortium.set(ids[i], governed[i]);
        }
        (own[2], own[3]) = (own[2] % 10_001, own[3] % 10_001);
        owner(
            abi.encodeCall(
                BreakerModifier.setLimits, (abi.decode(abi.encode(own), (BreakerModifier.Limits)))
            )
        );
        (BreakerModifier.Limits memory limit, bool paused, uint64 asOf) = breaker.inForce();
        uint64[7] memory inForce = abi.decode(abi.encode(limit), (uint64[7]));
        for (uint256 i = 0; i < 7; ++i) {
            assertEq(inForce[i], own[i] < governed[i] ? own[i] : governed[i]);
        }
        assertFalse(paused);
        assertEq(asOf, block.timestamp);
    }

    function test_execute_governedIsTighter() public {
        consortium.set(16, 1_000);
        refused(buy(1_001e6, BPS), abi.encodeWithSelector(OVER_ORDER, 1_001e6, 1_000e6));
        consortium.set(16, 300_000);
        consortium.set(17, 1_000);
        refused(buy(1_001e6, BPS), abi.encodeWithSelector(OVER_EPOCH, 0, 1_001e6, 1_000e6));
        consortium.set(17, 5_000_000);
        execute(buy(1_001e6, BPS));
    }

    function test_execute_again() public {
        // Let even Roles and the Safe allow everything, and make the agent the Safe itself.
        BreakerModifier.SetUp memory s = setUpOf();
        s.agent = address(safe);
        breaker = new BreakerModifier(s, limitsOf());
        roles.setModule(address(breaker));
        BreakerModifier.Order memory inner = order(sell(1e18, BPS));
        BreakerModifier.Order memory o =
            order(call(address(breaker), abi.encodeCall(BreakerModifier.execute, (inner))));
        expectFailedCall(
            abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
        );
        safe.exec(address(breaker), abi.encodeCall(BreakerModifier.execute, (o)));

        BreakerModifier.Limits memory loose = limitsOf();
        loose.epochNotionalMax = type(uint64).max;
        bytes[4] memory setters = [
            abi.encodeCall(BreakerModifier.setLimits, (loose)),
            abi.encodeCall(BreakerModifier.setAgent, (outsider)),
            abi.encodeCall(BreakerModifier.setGuardian, (outsider)),
            abi.encodeCall(BreakerModifier.resume, ())
        ];
        for (uint256 i = 0; i < setters.length; ++i) {
            o = order(call(address(breaker), setters[i]));
            expectFailedCall(
                abi.encodeWithSelector(BreakerModifier.BreakerModifier_NotSafe.selector, safe)
            );
            safe.exec(address(breaker), abi.encodeCall(BreakerModifier.execute, (o)));
        }
    }

    function expectFailedCall(bytes memory reason) internal {
        vm.expectRevert(
            abi.encodeWithSelector(BreakerModifier.BreakerModifier_CallFailed.selector, 0, reason)
        );
    }

    /// @dev For reasons with many figures: the error alone.
    function newTrader() internal returns (StandInTrader trader) {
        trader = new StandInTrader();
        weth.mint(address(trader), 1e24);
        usdc.mint(address(trader), 1e24);
        bytes memory approval = abi.encodeCall(IERC20.approve, (address(trader), type(uint256).max));
        safe.exec(address(weth), approval);
        safe.exec(address(usdc), approval);
    }

    function trade(StandInTrader trader, DevToken give, uint256 out, DevToken take, uint256 in_)
        internal
        pure
        returns (BreakerModifier.Call memory)
    {
        return call(address(trader), abi.encodeCall(StandInTrader.trade, (give, out, take, in_)));
    }

    function refusedAs(BreakerModifier.Order memory o, bytes4 reason) internal {
        vm.expectPartialRevert(reason);
        vm.prank(agent);
        breaker.execute(o);
    }

    /* A STOLEN KEY AT ITS WORST */

    /// @dev Positions bought at the edge of the guard, on what is the wrong side once the price is
    /// put back: nearly the whole of the bound, and not more.
    function test_theft_withGuards() public {
        uint256 had = worth();
        for (uint256 i = 0; i < 5; ++i) {
            bool dear = i % 2 == 0;
            uint256 edge = dear ? BPS + DEVIATION_BPS - 1 : BPS - DEVIATION_BPS + 1;
            uniswap.setPrice(sqrtPrice(edge));
            execute(
                dear ? provide(edge - 5, edge, 0, 50_000e6) : provide(edge, edge + 5, 18.5e18, 0)
            );
        }
        uniswap.setPrice(sqrtPrice(BPS));
        uint256 most = breaker.spentToday() * DEVIATION_BPS / BPS;
        assertGt(breaker.spentToday(), 249_000e6);
        assertLe(had - worth(), most);
        assertGt(had - worth(), most * 95 / 100);
        for (uint256 i = 0; i < 5; ++i) {
            execute(withdraw(i)); // and emptying them at that price changes nothing
        }
        assertApproxEqAbs(had - worth(), most, most * 5 / 100);
    }

    /// @dev Without any guard of price (a feed that says whatever the thief likes would be the
    /// same), the cap alone still holds.
    function test_theft_withoutGuards() public {
        BreakerModifier.Limits memory l = limitsOf();
        (l.slippageMaxBps, l.oracleDeviationMaxBps) = (10_000, 10_000);
        owner(abi.encodeCall(BreakerModifier.setLimits, (l)));
        consortium.set(15, 10_000);
        consortium.set(23, 10_000);
        uint256 had = worth();
        execute(provide(10_001, 11_000, 37e18, 0)); // what stands in a position is not a way round
        uint256 spent = breaker.spentToday();
        execute(withdraw(0));
        execute(sell(37e18, 1));
        refusedAs(order(sell(37e18, 1)), OVER_EPOCH);
        execute(sell(18e18, 1));
        refusedAs(order(sell(1e18, 1)), OVER_EPOCH);
        assertLe(had - worth(), uint256(EPOCH_MAX) * 1e6 - spent);
        assertGt(had - worth(), 148_000e6);
    }

    /* GUARDIAN */

    function test_halt() public {
        vm.expectRevert(
            abi.encodeWithSelector(BreakerModifier.BreakerModifier_NotGuardian.selector, agent)
        );
        vm.prank(agent);
        breaker.halt();

        vm.expectEmit(address(breaker));
        emit BreakerModifier.Halted(guardian);
        vm.prank(guardian);
        breaker.halt();
        assertTrue(breaker.halted());

        // The owner's own transactions do not pass the breaker.
        uint256 all = usdc.balanceOf(address(safe));
        safe.exec(address(usdc), abi.encodeCall(IERC20.transfer, (outsider, all)));
        assertEq(usdc.balanceOf(outsider), all);

        vm.expectEmit(address(breaker));
        emit BreakerModifier.Resumed();
        owner(abi.encodeCall(BreakerModifier.resume, ()));
        execute(sell(1e18, BPS));
        owner(abi.encodeCall(BreakerModifier.halt, ()));
        assertTrue(breaker.halted());
    }

    /* OWNER */

    function test_owner_only() public {
        bytes[4] memory setters = [
            abi.encodeCall(BreakerModifier.setLimits, (limitsOf())),
            abi.encodeCall(BreakerModifier.setAgent, (outsider)),
            abi.encodeCall(BreakerModifier.setGuardian, (outsider)),
            abi.encodeCall(BreakerModifier.resume, ())
        ];
        address[3] memory others = [agent, guardian, address(this)];
        for (uint256 i = 0; i < setters.length; ++i) {
            for (uint256 j = 0; j < others.length; ++j) {
                vm.prank(others[j]);
                (bool success, bytes memory reason) = address(breaker).call(setters[i]);
                assertFalse(success);
                assertEq(
                    reason,
                    abi.encodeWithSelector(
                        BreakerModifier.BreakerModifier_NotSafe.selector, others[j]
                    )
                );
            }
        }
    }

    function test_setAgent() public {
        vm.expectEmit(address(breaker));
        emit BreakerModifier.AgentChanged(agent, outsider);
        owner(abi.encodeCall(BreakerModifier.setAgent, (outsider)));
        refused(
            sell(1e18, BPS),
            abi.encodeWithSelector(BreakerModifier.BreakerModifier_NotAgent.selector, agent)
        );
        BreakerModifier.Order memory o = order(sell(1e18, BPS));
        vm.prank(outsider);
        breaker.execute(o);
        vm.expectRevert(BreakerModifier.BreakerModifier_ZeroAgent.selector);
        owner(abi.encodeCall(BreakerModifier.setAgent, (address(0))));
    }

    function test_setGuardian() public {
        vm.expectEmit(address(breaker));
        emit BreakerModifier.GuardianChanged(guardian, address(0));
        owner(abi.encodeCall(BreakerModifier.setGuardian, (address(0))));
        vm.expectRevert(
            abi.encodeWithSelector(BreakerModifier.BreakerModifier_NotGuardian.selector, guardian)
        );
        vm.prank(guardian);
        breaker.halt();
    }

    function test_setLimits() public {
        BreakerModifier.Limits memory l = limitsOf();
        l.actionNotionalMax = 1;
        vm.expectEmit(address(breaker));
        emit BreakerModifier.LimitsChanged(l);
        owner(abi.encodeCall(BreakerModifier.setLimits, (l)));
        assertEq(breaker.ownLimits().actionNotionalMax, 1);
        l.slippageMaxBps = 10_001;
        vm.expectRevert(BreakerModifier.BreakerModifier_BadLimits.selector);
        owner(abi.encodeCall(BreakerModifier.setLimits, (l)));
    }
}

/// @notice All of it again where the quote is token0, and prices are the other way up.
contract BreakerModifierQuoteFirstTest is BreakerModifierTest {
    function baseIsToken0() internal pure override returns (bool) {
        return false;
    }
}
