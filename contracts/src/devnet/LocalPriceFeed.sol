// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title LocalPriceFeed
/// @notice STAND-IN, for local chains only: a price feed with the views and the event of a
/// Chainlink aggregator, written by one operator in place of an oracle committee.
///
/// Powers: the operator (the deployer, for ever) pushes any answer at any time. Nobody else has any
/// power. An answer is not checked: rehearsals need stale, zero, negative and absurd prices as
/// well.
contract LocalPriceFeed {
    struct Round {
        int256 answer;
        uint256 updatedAt;
    }

    /// @notice The version that Chainlink's own aggregators report.
    uint256 public constant version = 4;

    address public immutable operator;
    uint8 public immutable decimals;
    string public description;

    /// @notice The newest round. Rounds begin at 1.
    uint80 public latestRound;

    mapping(uint80 roundId => Round) private _rounds;

    event AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt);

    error LocalPriceFeed_NotOperator(address caller);
    error LocalPriceFeed_NoData(uint80 roundId);

    constructor(uint8 decimals_, string memory description_, int256 first) {
        operator = msg.sender;
        decimals = decimals_;
        description = description_;
        _push(first);
    }

    /// @notice Begins a new round with this answer.
    function push(int256 answer) external {
        if (msg.sender != operator) revert LocalPriceFeed_NotOperator(msg.sender);
        _push(answer);
    }

    function latestAnswer() external view returns (int256) {
        return _rounds[latestRound].answer;
    }

    function latestTimestamp() external view returns (uint256) {
        return _rounds[latestRound].updatedAt;
    }

    function latestRoundData()
        external
        view
        returns (
            uint80 roundId,
            int256 answer,
            uint256 startedAt,
            uint256 updatedAt,
            uint80 answeredInRound
        )
    {
        return getRoundData(latestRound);
    }

    /// @dev A round is complete when it begins, so it starts, ends and is answered in itself.
    function getRoundData(uint80 wanted)
        public
        view
        returns (
            uint80 roundId,
            int256 answer,
            uint256 startedAt,
            uint256 updatedAt,
            uint80 answeredInRound
        )
    {
        if (wanted == 0 || wanted > latestRound) {
            revert LocalPriceFeed_NoData(wanted);
        }
        Round storage r = _rounds[wanted];
        return (wanted, r.answer, r.updatedAt, r.updatedAt, wanted);
    }

    function _push(int256 answer) private {
        uint80 roundId = ++latestRound;
        _rounds[roundId] = Round(answer, block.timestamp);
        emit AnswerUpdated(answer, roundId, block.timestamp);
    }
}
