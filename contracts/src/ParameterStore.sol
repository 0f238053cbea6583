// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

import {IParameters} from "./IParameters.sol";
import {ParameterRules} from "./ParameterRules.sol";

/// @title ParameterStore
/// @notice The governed parameters of the consortium: what privacy a release must keep, how models
/// are published, how much risk agents may take. There are two sets. The *governed* one stands until
/// it is changed. The *interim* one is in force in its place for a term of INTERIM_S at most, and
/// then lapses by itself. Each obeys ParameterRules as a whole at every moment, so no mixture of
/// the two ever comes into force, and none is left behind when a term ends.
///
/// Powers:
/// - The owner (governance, behind a time lock) sets any parameter to anything that the rules allow,
///   ends a term, pauses and unpauses, appoints steward and guardian. It cannot pass a hard bound or
///   break a joint rule: other rules are another contract.
/// - The steward (an automated key) moves parameters in small steps, each only so often, for one
///   term. It cannot lengthen its term, touch the governed set, loosen anything by more than a few
///   steps of its governed value in all, or do anything while paused.
/// - The guardian tightens, ends a term, pauses: it can only make everybody more careful. What it
///   tightened stays so until governance moves it.
/// - Nobody upgrades or destroys this contract, and it holds no funds.
///
/// A write that breaks a rule is refused as a whole. It is never cut down to what is allowed: two
/// values that belong together must not come into force one without the other.
contract ParameterStore is Ownable2Step, IParameters {
    /* CONSTANTS */

    /// @notice The longest that what the steward did is in force.
    uint64 public constant INTERIM_S = 7 days;

    /* STORAGE */

    uint64[28] private _governed;

    /// @dev Without meaning unless the term is on.
    uint64[28] private _interim;

    uint64[28] private _lastSteered;

    /// @dev End of the term; the interim values are in force before it. 0 if it was ended.
    uint64 private _interimUntil;

    /// @notice Counts the writes. Who has seen this number has seen everything up to it.
    uint64 public sequence;

    /// @notice While true nothing is steered, no release is opened, no model published, and no
    /// agent may act.
    bool public paused;

    /// @notice May tighten, end a term, and pause. Zero if there is none.
    address public guardian;

    /// @notice May steer. Zero if there is none.
    address public steward;

    /* EVENTS */

    /// @notice What is in force after a write. A term ends by time alone, without an event: whoever
    /// keeps these values looks at ParametersSteered for when, or asks again.
    event ParametersChanged(uint64 indexed sequence, uint64[28] values, bool paused);
    event ParametersSet(uint8[] ids, uint64[] values);
    event ParametersSteered(address indexed by, uint8[] ids, uint64[] values, uint64 until);
    event ParametersTightened(address indexed by, uint8[] ids, uint64[] values);
    event InterimEnded(address indexed by);
    event PauseChanged(address indexed by, bool paused);
    event GuardianChanged(address indexed before, address indexed guardian);
    event StewardChanged(address indexed before, address indexed steward);

    /* ERRORS */

    error ParameterStore_OwnerRequired();
    error ParameterStore_NotGuardian(address caller);
    error ParameterStore_NotSteward(address caller);
    error ParameterStore_Paused();
    error ParameterStore_NotPaused();
    error ParameterStore_NoInterim();

    error ParameterStore_NoParameters();
    error ParameterStore_LengthsDiffer(uint256 ids, uint256 values);
    error ParameterStore_IdsNotAscending(uint8 previous, uint8 id);
    error ParameterStore_StepTooFar(uint8 id, uint64 from, uint64 to);
    error ParameterStore_OutOfReach(uint8 id, uint64 governed, uint64 to);
    error ParameterStore_TooSoon(uint8 id, uint64 earliest);
    error ParameterStore_Looser(uint8 id, uint64 value, uint64 than);
    error ParameterStore_NothingTighter();

    /* CONSTRUCTOR */

    /// @param owner_ Governance. Zero is refused by Ownable.
    /// @param values The first governed set, in the order and the units of ParameterRules.
    constructor(address owner_, uint64[28] memory values) Ownable(owner_) {
        ParameterRules.requireSound(values);
        _governed = values;
        _wrote();
    }

    /* OWNER */

    /// @notice Sets parameters, in the governed set and, while a term is on, in the interim set as
    /// well. Where the interim set would then break a joint rule the term ends: what governance
    /// decides comes into force.
    /// @param ids Ascending, each once.
    function set(uint8[] calldata ids, uint64[] calldata values) external onlyOwner {
        _requireList(ids, values);
        uint64[28] memory governed_ = _governed;
        uint64[28] memory interim_ = _interim;
        for (uint256 i = 0; i < ids.length; ++i) {
            ParameterRules.requireBounds(ids[i], values[i]);
            governed_[ids[i]] = values[i];
            interim_[ids[i]] = values[i];
        }
        ParameterRules.requireConsistent(governed_);
        _governed = governed_;
        emit ParametersSet(ids, values);
        if (_termIsOn()) {
            if (ParameterRules.broken(interim_) == 0) _interim = interim_;
            else _endTerm();
        }
        _wrote();
    }

    /// @notice Lets everything go on.
    function unpause() external onlyOwner {
        if (!paused) revert ParameterStore_NotPaused();
        _setPaused(false);
    }

    /// @notice Appoints who may tighten and pause besides the owner; zero for nobody.
    function setGuardian(address guardian_) external onlyOwner {
        emit GuardianChanged(guardian, guardian_);
        guardian = guardian_;
    }

    /// @notice Appoints who may steer; zero for nobody. A term that is on goes on: `veto` ends it.
    function setSteward(address steward_) external onlyOwner {
        emit StewardChanged(steward, steward_);
        steward = steward_;
    }

    /// @notice Refused: without an owner nobody could undo what the guardian tightened or paused.
    function renounceOwnership() public view override onlyOwner {
        revert ParameterStore_OwnerRequired();
    }

    /* STEWARD */

    /// @notice Moves parameters by one step each, for the rest of the term that is on, or for a new
    /// one. The values it starts from are those in force.
    /// @param ids Ascending, each once, and none that was steered within its cool-down.
    /// @dev The end of a term that is on is not moved, so that a steward cannot stay in force by
    /// steering on. What a term did is gone when it ends: the next begins at the governed set.
    function steer(uint8[] calldata ids, uint64[] calldata values) external {
        if (msg.sender != steward) revert ParameterStore_NotSteward(msg.sender);
        if (paused) revert ParameterStore_Paused();
        _requireList(ids, values);
        uint64[28] memory next = _inForce();
        for (uint256 i = 0; i < ids.length; ++i) {
            uint8 id = ids[i];
            uint64 to = values[i];
            ParameterRules.requireBounds(id, to);
            if (!ParameterRules.withinStep(id, next[id], to)) {
                revert ParameterStore_StepTooFar(id, next[id], to);
            }
            if (!ParameterRules.withinReach(id, _governed[id], to)) {
                revert ParameterStore_OutOfReach(id, _governed[id], to);
            }
            _coolDown(id);
            next[id] = to;
        }
        ParameterRules.requireConsistent(next);
        if (!_termIsOn()) _interimUntil = uint64(block.timestamp) + INTERIM_S;
        _interim = next;
        emit ParametersSteered(msg.sender, ids, values, _interimUntil);
        _wrote();
    }

    /* GUARDIAN */

    /// @notice Tightens parameters in both sets, until governance moves them. Each value must be at
    /// least as tight as both sets have it, and one of them tighter than one of the sets.
    /// @param ids Ascending, each once. Where a tighter value alone would break a joint rule, what
    /// belongs to it has to be tightened in the same call.
    /// @dev A steward cannot be in the way: if its interim set breaks a joint rule, end the term
    /// first.
    function tighten(uint8[] calldata ids, uint64[] calldata values) external {
        if (msg.sender != guardian) revert ParameterStore_NotGuardian(msg.sender);
        _requireList(ids, values);
        uint64[28] memory governed_ = _governed;
        uint64[28] memory inForce = _inForce();
        bool tighter = false;
        for (uint256 i = 0; i < ids.length; ++i) {
            (uint8 id, uint64 value) = (ids[i], values[i]);
            ParameterRules.requireBounds(id, value);
            if (!ParameterRules.asTight(id, value, governed_[id])) {
                revert ParameterStore_Looser(id, value, governed_[id]);
            }
            if (!ParameterRules.asTight(id, value, inForce[id])) {
                revert ParameterStore_Looser(id, value, inForce[id]);
            }
            if (value != governed_[id] || value != inForce[id]) tighter = true;
            governed_[id] = value;
            inForce[id] = value;
        }
        if (!tighter) revert ParameterStore_NothingTighter();
        ParameterRules.requireConsistent(governed_);
        ParameterRules.requireConsistent(inForce); // once more the same, if no term is on
        _governed = governed_;
        if (_termIsOn()) _interim = inForce;
        emit ParametersTightened(msg.sender, ids, values);
        _wrote();
    }

    /* OWNER AND GUARDIAN */

    /// @notice Ends the term that is on: the governed set is in force at once.
    function veto() external {
        _requireGuardianOrOwner();
        if (!_termIsOn()) revert ParameterStore_NoInterim();
        _endTerm();
        _wrote();
    }

    /// @notice Stops everything. Only the owner lets it go on.
    function pause() external {
        _requireGuardianOrOwner();
        if (paused) revert ParameterStore_Paused();
        _setPaused(true);
    }

    /* VIEWS */

    /// @inheritdoc IParameters
    function parameters()
        external
        view
        returns (uint64[28] memory values, bool paused_, uint64 asOf)
    {
        return (_inForce(), paused, uint64(block.timestamp));
    }

    /// @notice What stands when no term is on.
    function governed() external view returns (uint64[28] memory values) {
        return _governed;
    }

    /// @notice The interim set and the end of its term; the governed set and 0 if no term is on.
    function interim() external view returns (uint64[28] memory values, uint64 until) {
        return (_inForce(), _termIsOn() ? _interimUntil : 0);
    }

    /// @notice When the steward last moved this parameter; 0 if never.
    function lastSteered(uint8 id) external view returns (uint64) {
        if (id >= ParameterRules.COUNT) revert ParameterRules.ParameterRules_UnknownParameter(id);
        return _lastSteered[id];
    }

    /// @notice Everything that another chain needs to know what is in force there, at any time until
    /// the next write.
    function snapshot()
        external
        view
        returns (
            uint64[28] memory governed_,
            uint64[28] memory interim_,
            uint64 interimUntil,
            bool paused_,
            uint64 sequence_
        )
    {
        return (_governed, _inForce(), _termIsOn() ? _interimUntil : 0, paused, sequence);
    }

    /* INTERNAL */

    function _termIsOn() private view returns (bool) {
        return block.timestamp < _interimUntil;
    }

    function _inForce() private view returns (uint64[28] memory) {
        return _termIsOn() ? _interim : _governed;
    }

    /// @dev Ids ascend, so none counts twice and there are COUNT at most.
    function _requireList(uint8[] calldata ids, uint64[] calldata values) private pure {
        if (ids.length == 0) revert ParameterStore_NoParameters();
        if (ids.length != values.length) {
            revert ParameterStore_LengthsDiffer(ids.length, values.length);
        }
        for (uint256 i = 1; i < ids.length; ++i) {
            if (ids[i] <= ids[i - 1]) revert ParameterStore_IdsNotAscending(ids[i - 1], ids[i]);
        }
    }

    function _requireGuardianOrOwner() private view {
        if (msg.sender != guardian && msg.sender != owner()) {
            revert ParameterStore_NotGuardian(msg.sender);
        }
    }

    /// @dev Refuses a parameter that was steered a short time ago, and notes that it is steered now.
    function _coolDown(uint8 id) private {
        (,,, uint32 coolDownS,) = ParameterRules.rule(id);
        uint64 last = _lastSteered[id];
        if (last != 0 && block.timestamp < last + coolDownS) {
            revert ParameterStore_TooSoon(id, last + coolDownS);
        }
        _lastSteered[id] = uint64(block.timestamp);
    }

    function _endTerm() private {
        _interimUntil = 0;
        emit InterimEnded(msg.sender);
    }

    function _setPaused(bool paused_) private {
        paused = paused_;
        emit PauseChanged(msg.sender, paused_);
        _wrote();
    }

    /// @dev The end of every write.
    function _wrote() private {
        emit ParametersChanged(++sequence, _inForce(), paused);
    }
}
