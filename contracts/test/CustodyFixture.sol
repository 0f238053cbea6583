// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {BreakerModifier, IPool, IPriceFeed} from "../src/BreakerModifier.sol";
import {DevToken} from "../src/devnet/DevToken.sol";
import {LocalPriceFeed} from "../src/devnet/LocalPriceFeed.sol";
import {StandInConsortium} from "./StandInConsortium.sol";
import {StandInRoles, StandInSafe} from "./StandInSafe.sol";
import {StandInUniswap} from "./StandInUniswap.sol";

/// @notice A Safe with tokens behind a breaker, on stand-ins; WETH at 2,700 in USDC.
abstract contract CustodyFixture is Test {
    uint256 internal constant START_S = 1_750_000_000;
    uint256 internal constant ANSWER = 2_700e8;
    uint256 internal constant FEE_PIPS = 500;
    uint256 internal constant BPS = 10_000;
    bytes32 internal constant MODEL = keccak256("model");

    uint64 internal constant ACTION_MAX = 100_000;
    uint64 internal constant EPOCH_MAX = 250_000;
    uint64 internal constant SLIPPAGE_BPS = 100;
    uint64 internal constant DEVIATION_BPS = 300;

    address internal agent = makeAddr("agent");
    address internal guardian = makeAddr("guardian");
    address internal outsider = makeAddr("outsider");

    DevToken internal weth;
    DevToken internal usdc;
    LocalPriceFeed internal feed;
    StandInConsortium internal consortium;
    StandInSafe internal safe;
    StandInRoles internal roles;
    StandInUniswap internal uniswap;
    BreakerModifier internal breaker;

    function baseIsToken0() internal view virtual returns (bool) {
        return true;
    }

    function setUp() public virtual {
        vm.warp(START_S);
        weth = new DevToken("Stand-in WETH", "WETH", 18);
        usdc = new DevToken("Stand-in USDC", "USDC", 6);
        feed = new LocalPriceFeed(8, "WETH / USDC", int256(ANSWER));
        consortium = new StandInConsortium();
        consortium.set(12, 30 days);
        consortium.set(13, 1 days);
        consortium.set(15, 500);
        consortium.set(16, 300_000);
        consortium.set(17, 5_000_000);
        consortium.set(22, 1 hours);
        consortium.set(23, 500);
        consortium.setLive(1, MODEL, uint64(START_S));
        safe = new StandInSafe();
        roles = new StandInRoles(safe);
        (address token0, address token1) =
            baseIsToken0() ? (address(weth), address(usdc)) : (address(usdc), address(weth));
        uniswap = new StandInUniswap(token0, token1, FEE_PIPS, sqrtPrice(BPS));
        breaker = new BreakerModifier(setUpOf(), limitsOf());
        roles.setModule(address(breaker));
        safe.enable(address(roles));

        weth.mint(address(uniswap), 1e30);
        usdc.mint(address(uniswap), 1e30);
        weth.mint(address(safe), 200e18);
        usdc.mint(address(safe), 500_000e6);
        bytes memory approval =
            abi.encodeCall(IERC20.approve, (address(uniswap), type(uint256).max));
        safe.exec(address(weth), approval);
        safe.exec(address(usdc), approval);
    }

    function setUpOf() internal view returns (BreakerModifier.SetUp memory) {
        return BreakerModifier.SetUp({
            safe: address(safe),
            roles: roles,
            parameters: consortium,
            models: consortium,
            pool: IPool(address(uniswap)),
            feed: IPriceFeed(address(feed)),
            quote: address(usdc),
            agent: agent,
            guardian: guardian
        });
    }

    function limitsOf() internal pure returns (BreakerModifier.Limits memory) {
        return BreakerModifier.Limits({
            actionNotionalMax: ACTION_MAX,
            epochNotionalMax: EPOCH_MAX,
            slippageMaxBps: SLIPPAGE_BPS,
            oracleDeviationMaxBps: DEVIATION_BPS,
            oracleAgeMaxS: 1 hours,
            modelAgeMaxS: 7 days,
            mirrorAgeMaxS: 1 hours
        });
    }

    /* PRICES */

    /// @dev The pool's square root of price at `bps` ten-thousandths of the feed's answer.
    function sqrtPrice(uint256 bps) internal view returns (uint160) {
        // quote per base in smallest units: answer * 10^6 / 10^(8 + 18)
        uint256 answer = ANSWER * bps / BPS;
        uint256 squared = baseIsToken0()
            ? Math.mulDiv(answer * 1e6, 1 << 192, 1e26)
            : Math.mulDiv(1e26, 1 << 192, answer * 1e6);
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint160(Math.sqrt(squared));
    }

    /// @dev What the Safe has, positions included, at the feed's price, in USDC's smallest unit.
    function worth() internal view returns (uint256 value) {
        (uint256 amount0, uint256 amount1) = (0, 0);
        for (uint256 i = 0; i < uniswap.count(); ++i) {
            (uint256 more0, uint256 more1) = uniswap.amounts(i, sqrtPrice(BPS), Math.Rounding.Floor);
            (amount0, amount1) = (amount0 + more0, amount1 + more1);
        }
        (uint256 base, uint256 quote) = baseIsToken0() ? (amount0, amount1) : (amount1, amount0);
        value =
            quote + usdc.balanceOf(address(safe)) + wethValue(base + weth.balanceOf(address(safe)));
    }

    function wethValue(uint256 amount) internal pure returns (uint256) {
        return Math.mulDiv(amount, ANSWER * 1e6, 1e26);
    }

    /* CALLS AND ORDERS */

    function call(address to, bytes memory data)
        internal
        pure
        returns (BreakerModifier.Call memory)
    {
        return BreakerModifier.Call(to, data);
    }

    /// @dev Sells WETH; the pool is at `bps` of the feed afterwards, and gave that price.
    function sell(uint256 amount, uint256 bps) internal view returns (BreakerModifier.Call memory) {
        return call(
            address(uniswap),
            abi.encodeCall(StandInUniswap.swap, (baseIsToken0(), amount, sqrtPrice(bps)))
        );
    }

    function buy(uint256 amount, uint256 bps) internal view returns (BreakerModifier.Call memory) {
        return call(
            address(uniswap),
            abi.encodeCall(StandInUniswap.swap, (!baseIsToken0(), amount, sqrtPrice(bps)))
        );
    }

    /// @dev Provides between two prices, given in ten-thousandths of the feed's.
    function provide(uint256 low, uint256 high, uint256 base, uint256 quote)
        internal
        view
        returns (BreakerModifier.Call memory)
    {
        (uint160 a, uint160 b) = (sqrtPrice(low), sqrtPrice(high));
        return call(
            address(uniswap),
            baseIsToken0()
                ? abi.encodeCall(StandInUniswap.mint, (a, b, base, quote))
                : abi.encodeCall(StandInUniswap.mint, (b, a, quote, base))
        );
    }

    function withdraw(uint256 id) internal view returns (BreakerModifier.Call memory) {
        return call(address(uniswap), abi.encodeCall(StandInUniswap.withdraw, (id)));
    }

    function order(BreakerModifier.Call memory one)
        internal
        view
        returns (BreakerModifier.Order memory o)
    {
        o.nonce = breaker.nextNonce();
        o.model = MODEL;
        o.deadline = uint64(block.timestamp + 60);
        o.calls = new BreakerModifier.Call[](1);
        o.calls[0] = one;
    }

    function order(BreakerModifier.Call memory one, BreakerModifier.Call memory two)
        internal
        view
        returns (BreakerModifier.Order memory o)
    {
        o = order(one);
        o.calls = new BreakerModifier.Call[](2);
        (o.calls[0], o.calls[1]) = (one, two);
    }

    function execute(BreakerModifier.Order memory o) internal {
        vm.prank(agent);
        breaker.execute(o);
    }

    function execute(BreakerModifier.Call memory one) internal {
        execute(order(one));
    }

    /// @dev Expects that the agent's order is refused in exactly this way, and changes nothing.
    function refused(BreakerModifier.Order memory o, bytes memory reason) internal {
        uint256 before = worth();
        uint64 nonce = breaker.nextNonce();
        vm.expectRevert(reason);
        vm.prank(agent);
        breaker.execute(o);
        assertEq(worth(), before);
        assertEq(breaker.nextNonce(), nonce);
    }

    function refused(BreakerModifier.Call memory one, bytes memory reason) internal {
        refused(order(one), reason);
    }

    function owner(bytes memory data) internal {
        safe.exec(address(breaker), data);
    }
}
