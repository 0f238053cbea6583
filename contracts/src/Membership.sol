// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {ERC721Votes} from "@openzeppelin/contracts/token/ERC721/extensions/ERC721Votes.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

/// @title Membership
/// @notice Who belongs to the consortium, with which keys and in which roles. A *seat* is one
/// party. A seat with the member role carries one token, and the token is one vote: one member, one
/// vote.
///
/// Powers:
/// - The owner (governance) admits, updates and expels seats, and so decides who trains, helps,
///   coordinates and votes. It cannot move a token, cast a vote, or give an account a second vote.
/// - A seat's account holds the vote and may delegate it. It cannot pass the seat on, and it cannot
///   change the seat's keys: a stolen voting key must not become a stolen signing key.
/// - A seat's signer signs updates, publications and transactions off this contract. It has no
///   power here.
/// - Nobody pauses, upgrades or destroys this contract.
///
/// What the roles allow is decided by those who read them (ModelRegistry on-chain; members and
/// helpers off-chain).
contract Membership is ERC721Votes, Ownable2Step {
    /* TYPES */

    /// @param account Holds the vote. May be a contract, such as a multisignature account.
    /// @param signer The address of the key that signs for this party (an ordinary key, no
    /// contract).
    /// @param x25519 The party's X25519 public key, to which mask seeds are encrypted.
    /// @param roles Sum of MEMBER, HELPER and COORDINATOR.
    struct Seat {
        address account;
        address signer;
        bytes32 x25519;
        uint8 roles;
    }

    /* CONSTANTS */

    /// @notice Trains on its own positions, signs publications, votes.
    uint8 public constant MEMBER = 1;

    /// @notice Sits on the mask committee. Needs an X25519 key.
    uint8 public constant HELPER = 2;

    /// @notice Opens releases and posts manifests.
    uint8 public constant COORDINATOR = 4;

    /// @notice Most seats with the member role at one time. Bounds every loop over members, here
    /// and elsewhere.
    uint256 public constant MAX_MEMBERS = 256;

    /* STORAGE */

    /// @notice The id of the newest seat. Ids begin at 1 and are never used again, so 0 means none.
    uint256 public lastSeatId;

    /// @notice How many seats have the member role now.
    uint256 public memberCount;

    mapping(uint256 id => Seat) private _seats;

    /// @notice The seat of an account, a signer or an X25519 key; 0 if none. Each belongs to one
    /// seat at most: two seats with one key would be one party that counts twice, in a quorum or in
    /// the mask committee.
    mapping(address account => uint256 id) public idOfAccount;
    mapping(address signer => uint256 id) public idOfSigner;
    mapping(bytes32 x25519 => uint256 id) public idOfKey;

    /* EVENTS */

    event SeatAdmitted(
        uint256 indexed id,
        address indexed account,
        address indexed signer,
        bytes32 x25519,
        uint8 roles
    );
    event SeatUpdated(uint256 indexed id, address indexed signer, bytes32 x25519, uint8 roles);
    event SeatExpelled(uint256 indexed id, address indexed account, address indexed signer);

    /* ERRORS */

    error Membership_ZeroAddress();
    error Membership_BadRoles(uint8 roles);
    error Membership_MissingKey(uint8 roles);
    error Membership_AccountTaken(address account, uint256 id);
    error Membership_SignerTaken(address signer, uint256 id);
    error Membership_KeyTaken(bytes32 x25519, uint256 id);
    error Membership_UnknownSeat(uint256 id);
    error Membership_TooManyMembers(uint256 limit);
    error Membership_NotTransferable();
    error Membership_OwnerRequired();

    /* CONSTRUCTOR */

    /// @param owner_ Governance. Zero is refused by Ownable.
    constructor(address owner_)
        ERC721("fedtrade Membership", "FEDSEAT")
        EIP712("fedtrade Membership", "1")
        Ownable(owner_)
    {}

    /* GOVERNANCE */

    /// @notice Gives a party a seat, and a vote if it is a member.
    /// @dev No proof that the party holds the keys is asked for: governance vouches for them, and a
    /// key that nobody holds can only fail to sign. That an X25519 key is no low-order point is for
    /// those who use it to check (a shared secret of zero is refused there); the curve is not
    /// computable here at a fair price.
    function admit(address account, address signer, bytes32 x25519, uint8 roles)
        external
        onlyOwner
        returns (uint256 id)
    {
        if (account == address(0)) revert Membership_ZeroAddress();
        if (idOfAccount[account] != 0) {
            revert Membership_AccountTaken(account, idOfAccount[account]);
        }
        id = ++lastSeatId;
        idOfAccount[account] = id;
        _seats[id].account = account;
        _seat(id, signer, x25519, roles);
        emit SeatAdmitted(id, account, signer, x25519, roles);
    }

    /// @notice Changes a seat's keys and roles. The vote comes and goes with the member role.
    /// @dev A release that is already open keeps the signers it began with (see
    /// ModelRegistry.openRelease).
    function update(uint256 id, address signer, bytes32 x25519, uint8 roles) external onlyOwner {
        _unseat(id);
        _seat(id, signer, x25519, roles);
        emit SeatUpdated(id, signer, x25519, roles);
    }

    /// @notice Takes a party's seat, keys and vote away. The account may be admitted again, to a
    /// new seat.
    function expel(uint256 id) external onlyOwner {
        address account = _seats[id].account;
        address signer = _seats[id].signer;
        _unseat(id);
        if (_ownerOf(id) != address(0)) _takeVote(id);
        delete idOfAccount[account];
        delete _seats[id];
        emit SeatExpelled(id, account, signer);
    }

    /// @notice Refused: without an owner nobody could expel a party whose keys are stolen.
    function renounceOwnership() public view override onlyOwner {
        revert Membership_OwnerRequired();
    }

    /* VIEWS */

    /// @notice A seat as it stands now.
    function seat(uint256 id) external view returns (Seat memory) {
        if (_seats[id].account == address(0)) revert Membership_UnknownSeat(id);
        return _seats[id];
    }

    /// @notice Whether a seat exists now and has all of these roles.
    function hasRole(uint256 id, uint8 roles) external view returns (bool) {
        return roles != 0 && _seats[id].roles & roles == roles;
    }

    /// @notice Votes are counted by time, so that delays mean the same on every chain.
    function clock() public view override returns (uint48) {
        return uint48(block.timestamp);
    }

    /// @notice The clock as ERC-6372 describes it.
    function CLOCK_MODE() public pure override returns (string memory) {
        return "mode=timestamp";
    }

    /* NO TRANSFER */

    /// @notice Refused: a seat cannot be passed on, so there is nothing to approve.
    function approve(address, uint256) public pure override {
        revert Membership_NotTransferable();
    }

    /// @notice Refused: a seat cannot be passed on, so there is nothing to approve.
    function setApprovalForAll(address, bool) public pure override {
        revert Membership_NotTransferable();
    }

    /// @dev The one place through which every mint, burn and transfer goes.
    function _update(address to, uint256 id, address auth) internal override returns (address) {
        if (to != address(0) && _ownerOf(id) != address(0)) revert Membership_NotTransferable();
        return super._update(to, id, auth);
    }

    /* INTERNAL */

    /// @dev Gives the seat keys and roles. The seat holds none: it is new, or `_unseat` was called.
    function _seat(uint256 id, address signer, bytes32 x25519, uint8 roles) private {
        if (signer == address(0)) revert Membership_ZeroAddress();
        if (roles == 0 || roles > MEMBER + HELPER + COORDINATOR) revert Membership_BadRoles(roles);
        if (roles & HELPER != 0 && x25519 == 0) revert Membership_MissingKey(roles);
        if (idOfSigner[signer] != 0) revert Membership_SignerTaken(signer, idOfSigner[signer]);
        if (idOfKey[x25519] != 0) revert Membership_KeyTaken(x25519, idOfKey[x25519]);
        idOfSigner[signer] = id;
        if (x25519 != 0) idOfKey[x25519] = id; // a seat that is no helper may have no key
        Seat storage s = _seats[id];
        s.signer = signer;
        s.x25519 = x25519;
        s.roles = roles;

        bool votes = _ownerOf(id) != address(0);
        if (roles & MEMBER != 0 && !votes) _giveVote(id, s.account);
        if (roles & MEMBER == 0 && votes) _takeVote(id);
    }

    /// @dev Frees the seat's keys.
    function _unseat(uint256 id) private {
        Seat storage s = _seats[id];
        if (s.account == address(0)) revert Membership_UnknownSeat(id);
        delete idOfSigner[s.signer];
        delete idOfKey[s.x25519];
    }

    /// @dev Not the safe mint: a multisignature account need not know of tokens to vote, and a
    /// callback into an account that is being admitted is nothing anybody needs.
    function _giveVote(uint256 id, address account) private {
        if (memberCount == MAX_MEMBERS) revert Membership_TooManyMembers(MAX_MEMBERS);
        ++memberCount;
        _mint(account, id);
        // A vote counts once it is delegated. Who has not chosen a delegate votes for itself.
        if (delegates(account) == address(0)) _delegate(account, account);
    }

    function _takeVote(uint256 id) private {
        --memberCount;
        _burn(id);
    }
}
