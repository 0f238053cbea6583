// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ParameterStore} from "../../src/ParameterStore.sol";
import {defaults} from "../Defaults.sol";

/// @notice A store that is put into any state and asked what it makes of a proposal, many times in
/// one call: for the comparison with fedtrade/steering.py (tests/contracts). Never deployed but for
/// that. It is called, not sent to, so nothing that it writes is kept.
contract StoreHarness is ParameterStore {
    uint256 internal constant WORDS = 26; // everything the store keeps, from slot 0 on

    constructor() ParameterStore(msg.sender, defaults()) {}

    /// @param states WORDS words for each case: the storage before it.
    /// @param calls What is called then, by the harness itself, whatever office that needs.
    /// @return outcomes The storage after it; or what it reverted with, which is never so long.
    function judge(bytes32[] calldata states, bytes[] calldata calls)
        external
        returns (bytes[] memory outcomes)
    {
        outcomes = new bytes[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            for (uint256 slot = 0; slot < WORDS; ++slot) {
                bytes32 word = states[WORDS * i + slot];
                assembly ("memory-safe") {
                    sstore(slot, word)
                }
            }
            (bool done, bytes memory reason) = address(this).call(calls[i]);
            outcomes[i] = done ? _storage() : reason;
        }
    }

    function _storage() private view returns (bytes memory words) {
        words = new bytes(32 * WORDS);
        for (uint256 slot = 0; slot < WORDS; ++slot) {
            assembly ("memory-safe") {
                mstore(add(add(words, 32), mul(32, slot)), sload(slot))
            }
        }
    }
}
