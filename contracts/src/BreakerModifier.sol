// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {ILiveModel} from "./ILiveModel.sol";
import {IParameters} from "./IParameters.sol";
import {ParameterRules} from "./ParameterRules.sol";

/// @dev Of Zodiac's Roles, what is used here: a call on behalf of the Safe, if the caller's role
/// allows it. Reverts where the role does not; false where the call itself failed.
interface IRoles {
    function execTransactionFromModuleReturnData(
        address to,
        uint256 value,
        bytes calldata data,
        uint8 operation
    ) external returns (bool success, bytes memory returned);
}

/// @dev Of a Uniswap v3 pool. The price is sqrt(token1 / token0) in Q64.96; the other values that
/// slot0 gives are not read.
interface IPool {
    function token0() external view returns (address);
    function token1() external view returns (address);
    function slot0() external view returns (uint160 sqrtPriceX96);
}

/// @dev Of a price feed (Chainlink's AggregatorV3). The answer is quote per base.
interface IPriceFeed {
    function decimals() external view returns (uint8);
    function latestRoundData()
        external
        view
        returns (
            uint80 roundId,
            int256 answer,
            uint256 startedAt,
            uint256 updatedAt,
            uint80 answeredInRound
        );
}

/// @title BreakerModifier
/// @notice The last gate before a Safe's money: an agent's key acts for the Safe through here and
/// no other way. The chain of powers is
///
///     agent's key -> BreakerModifier (when, how much, at what price)
///                 -> Zodiac Roles    (which contracts, functions, recipients)
///                 -> Safe            (holds tokens and positions)
///
/// Roles is the Safe's only module, and this contract is Roles' only module. One breaker serves one
/// Safe, one agent, one pool. It holds nothing and can be paid nothing.
///
/// Powers:
/// - The agent sends orders. It cannot move anything out of the Safe but through the calls that
///   Roles allows, within the limits below.
/// - The owner is the Safe: its signers, acting together, set agent, guardian and limits, and end a
///   halt. They need none of this to use or withdraw what the Safe has: their own transactions do
///   not pass here, whatever is halted or paused.
/// - The guardian halts, and nothing else: it can only stop the agent.
/// - Governance (through `parameters`) can pause every breaker that reads it, and tighten each
///   limit. It cannot loosen one: in force is the tighter of its value and the owner's.
/// - Nobody upgrades or destroys this contract.
///
/// What a stolen agent's key is worth. Assume a thief with the key, any amount of money, and any
/// power over the pool's price within a block, who can act in one transaction (an account may carry
/// code, EIP-7702). Let c = epochNotionalMax, s = slippageMaxBps, d = oracleDeviationMaxBps, all as
/// in force. *Value* is at the feed's price; a position is worth what it would give if the pool
/// stood at that price.
/// 1. What calls send out of the Safe is at most c in an epoch, valued gross and for each call by
///    itself: what comes back, in the same order or later, is never set off. So whatever else
///    fails, an epoch's orders cannot cost more than c. Positions cannot be emptied past this: what
///    comes out of one goes to the Safe and has to be sent out again, which counts.
/// 2. Of what is sent out, the larger of s and d is the most that is lost. A swap must bring in at
///    least (1 - s) of the value it sends out, whatever minimum the order names. A mint sends out
///    and brings nothing in; the pool must stand within d of the feed right before and right after
///    it, so the position has been bought at prices within d, in whatever range, and is worth at
///    least (1 - d) of what went in. (A swap that brings in nothing is judged as a mint; it cannot
///    have moved the price past d on either side, so no more than crumbs went in.) So an epoch's
///    orders cost at most max(s, d) of c.
/// 3. Withdrawing costs nothing at any price. The value of a Uniswap v3 position is a concave
///    function of the price, and what it gives at a price is a tangent of it: withdrawn at a price
///    that somebody has moved, it gives at least its value (who moved the price has paid for that).
///    So calls that send nothing out need neither price nor fresh feed, and do not count.
/// 4. An epoch is a day of UTC, so around midnight two epochs can be used up one after the other.
///    In any time t there are at most t / 1 day + 2 epochs, rounded down.
/// 5. Not bounded: what the market does to positions that the thief opens or leaves alone; fees not
///    earned; the key's own gas money; what a wrong feed costs (within d of the pool, and within c,
///    it is believed), and a quote token that loses its own price. The model's hash in an order is
///    the key's own claim: it stops an honest agent with the wrong model, not a thief.
///
/// Assumed of the set-up (checked by those who set up and by `fedtrade`, not here): Roles allows
/// only swaps, mints, decreases, collects and burns in this pool, to the Safe as the recipient, no
/// value, no delegate call; the Safe has approved no one else; base and quote are plain ERC-20
/// tokens, without callbacks, fees on transfer or rebasing.
contract BreakerModifier is ReentrancyGuardTransient {
    /* TYPES */

    /// @notice One call of the Safe. There is never native value, and never a delegate call.
    struct Call {
        address to;
        bytes data;
    }

    /// @param nonce The one that is next: an order passes once, in its turn, or never.
    /// @param model The sha256 of the model under which the agent decided this.
    /// @param deadline Seconds since 1970, itself included.
    struct Order {
        uint64 nonce;
        bytes32 model;
        uint64 deadline;
        Call[] calls;
    }

    /// @notice Each is a maximum. Named, and in the units, as ParameterRules has them; notionals
    /// are whole units of the quote.
    struct Limits {
        uint64 actionNotionalMax; // of one order
        uint64 epochNotionalMax; // of all orders of a day
        uint64 slippageMaxBps;
        uint64 oracleDeviationMaxBps;
        uint64 oracleAgeMaxS;
        uint64 modelAgeMaxS;
        uint64 mirrorAgeMaxS;
    }

    /// @param parameters Where the governed parameters are read: store or mirror, and
    /// @param models where the live model is.
    /// @param quote Which of the pool's tokens is the unit of account; the other one is the base.
    struct SetUp {
        address safe;
        IRoles roles;
        IParameters parameters;
        ILiveModel models;
        IPool pool;
        IPriceFeed feed;
        address quote;
        address agent;
        address guardian;
    }

    /// @dev What is looked at before and after each call.
    struct Sight {
        uint256 base;
        uint256 quote;
        uint160 sqrtPriceX96;
    }

    /* CONSTANTS */

    uint256 public constant MAX_CALLS = 8;
    uint256 public constant EPOCH_S = 1 days;
    uint256 private constant BPS = 10_000;
    uint8 private constant CALL = 0;

    /// @dev Together the decimals of feed and base stay below, so that no product overflows.
    uint256 private constant MAX_DECIMALS = 38;

    /* IMMUTABLES */

    /// @notice Owner of this contract, and the account whose money this is about.
    address public immutable safe;
    IRoles public immutable roles;
    IParameters public immutable parameters;
    ILiveModel public immutable models;
    IPool public immutable pool;
    IPriceFeed public immutable feed;
    address public immutable base;
    address public immutable quote;

    /// @dev value in the quote's smallest unit = amount of base * answer * _quoteUnit / _scale.
    uint256 private immutable _quoteUnit;
    uint256 private immutable _scale;
    bool private immutable _baseIsToken0;

    /* STORAGE */

    /// @notice Whose orders are carried out.
    address public agent;

    /// @notice The nonce that the next order must have.
    uint64 public nextNonce;

    /// @notice Whether nothing passes.
    bool public halted;

    /// @notice May halt. Zero if there is none.
    address public guardian;

    Limits private _limits;

    uint64 private _epoch;
    uint192 private _spent;

    /* EVENTS */

    /// @param sentOut Value of what the order's calls sent out, in the quote's smallest unit.
    event OrderExecuted(
        uint64 indexed nonce, bytes32 indexed model, uint256 indexed epoch, uint256 sentOut
    );
    event Halted(address indexed by);
    event Resumed();
    event AgentChanged(address indexed before, address indexed agent);
    event GuardianChanged(address indexed before, address indexed guardian);
    event LimitsChanged(Limits limits);

    /* ERRORS */

    error BreakerModifier_NoContract(address account);
    error BreakerModifier_NotInPool(address quote);
    error BreakerModifier_TooManyDecimals(uint256 decimals, uint256 limit);
    error BreakerModifier_BadLimits();
    error BreakerModifier_ZeroAgent();
    error BreakerModifier_NotSafe(address caller);
    error BreakerModifier_NotGuardian(address caller);
    error BreakerModifier_NotAgent(address caller);
    error BreakerModifier_Halted();
    error BreakerModifier_Paused();
    error BreakerModifier_WrongNonce(uint64 given, uint64 next);
    error BreakerModifier_Late(uint64 deadline, uint256 timestamp);
    error BreakerModifier_BadCallCount(uint256 calls, uint256 limit);
    error BreakerModifier_CallFailed(uint256 index, bytes reason);
    error BreakerModifier_NotLive(bytes32 model, bytes32 live);
    error BreakerModifier_ModelTooOld(uint64 liveFrom, uint64 limitS);
    error BreakerModifier_MirrorTooOld(uint64 asOf, uint64 limitS);
    error BreakerModifier_BadAnswer(int256 answer);
    error BreakerModifier_AnswerTooOld(uint256 updatedAt, uint64 limitS);
    error BreakerModifier_PriceTooFar(uint256 poolAnswer, uint256 answer, uint64 limitBps);
    error BreakerModifier_BadSwap(uint256 sentOut, uint256 broughtIn, uint64 limitBps);
    error BreakerModifier_OverOrder(uint256 sentOut, uint256 limit);
    error BreakerModifier_OverEpoch(uint256 spent, uint256 sentOut, uint256 limit);

    /* CONSTRUCTOR */

    constructor(SetUp memory s, Limits memory limits_) {
        address[6] memory needed = [
            s.safe,
            address(s.roles),
            address(s.parameters),
            address(s.models),
            address(s.pool),
            address(s.feed)
        ];
        for (uint256 i = 0; i < needed.length; ++i) {
            if (needed[i].code.length == 0) revert BreakerModifier_NoContract(needed[i]);
        }
        safe = s.safe;
        roles = s.roles;
        parameters = s.parameters;
        models = s.models;
        pool = s.pool;
        feed = s.feed;
        quote = s.quote;
        (address token0, address token1) = (s.pool.token0(), s.pool.token1());
        if (s.quote != token0 && s.quote != token1) revert BreakerModifier_NotInPool(s.quote);
        _baseIsToken0 = s.quote == token1;
        base = s.quote == token1 ? token0 : token1;

        uint256 quoteDecimals = IERC20Metadata(quote).decimals();
        uint256 decimals = uint256(s.feed.decimals()) + IERC20Metadata(base).decimals();
        if (Math.max(decimals, quoteDecimals) > MAX_DECIMALS) {
            revert BreakerModifier_TooManyDecimals(Math.max(decimals, quoteDecimals), MAX_DECIMALS);
        }
        _quoteUnit = 10 ** quoteDecimals;
        _scale = 10 ** decimals;

        _setAgent(s.agent);
        _setGuardian(s.guardian);
        _setLimits(limits_);
    }

    /* AGENT */

    /// @notice Carries an order out, whole or not at all.
    /// @dev Calls are judged by what they did to the Safe's balances, not by what they say:
    /// - nothing sent out (decrease, collect, burn): passes under any model and at any price;
    /// - base out, quote in (a sale, which lowers risk): under any model, at a fair price;
    /// - anything else adds risk: the model must be live, and the pool's price near the feed's.
    /// An order that consumes its nonce and fails would only help a thief to disturb: reverting
    /// undoes the nonce, too.
    function execute(Order calldata order) external nonReentrant {
        if (msg.sender != agent) revert BreakerModifier_NotAgent(msg.sender);
        if (halted) revert BreakerModifier_Halted();
        (Limits memory limit, bool paused, uint64 asOf) = inForce();
        if (paused) revert BreakerModifier_Paused();
        if (order.nonce != nextNonce) revert BreakerModifier_WrongNonce(order.nonce, nextNonce);
        if (block.timestamp > order.deadline) {
            revert BreakerModifier_Late(order.deadline, block.timestamp);
        }
        if (order.calls.length == 0 || order.calls.length > MAX_CALLS) {
            revert BreakerModifier_BadCallCount(order.calls.length, MAX_CALLS);
        }
        ++nextNonce;
        (uint256 sentOut, bool adds) = _run(order.calls, limit);
        if (adds) _requireLive(order.model, limit, asOf);
        _spend(sentOut, limit);
        emit OrderExecuted(order.nonce, order.model, block.timestamp / EPOCH_S, sentOut);
    }

    /* GUARDIAN */

    /// @notice Stops all orders until the owner resumes. By the guardian or the owner.
    function halt() external {
        if (msg.sender != guardian && msg.sender != safe) {
            revert BreakerModifier_NotGuardian(msg.sender);
        }
        halted = true;
        emit Halted(msg.sender);
    }

    /* OWNER */

    /// @notice Ends a halt.
    function resume() external onlySafe {
        halted = false;
        emit Resumed();
    }

    /// @notice Names another key: from now on the old one is worth nothing.
    function setAgent(address agent_) external onlySafe {
        _setAgent(agent_);
    }

    /// @notice Names who may halt; zero for nobody but the owner.
    function setGuardian(address guardian_) external onlySafe {
        _setGuardian(guardian_);
    }

    /// @notice Sets the owner's own limits.
    function setLimits(Limits calldata limits_) external onlySafe {
        _setLimits(limits_);
    }

    /* VIEWS */

    /// @notice The owner's own limits.
    function ownLimits() external view returns (Limits memory) {
        return _limits;
    }

    /// @notice What is enforced now: of each limit the tighter of the owner's and the consortium's;
    /// whether all is paused; and up to when the consortium's word is known here.
    function inForce() public view returns (Limits memory limit, bool paused, uint64 asOf) {
        uint64[28] memory governed;
        (governed, paused, asOf) = parameters.parameters();
        limit = _limits;
        limit.actionNotionalMax =
            _least(limit.actionNotionalMax, governed[ParameterRules.ACTION_NOTIONAL_MAX]);
        limit.epochNotionalMax =
            _least(limit.epochNotionalMax, governed[ParameterRules.EPOCH_NOTIONAL_MAX]);
        limit.slippageMaxBps =
            _least(limit.slippageMaxBps, governed[ParameterRules.SLIPPAGE_MAX_BPS]);
        limit.oracleDeviationMaxBps =
            _least(limit.oracleDeviationMaxBps, governed[ParameterRules.ORACLE_DEVIATION_MAX_BPS]);
        limit.oracleAgeMaxS = _least(limit.oracleAgeMaxS, governed[ParameterRules.ORACLE_AGE_MAX_S]);
        limit.modelAgeMaxS = _least(limit.modelAgeMaxS, governed[ParameterRules.MODEL_AGE_MAX_S]);
        limit.mirrorAgeMaxS = _least(limit.mirrorAgeMaxS, governed[ParameterRules.MIRROR_AGE_MAX_S]);
    }

    /// @notice What the orders of the present day have sent out, in the quote's smallest unit.
    function spentToday() public view returns (uint256) {
        return _epoch == block.timestamp / EPOCH_S ? _spent : 0;
    }

    /* INTERNAL */

    /// @dev Not within an order either: should Roles ever allow calls to here, the agent still could
    /// not make the Safe loosen its own breaker.
    modifier onlySafe() {
        if (msg.sender != safe || _reentrancyGuardEntered()) {
            revert BreakerModifier_NotSafe(msg.sender);
        }
        _;
    }

    /// @dev Makes the calls; gives the value that they sent out, each for itself, and whether one
    /// of them added risk. The feed is asked only when something was sent out: whoever withdraws
    /// needs no oracle.
    function _run(Call[] calldata calls, Limits memory limit)
        private
        returns (uint256 sentOut, bool adds)
    {
        Sight memory before = _look();
        uint256 answer = 0;
        for (uint256 i = 0; i < calls.length; ++i) {
            (bool success, bytes memory returned) =
                roles.execTransactionFromModuleReturnData(calls[i].to, 0, calls[i].data, CALL);
            if (!success) revert BreakerModifier_CallFailed(i, returned);
            Sight memory then = _look();
            if (then.base < before.base || then.quote < before.quote) {
                if (answer == 0) answer = _answer(limit.oracleAgeMaxS);
                (uint256 out, bool sale) = _judge(before, then, answer, limit);
                sentOut += out;
                adds = adds || !sale;
            }
            before = then;
        }
    }

    /// @dev One call that sent something out: its value, rounded up, and whether it only sold base.
    function _judge(Sight memory before, Sight memory then, uint256 answer, Limits memory limit)
        private
        view
        returns (uint256 out, bool sale)
    {
        out = Math.saturatingSub(before.quote, then.quote)
            + _value(Math.saturatingSub(before.base, then.base), answer, Math.Rounding.Ceil);
        uint256 quoteIn = Math.saturatingSub(then.quote, before.quote);
        uint256 baseIn = Math.saturatingSub(then.base, before.base);
        if (quoteIn > 0 || baseIn > 0) {
            uint256 broughtIn = quoteIn + _value(baseIn, answer, Math.Rounding.Floor);
            if (broughtIn * BPS < out * (BPS - limit.slippageMaxBps)) {
                revert BreakerModifier_BadSwap(out, broughtIn, limit.slippageMaxBps);
            }
        }
        sale = quoteIn > 0; // and so it was base that went out
        if (!sale) {
            _requireNear(before.sqrtPriceX96, answer, limit.oracleDeviationMaxBps);
            _requireNear(then.sqrtPriceX96, answer, limit.oracleDeviationMaxBps);
        }
    }

    function _look() private view returns (Sight memory) {
        return Sight(
            IERC20Metadata(base).balanceOf(safe),
            IERC20Metadata(quote).balanceOf(safe),
            pool.slot0()
        );
    }

    /// @dev The feed's answer, if it is a price and fresh. An answer of the future is no answer.
    function _answer(uint64 limitS) private view returns (uint256) {
        (, int256 answer,, uint256 updatedAt,) = feed.latestRoundData();
        if (answer <= 0 || answer > int256(uint256(type(uint128).max))) {
            revert BreakerModifier_BadAnswer(answer);
        }
        if (updatedAt > block.timestamp || block.timestamp - updatedAt > limitS) {
            revert BreakerModifier_AnswerTooOld(updatedAt, limitS);
        }
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint256(answer);
    }

    /// @dev Value of an amount of base, in the quote's smallest unit.
    function _value(uint256 amount, uint256 answer, Math.Rounding rounding)
        private
        view
        returns (uint256)
    {
        return Math.mulDiv(amount, answer * _quoteUnit, _scale, rounding);
    }

    /// @dev The pool's price as the feed would write it. A square root of price has 160 bits, so
    /// its square in Q128 has 256.
    function _requireNear(uint160 sqrtPriceX96, uint256 answer, uint64 limitBps) private view {
        uint256 priceX128 = Math.mulDiv(sqrtPriceX96, sqrtPriceX96, 1 << 64);
        uint256 poolAnswer = priceX128 == 0
            ? 0
            : (_baseIsToken0
                        ? Math.mulDiv(priceX128, _scale, 1 << 128)
                        : Math.mulDiv(_scale, 1 << 128, priceX128)) / _quoteUnit;
        uint256 apart = poolAnswer > answer ? poolAnswer - answer : answer - poolAnswer;
        if (apart > Math.mulDiv(answer, limitBps, BPS)) {
            revert BreakerModifier_PriceTooFar(poolAnswer, answer, limitBps);
        }
    }

    function _requireLive(bytes32 model, Limits memory limit, uint64 asOf) private view {
        (, bytes32 live, uint64 liveFrom,) = models.live();
        if (model == 0 || model != live) revert BreakerModifier_NotLive(model, live);
        if (block.timestamp > uint256(liveFrom) + limit.modelAgeMaxS) {
            revert BreakerModifier_ModelTooOld(liveFrom, limit.modelAgeMaxS);
        }
        if (block.timestamp > uint256(asOf) + limit.mirrorAgeMaxS) {
            revert BreakerModifier_MirrorTooOld(asOf, limit.mirrorAgeMaxS);
        }
    }

    function _spend(uint256 sentOut, Limits memory limit) private {
        if (sentOut == 0) return;
        uint256 most = limit.actionNotionalMax * _quoteUnit;
        if (sentOut > most) revert BreakerModifier_OverOrder(sentOut, most);
        uint256 spent = spentToday();
        most = limit.epochNotionalMax * _quoteUnit;
        if (spent + sentOut > most) revert BreakerModifier_OverEpoch(spent, sentOut, most);
        // At most 2^64 * 10^38 < 2^192.
        // forge-lint: disable-next-line(unsafe-typecast)
        (_epoch, _spent) = (uint64(block.timestamp / EPOCH_S), uint192(spent + sentOut));
    }

    function _setAgent(address agent_) private {
        if (agent_ == address(0)) revert BreakerModifier_ZeroAgent();
        emit AgentChanged(agent, agent_);
        agent = agent_;
    }

    function _setGuardian(address guardian_) private {
        emit GuardianChanged(guardian, guardian_);
        guardian = guardian_;
    }

    /// @dev Shares of more than all make no sense; everything else is for the owner to say.
    function _setLimits(Limits memory limits_) private {
        if (limits_.slippageMaxBps > BPS || limits_.oracleDeviationMaxBps > BPS) {
            revert BreakerModifier_BadLimits();
        }
        _limits = limits_;
        emit LimitsChanged(limits_);
    }

    function _least(uint64 a, uint64 b) private pure returns (uint64) {
        return a < b ? a : b;
    }
}
