"""What a proposal's calls do, in words: read from the calls themselves, never from a description.

A call that is not known here, or goes to another contract than it should, is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from fedtrade.chain import parameter_store as store
from fedtrade.chain.contracts import ADMIT, EXPEL, REVOKE, UPDATE
from fedtrade.chain.plan import ROLES
from fedtrade.governed import RULES, Governed
from fedtrade.venues import governance as gov
from fedtrade.venues.codec import Call


def in_words(call: Call, names: Mapping[str, str], present: Governed) -> list[str]:
    """One call, a line for each thing that it does."""
    target = names.get(call.to, call.to)
    worth = f", with {call.value_wei / 1e18:g} of the native token" if call.value_wei else ""
    for function, owners, words in _KNOWN:
        if call.data[:4] == function.selector and target in owners:
            try:
                given = function.decode_input(call.data)
                if function.encode(*given) != call.data:
                    break  # more than its words would say
                return [line + worth for line in words(target, given, present)]
            except (DecodingError, ValueError, IndexError, OverflowError):
                break  # not what its selector says: shown as what nobody knows
    return [
        f"UNKNOWN call 0x{call.data[:4].hex()} of {target} with {len(call.data)} bytes{worth}: find "
        "out what it does before you vote"
    ]


def changed(rule_id: int, old: int, new: int) -> str:
    """One parameter's change, with its unit and direction."""
    rule = RULES[rule_id]
    way = "the same" if new == old else "tighter" if rule.tightens(new, old) else "looser"
    return f"{rule.name}: {old:,} → {new:,} {rule.unit} ({way})"


def _set(_: str, given: tuple[Any, ...], present: Governed) -> list[str]:
    ids, values = given
    return [changed(i, present.values[i], value) for i, value in zip(ids, values, strict=True)]


def _roles(mask: int) -> str:
    return " and ".join(name for name, bit in ROLES.items() if mask & bit) or "no role"


def _admit(_: str, given: tuple[Any, ...], __: Governed) -> list[str]:
    account, signer, key, mask = given
    return [
        f"admit {to_checksum_address(account)} as {_roles(mask)}, signing with "
        f"{to_checksum_address(signer)}, encryption key 0x{key.hex()}"
    ]


def _update(_: str, given: tuple[Any, ...], __: Governed) -> list[str]:
    seat, signer, key, mask = given
    return [
        f"seat {seat}: {_roles(mask)}, signing with {to_checksum_address(signer)}, encryption key "
        f"0x{key.hex()}"
    ]


def _said(form: str) -> Any:
    """A line in which {0} is the argument and {to} the contract."""

    def words(target: str, given: tuple[Any, ...], _: Governed) -> list[str]:
        return [form.format(*given, to=target)]

    return words


_OWNED: Final = ("ModelRegistry", "ParameterStore", "Membership")
_KNOWN: Final = (
    (store.SET, ("ParameterStore",), _set),
    (ADMIT, ("Membership",), _admit),
    (UPDATE, ("Membership",), _update),
    (EXPEL, ("Membership",), _said("expel seat {0}")),
    (REVOKE, ("ModelRegistry",), _said("revoke version {0}, for ever")),
    (gov.SET_GUARDIAN, _OWNED, _said("{to}: the guardian becomes {0}")),
    (store.SET_STEWARD, _OWNED, _said("{to}: the steward becomes {0}")),
    (store.PAUSE, ("ParameterStore",), _said("pause everything")),
    (store.UNPAUSE, ("ParameterStore",), _said("let everything go on")),
    (store.VETO, ("ParameterStore",), _said("end what the steward did")),
    (gov.SET_PROPOSAL_GUARDIAN, ("ConsortiumGovernor",), _said("{to}: the guardian becomes {0}")),
    (gov.SET_VOTING_DELAY, ("ConsortiumGovernor",), _said("voting begins {0} s after a proposal")),
    (gov.SET_VOTING_PERIOD, ("ConsortiumGovernor",), _said("voting lasts {0} s")),
    (gov.SET_LATE_QUORUM, ("ConsortiumGovernor",), _said("a late quorum extends a vote by {0} s")),
    (gov.SET_QUORUM_BPS, ("ConsortiumGovernor",), _said("a proposal needs {0} bps of all members")),
    (gov.UPDATE_DELAY, ("ConsortiumTimelock",), _said("what was passed waits for {0} s")),
)
"""Calls that are put into words: function, contracts whose call it may be, and the words."""
