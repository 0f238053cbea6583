// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILiveModel} from "../src/ILiveModel.sol";
import {IParameters} from "../src/IParameters.sol";

/// @notice STAND-IN for ParameterStore and ModelRegistry (or a mirror of both): says whatever a
/// test tells it to say.
contract StandInConsortium is IParameters, ILiveModel {
    uint64[28] internal values;
    bool internal paused;
    uint64 internal asOf;
    uint64 internal version;
    bytes32 internal sha256_;
    uint64 internal liveFrom;

    function set(uint256 id, uint64 value) external {
        values[id] = value;
    }

    function setPaused(bool paused_) external {
        paused = paused_;
    }

    function setAsOf(uint64 asOf_) external {
        asOf = asOf_;
    }

    function setLive(uint64 version_, bytes32 sha, uint64 liveFrom_) external {
        (version, sha256_, liveFrom) = (version_, sha, liveFrom_);
    }

    function parameters() external view returns (uint64[28] memory, bool, uint64) {
        return (values, paused, asOf == 0 ? uint64(block.timestamp) : asOf);
    }

    function live() external view returns (uint64, bytes32, uint64, uint64) {
        return (version, sha256_, liveFrom, 0);
    }
}
