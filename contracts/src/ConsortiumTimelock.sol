// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/// @title ConsortiumTimelock
/// @notice Owns what the consortium governs. What ConsortiumGovernor's members have decided waits
/// here for the delay, so that everybody sees it coming, and is then carried out.
///
/// Powers:
/// - The *founder* sets the consortium up: seats, guardians, addresses. For that it has every role
///   while the delay is zero. Its last operation gives the governor its three roles, sets the
///   delay, and takes all of the founder's roles. That the founder has none left is for everybody
///   to check before they trust this contract; `fedtrade-coordinator deploy` does, and says so.
/// - The governor then schedules, carries out and cancels. Nobody else does any of it.
/// - The timelock alone grants and revokes roles and changes the delay: each takes a proposal, and
///   waits for the delay itself.
///
/// It is OpenZeppelin's timelock with two rules more: a delay that was set is never again shorter
/// than `MIN_DELAY_S`, and never longer than `MAX_DELAY_S`, after which nobody could mend it.
contract ConsortiumTimelock is TimelockController {
    /* CONSTANTS */

    /// @notice The shortest delay that may be set. Choose far more: it is for rehearsals.
    uint256 public constant MIN_DELAY_S = 60;

    /// @notice The longest delay that may be set.
    uint256 public constant MAX_DELAY_S = 30 days;

    /* ERRORS */

    error ConsortiumTimelock_DelayOutOfRange(uint256 delayS, uint256 minS, uint256 maxS);

    /* CONSTRUCTOR */

    /// @param founder Who sets the consortium up, without delay, and then hands over.
    constructor(address founder) TimelockController(0, _only(founder), _only(founder), founder) {}

    /* ITSELF */

    /// @notice Changes the delay of all operations that are scheduled from now on. By this contract
    /// only.
    function updateDelay(uint256 newDelay) public override {
        if (newDelay < MIN_DELAY_S || newDelay > MAX_DELAY_S) {
            revert ConsortiumTimelock_DelayOutOfRange(newDelay, MIN_DELAY_S, MAX_DELAY_S);
        }
        super.updateDelay(newDelay);
    }

    /* INTERNAL */

    function _only(address one) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = one;
    }
}
