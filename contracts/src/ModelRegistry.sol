// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {ILiveModel} from "./ILiveModel.sol";
import {IParameters} from "./IParameters.sol";
import {Membership} from "./Membership.sol";
import {ParameterRules} from "./ParameterRules.sol";

/// @title ModelRegistry
/// @notice Which model is live, and the record of how it came about. A *release* is the rounds of
/// training between two published models; it fixes members, mask committee, policy and base model.
/// A *manifest* binds one round before anything of it is unmasked. A *publication* ends the release
/// with a model's hash.
///
/// Powers:
/// - A coordinator (a seat of Membership with that role, acting through its signer) opens a
///   release, posts its manifests, and abandons it. It cannot publish a model: that needs the
///   members' signatures. It cannot lower the number of signatures by choosing few members, post
///   two manifests for a round, or pass the cap.
/// - The members of a release publish a model, by a quorum of signatures that anybody may hand in.
/// - The owner (governance) revokes a model, abandons a release, appoints the guardian. It cannot
///   publish, or bring a revoked model back.
/// - The guardian revokes, and nothing else: it can only make agents more careful.
/// - Quorum, activation delay, cap and interval are read from the parameter store whenever they are
///   needed; what governance and steward may do to them is said there. While the store is paused no
///   release is opened and none is published; everything else goes on, revoking above all.
/// - Nobody upgrades or destroys this contract, and it holds no funds.
///
/// Not checked here, because members and helpers check it on their own machines before they act,
/// and a coordinator that lies about it is refused there: that `policyHash` is a policy they
/// accept, that `baseSha256` is the model they hold, that the committee is large enough and of
/// helpers they trust, that `root` covers the uploads of the round. Publication is checked against
/// none of the manifests: rounds on a slow chain are agreed upon by the helpers' signatures
/// instead, and leave none; whether the model follows from the rounds is what each member
/// recomputes before it signs.
contract ModelRegistry is Ownable2Step, EIP712, ILiveModel {
    /* TYPES */

    enum ReleaseState {
        Unknown,
        Open,
        Published,
        Abandoned
    }

    /// @param coordinatorId The seat that opened it. Manifests come from this seat alone.
    /// @param policyHash Hash of the policy under which members train in this release.
    /// @param baseSha256 Hash of the model from which training starts.
    /// @param rounds The highest round number allowed.
    /// @param lastRound The newest round with a manifest; 0 if none.
    /// @param signaturesNeeded The quorum as it was when the release was opened. More are needed if
    /// governance has raised the share since, never fewer.
    /// @param members How many the whole consortium had then, of whom the quorum is a share.
    /// @param openedAt Seconds since 1970.
    /// @param version What it published; 0 unless Published.
    struct Release {
        uint256 coordinatorId;
        bytes32 policyHash;
        bytes32 baseSha256;
        uint32 rounds;
        uint32 lastRound;
        uint32 signaturesNeeded;
        uint16 members;
        uint64 openedAt;
        uint64 version;
        ReleaseState state;
    }

    /// @param liveFrom Seconds since 1970. Before that the model is not live: time to look, and to
    /// revoke.
    /// @param epsilonMicro The privacy that the release spent, in millionths of epsilon.
    /// @param older The next older unrevoked version, and
    /// @param newer the next newer one; 0 if none. Without meaning once revoked.
    struct Model {
        bytes32 sha256;
        uint64 release;
        uint64 liveFrom;
        uint64 epsilonMicro;
        uint64 older; // in one word with liveFrom: all that a walk reads
        uint64 newer;
        bool revoked;
    }

    /* CONSTANTS */

    /// @notice What members sign (EIP-712).
    bytes32 public constant PUBLICATION_TYPEHASH = keccak256(
        "Publication(uint64 release,uint64 version,bytes32 sha256,string uri,uint64 epsilonMicro)"
    );

    /// @notice Most helpers in a committee.
    uint256 public constant MAX_HELPERS = 16;

    /// @notice Most models that wait for activation at one time. Bounds the walk of `live`.
    uint256 public constant MAX_PENDING = 8;

    uint256 public constant MAX_URI_BYTES = 256;

    /// @notice How far a release or a version may lie above the one before. Numbers need not be
    /// consecutive, so that one numbering can serve registries on several chains; without this
    /// limit a single coordinator could open release 2^64 - 1, and there would never be another.
    uint64 public constant MAX_STEP = type(uint32).max;

    /* IMMUTABLES */

    Membership public immutable membership;

    /// @notice Where quorum, activation delay, cap and interval are read. Its hard bounds hold here
    /// too: the quorum is always more than half of all members, so any two quorums have a member in
    /// common, and no minority can publish.
    IParameters public immutable parameterStore;

    /* STORAGE */

    /// @notice May revoke. Zero if there is none.
    address public guardian;

    /// @notice The newest release ever opened.
    uint64 public latestRelease;

    /// @notice The release that is open; 0 if none. There is never a second one.
    uint64 public currentRelease;

    /// @notice The newest version ever published, revoked or not.
    uint64 public latestVersion;

    /// @notice Spent by all publications. Revoking gives nothing back: what the model told, it
    /// told.
    uint64 public epsilonSpentMicro;

    /// @notice When the newest release that was published had been opened; 0 if none. The interval
    /// counts from here.
    uint64 public publishedOpenedAt;

    /// @dev The newest unrevoked version; 0 if none. Head of the list through Model.older.
    uint64 private _newest;

    mapping(uint64 release => Release) private _releases;
    mapping(uint64 release => mapping(address signer => bool)) private _isSigner;
    mapping(uint64 release => mapping(uint32 round => bytes32 root)) private _manifests;
    mapping(uint64 version => Model) private _models;

    /* EVENTS */

    event ReleaseOpened(
        uint64 indexed release,
        uint256 indexed coordinatorId,
        bytes32 policyHash,
        bytes32 baseSha256,
        uint32 rounds,
        uint32 signaturesNeeded,
        uint256[] memberIds,
        uint256[] helperIds
    );

    /// @notice The keys of a release, as they stood when it was opened; one for `role` MEMBER, one
    /// for HELPER. Who reads the keys from here and not from Membership uses the same as everybody
    /// else, whatever was changed since.
    event ReleaseRoster(
        uint64 indexed release,
        uint8 indexed role,
        uint256[] ids,
        address[] signers,
        bytes32[] x25519
    );
    event ReleaseAbandoned(uint64 indexed release);
    event ManifestPosted(uint64 indexed release, uint32 indexed round, bytes32 root);
    event ModelPublished(
        uint64 indexed version,
        uint64 indexed release,
        bytes32 sha256,
        uint64 liveFrom,
        uint64 epsilonMicro,
        string uri
    );
    event ModelRevoked(uint64 indexed version);
    event GuardianChanged(address indexed before, address indexed guardian);

    /* ERRORS */

    error ModelRegistry_NoMembership(address membership);
    error ModelRegistry_NoParameters(address parameterStore);
    error ModelRegistry_OwnerRequired();

    error ModelRegistry_NotCoordinator(address caller);
    error ModelRegistry_NotReleaseCoordinator(uint64 release, address caller);
    error ModelRegistry_NotGuardian(address caller);

    error ModelRegistry_Paused();
    error ModelRegistry_TooSoon(uint64 earliest);
    error ModelRegistry_StaleRelease(uint64 release, uint64 latest);
    error ModelRegistry_ReleaseTooFar(uint64 release, uint64 limit);
    error ModelRegistry_ReleaseHeld(uint64 release, uint256 coordinatorId);
    error ModelRegistry_ReleaseNotOpen(uint64 release);
    error ModelRegistry_CapReached(uint64 spentMicro, uint64 capMicro);
    error ModelRegistry_NoRounds();
    error ModelRegistry_IdsNotAscending(uint256 previous, uint256 id);
    /// @dev `roles` is what the seat lacks.
    error ModelRegistry_WrongRole(uint256 id, uint8 roles);
    error ModelRegistry_TooFewMembers(uint256 members, uint256 needed);
    error ModelRegistry_TooManyHelpers(uint256 helpers, uint256 limit);

    error ModelRegistry_ZeroRoot();
    error ModelRegistry_RoundNotAscending(uint32 round, uint32 last);
    error ModelRegistry_RoundPastLimit(uint32 round, uint32 limit);

    error ModelRegistry_ZeroHash();
    error ModelRegistry_ZeroEpsilon();
    error ModelRegistry_CapExceeded(uint64 spentMicro, uint64 epsilonMicro, uint64 capMicro);
    error ModelRegistry_StaleVersion(uint64 version, uint64 latest);
    error ModelRegistry_VersionTooFar(uint64 version, uint64 limit);
    error ModelRegistry_UriTooLong(uint256 bytes_, uint256 limit);
    error ModelRegistry_TooManyPending(uint256 limit);
    error ModelRegistry_TooFewSignatures(uint256 given, uint256 needed);
    error ModelRegistry_NotReleaseMember(uint64 release, address signer);
    error ModelRegistry_SignersNotAscending(address previous, address signer);

    error ModelRegistry_UnknownVersion(uint64 version);
    error ModelRegistry_AlreadyRevoked(uint64 version);
    error ModelRegistry_UnknownRelease(uint64 release);

    /* CONSTRUCTOR */

    /// @param membership_ Trusted for seats, roles, keys and the number of members, whenever a
    /// release is opened.
    /// @param parameterStore_ Trusted for the parameters, whenever they are read.
    /// @param owner_ Governance. Zero is refused by Ownable.
    constructor(Membership membership_, IParameters parameterStore_, address owner_)
        Ownable(owner_)
        EIP712("fedtrade ModelRegistry", "1")
    {
        if (address(membership_).code.length == 0) {
            revert ModelRegistry_NoMembership(address(membership_));
        }
        if (address(parameterStore_).code.length == 0) {
            revert ModelRegistry_NoParameters(address(parameterStore_));
        }
        membership = membership_;
        parameterStore = parameterStore_;
    }

    /* COORDINATOR */

    /// @notice Opens a release. Its members' signers are fixed here: keys that change later, and
    /// members who come or go later, change nothing for this release (the owner abandons it if they
    /// should).
    /// @param memberIds Seats with the member role, ascending. At least as many as signatures are
    /// needed, and that number is a share of *all* members of the consortium: a coordinator that
    /// picks its friends gains nothing.
    /// @param helperIds Seats with the helper role, ascending. May be empty: members who trust
    /// nobody add all the noise themselves and need no committee.
    /// @dev Between the opening of a release that is published and the next opening lies the
    /// interval. A release that failed does not count, so a crash costs no interval: who replaces it
    /// waits no longer than it had waited.
    /// One release is open at a time. Its own coordinator replaces it by opening the next
    /// (after a crash, no second transaction is needed), and so may any coordinator once the seat
    /// that opened it has lost the role. An honest coordinator can otherwise not be pushed aside by
    /// another, and a release that nobody ends cannot be published years later with keys that have
    /// leaked meanwhile, once another has been opened. Privacy that abandoned rounds spent is not
    /// counted here, since nothing here could know it: each member's own ledger counts it, and the
    /// members' quorum signs an `epsilonMicro` that includes it.
    function openRelease(
        uint64 release,
        bytes32 policyHash,
        bytes32 baseSha256,
        uint32 rounds,
        uint256[] calldata memberIds,
        uint256[] calldata helperIds
    ) external {
        uint256 id = membership.idOfSigner(msg.sender);
        if (!_isCoordinator(id)) revert ModelRegistry_NotCoordinator(msg.sender);
        if (release <= latestRelease) revert ModelRegistry_StaleRelease(release, latestRelease);
        if (release - latestRelease > MAX_STEP) {
            revert ModelRegistry_ReleaseTooFar(release, latestRelease + MAX_STEP);
        }
        if (rounds == 0) revert ModelRegistry_NoRounds();
        uint256 members = membership.memberCount();
        uint32 needed = _mayOpen(members);
        if (memberIds.length < needed) {
            revert ModelRegistry_TooFewMembers(memberIds.length, needed);
        }
        if (helperIds.length > MAX_HELPERS) {
            revert ModelRegistry_TooManyHelpers(helperIds.length, MAX_HELPERS);
        }
        if (currentRelease != 0) {
            uint256 holder = _releases[currentRelease].coordinatorId;
            if (holder != id && _isCoordinator(holder)) {
                revert ModelRegistry_ReleaseHeld(currentRelease, holder);
            }
            _abandon(currentRelease);
        }

        latestRelease = release;
        currentRelease = release;
        _releases[release] = Release({
            coordinatorId: id,
            policyHash: policyHash,
            baseSha256: baseSha256,
            rounds: rounds,
            lastRound: 0,
            signaturesNeeded: needed,
            // Membership allows MAX_MEMBERS, which is 256.
            // forge-lint: disable-next-line(unsafe-typecast)
            members: uint16(members),
            openedAt: uint64(block.timestamp),
            version: 0,
            state: ReleaseState.Open
        });
        emit ReleaseOpened(
            release, id, policyHash, baseSha256, rounds, needed, memberIds, helperIds
        );
        _enrol(release, membership.MEMBER(), memberIds);
        _enrol(release, membership.HELPER(), helperIds);
    }

    /// @notice Binds a round to one set of uploads, before any of it is unmasked: helpers answer
    /// only for the manifest that stands here, and there is one for each round for ever.
    /// @dev Rounds ascend strictly, which also means once each. Numbers may be left out: a round
    /// that is abandoned before its manifest (too few uploads, a helper away) must leave none, and
    /// its number is not used again. The seat is looked up now and not when the release was opened,
    /// so that expelling a coordinator stops it at once, and giving it a new key does not stop it.
    function postManifest(uint64 release, uint32 round, bytes32 root) external {
        Release storage r = _open(release);
        _requireCoordinatorOf(release, r.coordinatorId);
        if (root == 0) revert ModelRegistry_ZeroRoot();
        if (round <= r.lastRound) revert ModelRegistry_RoundNotAscending(round, r.lastRound);
        if (round > r.rounds) revert ModelRegistry_RoundPastLimit(round, r.rounds);
        r.lastRound = round;
        _manifests[release][round] = root;
        emit ManifestPosted(release, round, root);
    }

    /// @notice Ends a release without a model. By its coordinator or the owner.
    function abandonRelease(uint64 release) external {
        Release storage r = _open(release);
        if (msg.sender != owner()) _requireCoordinatorOf(release, r.coordinatorId);
        _abandon(release);
        currentRelease = 0;
    }

    /* MEMBERS */

    /// @notice Ends a release with a model, live after the activation delay. Anybody may call it:
    /// the signatures bind every argument, this contract and this chain, and the release ends, so
    /// they serve once.
    /// @param uri Where to find the artifact: a hint, since whoever loads it checks the hash. It is
    /// in the event only; nothing on-chain reads it.
    /// @dev The signatures needed are those of the quorum at the opening or of the quorum now,
    /// whichever is more: a share that was raised meanwhile counts, one that was lowered does not.
    /// @param epsilonMicro Rounded up by those who sign. Zero is refused: training without spending
    /// does not exist, and it would pass the cap for ever.
    /// @param signatures Of the release's members, 65 bytes each, ascending by the signer's
    /// address, which makes each count once. More than needed are checked as well: a wrong one is a
    /// mistake that should be seen.
    function publish(
        uint64 release,
        uint64 version,
        bytes32 sha256,
        string calldata uri,
        uint64 epsilonMicro,
        bytes[] calldata signatures
    ) external {
        Release storage r = _open(release);
        if (version <= latestVersion) revert ModelRegistry_StaleVersion(version, latestVersion);
        if (version - latestVersion > MAX_STEP) {
            revert ModelRegistry_VersionTooFar(version, latestVersion + MAX_STEP);
        }
        if (sha256 == 0) revert ModelRegistry_ZeroHash();
        if (bytes(uri).length > MAX_URI_BYTES) {
            revert ModelRegistry_UriTooLong(bytes(uri).length, MAX_URI_BYTES);
        }
        if (epsilonMicro == 0) revert ModelRegistry_ZeroEpsilon();
        uint64[28] memory p = _parameters();
        _requireWithinCap(epsilonMicro, p[ParameterRules.EPSILON_TOTAL_MICRO]);
        (, uint256 pending) = _activeAndPending();
        if (pending >= MAX_PENDING) revert ModelRegistry_TooManyPending(MAX_PENDING);
        _requireQuorum(
            release,
            _signaturesNeeded(r, p),
            digest(release, version, sha256, uri, epsilonMicro),
            signatures
        );

        r.state = ReleaseState.Published;
        r.version = version;
        currentRelease = 0;
        publishedOpenedAt = r.openedAt;
        latestVersion = version;
        epsilonSpentMicro += epsilonMicro;
        uint64 liveFrom = _liveFrom(p[ParameterRules.ACTIVATION_DELAY_S]);
        _models[version] = Model({
            sha256: sha256,
            release: release,
            liveFrom: liveFrom,
            epsilonMicro: epsilonMicro,
            older: _newest,
            newer: 0,
            revoked: false
        });
        if (_newest != 0) _models[_newest].newer = version;
        _newest = version;
        emit ModelPublished(version, release, sha256, liveFrom, epsilonMicro, uri);
    }

    /* OWNER AND GUARDIAN */

    /// @notice Withdraws a version for ever, before or after it goes live. What is live then is the
    /// newest older version that has not been revoked, or nothing.
    /// @dev A version is withdrawn, not its bytes: a quorum may publish the same hash again under a
    /// new version, with the delay in which it may be revoked again.
    function revoke(uint64 version) external {
        if (msg.sender != guardian && msg.sender != owner()) {
            revert ModelRegistry_NotGuardian(msg.sender);
        }
        Model storage m = _models[version];
        if (m.sha256 == 0) revert ModelRegistry_UnknownVersion(version);
        if (m.revoked) revert ModelRegistry_AlreadyRevoked(version);
        m.revoked = true;
        if (m.newer == 0) _newest = m.older;
        else _models[m.newer].older = m.older;
        if (m.older != 0) _models[m.older].newer = m.newer;
        emit ModelRevoked(version);
    }

    /// @notice Appoints who may revoke besides the owner; zero for nobody.
    function setGuardian(address guardian_) external onlyOwner {
        emit GuardianChanged(guardian, guardian_);
        guardian = guardian_;
    }

    /// @notice Refused: without an owner nobody could appoint a guardian or abandon a captured
    /// release.
    function renounceOwnership() public view override onlyOwner {
        revert ModelRegistry_OwnerRequired();
    }

    /* VIEWS */

    /// @notice The model that agents must use: the newest version that is active and not revoked;
    /// zeros if none.
    function live()
        external
        view
        returns (uint64 version, bytes32 sha256, uint64 liveFrom, uint64 epsilonMicro)
    {
        (version,) = _activeAndPending();
        Model storage m = _models[version]; // version 0 is never published: all zeros
        return (version, m.sha256, m.liveFrom, m.epsilonMicro);
    }

    /// @notice What the sum of epsilon over all publications must not pass, as it is now. Adding up
    /// is the most cautious way to compose; members keep the finer account, and refuse by it, on
    /// their own machines.
    function epsilonCapMicro() external view returns (uint64) {
        (uint64[28] memory p,,) = parameterStore.parameters();
        return p[ParameterRules.EPSILON_TOTAL_MICRO];
    }

    /// @notice From when on the next release may be opened, as the interval is now; 0 if nothing was
    /// published.
    function earliestOpening() external view returns (uint64) {
        (uint64[28] memory p,,) = parameterStore.parameters();
        return _earliestOpening(p);
    }

    /// @notice A published version, revoked or not.
    function model(uint64 version)
        external
        view
        returns (bytes32 sha256, uint64 release, uint64 liveFrom, uint64 epsilonMicro, bool revoked)
    {
        Model storage m = _models[version];
        if (m.sha256 == 0) revert ModelRegistry_UnknownVersion(version);
        return (m.sha256, m.release, m.liveFrom, m.epsilonMicro, m.revoked);
    }

    /// @notice A release, in whatever state it is.
    function releaseOf(uint64 release) external view returns (Release memory) {
        return _known(release);
    }

    /// @notice How many signatures would publish this release now.
    function signaturesNeeded(uint64 release) external view returns (uint256) {
        (uint64[28] memory p,,) = parameterStore.parameters();
        return _signaturesNeeded(_known(release), p);
    }

    /// @notice Whether this address may sign the publication of this release.
    function isSigner(uint64 release, address signer) external view returns (bool) {
        return _isSigner[release][signer];
    }

    /// @notice The root posted for a round; zero if there is none.
    function manifestOf(uint64 release, uint32 round) external view returns (bytes32) {
        return _manifests[release][round];
    }

    function hasManifest(uint64 release, uint32 round) external view returns (bool) {
        return _manifests[release][round] != 0;
    }

    /// @notice What a member signs to publish this. For comparison with what its own machine
    /// computes.
    function digest(
        uint64 release,
        uint64 version,
        bytes32 sha256,
        string calldata uri,
        uint64 epsilonMicro
    ) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    PUBLICATION_TYPEHASH,
                    release,
                    version,
                    sha256,
                    keccak256(bytes(uri)),
                    epsilonMicro
                )
            )
        );
    }

    /* INTERNAL */

    /// @dev Refuses an opening that the parameters do not allow now; gives the quorum.
    function _mayOpen(uint256 members) private view returns (uint32 needed) {
        uint64[28] memory p = _parameters();
        uint64 earliest = _earliestOpening(p);
        if (block.timestamp < earliest) revert ModelRegistry_TooSoon(earliest);
        uint64 capMicro = p[ParameterRules.EPSILON_TOTAL_MICRO];
        if (epsilonSpentMicro >= capMicro) {
            revert ModelRegistry_CapReached(epsilonSpentMicro, capMicro);
        }
        return _share(members, p);
    }

    /// @dev Fixes who takes part in a role. Ids ascend, so none counts twice; the number of loops
    /// is bounded by MAX_HELPERS for helpers and by Membership.MAX_MEMBERS for members, since each
    /// id must hold the role.
    function _enrol(uint64 release, uint8 role, uint256[] calldata ids) private {
        address[] memory signers = new address[](ids.length);
        bytes32[] memory keys = new bytes32[](ids.length);
        uint256 previous = 0;
        bool signs = role == membership.MEMBER();
        for (uint256 i = 0; i < ids.length; ++i) {
            if (ids[i] <= previous) revert ModelRegistry_IdsNotAscending(previous, ids[i]);
            previous = ids[i];
            Membership.Seat memory s = membership.seat(previous);
            if (s.roles & role == 0) revert ModelRegistry_WrongRole(previous, role);
            signers[i] = s.signer;
            keys[i] = s.x25519;
            if (signs) _isSigner[release][s.signer] = true;
        }
        emit ReleaseRoster(release, role, ids, signers, keys);
    }

    function _abandon(uint64 release) private {
        _releases[release].state = ReleaseState.Abandoned;
        emit ReleaseAbandoned(release);
    }

    /// @dev The parameters in force; refuses while everything is paused.
    function _parameters() private view returns (uint64[28] memory values) {
        bool paused;
        (values, paused,) = parameterStore.parameters();
        if (paused) revert ModelRegistry_Paused();
    }

    function _earliestOpening(uint64[28] memory p) private view returns (uint64) {
        if (publishedOpenedAt == 0) return 0;
        return publishedOpenedAt + p[ParameterRules.RELEASE_INTERVAL_S];
    }

    /// @dev The cap may have been lowered below what is spent.
    function _requireWithinCap(uint64 epsilonMicro, uint64 capMicro) private view {
        if (uint256(epsilonSpentMicro) + epsilonMicro > capMicro) {
            revert ModelRegistry_CapExceeded(epsilonSpentMicro, epsilonMicro, capMicro);
        }
    }

    /// @dev After the delay, and not before the version that waits ahead of it: versions go live in
    /// the order of their numbers, also where the delay was shortened meanwhile.
    function _liveFrom(uint64 delayS) private view returns (uint64 liveFrom) {
        liveFrom = uint64(block.timestamp) + delayS;
        uint64 ahead = _models[_newest].liveFrom; // version 0 is never published: 0
        if (ahead > liveFrom) return ahead;
    }

    /// @dev The quorum when the release was opened or the quorum now, whichever is more.
    function _signaturesNeeded(Release storage r, uint64[28] memory p)
        private
        view
        returns (uint256)
    {
        return Math.max(r.signaturesNeeded, _share(r.members, p));
    }

    /// @dev The share of `members` rounded up. At least one, since the share is more than half and
    /// a registry without a member has nobody to sign.
    function _share(uint256 members, uint64[28] memory p) private pure returns (uint32) {
        uint256 bps = p[ParameterRules.QUORUM_BPS];
        uint256 needed = (members * bps + ParameterRules.BPS - 1) / ParameterRules.BPS;
        // No more than `members`, of whom Membership allows MAX_MEMBERS.
        // forge-lint: disable-next-line(unsafe-typecast)
        return needed == 0 ? 1 : uint32(needed);
    }

    /// @dev The newest unrevoked version that is active (0 if none), and how many newer ones wait
    /// for activation. Revoked versions are out of the list, and versions activate in the order in
    /// which they were published (see _liveFrom), so the walk passes waiting versions only:
    /// MAX_PENDING at most, as `publish` adds no more.
    function _activeAndPending() private view returns (uint64 active, uint256 pending) {
        active = _newest;
        while (active != 0 && block.timestamp < _models[active].liveFrom) {
            active = _models[active].older;
            ++pending;
        }
    }

    function _requireQuorum(
        uint64 release,
        uint256 needed,
        bytes32 signed,
        bytes[] calldata signatures
    ) private view {
        if (signatures.length < needed) {
            revert ModelRegistry_TooFewSignatures(signatures.length, needed);
        }
        address previous = address(0);
        for (uint256 i = 0; i < signatures.length; ++i) {
            // Refuses malleable signatures, other lengths, and those that recover to no address.
            address signer = ECDSA.recoverCalldata(signed, signatures[i]);
            if (!_isSigner[release][signer]) {
                revert ModelRegistry_NotReleaseMember(release, signer);
            }
            if (signer <= previous) revert ModelRegistry_SignersNotAscending(previous, signer);
            previous = signer;
        }
    }

    function _known(uint64 release) private view returns (Release storage r) {
        r = _releases[release];
        if (r.state == ReleaseState.Unknown) revert ModelRegistry_UnknownRelease(release);
    }

    function _open(uint64 release) private view returns (Release storage) {
        // Release 0 is never opened, and currentRelease is 0 while none is open.
        if (release == 0 || release != currentRelease) {
            revert ModelRegistry_ReleaseNotOpen(release);
        }
        return _releases[release];
    }

    function _requireCoordinatorOf(uint64 release, uint256 coordinatorId) private view {
        uint256 id = membership.idOfSigner(msg.sender);
        if (id != coordinatorId || !_isCoordinator(id)) {
            revert ModelRegistry_NotReleaseCoordinator(release, msg.sender);
        }
    }

    /// @dev False for a seat that is gone: its signer and its roles are.
    function _isCoordinator(uint256 id) private view returns (bool) {
        return membership.hasRole(id, membership.COORDINATOR());
    }
}
