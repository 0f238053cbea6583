// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Vm} from "forge-std/Vm.sol";

import {BreakerModifier} from "../src/BreakerModifier.sol";
import {CustodyFixture} from "./CustodyFixture.sol";

/// @notice A thief with the agent's key and the pool's price in its hand, and everybody else at
/// work. The feed stays where it is, so that whatever the Safe is worth less was taken, not lost to
/// the market. A plain record is kept of what must hold.
contract Thieves is CustodyFixture {
    uint256 internal constant DAY_S = 1 days;

    /// @dev Value that rounding may lose in a call: the last units of amounts and of positions.
    uint256 public constant CRUMBS = 50;

    uint256 public sentOut;
    uint256 public calls;
    uint256 public passed;
    uint256 public withdrawn;
    uint256 public worthAtFirst;
    uint256 public worstBps; // the largest loss that was ever seen, of what was sent out

    uint256[] public epochs;
    mapping(uint256 epoch => uint256 value) public sentOutIn;
    mapping(uint256 epoch => uint256 value) public capIn;

    constructor() {
        CustodyFixture.setUp();
        worthAtFirst = worth();
        seeCap();
    }

    function setUp() public override {}

    function kept() external view returns (uint256) {
        return worth() + withdrawn;
    }

    function days_() external view returns (uint256) {
        return epochs.length;
    }

    function nextNonce() external view returns (uint64) {
        return breaker.nextNonce();
    }

    /* THE THIEF */

    /// @notice Moves the pool anywhere, mostly to where the guard still lets it be.
    function move(uint256 seed) public {
        uint256 bps = seed % 4 == 0 ? bound(seed, 1, 40_000) : bound(seed, 9_690, 10_310);
        uniswap.setPrice(sqrtPrice(bps));
    }

    /// @notice One order of up to four calls, each at a price of the thief's choice.
    function strike(uint256[4] calldata seeds, uint8 count, uint8 wrong) external {
        BreakerModifier.Order memory o = order(some(seeds[0]));
        o.calls = new BreakerModifier.Call[](count % 4 + 1);
        for (uint256 i = 0; i < o.calls.length; ++i) {
            o.calls[i] = some(seeds[i]);
        }
        if (wrong == 0) o.nonce += 1;
        if (wrong == 1) o.model = 0;
        attempt(o);
    }

    /// @notice The plainest of attacks: all that an order may send out, at the worst price.
    function drain(bool sells, bool high, uint256 seed) external {
        uint256 bps = sells || !high ? BPS - DEVIATION_BPS : BPS + DEVIATION_BPS;
        if (seed % 3 == 0) bps = sells ? BPS - SLIPPAGE_BPS + 6 : BPS + SLIPPAGE_BPS - 6;
        if (seed % 7 == 0) bps = sells ? 2_000 : 30_000; // as if there were no guard
        uniswap.setPrice(sqrtPrice(bps));
        uint256 most = uint256(ACTION_MAX) * 1e6;
        if (seed % 2 == 0) {
            attempt(order(sells ? sell(most * 1e12 / 2_700, bps) : buy(most, bps)));
        } else {
            // A position that is bought there and stands wholly on the wrong side at the feed's
            // price.
            attempt(order(provide(Math.min(bps, BPS), Math.max(bps, BPS), 37e18, most)));
        }
    }

    function empty(uint256 id) external {
        if (uniswap.count() > 0) attempt(order(withdraw(id % uniswap.count())));
    }

    function some(uint256 seed) internal view returns (BreakerModifier.Call memory) {
        uint256 amount = bound(seed >> 16, 0, 110_000e6);
        uint256 bps = seed % 7 == 0 ? bound(seed >> 8, 1, 40_000) : bound(seed >> 8, 9_680, 10_320);
        if (seed % 5 == 0) return sell(amount * 1e12 / 2_700, bps);
        if (seed % 5 == 1) return buy(amount, bps);
        if (seed % 5 == 2 && uniswap.count() > 0) return withdraw((seed >> 32) % uniswap.count());
        uint256 width = bound(seed >> 40, 1, 3_000);
        return provide(bps, bps + width, amount * 1e12 / 2_700, (seed >> 60) % 110_000e6);
    }

    function attempt(BreakerModifier.Order memory o) internal {
        bool stopped = breaker.halted();
        (, bool paused,) = consortium.parameters();
        uint64 next = breaker.nextNonce();
        uint256 epoch = block.timestamp / DAY_S;
        vm.recordLogs();
        vm.prank(agent);
        try breaker.execute(o) {
            assertFalse(stopped || paused, "passed while halted or paused");
            assertEq(o.nonce, next, "passed out of turn");
            assertEq(breaker.nextNonce(), next + 1);
            uint256 value = told(vm.getRecordedLogs());
            if (sentOutIn[epoch] == 0 && value > 0) epochs.push(epoch);
            sentOutIn[epoch] += value;
            (sentOut, passed, calls) = (sentOut + value, passed + 1, calls + o.calls.length);
        } catch {
            assertEq(breaker.nextNonce(), next);
        }
    }

    function told(Vm.Log[] memory logs) internal pure returns (uint256) {
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] == BreakerModifier.OrderExecuted.selector) {
                return abi.decode(logs[i].data, (uint256));
            }
        }
        revert("an order that is not told of");
    }

    /* EVERYBODY ELSE */

    /// @notice Time passes; around midnight by preference.
    function wait(uint32 seed) external {
        uint256 midnight = (block.timestamp / DAY_S + 1) * DAY_S;
        vm.warp(
            seed % 3 == 0 ? midnight - 1 : seed % 3 == 1 ? midnight : block.timestamp + seed % DAY_S
        );
        feed.push(int256(ANSWER));
        consortium.setLive(1, MODEL, uint64(block.timestamp));
        seeCap();
    }

    function stop(uint8 seed) external {
        if (seed % 8 == 0) {
            vm.prank(guardian);
            breaker.halt();
        }
        if (seed % 8 == 1) consortium.setPaused(true);
    }

    function resume() external {
        owner(abi.encodeCall(BreakerModifier.resume, ()));
        consortium.setPaused(false);
    }

    function setCaps(uint32 order_, uint32 epoch, bool governed) external {
        if (governed) {
            consortium.set(16, order_ % 200_000);
            consortium.set(17, epoch % 500_000);
        } else {
            BreakerModifier.Limits memory l = limitsOf();
            (l.actionNotionalMax, l.epochNotionalMax) = (order_ % 200_000, epoch % 500_000);
            owner(abi.encodeCall(BreakerModifier.setLimits, (l)));
        }
        seeCap();
    }

    /// @notice The owner takes something out, whatever the breaker's state, and puts as much in.
    function ownerMoves(uint256 amount) external {
        amount = bound(amount, 0, usdc.balanceOf(address(safe)));
        safe.exec(address(usdc), abi.encodeCall(IERC20.transfer, (address(0xbeef), amount)));
        weth.mint(address(safe), amount / 5_400e6 * 1e18);
        withdrawn += amount;
        worthAtFirst += wethValue(amount / 5_400e6 * 1e18);
    }

    function seeCap() internal {
        (BreakerModifier.Limits memory limit,,) = breaker.inForce();
        uint256 epoch = block.timestamp / DAY_S;
        capIn[epoch] = Math.max(capIn[epoch], uint256(limit.epochNotionalMax) * 1e6);
    }
}

contract ThievesQuoteFirst is Thieves {
    function baseIsToken0() internal pure override returns (bool) {
        return false;
    }
}

contract BreakerModifierInvariantTest is CustodyFixture {
    Thieves internal thieves;

    function setUp() public virtual override {
        thieves = new Thieves();
        aim();
    }

    function aim() internal {
        bytes4[] memory acts = new bytes4[](10);
        acts[0] = Thieves.move.selector;
        acts[1] = Thieves.strike.selector;
        acts[2] = Thieves.strike.selector;
        acts[3] = Thieves.drain.selector;
        acts[4] = Thieves.drain.selector;
        acts[5] = Thieves.empty.selector;
        acts[6] = Thieves.wait.selector;
        acts[7] = Thieves.resume.selector;
        acts[8] = seldom();
        acts[9] = Thieves.ownerMoves.selector;
        targetSelector(FuzzSelector(address(thieves), acts));
        targetContract(address(thieves));
    }

    function seldom() internal pure virtual returns (bytes4) {
        return Thieves.stop.selector;
    }

    /// @dev One campaign for all: forge would run one for each function.
    function invariant_breaker() public view {
        noEpochPassesItsCap();
        lossIsAShareOfWhatWasSentOut();
        assertEq(thieves.nextNonce(), thieves.passed());
    }

    function noEpochPassesItsCap() internal view {
        for (uint256 i = 0; i < thieves.days_(); ++i) {
            uint256 epoch = thieves.epochs(i);
            assertLe(thieves.sentOutIn(epoch), thieves.capIn(epoch));
        }
    }

    function lossIsAShareOfWhatWasSentOut() internal view {
        uint256 bound_ =
            thieves.sentOut() * DEVIATION_BPS / BPS + thieves.calls() * thieves.CRUMBS();
        assertGe(thieves.kept() + bound_, thieves.worthAtFirst());
    }
}

contract BreakerModifierInvariantQuoteFirstTest is BreakerModifierInvariantTest {
    function setUp() public override {
        thieves = new ThievesQuoteFirst();
        aim();
    }

    function seldom() internal pure override returns (bytes4) {
        return Thieves.setCaps.selector;
    }
}
