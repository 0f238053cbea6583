// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title IMailbox
/// @notice What we use of Hyperlane's Mailbox (@hyperlane-xyz/core 9): it numbers messages, hands
/// them to its hooks (one of which puts them into the Merkle tree that validators sign), and on the
/// other side calls `handle` of the recipient, once, when the recipient's security module accepts
/// the proof.
interface IMailbox {
    /// @notice The number of this chain among Hyperlane's chains.
    function localDomain() external view returns (uint32);

    /// @notice What `dispatch` of this message costs, in the chain's own money.
    function quoteDispatch(uint32 destination, bytes32 recipient, bytes calldata body)
        external
        view
        returns (uint256 fee);

    /// @notice Sends a message; gives its id.
    function dispatch(uint32 destination, bytes32 recipient, bytes calldata body)
        external
        payable
        returns (bytes32 messageId);
}
