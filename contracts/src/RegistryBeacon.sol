// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

import {IMailbox} from "./IMailbox.sol";
import {ModelRegistry} from "./ModelRegistry.sol";
import {ParameterStore} from "./ParameterStore.sol";
import {RegistrySnapshot} from "./RegistrySnapshot.sol";

/// @title RegistryBeacon
/// @notice On the home chain: tells the mirrors on other chains which models the registry lists and
/// which parameters are in force.
///
/// Powers:
/// - Anybody posts, and pays for it. What is posted is what registry and store say in that block,
///   so posting gives no power over it.
/// - The owner (governance) names the mirror of each chain. It cannot change what is posted, and a
///   mirror believes this contract alone, so a wrong name sends messages to nobody.
/// - Nobody pauses this contract (that everything is paused has to be told, too), upgrades it or
///   withdraws from it: it holds no funds between two transactions.
///
/// Not checked here: that a message arrives. Whoever runs a relayer delivers it; until then a
/// mirror shows what it was told before, and since when (`asOf`).
contract RegistryBeacon is Ownable2Step {
    /* CONSTANTS */

    /// @notice Most chains in one post.
    uint256 public constant MAX_DESTINATIONS = 32;

    /* IMMUTABLES */

    IMailbox public immutable mailbox;
    ModelRegistry public immutable registry;
    ParameterStore public immutable store;

    /* STORAGE */

    /// @notice Posts so far. Every message of one post has the same number.
    uint64 public sequence;

    /// @notice The mirror on a chain (Hyperlane's domain), as 32 bytes; zero if there is none.
    mapping(uint32 domain => bytes32) public mirrorOf;

    /* EVENTS */

    event MirrorChanged(uint32 indexed domain, bytes32 before, bytes32 mirror);
    event Posted(uint64 indexed sequence, uint32 indexed domain, bytes32 messageId);

    /* ERRORS */

    error RegistryBeacon_NoContract(address given);
    error RegistryBeacon_OwnerRequired();
    error RegistryBeacon_NoDestination();
    error RegistryBeacon_TooManyDestinations(uint256 destinations, uint256 limit);
    error RegistryBeacon_DomainsNotAscending(uint32 previous, uint32 domain);
    error RegistryBeacon_NoMirror(uint32 domain);
    error RegistryBeacon_FeeTooLow(uint256 given, uint256 needed);
    error RegistryBeacon_RefundRefused(address caller, uint256 amount);

    /* CONSTRUCTOR */

    /// @param mailbox_ Trusted to send what it is given, under this contract's address.
    /// @param registry_ Trusted, as is
    /// @param store_ : they are what is mirrored.
    /// @param owner_ Governance. Zero is refused by Ownable.
    constructor(IMailbox mailbox_, ModelRegistry registry_, ParameterStore store_, address owner_)
        Ownable(owner_)
    {
        _requireContract(address(mailbox_));
        _requireContract(address(registry_));
        _requireContract(address(store_));
        mailbox = mailbox_;
        registry = registry_;
        store = store_;
    }

    /* ANYBODY */

    /// @notice Sends the present state to the mirrors of these chains.
    /// @param destinations Domains, ascending, each with a mirror.
    /// @dev Nothing is left to a call in between: the number is taken first, the state is read once,
    /// and the rest of the value goes back to the caller in the end. Should a hook of the mailbox
    /// call back, it makes a post of its own with the next number.
    function post(uint32[] calldata destinations) external payable {
        if (destinations.length == 0) revert RegistryBeacon_NoDestination();
        if (destinations.length > MAX_DESTINATIONS) {
            revert RegistryBeacon_TooManyDestinations(destinations.length, MAX_DESTINATIONS);
        }
        uint64 number = ++sequence;
        bytes memory body = abi.encode(_snapshot(number));
        uint256 left = msg.value;
        uint32 previous = 0;
        for (uint256 i = 0; i < destinations.length; ++i) {
            uint32 domain = destinations[i];
            if (i > 0 && domain <= previous) {
                revert RegistryBeacon_DomainsNotAscending(previous, domain);
            }
            previous = domain;
            bytes32 mirror = _mirror(domain);
            uint256 fee = mailbox.quoteDispatch(domain, mirror, body);
            if (fee > left) {
                revert RegistryBeacon_FeeTooLow(msg.value, msg.value - left + fee);
            }
            left -= fee;
            bytes32 id = mailbox.dispatch{value: fee}(domain, mirror, body);
            emit Posted(number, domain, id);
        }
        if (left > 0) {
            (bool taken,) = msg.sender.call{value: left}("");
            if (!taken) revert RegistryBeacon_RefundRefused(msg.sender, left);
        }
    }

    /* OWNER */

    /// @notice Names the mirror of a chain; zero for none.
    function setMirror(uint32 domain, bytes32 mirror) external onlyOwner {
        emit MirrorChanged(domain, mirrorOf[domain], mirror);
        mirrorOf[domain] = mirror;
    }

    /// @notice Refused: without an owner no chain could be added.
    function renounceOwnership() public view override onlyOwner {
        revert RegistryBeacon_OwnerRequired();
    }

    /* VIEWS */

    /// @notice What a post of this block says.
    function snapshot() external view returns (RegistrySnapshot memory) {
        return _snapshot(sequence + 1);
    }

    /// @notice What a post to these chains costs in this block.
    function quote(uint32[] calldata destinations) external view returns (uint256 fee) {
        bytes memory body = abi.encode(_snapshot(sequence + 1));
        for (uint256 i = 0; i < destinations.length; ++i) {
            fee += mailbox.quoteDispatch(destinations[i], _mirror(destinations[i]), body);
        }
    }

    /* INTERNAL */

    function _snapshot(uint64 number) private view returns (RegistrySnapshot memory s) {
        s.sequence = number;
        s.sentAt = uint64(block.timestamp);
        s.models = registry.current();
        (s.governed, s.interim, s.interimUntil, s.paused, s.parametersSequence) = store.snapshot();
    }

    function _mirror(uint32 domain) private view returns (bytes32 mirror) {
        mirror = mirrorOf[domain];
        if (mirror == 0) revert RegistryBeacon_NoMirror(domain);
    }

    function _requireContract(address given) private view {
        if (given.code.length == 0) revert RegistryBeacon_NoContract(given);
    }
}
