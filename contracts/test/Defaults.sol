// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice The defaults of the table in vectors/parameters.json: a sound set to begin a test with.
/// (ParameterRules.t.sol checks that they are.)
function defaults() pure returns (uint64[28] memory) {
    // forgefmt: disable-start
    return [
        uint64(1_000_000), // noiseMultiplierMicro
        1_000_000,         // clipNormMicro
        50_000,            // samplingRateMicro
        8_000_000,         // epsilonReleaseMicro
        20_000_000,        // epsilonTotalMicro
        4,                 // cohortMin
        5,                 // helpers
        2,                 // corrupt
        3,                 // respondersMin
        0,                 // releaseIntervalS
        6_667,             // quorumBps
        1 days,            // activationDelayS
        30 days,           // modelAgeMaxS
        1 days,            // mirrorAgeMaxS
        30_000,            // leverageMaxBps
        50,                // slippageMaxBps
        300_000,           // actionNotionalMax
        5_000_000,         // epochNotionalMax
        1_000,             // deltaBandBps
        200,               // drawdownReduceBps
        400,               // drawdownHaltBps
        900,               // drawdownUnwindBps
        3_900,             // oracleAgeMaxS
        300,               // oracleDeviationMaxBps
        500,               // gasPriceMaxGwei
        9_500,             // correlationMaxBps
        1_000_000,         // bridgeInFlightMax
        5_000              // crowdingMaxBps
    ];
    // forgefmt: disable-end
}
