// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice A version that is live, or waits to be.
/// @param release The release that published it.
/// @param liveFrom Seconds since 1970: before that it is not live.
/// @param epsilonMicro The privacy that its release spent, in millionths of epsilon.
struct Listed {
    uint64 version;
    uint64 release;
    uint64 liveFrom;
    uint64 epsilonMicro;
    bytes32 sha256;
}

/// @notice What a RegistryBeacon tells its mirrors, ABI-encoded: all that they show, each time, so
/// that a message which never arrives leaves nothing behind that a later one does not mend.
/// @param sequence Counts the beacon's posts, from 1.
/// @param sentAt The home chain's time of the post.
/// @param models ModelRegistry.current(): newest first.
/// @param governed Values that governance has set, in the order of ParameterRules.
/// @param interim Values that are in force instead until `interimUntil`, if that is not over.
/// @param parametersSequence Counts the writes of the ParameterStore.
struct RegistrySnapshot {
    uint64 sequence;
    uint64 sentAt;
    Listed[] models;
    uint64[28] governed;
    uint64[28] interim;
    uint64 interimUntil;
    bool paused;
    uint64 parametersSequence;
}
