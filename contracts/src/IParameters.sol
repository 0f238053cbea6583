// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title IParameters
/// @notice Where a chain's agents and contracts read the governed parameters: the ParameterStore on
/// the home chain, the RegistryMirror on every other. Reading gives no power over them.
interface IParameters {
    /// @notice What is in force now.
    /// @return values In the order and the units of ParameterRules.
    /// @return paused Whether the guardian or governance has stopped everything.
    /// @return asOf Seconds since 1970: up to when the home chain's state is known here. On the home
    /// chain that is now; on a mirror, when its newest message was sent.
    function parameters() external view returns (uint64[28] memory values, bool paused, uint64 asOf);
}
