// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title ILiveModel
/// @notice Which model a chain's agents must use: the ModelRegistry says so on the home chain, the
/// RegistryMirror on every other. Reading gives no power over it.
interface ILiveModel {
    /// @notice The newest version that is active and not revoked; zeros if there is none.
    function live()
        external
        view
        returns (uint64 version, bytes32 sha256, uint64 liveFrom, uint64 epsilonMicro);
}
