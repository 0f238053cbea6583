// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IRoles} from "../src/BreakerModifier.sol";

/// @notice STAND-IN for a Safe: one owner in place of several signers, and modules.
contract StandInSafe {
    address internal immutable OWNER;
    mapping(address module => bool) internal enabled;

    error StandInSafe_NotAllowed(address caller);

    constructor() {
        OWNER = msg.sender;
    }

    function enable(address module) external {
        if (msg.sender != OWNER) revert StandInSafe_NotAllowed(msg.sender);
        enabled[module] = true;
    }

    /// @notice The owner's own transaction; reverts as the call does.
    function exec(address to, bytes calldata data) external returns (bytes memory) {
        if (msg.sender != OWNER) revert StandInSafe_NotAllowed(msg.sender);
        (bool success, bytes memory returned) = to.call(data);
        if (!success) {
            assembly ("memory-safe") {
                revert(add(returned, 32), mload(returned))
            }
        }
        return returned;
    }

    function execFromModule(address to, bytes calldata data)
        external
        returns (bool success, bytes memory returned)
    {
        if (!enabled[msg.sender]) revert StandInSafe_NotAllowed(msg.sender);
        return to.call(data);
    }
}

/// @notice STAND-IN for Zodiac Roles: one module, and **no scoping at all**, so that tests see what
/// the breaker withholds by itself.
contract StandInRoles is IRoles {
    StandInSafe internal immutable SAFE;
    address internal module;

    error StandInRoles_NotAllowed(address caller);
    error StandInRoles_NotACall(uint256 value, uint8 operation);

    constructor(StandInSafe safe) {
        SAFE = safe;
    }

    function setModule(address module_) external {
        module = module_;
    }

    function execTransactionFromModuleReturnData(
        address to,
        uint256 value,
        bytes calldata data,
        uint8 operation
    ) external returns (bool, bytes memory) {
        if (msg.sender != module) revert StandInRoles_NotAllowed(msg.sender);
        if (value != 0 || operation != 0) revert StandInRoles_NotACall(value, operation);
        return SAFE.execFromModule(to, data);
    }
}
