// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @notice STAND-IN for a Uniswap v3 pool with its router and position manager, in the hands of an
/// attacker with a bottomless purse: anybody sets the price, and whoever swaps trades all of it at
/// the far end of the move, which the caller names. A real pool is never that bad: it fills along
/// the way. Positions follow the white paper's amounts for liquidity. Fees are taken and not paid
/// to positions.
contract StandInUniswap {
    struct Position {
        uint160 lower; // square roots of price, as the pool has them
        uint160 upper;
        uint128 liquidity;
    }

    uint256 internal constant MILLION = 1_000_000;
    uint256 internal constant Q96 = 1 << 96;

    address public immutable token0;
    address public immutable token1;
    uint256 public immutable feePips;

    uint160 internal price;
    Position[] internal positions;

    error StandInUniswap_WrongWay();
    error StandInUniswap_NothingToMint();

    constructor(address token0_, address token1_, uint256 feePips_, uint160 price_) {
        (token0, token1, feePips, price) = (token0_, token1_, feePips_, price_);
    }

    function slot0() external view returns (uint160, int24, uint16, uint16, uint16, uint8, bool) {
        return (price, 0, 0, 0, 0, 0, true);
    }

    function setPrice(uint160 price_) external {
        price = price_;
    }

    function count() external view returns (uint256) {
        return positions.length;
    }

    /// @param to Where the price is after the swap: down when token0 is sold, else up.
    function swap(bool sell0, uint256 amountIn, uint160 to) external returns (uint256 out) {
        if (sell0 ? to > price : to < price) revert StandInUniswap_WrongWay();
        price = to;
        uint256 taken = amountIn * (MILLION - feePips) / MILLION;
        out = sell0
            ? Math.mulDiv(Math.mulDiv(taken, to, Q96), to, Q96)
            : Math.mulDiv(Math.mulDiv(taken, Q96, to), Q96, to);
        require(IERC20(sell0 ? token0 : token1).transferFrom(msg.sender, address(this), amountIn));
        require(IERC20(sell0 ? token1 : token0).transfer(msg.sender, out));
    }

    /// @notice Opens a position of the caller with as much of both amounts as fits the price.
    function mint(uint160 lower, uint160 upper, uint256 most0, uint256 most1) external {
        uint160 here = _within(price, lower, upper);
        uint256 liquidity = type(uint128).max;
        if (here < upper) {
            uint256 x = Math.mulDiv(Math.mulDiv(most0, here, Q96), upper, upper - here);
            liquidity = Math.min(liquidity, x);
        }
        if (here > lower) liquidity = Math.min(liquidity, Math.mulDiv(most1, Q96, here - lower));
        if (liquidity == 0) revert StandInUniswap_NothingToMint();
        // forge-lint: disable-next-line(unsafe-typecast)
        positions.push(Position(lower, upper, uint128(liquidity)));
        (uint256 amount0, uint256 amount1) =
            amounts(positions.length - 1, price, Math.Rounding.Ceil);
        require(IERC20(token0).transferFrom(msg.sender, address(this), Math.min(amount0, most0)));
        require(IERC20(token1).transferFrom(msg.sender, address(this), Math.min(amount1, most1)));
    }

    /// @notice Empties a position to the caller, at whatever the price is now.
    function withdraw(uint256 id) external {
        (uint256 amount0, uint256 amount1) = amounts(id, price, Math.Rounding.Floor);
        positions[id].liquidity = 0;
        require(IERC20(token0).transfer(msg.sender, amount0));
        require(IERC20(token1).transfer(msg.sender, amount1));
    }

    /// @notice What is in a position at a price.
    function amounts(uint256 id, uint160 atPrice, Math.Rounding rounding)
        public
        view
        returns (uint256 amount0, uint256 amount1)
    {
        Position memory p = positions[id];
        uint160 here = _within(atPrice, p.lower, p.upper);
        amount0 = Math.mulDiv(
            Math.mulDiv(p.liquidity, uint256(p.upper - here) << 96, p.upper, rounding),
            1,
            here,
            rounding
        );
        amount1 = Math.mulDiv(p.liquidity, here - p.lower, Q96, rounding);
    }

    function _within(uint160 here, uint160 lower, uint160 upper) private pure returns (uint160) {
        return here < lower ? lower : here > upper ? upper : here;
    }
}

/// @notice STAND-IN for a venue that gives exactly what a test wants.
contract StandInTrader {
    function trade(IERC20 give, uint256 out, IERC20 take, uint256 in_) external {
        give.transferFrom(msg.sender, address(this), out);
        take.transfer(msg.sender, in_);
    }
}
