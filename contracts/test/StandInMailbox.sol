// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

interface IHandler {
    function handle(uint32 origin, bytes32 sender, bytes calldata body) external payable;
}

/// @notice **Stand-in** for Hyperlane's Mailbox in forge tests: keeps what is dispatched, and
/// delivers whatever a test says, with no proof of anything. That proofs are asked for is tested
/// against the real contracts (tests/deployment/test_mirrors.py).
contract StandInMailbox {
    struct Sent {
        uint32 destination;
        bytes32 sender;
        bytes32 recipient;
        bytes body;
        uint256 paid;
    }

    uint32 public immutable localDomain;

    /// @notice What a dispatch costs for each byte of its body.
    uint256 public feePerByte;
    Sent[] private _sent;

    constructor(uint32 domain) {
        localDomain = domain;
    }

    function setFee(uint256 perByte) external {
        feePerByte = perByte;
    }

    function quoteDispatch(uint32, bytes32, bytes calldata body) public view returns (uint256) {
        return feePerByte * body.length;
    }

    function dispatch(uint32 destination, bytes32 recipient, bytes calldata body)
        external
        payable
        returns (bytes32)
    {
        require(msg.value >= quoteDispatch(destination, recipient, body), "fee");
        bytes32 sender = bytes32(uint256(uint160(msg.sender)));
        _sent.push(Sent(destination, sender, recipient, body, msg.value));
        return keccak256(abi.encode(_sent.length, destination, sender, recipient, body));
    }

    function sentCount() external view returns (uint256) {
        return _sent.length;
    }

    function sent(uint256 index) external view returns (Sent memory) {
        return _sent[index];
    }

    /// @notice Calls a recipient as Hyperlane's Mailbox does once a proof was accepted.
    function deliver(uint32 origin, bytes32 sender, address recipient, bytes calldata body)
        external
        payable
    {
        IHandler(recipient).handle{value: msg.value}(origin, sender, body);
    }
}
