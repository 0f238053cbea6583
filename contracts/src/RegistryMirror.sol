// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILiveModel} from "./ILiveModel.sol";
import {IParameters} from "./IParameters.sol";
import {ParameterRules} from "./ParameterRules.sol";
import {Listed, RegistrySnapshot} from "./RegistrySnapshot.sol";

/// @title RegistryMirror
/// @notice On every chain but the home chain: which model is live and which parameters are in
/// force, as the home chain's RegistryBeacon said last. It emits the events of ModelRegistry and
/// ParameterStore, so that an agent reads either alike.
///
/// Powers: none. No owner, no guardian, no pause of its own, no upgrade, no funds. What it shows
/// changes by a message alone: through this chain's Hyperlane mailbox, accepted by the security
/// module that is fixed here (a threshold of the members' validators), from the beacon that is
/// fixed here, with a higher number than the one before.
///
/// So whoever holds a message back, repeats it or turns the order round can only delay, and the
/// delay shows: `asOf` is the home chain's time of the newest message, and who reads refuses what
/// is too old (mirrorAgeMaxS). Between two messages a model that was announced goes live, and a
/// steward's interim values lapse, by this chain's clock.
///
/// Not checked here, because it cannot be: that validators say the truth. As many as the threshold
/// can show anything that is within the bounds and joint rules of ParameterRules; those hold even
/// then. A mirror that was told lies is replaced by another one at another address.
contract RegistryMirror is ILiveModel, IParameters {
    /* CONSTANTS */

    /// @notice Most versions in a message: the active one, and ModelRegistry.MAX_PENDING.
    uint256 public constant MAX_LISTED = 9;

    /// @notice How far the home chain's clock may be ahead of this one's. A message from further
    /// ahead can be delivered later; taken at once it would hide how old it gets.
    uint64 public constant MAX_AHEAD_S = 15 minutes;

    /* IMMUTABLES */

    /// @notice Hyperlane's mailbox on this chain: the only caller of `handle`.
    address public immutable mailbox;

    /// @notice Hyperlane's number of the home chain.
    uint32 public immutable homeDomain;

    /// @notice The RegistryBeacon on the home chain, as 32 bytes.
    bytes32 public immutable beacon;

    /// @notice What the mailbox asks whether a message is proved. No owner can exchange it.
    address public immutable interchainSecurityModule;

    /* STORAGE */

    /// @notice Number of the newest message taken; 0 before the first.
    uint64 public sequence;

    /// @notice The home chain's time of that message.
    uint64 public sentAt;

    /// @dev Zero if the message came without interim values.
    uint64 private _interimUntil;
    bool private _paused;

    /// @notice Number of the ParameterStore's write that is shown here.
    uint64 public parametersSequence;

    uint64[28] private _governed;
    uint64[28] private _interim;

    /// @dev Of the newest message: newest version first, at most the last one active when it was
    /// sent.
    Listed[] private _listed;

    /// @dev Versions that our events call published and not revoked, ascending: those listed, below
    /// them the ones that a newer model has superseded.
    uint64[] private _announced;

    /* EVENTS */

    /// @notice A message was taken.
    event Mirrored(uint64 indexed sequence, uint64 sentAt);

    /// @notice As ModelRegistry's; `uri` is empty.
    event ModelPublished(
        uint64 indexed version,
        uint64 indexed release,
        bytes32 sha256,
        uint64 liveFrom,
        uint64 epsilonMicro,
        string uri
    );

    /// @notice As ModelRegistry's.
    event ModelRevoked(uint64 indexed version);

    /// @notice As ParameterStore's. An interim that lapses emits nothing there either.
    event ParametersChanged(uint64 indexed sequence, uint64[28] values, bool paused);

    /* ERRORS */

    error RegistryMirror_NoContract(address given);
    error RegistryMirror_NoBeacon();
    error RegistryMirror_NotMailbox(address caller);
    error RegistryMirror_NotBeacon(uint32 origin, bytes32 sender);
    error RegistryMirror_Stale(uint64 sequence, uint64 newest);
    error RegistryMirror_FromTheFuture(uint64 sentAt, uint64 limit);
    error RegistryMirror_TooManyListed(uint256 listed, uint256 limit);
    /// @dev `index` is the first entry that is empty or does not follow the one before.
    error RegistryMirror_BadList(uint256 index);

    /* CONSTRUCTOR */

    constructor(address mailbox_, uint32 homeDomain_, bytes32 beacon_, address ism) {
        if (mailbox_.code.length == 0) revert RegistryMirror_NoContract(mailbox_);
        // Without a module of its own a recipient gets the mailbox's, which its owner can exchange.
        if (ism.code.length == 0) revert RegistryMirror_NoContract(ism);
        if (beacon_ == 0) revert RegistryMirror_NoBeacon();
        mailbox = mailbox_;
        homeDomain = homeDomain_;
        beacon = beacon_;
        interchainSecurityModule = ism;
    }

    /* MAILBOX */

    /// @notice Takes a message of the beacon. Not payable: a value that somebody adds to the
    /// delivery would be lost here.
    function handle(uint32 origin, bytes32 sender, bytes calldata body) external {
        if (msg.sender != mailbox) revert RegistryMirror_NotMailbox(msg.sender);
        if (origin != homeDomain || sender != beacon) {
            revert RegistryMirror_NotBeacon(origin, sender);
        }
        RegistrySnapshot memory s = abi.decode(body, (RegistrySnapshot));
        if (s.sequence <= sequence) revert RegistryMirror_Stale(s.sequence, sequence);
        uint64 limit = uint64(block.timestamp) + MAX_AHEAD_S;
        if (s.sentAt > limit) revert RegistryMirror_FromTheFuture(s.sentAt, limit);

        bool first = sequence == 0;
        sequence = s.sequence;
        sentAt = s.sentAt;
        emit Mirrored(s.sequence, s.sentAt);
        _takeModels(s.models, s.sentAt);
        _takeParameters(s, first);
    }

    /* VIEWS */

    /// @inheritdoc ILiveModel
    function live()
        external
        view
        returns (uint64 version, bytes32 sha256, uint64 liveFrom, uint64 epsilonMicro)
    {
        for (uint256 i = 0; i < _listed.length; ++i) {
            Listed storage m = _listed[i];
            if (m.liveFrom <= block.timestamp) {
                return (m.version, m.sha256, m.liveFrom, m.epsilonMicro);
            }
        }
    }

    /// @inheritdoc IParameters
    /// @dev Before the first message nothing is known: zeros, paused, as of 1970.
    function parameters()
        external
        view
        returns (uint64[28] memory values, bool paused, uint64 asOf)
    {
        uint64 now_ = uint64(block.timestamp);
        // Not above this chain's time, whoever's clock is wrong: readers subtract it from that.
        asOf = sentAt < now_ ? sentAt : now_;
        return (now_ < _interimUntil ? _interim : _governed, sequence == 0 || _paused, asOf);
    }

    /// @notice The versions of the newest message, newest first.
    function listed() external view returns (Listed[] memory) {
        return _listed;
    }

    /* INTERNAL */

    /// @dev Both loops pass each version of the message once, and each version that is announced
    /// and then withdrawn once in its life: those above the active one that are listed no more were
    /// revoked. Those below it stay announced, for they were superseded only, as far as is known; a
    /// reader who falls back goes to the newest of them, so all above a fallback must be gone.
    function _takeModels(Listed[] memory models, uint64 asOf) private {
        uint64 active = _requireList(models, asOf);
        delete _listed;
        bool[] memory known = new bool[](models.length);
        uint256 next = 0; // newest entry of the message that has not been met yet
        for (uint256 left = _announced.length; left > 0; --left) {
            uint64 version = _announced[left - 1];
            if (version < active) break;
            _announced.pop();
            while (next < models.length && models[next].version > version) ++next;
            if (next < models.length && models[next].version == version) known[next] = true;
            else emit ModelRevoked(version);
        }
        for (uint256 i = 0; i < models.length; ++i) {
            _listed.push(models[i]);
        }
        for (uint256 i = models.length; i > 0; --i) {
            Listed memory m = models[i - 1];
            _announced.push(m.version);
            if (known[i - 1]) continue;
            emit ModelPublished(m.version, m.release, m.sha256, m.liveFrom, m.epsilonMicro, "");
        }
    }

    /// @dev The version that was active when the message was sent; 0 if none was. The order is what
    /// `live` relies on, and what ModelRegistry gives: newest first, activation in order.
    function _requireList(Listed[] memory models, uint64 asOf)
        private
        pure
        returns (uint64 active)
    {
        if (models.length > MAX_LISTED) {
            revert RegistryMirror_TooManyListed(models.length, MAX_LISTED);
        }
        for (uint256 i = 0; i < models.length; ++i) {
            Listed memory m = models[i];
            bool follows = i == 0
                || (active == 0
                    && m.version < models[i - 1].version
                    && m.liveFrom <= models[i - 1].liveFrom);
            if (m.version == 0 || m.sha256 == 0 || !follows) revert RegistryMirror_BadList(i);
            if (m.liveFrom <= asOf) active = m.version;
        }
    }

    /// @dev The rules are applied again: a message that comes through a broken security module may
    /// lie, and is not absurd even so.
    function _takeParameters(RegistrySnapshot memory s, bool first) private {
        ParameterRules.requireSound(s.governed);
        bool interim = s.interimUntil > s.sentAt;
        if (interim) ParameterRules.requireSound(s.interim);
        _interimUntil = interim ? s.interimUntil : 0;
        _paused = s.paused;
        if (!first && s.parametersSequence == parametersSequence) return; // no write since
        parametersSequence = s.parametersSequence;
        _governed = s.governed;
        if (interim) _interim = s.interim;
        uint64[28] memory values = block.timestamp < _interimUntil ? s.interim : s.governed;
        emit ParametersChanged(s.parametersSequence, values, s.paused);
    }
}
